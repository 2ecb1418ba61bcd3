//! Small files: read with a bound, written whole or not at all, private where they hold keys.
//!
//! Limits: callers name the bound of a read. Not for the files that the executors manage.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file operation that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// `read`, `write`, ...
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What kind of failure, to decide on.
    pub kind: io::ErrorKind,
    /// As the system put it.
    pub reason: String,
}

/// Who a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.action, self.path.display(), self.reason)
    }
}

impl std::error::Error for FileError {}

impl FileError {
    /// Wraps an error of the system.
    pub fn new(action: &'static str, path: &Path, error: &io::Error) -> FileError {
        // Without " (os error 2)", which helps nobody.
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let mut characters = text.chars();
        let first = characters.next().map(|c| c.to_ascii_lowercase());
        let reason = first.into_iter().chain(characters).collect();
        FileError { action, path: path.to_path_buf(), kind: error.kind(), reason }
    }
}

impl Owner {
    /// Of an existing file or directory.
    pub fn of(path: &Path) -> Result<Owner, FileError> {
        let found = std::fs::metadata(path).map_err(|e| FileError::new("read the owner of", path, &e))?;
        Ok(Owner { uid: found.uid(), gid: found.gid() })
    }

    /// Of this process.
    pub fn own() -> Owner {
        Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }
}

/// Reads a file of at most `max` bytes.
pub fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let wrap = |e| FileError::new("read", path, &e);
    let mut out = Vec::new();
    File::open(path).map_err(wrap)?.take(max + 1).read_to_end(&mut out).map_err(wrap)?;
    if out.len() as u64 > max {
        let text = format!("it is larger than {}", crate::units::human_bytes(max));
        return Err(wrap(io::Error::new(io::ErrorKind::FileTooLarge, text)));
    }
    Ok(out)
}

/// Writes a file whole: a reader, or a power cut, sees the old content or the new.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<(), FileError> {
    put(path, bytes, mode, owner, |from, to| std::fs::rename(from, to))
}

/// As [`write_atomic`], but never over an existing file: that is an error of kind `AlreadyExists`.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<(), FileError> {
    put(path, bytes, mode, owner, |from, to| std::fs::hard_link(from, to).and_then(|()| std::fs::remove_file(from)))
}

/// Makes a directory and what is missing above it. An existing one is left as it is.
pub fn make_dir(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), FileError> {
    let wrap = |e| FileError::new("make the directory", path, &e);
    if path.is_dir() {
        return Ok(());
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => make_dir(parent, 0o755, owner)?,
        _ => {}
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(wrap(e)),
        _ => {}
    }
    // mkdir(2) takes the umask off.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(wrap)?;
    give(path, owner).map_err(wrap)
}

/// Refuses a file that others than its owner may read or change, or that belongs to somebody else.
pub fn check_private(path: &Path) -> Result<(), FileError> {
    let found = std::fs::metadata(path).map_err(|e| FileError::new("read", path, &e))?;
    let refuse = |reason: String| {
        Err(FileError { action: "trust", path: path.into(), kind: io::ErrorKind::PermissionDenied, reason })
    };
    if found.mode() & 0o077 != 0 {
        let wanted = if found.is_dir() { "700" } else { "600" };
        let mode = found.mode() & 0o7777;
        return refuse(format!("others may open it (mode {mode:04o}); run `chmod {wanted} {}`", path.display()));
    }
    let own = Owner::own();
    if own.uid != 0 && found.uid() != own.uid {
        return refuse(format!("it belongs to uid {}, this process runs as uid {}", found.uid(), own.uid));
    }
    Ok(())
}

/// Gives a file to its owner, where this process acts for another user.
pub fn hand_over(path: &Path, owner: Option<Owner>) -> Result<(), FileError> {
    give(path, owner).map_err(|e| FileError::new("change the owner of", path, &e))
}

/// Makes everything durable that was written to the file system of a directory.
pub fn sync_file_system(dir: &Path) -> Result<(), FileError> {
    let wrap = |e| FileError::new("sync", dir, &e);
    let file = File::open(dir).map_err(wrap)?;
    nix::unistd::syncfs(&file).map_err(|errno| wrap(errno.into()))
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> Result<(), FileError> {
    let wrap = |e| FileError::new("sync", path, &e);
    match File::open(path).map_err(wrap)?.sync_all() {
        // Some file systems cannot sync a directory, and need not.
        Err(e) if e.kind() != io::ErrorKind::InvalidInput => Err(wrap(e)),
        _ => Ok(()),
    }
}

fn put(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<Owner>,
    place: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<(), FileError> {
    // Unique among the threads and processes that may write here at the same time.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let wrap = |e| FileError::new("write", path, &e);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| wrap(io::ErrorKind::InvalidInput.into()))?.to_string_lossy();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = parent.join(format!(".{name}.{}.{number}.tmp", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        give(&temporary, owner)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        place(&temporary, path)
    })();
    if let Err(error) = written {
        // Best effort: the error that matters is the first.
        let _ = std::fs::remove_file(&temporary);
        return Err(wrap(error));
    }
    sync_dir(parent)
}

/// Only root can give files away, and only a root that acts for another user has to. Not what a link points to: that user may
/// have put it there.
fn give(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    match owner {
        Some(owner) if owner != Owner::own() && Owner::own().uid == 0 => {
            std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomic(&path, b"one", 0o600, None).unwrap();
        write_atomic(&path, b"two", 0o640, None).unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(names(dir.path()), ["key"]);
    }

    #[test]
    fn a_new_file_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_new(&path, b"one", 0o600, None).unwrap();
        assert_eq!(write_new(&path, b"two", 0o600, None).unwrap_err().kind, io::ErrorKind::AlreadyExists);
        assert_eq!(read_bounded(&path, 9).unwrap(), b"one");
        assert_eq!(names(dir.path()), ["key"]);
    }

    #[test]
    fn errors_name_the_path_and_the_reason() {
        let error = write_atomic(Path::new("/nonexistent/x"), b"", 0o600, None).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /nonexistent/x: no such file or directory");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        std::fs::write(&path, [0; 100]).unwrap();
        assert!(read_bounded(&path, 99).unwrap_err().to_string().ends_with("it is larger than 99 B"));
    }

    #[test]
    fn open_permissions_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomic(&path, b"", 0o600, None).unwrap();
        assert_eq!(check_private(&path), Ok(()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(check_private(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_link_is_given_and_not_what_it_points_to() {
        let owner = Owner { uid: 12_345, gid: 12_345 };
        if Owner::own().uid != 0 {
            // Nobody else can give anything: nothing happens.
            return assert_eq!(hand_over(Path::new("/nonexistent"), Some(owner)), Ok(()));
        }
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        hand_over(&link, Some(owner)).unwrap();
        assert_eq!(std::fs::symlink_metadata(&link).unwrap().uid(), owner.uid);
        assert_eq!(std::fs::symlink_metadata(&file).unwrap().uid(), 0);
    }

    #[test]
    fn directories_get_their_mode_and_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_dir(&path, 0o700, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        make_dir(&path, 0o755, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}
