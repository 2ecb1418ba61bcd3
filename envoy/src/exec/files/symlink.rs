//! `symlink`: a name points to a path (soft) or is another name of a file (hard), or does not exist. The check of a soft
//! link is one `readlinkat`. A link is replaced by renaming a new one over it, so that the name is never missing.

use std::borrow::Cow;
use std::os::fd::AsFd;

use common::policy::types;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat, renameat};
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use crate::exec::contract::{Action, Drift, Statement, settle_read, spare_path};
use crate::exec::fault::Fault;
use crate::exec::host::{Host, describe, kind_of, not_a};
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};
use crate::sys::replace::temporary_name;
use crate::sys::root::Place;

/// Settles one `symlink`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(task), host, task)
}

/// A link as it should be.
pub struct Wanted<'t> {
    path: Cow<'t, str>,
    to: Cow<'t, str>,
    present: bool,
    hard: bool,
    force: bool,
}

impl<'t> Wanted<'t> {
    /// A symbolic link of an executor's own: it replaces a file in its way.
    pub fn owned(path: String, to: String, present: bool) -> Wanted<'t> {
        Wanted { path: Cow::Owned(path), to: Cow::Owned(to), present, hard: false, force: true }
    }

    fn read(task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let table = types::find("symlink").ok_or_else(|| Fault::Parameter(types::unknown_type("symlink")))?;
        let reader = Reader::try_new(table, task.params)?;
        let wanted = Wanted {
            path: reader.path("target_path"),
            to: reader.text("to").unwrap_or_default(),
            present: reader.is("state", "present", "present"),
            hard: reader.is("link_type", "hard", "soft"),
            force: reader.truth("force"),
        };
        if wanted.present && wanted.to.is_empty() {
            return Err(Fault::Parameter(table.missing("to")));
        }
        if wanted.present && wanted.hard && !common::policy::params::is_absolute(&wanted.to) {
            return Err(Fault::Parameter(
                "`to` of a hard link must be a path that starts with / and has no `..`".to_string(),
            ));
        }
        Ok(wanted)
    }

    /// What is wrong with what is there; nothing where it is as it should be.
    fn soft(&self, host: &Host, place: &Place<'_>) -> Result<Option<Drift>, Fault> {
        match readlinkat(place.dir.as_fd(), place.name) {
            Ok(to) if to == *self.to => Ok(None),
            Ok(to) => Ok(Some(Drift::new(Action::Change, format!("pointed to {}", to.to_string_lossy())))),
            Err(Errno::ENOENT) => Ok(Some(Drift::new(Action::Create, ""))),
            Err(Errno::EINVAL) => self.in_the_way(host, place),
            Err(errno) => Err(Fault::io("read", &self.path)(errno)),
        }
    }

    fn in_the_way(&self, host: &Host, place: &Place<'_>) -> Result<Option<Drift>, Fault> {
        match host.stat(place, &self.path)? {
            None => Ok(Some(Drift::new(Action::Create, ""))),
            Some(stat) if self.may_replace(&stat) => {
                Ok(Some(Drift::new(Action::Change, format!("{} was in the way", describe(&stat)))))
            }
            Some(stat) if kind_of(&stat) == SFlag::S_IFDIR => Err(not_a(&stat, "a link", &self.path)),
            Some(stat) => Err(Fault::Refused(format!(
                "{} is {}, not a link; `force: true` replaces it",
                self.path,
                describe(&stat)
            ))),
        }
    }

    fn may_replace(&self, stat: &FileStat) -> bool {
        match kind_of(stat) {
            SFlag::S_IFLNK => true,
            SFlag::S_IFDIR => false,
            // Another file under this name is what a hard link replaces.
            _ => self.force,
        }
    }

    fn hard(&self, host: &mut Host, place: &Place<'_>) -> Result<Option<Drift>, Fault> {
        let origin = match host.locate(&self.to)? {
            Some(origin) => host.stat(&origin, &self.to)?,
            None => None,
        };
        match (host.stat(place, &self.path)?, origin) {
            (None, _) => Ok(Some(Drift::new(Action::Create, ""))),
            (Some(found), Some(origin)) if (found.st_dev, found.st_ino) == (origin.st_dev, origin.st_ino) => Ok(None),
            (Some(found), _) if self.may_replace(&found) => {
                Ok(Some(Drift::new(Action::Change, format!("{} was in the way", describe(&found)))))
            }
            (Some(_), _) => self.in_the_way(host, place),
        }
    }

    fn absent(&self, host: &Host, place: &Place<'_>) -> Result<Option<Drift>, Fault> {
        match host.stat(place, &self.path)? {
            None => Ok(None),
            Some(stat) if kind_of(&stat) == SFlag::S_IFLNK => Ok(Some(Drift::new(Action::Remove, ""))),
            Some(stat) if kind_of(&stat) == SFlag::S_IFREG && (self.hard || self.force) => {
                Ok(Some(Drift::new(Action::Remove, "")))
            }
            Some(stat) => Err(not_a(&stat, "a link", &self.path)),
        }
    }

    fn make(&self, host: &mut Host, place: &Place<'_>) -> Result<(), Fault> {
        let temporary = temporary_name(place.name);
        let name = temporary.as_str();
        // Left behind by an agent that was killed.
        match unlinkat(place.dir.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Fault::io("link beside", &self.path)(errno)),
        }
        if self.hard {
            let origin = host.locate_to_write(&self.to)?;
            let from = (origin.dir.as_fd(), origin.name);
            linkat(from.0, from.1, place.dir.as_fd(), name, AtFlags::empty())
                .map_err(Fault::io("link to", &self.to))?;
        } else {
            symlinkat(&*self.to, place.dir.as_fd(), name).map_err(Fault::io("link beside", &self.path))?;
        }
        let renamed = renameat(place.dir.as_fd(), name, place.dir.as_fd(), place.name);
        if let Err(errno) = renamed {
            // The name is reused next time if this fails too.
            let _ = unlinkat(place.dir.as_fd(), name, UnlinkatFlags::NoRemoveDir);
            return Err(Fault::io("replace", &self.path)(errno));
        }
        Ok(())
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let Some(place) = host.locate(&self.path)? else {
            return Ok(self.present.then(|| Drift::new(Action::Create, "")));
        };
        match (self.present, self.hard) {
            (false, _) => self.absent(host, &place),
            (true, false) => self.soft(host, &place),
            (true, true) => self.hard(host, &place),
        }
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let place = host.locate_to_write(&self.path)?;
        if self.present {
            self.make(host, &place)?;
        } else {
            match unlinkat(place.dir.as_fd(), place.name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(Fault::io("remove", &self.path)(errno)),
            }
        }
        host.sync_later(&place, &self.path)
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        spare_path(host, &self.path, false)
    }
}
