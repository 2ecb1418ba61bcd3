//! `nonrepo_package`: a package of a file is installed by the manager of the host, which also brings what it depends on, or is
//! not. Compared by its name and, where that is given, its version: the file is fetched only to be installed.

use super::fetch::{Origin, fetch};
use super::manager::{Manager, Place};
use super::session;
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};
use common::time::Mono;

/// Settles one `nonrepo_package`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(host, task), host, task)
}

struct FilePackage {
    name: String,
    present: bool,
    version: Option<String>,
    origin: Option<Origin>,
    manager: &'static dyn Manager,
    deadline: Mono,
}

fn read(host: &mut Host, task: &Task<'_>) -> Result<FilePackage, Fault> {
    let reader = Reader::of(task)?;
    let manager = session::manager(host, reader.text("manager").as_deref())?;
    Ok(FilePackage {
        name: reader.path("package").into_owned(),
        present: reader.is("state", "present", "present"),
        version: reader.text("version").map(|text| text.into_owned()),
        origin: Origin::read(task, &reader)?,
        manager,
        deadline: task.deadline,
    })
}

impl Statement for FilePackage {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        let installed = session::installed(host, self.manager)?;
        let found: Vec<_> = installed.find(&self.name).into_iter().filter(|one| one.works()).collect();
        let is_wanted = |version: &str| match self.version.as_deref() {
            None => true,
            Some(wanted) => match wanted.strip_suffix('*') {
                Some(start) => version.starts_with(start),
                None => self.manager.is_version(version, wanted),
            },
        };
        let old = found.first().map(|one| format!("{} {}", self.name, one.version));
        let new = match &self.version {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.clone(),
        };
        let (action, detail, lines) = match (old, self.present) {
            (None, false) => return Ok(None),
            (Some(_), true) if found.iter().any(|one| is_wanted(&one.version)) => return Ok(None),
            (Some(old), false) => (Action::Remove, old.clone(), format!("-{old}\n")),
            (None, true) => (Action::Install, new.clone(), format!("+{new}\n")),
            (Some(old), true) => (Action::Change, format!("{old} to {new}"), format!("-{old}\n+{new}\n")),
        };
        let name = self.manager.name();
        let diff = if diff { format!("--- {name}\n+++ {name}\n{lines}") } else { String::new() };
        Ok(Some(Drift { diff, ..Drift::new(action, detail) }))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let root = session::root_of(host);
        let place = Place { root: root.as_deref() };
        let manager = self.manager;
        if !self.present {
            let names = [self.name.clone()];
            return session::change(host, manager, &manager.remove(place, &names, false), self.deadline).map(|_| ());
        }
        let needed = || Fault::Parameter("`source` or `url` is needed to install it".to_string());
        let origin = self.origin.as_ref().ok_or_else(needed)?;
        // Managers tell a file from a name by how it ends.
        let plain = format!("{}{}", self.name.replace(':', "_"), manager.suffix());
        let name = origin.name().filter(|name| name.ends_with(manager.suffix())).unwrap_or(&plain);
        let fetched = fetch(host, origin, name, self.deadline)?;
        let call = manager.install_file(place, &fetched.file.display().to_string());
        session::change(host, manager, &call, self.deadline)?;
        let installed = session::installed(host, manager)?;
        match installed.find(&self.name).is_empty() {
            true => Err(Fault::Failed(format!("{name} was installed and is no package called `{}`", self.name))),
            false => Ok(()),
        }
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        match !self.present && self.name == super::package::OWN_PACKAGE {
            true => host.spare_self_from(&format!("remove {}", self.name)),
            false => Ok(()),
        }
    }
}
