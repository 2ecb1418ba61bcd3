//! Locks that the kernel releases when their holder dies. The text in the file only says who it is.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::FileError;

/// An exclusive lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    path: PathBuf,
}

/// Why a lock was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockError {
    /// Somebody has it.
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself: `pid 4711, vigosrv`. May be empty for a moment after it started.
        holder: String,
    },
    /// The file cannot be opened or written.
    File(FileError),
}

/// Bytes of a holder's text that are read.
const HOLDER_BYTES_MAX: u64 = 512;

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { path, holder } if holder.is_empty() => {
                write!(f, "{} is held by another process", path.display())
            }
            LockError::Held { path, holder } => write!(f, "{} is held by {holder}", path.display()),
            LockError::File(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LockError {}

impl Lock {
    /// Takes the lock at once, or says who has it. `who` is what others will read after the pid.
    pub fn take(path: &Path, who: &str) -> Result<Lock, LockError> {
        let wrap = |action, e| LockError::File(FileError::new(action, path, &e));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // Where others may write, a link in its place would have another file emptied.
        options.custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(path).map_err(|e| wrap("open the lock", e))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                let mut lock = Lock { file, path: path.to_path_buf() };
                lock.note(who)?;
                Ok(lock)
            }
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                // Unreadable or no text: the lock is held all the same.
                let _ = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
                Err(LockError::Held { path: path.to_path_buf(), holder: holder.trim().to_string() })
            }
            Err((_, errno)) => Err(wrap("lock", errno.into())),
        }
    }

    /// Says what the holder is doing now.
    pub fn note(&mut self, who: &str) -> Result<(), LockError> {
        let text = format!("pid {}, {}\n", std::process::id(), crate::cli::one_line(who));
        let file: &mut File = &mut self.file;
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(|e| LockError::File(FileError::new("write", &self.path, &e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_learns_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut first = Lock::take(&path, "the first, a long text").unwrap();
        first.note("first").unwrap();
        let expected = format!("{} is held by pid {}, first", path.display(), std::process::id());
        assert_eq!(Lock::take(&path, "second").unwrap_err().to_string(), expected);
        drop(first);
        assert!(Lock::take(&path, "second").is_ok());
    }

    #[test]
    fn a_stale_text_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "pid 1, somebody long gone\n").unwrap();
        assert!(Lock::take(&path, "me").is_ok());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (other, path) = (dir.path().join("other"), dir.path().join("lock"));
        std::fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(matches!(Lock::take(&path, "me"), Err(LockError::File(_))));
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "kept");
    }

    #[test]
    fn a_missing_directory_is_an_error_with_its_path() {
        let error = Lock::take(Path::new("/nonexistent/lock"), "me").unwrap_err();
        assert!(error.to_string().starts_with("cannot open the lock /nonexistent/lock: "));
    }
}
