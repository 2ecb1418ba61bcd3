//! What a family of init systems can do with one service, and which family a root has. A back end looks without a process
//! wherever files tell enough, and acts through the tools of its family.

use common::time::Mono;

use super::openrc::OpenRc;
use super::scripts::Script;
use super::systemd::Systemd;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::look::{is_there, text_of};

/// What is done to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It runs afterwards.
    Start,
    /// It does not run afterwards.
    Stop,
    /// It was started anew.
    Restart,
    /// It has read its configuration anew; restarted where it cannot do that.
    Reload,
}

impl Act {
    /// As tools and scripts call it.
    pub fn word(self) -> &'static str {
        match self {
            Act::Start => "start",
            Act::Stop => "stop",
            Act::Restart => "restart",
            Act::Reload => "reload",
        }
    }
}

/// One service of one init system.
pub trait Init {
    /// Whether the service exists.
    fn is_known(&self, host: &mut Host) -> Result<bool, Fault>;

    /// Whether it runs now. Asked only on the running system.
    fn runs(&self, host: &mut Host) -> Result<bool, Fault>;

    /// Whether it is started with the host, or not, as it should be.
    fn is_enabled(&self, host: &mut Host, wanted: bool) -> Result<bool, Fault>;

    /// Does something to it now.
    fn act(&self, host: &mut Host, act: Act) -> Result<(), Fault>;

    /// A program and its arguments that do something to it, for when nobody is there to ask.
    fn command(&self, host: &mut Host, act: Act) -> Result<Vec<String>, Fault>;

    /// Programs and their arguments by which it starts with the host as it does now, after [`Init::enable`].
    fn undo_enable(&self, host: &mut Host, wanted: bool) -> Result<Vec<Vec<String>>, Fault>;

    /// Whether it is started with the host from now on.
    fn enable(&self, host: &mut Host, wanted: bool) -> Result<(), Fault>;
}

/// The service of that name, in the init system of the root. On a running system that is the one that runs.
pub fn find(host: &mut Host, name: &str, runlevel: &str, deadline: Mono) -> Result<Box<dyn Init>, Fault> {
    let there = |host: &mut Host, paths: &[&str]| -> Result<bool, Fault> {
        for path in paths {
            if is_there(host, path)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let live = host.is_live();
    let systemd: &[&str] =
        if live { &["/run/systemd/system"] } else { &["/usr/lib/systemd/systemd", "/lib/systemd/systemd"] };
    if there(host, systemd)? {
        return Ok(Box::new(Systemd::new(host, name, deadline)));
    }
    let openrc: &[&str] = if live { &["/run/openrc"] } else { &["/etc/runlevels"] };
    if there(host, openrc)? {
        return Ok(Box::new(OpenRc::new(name, runlevel, deadline)));
    }
    if there(host, &["/etc/init.d"])? {
        return Ok(Box::new(Script::find(host, name, deadline)?));
    }
    Err(Fault::Failed(
        "no init system is known here: neither systemd nor OpenRC runs, and there is no /etc/init.d".to_string(),
    ))
}

/// The words of a command.
pub fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_string).to_vec()
}

/// What makes a link again, or takes one away: at this path below the root.
pub fn linked(host: &Host, path: &str, to: Option<&str>) -> Vec<String> {
    let path = host.root.path().join(path.trim_start_matches('/')).display().to_string();
    match to {
        Some(to) => words(["ln", "-sfn", "--", to, &path]),
        None => words(["rm", "-f", "--", &path]),
    }
}

/// Whether the process that a PID file names exists; `None` where the file names none.
pub fn lives(host: &mut Host, path: &str) -> Result<Option<bool>, Fault> {
    match text_of(host, path)?.trim().parse::<u32>() {
        Ok(pid) => is_there(host, &format!("/proc/{pid}/stat")).map(Some),
        Err(_) => Ok(None),
    }
}

/// What a script of shell plainly assigns to a variable, with others filled in whose values are known; `None` where only a shell
/// could tell.
pub fn assigned(script: &str, name: &str, known: &[(&str, &str)]) -> Option<String> {
    let value = |line: &str| line.trim().strip_prefix(name)?.strip_prefix('=').map(str::to_string);
    let value = script.lines().find_map(value)?;
    let mut value = value.trim().trim_matches(['"', '\'']).to_string();
    for (name, known) in known {
        value = value.replace(&format!("${{{name}}}"), known).replace(&format!("${name}"), known);
    }
    (!value.is_empty() && !value.contains(['$', '`', ' ', '\t'])).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_assignments_are_believed() {
        let script = "#!/bin/sh\nDAEMON=\"sshd\"\nPIDFILE=\"/run/$DAEMON.pid\"\n  NAME=a\nX=$(id)\nY=\"a b\"\n";
        for (name, expected) in [
            ("DAEMON", Some("sshd")),
            ("PIDFILE", Some("/run/sshd.pid")),
            ("NAME", Some("a")),
            ("X", None),
            ("Y", None),
            ("Z", None),
        ] {
            assert_eq!(assigned(script, name, &[("DAEMON", "sshd")]).as_deref(), expected, "{name}");
        }
        assert_eq!(assigned("P=/run/${S}.pid", "P", &[("S", "x")]).as_deref(), Some("/run/x.pid"));
        assert_eq!(assigned("P=/run/${S}.pid", "P", &[]), None);
    }
}
