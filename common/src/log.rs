//! How loud a log line is. Cores ask for lines by effects; shells write them.

use std::fmt;

/// Loudness of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Wrong, and somebody should look.
    Error,
    /// Odd, and handled.
    Warn,
    /// One line a decision.
    Info,
    /// For developers.
    Debug,
}

impl Level {
    /// The word in `log.level` and in front of lines.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// From that word.
    pub fn from_name(name: &str) -> Option<Level> {
        [Level::Error, Level::Warn, Level::Info, Level::Debug].into_iter().find(|level| level.name() == name)
    }

    /// Priority of syslog and journald (RFC 5424 section 6.2.1).
    pub fn priority(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug => 7,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
