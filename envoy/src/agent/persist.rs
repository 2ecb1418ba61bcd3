//! What goes to disk, and when: one transaction at a time, with everything that differs from the store in it.
//!
//! A run's record, the history that it changed, the acknowledgements since the last commit and the notes go together: one
//! sync a run. While a commit is under way, what comes meanwhile waits for the next one.
//!
//! **A disk that is full** is made room on by the queue's drop order, then tried again. **A disk that refuses** is said
//! aloud once; the agent goes on from memory (bounded), sends from memory, and tries the disk again at intervals. What was
//! sent from memory and then forgotten by a crash is a hole in this host's memory only: the server has it, and the next
//! first words find the server ahead.

use common::ids::Hash32;
use common::log::Level;
use common::time::Mono;
use common::units::human_duration;

use super::control::TermPhase;
use super::core::{Agent, Cx};
use super::events::{Effect, Ticket};
use crate::cache::{CacheError, StoreOp};
use crate::report::incident;

/// First pause after a refusal, in milliseconds; doubles up to the next.
const RETRY_FIRST_MS: u64 = 1_000;
/// Longest pause between attempts on a disk that refuses, in milliseconds.
const RETRY_MAX_MS: u64 = 60_000;
/// Attempts in a row to make room before a full disk counts as one that refuses.
const RELIEF_MAX: u32 = 64;
/// The store's owner answers within this, or counts as one that refuses: a hung disk must not look like an idle agent.
const COMMIT_TIMEOUT_MS: u64 = 120_000;

/// Commits under way and trouble with them.
#[derive(Debug, Default)]
pub(super) struct Persist {
    /// The commit under way, and when it is overdue.
    in_flight: Option<InFlight>,
    /// Meta values and traits beyond the queue's own, to be written with the next commit.
    pending: Vec<StoreOp>,
    /// Something must be committed for its own sake.
    urgent: bool,
    /// A new slot to be committed, with a name for it.
    slot: Option<(StoreOp, Hash32)>,
    /// The disk refuses: since when, what it said, when to try again, next pause.
    pub(super) trouble: Option<Trouble>,
    /// Attempts in a row to make room.
    n_relief: u32,
}

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    overdue: Mono,
    /// To be written again if the commit fails.
    pending: Vec<StoreOp>,
    slot: Option<(StoreOp, Hash32)>,
    /// Said to be overdue already.
    late: bool,
}

/// The disk refuses.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) since: Mono,
    pub(super) said: String,
    retry_at: Mono,
    pause_ms: u64,
}

impl Persist {
    /// Adds a meta value or trait to the next commit, in place of an older one of the same name.
    pub(super) fn put(&mut self, op: StoreOp, urgent: bool) {
        self.pending.retain(|old| !replaces(&op, old));
        self.pending.push(op);
        self.urgent |= urgent;
    }

    /// Asks for a slot to be committed; [`Agent::on_slot_stored`] hears when it is.
    pub(super) fn put_slot(&mut self, op: StoreOp, bundle: Hash32) {
        self.slot = Some((op, bundle));
    }

    /// Asks for a commit of whatever there is.
    pub(super) fn flush(&mut self) {
        self.urgent = true;
    }

    /// Whether this meta value waits for a commit that has not begun.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.pending.iter().any(|op| matches!(op, StoreOp::SetMeta(held, _) if held == name))
    }

    /// A commit is under way or wanted.
    pub(super) fn busy(&self) -> bool {
        self.in_flight.is_some() || self.urgent || self.slot.is_some()
    }

    /// The disk does not take anything: what is sent comes from memory.
    pub(super) fn refuses(&self) -> bool {
        self.trouble.is_some()
    }
}

fn replaces(new: &StoreOp, old: &StoreOp) -> bool {
    match (new, old) {
        (StoreOp::SetMeta(a, _), StoreOp::SetMeta(b, _)) | (StoreOp::SetTrait(a, _), StoreOp::SetTrait(b, _)) => a == b,
        _ => false,
    }
}

impl Agent {
    pub(super) fn settle_persist(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        if let Some(commit) = self.persist.in_flight.as_mut() {
            if now >= commit.overdue && !commit.late {
                commit.late = true;
                self.refused("the commit does not end", cx);
            }
            return;
        }
        let wanted = self.queue.wants_store() || self.persist.urgent || self.persist.slot.is_some();
        let held = self.persist.trouble.as_ref().is_some_and(|trouble| now < trouble.retry_at);
        if wanted && !held {
            self.commit(cx);
        }
    }

    fn commit(&mut self, cx: &mut Cx<'_>) {
        let dropped = self.queue.fit(self.config.queue_bytes_max, self.clock.now_ms(cx.now.mono), cx.now.wall.0);
        self.log_dropped(dropped, "the queue has reached its bound", cx);
        self.notes.server_ms = self.clock.now_ms(cx.now.mono);
        for (name, value) in self.notes.store() {
            self.persist.put(StoreOp::SetMeta(name, value), false);
        }
        for (name, value) in self.history.take_dirty() {
            self.persist.put(StoreOp::SetMeta(name, value), false);
        }
        let mut ops = Vec::new();
        self.queue.take_ops(&mut ops);
        ops.extend(self.persist.pending.iter().cloned());
        let slot = self.persist.slot.take();
        ops.extend(slot.iter().map(|(op, _)| op.clone()));
        let ticket = self.fresh_ticket();
        self.persist.urgent = false;
        self.persist.in_flight = Some(InFlight {
            ticket,
            overdue: cx.now.mono + COMMIT_TIMEOUT_MS,
            pending: std::mem::take(&mut self.persist.pending),
            slot,
            late: false,
        });
        cx.out.push(Effect::Store { ticket, ops });
    }

    pub(super) fn on_stored(&mut self, ticket: Ticket, result: Result<(), CacheError>, cx: &mut Cx<'_>) {
        let Some(commit) = self.persist.in_flight.take_if(|commit| commit.ticket == ticket) else { return };
        self.queue.on_stored(result.is_ok());
        match result {
            Ok(()) => self.on_committed(commit, cx),
            Err(why) => {
                let newer = std::mem::take(&mut self.persist.pending);
                self.persist.pending = commit.pending;
                newer.into_iter().for_each(|op| self.persist.put(op, false));
                self.persist.slot = self.persist.slot.take().or(commit.slot);
                self.persist.urgent = true;
                self.on_refused(&why, cx);
            }
        }
    }

    fn on_committed(&mut self, commit: InFlight, cx: &mut Cx<'_>) {
        self.persist.n_relief = 0;
        if let Some(trouble) = self.persist.trouble.take() {
            let ms = cx.now.mono.since(trouble.since);
            cx.log(Level::Info, format!("the state store takes writes again after {}", human_duration(ms)));
        }
        if let Some((_, bundle)) = commit.slot {
            self.on_slot_stored(bundle, cx);
        }
        self.settle_promises(cx);
        self.on_run_stored(cx);
        let settled = !self.persist.busy() && !self.queue.wants_store();
        self.flushed(settled);
    }

    fn flushed(&mut self, settled: bool) {
        if let Some(term) = self.term.as_mut()
            && term.phase == TermPhase::Flushing
            && settled
        {
            term.phase = TermPhase::Flushed;
        }
    }

    fn on_refused(&mut self, why: &CacheError, cx: &mut Cx<'_>) {
        if *why == CacheError::Full && self.persist.n_relief < RELIEF_MAX {
            let freed = self.queue.relieve(self.clock.now_ms(cx.now.mono), cx.now.wall.0);
            if let Some(dropped) = freed {
                self.persist.n_relief += 1;
                self.log_dropped(dropped, "the state store is full", cx);
                return;
            }
        }
        self.refused(&why.to_string(), cx);
    }

    fn refused(&mut self, why: &str, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let (since, pause_ms) = match self.persist.trouble.take() {
            Some(trouble) => (trouble.since, (trouble.pause_ms * 2).min(RETRY_MAX_MS)),
            None => {
                cx.log(Level::Error, format!("state store: {why}; going on from memory, trying again"));
                self.queue.push_incident(&incident("disk", why, cx.now));
                (now, RETRY_FIRST_MS)
            }
        };
        self.persist.trouble = Some(Trouble { since, said: why.into(), retry_at: now + pause_ms, pause_ms });
        let dropped = self.queue.fit_memory(cx.now.wall.0);
        self.log_dropped(dropped, "the disk refuses and memory is bounded", cx);
        self.settle_promises(cx);
        self.on_run_stored(cx);
        self.flushed(true);
    }

    fn log_dropped(&mut self, dropped: u64, why: &str, cx: &mut Cx<'_>) {
        if dropped > 0 {
            cx.log(Level::Warn, format!("{dropped} runs were dropped from the queue: {why}; the server will be told"));
        }
    }

    pub(super) fn persist_deadline(&self) -> Option<Mono> {
        if let Some(commit) = &self.persist.in_flight {
            return (!commit.late).then_some(commit.overdue);
        }
        self.persist.trouble.as_ref().map(|trouble| trouble.retry_at)
    }
}
