//! What every [`Cache`] must do, as one suite: memory and LMDB pass the same.

use common::chain::Lane;

use super::fixture;
use super::ops::{Cache, CacheError, Loaded, QueueRecord, RecordClass, RecordIndex, StoreOp};

type Make<'a> = &'a dyn Fn(u64) -> Box<dyn Cache>;

const ROOMY: u64 = 64 << 20;

/// Runs the suite; `make` gives a fresh, empty cache with a bound in bytes.
pub fn check_all(make: impl Fn(u64) -> Box<dyn Cache>) {
    starts_empty(&make);
    slots_shift(&make);
    an_assignment_may_keep_the_bundle(&make);
    an_assignment_without_any_bundle_is_refused_whole(&make);
    records_come_back_in_order(&make);
    a_put_with_the_same_first_sequence_replaces(&make);
    deletes_leave_the_rest(&make);
    the_highest_sequence_is_remembered(&make);
    reads_stop_at_the_byte_bound(&make);
    meta_and_traits_are_kept_apart(&make);
    a_batch_is_whole_or_nothing(&make);
    within_a_batch_order_counts(&make);
    what_cannot_be_stored_is_refused(&make);
    full_is_said_and_deleting_is_the_way_out(&make);
}

fn load(cache: &mut Box<dyn Cache>) -> Loaded {
    cache.load().expect("it loads")
}

fn put(cache: &mut Box<dyn Cache>, records: &[QueueRecord]) {
    let batch: Vec<StoreOp> = records.iter().cloned().map(StoreOp::PutRecord).collect();
    cache.commit(&batch).expect("the records fit");
}

fn read(cache: &mut Box<dyn Cache>, lane: Lane, first: u64, max_bytes: usize) -> Vec<QueueRecord> {
    cache.read_records(lane, first, max_bytes).expect("it reads")
}

fn starts_empty(make: Make) {
    let mut cache = make(ROOMY);
    assert_eq!(load(&mut cache), Loaded::default());
    assert_eq!(read(&mut cache, Lane::Urgent, 0, 1_000), []);
    assert_eq!(cache.commit(&[]), Ok(()));
}

fn slots_shift(make: Make) {
    let mut cache = make(ROOMY);
    for fill in 1..=3 {
        cache.commit(&[fixture::slot(fill, 10_000)]).expect("it fits");
    }
    let loaded = load(&mut cache);
    assert_eq!(loaded.current, Some((fixture::signed(3, 100), fixture::signed(3, 10_000))));
    assert_eq!(loaded.previous, Some((fixture::signed(2, 100), fixture::signed(2, 10_000))));
}

fn an_assignment_may_keep_the_bundle(make: Make) {
    let mut cache = make(ROOMY);
    let keep = |fill| StoreOp::PutSlot { assignment: fixture::signed(fill, 100), bundle: None };
    cache.commit(&[fixture::slot(1, 5_000)]).expect("it fits");
    cache.commit(&[keep(2)]).expect("it fits");
    let loaded = load(&mut cache);
    assert_eq!(loaded.current, Some((fixture::signed(2, 100), fixture::signed(1, 5_000))));
    assert_eq!(loaded.previous, Some((fixture::signed(1, 100), fixture::signed(1, 5_000))));
    cache.commit(&[keep(3), fixture::slot(4, 10)]).expect("it fits");
    let loaded = load(&mut cache);
    assert_eq!(loaded.current, Some((fixture::signed(4, 100), fixture::signed(4, 10))));
    assert_eq!(loaded.previous, Some((fixture::signed(3, 100), fixture::signed(1, 5_000))));
}

fn an_assignment_without_any_bundle_is_refused_whole(make: Make) {
    let mut cache = make(ROOMY);
    let batch =
        [StoreOp::SetMeta("a".into(), vec![1]), StoreOp::PutSlot { assignment: fixture::signed(1, 9), bundle: None }];
    assert!(matches!(cache.commit(&batch), Err(CacheError::Io(_))));
    assert_eq!(load(&mut cache), Loaded::default());
}

fn records_come_back_in_order(make: Make) {
    let mut cache = make(ROOMY);
    let mut records = fixture::chain(Lane::Urgent, 300, 40);
    records[2].sealed = true;
    records[2].acked_at_ms = 77;
    put(&mut cache, &records);
    let routine = [fixture::stretch(1, 9), fixture::gap(Lane::Routine, 10, 12)];
    put(&mut cache, &routine);
    let loaded = load(&mut cache);
    let expected: Vec<RecordIndex> = records.iter().map(RecordIndex::of).collect();
    assert_eq!(loaded.lanes[0], expected);
    assert_eq!(loaded.lanes[1].iter().map(|i| (i.first, i.last)).collect::<Vec<_>>(), [(1, 9), (10, 12)]);
    assert_eq!(loaded.lanes[0][2].class, RecordClass::Failure);
    assert_eq!(loaded.lanes[1].iter().map(|i| i.class).collect::<Vec<_>>(), [RecordClass::NoChange, RecordClass::Gap]);
    assert_eq!(loaded.tails, [records.last().cloned(), routine.last().cloned()]);
    assert_eq!(read(&mut cache, Lane::Urgent, 0, usize::MAX), records);
    assert_eq!(read(&mut cache, Lane::Urgent, 299, usize::MAX), records[298..]);
    assert_eq!(read(&mut cache, Lane::Routine, 2, usize::MAX), routine[1..]);
}

fn a_put_with_the_same_first_sequence_replaces(make: Make) {
    let mut cache = make(ROOMY);
    put(&mut cache, &[fixture::stretch(5, 6)]);
    put(&mut cache, &[fixture::stretch(5, 900)]);
    let loaded = load(&mut cache);
    assert_eq!(loaded.lanes[1], [RecordIndex::of(&fixture::stretch(5, 900))]);
    assert_eq!(loaded.tails[1], Some(fixture::stretch(5, 900)));
}

fn deletes_leave_the_rest(make: Make) {
    let mut cache = make(ROOMY);
    let records = fixture::chain(Lane::Urgent, 20, 10);
    put(&mut cache, &records);
    cache.commit(&[StoreOp::DeleteRecords { lane: Lane::Urgent, firsts: vec![1, 2, 7, 99] }]).expect("it deletes");
    cache.commit(&[StoreOp::DeleteRecords { lane: Lane::Routine, firsts: vec![3] }]).expect("nothing is there");
    let left = [&records[2..6], &records[7..]].concat();
    assert_eq!(read(&mut cache, Lane::Urgent, 0, usize::MAX), left);
}

fn the_highest_sequence_is_remembered(make: Make) {
    let mut cache = make(ROOMY);
    put(&mut cache, &[fixture::stretch(5, 60)]);
    cache.commit(&[StoreOp::DeleteRecords { lane: Lane::Routine, firsts: vec![5] }]).expect("it deletes");
    let loaded = load(&mut cache);
    assert_eq!((loaded.highest, loaded.tails), ([0, 60], [None, None]));
}

fn reads_stop_at_the_byte_bound(make: Make) {
    let mut cache = make(ROOMY);
    let records = fixture::chain(Lane::Urgent, 10, 500);
    put(&mut cache, &records);
    let two = (RecordIndex::of(&records[0]).bytes + RecordIndex::of(&records[1]).bytes) as usize;
    assert_eq!(read(&mut cache, Lane::Urgent, 1, two).len(), 2);
    assert_eq!(read(&mut cache, Lane::Urgent, 1, two - 1).len(), 1);
    assert_eq!(read(&mut cache, Lane::Urgent, 1, 0).len(), 1, "at least one");
    assert_eq!(read(&mut cache, Lane::Urgent, 11, 10_000), []);
}

fn meta_and_traits_are_kept_apart(make: Make) {
    let mut cache = make(ROOMY);
    let batch = [
        StoreOp::SetMeta("os".into(), vec![1]),
        StoreOp::SetTrait("os".into(), Some(vec![2])),
        StoreOp::SetTrait("load".into(), Some(Vec::new())),
        StoreOp::SetMeta("empty".into(), Vec::new()),
    ];
    cache.commit(&batch).expect("it fits");
    cache.commit(&[StoreOp::SetTrait("load".into(), None), StoreOp::SetTrait("never".into(), None)]).expect("it fits");
    let loaded = load(&mut cache);
    assert_eq!(loaded.meta, [("os".into(), vec![1]), ("empty".into(), vec![])].into());
    assert_eq!(loaded.traits, [("os".into(), vec![2])].into());
}

fn a_batch_is_whole_or_nothing(make: Make) {
    let mut cache = make(ROOMY);
    put(&mut cache, &[fixture::stretch(1, 4)]);
    let before = load(&mut cache);
    let batch = [
        StoreOp::DeleteRecords { lane: Lane::Routine, firsts: vec![1] },
        StoreOp::SetMeta("a".into(), vec![1]),
        fixture::slot(1, 10),
        StoreOp::SetMeta(String::new(), vec![1]),
    ];
    assert!(matches!(cache.commit(&batch), Err(CacheError::Io(_))));
    assert_eq!(load(&mut cache), before);
}

fn within_a_batch_order_counts(make: Make) {
    let mut cache = make(ROOMY);
    let batch = [
        StoreOp::PutRecord(fixture::stretch(1, 4)),
        StoreOp::DeleteRecords { lane: Lane::Routine, firsts: vec![1] },
        StoreOp::PutRecord(fixture::stretch(1, 7)),
        StoreOp::SetMeta("a".into(), vec![1]),
        StoreOp::SetMeta("a".into(), vec![2]),
        StoreOp::SetTrait("t".into(), Some(vec![1])),
        StoreOp::SetTrait("t".into(), None),
    ];
    cache.commit(&batch).expect("it fits");
    let loaded = load(&mut cache);
    assert_eq!(loaded.tails[1], Some(fixture::stretch(1, 7)));
    assert_eq!((loaded.meta, loaded.traits), ([("a".into(), vec![2])].into(), [].into()));
}

fn what_cannot_be_stored_is_refused(make: Make) {
    let mut cache = make(ROOMY);
    let with = |change: fn(&mut QueueRecord)| {
        let mut record = fixture::stretch(3, 4);
        change(&mut record);
        StoreOp::PutRecord(record)
    };
    for (op, why) in [
        (with(|r| r.record.lane = 0), "no lane"),
        (with(|r| r.record.lane = -1), "a negative lane"),
        (with(|r| r.record.first_sequence = 0), "sequence 0"),
        (with(|r| r.record.last_sequence = 2), "last before first"),
        (with(|r| r.record.last_sequence = 1 << 63), "a sequence that is no i64"),
        (with(|r| r.record.previous_link = vec![0; 300_000]), "a record over its bound"),
        (StoreOp::SetMeta("x".repeat(256), vec![]), "a long name"),
        (StoreOp::SetMeta("a\0b".into(), vec![]), "NUL in a name"),
        (StoreOp::SetMeta("a".into(), vec![0; 70_000]), "a meta value over its bound"),
        (StoreOp::SetTrait("a".into(), Some(vec![0; 300_000])), "a trait tree over its bound"),
        (fixture::slot(1, 13 << 20), "a bundle over its bound"),
    ] {
        assert!(matches!(cache.commit(&[op]), Err(CacheError::Io(_))), "{why}");
    }
    assert_eq!(load(&mut cache), Loaded::default());
}

fn full_is_said_and_deleting_is_the_way_out(make: Make) {
    let mut cache = make(1 << 20);
    cache.commit(&[fixture::slot(1, 1_000), StoreOp::SetMeta("keep".into(), vec![9])]).expect("it fits");
    let records = fixture::chain(Lane::Urgent, 3_000, 1_000);
    let stored = records
        .iter()
        .position(|record| match cache.commit(&[StoreOp::PutRecord(record.clone())]) {
            Ok(()) => false,
            Err(error) => {
                assert_eq!(error, CacheError::Full);
                true
            }
        })
        .expect("a bounded store fills up");
    assert!(stored > 300, "{stored} records of about 1.3 KiB fit into 1 MiB");
    let loaded = load(&mut cache);
    assert_eq!((loaded.lanes[0].len(), loaded.current.is_some()), (stored, true));
    // Every record can still be read, deleted one by one, and replaced: many times over, so that nothing leaks.
    let (mut next, mut oldest) = (stored, 0);
    for _ in 0..stored * 2 {
        cache
            .commit(&[StoreOp::DeleteRecords { lane: Lane::Urgent, firsts: vec![oldest as u64 + 1] }])
            .expect("a full store can be emptied");
        oldest += 1;
        if next < records.len() && cache.commit(&[StoreOp::PutRecord(records[next].clone())]).is_ok() {
            next += 1;
        }
        if oldest == next {
            break;
        }
    }
    assert!(next > stored + stored / 2, "{next} of {stored}: room that was freed is used again");
    assert_eq!(read(&mut cache, Lane::Urgent, 0, usize::MAX), records[oldest..next]);
    assert_eq!(load(&mut cache).meta.get("keep"), Some(&vec![9]));
}
