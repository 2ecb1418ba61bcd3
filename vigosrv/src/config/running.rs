//! Who works in a server root: the lock that only one server can hold, and the file by which others find it.

use std::path::Path;

use common::cli::{Exit, Failure};
use common::sys::{FileError, Lock, LockError, Owner, file};
use serde::{Deserialize, Serialize};

use crate::sys::swap;

/// Bytes of `run/vigosrv.json`.
const RUN_FILE_BYTES_MAX: u64 = 4 << 10;

/// Version of the form of `run/vigosrv.json`.
pub const RUN_FILE_SCHEMA: u32 = 1;

/// What a running server says of itself in `run/vigosrv.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Version of this form: [`RUN_FILE_SCHEMA`].
    pub schema: u32,
    /// Process id.
    pub pid: u32,
    /// Address of the agent listener, as bound.
    pub grpc: String,
    /// Address of the API listener, as bound.
    pub api: String,
    /// Version of the server.
    pub version: String,
}

/// Takes the lock of a root. Every command that changes the root holds it; `who` is what a second one is told.
pub fn lock_root(root: &Path, who: &str) -> Result<Lock, Failure> {
    let run = root.join("run");
    let prepare = || {
        file::make_dir(root, 0o755, None)?;
        file::make_dir(&run, 0o700, Some(Owner::of(root)?))
    };
    prepare().map_err(|e: FileError| Failure::failed(e.to_string()))?;
    let lock = Lock::take(&run.join("lock"), who).map_err(|error| match error {
        LockError::Held { .. } => {
            Failure::new(Exit::TryAgain, format!("another process works in {}: {error}", root.display()))
                .hint("wait for it, stop it, or choose another root with `--root`")
        }
        LockError::File(error) => Failure::failed(error.to_string()),
    })?;
    // The next one may be a server that runs as the owner of the root.
    let owner = Owner::of(root).map_err(|error| Failure::failed(error.to_string()))?;
    file::hand_over(&run.join("lock"), Some(owner)).map_err(|error| Failure::failed(error.to_string()))?;
    // Whoever had it before may have died in a restore.
    swap::settle(root).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(lock)
}

impl Running {
    /// This process, listening here.
    pub fn now(grpc: String, api: String) -> Running {
        let version = common::cli::VERSION.to_string();
        Running { schema: RUN_FILE_SCHEMA, pid: std::process::id(), grpc, api, version }
    }

    /// Writes `run/vigosrv.json`, when the server is ready.
    pub fn write(&self, root: &Path) -> Result<(), FileError> {
        // Plain values in a fixed struct always serialise.
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        file::write_atomic(&path(root), text.as_bytes(), 0o644, Some(Owner::of(root)?))
    }

    /// What the file says, if it is there and whole. The server may be gone all the same: the lock decides.
    pub fn read(root: &Path) -> Option<Running> {
        serde_json::from_slice(&file::read_bounded(&path(root), RUN_FILE_BYTES_MAX).ok()?).ok()
    }

    /// Removes the file, at a clean stop.
    pub fn remove(root: &Path) {
        // A file that stays behind is harmless: the lock decides.
        let _ = std::fs::remove_file(path(root));
    }
}

fn path(root: &Path) -> std::path::PathBuf {
    root.join("run/vigosrv.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_learns_who_holds_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_root(dir.path(), "vigosrv serve").unwrap();
        let second = lock_root(dir.path(), "vigosrv serve").unwrap_err();
        assert_eq!(second.exit, Exit::TryAgain);
        assert!(second.what.contains(&format!("held by pid {}, vigosrv serve", std::process::id())), "{second}");
        drop(first);
        assert!(lock_root(dir.path(), "vigocli config publish").is_ok());
    }

    #[test]
    fn the_run_file_tells_where_the_server_listens() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let running = Running::now("127.0.0.1:1".into(), "[::1]:2".into());
        running.write(dir.path()).unwrap();
        assert_eq!(Running::read(dir.path()), Some(running));
        std::fs::write(dir.path().join("run/vigosrv.json"), "{\"pid\": 7").unwrap();
        assert_eq!(Running::read(dir.path()), None);
        Running::remove(dir.path());
        assert_eq!(Running::read(dir.path()), None);
    }
}
