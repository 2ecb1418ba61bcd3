//! What the rules need from a place to keep rows: the seam between the semantics of a [`Write`](super::Write), written once
//! in [`super::rules`], and the two stores. An implementation decides nothing: it finds, inserts and replaces.

use common::chain::Lane;
use common::crypto::PublicKey;
use common::ids::{Hash32, Uuid};
use common::outcome::{Counts, Status};
use common::proto::Enrolled;
use common::time::Wall;

use super::{
    AuditRow, EnvoyRow, EventRow, InviteRow, PublishWrite, ServerState, Sighting, StatementRow, StoreError,
    StoredRecord,
};

/// The part of an envoy's row that results change.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Standing.
    pub state: Enrolled,
    /// Highest contiguous sequence stored, by [`Lane::index`].
    pub watermark: [u64; 2],
    /// Link there.
    pub link: [Hash32; 2],
    /// Short hash over the stable trait trees stored.
    pub trait_hash: u64,
    /// Last sighting.
    pub last_seen: Wall,
    /// Status of the newest run.
    pub status: Status,
    /// Counts of the newest run.
    pub counts: Counts,
}

/// What is kept of a record for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Link at `first`; unknown where the row stands for the newer part of a record only.
    pub first_link: Option<Hash32>,
    /// Link at `last`.
    pub last_link: Hash32,
}

/// A token and who used it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRow {
    /// As invited.
    pub invite: InviteRow,
    /// The key that used it, and the envoy that it became.
    pub used: Option<(PublicKey, Uuid)>,
}

/// A record to insert. `first` is above the record's own where an older part of it is stored already.
pub struct NewRecord<'a> {
    /// The record.
    pub record: &'a StoredRecord,
    /// First sequence that the row stands for.
    pub first: u64,
    /// The previous link fits the row before: it need not be stored again.
    pub fits: bool,
    /// Server time of receipt.
    pub at: Wall,
}

/// Rows, found and replaced. Everything happens inside the transaction of one batch.
pub trait Tables {
    /// A handle of one envoy, valid within the batch.
    type Key: Copy;

    /// The single values.
    fn server(&self) -> &ServerState;
    /// Replaces the single values.
    fn put_server(&mut self, state: ServerState);

    /// An envoy by its identity, revoked or not.
    fn envoy(&mut self, uuid: &Uuid) -> Result<Option<EnvoyRow>, StoreError>;
    /// Envoys of a host name that are not revoked.
    fn envoys_named(&mut self, hostname: &str) -> Result<Vec<EnvoyRow>, StoreError>;
    /// The envoy with this key that is not revoked.
    fn envoy_with_key(&mut self, key: &PublicKey) -> Result<Option<EnvoyRow>, StoreError>;
    /// A new envoy.
    fn insert_envoy(&mut self, row: &EnvoyRow) -> Result<(), StoreError>;
    /// Replaces the standing.
    fn set_envoy_state(&mut self, uuid: &Uuid, state: Enrolled) -> Result<(), StoreError>;
    /// Replaces the host name.
    fn set_hostname(&mut self, uuid: &Uuid, hostname: &str) -> Result<(), StoreError>;
    /// Replaces the sealing key. Unknown envoys are left alone.
    fn set_sealing_key(&mut self, uuid: &Uuid, key: &[u8; 32]) -> Result<(), StoreError>;
    /// Replaces bundle and assigned serial. Unknown and revoked envoys are left alone.
    fn assign(&mut self, uuid: &Uuid, bundle: Option<Hash32>, serial: u64) -> Result<(), StoreError>;
    /// Replaces the assigned serial; of every envoy that is not revoked where `uuid` is `None`.
    fn set_serial(&mut self, uuid: Option<&Uuid>, serial: u64) -> Result<(), StoreError>;
    /// Replaces what heartbeats say; `last_seen` never goes back. Unknown and revoked envoys are left alone.
    fn sight(&mut self, sighting: &Sighting) -> Result<(), StoreError>;

    /// A token by its hash.
    fn token(&mut self, hash: &Hash32) -> Result<Option<TokenRow>, StoreError>;
    /// A new token.
    fn insert_token(&mut self, invite: &InviteRow) -> Result<(), StoreError>;
    /// Removes tokens that nobody has used; whether there were any.
    fn remove_open_tokens(&mut self) -> Result<bool, StoreError>;
    /// Marks a token as used.
    fn use_token(&mut self, hash: &Hash32, key: &PublicKey, uuid: &Uuid) -> Result<(), StoreError>;
    /// How many a trusted entry has enrolled.
    fn trusted_count(&mut self, entry: &str) -> Result<u32, StoreError>;
    /// One more.
    fn count_trusted(&mut self, entry: &str) -> Result<(), StoreError>;

    /// Handle and progress of an envoy.
    fn progress(&mut self, uuid: &Uuid) -> Result<Option<(Self::Key, Progress)>, StoreError>;
    /// Replaces the progress (all but `state`).
    fn put_progress(&mut self, key: Self::Key, progress: &Progress) -> Result<(), StoreError>;
    /// The stored record that covers a sequence.
    fn covering(&mut self, key: Self::Key, lane: Lane, sequence: u64) -> Result<Option<Span>, StoreError>;
    /// A new record on the main chain.
    fn insert_record(&mut self, key: Self::Key, new: &NewRecord<'_>) -> Result<(), StoreError>;
    /// A record beside the main chain; `false` if exactly this one is there already.
    fn insert_fork(&mut self, key: Self::Key, record: &StoredRecord, at: Wall) -> Result<bool, StoreError>;
    /// Sets a trait tree.
    fn put_trait(&mut self, key: Self::Key, tree: &(String, String, bool), at: Wall) -> Result<(), StoreError>;
    /// Removes a trait tree.
    fn remove_trait(&mut self, key: Self::Key, path: &str) -> Result<(), StoreError>;

    /// A line of the event log.
    fn event(&mut self, event: &EventRow) -> Result<(), StoreError>;
    /// Hash of the newest audit entry; zero before the first.
    fn audit_head(&mut self) -> Result<Hash32, StoreError>;
    /// An entry of the audit log, with its hash.
    fn insert_audit(&mut self, row: &AuditRow, hash: Hash32) -> Result<(), StoreError>;
    /// A publish under its serial.
    fn insert_publish(&mut self, serial: u64, publish: &PublishWrite) -> Result<(), StoreError>;
    /// A statement that waits for an envoy, in place of an older one.
    fn put_statement(&mut self, row: &StatementRow) -> Result<(), StoreError>;
    /// Removes it, if there is one.
    fn remove_statement(&mut self, uuid: &Uuid) -> Result<(), StoreError>;
    /// A revocation under its counter.
    fn insert_revocation(&mut self, counter: u64, uuid: &Uuid, at: Wall, reason: &str) -> Result<(), StoreError>;
}
