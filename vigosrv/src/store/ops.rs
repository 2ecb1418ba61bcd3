//! What the server writes, as values: the writer thread applies them to SQLite in groups, the simulator to memory.
//!
//! A [`Write`] is decided by the core and carries everything it needs; applying it reads no clock and draws no entropy.
//! Each write in a batch succeeds or is refused on its own ([`Written`]); the batch is durable as a whole, or not at all.

use common::bundle::Version;
use common::chain::Lane;
use common::crypto::PublicKey;
use common::ids::{Hash32, ServerId, Uuid};
use common::outcome::{Counts, Status};
use common::proto::{Enrolled, RecordMeta, wire};
use common::time::Wall;

/// One durable change.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "fields are named as in the rows that they change")]
pub enum Write {
    /// A new envoy, by token or trusted entry.
    Enroll(Box<EnrollWrite>),
    /// An envoy that the database does not know shows a valid receipt: re-admitted in `review`.
    Readmit(Box<EnvoyRow>),
    /// Records of one envoy.
    Results(Box<ResultsWrite>),
    /// Sighting times and heartbeat counters, flushed in batches; losing them loses nothing that was acknowledged.
    Sightings(Vec<Sighting>),
    /// A one-time token.
    Invite(InviteRow),
    /// Bars an envoy and raises the revocation counter. Idempotent.
    Revoke { uuid: Uuid, at: Wall, reason: String },
    /// To a new state (`approve`, `review` looked at, `duplicate` found), with a new serial for the envoy where it gains or
    /// loses something.
    SetState { uuid: Uuid, state: Enrolled, new_serial: bool, at: Wall },
    /// A new host name, with a new serial.
    Rename { uuid: Uuid, hostname: String, bundle: Option<Hash32>, at: Wall },
    /// The key that secrets are sealed to from now on, with a new serial; [`NO_SEALING_KEY`]: nothing is sealed before the envoy
    /// shows another one.
    SetSealingKey { uuid: Uuid, key: [u8; 32] },
    /// A publish or rollback: raises the serial; each listed envoy now has this bundle under the new serial.
    Publish(Box<PublishWrite>),
    /// Envoys whose bundle differs from what is recorded (enrolled while a publish was under way, interval changed):
    /// raises the serial for them.
    Assign { assign: Vec<(Uuid, Option<Hash32>)>, at: Wall },
    /// A new check-in interval: raises the serial, and every envoy that is not revoked has its assignment under it.
    SetInterval { interval_ms: u64, at: Wall },
    /// Raises the epoch to this value (never lowers it) and records why. Settles a recognised restore: until one is
    /// committed, a database that was found restored is found so again at every start.
    RaiseEpoch { epoch: u64, reason: String, at: Wall },
    /// Statements to hand over at the next contact, each in place of an older one of its envoy. Unknown and revoked envoys get none;
    /// a revocation takes an envoy's away.
    PutStatements(Vec<StatementRow>),
    /// The statement is handed over no more.
    DropStatement { uuid: Uuid },
    /// Free-form entry of the event log.
    Event(EventRow),
    /// Entry of the hash-chained audit log.
    Audit(AuditRow),
}

impl Write {
    /// On a full disk this is refused before anything else: agents keep results, and heartbeats bring sightings again.
    pub fn can_wait(&self) -> bool {
        matches!(self, Write::Results(_) | Write::Sightings(_))
    }
}

/// An enrollment as decided by the core; the database has the last word on uniqueness.
#[derive(Clone, Debug, PartialEq)]
pub struct EnrollWrite {
    /// The row to insert. `assigned_serial` and `enrolled_serial` are set by the store to the serial of the moment.
    pub row: EnvoyRow,
    /// SHA-256 of the token that was shown, if one was.
    pub token: Option<Hash32>,
    /// Index and bound of the trusted entry that matched, where `max` limits it: (entry key, max).
    pub trusted: Option<(String, u32)>,
    /// Time of the request, to judge expiry.
    pub at: Wall,
}

/// Stands for the sealing key of an envoy that is asked for another one. No X25519 key is all zeros.
pub const NO_SEALING_KEY: [u8; 32] = [0; 32];

/// An envoy, as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvoyRow {
    /// Identity.
    pub uuid: Uuid,
    /// Fixed at enrollment, lower case, unique among envoys that are not revoked.
    pub hostname: String,
    /// Ed25519 identity.
    pub public_key: PublicKey,
    /// X25519 sealing key, or [`NO_SEALING_KEY`].
    pub sealing_key: [u8; 32],
    /// Standing.
    pub state: Enrolled,
    /// As the agent said at enrollment.
    pub machine_id: String,
    /// As the agent last said.
    pub agent_version: String,
    /// As the agent said at enrollment.
    pub os: String,
    /// As the agent said at enrollment.
    pub arch: String,
    /// Server wall time.
    pub enrolled_at: Wall,
    /// Serial of the server at enrollment (in the receipt).
    pub enrolled_serial: u64,
    /// Serial of the envoy's current assignment.
    pub assigned_serial: u64,
    /// Bundle of the current assignment; none while nothing is published or matches.
    pub bundle: Option<Hash32>,
    /// Last sighting.
    pub last_seen: Wall,
    /// Last status that the agent or its results gave.
    pub status: Status,
    /// Counts of the newest run.
    pub counts: Counts,
    /// Highest contiguous sequence stored, by [`Lane::index`].
    pub watermark: [u64; 2],
    /// Link at the watermark, by [`Lane::index`].
    pub link: [Hash32; 2],
    /// Short hash over the stable trait trees stored.
    pub trait_hash: u64,
    /// Boot id last seen, for clone detection.
    pub boot_id: String,
}

/// Records and traits of one `Report`.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultsWrite {
    /// Whose.
    pub uuid: Uuid,
    /// Checked records with their bodies as received, in the order of the message.
    pub records: Vec<StoredRecord>,
    /// Trait trees to replace, as (path, JSON, volatile).
    pub traits: Vec<(String, String, bool)>,
    /// Trait trees to remove.
    pub removed_traits: Vec<String>,
    /// Short hash over the stable trees after this; `None` when no stable tree is in the message.
    pub trait_hash: Option<u64>,
    /// Not 0: the trees that are not in the message are those of this hash.
    pub trait_base: u64,
    /// Server time of receipt.
    pub at: Wall,
}

/// A record on its way into the database.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    /// Checked head.
    pub meta: RecordMeta,
    /// What kind of body.
    pub kind: RecordKind,
    /// The encoded body, as received.
    pub body: Vec<u8>,
    /// The decoded body, from which rows are made.
    pub decoded: common::proto::RecordBody,
}

/// Kinds of records. Discriminants are in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// One run.
    Run = 1,
    /// Consecutive runs that changed nothing.
    Stretch = 2,
    /// Records that are gone.
    Gap = 3,
    /// Something that happened to the agent.
    Incident = 4,
}

/// One envoy was heard.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// Who.
    pub uuid: Uuid,
    /// When.
    pub at: Wall,
    /// Status by its heartbeat.
    pub status: Status,
    /// Counts of its newest run, by its heartbeat.
    pub counts: Counts,
    /// Boot id.
    pub boot_id: String,
    /// Agent version.
    pub agent_version: String,
}

/// A one-time token, hashed.
#[derive(Clone, Debug, PartialEq)]
pub struct InviteRow {
    /// SHA-256 of the token text.
    pub token: Hash32,
    /// Bound to this host name, if any.
    pub hostname: Option<String>,
    /// The envoy with this host name is to be replaced; counts only together with `hostname`. Both envoys are then active
    /// under one name until the core sees the newer one (higher `enrolled_at`) check in and revokes the other.
    pub replace: bool,
    /// After this, the token is refused.
    pub expires_at: Wall,
    /// When it was made.
    pub created_at: Wall,
    /// By whom (a user name or `uid 0`).
    pub author: String,
}

/// A signed redirect that waits for its envoy.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementRow {
    /// For whom.
    pub uuid: Uuid,
    /// As it will travel.
    pub signed: wire::Signed,
}

/// A publish.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishWrite {
    /// SHA-256 over the tree.
    pub tree: Hash32,
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// Readable summary of what changed.
    pub summary: String,
    /// When.
    pub at: Wall,
    /// Envoys whose bundle changes with it.
    pub assign: Vec<(Uuid, Option<Hash32>)>,
}

/// An event for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// When.
    pub at: Wall,
    /// `fork`, `gap`, `lost-in-restore`, `duplicate`, `stepped-down`, ...
    pub kind: String,
    /// The envoy concerned, if any.
    pub uuid: Option<Uuid>,
    /// One line.
    pub detail: String,
}

/// An entry of the audit log. The store chains it by hash to the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// When.
    pub at: Wall,
    /// Who.
    pub actor: String,
    /// `revoke`, `publish`, ...
    pub action: String,
    /// On what.
    pub subject: String,
    /// One line.
    pub detail: String,
}

/// What became of a [`Write`].
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// Done; nothing to say.
    Done,
    /// Enrolled (or enrolled before by the same token and key: the same row again).
    Enrolled(Box<EnvoyRow>),
    /// Not enrolled.
    EnrollRefused(EnrollRefusal),
    /// Results stored (or known already).
    Stored(Box<StoredResults>),
    /// The envoy is not known (any more).
    UnknownEnvoy,
    /// Server state after a change of serial, epoch or revocations; and the envoys' new serial is `state.serial`.
    State(ServerState),
    /// A host name is taken.
    NameTaken,
}

/// Why an enrollment was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrollRefusal {
    /// No such token.
    UnknownToken,
    /// Its time is over.
    ExpiredToken,
    /// Another key used it.
    UsedToken,
    /// Bound to another host name.
    WrongHostname,
    /// Another key holds this host name.
    NameTaken,
    /// The trusted entry has enrolled its maximum.
    TrustedFull,
}

/// Outcome of a [`ResultsWrite`].
#[derive(Clone, Debug, PartialEq)]
pub struct StoredResults {
    /// Whose.
    pub uuid: Uuid,
    /// Highest contiguous sequence stored now, by [`Lane::index`].
    pub watermark: [u64; 2],
    /// Link there.
    pub link: [Hash32; 2],
    /// Sequences that arrived with another link than the stored one: (lane, first sequence).
    pub forks: Vec<(Lane, u64)>,
    /// Records whose previous link is not the stored one: stored, with an event.
    pub chain_breaks: u32,
    /// Trait hash stored now.
    pub trait_hash: u64,
    /// Newest run (by the agent's own clock) among those that this message added: status and counts. The envoy's row has
    /// them now, and `last_seen` is not below the time of receipt.
    pub newest: Option<(Status, Counts)>,
}

/// The few values of which there is one a server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerState {
    /// Which server this database belongs to.
    pub server_id: ServerId,
    /// Epoch and serial.
    pub version: Version,
    /// Revocations so far.
    pub revocation_counter: u64,
    /// First 8 bytes of the hash over all revocations in order.
    pub revocation_digest: u64,
    /// Tree hash of the newest publish, if any.
    pub published: Option<Hash32>,
    /// The interval (ms) that assignments were last made with.
    pub interval_ms: u64,
    /// Counts writes since the database was made; compared with the continuity file to recognise a restore.
    pub continuity: u64,
    /// Set by a clean shutdown, cleared at start.
    pub clean_shutdown: bool,
}

/// A store that cannot apply a batch. Nothing of the batch is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No space left: results are refused with `retry_after`, everything else goes on.
    Full,
    /// As much waits for the disk as may: results are refused with `retry_after`, the next ones may be taken.
    Behind,
    /// The file is damaged; the text names what to do.
    Corrupt(String),
    /// Made by a newer version of the product: (found, known).
    Newer(u32, u32),
    /// The write-ahead log beside the database is another's.
    ForeignLog {
        /// The log.
        log: std::path::PathBuf,
        /// How that shows.
        why: String,
    },
    /// The database is gone; its continuity file is there.
    Missing(std::path::PathBuf),
    /// Anything else, with the path.
    Io(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Full => f.write_str("no space left for the database; free some, the server goes on by itself"),
            StoreError::Behind => f.write_str("the database has enough to do; try again in a few seconds"),
            StoreError::Corrupt(text) | StoreError::Io(text) => f.write_str(text),
            StoreError::Newer(found, known) => write!(
                f,
                "the database has schema version {found}, this version of vigosrv knows up to {known}: install the newer vigosrv, or restore a backup made by this one"
            ),
            StoreError::ForeignLog { log, why } => write!(
                f,
                "{} does not belong to the database beside it: {why}. Where the database was put there whole, take the log away \
                 (`mv {0} {0}.foreign`) and start again; where single files were copied beside a running server, bring back a \
                 copy that `vigocli backup create` made, with `vigocli backup restore FILE --db-only`",
                log.display()
            ),
            StoreError::Missing(path) => write!(
                f,
                "{} is missing, and its continuity file says that there was one: bring it back with `vigocli backup restore FILE \
                 --db-only`; to begin with an empty database, remove {0}.continuity",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StoreError {}

/// What a server needs at start.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The single values.
    pub state: ServerState,
    /// Every envoy, revoked ones too.
    pub envoys: Vec<EnvoyRow>,
    /// Statements that wait for their envoys.
    pub statements: Vec<StatementRow>,
}

/// Durable state of a server. One owner, one writer.
pub trait Store {
    /// Applies a batch in one synced transaction: when this returns `Ok`, everything in it survives a power cut.
    fn apply(&mut self, batch: &[Write]) -> Result<Vec<Written>, StoreError>;

    /// Everything the core needs to start.
    fn load(&mut self) -> Result<Snapshot, StoreError>;

    /// A bounded piece of upkeep that no acknowledgement waits for (checkpoint, ballast). The writer thread calls it after
    /// every group and at least once a second.
    fn upkeep(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes the emergency reserve available, once, after a batch failed with [`StoreError::Full`]. `true` if there was
    /// one: the urgent part of the batch is worth another try.
    fn release_reserve(&mut self) -> bool {
        false
    }

    /// One bounded step of retention: removes at most `rule.step` rows. `Retained::more` asks for another call.
    fn retain(&mut self, rule: &RetainRule) -> Result<Retained, StoreError> {
        let _ = rule;
        Ok(Retained::default())
    }

    /// Clean shutdown; nothing may be applied after it. The next start need not check the file.
    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What is kept: bytes rule, days come second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainRule {
    /// Bytes of the database that may be in use; the oldest rows go first when it holds more.
    pub bytes_max: u64,
    /// Rows received before this go.
    pub cutoff: Wall,
    /// Rows that one step may remove.
    pub step: u32,
}

/// What one step of retention did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Rows removed.
    pub removed: u64,
    /// Something that the rule wants gone is still there.
    pub more: bool,
}
