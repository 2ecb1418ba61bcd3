//! What the agent keeps, as values: one owner thread applies them to LMDB, the simulator to memory.
//!
//! A batch of [`StoreOp`]s is one transaction, synced before the agent acts on it. Values are encoded by
//! [`super::codec`]: magic, version, length, payload and checksum, the same bytes on every architecture.

use std::collections::BTreeMap;

use common::chain::Lane;
use common::ids::Hash32;
use common::proto::{Message, counts_from_wire, wire};

/// One change of the agent's state.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOp {
    /// A new current assignment. The old `current` pair becomes `previous`. `bundle` is `None` where the assignment names the
    /// bundle that is `current` already: it is kept for both slots.
    PutSlot {
        /// Signed assignment, as received.
        assignment: wire::Signed,
        /// Signed bundle, as received.
        bundle: Option<wire::Signed>,
    },
    /// Adds a record, or replaces the one with the same lane and first sequence (a stretch that grew, an acknowledged
    /// flag). The store gives each put a higher revision.
    PutRecord(QueueRecord),
    /// Removes records by lane and first sequence.
    DeleteRecords {
        /// Lane.
        lane: Lane,
        /// First sequences.
        firsts: Vec<u64>,
    },
    /// Sets a meta value.
    SetMeta(String, Vec<u8>),
    /// Sets (or, with `None`, removes) the last value of a trait tree.
    SetTrait(String, Option<Vec<u8>>),
}

/// A record of the queue, as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueRecord {
    /// The record as it will travel; head and body.
    pub record: wire::Record,
    /// Sent at least once: it must never change again.
    pub sealed: bool,
    /// Server wall time (ms) of its acknowledgement; 0 = not acknowledged.
    pub acked_at_ms: u64,
}

/// What the core needs to know of a stored record without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordIndex {
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Bytes of the stored value.
    pub bytes: u32,
    /// Sent at least once.
    pub sealed: bool,
    /// Server wall time (ms) of its acknowledgement; 0 = not acknowledged.
    pub acked_at_ms: u64,
    /// For dropping: no-change records go first.
    pub class: RecordClass,
    /// Link before `first`, as in the record: a gap record carries the links of what it replaces.
    pub previous_link: Hash32,
    /// Link at `last`, as in the record.
    pub last_link: Hash32,
}

/// What a record is, when something must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordClass {
    /// A stretch of runs that changed nothing.
    NoChange = 1,
    /// A run that changed something and failed nothing.
    Change = 2,
    /// A run with failures, or an incident.
    Failure = 3,
    /// A gap record: never dropped, merged instead.
    Gap = 4,
}

impl RecordClass {
    /// From its number on disk.
    pub fn from_u8(n: u8) -> Option<RecordClass> {
        use RecordClass::{Change, Failure, Gap, NoChange};
        [NoChange, Change, Failure, Gap].into_iter().find(|class| *class as u8 == n)
    }

    /// The class of a record. What cannot be decoded counts as a failure: it is kept longest.
    pub fn of(record: &wire::Record) -> RecordClass {
        use wire::record::Body;
        match &record.body {
            Some(Body::Gap(_)) => RecordClass::Gap,
            Some(Body::Stretch(_)) => RecordClass::NoChange,
            Some(Body::Incident(_)) | None => RecordClass::Failure,
            Some(Body::Run(bytes)) => match wire::RunResult::decode(&bytes[..]) {
                Err(_) => RecordClass::Failure,
                Ok(run) => {
                    let counts = counts_from_wire(run.counts.as_ref());
                    if counts.failed > 0 || counts.blocked > 0 || !run.error.is_empty() {
                        RecordClass::Failure
                    } else if counts.changed > 0 {
                        RecordClass::Change
                    } else {
                        RecordClass::NoChange
                    }
                }
            },
        }
    }
}

impl RecordIndex {
    /// The index entry that the store would give for this record.
    pub fn of(record: &QueueRecord) -> RecordIndex {
        RecordIndex {
            first: record.record.first_sequence,
            last: record.record.last_sequence,
            bytes: super::codec::stored_bytes(record) as u32,
            sealed: record.sealed,
            acked_at_ms: record.acked_at_ms,
            class: RecordClass::of(&record.record),
            previous_link: link_of(&record.record.previous_link),
            last_link: link_of(&record.record.last_link),
        }
    }
}

/// A link off a record; zero where it is none.
pub(super) fn link_of(bytes: &[u8]) -> Hash32 {
    Hash32::try_from_slice(bytes).unwrap_or(Hash32::ZERO)
}

/// Names of the meta values, by [`Lane::index`], that hold the highest acknowledged sequence of a lane as 8 big-endian bytes.
/// Salvage reads them: an old copy of a record that a server has acknowledged is not brought back.
pub const META_ACKED: [&str; 2] = ["acked.urgent", "acked.routine"];

/// Everything the agent's core needs at start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// `current` slot: signed assignment and bundle, exactly as received and not yet verified.
    pub current: Option<(wire::Signed, wire::Signed)>,
    /// `previous` slot.
    pub previous: Option<(wire::Signed, wire::Signed)>,
    /// Index of the queue by [`Lane::index`], in order of sequence.
    pub lanes: [Vec<RecordIndex>; 2],
    /// The newest record of each lane whole: it may still grow.
    pub tails: [Option<QueueRecord>; 2],
    /// Meta values.
    pub meta: BTreeMap<String, Vec<u8>>,
    /// Trait trees.
    pub traits: BTreeMap<String, Vec<u8>>,
    /// Highest sequence that each lane ever held, by [`Lane::index`]. Above its newest record where damage took that one:
    /// the lane goes on after it, and a gap record says so.
    pub highest: [u64; 2],
    /// What happened while opening: `moved-aside`, `salvaged N records`, `memory-only`. One line each, for the next run.
    pub incidents: Vec<String>,
}

/// Why a batch was not stored. Nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheError {
    /// The map has reached its bound, or the disk is full: drop something by the queue policy.
    Full,
    /// The store must be set aside and rebuilt.
    Corrupt(String),
    /// Anything else, with the path.
    Io(String),
}

impl std::fmt::Display for CacheError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CacheError::Full => f.write_str("the state store is full"),
            CacheError::Corrupt(text) | CacheError::Io(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CacheError {}

/// The agent's durable state. One owner.
pub trait Cache {
    /// Everything the core needs at start.
    fn load(&mut self) -> Result<Loaded, CacheError>;

    /// Applies a batch in one synced transaction: when this returns `Ok`, all of it survives a power cut.
    fn commit(&mut self, batch: &[StoreOp]) -> Result<(), CacheError>;

    /// Records of a lane from `first` on, in order, up to about `max_bytes` of stored values (at least one).
    fn read_records(&mut self, lane: Lane, first: u64, max_bytes: usize) -> Result<Vec<QueueRecord>, CacheError>;
}
