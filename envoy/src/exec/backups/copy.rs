//! One file into a snapshot: its bytes without its holes, its owner, mode, times and extended attributes.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchown, lseek};

use crate::exec::host::{kind_of, mode_of};
use crate::sys::xattr;

/// How often a file is read that changes meanwhile. One that changes all the time, like a log, is then taken as it is.
const ATTEMPTS: u32 = 3;
/// Bytes that are copied between two looks at the deadline.
const PIECE: u64 = 8 << 20;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// It is in the snapshot.
    Whole,
    /// The same, but it changed while it was read, each time.
    Changing,
    /// It is not there any more, or something else is.
    Vanished,
}

/// Why it was not copied.
#[derive(Debug)]
pub enum Trouble {
    /// The source cannot be read.
    Source(Errno),
    /// The snapshot cannot be written.
    Target(Errno),
    /// It is time to end.
    Halt,
}

/// How files are copied.
pub struct Copier<'c> {
    /// Whether owners can be set.
    pub privileged: bool,
    /// Whether to end.
    pub halt: &'c dyn Fn() -> bool,
    /// Bytes that were copied so far.
    pub bytes: u64,
}

impl<'c> Copier<'c> {
    /// With nothing copied yet.
    pub fn new(privileged: bool, halt: &'c dyn Fn() -> bool) -> Copier<'c> {
        Copier { privileged, halt, bytes: 0 }
    }

    /// Copies a regular file under the same name.
    pub fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<Copied, Trouble> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let mut source = match openat(from.as_fd(), name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            // A link, a socket or nothing is there by now.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO | Errno::ESTALE) => return Ok(Copied::Vanished),
            Err(errno) => return Err(Trouble::Source(errno)),
        };
        let mut stat = fstat(&source).map_err(Trouble::Source)?;
        if kind_of(&stat) != SFlag::S_IFREG {
            return Ok(Copied::Vanished);
        }
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let new = openat(to.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(Trouble::Target)?;
        let mut new = File::from(new);
        for attempt in 1.. {
            self.content(&mut source, &mut new, &stat)?;
            let after = fstat(&source).map_err(Trouble::Source)?;
            if is_unchanged(&stat, &after) {
                break;
            }
            if attempt == ATTEMPTS {
                // With the time from before it was read: the next snapshot takes it anew.
                self.dress(&source, &new, &stat)?;
                return Ok(Copied::Changing);
            }
            stat = after;
            new.set_len(0).and_then(|()| new.rewind()).map_err(|error| Trouble::Target(errno_of(&error)))?;
            source.rewind().map_err(|error| Trouble::Source(errno_of(&error)))?;
        }
        self.dress(&source, &new, &stat)?;
        Ok(Copied::Whole)
    }

    /// Gives owner, extended attributes, mode and time of modification; in this order, as a change of the owner clears
    /// set-user-id bits, and whatever changes a directory its time.
    pub fn dress(&self, from: &impl AsFd, to: &impl AsFd, stat: &FileStat) -> Result<(), Trouble> {
        if self.privileged && (stat.st_uid, stat.st_gid) != (0, 0) {
            fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).map_err(Trouble::Target)?;
        }
        xattr::copy(from.as_fd(), to.as_fd()).map_err(|error| Trouble::Target(errno_of(&error)))?;
        fchmod(to, Mode::from_bits_truncate(mode_of(stat) as _)).map_err(Trouble::Target)?;
        futimens(to, &TimeSpec::UTIME_OMIT, &mtime_of(stat)).map_err(Trouble::Target)
    }

    fn content(&mut self, source: &mut File, new: &mut File, stat: &FileStat) -> Result<(), Trouble> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // Blocks of 512 bytes, whatever the file system uses.
        let is_sparse = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < size;
        let mut at = 0;
        while at < size {
            let (from, to) = if is_sparse { data_after(source, at, size)? } else { (at, size) };
            if from > at || is_sparse {
                for file in [&mut *source, &mut *new] {
                    file.seek(SeekFrom::Start(from)).map_err(|error| Trouble::Source(errno_of(&error)))?;
                }
            }
            let copied = self.range(source, new, to - from)?;
            self.bytes += copied;
            at = to;
            if copied < to - from {
                // It became shorter; that is seen in a moment.
                return Ok(());
            }
        }
        if is_sparse {
            new.set_len(size).map_err(|error| Trouble::Target(errno_of(&error)))?;
        }
        Ok(())
    }

    /// From where both files are; gives how much there was.
    fn range(&mut self, source: &mut File, new: &mut File, length: u64) -> Result<u64, Trouble> {
        let mut done = 0;
        while done < length {
            if done > 0 && (self.halt)() {
                return Err(Trouble::Halt);
            }
            // In the kernel, where it can.
            let mut piece = (&*source).take((length - done).min(PIECE));
            match std::io::copy(&mut piece, new) {
                Ok(0) => return Ok(done),
                Ok(n) => done += n,
                Err(error) => return Err(Trouble::Target(errno_of(&error))),
            }
        }
        Ok(done)
    }
}

/// When it was last modified.
pub fn mtime_of(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec as _)
}

/// The next piece that is no hole: where it begins and ends.
fn data_after(source: &File, at: u64, size: u64) -> Result<(u64, u64), Trouble> {
    let seek = |at: u64, whence| match lseek(source, at as libc::off_t, whence) {
        Ok(at) => Ok(u64::try_from(at).unwrap_or(size).min(size)),
        // Nothing but a hole up to the end.
        Err(Errno::ENXIO) => Ok(size),
        Err(errno) => Err(Trouble::Source(errno)),
    };
    let from = match seek(at, Whence::SeekData) {
        // A file system without holes.
        Err(Trouble::Source(Errno::EINVAL)) => return Ok((at, size)),
        from => from?,
    };
    Ok((from, seek(from, Whence::SeekHole)?))
}

fn is_unchanged(before: &FileStat, after: &FileStat) -> bool {
    let of = |stat: &FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
    of(before) == of(after)
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;
    use std::os::unix::fs::FileExt;

    /// Copies a file of several pieces that changes at the first `changes` looks at the deadline.
    fn check(changes: u32, expected: Copied) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["from", "to"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let path = dir.path().join("from/x");
        fs::write(&path, vec![0; 2 * PIECE as usize + 5]).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let left = Cell::new(changes);
        let halt = || {
            if left.get() > 0 {
                left.set(left.get() - 1);
                // Before what was read already; the time of the change is what tells, so it is made to differ.
                file.write_all_at(&[left.get() as u8 + 1], 3).unwrap();
                file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(left.get()) + 9))
                    .unwrap();
            }
            false
        };
        let open = |name: &str| OwnedFd::from(fs::File::open(dir.path().join(name)).unwrap());
        let copied = Copier::new(false, &halt).file(&open("from"), &open("to"), c"x").unwrap();
        assert_eq!(copied, expected, "{changes} changes");
        if expected == Copied::Whole {
            assert!(fs::read(&path).unwrap() == fs::read(dir.path().join("to/x")).unwrap());
            let modified = |name: &str| fs::metadata(dir.path().join(name)).unwrap().modified().unwrap();
            assert_eq!(modified("from/x"), modified("to/x"));
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again_and_not_for_ever() {
        check(0, Copied::Whole);
        check(1, Copied::Whole);
        check(u32::MAX, Copied::Changing);
    }

    #[test]
    fn what_is_gone_or_became_something_else_has_vanished() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OwnedFd::from(fs::File::open(dir.path()).unwrap());
        std::os::unix::fs::symlink("x", dir.path().join("link")).unwrap();
        for name in [c"gone", c"link"] {
            let copied = Copier::new(false, &|| false).file(&open(), &open(), name).unwrap();
            assert_eq!(copied, Copied::Vanished, "{name:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
