//! Who asks on the control socket, and how the agent ends.
//!
//! `run --once` asks the server first (unless told not to), runs, and is answered when the record is stored; it may join a
//! run that is about to start and never one that goes on. TERM lets the current resource end within its grace, stores the
//! result with everything else that is worth it, and exits in time whatever happens.

use common::ids::Uuid;
use common::limits;
use common::log::Level;
use common::outcome::{Outcome, Status};
use common::proto::wire::run_result::Source;
use common::time::{Mono, Wall};
use common::units::human_duration;

use super::config::Mode;
use super::contact::Contact;
use super::converge::{Manner, Phase, Running, last_run};
use super::core::{Agent, Cx};
use super::events::{ControlId, ControlReply, ControlRequest, Effect, Notice};
use super::renewal::STARTING_ANEW;
use super::status::{PolicyDocument, ResourceDocument, RunDocument, SCHEMA, StatusDocument};
use crate::report::{ResourceReport, RunReport};

/// `run --once` waits this long for the server, in milliseconds, then runs what is here.
const ASK_MS: u64 = 20_000;
/// `run --once` without a daemon waits this long for its record to be delivered, in milliseconds.
const DELIVER_MS: u64 = 10_000;
/// TERM ends the process within this, in milliseconds.
const TERM_MS: u64 = 9_500;
/// Requests that may wait at a time.
const WAITERS_MAX: usize = 16;

/// Somebody who waits for a run.
#[derive(Debug)]
pub(super) struct Waiter {
    id: ControlId,
    manner: Manner,
    offline: bool,
    phase: WaitPhase,
    /// A connection was tried for it, backoff or not.
    hurried: bool,
    /// Why the server could not be asked.
    server: String,
    /// Wants to be told of every resource.
    all: bool,
}

#[derive(Debug)]
enum WaitPhase {
    /// For the server: more check-ins or failures than these, or this moment.
    Server { n_checked_in: u64, n_failed: u64, until: Mono },
    /// For a run to begin.
    Turn,
    /// For this run to end.
    Run(Uuid),
    /// For its record to be stored.
    Stored(Box<RunDocument>),
    /// For its record to be delivered.
    Delivered(Box<RunDocument>, Mono),
}

/// The end.
#[derive(Debug)]
pub(super) struct Term {
    deadline: Mono,
    pub(super) phase: TermPhase,
}

/// What the end waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TermPhase {
    /// The run.
    Running,
    /// The last commit.
    Flushing,
    /// Nothing.
    Flushed,
}

impl Agent {
    pub(super) fn on_control(&mut self, id: ControlId, request: ControlRequest, cx: &mut Cx<'_>) {
        let reply = match request {
            ControlRequest::Status => ControlReply::Status(Box::new(self.status(cx))),
            ControlRequest::Queue => ControlReply::Queue(Box::new(self.queue.document(self.config.queue_bytes_max))),
            ControlRequest::RunOnce { .. } if self.term.is_some() => {
                ControlReply::Refused("the agent is stopping".into())
            }
            ControlRequest::RunOnce { .. } if self.renewing() => ControlReply::Refused(STARTING_ANEW.into()),
            ControlRequest::RunOnce { .. } if self.waiters.len() >= WAITERS_MAX => {
                ControlReply::Refused("too many wait for a run already: try again".into())
            }
            ControlRequest::RunOnce { dry_run, offline, diff, all } => {
                let manner = Manner { dry_run, diff };
                return self.wait_for_run((id, all), manner, offline, cx);
            }
        };
        cx.out.push(Effect::ControlReply { id, reply });
    }

    fn wait_for_run(&mut self, (id, all): (ControlId, bool), manner: Manner, offline: bool, cx: &mut Cx<'_>) {
        let until = cx.now.mono + ASK_MS;
        let phase = if offline {
            WaitPhase::Turn
        } else {
            WaitPhase::Server { n_checked_in: self.n_checked_in, n_failed: self.n_failed, until }
        };
        self.flush_routine |= !offline && !manner.dry_run;
        if let Contact::Up(up) = &mut self.contact {
            up.check_now |= !offline;
        }
        self.waiters.push(Waiter { id, manner, offline, phase, hurried: false, server: String::new(), all });
        // Whoever only waits for a turn is served by the run that starts in this very step.
        self.settle_control(cx);
    }

    pub(super) fn settle_control(&mut self, cx: &mut Cx<'_>) {
        self.advance_waiters(cx);
        self.settle_term(cx);
    }

    fn advance_waiters(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let (adopting, pausing) = (self.adopting(), now < self.not_before);
        let delivered = self.queue.waiting() == [0, 0];
        let mut waiters = std::mem::take(&mut self.waiters);
        let mut turn = false;
        waiters.retain_mut(|waiter| match &waiter.phase {
            WaitPhase::Server { n_checked_in, n_failed, until } => {
                let asked = self.n_checked_in > *n_checked_in && !adopting;
                let failed = self.n_failed > *n_failed && pausing;
                if !asked && !failed && now < *until {
                    return true;
                }
                if !asked {
                    let why = if failed { self.last_failure.clone() } else { "no answer in time".into() };
                    waiter.server = why;
                }
                waiter.phase = WaitPhase::Turn;
                turn = true;
                true
            }
            WaitPhase::Delivered(document, until) => {
                if !delivered && now < *until && self.lost_since.is_none() {
                    return true;
                }
                cx.out.push(Effect::ControlReply { id: waiter.id, reply: ControlReply::Ran(document.clone()) });
                false
            }
            WaitPhase::Turn | WaitPhase::Run(_) | WaitPhase::Stored(_) => true,
        });
        waiters.append(&mut self.waiters);
        self.waiters = waiters;
        if turn {
            self.settle_converge(cx);
        }
    }

    /// How the next run is wanted, by somebody whose turn it is.
    pub(super) fn waiters_ready(&self) -> Option<Manner> {
        self.waiters.iter().find(|waiter| matches!(waiter.phase, WaitPhase::Turn)).map(|waiter| waiter.manner)
    }

    /// A run begins: all who wait for one like it wait for this one.
    pub(super) fn join_waiters(&mut self, manner: Manner, run_id: Uuid) {
        let like = |waiter: &&mut Waiter| matches!(waiter.phase, WaitPhase::Turn) && waiter.manner == manner;
        self.waiters.iter_mut().filter(like).for_each(|waiter| waiter.phase = WaitPhase::Run(run_id));
    }

    pub(super) fn waiters_want_contact(&self) -> bool {
        let wants = |waiter: &Waiter| matches!(waiter.phase, WaitPhase::Server { .. } | WaitPhase::Delivered(..));
        self.waiters.iter().any(wants)
    }

    /// Somebody who has not had a connection tried for him yet.
    pub(super) fn waiters_hurry(&self) -> bool {
        let wants = |waiter: &Waiter| matches!(waiter.phase, WaitPhase::Server { .. }) && !waiter.hurried;
        self.waiters.iter().any(wants)
    }

    pub(super) fn waiters_hurried(&mut self) {
        let asking = |waiter: &&mut Waiter| matches!(waiter.phase, WaitPhase::Server { .. });
        self.waiters.iter_mut().filter(asking).for_each(|waiter| waiter.hurried = true);
    }

    pub(super) fn waiters_only_dry(&self) -> bool {
        !self.waiters.is_empty() && self.waiters.iter().all(|waiter| waiter.manner.dry_run)
    }

    pub(super) fn refuse_waiters(&mut self, why: &str, cx: &mut Cx<'_>) {
        self.waiters.retain(|waiter| {
            let refused = matches!(waiter.phase, WaitPhase::Turn);
            if refused {
                let server = if waiter.server.is_empty() { String::new() } else { format!(" ({})", waiter.server) };
                let reply = ControlReply::Refused(format!("{why}{server}"));
                cx.out.push(Effect::ControlReply { id: waiter.id, reply });
            }
            !refused
        });
    }

    pub(super) fn tell_waiters(&mut self, report: &RunReport, running: &Running, status: Status, cx: &mut Cx<'_>) {
        let mine = |waiter: &Waiter| matches!(waiter.phase, WaitPhase::Run(run_id) if run_id == report.run_id);
        if !self.waiters.iter().any(mine) {
            return;
        }
        self.waiters.retain_mut(|waiter| {
            if !mine(waiter) {
                return true;
            }
            let document = run_document(report, running, status, waiter.all);
            let document = Box::new(RunDocument { server: waiter.server.clone(), ..document });
            if running.manner.dry_run {
                cx.out.push(Effect::ControlReply { id: waiter.id, reply: ControlReply::Ran(document) });
                return false;
            }
            waiter.phase = WaitPhase::Stored(document);
            true
        });
    }

    /// A commit ended: who waits for a record that is stored now (or never will be, on a disk that refuses) is told.
    pub(super) fn on_run_stored(&mut self, cx: &mut Cx<'_>) {
        if self.queue.wants_store() && !self.persist.refuses() {
            return;
        }
        let (one_shot, until) = (self.mode == Mode::OneShot, cx.now.mono + DELIVER_MS);
        self.waiters.retain_mut(|waiter| {
            let document = match std::mem::replace(&mut waiter.phase, WaitPhase::Turn) {
                WaitPhase::Stored(document) => document,
                other => {
                    waiter.phase = other;
                    return true;
                }
            };
            if one_shot && !waiter.offline && waiter.server.is_empty() {
                waiter.phase = WaitPhase::Delivered(document, until);
                return true;
            }
            cx.out.push(Effect::ControlReply { id: waiter.id, reply: ControlReply::Ran(document) });
            false
        });
    }

    pub(super) fn on_term(&mut self, cx: &mut Cx<'_>) {
        if self.term.is_some() {
            return;
        }
        cx.out.push(Effect::Notify(Notice::Stopping));
        cx.log(Level::Info, "stopping");
        self.term = Some(Term { deadline: cx.now.mono + TERM_MS, phase: TermPhase::Running });
        match self.converge.phase {
            Phase::Running(_) => cx.out.push(Effect::StopRun { grace_ms: limits::TERM_GRACE_MS }),
            Phase::Gathering { .. } | Phase::Idle => self.converge.phase = Phase::Idle,
        }
    }

    fn settle_term(&mut self, cx: &mut Cx<'_>) {
        let Some(term) = self.term.as_mut() else { return };
        let late = cx.now.mono >= term.deadline;
        if term.phase == TermPhase::Running && matches!(self.converge.phase, Phase::Idle) {
            term.phase = TermPhase::Flushing;
            self.persist.flush();
            self.settle_persist(cx);
        }
        let flushed = self.term.as_ref().is_some_and(|term| term.phase == TermPhase::Flushed);
        if !flushed && !late {
            return;
        }
        if !flushed {
            cx.log(Level::Warn, "stopping although the run or the state store has not ended: out of time");
        }
        self.dismiss_waiters("the agent is stopping", cx);
        if let Some(link) = self.link() {
            cx.out.push(Effect::Disconnect { link });
        }
        self.contact = Contact::Idle;
        self.exited = true;
        cx.out.push(Effect::Exit { code: 0 });
    }

    /// This process has nothing more for those who wait.
    pub(super) fn dismiss_waiters(&mut self, why: &str, cx: &mut Cx<'_>) {
        for waiter in std::mem::take(&mut self.waiters) {
            let reply = match waiter.phase {
                WaitPhase::Stored(document) | WaitPhase::Delivered(document, _) => ControlReply::Ran(document),
                _ => ControlReply::Refused(why.into()),
            };
            cx.out.push(Effect::ControlReply { id: waiter.id, reply });
        }
    }

    pub(super) fn control_deadline(&self) -> Option<Mono> {
        let waits = self.waiters.iter().filter_map(|waiter| match &waiter.phase {
            WaitPhase::Server { until, .. } | WaitPhase::Delivered(_, until) => Some(*until),
            WaitPhase::Turn | WaitPhase::Run(_) | WaitPhase::Stored(_) => None,
        });
        waits.chain(self.term.as_ref().map(|term| term.deadline)).min()
    }

    fn status(&self, cx: &Cx<'_>) -> StatusDocument {
        let now = cx.now.mono;
        let text = |ms: u64| Wall(i64::try_from(ms).unwrap_or(i64::MAX)).to_string();
        let applied = self.gate.current();
        let live = self.checked_in.is_some() && self.lost_since.is_none();
        let policy = applied.map(|applied| PolicyDocument {
            epoch: applied.assignment.version.epoch,
            serial: applied.assignment.version.serial,
            bundle: applied.assignment.bundle.to_string(),
            mapping: applied.bundle.mapping.clone(),
            resources: applied.bundle.resources.len(),
            source: if live { "live" } else { "cache" }.into(),
            slot: if applied.fallback { "previous" } else { "current" }.into(),
            age_ms: self.policy_age_ms(applied, now),
            interval_ms: applied.assignment.interval_ms,
            max_age_ms: applied.assignment.max_age_ms,
        });
        let horizon = match applied {
            None => "now: no policy has been assigned yet".into(),
            Some(applied) => applied.expires_ms(self.notes.confirmed_ms).map_or("never".into(), |ms| {
                format!(
                    "{}: the policy may be applied for {} without a server",
                    text(ms),
                    human_duration(applied.assignment.max_age_ms)
                )
            }),
        };
        let connection = match &self.contact {
            Contact::Up(up) if up.held() => format!("connected to {}", up.address),
            Contact::Up(up) => format!("talking to {}", up.address),
            _ if self.lost_since.is_some() => format!("lost: {}", self.last_failure),
            _ if self.met => "polled".into(),
            _ => "not met yet".into(),
        };
        let idle = matches!(self.contact, Contact::Idle);
        let next_check = if idle { self.next_check.max(self.not_before) } else { self.next_check };
        let daemon = self.mode == Mode::Daemon;
        StatusDocument {
            schema: SCHEMA,
            uuid: self.uuid.to_string(),
            hostname: applied.map_or(&self.pins.server.hostname, |applied| &applied.assignment.hostname).clone(),
            server_id: self.pins.server.id().to_string(),
            version: self.version.clone(),
            servers: self.endpoints.list().to_vec(),
            connection,
            trust: self.trust.clone(),
            standing: self.standing.clone(),
            checked_in_ms_ago: self.checked_in.map(|(at, _)| now.since(at)),
            checked_in_at: self.checked_in.map(|(_, ms)| text(ms)).unwrap_or_default(),
            attempt: self.notes.attempt,
            next_check_in_ms: daemon.then(|| next_check.since(now)),
            next_run_ms: daemon.then(|| self.schedule.next().since(now)),
            policy,
            keep_cached: self.keep_cached,
            offline_horizon: horizon,
            status: self.last_status.name().into(),
            last_run: self.last_run.clone(),
            running: matches!(self.converge.phase, Phase::Running(_)),
            queue: self.queue.document(self.config.queue_bytes_max),
            disk: self.persist.trouble.as_ref().map_or(String::new(), |trouble| {
                format!("refuses since {}: {}", human_duration(now.since(trouble.since)), trouble.said)
            }),
            server_time: text(self.clock.now_ms(now)),
            skew_ms: self.clock.skew_ms(),
        }
    }
}

fn run_document(report: &RunReport, running: &Running, status: Status, all: bool) -> RunDocument {
    // Skipped by its own `when` is as wished, and has nothing to say.
    let told = |resource: &&ResourceReport| {
        let as_wished = match resource.outcome {
            Outcome::Ok => true,
            Outcome::Skipped => resource.message.is_empty(),
            Outcome::Changed | Outcome::Failed | Outcome::Blocked => false,
        };
        all || !as_wished
    };
    let resources = report.resources.iter().filter(told).map(|resource| ResourceDocument {
        name: resource.name.clone(),
        r#type: resource.kind.clone(),
        outcome: resource.outcome.name().into(),
        message: resource.message.clone(),
        diff: resource.diff.clone(),
        duration_ms: resource.duration_ms,
    });
    RunDocument {
        schema: SCHEMA,
        run: last_run(report),
        dry_run: running.manner.dry_run,
        serial: running.version.serial,
        source: if running.source == Source::Live { "live" } else { "cache" }.into(),
        age_ms: running.age_ms,
        status: status.name().into(),
        server: String::new(),
        resources: resources.collect(),
    }
}
