//! The directory that holds the snapshots of one resource: which there are, how a new one comes to its name, how an old one goes.
//!
//! A name is whole or not there: a snapshot is built under another one, made durable, and renamed; one that goes is renamed
//! first. What a run that was killed left under such a name is removed by the next. Nothing else in the directory is touched.

use std::os::fd::{AsFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{fsync, syncfs};

use super::stamp::Stamp;
use crate::exec::fault::Fault;
use crate::exec::files::directory::remove_all;
use crate::exec::host::{Host, kind_of};
use crate::sys::root::WalkError;

/// In front of the name of what is not whole.
const PARTIAL: &str = ".partial-";

/// How directories are opened.
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The directory.
pub struct Series<'p> {
    dir: OwnedFd,
    path: &'p str,
}

/// The directory, for the one who writes: another one waits for its next run.
pub struct Locked<'p> {
    series: Series<'p>,
    _lock: Flock<OwnedFd>,
}

/// What is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whole snapshots.
    pub stamps: Vec<Stamp>,
    /// What was not brought to its end.
    pub rests: Vec<Stamp>,
}

impl<'p> Series<'p> {
    /// Opens it; `None` where it does not exist yet.
    pub fn open(host: &mut Host, path: &'p str) -> Result<Option<Series<'p>>, Fault> {
        let dir = match host.root.directory(path.trim_end_matches('/')) {
            Ok(dir) => dir,
            Err(WalkError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let dir = openat(dir.as_fd(), ".", DIRECTORY, Mode::empty()).map_err(Fault::io("open", path))?;
        Ok(Some(Series { dir, path }))
    }

    /// One listing.
    pub fn look(&self) -> Result<Found, Fault> {
        let error = |errno: Errno| Fault::io("read", self.path)(errno);
        let mut dir = Dir::openat(self.dir.as_fd(), ".", DIRECTORY, Mode::empty()).map_err(error)?;
        let mut found = Found::default();
        for entry in dir.iter() {
            let entry = entry.map_err(error)?;
            let name = entry.file_name().to_bytes();
            let (list, digits) = match name.strip_prefix(PARTIAL.as_bytes()) {
                Some(rest) => (&mut found.rests, rest),
                None => (&mut found.stamps, name),
            };
            let Some(stamp) = Stamp::parse(digits) else { continue };
            let is_directory = match entry.file_type() {
                Some(kind) => kind == Type::Directory,
                // Not every file system says.
                None => fstatat(self.dir.as_fd(), entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| kind_of(&stat) == SFlag::S_IFDIR),
            };
            if is_directory {
                list.push(stamp);
            }
        }
        Ok(found)
    }

    /// The directory itself.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Takes it for writing.
    pub fn lock(self) -> Result<Locked<'p>, Fault> {
        let file = self.dir.try_clone().map_err(Fault::io("open", self.path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Locked { series: self, _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => {
                Err(Fault::Blocked(format!("another run makes a snapshot in {} at this moment", self.path)))
            }
            Err((_, errno)) => Err(Fault::io("lock", self.path)(errno)),
        }
    }
}

impl Locked<'_> {
    /// One listing.
    pub fn look(&self) -> Result<Found, Fault> {
        self.series.look()
    }

    /// The directory itself.
    pub fn dir(&self) -> &OwnedFd {
        &self.series.dir
    }

    /// Removes what was not brought to its end.
    pub fn clear(&self, host: &mut Host) -> Result<(), Fault> {
        for stamp in self.look()?.rests {
            remove_all(host, &format!("{}/{PARTIAL}{stamp}", self.series.path))?;
        }
        Ok(())
    }

    /// A whole snapshot.
    pub fn snapshot(&self, stamp: Stamp) -> Result<OwnedFd, Fault> {
        let name = stamp.to_string();
        openat(self.dir().as_fd(), name.as_str(), DIRECTORY, Mode::empty())
            .map_err(|errno| Fault::io("open", &self.path_of(&name))(errno))
    }

    /// Begins one; nobody else can read it yet.
    pub fn begin(&self, stamp: Stamp) -> Result<OwnedFd, Fault> {
        let name = format!("{PARTIAL}{stamp}");
        let error = |errno: Errno| Fault::io("create", &self.path_of(&name))(errno);
        mkdirat(self.dir().as_fd(), name.as_str(), Mode::S_IRWXU).map_err(error)?;
        openat(self.dir().as_fd(), name.as_str(), DIRECTORY, Mode::empty()).map_err(error)
    }

    /// Makes one durable that was begun, then gives it its name.
    pub fn publish(&self, stamp: Stamp) -> Result<(), Fault> {
        let (partial, name) = (format!("{PARTIAL}{stamp}"), stamp.to_string());
        syncfs(self.dir().as_fd()).map_err(Fault::io("sync", self.series.path))?;
        self.rename(&partial, &name)
    }

    /// Removes one that has expired.
    pub fn remove(&self, host: &mut Host, stamp: Stamp) -> Result<(), Fault> {
        let (name, partial) = (stamp.to_string(), format!("{PARTIAL}{stamp}"));
        self.rename(&name, &partial)?;
        remove_all(host, &self.path_of(&partial))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        let dir = self.dir().as_fd();
        renameat(dir, from, dir, to).map_err(Fault::io("rename", &self.path_of(from)))?;
        // Before anything follows from it: what goes next may be what this one stands for.
        match fsync(dir) {
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(Fault::io("sync", self.series.path)(errno)),
        }
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.series.path)
    }
}
