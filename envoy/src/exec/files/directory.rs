//! `directory`: a directory has this owner and mode, or does not exist. The check is one `fstatat`.
//!
//! `recurse` walks through open directories and never through a link, and stops at other file systems.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use common::policy::types;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

use super::file::{Access, open_directory};
use crate::exec::contract::{Action, Drift, Statement, settle_read, spare_path};
use crate::exec::fault::Fault;
use crate::exec::host::{Host, kind_of, mode_of, not_a};
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};
use crate::sys::root::Place;

/// Mode of a new directory where none is asked for.
const MODE_DEFAULT: u32 = 0o755;
/// Directories within each other that `recurse` walks: each holds a descriptor.
const DEPTH_MAX: usize = 128;
/// Differences that are named; the others are counted.
const NAMED_MAX: usize = 10;

/// Settles one `directory`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(host, task), host, task)
}

struct Wanted<'t> {
    path: Cow<'t, str>,
    present: bool,
    access: Access,
    recurse: bool,
}

impl<'t> Wanted<'t> {
    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let table = types::find("directory").ok_or_else(|| Fault::Parameter(types::unknown_type("directory")))?;
        let reader = Reader::try_new(table, task.params)?;
        Ok(Wanted {
            path: reader.path("target_path"),
            present: reader.is("state", "present", "present"),
            access: Access::read(host, &reader)?,
            recurse: reader.truth("recurse"),
        })
    }

    fn found(&self, host: &mut Host) -> Result<Option<FileStat>, Fault> {
        let Some(place) = host.locate(&self.path)? else { return Ok(None) };
        match host.stat(&place, &self.path)? {
            Some(stat) if kind_of(&stat) != SFlag::S_IFDIR => Err(not_a(&stat, "a directory", &self.path)),
            found => Ok(found),
        }
    }

    fn remove(&self, host: &mut Host) -> Result<(), Fault> {
        let Some(place) = host.locate(&self.path)? else { return Ok(()) };
        if self.recurse {
            let dir = open_directory(&place, &self.path)?;
            let device = fstat(dir.as_fd()).map_err(Fault::io("look at", &self.path))?.st_dev;
            empty(OwnedFd::from(dir), &self.path, device, 0)?;
        }
        match unlinkat(place.dir.as_fd(), place.name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => host.sync_later(&place, &self.path),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                Err(Fault::Refused(format!("{} is not empty; `recurse: true` removes its content too", self.path)))
            }
            Err(errno) => Err(Fault::io("remove", &self.path)(errno)),
        }
    }

    /// Visits everything below, and hands each entry that differs to `act`. Returns how many did.
    fn below(&self, place: &Place<'_>, act: &mut Act<'_>) -> Result<usize, Fault> {
        let dir = open_directory(place, &self.path)?;
        let device = fstat(dir.as_fd()).map_err(Fault::io("look at", &self.path))?.st_dev;
        self.visit(OwnedFd::from(dir), &self.path, device, 0, act)
    }

    fn visit(
        &self,
        dir: OwnedFd,
        path: &str,
        device: libc::dev_t,
        depth: usize,
        act: &mut Act<'_>,
    ) -> Result<usize, Fault> {
        let mut differ = 0;
        for name in names(dir.try_clone().map_err(Fault::io("open", path))?, path)? {
            let here = format!("{path}/{}", name.to_string_lossy());
            let stat = match fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(Fault::io("look at", &here)(errno)),
            };
            let access = self.for_entry(&stat);
            if !access.differences(&stat).is_empty() {
                differ += 1;
                act(&dir, &name, &stat, &access, &here)?;
            }
            if kind_of(&stat) == SFlag::S_IFDIR && stat.st_dev == device {
                differ += self.visit(enter(&dir, &name, &here, depth)?, &here, device, depth + 1, act)?;
            }
        }
        Ok(differ)
    }

    /// What `recurse` asks of one entry: links have no mode, files keep their execute bits as they are.
    fn for_entry(&self, stat: &FileStat) -> Access {
        let mode = match kind_of(stat) {
            SFlag::S_IFDIR => self.access.mode,
            SFlag::S_IFREG => self.access.mode.map(|mode| mode & 0o666 | mode_of(stat) & 0o7111),
            _ => None,
        };
        Access { mode, ..self.access }
    }
}

/// Makes a directory that is not there.
pub fn make(host: &mut Host, place: &Place<'_>, path: &str, access: &Access) -> Result<(), Fault> {
    mkdirat(place.dir.as_fd(), place.name, Mode::from_bits_truncate(0o700)).map_err(Fault::io("create", path))?;
    let dir = open_directory(place, path)?;
    let stat = fstat(dir.as_fd()).map_err(Fault::io("look at", path))?;
    // A set-group-id parent passes its bit on.
    let inherited = mode_of(&stat) & 0o2000;
    let access = Access { mode: Some(access.mode.unwrap_or(MODE_DEFAULT | inherited)), ..*access };
    access.set(&dir, &stat, path)?;
    host.sync_later(place, path)
}

/// Removes a directory with everything in it, if it is there.
pub fn remove_all(host: &mut Host, path: &str) -> Result<(), Fault> {
    let Some(place) = host.locate(path)? else { return Ok(()) };
    match host.stat(&place, path)? {
        None => return Ok(()),
        Some(stat) if kind_of(&stat) != SFlag::S_IFDIR => return Err(not_a(&stat, "a directory", path)),
        Some(_) => {}
    }
    let dir = open_directory(&place, path)?;
    let device = fstat(dir.as_fd()).map_err(Fault::io("look at", path))?.st_dev;
    empty(OwnedFd::from(dir), path, device, 0)?;
    host.root.forget();
    unlinkat(place.dir.as_fd(), place.name, UnlinkatFlags::RemoveDir).map_err(Fault::io("remove", path))
}

/// What is done to an entry that differs: its directory, its name, what it is and should be, its path.
type Act<'a> = dyn FnMut(&OwnedFd, &std::ffi::CString, &FileStat, &Access, &str) -> Result<(), Fault> + 'a;

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        match (self.found(host)?, self.present) {
            (None, false) => Ok(None),
            (None, true) => Ok(Some(Drift::new(Action::Create, ""))),
            (Some(_), false) => Ok(Some(Drift::new(Action::Remove, ""))),
            (Some(stat), true) => {
                let mut details = self.access.differences(&stat);
                if self.recurse {
                    let place = host.locate_to_write(&self.path)?;
                    let mut named =
                        |_: &OwnedFd, _: &std::ffi::CString, stat: &FileStat, access: &Access, path: &str| {
                            if details.len() < NAMED_MAX {
                                details.push(format!("{path}: {}", access.differences(stat).join(", ")));
                            }
                            Ok(())
                        };
                    let differ = self.below(&place, &mut named)?;
                    if differ > NAMED_MAX {
                        details.push(format!("{differ} entries below in all"));
                    }
                }
                Ok(Drift::change(details))
            }
        }
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        if !self.present {
            return self.remove(host);
        }
        let place = host.locate_to_write(&self.path)?;
        match self.found(host)? {
            None => make(host, &place, &self.path, &self.access)?,
            Some(_) => {
                let dir = open_directory(&place, &self.path)?;
                let stat = fstat(dir.as_fd()).map_err(Fault::io("look at", &self.path))?;
                self.access.set(&dir, &stat, &self.path)?;
            }
        }
        if self.recurse {
            self.below(&place, &mut set_entry)?;
        }
        Ok(())
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        // A directory that merely contains the agent's may have its own mode managed.
        spare_path(host, &self.path, self.recurse || !self.present)
    }
}

/// Sets owner and mode of an entry by name in its open directory, never through a link.
fn set_entry(
    dir: &OwnedFd,
    name: &std::ffi::CString,
    stat: &FileStat,
    access: &Access,
    path: &str,
) -> Result<(), Fault> {
    if matches!(kind_of(stat), SFlag::S_IFDIR | SFlag::S_IFREG) {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        if let Ok(file) = openat(dir.as_fd(), name.as_c_str(), flags, Mode::empty()) {
            return access.set(File::from(file), stat, path);
        }
        // Not readable: its mode is set by name. `fchmodat` would follow a link, which the type above rules out but for a
        // race that only the owner of the directory can win, over entries that are theirs.
    }
    let (uid, gid) = (access.uid.map(Uid::from_raw), access.gid.map(Gid::from_raw));
    if uid.is_some() || gid.is_some() {
        fchownat(dir.as_fd(), name.as_c_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(Fault::io("change the owner of", path))?;
    }
    if let Some(mode) = access.mode {
        let mode = Mode::from_bits_truncate(mode as _);
        fchmodat(dir.as_fd(), name.as_c_str(), mode, FchmodatFlags::NoFollowSymlink)
            .map_err(Fault::io("change the mode of", path))?;
    }
    Ok(())
}

/// Removes everything in a directory.
fn empty(dir: OwnedFd, path: &str, device: libc::dev_t, depth: usize) -> Result<(), Fault> {
    for name in names(dir.try_clone().map_err(Fault::io("open", path))?, path)? {
        let here = format!("{path}/{}", name.to_string_lossy());
        let stat = match fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(Fault::io("look at", &here)(errno)),
        };
        let mut how = UnlinkatFlags::NoRemoveDir;
        if kind_of(&stat) == SFlag::S_IFDIR {
            if stat.st_dev != device {
                return Err(Fault::Refused(format!("a file system is mounted at {here}; it is left as it is")));
            }
            empty(enter(&dir, &name, &here, depth)?, &here, device, depth + 1)?;
            how = UnlinkatFlags::RemoveDir;
        }
        match unlinkat(dir.as_fd(), name.as_c_str(), how) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Fault::io("remove", &here)(errno)),
        }
    }
    Ok(())
}

fn enter(dir: &OwnedFd, name: &std::ffi::CString, path: &str, depth: usize) -> Result<OwnedFd, Fault> {
    if depth >= DEPTH_MAX {
        return Err(Fault::Refused(format!("{path} is more than {DEPTH_MAX} directories deep")));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir.as_fd(), name.as_c_str(), flags, Mode::empty()).map_err(Fault::io("open", path))
}

/// Names in a directory, whatever bytes they are made of.
fn names(dir: OwnedFd, path: &str) -> Result<Vec<std::ffi::CString>, Fault> {
    let mut dir = Dir::from_fd(dir).map_err(Fault::io("read", path))?;
    let entries = dir.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    let all: Result<Vec<_>, _> = entries.collect();
    let own = |name: &std::ffi::CString| !matches!(name.as_bytes(), b"." | b"..");
    Ok(all.map_err(Fault::io("read", path))?.into_iter().filter(own).collect())
}
