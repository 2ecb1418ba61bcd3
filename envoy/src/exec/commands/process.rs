//! `process`: a program runs, or does not. It is recognised by its name in `/proc`, and where asked by its command line and its
//! user; nothing is forked to look. What is to stop gets a signal and time, then KILL. Services are a matter of `service`.

use std::borrow::Cow;

use common::units::duration_ms;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use regex_lite::Regex;

use super::exec::Line;
use crate::exec::contract::{Action, Drift, Statement, only_live, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::{Host, Order};
use crate::exec::processes::{self, Process, kept_name};
use crate::exec::read::Reader;
use crate::exec::tool;
use crate::plan::{Task, Verdict};
use crate::sys::child::Ended;

/// From the signal to KILL, where the policy says nothing, in milliseconds.
const GRACE_MS: u64 = 10_000;
/// How long a program that was started may take to be seen, in milliseconds.
const START_MS: u64 = 5_000;
/// How often it is looked for, in milliseconds.
const LOOK_MS: u64 = 20;
/// Umask of what is started.
const UMASK: u32 = 0o022;

/// Settles one `process`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    if let Some(skipped) = only_live(host, "processes") {
        return skipped;
    }
    settle_read(Wanted::read(host, task), host, task)
}

struct Wanted<'t> {
    /// As the policy has it.
    asked: Cow<'t, str>,
    /// As the kernel keeps it.
    name: String,
    pattern: Option<Regex>,
    uid: Option<u32>,
    running: bool,
    command: Option<Line<'t>>,
    user: Option<Cow<'t, str>>,
    cwd: Option<Cow<'t, str>>,
    environment: Vec<(String, String)>,
    signal: Signal,
    grace_ms: u64,
    /// A notification is still to be answered.
    notified: bool,
    task: &'t Task<'t>,
}

impl<'t> Wanted<'t> {
    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let pattern = reader.text("pattern").map(|text| {
            Regex::new(&text).map_err(|error| Fault::Parameter(format!("`pattern` is no regular expression: {error}")))
        });
        let user = reader.text("user");
        let signal = match reader.text("signal").as_deref() {
            Some("INT") => Signal::SIGINT,
            Some("HUP") => Signal::SIGHUP,
            Some("QUIT") => Signal::SIGQUIT,
            Some("KILL") => Signal::SIGKILL,
            _ => Signal::SIGTERM,
        };
        Ok(Wanted {
            name: kept_name(&reader.path("process")).to_string(),
            asked: reader.path("process"),
            pattern: pattern.transpose()?,
            uid: user.as_deref().map(|user| host.uid_of(user)).transpose()?,
            running: reader.is("state", "running", "running"),
            command: Line::read(reader.value("command")),
            user,
            cwd: reader.text("cwd"),
            environment: reader.environment("environment"),
            signal,
            grace_ms: reader.text("grace").and_then(|text| duration_ms(&text).ok()).unwrap_or(GRACE_MS),
            notified: task.forced,
            task,
        })
    }

    /// Those that are meant, without the dead.
    fn found(&self, host: &mut Host) -> Result<Vec<Process>, Fault> {
        let mut all = processes::all(host)?;
        all.retain(|process| {
            process.name == self.name
                && !process.zombie
                && self.uid.is_none_or(|uid| uid == process.uid)
                && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&process.command))
        });
        Ok(all)
    }

    fn stop(&self, host: &mut Host) -> Result<(), Fault> {
        let found = self.found(host)?;
        send(host, &found, self.signal)?;
        let left = self.wait(host, self.grace_ms, &found)?;
        send(host, &left, Signal::SIGKILL)?;
        match self.wait(host, START_MS, &left)?.first() {
            None => Ok(()),
            Some(process) => Err(Fault::Failed(format!("process {} does not end, even by KILL", process.pid))),
        }
    }

    /// Waits until they have ended, for some time. Gives those that have not.
    fn wait(&self, host: &mut Host, longest_ms: u64, found: &[Process]) -> Result<Vec<Process>, Fault> {
        let until = (host.now().mono + longest_ms).min(self.task.deadline);
        loop {
            let mut left = Vec::new();
            for process in found {
                if is_same(host, process)? {
                    left.push(process.clone());
                }
            }
            if left.is_empty() || host.now().mono >= until {
                return Ok(left);
            }
            pause(host)?;
        }
    }

    fn start(&self, host: &mut Host) -> Result<(), Fault> {
        let missing = "it does not run, and there is no `command` that would start it";
        let command = self.command.as_ref().ok_or_else(|| Fault::Failed(missing.to_string()))?;
        // The shell ends at once, and what it started lives on: in the background, without our pipes.
        let words = match command {
            Line::Shell(line) => vec!["/bin/sh", "-c", "(eval \"$1\") </dev/null >/dev/null 2>&1 &", "sh", line],
            Line::Program(words) => ["/bin/sh", "-c", "\"$@\" </dev/null >/dev/null 2>&1 &", "sh"]
                .into_iter()
                .chain(words.iter().map(String::as_str))
                .collect(),
        };
        let done = host.run(&Order {
            argv: words.into_iter().map(Into::into).collect(),
            cwd: self.cwd.as_deref(),
            user: self.user.as_deref(),
            environment: &self.environment,
            stdin: &[],
            umask: UMASK,
            deadline: self.task.deadline,
        })?;
        if done.ended != Ended::Exited(0) {
            return Err(tool::fault("/bin/sh", &done));
        }
        let until = (host.now().mono + START_MS).min(self.task.deadline);
        while self.found(host)?.is_empty() {
            if host.now().mono >= until {
                return Err(Fault::Failed(format!(
                    "no process `{}` was to be seen within {} s after its command was started",
                    self.asked,
                    START_MS / 1000
                )));
            }
            pause(host)?;
        }
        Ok(())
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let found = self.found(host)?;
        Ok(match (self.running, found.first()) {
            (true, None) => Some(Drift::new(Action::Change, "was not running")),
            (true, Some(_)) if self.notified && self.command.is_some() => {
                Some(Drift::new(Action::Change, "restart, as notified"))
            }
            (true, Some(_)) | (false, None) => None,
            (false, Some(first)) => {
                let more = if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
                Some(Drift::new(Action::Change, format!("was running as process {}{more}", first.pid)))
            }
        })
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        if !self.found(host)?.is_empty() {
            self.stop(host)?;
        }
        self.notified = false;
        if self.running { self.start(host) } else { Ok(()) }
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        for process in self.found(host)? {
            if process.pid == 1 || process.command.is_empty() {
                let what = if process.pid == 1 { "the first process" } else { "a thread of the kernel" };
                return Err(Fault::Refused(format!("process {} is {what}: it is not stopped", process.pid)));
            }
            if process.pid == getpid().as_raw() {
                host.spare_agent("vigo-envoy")?;
            }
        }
        host.spare_agent(&self.name)
    }
}

/// Whether it still runs. Its number may belong to another one by now: then it has begun at another time.
fn is_same(host: &mut Host, process: &Process) -> Result<bool, Fault> {
    let found = processes::one(host, process.pid)?;
    Ok(found.is_some_and(|found| found.started == process.started && !found.zombie))
}

fn pause(host: &Host) -> Result<(), Fault> {
    if host.pause(LOOK_MS) { Ok(()) } else { Err(Fault::Failed("the agent stops".to_string())) }
}

fn send(host: &mut Host, found: &[Process], signal: Signal) -> Result<(), Fault> {
    for process in found {
        if !is_same(host, process)? {
            continue;
        }
        match kill(Pid::from_raw(process.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Fault::io("signal process", &process.pid.to_string())(errno)),
        }
    }
    Ok(())
}
