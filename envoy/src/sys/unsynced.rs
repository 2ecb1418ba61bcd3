//! Directories whose names have changed and are not durable yet. Many changes of one run fall into few directories: each is synced
//! once, at the end, instead of after every change.
//!
//! Whoever makes changes must [`Unsynced::flush`] before it says that they were made.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use common::limits::UNSYNCED_DIRECTORIES_MAX;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc::{dev_t, ino_t};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::fsync;

/// The directories, bounded: at the bound the oldest are synced first.
#[derive(Debug, Default)]
pub struct Unsynced {
    dirs: Vec<(dev_t, ino_t, Arc<OwnedFd>)>,
}

impl Unsynced {
    /// Notes that a name in this directory has changed.
    pub fn note(&mut self, dir: &Arc<OwnedFd>) -> io::Result<()> {
        let stat = fstat(dir.as_fd())?;
        if self.dirs.iter().any(|(dev, ino, _)| (*dev, *ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        if self.dirs.len() >= UNSYNCED_DIRECTORIES_MAX {
            self.flush()?;
        }
        self.dirs.push((stat.st_dev, stat.st_ino, Arc::clone(dir)));
        Ok(())
    }

    /// Makes all of it durable. After an error the rest was tried too, and nothing is left: the first error.
    pub fn flush(&mut self) -> io::Result<()> {
        let results: Vec<io::Result<()>> = self.dirs.drain(..).map(|(_, _, dir)| sync_directory(&dir)).collect();
        results.into_iter().collect()
    }
}

/// Makes the names in a directory durable. One that may be written but not read cannot be synced by its user.
fn sync_directory(dir: &OwnedFd) -> io::Result<()> {
    match openat(dir.as_fd(), ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(readable) => match fsync(readable.as_fd()) {
            // A file system without anything to sync.
            Ok(()) | Err(Errno::EINVAL | Errno::EROFS) => Ok(()),
            Err(errno) => Err(errno.into()),
        },
        // Not ours to read, or removed meanwhile: then its parent is what counts, and that is noted too.
        Err(Errno::EACCES | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    fn open(path: &std::path::Path) -> Arc<OwnedFd> {
        Arc::new(File::open(path).unwrap().into())
    }

    #[test]
    fn a_directory_is_noted_once_and_forgotten_when_it_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let mut unsynced = Unsynced::default();
        unsynced.note(&open(dir.path())).unwrap();
        unsynced.note(&open(dir.path())).unwrap();
        assert_eq!(unsynced.dirs.len(), 1);
        unsynced.flush().unwrap();
        assert!(unsynced.dirs.is_empty());
    }

    #[test]
    fn the_number_of_open_directories_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut unsynced = Unsynced::default();
        for n in 0..UNSYNCED_DIRECTORIES_MAX + 2 {
            let path = dir.path().join(n.to_string());
            fs::create_dir(&path).unwrap();
            unsynced.note(&open(&path)).unwrap();
            assert!(unsynced.dirs.len() <= UNSYNCED_DIRECTORIES_MAX);
        }
        assert_eq!(unsynced.dirs.len(), 2);
    }

    #[test]
    fn a_directory_that_was_removed_meanwhile_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone");
        fs::create_dir(&path).unwrap();
        let mut unsynced = Unsynced::default();
        unsynced.note(&open(&path)).unwrap();
        fs::remove_dir(&path).unwrap();
        unsynced.flush().unwrap();
    }
}
