//! `custom`: a program of the operator is the executor. It is asked with one JSON object on standard input, and answers with one on
//! standard output: first whether something differs, then, if so, to remove the difference, then again whether something
//! differs. The protocol for people is in the reference, from `common::policy::types`.

use std::borrow::Cow;
use std::ffi::OsString;

use common::outcome::Outcome;
use common::policy::value::to_json;
use serde_json::{Map, Value as Json, json};

use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::{Host, Order};
use crate::exec::look::is_there;
use crate::exec::read::Reader;
use crate::exec::tool::{self, quote};
use crate::plan::{Task, Verdict};
use crate::sys::child::Ended;

/// Version of the protocol.
const PROTOCOL: u64 = 1;
/// Umask of programs.
const UMASK: u32 = 0o022;

/// Settles one `custom`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(task), host, task)
}

struct Wanted<'t> {
    program: Cow<'t, str>,
    args: Vec<String>,
    input: Json,
    user: Option<Cow<'t, str>>,
    cwd: Option<Cow<'t, str>>,
    environment: Vec<(String, String)>,
    /// A notification is still to be answered.
    notified: bool,
    task: &'t Task<'t>,
}

/// What a program says of the state.
struct Answer {
    outcome: Outcome,
    message: String,
    diff: String,
}

impl<'t> Wanted<'t> {
    fn read(task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        Ok(Wanted {
            program: reader.path("program"),
            args: reader.texts("args"),
            input: reader.value("input").map_or_else(|| json!({}), to_json),
            user: reader.text("user"),
            cwd: reader.text("cwd"),
            environment: reader.environment("environment"),
            notified: task.forced,
            task,
        })
    }

    fn ask(&self, host: &mut Host, action: &str) -> Result<Answer, Fault> {
        let question = json!({
            "protocol": PROTOCOL,
            "action": action,
            "resource": self.task.name,
            "notified": self.notified,
            "sysroot": host.sysroot().map(|root| root.display().to_string()),
            "input": self.input,
        });
        let mut argv = vec![OsString::from(host.root.path().join(self.program.trim_start_matches('/')))];
        argv.extend(self.args.iter().map(OsString::from));
        let done = host.run(&Order {
            argv,
            cwd: self.cwd.as_deref(),
            user: self.user.as_deref(),
            environment: &self.environment,
            stdin: format!("{question}\n").as_bytes(),
            umask: UMASK,
            deadline: self.task.deadline,
        })?;
        if done.ended != Ended::Exited(0) {
            return Err(tool::fault(&self.program, &done));
        }
        let refuse =
            |why: &str| Fault::Failed(format!("the answer of {} to `{action}` {why}{}", self.program, quote(&done)));
        let said = serde_json::from_str(&done.stdout.text()).map_err(|_| refuse("is not one JSON object"))?;
        let Json::Object(said) = said else { return Err(refuse("is not one JSON object")) };
        parse(&said).map_err(|why| refuse(&why))
    }
}

fn parse(said: &Map<String, Json>) -> Result<Answer, String> {
    let text = |key: &str| match said.get(key) {
        None | Some(Json::Null) => Ok(String::new()),
        Some(Json::String(text)) => Ok(text.trim_end().to_string()),
        Some(_) => Err(format!("has a `{key}` that is no text")),
    };
    let outcome = match said.get("status").and_then(Json::as_str) {
        Some("ok") => Outcome::Ok,
        Some("differs") => Outcome::Changed,
        Some("failed") => Outcome::Failed,
        Some("blocked") => Outcome::Blocked,
        _ => return Err("has no `status` of ok, differs, failed or blocked".to_string()),
    };
    Ok(Answer { outcome, message: text("message")?, diff: text("diff")? })
}

impl Answer {
    /// Whether something differs.
    fn differs(self) -> Result<Option<Drift>, Fault> {
        let reason =
            |message: String| if message.is_empty() { "the program gave no reason".to_string() } else { message };
        match self.outcome {
            Outcome::Changed => Ok(Some(Drift { diff: self.diff, ..Drift::new(Action::Change, self.message) })),
            Outcome::Failed => Err(Fault::Failed(reason(self.message))),
            Outcome::Blocked => Err(Fault::Blocked(reason(self.message))),
            Outcome::Ok | Outcome::Skipped => Ok(None),
        }
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        if !is_there(host, &self.program)? {
            let message = format!("there is no program {}", self.program);
            // What installs it may stand before it in the same run.
            return if self.task.enforce {
                Err(Fault::Failed(format!("{message}: install it first, and depend on that")))
            } else {
                Ok(Some(Drift::new(Action::Run, format!("{message} yet"))))
            };
        }
        let drift = self.ask(host, "check")?.differs()?;
        Ok(drift.map(|drift| if diff { drift } else { Drift { diff: String::new(), ..drift } }))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let left = self.ask(host, "apply")?.differs()?;
        self.notified = false;
        match left {
            None => Ok(()),
            Some(left) => Err(Fault::Failed(format!("{} could not apply it: {}", self.program, left.detail))),
        }
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        host.spare_self_from(&self.program)
    }
}
