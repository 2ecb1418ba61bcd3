//! Replacing a file whole: a temporary file in the same directory, synced, renamed over the old one.
//! Whatever fails or dies in between, the old file is still there and complete. The directory is for the caller to sync (see
//! [`super::unsynced`]).
//!
//! The temporary name is a function of the target's, so that what a killed agent left behind is reused and not piled up.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::root::Place;
use super::xattr;

/// A new file that is not at its place yet. Dropped without [`Replacement::commit`], it goes away.
pub struct Replacement {
    dir: Arc<OwnedFd>,
    name: String,
    file: File,
    committed: bool,
}

/// What a file should have in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner; `None` leaves the agent's.
    pub uid: Option<u32>,
    /// Group; `None` leaves the agent's.
    pub gid: Option<u32>,
}

impl Replacement {
    /// Creates the temporary file, readable by nobody else.
    pub fn begin(place: &Place<'_>) -> io::Result<Replacement> {
        let name = temporary_name(place.name);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(place.dir.as_fd(), name.as_str(), flags, Mode::from_bits_truncate(0o600));
        let fd = match create() {
            // Left behind by an agent that was killed; nothing else uses this name.
            Err(Errno::EEXIST) => {
                unlinkat(place.dir.as_fd(), name.as_str(), UnlinkatFlags::NoRemoveDir)?;
                create()?
            }
            other => other?,
        };
        Ok(Replacement { dir: Arc::clone(&place.dir), name, file: File::from(fd), committed: false })
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Its name in the directory, for a validator.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Sets attributes, taking extended ones over from the old file: in this order, because changing the owner clears
    /// set-user-id bits and an ACL changes the mode.
    pub fn dress(&self, attributes: Attributes, old: Option<&File>) -> io::Result<()> {
        if attributes.uid.is_some() || attributes.gid.is_some() {
            let stat = fstat(self.file.as_fd())?;
            let uid = attributes.uid.filter(|uid| *uid != stat.st_uid);
            let gid = attributes.gid.filter(|gid| *gid != stat.st_gid);
            if uid.is_some() || gid.is_some() {
                fchown(self.file.as_fd(), uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
            }
        }
        if let Some(old) = old {
            xattr::copy(old.as_fd(), self.file.as_fd())?;
        }
        Ok(fchmod(self.file.as_fd(), Mode::from_bits_truncate(attributes.mode as libc::mode_t))?)
    }

    /// Makes its content durable and puts it at its place; the name is durable when the directory is synced.
    pub fn commit(mut self, place: &Place<'_>) -> io::Result<()> {
        self.file.sync_all()?;
        renameat(self.dir.as_fd(), self.name.as_str(), place.dir.as_fd(), place.name)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing to be done about a failure: the name is reused next time.
            let _ = unlinkat(self.dir.as_fd(), self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// `.vigo-` and 16 digits that depend on the name: short enough wherever the name itself fits.
pub fn temporary_name(name: &str) -> String {
    let hash = common::crypto::sha256(&[name.as_bytes()]);
    format!(".vigo-{:016x}", hash.short())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::Root;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn the_new_file_has_its_attributes_and_no_rest_remains() {
        let dir = tempfile::tempdir().unwrap();
        let mut root = Root::try_new(Some(dir.path())).unwrap();
        let place = root.locate("/x").unwrap();
        fs::write(dir.path().join(temporary_name("x")), "rest of a killed agent").unwrap();
        let mut new = Replacement::begin(&place).unwrap();
        new.write(b"content").unwrap();
        new.dress(Attributes { mode: 0o640, uid: None, gid: None }, None).unwrap();
        new.commit(&place).unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"content");
        assert_eq!(fs::metadata(dir.path().join("x")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_committed_goes_away_and_the_old_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "old").unwrap();
        let before = fs::metadata(dir.path().join("x")).unwrap().ino();
        let mut root = Root::try_new(Some(dir.path())).unwrap();
        let mut new = Replacement::begin(&root.locate("/x").unwrap()).unwrap();
        new.write(b"half").unwrap();
        drop(new);
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"old");
        assert_eq!(fs::metadata(dir.path().join("x")).unwrap().ino(), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
