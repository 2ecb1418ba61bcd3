//! Log lines on standard error: text for people, JSON for machines, with the priority prefix that journald understands when
//! it listens. Never a secret: what is logged was written for it.

use std::io::Write;

use crate::log::Level;
use crate::time::Wall;

/// Where lines go, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logger {
    level: Level,
    json: bool,
    journald: bool,
}

impl Logger {
    /// Lines up to this level. Under systemd (`JOURNAL_STREAM`) text lines carry a priority and no time of their own.
    pub fn new(level: Level, json: bool) -> Logger {
        Logger { level, json, journald: std::env::var_os("JOURNAL_STREAM").is_some() }
    }

    /// Writes one line. A log that cannot be written must not stop anything.
    pub fn line(&self, at: Wall, level: Level, text: &str) {
        if level <= self.level {
            let _ = std::io::stderr().write_all(self.format(at, level, text).as_bytes());
        }
    }

    fn format(&self, at: Wall, level: Level, text: &str) -> String {
        let text = super::redaction::clean(text);
        let text = crate::cli::one_line(&text);
        match (self.json, self.journald) {
            (true, _) => {
                let line = serde_json::json!({"time": at.to_string(), "level": level.name(), "message": text});
                format!("{line}\n")
            }
            (false, true) => format!("<{}>{text}\n", level.priority()),
            (false, false) => format!("{at} {level:<5} {text}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_their_reader() {
        let logger = |json, journald| Logger { level: Level::Info, json, journald };
        let line = |logger: Logger| logger.format(Wall(0), Level::Warn, "two\nlines");
        assert_eq!(line(logger(false, true)), "<4>two lines\n");
        assert!(line(logger(false, false)).starts_with("1970-01-01T00:00:00.000Z warn  two"));
        assert!(line(logger(true, false)).contains("\"level\":\"warn\""));
    }
}
