//! How a command ends: the exit statuses of the product, and one line that says what, where and what to do next.

use std::fmt;

/// Exit status (the CLI conventions; numbers from `sysexits.h` where there is one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The thing asked for failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The server cannot be reached.
    Unreachable,
    /// Locked or overloaded: the same command may work later.
    TryAgain,
    /// Not permitted.
    NotPermitted,
    /// A configuration is wrong: a restart cannot cure it.
    BadConfig,
    /// A documented status of one command: `--detailed-exitcodes`, monitoring plugins.
    Other(u8),
}

/// A command that could not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Status to exit with.
    pub exit: Exit,
    /// What went wrong, and where.
    pub what: String,
    /// What to do next; may be empty.
    pub hint: String,
    /// What lies below, outermost first; shown with `--verbose`.
    pub causes: Vec<String>,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::Unreachable => 69,
            Exit::TryAgain => 75,
            Exit::NotPermitted => 77,
            Exit::BadConfig => 78,
            Exit::Other(code) => code,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> std::process::ExitCode {
        std::process::ExitCode::from(exit.code())
    }
}

impl Failure {
    /// A failure with its status and what went wrong.
    pub fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), hint: String::new(), causes: Vec::new() }
    }

    /// The thing asked for failed (1).
    pub fn failed(what: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, what)
    }

    /// The command line is wrong (64).
    pub fn usage(what: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, what)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        self
    }

    /// Adds an error and everything below it.
    #[must_use]
    pub fn cause(mut self, error: &dyn std::error::Error) -> Failure {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// The text for stderr: one line, and with `verbose` the chain below it.
    pub fn render(&self, program: &str, verbose: bool) -> String {
        let mut out = format!("{program}: {}\n", super::output::one_line(&self.to_string()));
        for cause in self.causes.iter().filter(|_| verbose) {
            out.push_str(&format!("  caused by: {}\n", super::output::one_line(cause)));
        }
        out
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_verbose_shows_the_chain() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such\nfile");
        let failure = Failure::failed("cannot read stacks/\nroles/a.vgo").hint("create it").cause(&io);
        assert_eq!(failure.render("vigocli", false), "vigocli: cannot read stacks/ roles/a.vgo; create it\n");
        assert!(failure.render("vigocli", true).ends_with("\n  caused by: no such file\n"));
    }

    #[test]
    fn statuses_have_the_numbers_of_the_product() {
        let all = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::TryAgain, Exit::NotPermitted];
        assert_eq!(all.map(Exit::code), [0, 1, 64, 69, 75, 77]);
        assert_eq!((Exit::BadConfig.code(), Exit::Other(6).code()), (78, 6));
    }
}
