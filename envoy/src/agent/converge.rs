//! A run, from the wish to the record. Checking in has no part in it: what is current when the traits are there is run.
//!
//! due -> gather traits -> order the run -> its report -> history, status, record -> one commit -> whoever waited is told.

use std::sync::Arc;

use common::bundle::Version;
use common::chain::Lane;
use common::ids::{Hash32, Uuid};
use common::limits;
use common::log::Level;
use common::outcome::Status;
use common::proto::wire::run_result::Source;
use common::time::{Mono, Wall};

use super::config::Mode;
use super::core::{Agent, Cx};
use super::events::{Effect, RunOrder, Ticket, TraitTree};
use super::gate::Applied;
use super::notes::OWED_META;
use super::status::LastRunDocument;
use crate::cache::StoreOp;
use crate::report::{RunContext, RunReport, run_result};

/// All collectors together get this long, in milliseconds; then the run goes on with what was known last.
const GATHER_TIMEOUT_MS: u64 = 60_000;

/// The run under way.
#[derive(Debug, Default)]
pub(super) struct Converge {
    pub(super) phase: Phase,
    /// The run waits for its promises to be stored.
    promising: Option<Uuid>,
    /// The run waits for a check-in on a new connection.
    confirming: Option<Uuid>,
    /// Why the last due run could not start: reported once for each cause.
    pub(super) obstacle: String,
}

#[derive(Debug, Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// Traits are being gathered.
    Gathering { ticket: Ticket, until: Mono, manner: Manner },
    /// The runner has it.
    Running(Box<Running>),
}

/// How to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) dry_run: bool,
    pub(super) diff: bool,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) run_id: Uuid,
    pub(super) manner: Manner,
    pub(super) bundle: Hash32,
    pub(super) version: Version,
    pub(super) source: Source,
    pub(super) age_ms: u64,
}

impl Agent {
    pub(super) fn settle_converge(&mut self, cx: &mut Cx<'_>) {
        match &self.converge.phase {
            Phase::Idle => {}
            Phase::Gathering { until, manner, .. } if cx.now.mono >= *until => {
                let manner = *manner;
                cx.log(Level::Warn, "traits: the collectors do not end; going on with the last ones");
                self.order(manner, cx);
                return;
            }
            Phase::Gathering { .. } | Phase::Running(_) => return,
        }
        if self.term.is_some() || self.renewing() {
            return;
        }
        let asked = self.waiters_ready();
        let due = self.mode == Mode::Daemon && self.schedule.due();
        let Some(manner) = asked.or(due.then(Manner::default)) else { return };
        if let Some(obstacle) = self.obstacle(cx) {
            return self.cannot_run(obstacle, cx);
        }
        self.converge.obstacle.clear();
        if !manner.dry_run {
            self.schedule.begin();
        }
        let ticket = self.fresh_ticket();
        let until = cx.now.mono + GATHER_TIMEOUT_MS;
        self.converge.phase = Phase::Gathering { ticket, until, manner };
        cx.out.push(Effect::GatherTraits { ticket });
    }

    /// What may be run now: for a dry run of one process also what just came and will not be kept.
    pub(super) fn runnable(&self) -> Option<&Applied> {
        let shadow = self.adoption.as_ref().and_then(|adoption| adoption.shadow());
        shadow.or(self.gate.current())
    }

    /// Why no run can start.
    pub(super) fn obstacle(&self, cx: &Cx<'_>) -> Option<String> {
        let Some(applied) = self.runnable() else {
            return Some("no policy has been assigned yet".into());
        };
        let expires = applied.expires_ms(self.notes.confirmed_ms)?;
        (self.clock.now_ms(cx.now.mono) >= expires).then(|| {
            let at = Wall(i64::try_from(expires).unwrap_or(i64::MAX));
            format!("the policy ran out at {at}: no server has confirmed it within its max age")
        })
    }

    fn cannot_run(&mut self, obstacle: String, cx: &mut Cx<'_>) {
        self.schedule.give_up();
        self.refuse_waiters(&obstacle, cx);
        let never_assigned = self.runnable().is_none();
        if self.converge.obstacle == obstacle {
            return;
        }
        self.converge.obstacle.clone_from(&obstacle);
        if never_assigned {
            return;
        }
        // A run that could not start is a run: it is reported, once for each cause.
        cx.log(Level::Error, format!("no run: {obstacle}"));
        let run_id = Uuid::random_run(&self.uuid, cx.rng);
        let owed = self.notes.owed.clone();
        let report = RunReport { run_id, started: cx.now, error: obstacle, owed, ..RunReport::default() };
        let Some(running) = self.running(run_id, Manner::default(), cx) else { return };
        self.record_run(&report, &running, cx);
    }

    pub(super) fn on_traits(&mut self, ticket: Ticket, trees: Arc<Vec<TraitTree>>, cx: &mut Cx<'_>) {
        let Phase::Gathering { ticket: expected, manner, .. } = self.converge.phase else { return };
        if expected != ticket {
            return;
        }
        self.take_traits(trees, cx);
        if self.term.is_some() {
            self.converge.phase = Phase::Idle;
            self.schedule.end();
            return;
        }
        self.order(manner, cx);
    }

    /// Notes what changed; values go to disk with the run's record.
    fn take_traits(&mut self, trees: Arc<Vec<TraitTree>>, cx: &mut Cx<'_>) {
        let is_known = |tree: &TraitTree| {
            let old = self.traits.iter().find(|old| old.name == tree.name);
            // What was not gathered anew is the same in memory, and most trees are that.
            old.is_some_and(|old| Arc::ptr_eq(&old.value, &tree.value) || old == tree)
        };
        for tree in trees.iter().filter(|tree| !tree.volatile && !is_known(tree)) {
            let json = tree.value.to_string();
            if json.len() > limits::TRAIT_TREE_BYTES_MAX {
                let bytes = json.len();
                cx.log(Level::Warn, format!("traits: tree {} has {bytes} bytes: neither kept nor sent", tree.name));
                self.told.forget(&tree.name);
                continue;
            }
            self.told.note(&tree.name, &json);
            self.persist.put(StoreOp::SetTrait(tree.name.clone(), Some(json.into_bytes())), false);
        }
        let here = |name: &str| trees.iter().any(|tree| tree.name == name && !tree.volatile);
        self.gone_traits.retain(|name| !here(name));
        for old in self.traits.iter().filter(|old| !old.volatile && !here(&old.name)) {
            self.told.forget(&old.name);
            self.gone_traits.push(old.name.clone());
            self.persist.put(StoreOp::SetTrait(old.name.clone(), None), false);
        }
        self.traits = trees;
        self.trait_hash = self.told.hash();
    }

    fn running(&self, run_id: Uuid, manner: Manner, cx: &Cx<'_>) -> Option<Running> {
        let applied = self.runnable()?;
        let live = self.checked_in.is_some_and(|(at, _)| {
            self.lost_since.is_none() && cx.now.mono.since(at) <= 2 * self.schedule.interval_ms()
        });
        Some(Running {
            run_id,
            manner,
            bundle: applied.assignment.bundle,
            version: applied.assignment.version,
            source: if live { Source::Live } else { Source::Cache },
            age_ms: self.policy_age_ms(applied, cx.now.mono),
        })
    }

    /// Milliseconds of server time since a server last named this policy.
    pub(super) fn policy_age_ms(&self, applied: &Applied, now: Mono) -> u64 {
        self.clock.now_ms(now).saturating_sub(self.notes.confirmed_ms.max(applied.assignment.issued_at_ms))
    }

    fn order(&mut self, manner: Manner, cx: &mut Cx<'_>) {
        let run_id = Uuid::random_run(&self.uuid, cx.rng);
        let (Some(running), Some(applied)) = (self.running(run_id, manner, cx), self.runnable()) else {
            self.converge.phase = Phase::Idle;
            self.schedule.end();
            return;
        };
        let order = RunOrder {
            run_id,
            bundle: applied.bundle.clone(),
            secrets: applied.secrets.clone(),
            former_secrets: self.gate.former_secrets(),
            traits: self.traits.clone(),
            hostname: applied.assignment.hostname.clone(),
            dry_run: manner.dry_run,
            diff: manner.diff,
            owed: self.notes.owed.clone(),
        };
        self.join_waiters(manner, run_id);
        self.converge.phase = Phase::Running(Box::new(running));
        cx.out.push(Effect::StartRun(Box::new(order)));
    }

    /// A notification is pending from here on. It is stored before the change is made; the commit of the run's record takes it
    /// back. A run that changes nothing that notifies costs nothing.
    pub(super) fn on_promise(&mut self, run_id: Uuid, targets: Vec<String>, cx: &mut Cx<'_>) {
        if !matches!(&self.converge.phase, Phase::Running(running) if running.run_id == run_id) {
            return;
        }
        let new: Vec<String> = targets.into_iter().filter(|name| !self.notes.owed.contains(name)).collect();
        if new.is_empty() || self.persist.refuses() {
            return cx.out.push(Effect::Promised { run_id });
        }
        self.notes.owed.extend(new);
        let (name, value) = self.notes.store_owed();
        self.persist.put(StoreOp::SetMeta(name, value), true);
        self.converge.promising = Some(run_id);
    }

    /// A commit has ended, or the disk refuses and what is promised is promised in memory only.
    pub(super) fn settle_promises(&mut self, cx: &mut Cx<'_>) {
        if self.persist.refuses() || !self.persist.holds(OWED_META) {
            let waiting = self.converge.promising.take();
            cx.out.extend(waiting.map(|run_id| Effect::Promised { run_id }));
        }
    }

    /// The run wants to know whether a server can still be reached. What stands is dropped: it may live on where nothing new
    /// comes through.
    pub(super) fn on_confirm(&mut self, run_id: Uuid, cx: &mut Cx<'_>) {
        if matches!(&self.converge.phase, Phase::Running(running) if running.run_id == run_id) {
            self.converge.confirming = Some(run_id);
            self.reconnect(cx);
        }
    }

    /// Whether a check-in is awaited by the run.
    pub(super) fn is_confirming(&self) -> bool {
        self.converge.confirming.is_some()
    }

    /// A check-in was answered.
    pub(super) fn confirm(&mut self, cx: &mut Cx<'_>) {
        let confirmed = self.converge.confirming.take();
        cx.out.extend(confirmed.map(|run_id| Effect::Confirmed { run_id }));
    }

    pub(super) fn on_run_done(&mut self, report: &RunReport, cx: &mut Cx<'_>) {
        let running = match std::mem::take(&mut self.converge.phase) {
            Phase::Running(running) if running.run_id == report.run_id => running,
            other => {
                self.converge.phase = other;
                return;
            }
        };
        self.converge.confirming = None;
        if running.manner.dry_run {
            let status = report.counts().status(false, 0, !report.error.is_empty());
            return self.tell_waiters(report, &running, status, cx);
        }
        self.schedule.end();
        self.converge.promising = None;
        let status = self.record_run(report, &running, cx);
        self.tell_waiters(report, &running, status, cx);
    }

    fn record_run(&mut self, report: &RunReport, running: &Running, cx: &mut Cx<'_>) -> Status {
        let complete = report.error.is_empty() && !report.interrupted;
        let judgement = self.history.judge(&report.resources, complete);
        let counts = report.counts();
        let status = counts.status(judgement.relapsed, judgement.consecutive, !complete);
        let context = RunContext {
            boot_id: self.boot_id.clone(),
            bundle: running.bundle,
            version: running.version,
            source: running.source,
            age_ms: running.age_ms,
            status,
        };
        let mut result = run_result(report, &judgement.verdicts, &context);
        if report.interrupted && result.error.is_empty() {
            result.error = "interrupted: the agent was told to stop".into();
        }
        if self.notes.owed != report.owed {
            // In the commit of the run's own record: a notification outlives its run, or is as lost as the run.
            self.notes.owed.clone_from(&report.owed);
            let (name, value) = self.notes.store_owed();
            self.persist.put(StoreOp::SetMeta(name, value), false);
        }
        if self.run_notes != report.notes {
            self.run_notes.clone_from(&report.notes);
            report.notes.iter().for_each(|note| cx.log(Level::Info, &note[..]));
        }
        let lane = self.queue.push_run(&result);
        if lane == Lane::Routine && self.routine_since.is_none() {
            self.routine_since = Some(cx.now.mono);
        }
        if self.persist.refuses() {
            self.queue.fit_memory(cx.now.wall.0);
        }
        self.n_runs += 1;
        (self.last_counts, self.last_status) = (counts, status);
        self.last_run = Some(last_run(report));
        if lane == Lane::Urgent {
            let level = if counts.failed + counts.blocked > 0 || !complete { Level::Warn } else { Level::Info };
            let (version, ms) = (running.version, report.duration_ms);
            let error = if complete { String::new() } else { format!(": {}", result.error) };
            cx.log(
                level,
                format!(
                    "run {} of serial {}: {} ok, {} changed, {} failed, {} blocked, {} skipped in {ms} ms, {status}{error}",
                    report.run_id,
                    version.serial,
                    counts.ok,
                    counts.changed,
                    counts.failed,
                    counts.blocked,
                    counts.skipped
                ),
            );
        }
        status
    }

    pub(super) fn converge_deadline(&self) -> Option<Mono> {
        match &self.converge.phase {
            Phase::Gathering { until, .. } => Some(*until),
            Phase::Idle | Phase::Running(_) => None,
        }
    }
}

/// The resource-independent part of a run.
pub(super) fn last_run(report: &RunReport) -> LastRunDocument {
    let counts = report.counts();
    LastRunDocument {
        run_id: report.run_id.to_string(),
        started: report.started.wall.to_string(),
        duration_ms: report.duration_ms,
        ok: counts.ok,
        changed: counts.changed,
        skipped: counts.skipped,
        failed: counts.failed,
        blocked: counts.blocked,
        error: report.error.clone(),
    }
}
