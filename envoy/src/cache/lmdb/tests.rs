//! LMDB: the contract, growth, full disks and small address spaces, compaction.

use super::*;
use crate::cache::ops::RecordIndex;
use crate::cache::{contract, fixture};

/// A cache with the directory that it lives in.
struct Temporary {
    cache: LmdbCache,
    _dir: tempfile::TempDir,
}

impl Cache for Temporary {
    fn load(&mut self) -> Result<Loaded, CacheError> {
        self.cache.load()
    }
    fn commit(&mut self, batch: &[StoreOp]) -> Result<(), CacheError> {
        self.cache.commit(batch)
    }
    fn read_records(&mut self, lane: Lane, first: u64, max_bytes: usize) -> Result<Vec<QueueRecord>, CacheError> {
        self.cache.read_records(lane, first, max_bytes)
    }
}

fn fresh(bytes_max: u64, no_sync: bool) -> Temporary {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let place = Place { no_sync, ..Place::new(dir.path(), Uuid::from_bytes([5; 16]), bytes_max) };
    Temporary { cache: LmdbCache::create(place, Seal::default()).expect("it is made"), _dir: dir }
}

#[test]
fn lmdb_keeps_the_contract() {
    contract::check_all(|bytes_max| Box::new(fresh(bytes_max, true)));
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let Temporary { mut cache, _dir } = fresh(8 << 20, false);
    let records = fixture::chain(Lane::Urgent, 50, 300);
    let batch: Vec<StoreOp> = records.iter().cloned().map(StoreOp::PutRecord).collect();
    cache.commit(&batch).expect("it fits");
    cache.commit(&[fixture::slot(1, 300_000), fixture::slot(2, 5)]).expect("it fits");
    let (loaded, place) = (cache.load().expect("it loads"), cache.place.clone());
    drop(cache);
    let mut cache = LmdbCache::open(place, 0).expect("it opens");
    assert_eq!(cache.load().expect("it loads"), loaded);
    assert_eq!(loaded.lanes[0], records.iter().map(RecordIndex::of).collect::<Vec<_>>());
}

#[test]
fn the_map_grows_and_keeps_its_bound() {
    let Temporary { mut cache, _dir } = fresh(8 << 20, true);
    assert_eq!(cache.map_bytes(), MAP_BYTES_FIRST);
    cache.commit(&[fixture::slot(1, 3 << 20)]).expect("it fits");
    assert!(cache.map_bytes() > 3 << 20);
    assert_eq!(cache.commit(&[fixture::slot(2, 6 << 20)]), Err(CacheError::Full));
    assert!(cache.map_bytes() <= 8 << 20);
    let loaded = cache.load().expect("it loads");
    assert_eq!(loaded.current, Some((fixture::signed(1, 100), fixture::signed(1, 3 << 20))));
}

#[test]
fn revisions_go_on_above_everything_in_the_file() {
    let Temporary { mut cache, _dir } = fresh(1 << 20, true);
    cache.commit(&[StoreOp::SetMeta("a".into(), vec![])]).expect("it fits");
    assert!(cache.seal().revision < 1_000);
    let place = cache.place.clone();
    drop(cache);
    let mut cache = LmdbCache::open(place, 1_000).expect("it opens");
    cache.commit(&[StoreOp::SetMeta("a".into(), vec![])]).expect("it fits");
    assert!(cache.seal().revision > 1_000);
}

#[test]
fn a_store_of_another_envoy_is_not_opened() {
    let Temporary { cache, _dir } = fresh(1 << 20, true);
    let place = Place { uuid: Uuid::from_bytes([6; 16]), ..cache.place.clone() };
    drop(cache);
    assert!(
        matches!(LmdbCache::open(place, 0), Err(CacheError::Corrupt(text)) if text.contains("belongs to envoy 0505"))
    );
}

#[test]
fn a_year_offline_without_changes_stays_below_one_mebibyte() {
    let Temporary { mut cache, _dir } = fresh(8 << 20, true);
    cache.commit(&[fixture::slot(1, 20_000)]).expect("it fits");
    for last in 1..=105_120 {
        cache.commit(&[StoreOp::PutRecord(fixture::stretch(1, last))]).expect("it fits");
    }
    let loaded = cache.load().expect("it loads");
    assert_eq!((loaded.lanes[1].len(), loaded.tails[1].clone()), (1, Some(fixture::stretch(1, 105_120))));
    let bytes = std::fs::metadata(_dir.path().join("data.mdb")).expect("it is there").len();
    assert!(bytes < 1 << 20, "{bytes} bytes");
}

#[test]
fn the_page_walk_agrees_with_lmdb_after_any_history() {
    use crate::cache::probe;
    use common::rng::{Rng, SplitMix64};
    let mut rng = SplitMix64(42);
    let Temporary { mut cache, _dir } = fresh(16 << 20, true);
    let path = _dir.path().join("data.mdb");
    let uuid = cache.place.uuid;
    for round in 0..400 {
        let batch: Vec<StoreOp> = (0..rng.below(6) + 1)
            .map(|_| match rng.below(8) {
                0 => fixture::slot(rng.next_u64() as u8, rng.below(60_000) as usize),
                1 => StoreOp::SetTrait(format!("t{}", rng.below(9)), Some(vec![1; rng.below(9_000) as usize])),
                2 => StoreOp::SetTrait(format!("t{}", rng.below(9)), None),
                3 => StoreOp::SetMeta(format!("m{}", rng.below(9)), vec![2; rng.below(300) as usize]),
                4 => {
                    let from = rng.below(300);
                    let firsts = (from..from + rng.below(80)).collect();
                    StoreOp::DeleteRecords { lane: Lane::Urgent, firsts }
                }
                _ => {
                    let (sequence, bytes) = (rng.below(300) + 1, rng.below(6_000) as usize);
                    StoreOp::PutRecord(fixture::run_of_size(Lane::Urgent, sequence, 1, &[0; 32], bytes))
                }
            })
            .collect();
        match cache.commit(&batch) {
            Ok(()) | Err(CacheError::Full) => {}
            Err(error) => panic!("round {round}: {error}"),
        }
        let examined = probe::examine(&path, uuid, &mut |_| {});
        assert_eq!(examined.map(|examined| examined.seal), Ok(cache.seal), "round {round}");
    }
    assert!(
        matches!(probe::probe(&cache.place, 20_000), probe::Verdict::Damaged(text) if text.contains("already open"))
    );
    let (place, revision) = (cache.place.clone(), cache.seal.revision);
    drop(cache);
    assert_eq!(probe::probe(&place, 20_000), probe::Verdict::Sound { revision });
}

/// Runs `work` in a child, where limits of a process can be set; it answers with an empty text when all is well.
fn in_child(work: impl FnOnce() -> Result<(), String>) {
    let answer = crate::sys::fork::run(60_000, || work().err().unwrap_or_default().into_bytes());
    assert_eq!(
        answer,
        crate::sys::fork::Ended::Answered(Vec::new()),
        "{}",
        match &answer {
            crate::sys::fork::Ended::Answered(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        }
    );
}

fn fill_until_full(cache: &mut LmdbCache) -> Result<usize, String> {
    for (n, record) in fixture::chain(Lane::Urgent, 20_000, 1_000).into_iter().enumerate() {
        match cache.commit(&[StoreOp::PutRecord(record)]) {
            Ok(()) => {}
            Err(CacheError::Full) => return Ok(n),
            Err(error) => return Err(format!("record {n}: {error}")),
        }
    }
    Err("it never fills up".to_string())
}

/// After `n` records it was full: all are there, one can be deleted, the freed room is used again.
fn check_usable(cache: &mut LmdbCache, n: usize) -> Result<(), String> {
    let say = |error: CacheError| error.to_string();
    let found = cache.load().map_err(say)?.lanes[0].len();
    if found != n || n < 50 {
        return Err(format!("{found} records of {n}"));
    }
    for first in 1..=20 {
        cache.commit(&[StoreOp::DeleteRecords { lane: Lane::Urgent, firsts: vec![first] }]).map_err(say)?;
    }
    cache.commit(&[StoreOp::SetMeta("a".into(), vec![1; 1_000])]).map_err(say)
}

#[test]
fn a_full_disk_is_full_and_the_old_state_stays() {
    use nix::sys::resource::{Resource, setrlimit};
    let Temporary { cache, _dir } = fresh(64 << 20, true);
    let place = cache.place.clone();
    drop(cache);
    in_child(|| {
        // What a full disk does to a write, a limit on the size of files does too, without a disk to fill.
        // Blocked, the signal does not end the process: the write fails with EFBIG.
        let signal = nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGXFSZ);
        signal.thread_block().map_err(|e| e.to_string())?;
        setrlimit(Resource::RLIMIT_FSIZE, 3 << 20, 3 << 20).map_err(|e| e.to_string())?;
        let mut cache = LmdbCache::open(place, 0).map_err(|e| e.to_string())?;
        let n = fill_until_full(&mut cache)?;
        check_usable(&mut cache, n)
    });
}

#[test]
fn a_small_address_space_bounds_the_map() {
    use nix::sys::resource::{Resource, setrlimit};
    let Temporary { cache, _dir } = fresh(1 << 30, true);
    let place = cache.place.clone();
    drop(cache);
    in_child(|| {
        let pages = std::fs::read_to_string("/proc/self/statm").map_err(|e| e.to_string())?;
        let now: u64 = pages.split(' ').next().and_then(|n| n.parse().ok()).ok_or("no size")?;
        let most = now * 4_096 + (40 << 20);
        setrlimit(Resource::RLIMIT_AS, most, most).map_err(|e| e.to_string())?;
        let mut cache = LmdbCache::open(place, 0).map_err(|e| e.to_string())?;
        let n = fill_until_full(&mut cache)?;
        check_usable(&mut cache, n)
    });
}

#[test]
fn room_in_pieces_is_compacted() {
    let Temporary { mut cache, _dir } = fresh(8 << 20, true);
    // Records that fill the map, then every second one goes: half of it is free, in pieces of a few pages.
    let n = fill_until_full(&mut cache).expect("it fills up");
    let some = |rest: std::ops::Range<u64>| (1..=n as u64).filter(move |first| rest.contains(&(first % 40))).collect();
    // In small steps, so that the file does not grow: that is the other test.
    for step in 0..20 {
        let firsts = some(step..step + 1);
        cache.commit(&[StoreOp::DeleteRecords { lane: Lane::Urgent, firsts }]).expect("it deletes");
    }
    let before = cache.load().expect("it loads");
    let file = || std::fs::metadata(_dir.path().join("data.mdb")).expect("it is there").len();
    let bytes = file();
    cache.commit(&[fixture::slot(1, 1 << 20)]).expect("it fits once it is compacted");
    assert!(file() < bytes, "{} of {bytes} bytes", file());
    let after = cache.load().expect("it loads");
    assert_eq!((after.lanes, after.highest), (before.lanes, before.highest));
    assert_eq!(after.current, Some((fixture::signed(1, 100), fixture::signed(1, 1 << 20))));
    assert!(!_dir.path().join("rebuild").exists());
    let examined = crate::cache::probe::examine(&_dir.path().join("data.mdb"), cache.place.uuid, &mut |_| {});
    assert_eq!(examined.map(|examined| examined.seal), Ok(cache.seal));
}

#[test]
fn a_full_store_takes_any_deletion_and_is_small_again_after_it() {
    let Temporary { mut cache, _dir } = fresh(8 << 20, true);
    let n = fill_until_full(&mut cache).expect("it fills up") as u64;
    // Touches every page: all of them are copied before one is free.
    let firsts = (1..=n).filter(|first| first % 8 < 5).collect();
    cache.commit(&[StoreOp::DeleteRecords { lane: Lane::Urgent, firsts }]).expect("it deletes");
    let bytes = std::fs::metadata(_dir.path().join("data.mdb")).expect("it is there").len();
    assert!(bytes < 6 << 20, "{bytes} bytes");
    let left: Vec<u64> = (1..=n).filter(|first| first % 8 >= 5).collect();
    let found = cache.load().expect("it loads").lanes[0].iter().map(|index| index.first).collect::<Vec<_>>();
    assert!(found == left);
}
