//! HUP: the agent becomes a new process in its old place, from the program that is on the disk by then.
//!
//! Never in the middle of something: the run under way ends first, and everything is committed. Only then the shell is asked to
//! execute. A disk that refuses keeps what is in memory alone, so the agent stays until the disk takes it, and runs go on
//! meanwhile. Where the program cannot be executed, this process goes on as if nobody had asked.

use common::log::Level;

use super::config::{AgentConfig, Mode};
use super::converge::Phase;
use super::core::{Agent, Cx};
use super::events::Effect;
use crate::report::incident;

/// Said to those who wait for a run that will not begin in this process.
pub(super) const STARTING_ANEW: &str = "the agent is starting anew: try again";

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Nobody asked.
    #[default]
    Unasked,
    /// After the run.
    Wanted,
    /// The last commit is wanted or under way.
    Flushing,
    /// The shell executes.
    Executing,
}

impl Agent {
    pub(super) fn on_renew(&mut self, config: AgentConfig, cx: &mut Cx<'_>) {
        self.on_reload(config, cx);
        if self.mode == Mode::Daemon && self.renewal == Renewal::Unasked {
            self.renewal = Renewal::Wanted;
        }
    }

    /// Whether no run may begin any more in this process.
    pub(super) fn renewing(&self) -> bool {
        self.renewal != Renewal::Unasked && !self.persist.refuses()
    }

    pub(super) fn settle_renewal(&mut self, cx: &mut Cx<'_>) {
        let asked = matches!(self.renewal, Renewal::Wanted | Renewal::Flushing);
        if !asked || self.term.is_some() || !self.renewing() {
            return;
        }
        if !matches!(self.converge.phase, Phase::Idle) || self.n_pins_saving > 0 {
            return;
        }
        if self.renewal == Renewal::Wanted {
            self.renewal = Renewal::Flushing;
            self.persist.flush();
            self.settle_persist(cx);
        }
        if self.persist.busy() || self.queue.wants_store() {
            return;
        }
        self.dismiss_waiters(STARTING_ANEW, cx);
        cx.log(Level::Info, "starting anew, from the program on the disk");
        self.renewal = Renewal::Executing;
        cx.out.push(Effect::Renew);
    }

    pub(super) fn on_renew_failed(&mut self, reason: &str, cx: &mut Cx<'_>) {
        self.renewal = Renewal::Unasked;
        let text = format!("not started anew: {reason}; the agent goes on as it is");
        cx.log(Level::Error, &text[..]);
        self.queue.push_incident(&incident("renewal", &text, cx.now));
    }
}
