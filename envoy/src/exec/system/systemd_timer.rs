//! `systemd_timer`: a pair of units, a service with a command and the timer that starts it, enabled and running. Enabling is a
//! link, which needs no tool and works in a sysroot; starting and stopping needs a running systemd.

use super::parts::{Folder, Parts};
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::files::{file, symlink};
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};

/// Units of the operator.
const UNITS: &str = "/etc/systemd/system";
/// What starts with timers.
const WANTS: &str = "/etc/systemd/system/timers.target.wants";

/// Settles one `systemd_timer`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(host, task), host, task)
}

struct Wanted<'t> {
    parts: Parts<'t>,
    timer: String,
    present: bool,
    /// Where systemd runs.
    systemctl: Option<Tool>,
    task: &'t Task<'t>,
}

impl<'t> Wanted<'t> {
    fn read(host: &Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let present = reader.is("state", "present", "present");
        let unit = reader.path("unit");
        if unit.len() > 200 || unit.contains('~') {
            return Err(Fault::Parameter(
                "`unit` must be a name of at most 200 letters, digits and _.+@:-".to_string(),
            ));
        }
        let command = reader.text("command").unwrap_or_default();
        if present && command.trim().is_empty() {
            return Err(Fault::Parameter("`command` must not be empty".to_string()));
        }
        let description = reader.text("description").unwrap_or(task.name.into()).replace('%', "%%");
        let mut service = format!(
            "# Written by Vigo, changes are undone.\n[Unit]\nDescription={description}\n\n[Service]\nType=oneshot\n\
             ExecStart=/bin/sh -c \"{}\"\n",
            escape(&command)
        );
        if let Some(user) = reader.text("user") {
            service.push_str(&format!("User={user}\n"));
        }
        let mut timer =
            format!("# Written by Vigo, changes are undone.\n[Unit]\nDescription={description}\n\n[Timer]\n");
        for (name, key) in [
            ("on_calendar", "OnCalendar"),
            ("on_boot", "OnBootSec"),
            ("every", "OnUnitActiveSec"),
            ("random_delay", "RandomizedDelaySec"),
        ] {
            if let Some(value) = reader.text(name) {
                timer.push_str(&format!("{key}={value}\n"));
            }
        }
        // Alone, the time since the last start never begins to run.
        if reader.text("every").is_some() && reader.text("on_boot").is_none() && reader.text("on_calendar").is_none() {
            timer.push_str("OnActiveSec=0\n");
        }
        if reader.truth("persistent") {
            timer.push_str("Persistent=true\n");
        }
        timer.push_str("\n[Install]\nWantedBy=timers.target\n");
        let name = format!("{unit}.timer");
        let paths = [format!("{UNITS}/{unit}.service"), format!("{UNITS}/{name}")];
        let link = symlink::Wanted::owned(format!("{WANTS}/{name}"), paths[1].clone(), present);
        let [service_path, timer_path] = paths;
        let parts = Parts::default()
            .with_if(present, WANTS, Folder(WANTS.to_string()))
            .with(service_path.clone(), file::Wanted::owned(service_path, present.then_some(service), task))
            .with(timer_path.clone(), file::Wanted::owned(timer_path, present.then_some(timer), task))
            .with("enabled", link);
        let systemctl = if host.is_live() { Tool::find(host, "systemctl") } else { None };
        Ok(Wanted { parts, timer: name, present, systemctl, task })
    }

    /// Whether systemd runs it as it is on disk; `None` where no systemd runs.
    fn runs(&self, host: &mut Host) -> Result<Option<bool>, Fault> {
        let Some(tool) = &self.systemctl else { return Ok(None) };
        let said =
            tool.run(host, &["show", "-p", "ActiveState", "-p", "NeedDaemonReload", &self.timer], self.task.deadline)?;
        let has = |line: &str| said.lines().any(|found| found.trim() == line);
        let active = has("ActiveState=active");
        Ok(Some(if self.present { active && !has("NeedDaemonReload=yes") } else { active }))
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        // What no systemd starts would never run, and nobody would be told.
        if self.present && self.systemctl.is_none() && host.is_live() && self.task.enforce {
            let message = "`systemctl` is not installed on this host: nothing would start the timer; use `cron`";
            return Err(Fault::Failed(message.to_string()));
        }
        if let Some(drift) = self.parts.probe(host, diff)? {
            return Ok(Some(drift));
        }
        match self.runs(host)? {
            Some(runs) if runs != self.present => {
                let (action, words) = if self.present {
                    (Action::Change, "was not running")
                } else {
                    (Action::Change, "was still running")
                };
                Ok(Some(Drift::new(action, format!("{} {words}", self.timer))))
            }
            _ => Ok(None),
        }
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let call = |tool: &Tool, host: &mut Host, args: &[&str]| tool.run(host, args, self.task.deadline).map(|_| ());
        // What has no file any more cannot be stopped by its name after a reload.
        if !self.present
            && self.runs(host)? == Some(true)
            && let Some(tool) = &self.systemctl
        {
            call(tool, host, &["stop", &self.timer])?;
        }
        self.parts.converge(host)?;
        let Some(tool) = &self.systemctl else { return Ok(()) };
        call(tool, host, &["daemon-reload"])?;
        if self.present { call(tool, host, &["restart", &self.timer]) } else { Ok(()) }
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        if self.timer == "vigo-envoy.timer" {
            return Err(Fault::Refused("the units `vigo-envoy` are the agent's own; take another name".to_string()));
        }
        self.parts.spare_self(host)
    }
}

/// A line of shell within the double quotes of a unit file (systemd.service(5), "Command lines").
fn escape(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\\' | '"' => out.extend(['\\', c]),
            '%' | '$' => out.extend([c, c]),
            c => out.push(c),
        }
    }
    out
}
