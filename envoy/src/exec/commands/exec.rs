//! `exec`: a command runs, unless its guards say that it need not. A notified one runs whatever its guards say.
//!
//! Guards that only ask for a file need no process. In a sysroot the command has it as working directory and
//! `VIGO_SYSROOT` set; `creates` and `cwd` are below it, what the command itself does is not.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

use common::bundle::Value;
use common::policy::params::text_of;
use common::policy::types;
use common::sys::redaction;

use super::guard;
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::{Host, Order};
use crate::exec::read::Reader;
use crate::exec::tool::quote;
use crate::plan::{Task, Verdict};
use crate::sys::child::{Ended, Finished};
use crate::sys::root::real_path;

/// Umask where none is asked for.
const UMASK_DEFAULT: u32 = 0o022;
/// Characters of a command that a message quotes.
const COMMAND_CHARS_MAX: usize = 120;

/// Settles one `exec`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(host, task), host, task)
}

/// A line of shell, or a program with its arguments.
pub enum Line<'t> {
    /// For `/bin/sh`.
    Shell(Cow<'t, str>),
    /// Without a shell.
    Program(Vec<String>),
}

struct Wanted<'t> {
    command: Line<'t>,
    onlyif: Option<Line<'t>>,
    unless: Option<Line<'t>>,
    creates: Option<Cow<'t, str>>,
    cwd: Option<Cow<'t, str>>,
    user: Option<Cow<'t, str>>,
    environment: Vec<(String, String)>,
    stdin: Cow<'t, str>,
    returns: Vec<i32>,
    umask: u32,
    task: &'t Task<'t>,
    ran: bool,
}

impl<'t> Line<'t> {
    /// From a parameter.
    pub fn read(value: Option<&'t Value>) -> Option<Line<'t>> {
        match value? {
            Value::List(items) => Some(Line::Program(items.iter().filter_map(text_of).map(Cow::into_owned).collect())),
            other => text_of(other).map(Line::Shell),
        }
    }

    /// What to start.
    pub fn argv(&self) -> Vec<OsString> {
        match self {
            Line::Shell(line) => Host::shell(line),
            Line::Program(words) => words.iter().map(OsString::from).collect(),
        }
    }

    /// As it was written, or nearly.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Line::Shell(line) => Cow::Borrowed(line),
            Line::Program(words) => Cow::Owned(words.join(" ")),
        }
    }

    fn quoted(&self) -> String {
        let text = self.text();
        // Before it is cut: the first half of a secret would be found by nobody.
        let text = redaction::clean(&text);
        let line = text.trim().lines().next().unwrap_or_default();
        let short: String = line.chars().take(COMMAND_CHARS_MAX).collect();
        if short.len() < text.trim().len() { format!("`{short} ...`") } else { format!("`{short}`") }
    }
}

impl<'t> Wanted<'t> {
    fn read(_: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let table = types::find("exec").ok_or_else(|| Fault::Parameter(types::unknown_type("exec")))?;
        let reader = Reader::try_new(table, task.params)?;
        let command = Line::read(reader.value("command")).ok_or_else(|| Fault::Parameter(table.missing("command")))?;
        let code = |value: &Value| match value {
            Value::Int(code) => i32::try_from(*code).ok(),
            _ => None,
        };
        let returns = match reader.value("returns") {
            Some(Value::List(codes)) => codes.iter().filter_map(code).collect(),
            Some(one) => code(one).into_iter().collect(),
            None => vec![0],
        };
        Ok(Wanted {
            command,
            onlyif: Line::read(reader.value("onlyif")),
            unless: Line::read(reader.value("unless")),
            creates: reader.text("creates"),
            cwd: reader.text("cwd"),
            user: reader.text("user"),
            environment: reader.environment("environment"),
            stdin: reader.text("stdin").unwrap_or_default(),
            returns,
            umask: reader.mode("umask").unwrap_or(UMASK_DEFAULT),
            task,
            ran: false,
        })
    }

    fn start(&self, host: &mut Host, line: &Line<'_>, stdin: &str) -> Result<Finished, Fault> {
        host.run(&Order {
            argv: line.argv(),
            cwd: self.cwd.as_deref(),
            user: self.user.as_deref(),
            environment: &self.environment,
            stdin: stdin.as_bytes(),
            umask: self.umask,
            deadline: self.task.deadline,
        })
    }

    /// Whether a guard exits with 0.
    fn holds(&self, host: &mut Host, name: &str, line: &Line<'_>) -> Result<bool, Fault> {
        // As another user the answer may be another.
        if let (Line::Shell(text), None) = (line, &self.user)
            && let Some(found) = guard::answer(text, &self.directory(host)?)
        {
            return Ok(found);
        }
        match self.start(host, line, "")?.ended {
            Ended::Exited(code) => Ok(code == 0),
            Ended::Signalled(signal) => Err(Fault::Failed(format!("`{name}` was ended by signal {signal}"))),
            Ended::TimedOut => Err(Fault::Failed(format!("`{name}` took too long and was ended"))),
            Ended::Stopped => Err(Fault::Failed(format!("`{name}` was ended: the agent stops"))),
        }
    }

    /// Where relative paths of a guard start.
    fn directory(&self, host: &mut Host) -> Result<PathBuf, Fault> {
        match &self.cwd {
            None => Ok(host.root.path().to_path_buf()),
            Some(cwd) => {
                let dir = host.root.directory(cwd.trim_end_matches('/'))?;
                real_path(&dir).ok_or_else(|| Fault::Failed("/proc is needed to find out where `cwd` is".to_string()))
            }
        }
    }

    fn created(&self, host: &mut Host) -> Result<Option<bool>, Fault> {
        let Some(path) = &self.creates else { return Ok(None) };
        let Some(place) = host.locate(path)? else { return Ok(Some(false)) };
        Ok(Some(host.stat(&place, path)?.is_some()))
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        if self.ran {
            return match self.created(host)? {
                Some(false) => Ok(Some(Drift::new(Action::Run, "and it did not create what `creates` names"))),
                // The other guards are the operator's word on when to run, not on what success is.
                _ => Ok(None),
            };
        }
        if !self.task.forced {
            let settled = self.created(host)? == Some(true)
                || match &self.unless {
                    Some(line) => self.holds(host, "unless", line)?,
                    None => false,
                }
                || match &self.onlyif {
                    Some(line) => !self.holds(host, "onlyif", line)?,
                    None => false,
                };
            if settled {
                return Ok(None);
            }
        }
        Ok(Some(Drift::new(Action::Run, self.command.quoted())))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let done = self.start(host, &self.command, &self.stdin)?;
        self.ran = true;
        let said = match done.ended {
            Ended::Exited(code) if self.returns.contains(&code) => return Ok(()),
            Ended::Exited(code) => format!("exited with {code}"),
            Ended::Signalled(signal) => format!("was ended by signal {signal}"),
            Ended::TimedOut => "took longer than its timeout and was ended".to_string(),
            Ended::Stopped => "was ended because the agent stops".to_string(),
        };
        Err(Fault::Failed(format!("{} {said}{}", self.command.quoted(), quote(&done))))
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        host.spare_self_from(&self.command.text())
    }
}
