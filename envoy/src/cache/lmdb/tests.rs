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
