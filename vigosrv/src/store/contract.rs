//! One suite for every store: the same writes, the same answers, the same rows. Runs on memory and on SQLite.

use std::collections::BTreeSet;

use common::chain::{self, Lane};
use common::crypto::{PublicKey, sha256};
use common::ids::{Hash32, ServerId, Uuid};
use common::outcome::{Counts, Status};
use common::proto::{Enrolled, Message, RecordBody, RecordMeta, wire};
use common::time::Wall;

use super::*;

mod enrollment;
mod results;
mod server;

/// A store that a test can look into.
pub trait Probe: Store {
    /// Main chain of an envoy, as (lane, first, last, kind), in order of lane and sequence.
    fn rows(&self, uuid: &Uuid) -> Vec<(Lane, u64, u64, RecordKind)>;
    /// Beside it, as (lane, first).
    fn forks(&self, uuid: &Uuid) -> Vec<(Lane, u64)>;
    /// Kinds of all events, oldest first.
    fn events(&self) -> Vec<String>;
    /// Trait trees of an envoy, by path.
    fn traits(&self, uuid: &Uuid) -> Vec<(String, String)>;
    /// Audit entries and their hashes, oldest first.
    fn audit(&self) -> Vec<(AuditRow, Hash32)>;
}

impl Probe for MemoryStore {
    fn rows(&self, uuid: &Uuid) -> Vec<(Lane, u64, u64, RecordKind)> {
        let row = |r: &MemoryRecord| (r.record.meta.lane, r.first, r.record.meta.last, r.record.kind);
        self.records(uuid).map(row).collect()
    }
    fn forks(&self, uuid: &Uuid) -> Vec<(Lane, u64)> {
        MemoryStore::forks(self, uuid).map(|r| (r.record.meta.lane, r.first)).collect()
    }
    fn events(&self) -> Vec<String> {
        MemoryStore::events(self).iter().map(|event| event.kind.clone()).collect()
    }
    fn traits(&self, uuid: &Uuid) -> Vec<(String, String)> {
        MemoryStore::traits(self, uuid).map(|(path, json, _)| (path.into(), json.into())).collect()
    }
    fn audit(&self) -> Vec<(AuditRow, Hash32)> {
        MemoryStore::audit(self).to_vec()
    }
}

impl Probe for SqliteStore {
    fn rows(&self, uuid: &Uuid) -> Vec<(Lane, u64, u64, RecordKind)> {
        self.probe_rows(uuid)
    }
    fn forks(&self, uuid: &Uuid) -> Vec<(Lane, u64)> {
        self.probe_forks(uuid)
    }
    fn events(&self) -> Vec<String> {
        self.probe_events()
    }
    fn traits(&self, uuid: &Uuid) -> Vec<(String, String)> {
        self.probe_traits(uuid)
    }
    fn audit(&self) -> Vec<(AuditRow, Hash32)> {
        self.probe_audit()
    }
}

pub const SERVER: ServerId = ServerId(Hash32([9; 32]));

/// Runs a case on both stores.
pub fn check(case: impl Fn(&mut dyn Probe)) {
    case(&mut MemoryStore::new(SERVER));
    let dir = tempfile::tempdir().unwrap();
    let opened =
        SqliteStore::open(&OpenOptions { ballast_bytes: 0, ..OpenOptions::new(dir.path().join("vigo.db"), SERVER) });
    case(&mut opened.unwrap().store);
}

/// Applies one write.
pub fn one(store: &mut dyn Probe, write: Write) -> Written {
    store.apply(&[write]).unwrap().pop().unwrap()
}

pub fn uuid(n: u8) -> Uuid {
    Uuid::from_bytes([n; 16])
}

pub fn row(n: u8, hostname: &str) -> EnvoyRow {
    EnvoyRow {
        uuid: uuid(n),
        hostname: hostname.into(),
        public_key: PublicKey::try_from_slice(&[n; 32]).unwrap(),
        sealing_key: [n; 32],
        state: Enrolled::Active,
        machine_id: format!("machine-{n}"),
        agent_version: "0.1.0".into(),
        os: "debian".into(),
        arch: "x86_64".into(),
        enrolled_at: Wall(1_000 + i64::from(n)),
        enrolled_serial: 0,
        assigned_serial: 0,
        bundle: Some(Hash32([n; 32])),
        last_seen: Wall(500),
        status: Status::Nodata,
        counts: Counts::default(),
        watermark: [0; 2],
        link: [Hash32::ZERO; 2],
        trait_hash: u64::MAX,
        boot_id: "boot".into(),
    }
}

pub fn token(n: u8) -> Hash32 {
    sha256(&[&[n]])
}

pub fn invite(n: u8, hostname: Option<&str>, replace: bool) -> Write {
    Write::Invite(InviteRow {
        token: token(n),
        hostname: hostname.map(Into::into),
        replace,
        expires_at: Wall(10_000),
        created_at: Wall(1),
        author: "uid 0".into(),
    })
}

pub fn enroll(row: EnvoyRow, by: Option<u8>) -> Write {
    Write::Enroll(Box::new(EnrollWrite { row, token: by.map(token), trusted: None, at: Wall(5_000) }))
}

/// Enrolls envoy `n` as `host-n`.
pub fn enrolled(store: &mut dyn Probe, n: u8) -> Uuid {
    one(store, invite(n, None, false));
    let written = one(store, enroll(row(n, &format!("host-{n}")), Some(n)));
    assert!(matches!(written, Written::Enrolled(_)), "{written:?}");
    uuid(n)
}

/// An agent's side of one lane: makes records whose chain is right.
#[derive(Clone)]
pub struct Agent {
    pub lane: Lane,
    pub next: u64,
    pub link: Hash32,
}

impl Agent {
    pub fn new(lane: Lane) -> Agent {
        Agent { lane, next: 1, link: Hash32::ZERO }
    }

    fn record(&mut self, count: u64, kind: RecordKind, decoded: RecordBody, body: Vec<u8>) -> StoredRecord {
        let (first, previous_link) = (self.next, self.link);
        let mut first_link = None;
        for sequence in first..first + count {
            self.link = chain::link(&self.link, self.lane, sequence, &body);
            first_link.get_or_insert(self.link);
        }
        self.next = first + count;
        let (lane, last, last_link) = (self.lane, first + count - 1, self.link);
        let meta = RecordMeta { lane, first, last, previous_link, first_link: first_link.unwrap(), last_link };
        StoredRecord { meta, kind, body, decoded }
    }

    /// A run that changed `changed` resources, started at `at`.
    pub fn run(&mut self, changed: u32, at: i64) -> StoredRecord {
        let outcome = |n| wire::ResourceOutcome {
            resource: format!("crate.resource-{n}"),
            outcome: 2,
            duration_ms: 3,
            r#type: "file".into(),
            ..wire::ResourceOutcome::default()
        };
        let run = wire::RunResult {
            run_id: sha256(&[&at.to_be_bytes(), &[self.lane as u8]]).0[..16].to_vec(),
            started_wall_ms: at,
            duration_ms: 40,
            boot_id: "boot".into(),
            bundle_hash: vec![3; 32],
            serial: 4,
            epoch: 1,
            source: 1,
            counts: Some(wire::RunCounts { ok: 5, changed, ..wire::RunCounts::default() }),
            outcomes: (0..changed).map(outcome).collect(),
            status: Status::Converged as u32,
            ..wire::RunResult::default()
        };
        let body = run.encode_to_vec();
        self.record(1, RecordKind::Run, RecordBody::Run(run), body)
    }

    pub fn stretch(&mut self, count: u64, at: i64) -> StoredRecord {
        let stretch = wire::Stretch {
            first_run_id: vec![1; 16],
            last_run_id: vec![2; 16],
            first_wall_ms: at,
            last_wall_ms: at + count as i64,
            count,
            boot_id: "boot".into(),
            counts: Some(wire::RunCounts { ok: 5, ..wire::RunCounts::default() }),
            ..wire::Stretch::default()
        };
        let body = stretch.encode_to_vec();
        self.record(count, RecordKind::Stretch, RecordBody::Stretch(stretch), body)
    }

    /// A gap from the agent's present place on.
    pub fn gap(&mut self, count: u64, reason: wire::gap::Reason) -> StoredRecord {
        let gap = wire::Gap { reason: reason as i32, count, detail: "test".into(), wall_ms: 7 };
        let body = gap.encode_to_vec();
        self.record(count, RecordKind::Gap, RecordBody::Gap(gap), body)
    }

    pub fn incident(&mut self) -> StoredRecord {
        let incident = wire::Incident { kind: "moved-aside".into(), detail: "test".into(), wall_ms: 7, boot_ms: 8 };
        let body = incident.encode_to_vec();
        self.record(1, RecordKind::Incident, RecordBody::Incident(incident), body)
    }
}

/// The write of one report at time 9,000.
pub fn report(uuid: Uuid, records: Vec<StoredRecord>) -> Write {
    let (traits, removed_traits, trait_hash, trait_base) = Default::default();
    Write::Results(Box::new(ResultsWrite {
        uuid,
        records,
        traits,
        removed_traits,
        trait_hash,
        trait_base,
        at: Wall(9_000),
    }))
}

/// Applies a report and returns what was stored.
pub fn stored(store: &mut dyn Probe, uuid: Uuid, records: Vec<StoredRecord>) -> StoredResults {
    match one(store, report(uuid, records)) {
        Written::Stored(stored) => *stored,
        other => panic!("{other:?}"),
    }
}

/// The row of an envoy as the next start would find it.
pub fn loaded(store: &mut dyn Probe, uuid: Uuid) -> EnvoyRow {
    store.load().unwrap().envoys.into_iter().find(|row| row.uuid == uuid).unwrap()
}

/// Whether all of these events are there.
pub fn has_events(store: &dyn Probe, kinds: &[&str]) -> bool {
    let there: BTreeSet<String> = store.events().into_iter().collect();
    kinds.iter().all(|kind| there.contains(*kind))
}
