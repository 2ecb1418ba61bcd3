//! The store in memory: the same rules as SQLite's, for the simulator and for tests of the core. A clone is a copy of the
//! database at that moment; record bodies are shared, so copies are cheap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use common::bundle::Version;
use common::chain::Lane;
use common::crypto::PublicKey;
use common::ids::{Hash32, ServerId, Uuid};
use common::proto::Enrolled;
use common::time::Wall;

use super::tables::{NewRecord, Progress, Span, Tables, TokenRow};
use super::{
    AuditRow, EnvoyRow, EventRow, InviteRow, PublishWrite, ServerState, Sighting, Snapshot, StatementRow, Store,
    StoreError, StoredRecord, Write, Written, rules,
};

/// A record as stored, on the main chain or beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryRecord {
    /// First sequence that the row stands for; the record's own may be lower.
    pub first: u64,
    /// The record.
    pub record: StoredRecord,
    /// Its previous link is the link of the record before.
    pub fits: bool,
    /// Server time of receipt.
    pub at: Wall,
}

/// Everything about one envoy.
#[derive(Clone, Debug)]
struct MemoryEnvoy {
    row: EnvoyRow,
    /// Main chain, by lane and last sequence.
    records: BTreeMap<(Lane, u64), Arc<MemoryRecord>>,
    /// Beside it, by lane, first sequence and last link.
    forks: BTreeMap<(Lane, u64, Hash32), Arc<MemoryRecord>>,
    /// Path to (JSON, volatile).
    traits: BTreeMap<String, (Arc<str>, bool)>,
}

/// [`Store`] in memory.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: ServerState,
    envoys: HashMap<Uuid, MemoryEnvoy>,
    names: HashMap<String, BTreeSet<Uuid>>,
    keys: HashMap<PublicKey, BTreeSet<Uuid>>,
    tokens: HashMap<Hash32, TokenRow>,
    trusted: HashMap<String, u32>,
    events: Vec<EventRow>,
    audit: Vec<(AuditRow, Hash32)>,
    publishes: Vec<(u64, PublishWrite)>,
    revocations: Vec<(u64, Uuid)>,
    statements: BTreeMap<Uuid, StatementRow>,
}

impl ServerState {
    /// Of a database that was just made.
    pub fn fresh(server_id: ServerId) -> ServerState {
        ServerState {
            server_id,
            version: Version { epoch: 1, serial: 0 },
            revocation_counter: 0,
            revocation_digest: 0,
            published: None,
            interval_ms: common::limits::INTERVAL_DEFAULT_MS,
            continuity: 0,
            clean_shutdown: false,
        }
    }
}

impl MemoryStore {
    /// An empty database of this server.
    pub fn new(server_id: ServerId) -> MemoryStore {
        MemoryStore {
            state: ServerState::fresh(server_id),
            envoys: HashMap::new(),
            names: HashMap::new(),
            keys: HashMap::new(),
            tokens: HashMap::new(),
            trusted: HashMap::new(),
            events: Vec::new(),
            audit: Vec::new(),
            publishes: Vec::new(),
            revocations: Vec::new(),
            statements: BTreeMap::new(),
        }
    }

    /// The single values.
    pub fn state(&self) -> &ServerState {
        &self.state
    }

    /// Records of an envoy on the main chain, by lane and sequence.
    pub fn records(&self, uuid: &Uuid) -> impl Iterator<Item = &MemoryRecord> {
        self.envoys.get(uuid).into_iter().flat_map(|envoy| envoy.records.values().map(|record| &**record))
    }

    /// Records of an envoy beside the main chain.
    pub fn forks(&self, uuid: &Uuid) -> impl Iterator<Item = &MemoryRecord> {
        self.envoys.get(uuid).into_iter().flat_map(|envoy| envoy.forks.values().map(|record| &**record))
    }

    /// Trait trees of an envoy, as (path, JSON, volatile).
    pub fn traits(&self, uuid: &Uuid) -> impl Iterator<Item = (&str, &str, bool)> {
        let trees = self.envoys.get(uuid).into_iter().flat_map(|envoy| envoy.traits.iter());
        trees.map(|(path, (json, volatile))| (path.as_str(), &**json, *volatile))
    }

    /// The event log, oldest first.
    pub fn events(&self) -> &[EventRow] {
        &self.events
    }

    /// The audit log with its hashes, oldest first.
    pub fn audit(&self) -> &[(AuditRow, Hash32)] {
        &self.audit
    }

    /// Publishes with their serials, oldest first.
    pub fn publishes(&self) -> &[(u64, PublishWrite)] {
        &self.publishes
    }

    /// Envoys of an index that are not revoked.
    fn standing(&self, uuids: Option<&BTreeSet<Uuid>>) -> Vec<EnvoyRow> {
        let rows = uuids.into_iter().flatten().filter_map(|uuid| self.envoys.get(uuid));
        rows.filter(|envoy| envoy.row.state != Enrolled::Revoked).map(|envoy| envoy.row.clone()).collect()
    }

    fn row_mut(&mut self, uuid: &Uuid) -> Option<&mut EnvoyRow> {
        self.envoys.get_mut(uuid).map(|envoy| &mut envoy.row)
    }
}

impl Store for MemoryStore {
    fn apply(&mut self, batch: &[Write]) -> Result<Vec<Written>, StoreError> {
        let written = rules::apply(self, batch)?;
        self.state.continuity += 1;
        Ok(written)
    }

    fn load(&mut self) -> Result<Snapshot, StoreError> {
        let mut envoys: Vec<EnvoyRow> = self.envoys.values().map(|envoy| envoy.row.clone()).collect();
        envoys.sort_unstable_by_key(|row| (row.enrolled_at, row.uuid));
        let statements = self.statements.values().cloned().collect();
        Ok(Snapshot { state: self.state.clone(), envoys, statements })
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.state.clean_shutdown = true;
        Ok(())
    }
}

/// Nothing here can fail, and a rule looks before it writes, so a batch needs no undo.
impl Tables for MemoryStore {
    type Key = Uuid;

    fn server(&self) -> &ServerState {
        &self.state
    }

    fn put_server(&mut self, state: ServerState) {
        self.state = state;
    }

    fn envoy(&mut self, uuid: &Uuid) -> Result<Option<EnvoyRow>, StoreError> {
        Ok(self.envoys.get(uuid).map(|envoy| envoy.row.clone()))
    }

    fn envoys_named(&mut self, hostname: &str) -> Result<Vec<EnvoyRow>, StoreError> {
        Ok(self.standing(self.names.get(hostname)))
    }

    fn envoy_with_key(&mut self, key: &PublicKey) -> Result<Option<EnvoyRow>, StoreError> {
        Ok(self.standing(self.keys.get(key)).pop())
    }

    fn insert_envoy(&mut self, row: &EnvoyRow) -> Result<(), StoreError> {
        self.names.entry(row.hostname.clone()).or_default().insert(row.uuid);
        self.keys.entry(row.public_key).or_default().insert(row.uuid);
        let (records, forks, traits) = Default::default();
        self.envoys.insert(row.uuid, MemoryEnvoy { row: row.clone(), records, forks, traits });
        Ok(())
    }

    fn set_envoy_state(&mut self, uuid: &Uuid, state: Enrolled) -> Result<(), StoreError> {
        if let Some(row) = self.row_mut(uuid) {
            row.state = state;
        }
        Ok(())
    }

    fn set_hostname(&mut self, uuid: &Uuid, hostname: &str) -> Result<(), StoreError> {
        let Some(row) = self.row_mut(uuid) else { return Ok(()) };
        let old = std::mem::replace(&mut row.hostname, hostname.into());
        if let Some(uuids) = self.names.get_mut(&old) {
            uuids.remove(uuid);
        }
        self.names.entry(hostname.into()).or_default().insert(*uuid);
        Ok(())
    }

    fn set_sealing_key(&mut self, uuid: &Uuid, key: &[u8; 32]) -> Result<(), StoreError> {
        if let Some(row) = self.row_mut(uuid) {
            row.sealing_key = *key;
        }
        Ok(())
    }

    fn assign(&mut self, uuid: &Uuid, bundle: Option<Hash32>, serial: u64) -> Result<(), StoreError> {
        if let Some(row) = self.row_mut(uuid).filter(|row| row.state != Enrolled::Revoked) {
            (row.bundle, row.assigned_serial) = (bundle, serial);
        }
        Ok(())
    }

    fn set_serial(&mut self, uuid: Option<&Uuid>, serial: u64) -> Result<(), StoreError> {
        let give = |row: &mut EnvoyRow| {
            if row.state != Enrolled::Revoked {
                row.assigned_serial = serial;
            }
        };
        match uuid {
            Some(uuid) => self.row_mut(uuid).into_iter().for_each(give),
            None => self.envoys.values_mut().for_each(|envoy| give(&mut envoy.row)),
        }
        Ok(())
    }

    fn sight(&mut self, sighting: &Sighting) -> Result<(), StoreError> {
        if let Some(row) = self.row_mut(&sighting.uuid).filter(|row| row.state != Enrolled::Revoked) {
            row.last_seen = row.last_seen.max(sighting.at);
            (row.status, row.counts) = (sighting.status, sighting.counts);
            row.boot_id.clone_from(&sighting.boot_id);
            row.agent_version.clone_from(&sighting.agent_version);
        }
        Ok(())
    }

    fn token(&mut self, hash: &Hash32) -> Result<Option<TokenRow>, StoreError> {
        Ok(self.tokens.get(hash).cloned())
    }

    fn insert_token(&mut self, invite: &InviteRow) -> Result<(), StoreError> {
        self.tokens.insert(invite.token, TokenRow { invite: invite.clone(), used: None });
        Ok(())
    }

    fn remove_open_tokens(&mut self) -> Result<bool, StoreError> {
        let before = self.tokens.len();
        self.tokens.retain(|_, token| token.used.is_some());
        Ok(before > self.tokens.len())
    }

    fn use_token(&mut self, hash: &Hash32, key: &PublicKey, uuid: &Uuid) -> Result<(), StoreError> {
        if let Some(token) = self.tokens.get_mut(hash) {
            token.used = Some((*key, *uuid));
        }
        Ok(())
    }

    fn trusted_count(&mut self, entry: &str) -> Result<u32, StoreError> {
        Ok(self.trusted.get(entry).copied().unwrap_or(0))
    }

    fn count_trusted(&mut self, entry: &str) -> Result<(), StoreError> {
        *self.trusted.entry(entry.into()).or_default() += 1;
        Ok(())
    }

    fn progress(&mut self, uuid: &Uuid) -> Result<Option<(Uuid, Progress)>, StoreError> {
        let row = self.envoys.get(uuid).map(|envoy| &envoy.row);
        let progress = row.map(|row| Progress {
            state: row.state,
            watermark: row.watermark,
            link: row.link,
            trait_hash: row.trait_hash,
            last_seen: row.last_seen,
            status: row.status,
            counts: row.counts,
        });
        Ok(progress.map(|progress| (*uuid, progress)))
    }

    fn put_progress(&mut self, key: Uuid, progress: &Progress) -> Result<(), StoreError> {
        if let Some(row) = self.row_mut(&key) {
            (row.watermark, row.link) = (progress.watermark, progress.link);
            (row.trait_hash, row.last_seen) = (progress.trait_hash, progress.last_seen);
            (row.status, row.counts) = (progress.status, progress.counts);
        }
        Ok(())
    }

    fn covering(&mut self, key: Uuid, lane: Lane, sequence: u64) -> Result<Option<Span>, StoreError> {
        let records = self.envoys.get(&key).map(|envoy| &envoy.records);
        let next = records.and_then(|records| records.range((lane, sequence)..=(lane, u64::MAX)).next());
        Ok(next.map(|(_, stored)| span(stored)).filter(|span| span.first <= sequence))
    }

    fn insert_record(&mut self, key: Uuid, new: &NewRecord<'_>) -> Result<(), StoreError> {
        let stored = MemoryRecord { first: new.first, record: new.record.clone(), fits: new.fits, at: new.at };
        if let Some(envoy) = self.envoys.get_mut(&key) {
            envoy.records.insert((new.record.meta.lane, new.record.meta.last), Arc::new(stored));
        }
        Ok(())
    }

    fn insert_fork(&mut self, key: Uuid, record: &StoredRecord, at: Wall) -> Result<bool, StoreError> {
        let meta = &record.meta;
        let stored = MemoryRecord { first: meta.first, record: record.clone(), fits: false, at };
        let Some(envoy) = self.envoys.get_mut(&key) else { return Ok(false) };
        let place = (meta.lane, meta.first, meta.last_link);
        let new = !envoy.forks.contains_key(&place);
        if new {
            envoy.forks.insert(place, Arc::new(stored));
        }
        Ok(new)
    }

    fn put_trait(&mut self, key: Uuid, tree: &(String, String, bool), _at: Wall) -> Result<(), StoreError> {
        let (path, json, volatile) = tree;
        if let Some(envoy) = self.envoys.get_mut(&key) {
            envoy.traits.insert(path.clone(), (json.as_str().into(), *volatile));
        }
        Ok(())
    }

    fn remove_trait(&mut self, key: Uuid, path: &str) -> Result<(), StoreError> {
        if let Some(envoy) = self.envoys.get_mut(&key) {
            envoy.traits.remove(path);
        }
        Ok(())
    }

    fn event(&mut self, event: &EventRow) -> Result<(), StoreError> {
        self.events.push(event.clone());
        Ok(())
    }

    fn audit_head(&mut self) -> Result<Hash32, StoreError> {
        Ok(self.audit.last().map_or(Hash32::ZERO, |(_, hash)| *hash))
    }

    fn insert_audit(&mut self, row: &AuditRow, hash: Hash32) -> Result<(), StoreError> {
        self.audit.push((row.clone(), hash));
        Ok(())
    }

    fn insert_publish(&mut self, serial: u64, publish: &PublishWrite) -> Result<(), StoreError> {
        self.publishes.push((serial, publish.clone()));
        Ok(())
    }

    fn put_statement(&mut self, row: &StatementRow) -> Result<(), StoreError> {
        self.statements.insert(row.uuid, row.clone());
        Ok(())
    }

    fn remove_statement(&mut self, uuid: &Uuid) -> Result<(), StoreError> {
        self.statements.remove(uuid);
        Ok(())
    }

    fn insert_revocation(&mut self, counter: u64, uuid: &Uuid, _at: Wall, _reason: &str) -> Result<(), StoreError> {
        self.revocations.push((counter, *uuid));
        Ok(())
    }
}

fn span(stored: &MemoryRecord) -> Span {
    let meta = &stored.record.meta;
    let first_link = (stored.first == meta.first).then_some(meta.first_link);
    Span { first: stored.first, last: meta.last, first_link, last_link: meta.last_link }
}
