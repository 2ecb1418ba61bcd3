//! Services of OpenRC: what was started has a link in `/run/openrc/started`, what starts with the host has one in its
//! runlevel. Only acting needs a process.

use common::time::Mono;

use super::init::{Act, Init};
use crate::exec::contract::Statement;
use crate::exec::fault::Fault;
use crate::exec::files::symlink;
use crate::exec::host::Host;
use crate::exec::look::{is_there, names_in, text_of};
use crate::exec::tool::Tool;

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

    /// Whether a daemon of it has ended without being told to.
    fn has_crashed(&self, host: &mut Host) -> Result<bool, Fault> {
        let folder = format!("/run/openrc/daemons/{}", self.name);
        for entry in names_in(host, &folder)? {
            let said = text_of(host, &format!("{folder}/{entry}"))?;
            let Some(path) = said.lines().find_map(|line| line.strip_prefix("pidfile=")) else { continue };
            if !path.starts_with('/') || path.contains("/../") {
                continue;
            }
            let pid = text_of(host, path)?;
            match pid.trim().parse::<u32>() {
                Ok(pid) if is_there(host, &format!("/proc/{pid}/stat"))? => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    fn call(&self, host: &mut Host, word: &str) -> Result<(), Fault> {
        let missing = || Fault::Failed("`rc-service` is not installed on this host; it is needed here".to_string());
        let tool = Tool::find(host, "rc-service").ok_or_else(missing)?;
        tool.run(host, &[&self.name, word], self.deadline).map(|_| ())
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
        Ok(self.is_started(host)? && !self.has_crashed(host)?)
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

    fn enable(&self, host: &mut Host, wanted: bool) -> Result<(), Fault> {
        let levels = if wanted { vec![self.runlevel.clone()] } else { self.levels(host)? };
        for level in levels {
            let path = format!("{LEVELS}/{level}/{}", self.name);
            symlink::Wanted::owned(path, format!("/etc/init.d/{}", self.name), wanted).converge(host)?;
        }
        Ok(())
    }
}
