//! `package`: packages are installed, in any version, a certain one or the newest, or they are not. A check that finds
//! everything as it should be starts no process where the database of the manager is a file.

use super::installed::{Installed, State};
use super::manager::{How, Manager, Newer, Place, Wanted};
use super::session;
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};
use common::time::Mono;
use common::units::duration_ms;

/// Age of lists of repositories where none is asked for, in milliseconds.
const LISTS_AGE_MS_DEFAULT: u64 = 24 * 3_600_000;
/// The package that the agent comes in.
pub const OWN_PACKAGE: &str = "vigo-envoy";

/// Settles one `package`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Packages::read(host, task), host, task)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Present,
    Latest,
    Absent,
}

struct Packages {
    names: Vec<String>,
    goal: Goal,
    version: Option<String>,
    purge: bool,
    how: How,
    lists_age_max_ms: u64,
    manager: &'static dyn Manager,
    deadline: Mono,
    /// Lists may be fetched before the first look.
    may_refresh: bool,
    todo: Todo,
}

/// What the last probe found.
#[derive(Default)]
struct Todo {
    install: Vec<Wanted>,
    upgrade: Vec<String>,
    remove: Vec<String>,
}

/// One line of what differs.
struct Line {
    name: String,
    old: Option<String>,
    new: Option<String>,
}

impl Packages {
    fn read(host: &mut Host, task: &Task<'_>) -> Result<Packages, Fault> {
        let reader = Reader::of(task)?;
        let goal = match reader.text("state").as_deref() {
            Some("absent") => Goal::Absent,
            Some("latest") => Goal::Latest,
            _ => Goal::Present,
        };
        let version = reader.text("version").map(|text| text.into_owned());
        let mut names = reader.texts("package");
        names.dedup();
        if version.is_some() && goal != Goal::Present {
            return Err(Fault::Parameter("`version` goes with `state: present` only".to_string()));
        }
        if version.is_some() && names.len() > 1 {
            let message = "`version` is that of one package: write a resource for each of them";
            return Err(Fault::Parameter(message.to_string()));
        }
        let manager = session::manager(host, reader.text("manager").as_deref())?;
        let age = reader.text("refresh_after").and_then(|text| duration_ms(&text).ok());
        Ok(Packages {
            names,
            goal,
            version,
            purge: reader.truth("purge"),
            how: How { recommends: reader.given_truth("recommends"), replace: reader.truth("replace") },
            lists_age_max_ms: age.unwrap_or(LISTS_AGE_MS_DEFAULT),
            manager,
            deadline: task.deadline,
            may_refresh: task.enforce,
            todo: Todo::default(),
        })
    }

    fn is_version(&self, installed: &str) -> bool {
        match self.version.as_deref() {
            None => true,
            Some(wanted) => match wanted.strip_suffix('*') {
                Some(start) => installed.starts_with(start),
                None => self.manager.is_version(installed, wanted),
            },
        }
    }

    /// Newer versions of those that are installed; asked only where they matter.
    fn newer(&mut self, host: &mut Host, installed: &Installed) -> Result<Vec<Newer>, Fault> {
        if self.goal != Goal::Latest {
            return Ok(Vec::new());
        }
        if std::mem::take(&mut self.may_refresh) {
            session::refresh_if_older(host, self.manager, self.lists_age_max_ms, self.deadline)?;
        }
        // What is held stays: the manager would not touch it.
        let follows = |name: &&String| installed.find(name).iter().any(|one| one.state == State::Whole);
        let names: Vec<String> = self.names.iter().filter(follows).cloned().collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let root = session::root_of(host);
        let call = self.manager.outdated(Place { root: root.as_deref() }, &names);
        let said = session::ask(host, self.manager, &call, self.manager.outdated_statuses(), self.deadline)?;
        Ok(self.manager.newer(&said).into_iter().filter(|newer| names.contains(&newer.name)).collect())
    }

    /// A manager that installs only what its repositories have now is not set to work where that is another version: it would
    /// replace the one that is there by yet another.
    fn check_offer(&self, host: &mut Host, place: Place<'_>, wanted: &[Wanted]) -> Result<(), Fault> {
        for Wanted { name, version } in wanted {
            let (Some(version), Some(call)) = (version, self.manager.offer(place, name)) else { continue };
            // Lists that cannot be fetched are told by the installation.
            let _ = session::refresh_if_older(host, self.manager, self.lists_age_max_ms, self.deadline);
            let said = session::ask(host, self.manager, &call, &[0], self.deadline).unwrap_or_default();
            if let Some(offered) = self.manager.offered(&said).filter(|offered| !self.is_version(offered)) {
                return Err(Fault::Failed(format!(
                    "{} installs only what its repositories have, and they have {name} {offered}, not {version}; ask for that \
                     version, or install a file of this one with `nonrepo_package`",
                    self.manager.name()
                )));
            }
        }
        Ok(())
    }

    fn compare(&mut self, installed: &Installed, newer: &[Newer]) -> Vec<Line> {
        let (mut todo, mut lines) = (Todo::default(), Vec::new());
        for name in &self.names {
            let found = installed.find(name);
            let old = |only_working: bool| {
                let counts = found.iter().filter(|one| one.works() || !only_working);
                counts.map(|one| one.version.to_string()).reduce(|all, more| format!("{all}, {more}"))
            };
            let line = |old, new: Option<&str>| Line { name: name.clone(), old, new: new.map(str::to_string) };
            if self.goal == Goal::Absent {
                let there = found.iter().any(|one| one.state != State::Residual || self.purge);
                if there {
                    todo.remove.push(name.clone());
                    lines.push(line(old(false), None));
                }
                continue;
            }
            let works = found.iter().any(|one| one.works() && self.is_version(&one.version));
            let newest = newer.iter().find(|newer| newer.name == *name);
            if !works {
                todo.install.push(Wanted { name: name.clone(), version: self.version.clone() });
                lines.push(line(old(true), self.version.as_deref().or(Some(""))));
            } else if let Some(newest) = newest {
                todo.upgrade.push(name.clone());
                lines.push(line(old(true), Some(&newest.version)));
            }
        }
        self.todo = todo;
        lines
    }
}

impl Statement for Packages {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        let installed = session::installed(host, self.manager)?;
        let newer = self.newer(host, &installed)?;
        let lines = self.compare(&installed, &newer);
        if lines.is_empty() {
            return Ok(None);
        }
        let action = match self.goal {
            Goal::Absent => Action::Remove,
            _ if lines.iter().all(|line| line.old.is_none()) => Action::Install,
            _ => Action::Change,
        };
        let detail: Vec<String> = lines.iter().map(Line::short).collect();
        let diff = if diff { shown(self.manager.name(), &lines) } else { String::new() };
        Ok(Some(Drift { diff, ..Drift::new(action, detail.join(", ")) }))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let root = session::root_of(host);
        let place = Place { root: root.as_deref() };
        let todo = std::mem::take(&mut self.todo);
        let (manager, deadline) = (self.manager, self.deadline);
        if !todo.remove.is_empty() {
            return session::change(host, manager, &manager.remove(place, &todo.remove, self.purge), deadline)
                .map(|_| ());
        }
        if !todo.install.is_empty() {
            self.check_offer(host, place, &todo.install)?;
            let call = manager.install(place, &todo.install, self.how);
            session::install(host, manager, &call, self.lists_age_max_ms, deadline)?;
        }
        if !todo.upgrade.is_empty() {
            let call = manager.upgrade(place, &todo.upgrade);
            session::install(host, manager, &call, self.lists_age_max_ms, deadline)?;
        }
        // A manager is content when another package provides the name; then no second run would be.
        let installed = session::installed(host, manager)?;
        match todo.install.iter().find(|wanted| installed.find(&wanted.name).is_empty()) {
            None => Ok(()),
            Some(wanted) => Err(Fault::Failed(format!(
                "{} ended well and no package is called `{}`: another one provides that name; write the name of that one",
                manager.program(),
                wanted.name
            ))),
        }
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        match self.goal == Goal::Absent && self.names.iter().any(|name| name == OWN_PACKAGE) {
            true => host.spare_self_from(&format!("remove {OWN_PACKAGE}")),
            false => Ok(()),
        }
    }
}

impl Line {
    fn short(&self) -> String {
        match (self.old.as_deref(), self.new.as_deref()) {
            (Some(old), Some(new)) => format!("{} {old} to {new}", self.name),
            (Some(version), None) => format!("{} {version}", self.name),
            (None, new) => format!("{} {}", self.name, new.unwrap_or_default()).trim_end().to_string(),
        }
    }
}

fn shown(manager: &str, lines: &[Line]) -> String {
    let mut text = format!("--- {manager}\n+++ {manager}\n");
    for line in lines {
        let sides = [('-', &line.old), ('+', &line.new)];
        for (mark, version) in sides.into_iter().filter_map(|(mark, version)| Some((mark, version.as_ref()?))) {
            text.push_str(format!("{mark}{} {version}", line.name).trim_end());
            text.push('\n');
        }
    }
    text
}
