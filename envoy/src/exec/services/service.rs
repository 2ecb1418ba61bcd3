//! `service`: a service of the host runs or not, and is started with the host or not. A notification restarts or reloads it,
//! unless it was started in the same act: then it has read everything already.
//!
//! Below a root that is not that of the running system nothing runs; there only what happens at its start is settled.

use super::init::{Act, Init, find};
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::undo::Back;
use crate::plan::{Task, Verdict};

/// Settles one `service`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(host, task), host, task)
}

struct Wanted<'t> {
    name: String,
    init: Box<dyn Init>,
    /// `None` leaves it.
    running: Option<bool>,
    /// `None` leaves it.
    enabled: Option<bool>,
    /// What a notification does to it while it runs.
    refresh: Act,
    /// A notification is still to be answered.
    notified: bool,
    /// What the last probe found.
    plan: Plan,
    task: &'t Task<'t>,
}

/// What is to be done.
#[derive(Default)]
struct Plan {
    enable: Option<bool>,
    act: Option<Act>,
}

impl<'t> Wanted<'t> {
    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let name = reader.path("service").into_owned();
        let state = reader.text("state");
        let runlevel = reader.text("runlevel").unwrap_or("default".into());
        let init = find(host, &name, &runlevel, task.deadline)?;
        let live = host.is_live();
        if !live && (state.is_some() || task.forced) {
            host.note("services are neither started nor stopped: the root is not that of the running system");
        }
        Ok(Wanted {
            name,
            init,
            running: state.as_deref().filter(|_| live).map(|state| state != "stopped"),
            enabled: reader.given_truth("enabled"),
            refresh: if state.as_deref() == Some("reloaded") { Act::Reload } else { Act::Restart },
            notified: task.forced && live,
            plan: Plan::default(),
            task,
        })
    }

    /// Both differences, and the answer to a notification.
    fn plan(&self, host: &mut Host) -> Result<Plan, Fault> {
        let mut plan = Plan::default();
        if let Some(wanted) = self.enabled
            && !self.init.is_enabled(host, wanted)?
        {
            plan.enable = Some(wanted);
        }
        if self.running.is_some() || self.notified {
            let runs = self.init.runs(host)?;
            plan.act = match (self.running, runs) {
                (Some(true), false) => Some(Act::Start),
                (Some(false), true) => Some(Act::Stop),
                (Some(true) | None, true) if self.notified => Some(self.refresh),
                _ => None,
            };
        }
        Ok(plan)
    }

    /// What to say where there is no such service. Gone is as good as stopped and never started; and before its package is
    /// installed, a dry run cannot know better.
    fn unknown(&self) -> Result<Option<Drift>, Fault> {
        match (self.running, self.enabled) {
            (Some(true), _) | (_, Some(true)) if self.task.enforce => Err(Fault::Failed(format!(
                "there is no service `{}` on this host: install it first, and depend on that",
                self.name
            ))),
            (Some(true), _) | (_, Some(true)) => Ok(Some(Drift::new(Action::Change, "it is not installed yet"))),
            _ => Ok(None),
        }
    }
}

impl Plan {
    fn describe(&self) -> Vec<String> {
        let enable = self.enable.map(|wanted| if wanted { "was not enabled" } else { "was enabled" });
        let act = self.act.map(|act| match act {
            Act::Start => "was not running",
            Act::Stop => "was running",
            Act::Restart => "restart, as notified",
            Act::Reload => "reload, as notified",
        });
        act.into_iter().chain(enable).map(str::to_string).collect()
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        if !self.init.is_known(host)? {
            return self.unknown();
        }
        self.plan = self.plan(host)?;
        Ok(Drift::change(self.plan.describe()))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        if let Some(wanted) = self.plan.enable {
            self.init.enable(host, wanted)?;
            host.root.forget();
        }
        if let Some(act) = self.plan.act {
            self.init.act(host, act)?;
        }
        self.notified = false;
        Ok(())
    }

    fn back(&mut self, host: &mut Host) -> Result<Back, Fault> {
        let mut commands = Vec::new();
        if let Some(act) = self.plan.act {
            let undo = match act {
                Act::Start => Act::Stop,
                Act::Stop => Act::Start,
                // With what it read before.
                Act::Restart | Act::Reload => act,
            };
            commands.push(self.init.command(host, undo)?);
        }
        if let Some(wanted) = self.plan.enable {
            commands.extend(self.init.undo_enable(host, wanted)?);
        }
        let again = self.plan.enable.is_none() && matches!(self.plan.act, Some(Act::Restart | Act::Reload));
        Ok(if again { Back::Again(commands) } else { Back::After(commands) })
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        let plan = &self.plan;
        match plan.act.is_none_or(|act| act == Act::Start) && plan.enable != Some(false) {
            true => Ok(()),
            false => host.spare_agent(&self.name),
        }
    }
}
