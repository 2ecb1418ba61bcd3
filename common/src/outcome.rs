//! What became of a resource, and of an envoy: the two vocabularies that CLI, API, database and reports share.

use std::fmt;

/// Outcome of one resource in one run. Discriminants are on the wire and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Was as it should be.
    Ok = 1,
    /// Was brought to its state.
    Changed = 2,
    /// Condition false, or a dependency failed.
    Skipped = 3,
    /// Could not be brought to its state.
    Failed = 4,
    /// Infrastructure fault: no disk, broken repository, lock held.
    Blocked = 5,
}

impl Outcome {
    /// From its number on the wire.
    pub fn from_u32(n: u32) -> Option<Outcome> {
        [Outcome::Ok, Outcome::Changed, Outcome::Skipped, Outcome::Failed, Outcome::Blocked]
            .into_iter()
            .find(|outcome| *outcome as u32 == n)
    }

    /// The word used everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Changed => "changed",
            Outcome::Skipped => "skipped",
            Outcome::Failed => "failed",
            Outcome::Blocked => "blocked",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Status of an envoy, in order of precedence: the first that applies is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Status {
    /// Two hosts with one identity.
    Duplicate = 1,
    /// Re-admitted after a restore, waiting for one look.
    Review = 2,
    /// Not seen for 2.5 times its own cadence.
    Offline = 3,
    /// Enrolled, no run yet.
    Nodata = 4,
    /// Every resource failed, or the run could not start.
    Failed = 5,
    /// Some resources failed or are blocked.
    Degraded = 6,
    /// Three or more runs in a row had to change the same resource.
    Diverged = 7,
    /// The last run had to change something that an earlier run had already put right.
    Relapsed = 8,
    /// The last run failed nothing and re-changed nothing.
    Converged = 9,
}

impl Status {
    /// All, in order of precedence.
    pub const ALL: [Status; 9] = [
        Status::Duplicate,
        Status::Review,
        Status::Offline,
        Status::Nodata,
        Status::Failed,
        Status::Degraded,
        Status::Diverged,
        Status::Relapsed,
        Status::Converged,
    ];

    /// From its number on the wire or in the database.
    pub fn from_u32(n: u32) -> Option<Status> {
        Status::ALL.into_iter().find(|status| *status as u32 == n)
    }

    /// The word used everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Status::Duplicate => "duplicate",
            Status::Review => "review",
            Status::Offline => "offline",
            Status::Nodata => "nodata",
            Status::Failed => "failed",
            Status::Degraded => "degraded",
            Status::Diverged => "diverged",
            Status::Relapsed => "relapsed",
            Status::Converged => "converged",
        }
    }

    /// The COMPLIANCE column: only `compliant` contains "compliant", because people grep it.
    pub fn compliance(self) -> &'static str {
        match self {
            Status::Converged => "compliant",
            Status::Relapsed | Status::Diverged => "drifted",
            Status::Degraded | Status::Failed => "failed",
            Status::Duplicate | Status::Review | Status::Offline | Status::Nodata => "unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Counts of one run, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Resources that were as they should be.
    pub ok: u32,
    /// Resources brought to their state.
    pub changed: u32,
    /// Resources skipped.
    pub skipped: u32,
    /// Resources that failed.
    pub failed: u32,
    /// Resources blocked by infrastructure.
    pub blocked: u32,
}

impl Counts {
    /// Adds one outcome.
    pub fn add(&mut self, outcome: Outcome) {
        let slot = match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Changed => &mut self.changed,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Failed => &mut self.failed,
            Outcome::Blocked => &mut self.blocked,
        };
        *slot = slot.saturating_add(1);
    }

    /// Whether the run belongs on the urgent lane.
    pub fn urgent(&self) -> bool {
        self.changed + self.failed + self.blocked > 0
    }

    /// All resources of the run.
    pub fn total(&self) -> u32 {
        self.ok + self.changed + self.skipped + self.failed + self.blocked
    }

    /// Status of a run by its counts alone; `relapsed` and `consecutive` (longest row of runs that changed one same
    /// resource) come from the agent's history.
    pub fn status(&self, relapsed: bool, consecutive: u32, error: bool) -> Status {
        let bad = self.failed + self.blocked;
        if error || (bad > 0 && bad == self.total()) {
            Status::Failed
        } else if bad > 0 {
            Status::Degraded
        } else if consecutive >= 3 {
            Status::Diverged
        } else if relapsed {
            Status::Relapsed
        } else {
            Status::Converged
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for status in Status::ALL {
            assert_eq!(Status::from_u32(status as u32), Some(status));
        }
        assert_eq!(Outcome::from_u32(5), Some(Outcome::Blocked));
        assert_eq!(Outcome::from_u32(0), None);
    }

    #[test]
    fn only_compliant_contains_the_word() {
        let hits = Status::ALL.iter().filter(|status| status.compliance().contains("compliant")).count();
        assert_eq!(hits, 1);
    }

    #[test]
    fn status_follows_the_counts() {
        let counts = |changed, failed| Counts { ok: 1, changed, failed, ..Counts::default() };
        assert_eq!(counts(1, 0).status(false, 1, false), Status::Converged);
        assert_eq!(counts(1, 0).status(true, 2, false), Status::Relapsed);
        assert_eq!(counts(1, 0).status(true, 3, false), Status::Diverged);
        assert_eq!(counts(0, 1).status(true, 3, false), Status::Degraded);
        let all = Counts { failed: 2, ..Counts::default() };
        assert_eq!(all.status(false, 0, false), Status::Failed);
        assert_eq!(Counts::default().status(false, 0, true), Status::Failed);
    }
}
