//! What only a file can do: be killed, full, damaged, older, newer, replaced.

use std::fs;
use std::path::Path;

use common::chain::Lane;
use common::ids::{Hash32, ServerId};
use common::time::Wall;

use super::schema::MIGRATIONS;
use super::*;
use crate::store::contract::{Agent, SERVER, enrolled, one, report, stored, uuid};
use crate::store::{EventRow, Write, Written};

fn options(dir: &Path) -> OpenOptions {
    OpenOptions { ballast_bytes: 0, ..OpenOptions::new(dir.join("vigo.db"), SERVER) }
}

fn open(dir: &Path) -> Opened {
    SqliteStore::open(&options(dir)).unwrap()
}

fn event(n: usize) -> Write {
    Write::Event(EventRow { at: Wall(1), kind: "test".into(), uuid: None, detail: "x".repeat(n) })
}

fn raise(epoch: u64) -> Write {
    Write::RaiseEpoch { epoch, reason: "restored".into(), at: Wall(1) }
}

#[test]
fn a_clean_shutdown_is_told_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = open(dir.path());
    assert!(!first.unclean && !first.restored);
    enrolled(&mut first.store, 1);
    drop(first);
    let mut second = open(dir.path());
    assert!(second.unclean && !second.restored);
    assert_eq!(second.store.load().unwrap().envoys.len(), 1);
    second.store.close().unwrap();
    drop(second);
    assert!(!open(dir.path()).unclean);
}

#[test]
fn a_database_put_back_to_an_older_copy_counts_as_restored_until_the_epoch_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vigo.db");
    let mut store = open(dir.path()).store;
    enrolled(&mut store, 1);
    store.close().unwrap();
    drop(store);
    fs::copy(&path, dir.path().join("copy")).unwrap();
    let mut store = open(dir.path()).store;
    enrolled(&mut store, 2);
    store.close().unwrap();
    drop(store);
    fs::copy(dir.path().join("copy"), &path).unwrap();
    // However often it starts, and whatever else it writes.
    for _ in 0..3 {
        let mut opened = open(dir.path());
        assert!(opened.restored);
        for n in 0..9 {
            opened.store.apply(&[event(n)]).unwrap();
        }
    }
    let mut opened = open(dir.path());
    assert!(opened.restored);
    opened.store.apply(&[raise(2), event(1)]).unwrap();
    drop(opened);
    assert!(!open(dir.path()).restored);
}

#[test]
fn a_database_without_its_continuity_file_counts_as_restored_and_a_new_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vigo.db.continuity");
    drop(open(dir.path()));
    assert!(file.exists());
    let mut store = open(dir.path()).store;
    enrolled(&mut store, 1);
    drop(store);
    for damage in [None, Some("")] {
        match damage {
            None => fs::remove_file(&file).unwrap(),
            Some(text) => fs::write(&file, text).unwrap(),
        }
        let mut opened = open(dir.path());
        assert!(opened.restored, "{damage:?}");
        opened.store.apply(&[raise(9)]).unwrap();
        drop(opened);
        assert!(!open(dir.path()).restored, "{damage:?}");
    }
}

#[test]
fn the_database_of_another_server_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let other = OpenOptions { server_id: ServerId(Hash32([8; 32])), ..options(dir.path()) };
    let refused = SqliteStore::open(&other).unwrap_err().to_string();
    assert!(refused.contains("belongs to server 0909"), "{refused}");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).store;
    store.conn.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let known = MIGRATIONS.len() as u32;
    assert_eq!(SqliteStore::open(&options(dir.path())).unwrap_err(), StoreError::Newer(99, known));
}

#[test]
fn somebody_else_s_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let conn = Connection::open(dir.path().join("vigo.db")).unwrap();
    conn.execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    drop(conn);
    let refused = SqliteStore::open(&options(dir.path())).unwrap_err().to_string();
    assert!(refused.contains("not one of vigosrv"), "{refused}");
}

#[test]
fn an_older_schema_is_migrated_after_a_copy_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let older = SqliteStore::open_with(&options(dir.path()), &MIGRATIONS[..1]).unwrap();
    let mut store = older.store;
    assert_eq!(older.migrated.map(|migrated| (migrated.from, migrated.backup)), Some((0, None)));
    enrolled(&mut store, 1);
    store.close().unwrap();
    drop(store);
    let mut opened = open(dir.path());
    let copy = dir.path().join("vigo.db.schema-1.bak");
    let expected = Migrated { from: 1, to: MIGRATIONS.len() as u32, backup: Some(copy.clone()) };
    assert_eq!(opened.migrated, Some(expected));
    assert_eq!(opened.store.load().unwrap().envoys.len(), 1);
    let steps = opened.store.probe("SELECT version FROM migrations", [], |row| row.get::<_, i64>(0));
    assert_eq!(steps, (1..=MIGRATIONS.len() as i64).collect::<Vec<_>>());
    drop(opened);
    assert_eq!(open(dir.path()).migrated, None);
    // The copy is what the older binary can go on with.
    fs::rename(copy, dir.path().join("vigo.db")).unwrap();
    assert_eq!(open(dir.path()).migrated.map(|migrated| migrated.from), Some(1));
}

#[test]
fn no_migration_without_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open_with(&options(dir.path()), &MIGRATIONS[..1]).unwrap());
    fs::create_dir(dir.path().join("vigo.db.schema-1.bak")).unwrap();
    let refused = SqliteStore::open(&options(dir.path())).unwrap_err().to_string();
    assert!(refused.contains("nothing was changed"), "{refused}");
    let conn = Connection::open(dir.path().join("vigo.db")).unwrap();
    assert_eq!(conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)), Ok(1));
}

#[test]
fn a_migration_that_fails_leaves_the_version_before() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open_with(&options(dir.path()), &MIGRATIONS[..1]).unwrap());
    let bad = schema::Migration { name: "bad", sql: "CREATE TABLE half (a); CREATE TABLE envoys (a);" };
    let steps = [schema::Migration { name: MIGRATIONS[0].name, sql: MIGRATIONS[0].sql }, bad];
    assert!(SqliteStore::open_with(&options(dir.path()), &steps).is_err());
    let conn = Connection::open(dir.path().join("vigo.db")).unwrap();
    assert_eq!(conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)), Ok(1));
    let half = "SELECT count(*) FROM sqlite_schema WHERE name = 'half'";
    assert_eq!(conn.query_row(half, [], |row| row.get::<_, i64>(0)), Ok(0));
}

#[test]
fn a_damaged_file_is_named_with_the_way_out_at_every_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vigo.db");
    let mut store = open(dir.path()).store;
    for n in 1..=60 {
        enrolled(&mut store, n);
    }
    store.checkpoint("TRUNCATE").unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut seen = 0;
    for page in 0..whole.len() / PAGE_BYTES as usize {
        let mut bytes = whole.clone();
        let at = page * PAGE_BYTES as usize;
        bytes[at..at + PAGE_BYTES as usize].fill(0xa5);
        fs::write(&path, &bytes).unwrap();
        // Damage in the history shows to the check of the whole file; what the server starts from shows at once.
        let verdict = SqliteStore::open(&options(dir.path())).map(drop).and_then(|()| check_whole(&path));
        match verdict {
            Ok(()) => {}
            Err(StoreError::Corrupt(text)) => {
                assert!(text.contains("vigocli backup restore"), "{text}");
                seen += 1;
            }
            Err(other) => panic!("page {page}: {other:?}"),
        }
        fs::write(&path, &whole).unwrap();
        for name in ["vigo.db-wal", "vigo.db-shm"] {
            let _ = fs::remove_file(dir.path().join(name));
        }
    }
    assert_eq!(seen, whole.len() / PAGE_BYTES as usize, "no page may be damaged unseen");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(SqliteStore::open(&options(dir.path())), Err(StoreError::Corrupt(_))));
    fs::write(&path, "this was a database").unwrap();
    assert!(matches!(SqliteStore::open(&options(dir.path())), Err(StoreError::Corrupt(_))));
}

#[test]
fn a_database_that_is_gone_is_not_made_anew_beside_its_continuity_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vigo.db");
    let mut store = open(dir.path()).store;
    enrolled(&mut store, 1);
    store.close().unwrap();
    drop(store);
    for empty in [false, true] {
        fs::remove_file(&path).unwrap();
        if empty {
            fs::write(&path, "").unwrap();
        }
        let error = SqliteStore::open(&options(dir.path())).unwrap_err();
        assert_eq!(error, StoreError::Missing(path.clone()));
        assert!(error.to_string().contains("vigocli backup restore FILE --db-only"), "{error}");
        fs::write(&path, "").unwrap();
    }
    fs::remove_file(dir.path().join("vigo.db.continuity")).unwrap();
    assert!(!open(dir.path()).restored, "begun anew, as the operator wanted");
}

#[test]
fn retention_removes_what_is_oldest_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).store;
    let a = enrolled(&mut store, 1);
    let mut agent = Agent::new(Lane::Urgent);
    let records: Vec<_> = (0..100).map(|n| agent.run(20, n)).collect();
    for chunk in records.chunks(10) {
        stored(&mut store, a, chunk.to_vec());
    }
    let count = |store: &SqliteStore, table: &str| {
        store.probe(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))[0]
    };
    let by_age = RetainRule { bytes_max: u64::MAX, cutoff: Wall(8_000), step: 30 };
    assert_eq!(store.retain(&by_age), Ok(Retained { removed: 0, more: false }));
    let all = RetainRule { cutoff: Wall(9_001), ..by_age };
    assert_eq!(store.retain(&all), Ok(Retained { removed: 30, more: true }));
    assert_eq!((count(&store, "runs"), count(&store, "outcomes")), (70, 70));
    let by_bytes = RetainRule { bytes_max: 0, cutoff: Wall(0), step: 30 };
    let mut steps = 0;
    while store.retain(&by_bytes).unwrap().more {
        steps += 1;
        assert!(steps < 10);
    }
    assert_eq!((count(&store, "runs"), count(&store, "outcomes")), (0, 0));
    // What came again after it was removed is known by the watermark, and the chain goes on.
    assert_eq!(stored(&mut store, a, records).forks, []);
    assert_eq!(stored(&mut store, a, vec![agent.run(1, 200)]).chain_breaks, 0);
    assert_eq!(count(&store, "runs"), 1);
}

#[test]
fn the_log_is_copied_back_by_size_and_when_it_is_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).store;
    let gauges = store.gauges();
    let one_step = limits::WAL_CHECKPOINT_BYTES as usize / 4;
    for _ in 0..12 {
        store.apply(&[event(one_step)]).unwrap();
        store.upkeep().unwrap();
        assert!(gauges.wal_bytes() < 2 * limits::WAL_CHECKPOINT_BYTES, "{}", gauges.wal_bytes());
    }
    store.apply(&[event(1)]).unwrap();
    store.upkeep().unwrap();
    let pages = || fs::metadata(dir.path().join("vigo.db")).unwrap().len();
    let before = pages();
    store.upkeep().unwrap();
    assert!(pages() >= before);
    assert_eq!(store.backfilled_pages * PAGE_BYTES, gauges.wal_bytes(), "all of it is in the database");
    // Where another process checkpoints, this one does not.
    drop(store);
    let elsewhere = OpenOptions { checkpoints: Checkpoints::Elsewhere, ..options(dir.path()) };
    let mut store = SqliteStore::open(&elsewhere).unwrap().store;
    for _ in 0..6 {
        store.apply(&[event(one_step)]).unwrap();
        store.upkeep().unwrap();
    }
    assert!(store.gauges().wal_bytes() > limits::WAL_CHECKPOINT_BYTES);
    // Unless that process is gone: it takes the log back.
    store.gauges().leave_checkpoints(false);
    store.upkeep().unwrap();
    assert_eq!(store.backfilled_pages * PAGE_BYTES, store.gauges().wal_bytes());
}

#[test]
fn a_batch_that_fails_leaves_nothing_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).store;
    let a = enrolled(&mut store, 1);
    store.conn.execute_batch("ALTER TABLE outcomes RENAME TO hidden").unwrap();
    let mut agent = Agent::new(Lane::Urgent);
    let write = report(a, vec![agent.run(1, 1)]);
    let batch = [Write::SetInterval { interval_ms: 2_000, at: Wall(1) }, write.clone()];
    assert!(store.apply(&batch).is_err());
    assert_eq!(store.load().unwrap().state.version.serial, 0);
    store.conn.execute_batch("ALTER TABLE hidden RENAME TO outcomes").unwrap();
    assert!(matches!(one(&mut store, write), Written::Stored(stored) if stored.watermark == [1, 0]));
    assert_eq!(uuid(1), a);
}
