//! Makes a database of a large fleet with a history, for measurements of start, reads and retention. It writes rows without the
//! rules and without syncing: a year of a fleet in a minute. Not for a database that anybody needs.

use common::chain::{self, Lane};
use common::crypto::{SigningKey, sha256};
use common::ids::{Hash32, Uuid};
use common::outcome::{Counts, Outcome, Status};
use common::proto::{Enrolled, Message, RecordBody, RecordMeta, wire};
use common::time::Wall;
use rusqlite::Connection;

use super::batch::Batch;
use super::{OpenOptions, SqliteStore, store_error, write_state};
use crate::store::tables::{NewRecord, Progress, Tables};
use crate::store::{EnvoyRow, RecordKind, Store, StoreError, StoredRecord};

/// How large, and what the envoys did on each day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSet {
    /// Envoys.
    pub envoys: u32,
    /// Days of history. Each has one changed run and one stretch without change; every tenth a failed run too.
    pub days: u32,
    /// Resources that a changed run changed.
    pub changed: u32,
    /// End of the last day.
    pub until: Wall,
    /// Bundle that all have, if any.
    pub bundle: Option<Hash32>,
    /// Serial under which they have it.
    pub serial: u64,
}

impl DataSet {
    /// 30 days of so many envoys, ending at a time.
    pub fn month(envoys: u32, until: Wall) -> DataSet {
        DataSet { envoys, days: 30, changed: 2, until, bundle: Some(Hash32([0xb; 32])), serial: 1 }
    }
}

/// Identity of the `n`th envoy, the same in every data set, so that a load generator can be it.
pub fn identity(n: u32) -> (Uuid, SigningKey) {
    let hash = sha256(&[b"vigo-generated-envoy\0", &n.to_be_bytes()]);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash.0[..16]);
    (Uuid::from_bytes(uuid), SigningKey::from_seed(sha256(&[&hash.0]).0))
}

/// Fills a new database. Returns the rows of history that it made.
pub fn generate(options: &OpenOptions, set: &DataSet) -> Result<u64, StoreError> {
    let mut store = SqliteStore::open(options)?.store;
    let path = options.path.clone();
    let fail = |error| store_error(&path, error);
    quick(&store.conn).map_err(fail)?;
    let (mut list, mut scratch) = (String::new(), Vec::new());
    let mut state = store.state.clone();
    state.version.serial = state.version.serial.max(set.serial);
    let mut fleet = Vec::with_capacity(set.envoys as usize);
    let mut rows = 0;
    for day in 0..=set.days {
        store.conn.execute_batch("BEGIN").map_err(fail)?;
        let mut tables =
            Batch { conn: &store.conn, path: &path, state: state.clone(), list: &mut list, scratch: &mut scratch };
        if day == 0 {
            for n in 0..set.envoys {
                let row = envoy_row(n, set);
                tables.insert_envoy(&row)?;
                fleet.push((i64::from(n) + 1, Life::new(&row)));
            }
        } else {
            let start = set.until.0 - i64::from(set.days - day + 1) * DAY_MS;
            for (key, life) in &mut fleet {
                for record in life.day(*key, start, day % 10 == 0, set) {
                    rows += 1;
                    let at = Wall(start + DAY_MS);
                    tables.insert_record(
                        *key,
                        &NewRecord { first: record.meta.first, record: &record, fits: true, at },
                    )?;
                }
                if day == set.days {
                    tables.put_progress(*key, &life.progress)?;
                }
            }
        }
        state.continuity += 1;
        write_state(&store.conn, &state).map_err(fail)?;
        store.conn.execute_batch("COMMIT; PRAGMA wal_checkpoint(PASSIVE)").map_err(fail)?;
    }
    store.conn.execute_batch(INDEX).map_err(fail)?;
    store.state = state;
    store.continuity.write(store.state.continuity)?;
    store.conn.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    store.close()?;
    Ok(rows)
}

const DAY_MS: i64 = 86_400_000;
/// Runs of a stretch: one every five minutes.
const STRETCH_RUNS: u64 = 287;
const INDEX: &str = "CREATE INDEX runs_by_envoy ON runs (envoy, lane, last_seq)";

/// Fast and unsafe; the index is cheaper to make at the end.
fn quick(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; DROP INDEX runs_by_envoy")
}

fn envoy_row(n: u32, set: &DataSet) -> EnvoyRow {
    let (uuid, key) = identity(n);
    let enrolled_at = Wall(set.until.0 - i64::from(set.days + 1) * DAY_MS);
    EnvoyRow {
        uuid,
        hostname: format!("node-{n:06}.fleet.example"),
        public_key: key.public(),
        sealing_key: sha256(&[uuid.as_bytes()]).0,
        state: Enrolled::Active,
        machine_id: common::ids::hex(uuid.as_bytes()),
        agent_version: "0.1.0".into(),
        os: "debian 12".into(),
        arch: "x86_64".into(),
        enrolled_at,
        enrolled_serial: 0,
        assigned_serial: set.serial,
        bundle: set.bundle,
        last_seen: enrolled_at,
        status: Status::Nodata,
        counts: Counts::default(),
        watermark: [0; 2],
        link: [Hash32::ZERO; 2],
        trait_hash: u64::from(n),
        boot_id: Uuid::from_bytes(*uuid.as_bytes()).to_string(),
    }
}

/// The chains of one envoy.
struct Life {
    progress: Progress,
}

impl Life {
    fn new(row: &EnvoyRow) -> Life {
        let progress = Progress {
            state: row.state,
            watermark: row.watermark,
            link: row.link,
            trait_hash: row.trait_hash,
            last_seen: row.last_seen,
            status: row.status,
            counts: row.counts,
        };
        Life { progress }
    }

    fn day(&mut self, key: i64, start: i64, fails: bool, set: &DataSet) -> Vec<StoredRecord> {
        let at = |minutes: i64| start + minutes * 60_000 + key % 60_000;
        let mut records = vec![self.run(key, at(60), Outcome::Changed, set)];
        if fails {
            records.push(self.run(key, at(120), Outcome::Failed, set));
        }
        records.push(self.stretch(key, at(180), set));
        self.progress.last_seen = Wall(start + DAY_MS - key % 300_000);
        self.progress.status = Status::Converged;
        records
    }

    fn run(&mut self, key: i64, at: i64, outcome: Outcome, set: &DataSet) -> StoredRecord {
        let n = if outcome == Outcome::Changed { set.changed } else { 1 };
        let outcomes = (0..n).map(|i| wire::ResourceOutcome {
            resource: format!("web.resource-{i}"),
            outcome: outcome as u32,
            duration_ms: 12,
            r#type: "file".into(),
            message: if outcome == Outcome::Failed { "no such user: www".into() } else { String::new() },
            ..wire::ResourceOutcome::default()
        });
        let mut counts = Counts { ok: 200, ..Counts::default() };
        (0..n).for_each(|_| counts.add(outcome));
        self.progress.counts = counts;
        let run = wire::RunResult {
            run_id: run_id(key, at),
            started_wall_ms: at,
            started_boot_ms: 1_000,
            duration_ms: 480,
            bundle_hash: set.bundle.unwrap_or_default().0.to_vec(),
            serial: set.serial,
            epoch: 1,
            source: wire::run_result::Source::Live as i32,
            counts: Some(common::proto::counts_to_wire(&counts)),
            outcomes: outcomes.collect(),
            status: counts.status(false, 1, false) as u32,
            ..wire::RunResult::default()
        };
        let body = run.encode_to_vec();
        self.record(Lane::Urgent, 1, RecordKind::Run, RecordBody::Run(run), body)
    }

    fn stretch(&mut self, key: i64, at: i64, set: &DataSet) -> StoredRecord {
        let counts = Counts { ok: 200 + set.changed, ..Counts::default() };
        self.progress.counts = counts;
        let stretch = wire::Stretch {
            first_run_id: run_id(key, at),
            last_run_id: run_id(key, at + 1),
            first_wall_ms: at,
            last_wall_ms: at + 300_000 * (STRETCH_RUNS as i64 - 1),
            count: STRETCH_RUNS,
            bundle_hash: set.bundle.unwrap_or_default().0.to_vec(),
            serial: set.serial,
            epoch: 1,
            source: wire::run_result::Source::Live as i32,
            counts: Some(common::proto::counts_to_wire(&counts)),
            duration_ms_sum: 20 * STRETCH_RUNS,
            ..wire::Stretch::default()
        };
        let body = stretch.encode_to_vec();
        self.record(Lane::Routine, STRETCH_RUNS, RecordKind::Stretch, RecordBody::Stretch(stretch), body)
    }

    fn record(&mut self, lane: Lane, count: u64, kind: RecordKind, decoded: RecordBody, body: Vec<u8>) -> StoredRecord {
        let i = lane.index();
        let (previous_link, first) = (self.progress.link[i], self.progress.watermark[i] + 1);
        let last = first + count - 1;
        // The bodies between are nobody's: one link stands for all of a stretch.
        let first_link = chain::link(&previous_link, lane, first, &body);
        let last_link = if count == 1 { first_link } else { chain::link(&first_link, lane, last, &body) };
        (self.progress.watermark[i], self.progress.link[i]) = (last, last_link);
        let meta = RecordMeta { lane, first, last, previous_link, first_link, last_link };
        StoredRecord { meta, kind, body, decoded }
    }
}

fn run_id(key: i64, at: i64) -> Vec<u8> {
    sha256(&[&key.to_be_bytes(), &at.to_be_bytes()]).0[..16].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::SERVER;
    use crate::store::read::Reader;

    #[test]
    fn a_generated_fleet_starts_and_its_chains_verify() {
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions { ballast_bytes: 0, ..OpenOptions::new(dir.path().join("vigo.db"), SERVER) };
        assert_eq!(generate(&options, &DataSet::month(7, Wall(1_790_000_000_000))), Ok(7 * 63));
        let mut opened = SqliteStore::open(&options).unwrap();
        assert!(!opened.unclean && !opened.restored);
        let loaded = opened.store.load().unwrap();
        assert_eq!(loaded.envoys.len(), 7);
        assert_eq!(loaded.envoys[3].watermark, [33, 30 * STRETCH_RUNS]);
        assert_eq!(loaded.envoys[3].public_key, identity(3).1.public());
        let mut reader = Reader::open(&options.path).unwrap();
        for lane in Lane::ALL {
            let report = reader.verify(&identity(3).0, lane, 0, 1_000).unwrap();
            assert_eq!((report.faults.len(), report.present), (0, loaded.envoys[3].watermark[lane.index()]));
        }
    }
}
