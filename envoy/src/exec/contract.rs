//! The contract of every executor: probe, converge, probe again. Nothing is written unless a probe found a difference, and
//! nothing is called changed unless a second probe finds none. What a change will notify is promised before it is made: after a
//! kill nothing differs any more, and nobody would know.

use common::outcome::Outcome;

use super::diff::NOT_SHOWN;
use super::fault::Fault;
use super::host::{Host, Reach};
use super::undo::{self, Back};
use crate::plan::{Task, Verdict};

/// One resource whose parameters were read.
pub trait Statement {
    /// Reads, and says what differs. With `diff`, in detail.
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault>;

    /// Removes the difference that the last probe found, or leaves the old state usable.
    fn converge(&mut self, host: &mut Host) -> Result<(), Fault>;

    /// What to add to the report of a change, in few words; may be empty.
    fn told(&self) -> String {
        String::new()
    }

    /// How the state that the last probe found can be had again, for `confirm`.
    fn back(&mut self, _host: &mut Host) -> Result<Back, Fault> {
        Err(Fault::Parameter("`confirm` does not work here: what was there cannot be put back".to_string()))
    }

    /// Refuses what would harm the agent itself.
    fn spare_self(&self, host: &mut Host) -> Result<(), Fault>;
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is not there.
    Create,
    /// Packages are not there.
    Install,
    /// It is there and differs.
    Change,
    /// It is there and should not be.
    Remove,
    /// A command has to run.
    Run,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// What has to be done.
    pub action: Action,
    /// What differs, in few words; may be empty.
    pub detail: String,
    /// Unified diff, or empty.
    pub diff: String,
}

impl Drift {
    /// Without a diff.
    pub fn new(action: Action, detail: impl Into<String>) -> Drift {
        Drift { action, detail: detail.into(), diff: String::new() }
    }

    /// A change, if there is anything to change.
    pub fn change(details: Vec<String>) -> Option<Drift> {
        (!details.is_empty()).then(|| Drift::new(Action::Change, details.join(", ")))
    }

    fn describe(&self, done: bool) -> String {
        let words = match (self.action, done) {
            (Action::Create, true) => "created",
            (Action::Create, false) => "would create",
            (Action::Install, true) => "installed",
            (Action::Install, false) => "would install",
            (Action::Change, true) => "changed",
            (Action::Change, false) => "would change",
            (Action::Remove, true) => "removed",
            (Action::Remove, false) => "would remove",
            (Action::Run, true) => "ran",
            (Action::Run, false) => "would run",
        };
        if self.detail.is_empty() { words.to_string() } else { format!("{words}: {}", self.detail) }
    }
}

/// Brings one resource to its state, or only looks.
pub fn settle(statement: &mut dyn Statement, host: &mut Host, task: &Task<'_>) -> Verdict {
    match try_settle(statement, host, task) {
        Ok(verdict) => verdict,
        Err(fault) => fault.verdict(),
    }
}

/// The same for what was read from the task, or not.
pub fn settle_read<S: Statement>(read: Result<S, Fault>, host: &mut Host, task: &Task<'_>) -> Verdict {
    match read {
        Ok(mut statement) => settle(&mut statement, host, task),
        Err(fault) => fault.verdict(),
    }
}

/// What only a running system has: below another root there are no `things`.
pub fn only_live(host: &Host, things: &str) -> Option<Verdict> {
    let message = || format!("the root is not that of the running system: it has no {things}");
    (!host.is_live()).then(|| Verdict { outcome: Outcome::Skipped, message: message(), diff: String::new() })
}

fn try_settle(statement: &mut dyn Statement, host: &mut Host, task: &Task<'_>) -> Result<Verdict, Fault> {
    let Some(drift) = statement.probe(host, task.diff)? else {
        return Ok(Verdict { outcome: Outcome::Ok, message: String::new(), diff: String::new() });
    };
    statement.spare_self(host)?;
    if task.enforce {
        if let Some(within_ms) = undo::asked(task) {
            let back = statement.back(host)?;
            undo::keep(host, task, within_ms, &back)?;
        }
        host.promise(task.notify);
        let done = statement.converge(host);
        // A path may mean another directory now.
        host.root.forget();
        done?;
        if let Some(rest) = statement.probe(host, false)? {
            // What it finds may be an old value, or a part of the new one.
            let what = if host.is_tainted { NOT_SHOWN.to_string() } else { rest.describe(true) };
            return Err(Fault::Failed(format!("it still differs after it was {what}")));
        }
    }
    let mut message = drift.describe(task.enforce);
    let told = if task.enforce { statement.told() } else { String::new() };
    if !told.is_empty() {
        message = format!("{message}; {told}");
    }
    Ok(Verdict { outcome: Outcome::Changed, message, diff: drift.diff })
}

/// For statements about one path.
pub fn spare_path(host: &mut Host, path: &str, tree: bool) -> Result<(), Fault> {
    host.spare_self(path, if tree { Reach::Tree } else { Reach::Name })
}
