//! Why a resource was not brought to its state.

use std::fmt;
use std::io;

use common::outcome::Outcome;
use nix::errno::Errno;

use crate::plan::Verdict;
use crate::sys::root::WalkError;

/// One reason, with the path or parameter to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The rendered parameters are not usable.
    Parameter(String),
    /// The path could not be walked.
    Walk(WalkError),
    /// A system call failed.
    Io {
        /// What was being done: `write`, `rename`.
        action: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        errno: Errno,
    },
    /// It could be done, and will not be.
    Refused(String),
    /// A command, or a check of ours, says no.
    Failed(String),
    /// Something that the resource needs is not there yet: no disk, no blob.
    Blocked(String),
}

impl Fault {
    /// For `map_err`.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: &str) -> impl FnOnce(E) -> Fault {
        let path = path.to_string();
        move |error| {
            let errno = error.into().raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            Fault::Io { action, path, errno }
        }
    }

    /// Whether the resource failed, or the host is in no state to do it.
    pub fn outcome(&self) -> Outcome {
        let errno = match self {
            Fault::Blocked(_) => return Outcome::Blocked,
            Fault::Io { errno, .. } | Fault::Walk(WalkError::Io { errno, .. }) => *errno,
            _ => return Outcome::Failed,
        };
        match errno {
            Errno::ENOSPC
            | Errno::EDQUOT
            | Errno::EFBIG
            | Errno::EROFS
            | Errno::EIO
            | Errno::ENOMEM
            | Errno::EMFILE
            | Errno::ENFILE
            | Errno::EAGAIN
            | Errno::ESTALE => Outcome::Blocked,
            _ => Outcome::Failed,
        }
    }

    /// As what is reported.
    pub fn verdict(&self) -> Verdict {
        Verdict { outcome: self.outcome(), message: self.to_string(), diff: String::new() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Walk(error) => write!(f, "{error}"),
            Fault::Io { action, path, errno } => {
                write!(f, "cannot {action} {path}: {}", errno.desc())?;
                match errno {
                    Errno::ENOSPC | Errno::EDQUOT => f.write_str("; free some space"),
                    Errno::EROFS => f.write_str("; mount it writable"),
                    Errno::EBUSY => f.write_str("; something is mounted there"),
                    _ => Ok(()),
                }
            }
            Fault::Parameter(text) | Fault::Refused(text) | Fault::Failed(text) | Fault::Blocked(text) => {
                f.write_str(text)
            }
        }
    }
}

impl std::error::Error for Fault {}

impl From<WalkError> for Fault {
    fn from(error: WalkError) -> Fault {
        Fault::Walk(error)
    }
}
