//! `group`: a group exists with a number, or does not exist. Who is in it is a matter of `user`.

use super::database::{Database, GROUP, no_tool, root_args, set_field};
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};

/// Settles one `group`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(task), host, task)
}

struct Wanted<'t> {
    name: String,
    gid: Option<u32>,
    system: bool,
    present: bool,
    task: &'t Task<'t>,
}

impl<'t> Wanted<'t> {
    fn read(task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        Ok(Wanted {
            name: reader.path("groupname").into_owned(),
            gid: reader.text("gid").and_then(|text| text.parse().ok()),
            system: reader.truth("system"),
            present: reader.is("state", "present", "present"),
            task,
        })
    }

    /// Runs a tool of shadow-utils, or else the one of BusyBox, which knows no sysroot.
    fn call(&self, host: &mut Host, shadow: (&str, &[&str]), busybox: (&str, &[&str])) -> Result<(), Fault> {
        let (tool, args, root) = match Tool::find(host, shadow.0) {
            Some(tool) => (tool, shadow.1, root_args(host)),
            None => match Tool::find(host, busybox.0).filter(|_| host.sysroot().is_none() || host.is_live()) {
                Some(tool) => (tool, busybox.1, Vec::new()),
                None => return Err(no_tool(host, &format!("`{}` nor `{}`", shadow.0, busybox.0))),
            },
        };
        let args: Vec<&str> =
            root.iter().map(String::as_str).chain(args.iter().copied()).chain([&*self.name]).collect();
        tool.run(host, &args, self.task.deadline).map(|_| ())
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let database = Database::read(host)?;
        let found = database.group(&self.name);
        let other = database.groups.iter().find(|group| Some(group.gid) == self.gid && group.name != self.name);
        if let (true, Some(other)) = (self.present, other) {
            return Err(Fault::Failed(format!("gid {} belongs to the group `{}` already", other.gid, other.name)));
        }
        Ok(match (found, self.present) {
            (None, true) => Some(Drift::new(Action::Create, "")),
            (None, false) => None,
            (Some(_), false) => Some(Drift::new(Action::Remove, "")),
            (Some(group), true) => self
                .gid
                .filter(|gid| *gid != group.gid)
                .map(|gid| Drift::new(Action::Change, format!("gid {} instead of {gid}", group.gid))),
        })
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let exists = Database::read(host)?.group(&self.name).is_some();
        let number = self.gid.map(|gid| gid.to_string());
        let gid: Vec<&str> = number.iter().flat_map(|gid| ["-g", gid]).collect();
        let done = if !self.present {
            self.call(host, ("groupdel", &[]), ("delgroup", &[]))
        } else if exists {
            match Tool::find(host, "groupmod") {
                Some(_) => self.call(host, ("groupmod", &gid), ("groupmod", &[])),
                None => set_field(host, GROUP, &self.name, 2, &number.unwrap_or_default()),
            }
        } else {
            let with = |flag: &'static str| gid.iter().copied().chain(self.system.then_some(flag)).collect::<Vec<_>>();
            self.call(host, ("groupadd", &with("-r")), ("addgroup", &with("-S")))
        };
        host.forget_accounts();
        done
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        let found = Database::read(host)?;
        match found.group(&self.name).filter(|group| group.gid == 0) {
            Some(_) => Err(Fault::Refused(format!("the group `{}` has number 0: no host works without it", self.name))),
            None => Ok(()),
        }
    }
}
