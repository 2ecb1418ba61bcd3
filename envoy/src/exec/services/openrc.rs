//! Services of OpenRC: what was started has a link in `/run/openrc/started`, what starts with the host has one in its
//! runlevel. Only acting needs a process.

use common::policy::params::is_absolute;
use common::time::Mono;

use super::init::{Act, Init, assigned, linked, lives, words};
use crate::exec::contract::Statement;
use crate::exec::fault::Fault;
use crate::exec::files::symlink;
use crate::exec::host::Host;
use crate::exec::look::{is_there, names_in, text_of};
use crate::exec::tool::Tool;
use crate::sys::child::Ended;

/// Links by runlevel.
const LEVELS: &str = "/etc/runlevels";

/// One service.
pub struct OpenRc {
    name: String,
    runlevel: String,
    deadline: Mono,
}

impl OpenRc {
    /// The service of that name.
    pub fn new(name: &str, runlevel: &str, deadline: Mono) -> OpenRc {
        OpenRc { name: name.to_string(), runlevel: runlevel.to_string(), deadline }
    }

    fn is_started(&self, host: &mut Host) -> Result<bool, Fault> {
        is_there(host, &format!("/run/openrc/started/{}", self.name))
    }

    /// Whether a daemon of it has ended without being told to: its PID file names no process.
    fn has_crashed(&self, host: &mut Host, script: &str) -> Result<bool, Fault> {
        let folder = format!("/run/openrc/daemons/{}", self.name);
        let recorded = names_in(host, &folder)?;
        for entry in &recorded {
            let said = text_of(host, &format!("{folder}/{entry}"))?;
            let Some(path) = said.lines().find_map(|line| line.strip_prefix("pidfile=")) else { continue };
            if is_absolute(path) && lives(host, path)? != Some(true) {
                return Ok(true);
            }
        }
        // Debian's start-stop-daemon keeps no such records. One whose file is missing may have none for good reasons.
        let names = [("RC_SVCNAME", &*self.name), ("SVCNAME", &*self.name)];
        let path = assigned(script, "pidfile", &names).filter(|path| recorded.is_empty() && is_absolute(path));
        let Some(path) = path else { return Ok(false) };
        Ok(lives(host, &path)? == Some(false))
    }

    fn call(&self, host: &mut Host, word: &str) -> Result<(), Fault> {
        self.tool(host)?.run(host, &[&self.name, word], self.deadline).map(|_| ())
    }

    fn tool(&self, host: &Host) -> Result<Tool, Fault> {
        Tool::need(host, "rc-service")
    }

    /// Runlevels that start it.
    fn levels(&self, host: &mut Host) -> Result<Vec<String>, Fault> {
        let mut found = Vec::new();
        for level in names_in(host, LEVELS)? {
            if is_there(host, &format!("{LEVELS}/{level}/{}", self.name))? {
                found.push(level);
            }
        }
        Ok(found)
    }
}

impl Init for OpenRc {
    fn is_known(&self, host: &mut Host) -> Result<bool, Fault> {
        is_there(host, &format!("/etc/init.d/{}", self.name))
    }

    fn runs(&self, host: &mut Host) -> Result<bool, Fault> {
        let script = text_of(host, &format!("/etc/init.d/{}", self.name))?;
        if self.is_started(host)? {
            return Ok(!self.has_crashed(host, &script)?);
        }
        // A script of SysV is only passed on to: whether it runs is not recorded.
        let first = script.lines().next().unwrap_or_default();
        if first.contains("openrc-run") || first.contains("runscript") {
            return Ok(false);
        }
        let tool = self.tool(host)?;
        let done = tool.ask(host, &[&self.name, "status"], "", self.deadline)?;
        match done.ended {
            Ended::Exited(code) => Ok(code == 0),
            _ => Err(tool.fault(&done)),
        }
    }

    fn is_enabled(&self, host: &mut Host, wanted: bool) -> Result<bool, Fault> {
        let levels = self.levels(host)?;
        Ok(if wanted { levels.contains(&self.runlevel) } else { levels.is_empty() })
    }

    fn act(&self, host: &mut Host, act: Act) -> Result<(), Fault> {
        // It believes that the service still runs, and would do nothing.
        if act == Act::Start && self.is_started(host)? {
            self.call(host, "zap")?;
        }
        match (act, self.call(host, act.word())) {
            (Act::Reload, Err(Fault::Failed(_))) => self.call(host, Act::Restart.word()),
            (_, done) => done,
        }
    }

    fn command(&self, _host: &mut Host, act: Act) -> Result<Vec<String>, Fault> {
        Ok(words(["rc-service", &self.name, act.word()]))
    }

    fn undo_enable(&self, host: &mut Host, wanted: bool) -> Result<Vec<Vec<String>>, Fault> {
        let levels = if wanted { vec![self.runlevel.clone()] } else { self.levels(host)? };
        let to = format!("/etc/init.d/{}", self.name);
        let undo = |level: &String| linked(host, &format!("{LEVELS}/{level}/{}", self.name), (!wanted).then_some(&to));
        Ok(levels.iter().map(undo).collect())
    }

    fn enable(&self, host: &mut Host, wanted: bool) -> Result<(), Fault> {
        let levels = if wanted { vec![self.runlevel.clone()] } else { self.levels(host)? };
        for level in levels {
            let path = format!("{LEVELS}/{level}/{}", self.name);
            symlink::Wanted::owned(path, format!("/etc/init.d/{}", self.name), wanted).converge(host)?;
        }
        Ok(())
    }
}
