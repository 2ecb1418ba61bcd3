//! The documents behind `vigo-envoy status`, `queue` and `run --once`: stable field names, a schema version, serialisable.

use serde::{Deserialize, Serialize};

/// Schema version of the three documents.
pub const SCHEMA: u32 = 1;

/// `vigo-envoy status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// [`SCHEMA`].
    pub schema: u32,
    /// This envoy.
    pub uuid: String,
    /// The name by which it was enrolled.
    pub hostname: String,
    /// The server's id.
    pub server_id: String,
    /// Version of the agent.
    pub version: String,
    /// Addresses in the order of trial.
    pub servers: Vec<String>,
    /// `connected to HOST`, `polled`, `lost`, `refused`, `not met yet`.
    pub connection: String,
    /// Trouble with the server's identity or standing; empty where there is none. `trust: server changed <fingerprint>`.
    pub trust: String,
    /// The server's word on this envoy: `active`, `pending`, `review`, `duplicate`, `revoked`, empty before the first contact.
    pub standing: String,
    /// Milliseconds since the last answered check-in, none before the first one of this process.
    pub checked_in_ms_ago: Option<u64>,
    /// Server time of the last answered check-in (RFC 3339), empty before the first one.
    pub checked_in_at: String,
    /// Failed rounds in a row.
    pub attempt: u32,
    /// Milliseconds to the next check-in or attempt.
    pub next_check_in_ms: Option<u64>,
    /// Milliseconds to the next run.
    pub next_run_ms: Option<u64>,
    /// What is applied; none before the first assignment.
    pub policy: Option<PolicyDocument>,
    /// The server said to keep what is there: nothing is published, or no mapping matches.
    pub keep_cached: bool,
    /// When this envoy would stop converging if the server vanished now: `never`, or a moment and its cause.
    pub offline_horizon: String,
    /// Status by the agent's own history.
    pub status: String,
    /// The resource-independent part of the newest run; none before the first one.
    pub last_run: Option<LastRunDocument>,
    /// A run is going on.
    pub running: bool,
    /// The queue.
    pub queue: QueueDocument,
    /// The disk refuses: since when, and what it said; empty where it does not.
    pub disk: String,
    /// Highest server time known, RFC 3339.
    pub server_time: String,
    /// Host clock minus server time, ms; none before the first contact.
    pub skew_ms: Option<i64>,
}

/// The policy that is applied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyDocument {
    /// Epoch of the assignment.
    pub epoch: u64,
    /// Serial of the assignment.
    pub serial: u64,
    /// Hash of the bundle.
    pub bundle: String,
    /// Where its mapping is written.
    pub mapping: String,
    /// Resources before `foreach` is unrolled.
    pub resources: usize,
    /// `live` or `cache`.
    pub source: String,
    /// `current` or `previous` slot.
    pub slot: String,
    /// Milliseconds since the server last named it, by server time.
    pub age_ms: u64,
    /// Between runs.
    pub interval_ms: u64,
    /// 0: it never runs out.
    pub max_age_ms: u64,
}

/// The newest run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastRunDocument {
    /// Its id.
    pub run_id: String,
    /// Start, by the host's clock.
    pub started: String,
    /// How long it took.
    pub duration_ms: u64,
    /// Resources as they should be.
    pub ok: u32,
    /// Brought to their state.
    pub changed: u32,
    /// Skipped.
    pub skipped: u32,
    /// Failed.
    pub failed: u32,
    /// Blocked.
    pub blocked: u32,
    /// Why it could not start or was cut short.
    pub error: String,
}

/// How the message of a resource begins whose change was put back.
pub const ROLLED_BACK: &str = "rolled back";

/// `vigo-envoy queue`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueDocument {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The lanes, urgent first.
    pub lanes: Vec<LaneDocument>,
    /// Bytes of what waits.
    pub bytes: u64,
    /// Bound of that.
    pub bytes_max: u64,
}

/// One lane of the queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneDocument {
    /// `urgent` or `routine`.
    pub lane: String,
    /// Records that wait.
    pub records: usize,
    /// Runs that they stand for.
    pub runs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Highest acknowledged sequence.
    pub acknowledged: u64,
    /// Highest sequence.
    pub newest: u64,
    /// Acknowledged records that are kept for a server that comes back older.
    pub retained: usize,
    /// Runs that were dropped and are reported as gaps, not yet acknowledged.
    pub lost: u64,
}

/// `vigo-envoy run --once`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunDocument {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run: LastRunDocument,
    /// It changed nothing on purpose.
    pub dry_run: bool,
    /// Serial of the policy that ran.
    pub serial: u64,
    /// `live` or `cache`.
    pub source: String,
    /// Milliseconds since the server last named that policy.
    pub age_ms: u64,
    /// Status by the agent's own history.
    pub status: String,
    /// Why the server could not be asked; empty where it was, or was not wanted.
    pub server: String,
    /// Every resource.
    pub resources: Vec<ResourceDocument>,
}

/// One resource of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceDocument {
    /// Its name.
    pub name: String,
    /// Its executor.
    pub r#type: String,
    /// What became of it.
    pub outcome: String,
    /// For people.
    pub message: String,
    /// Unified diff, or empty.
    pub diff: String,
    /// How long it took.
    pub duration_ms: u64,
}
