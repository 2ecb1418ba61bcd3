//! A directory with everything below it into a snapshot. It walks through open directories, never follows a link, and stays in
//! one file system. What is as it was in the snapshot before becomes another name of the same file.
//!
//! Three system calls for a file that did not change: a look at it, a look at the one before, a link. One that looks the same but was
//! touched since is read and compared. Bounds: directories
//! within each other. What cannot be read is an error, as nothing is whole without it; what went away meanwhile is none.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use common::units::human_bytes;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use super::copy::{Copied, Copier, Trouble, mtime_of};
use super::exclude::Exclude;
use super::gzip::is_same;
use super::keeping::Spot;
use crate::exec::fault::Fault;
use crate::exec::host::{Host, kind_of, mode_of};
use crate::sys::xattr;

/// Directories within each other: each holds three descriptors.
const DEPTH_MAX: usize = 128;
/// Entries between two looks at the clock.
const CLOCK_EVERY: u64 = 64;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const PATH_ONLY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What is asked for.
pub struct Order<'o> {
    /// The directory, as it is called in messages.
    pub path: &'o str,
    /// The directory.
    pub source: OwnedFd,
    /// What is left out.
    pub exclude: &'o Exclude,
    /// Whether files may be shared with the snapshot before.
    pub link: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files and links.
    pub files: u64,
    /// Those of them that are new or have changed.
    pub copied: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Files that changed each time they were read.
    pub changing: u64,
    /// Sockets, FIFOs and devices, which have no content.
    pub special: u64,
    /// Directories that other file systems are mounted on: they are empty in the snapshot.
    pub mounted: u64,
}

struct Walk<'w> {
    /// The directory of all snapshots, which is left out.
    target: (libc::dev_t, libc::ino_t),
    exclude: &'w Exclude,
    link: bool,
    device: libc::dev_t,
    copier: Copier<'w>,
    counts: Counts,
    seen: u64,
    /// Of the source.
    top: &'w str,
    /// Below the source, with a slash in front of each name.
    path: Vec<u8>,
}

/// Makes the snapshot.
pub fn copy(host: &Host, spot: &Spot<'_>, order: Order<'_>, deadline: common::time::Mono) -> Result<Counts, Fault> {
    let halt = || host.is_stopping() || host.now().mono >= deadline;
    let target = fstat(spot.target).map_err(Fault::io("look at", "the target"))?;
    let mut walk = Walk {
        target: (target.st_dev, target.st_ino),
        exclude: order.exclude,
        link: order.link,
        device: fstat(&order.source).map_err(Fault::io("look at", order.path))?.st_dev,
        copier: Copier::new(host.is_privileged(), &halt),
        counts: Counts::default(),
        seen: 0,
        top: order.path,
        path: Vec::new(),
    };
    walk.directory(order.source, spot.base, spot.to, 0)?;
    walk.counts.bytes = walk.copier.bytes;
    Ok(walk.counts)
}

impl Counts {
    /// For people.
    pub fn describe(&self) -> String {
        let mut parts = vec![match (self.files, self.copied) {
            (files, copied) if copied == files => format!("{files} files, {}", human_bytes(self.bytes)),
            (files, copied) => format!("{files} files, {copied} of them new or changed, {}", human_bytes(self.bytes)),
        }];
        for (n, what) in [
            (self.changing, "changed while they were read"),
            (self.special, "sockets, FIFOs or devices left out"),
            (self.mounted, "directories with other file systems left out"),
        ] {
            if n > 0 {
                parts.push(format!("{n} {what}"));
            }
        }
        parts.join(", ")
    }
}

impl Walk<'_> {
    fn directory(&mut self, source: OwnedFd, base: Option<&OwnedFd>, to: &OwnedFd, depth: usize) -> Result<(), Fault> {
        let stat = fstat(&source).map_err(|errno| self.fault("look at", errno))?;
        let mut dir = Dir::openat(&source, ".", DIRECTORY, Mode::empty()).map_err(|errno| self.fault("read", errno))?;
        for entry in dir.iter() {
            let entry = entry.map_err(|errno| self.fault("read", errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            self.entry(&source, base, to, name, depth)?;
            self.path.truncate(length);
        }
        self.copier.dress(&source, to, &stat).map_err(|trouble| self.trouble(trouble))
    }

    fn entry(
        &mut self,
        source: &OwnedFd,
        base: Option<&OwnedFd>,
        to: &OwnedFd,
        name: &CStr,
        depth: usize,
    ) -> Result<(), Fault> {
        self.seen += 1;
        if self.seen.is_multiple_of(CLOCK_EVERY) && (self.copier.halt)() {
            return Err(self.trouble(Trouble::Halt));
        }
        let stat = match fstatat(source, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(self.fault("look at", errno)),
        };
        let kind = kind_of(&stat);
        if self.exclude.takes(&self.path[1..], kind == SFlag::S_IFDIR) || (stat.st_dev, stat.st_ino) == self.target {
            return Ok(());
        }
        match kind {
            SFlag::S_IFDIR => self.below(source, base, to, name, &stat, depth),
            SFlag::S_IFREG | SFlag::S_IFLNK => self.file(source, base, to, name, &stat),
            _ => {
                self.counts.special += 1;
                Ok(())
            }
        }
    }

    fn below(
        &mut self,
        source: &OwnedFd,
        base: Option<&OwnedFd>,
        to: &OwnedFd,
        name: &CStr,
        stat: &FileStat,
        depth: usize,
    ) -> Result<(), Fault> {
        if depth >= DEPTH_MAX {
            let path = self.shown();
            return Err(Fault::Failed(format!("{path} is more than {DEPTH_MAX} directories deep; `exclude` it")));
        }
        let inside = match openat(source, name, DIRECTORY, Mode::empty()) {
            Ok(inside) => inside,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(errno) => return Err(self.fault("open", errno)),
        };
        mkdirat(to, name, Mode::S_IRWXU).map_err(|errno| self.fault("create a copy of", errno))?;
        let new = openat(to, name, DIRECTORY, Mode::empty()).map_err(|errno| self.fault("open the copy of", errno))?;
        if stat.st_dev != self.device {
            self.counts.mounted += 1;
            return self.copier.dress(&inside, &new, stat).map_err(|trouble| self.trouble(trouble));
        }
        let before = base.and_then(|base| openat(base, name, PATH_ONLY, Mode::empty()).ok());
        self.directory(inside, before.as_ref(), &new, depth + 1)
    }

    fn file(
        &mut self,
        source: &OwnedFd,
        base: Option<&OwnedFd>,
        to: &OwnedFd,
        name: &CStr,
        stat: &FileStat,
    ) -> Result<(), Fault> {
        if let Some(base) = base.filter(|_| self.link)
            && let Ok(before) = fstatat(base, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            && self.is_same(stat, &before)
            && (!was_touched(stat, &before) || self.has_same_content(source, base, name))
        {
            match linkat(base, name, to, name, AtFlags::empty()) {
                Ok(()) => {
                    self.counts.files += 1;
                    return Ok(());
                }
                // It has as many names as it can have, or the file system knows no second ones: a copy begins anew.
                Err(Errno::EMLINK | Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOENT) => {}
                Err(errno) => return Err(self.fault("link to the copy of", errno)),
            }
        }
        let copied = match kind_of(stat) {
            SFlag::S_IFREG => self.copier.file(source, to, name),
            _ => self.symlink(source, to, name, stat),
        };
        match copied.map_err(|trouble| self.trouble(trouble))? {
            Copied::Vanished => return Ok(()),
            Copied::Changing => self.counts.changing += 1,
            Copied::Whole => {}
        }
        self.counts.files += 1;
        self.counts.copied += 1;
        Ok(())
    }

    fn is_same(&self, stat: &FileStat, before: &FileStat) -> bool {
        let of = |stat: &FileStat| (kind_of(stat), stat.st_size, stat.st_mtime, stat.st_mtime_nsec, mode_of(stat));
        // Without the right to set owners they are those of the agent.
        let owned = !self.copier.privileged || (stat.st_uid, stat.st_gid) == (before.st_uid, before.st_gid);
        owned && of(stat) == of(before)
    }

    /// Whether what looks the same is the same, read from both.
    fn has_same_content(&self, source: &OwnedFd, base: &OwnedFd, name: &CStr) -> bool {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let open = |dir: &OwnedFd| openat(dir, name, flags, Mode::empty()).map(File::from);
        match (open(source), open(base)) {
            (Ok(one), Ok(other)) => {
                // What says nothing against it when it fails is copied anew.
                let plain = |file: &File| xattr::has_none(file.as_fd()).unwrap_or(false);
                plain(&one) && plain(&other) && is_same(one, other).unwrap_or(false)
            }
            (Err(Errno::ELOOP), Err(Errno::ELOOP)) => {
                matches!((readlinkat(source, name), readlinkat(base, name)), (Ok(one), Ok(other)) if one == other)
            }
            _ => false,
        }
    }

    fn symlink(&self, source: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &FileStat) -> Result<Copied, Trouble> {
        let text = match readlinkat(source, name) {
            Ok(text) => text,
            Err(Errno::ENOENT | Errno::EINVAL) => return Ok(Copied::Vanished),
            Err(errno) => return Err(Trouble::Source(errno)),
        };
        symlinkat(text.as_os_str(), to, name).map_err(Trouble::Target)?;
        if self.copier.privileged && (stat.st_uid, stat.st_gid) != (0, 0) {
            let (uid, gid) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
            fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(Trouble::Target)?;
        }
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(to, name, &TimeSpec::UTIME_OMIT, &mtime_of(stat), flags).map_err(Trouble::Target)?;
        Ok(Copied::Whole)
    }

    /// The path at hand, for people.
    fn shown(&self) -> String {
        format!("{}{}", self.top.trim_end_matches('/'), String::from_utf8_lossy(&self.path))
    }

    fn fault(&self, action: &'static str, errno: Errno) -> Fault {
        Fault::io(action, &self.shown())(errno)
    }

    fn trouble(&self, trouble: Trouble) -> Fault {
        match trouble {
            Trouble::Source(errno) => self.fault("read", errno),
            Trouble::Target(errno) => self.fault("write a copy of", errno),
            Trouble::Halt => Fault::Failed(format!(
                "ended at {}: the agent stops, or it took longer than the `timeout` of the resource",
                self.shown()
            )),
        }
    }
}

/// Whether the source was changed in any way since the copy got its last name, by the clock of the kernel that wrote both. Times of
/// modification can be put back (packages do, and `touch -r`); this one cannot.
fn was_touched(stat: &FileStat, before: &FileStat) -> bool {
    (stat.st_ctime, stat.st_ctime_nsec) >= (before.st_ctime, before.st_ctime_nsec)
}
