//! Raw messages into checked types.

use std::fmt;

use super::wire;
use crate::chain::Lane;
use crate::ids::Hash32;
use crate::limits;
use crate::outcome::Counts;

/// A message that does not say what it must. `field` is a path such as `records[3].lane`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMessage {
    /// The field that is wrong.
    pub field: String,
    /// What was expected there.
    pub expected: &'static str,
}

impl BadMessage {
    /// Names the field and what it should be.
    pub fn new(field: impl Into<String>, expected: &'static str) -> BadMessage {
        BadMessage { field: field.into(), expected }
    }
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field {}: expected {}", self.field, self.expected)
    }
}

impl std::error::Error for BadMessage {}

/// What an envoy holds after enrollment, in the words of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Enrolled {
    /// Policy and secrets.
    Active = 1,
    /// Policy, but no secrets until approved.
    Pending = 2,
    /// Re-admitted after a restore.
    Review = 3,
    /// Two hosts with this identity.
    Duplicate = 4,
    /// No longer welcome.
    Revoked = 5,
}

impl Enrolled {
    /// All.
    pub const ALL: [Enrolled; 5] =
        [Enrolled::Active, Enrolled::Pending, Enrolled::Review, Enrolled::Duplicate, Enrolled::Revoked];

    /// The word on the wire and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Enrolled::Active => "active",
            Enrolled::Pending => "pending",
            Enrolled::Review => "review",
            Enrolled::Duplicate => "duplicate",
            Enrolled::Revoked => "revoked",
        }
    }

    /// From that word.
    pub fn from_name(name: &str) -> Option<Enrolled> {
        Enrolled::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// The checked head of a queue record; its body stays encoded (it is what the link covers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// Lane.
    pub lane: Lane,
    /// First sequence it covers, at least 1.
    pub first: u64,
    /// Last sequence it covers, not below `first`.
    pub last: u64,
    /// Link before `first`.
    pub previous_link: Hash32,
    /// Link at `first`.
    pub first_link: Hash32,
    /// Link at `last`.
    pub last_link: Hash32,
}

impl RecordMeta {
    /// Runs (or lost runs) that the record stands for.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// The decoded body of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordBody {
    /// One run.
    Run(wire::RunResult),
    /// Consecutive runs that changed nothing.
    Stretch(wire::Stretch),
    /// Records that are gone, and why.
    Gap(wire::Gap),
    /// Something that happened to the agent itself.
    Incident(wire::Incident),
}

/// Checks a record: head, body size, and, where one run is one record, that the link covers the body.
pub fn record_meta(record: &wire::Record) -> Result<(RecordMeta, RecordBody), BadMessage> {
    use prost::Message;
    use wire::record::Body;
    let bad = |field: &str, expected| BadMessage::new(field, expected);
    let lane = Lane::from_u32(record.lane as u32).ok_or(bad("lane", "URGENT or ROUTINE"))?;
    let hash = |field, bytes: &[u8]| Hash32::try_from_slice(bytes).map_err(|_| bad(field, "a link of 32 bytes"));
    let meta = RecordMeta {
        lane,
        first: record.first_sequence,
        last: record.last_sequence,
        previous_link: hash("previous_link", &record.previous_link)?,
        first_link: hash("first_link", &record.first_link)?,
        last_link: hash("last_link", &record.last_link)?,
    };
    // The upper bound keeps every sequence a positive i64, which is what SQLite stores.
    if meta.first == 0 || meta.last < meta.first || meta.last > i64::MAX as u64 {
        return Err(bad("first_sequence", "1 <= first_sequence <= last_sequence < 2^63"));
    }
    let body = record.body.as_ref().ok_or(bad("body", "a run, a stretch, a gap or an incident"))?;
    let (Body::Run(bytes) | Body::Stretch(bytes) | Body::Gap(bytes) | Body::Incident(bytes)) = body;
    if bytes.len() > limits::RECORD_BYTES_MAX {
        return Err(bad("body", "at most 256 KiB"));
    }
    let one = meta.first == meta.last;
    let decoded = match body {
        Body::Run(bytes) => wire::RunResult::decode(&bytes[..]).map(RecordBody::Run),
        Body::Stretch(bytes) => wire::Stretch::decode(&bytes[..]).map(RecordBody::Stretch),
        Body::Gap(bytes) => wire::Gap::decode(&bytes[..]).map(RecordBody::Gap),
        Body::Incident(bytes) => wire::Incident::decode(&bytes[..]).map(RecordBody::Incident),
    };
    let decoded = decoded.map_err(|_| bad("body", "a well-formed message"))?;
    match &decoded {
        RecordBody::Run(_) | RecordBody::Incident(_) => {
            let fits = one
                && meta.first_link == meta.last_link
                && meta.first_link == crate::chain::link(&meta.previous_link, lane, meta.first, bytes);
            if !fits {
                return Err(bad("last_link", "the link of this one body"));
            }
        }
        RecordBody::Stretch(stretch) if stretch.count != meta.count() => {
            return Err(bad("body.count", "as many runs as the record has sequences"));
        }
        RecordBody::Gap(gap) if gap.count != meta.count() => {
            return Err(bad("body.count", "as many runs as the record has sequences"));
        }
        RecordBody::Stretch(_) | RecordBody::Gap(_) => {}
    }
    if let RecordBody::Run(run) = &decoded {
        if run.outcomes.len() > limits::OUTCOMES_PER_RUN_MAX {
            return Err(bad("body.outcomes", "at most 1,000 outcomes"));
        }
        if run.run_id.len() != 16 {
            return Err(bad("body.run_id", "16 bytes"));
        }
    }
    Ok((meta, decoded))
}

/// Counts off the wire; absent means zero.
pub fn counts_from_wire(counts: Option<&wire::RunCounts>) -> Counts {
    counts.map_or(Counts::default(), |c| Counts {
        ok: c.ok,
        changed: c.changed,
        skipped: c.skipped,
        failed: c.failed,
        blocked: c.blocked,
    })
}

/// Counts onto the wire.
pub fn counts_to_wire(c: &Counts) -> wire::RunCounts {
    wire::RunCounts { ok: c.ok, changed: c.changed, skipped: c.skipped, failed: c.failed, blocked: c.blocked }
}
