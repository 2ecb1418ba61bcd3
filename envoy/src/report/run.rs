//! What the runner hands back: one run, with one entry a resource.

use common::ids::Uuid;
use common::outcome::{Counts, Outcome};
use common::time::Now;

/// One run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunReport {
    /// As ordered.
    pub run_id: Uuid,
    /// Both clocks at its start; the monotonic one counts from boot.
    pub started: Now,
    /// How long it took, by the monotonic clock.
    pub duration_ms: u64,
    /// Every resource after `foreach` was unrolled, in the order in which they were done.
    pub resources: Vec<ResourceReport>,
    /// Why the run could not start or was cut short; empty where neither.
    pub error: String,
    /// It was told to stop before its end: the current resource and all after it say so.
    pub interrupted: bool,
    /// What held for the whole run and is worth a line: owners left alone, for example.
    pub notes: Vec<String>,
    /// Resources that were notified and are not settled: the next run has to act on them.
    pub owed: Vec<String>,
}

/// One resource of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceReport {
    /// `crate.name`, with the item of a `foreach`.
    pub name: String,
    /// Executor.
    pub kind: String,
    /// What became of it.
    pub outcome: Outcome,
    /// For people; cut to [`common::limits::OUTCOME_TEXT_BYTES_MAX`] here if it is longer.
    pub message: String,
    /// Unified diff, or empty.
    pub diff: String,
    /// How long it took.
    pub duration_ms: u64,
    /// Hash of what was asked for (type and rendered parameters, blob hashes included): the same number in the next run
    /// means that the policy asked for the same thing, so that a change is a relapse.
    pub fingerprint: u64,
}

impl RunReport {
    /// Counts by outcome.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.resources.iter().for_each(|resource| counts.add(resource.outcome));
        counts
    }
}
