use std::sync::mpsc;

use common::ids::{Hash32, ServerId};
use common::time::Wall;

use super::*;
use crate::store::{EventRow, MemoryStore, ResultsWrite, Retained, Sighting, Snapshot};

/// A store that waits to be let go, and tells what it was asked.
struct Scripted {
    inner: MemoryStore,
    seen: mpsc::SyncSender<usize>,
    gate: mpsc::Receiver<()>,
    retains: u32,
}

impl Store for Scripted {
    fn apply(&mut self, batch: &[Write]) -> Result<Vec<Written>, StoreError> {
        let _ = self.gate.recv();
        let _ = self.seen.send(batch.len());
        self.inner.apply(batch)
    }

    fn load(&mut self) -> Result<Snapshot, StoreError> {
        self.inner.load()
    }

    fn retain(&mut self, _rule: &RetainRule) -> Result<Retained, StoreError> {
        self.retains += 1;
        let _ = self.seen.send(1_000 + self.retains as usize);
        Ok(Retained { removed: 1, more: self.retains < 3 })
    }
}

struct Rig {
    writer: Writer,
    done: mpsc::Receiver<Vec<Done>>,
    seen: mpsc::Receiver<usize>,
    gate: mpsc::SyncSender<()>,
}

fn rig() -> Rig {
    let (seen_in, seen) = mpsc::sync_channel(1_024);
    let (gate, gate_out) = mpsc::sync_channel(1_024);
    let (done_in, done) = mpsc::sync_channel(1_024);
    let inner = MemoryStore::new(ServerId(Hash32([1; 32])));
    let store = Scripted { inner, seen: seen_in, gate: gate_out, retains: 0 };
    let writer = Writer::spawn(store, move |group| drop(done_in.send(group))).unwrap();
    Rig { writer, done, seen, gate }
}

fn event(n: u64) -> Write {
    Write::Event(EventRow { at: Wall(n as i64), kind: "test".into(), uuid: None, detail: String::new() })
}

fn results() -> Write {
    Write::Results(Box::new(ResultsWrite {
        uuid: common::ids::Uuid::from_bytes([1; 16]),
        records: Vec::new(),
        traits: Vec::new(),
        removed_traits: Vec::new(),
        trait_base: 0,
        trait_hash: None,
        at: Wall(1),
    }))
}

#[test]
fn writes_that_wait_during_a_sync_become_one_group() {
    let rig = rig();
    rig.writer.submit(0, event(0)).unwrap();
    rig.gate.send(()).unwrap();
    assert_eq!(rig.seen.recv(), Ok(1));
    assert_eq!(rig.done.recv().unwrap(), [(0, Ok(Written::Done))]);
    // The thread now waits for the next group; what comes before the gate opens may split once, at its first look.
    for ticket in 1..=50 {
        rig.writer.submit(ticket, event(ticket)).unwrap();
    }
    for _ in 0..50 {
        let _ = rig.gate.send(());
    }
    let mut tickets = Vec::new();
    while tickets.len() < 50 {
        tickets.extend(rig.done.recv().unwrap().into_iter().map(|(ticket, _)| ticket));
    }
    assert!(tickets.iter().copied().eq(1..=50), "in order: {tickets:?}");
    let groups: Vec<usize> = rig.seen.try_iter().collect();
    assert!(groups.len() < 50, "{groups:?}");
}

#[test]
fn a_full_disk_fails_results_and_stores_the_rest() {
    /// Full until the reserve is released.
    struct Crowded(MemoryStore, bool);
    impl Store for Crowded {
        fn apply(&mut self, batch: &[Write]) -> Result<Vec<Written>, StoreError> {
            if self.1 { Err(StoreError::Full) } else { self.0.apply(batch) }
        }
        fn load(&mut self) -> Result<Snapshot, StoreError> {
            self.0.load()
        }
        fn release_reserve(&mut self) -> bool {
            std::mem::take(&mut self.1)
        }
    }
    let mut store = Crowded(MemoryStore::new(ServerId(Hash32([1; 32]))), true);
    let sightings = Write::Sightings(Vec::<Sighting>::new());
    let answers = apply_group(&mut store, &[event(1), results(), sightings, event(4)]);
    let full = || Err(StoreError::Full);
    assert_eq!(answers, [Ok(Written::Done), full(), full(), Ok(Written::Done)]);
    assert_eq!(store.0.events().len(), 2);
}

#[test]
fn one_bad_write_does_not_fail_its_group() {
    let inner = MemoryStore::new(ServerId(Hash32([1; 32])));
    struct Picky(MemoryStore);
    impl Store for Picky {
        fn apply(&mut self, batch: &[Write]) -> Result<Vec<Written>, StoreError> {
            if batch.iter().any(|write| *write == event(2)) {
                return Err(StoreError::Io("no".into()));
            }
            self.0.apply(batch)
        }
        fn load(&mut self) -> Result<Snapshot, StoreError> {
            self.0.load()
        }
    }
    let answers = apply_group(&mut Picky(inner), &[event(1), event(2), event(3)]);
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_full_queue_gives_the_write_back() {
    let rig = rig();
    let mut refused = None;
    for ticket in 0..=limits::WRITER_QUEUE_MAX as u64 + 1 + limits::WRITER_GROUP_MAX as u64 {
        if let Err(write) = rig.writer.submit(ticket, event(ticket)) {
            refused = Some((ticket, write));
            break;
        }
    }
    let (ticket, write) = refused.expect("the queue is bounded");
    assert_eq!(write, event(ticket));
    drop(rig.gate);
}

#[test]
fn stop_answers_everything_that_was_queued_and_closes_the_store() {
    let rig = rig();
    for ticket in 0..2_000 {
        rig.writer.submit(ticket, event(ticket)).unwrap();
    }
    drop(rig.gate);
    let submitter = rig.writer.submitter();
    rig.writer.stop().unwrap();
    assert_eq!(rig.done.try_iter().map(|group| group.len()).sum::<usize>(), 2_000);
    assert!(submitter.submit(1, event(1)).is_err());
}

#[test]
fn retention_goes_on_until_nothing_is_left_and_writes_go_between_its_steps() {
    let rig = rig();
    // The thread stands in a group while the rest is ordered.
    rig.writer.submit(6, event(6)).unwrap();
    while !rig.writer.shared.lock().waiting.is_empty() {
        std::thread::yield_now();
    }
    rig.writer.retain(RetainRule { bytes_max: 0, cutoff: Wall(0), step: 1 });
    rig.writer.submit(7, event(7)).unwrap();
    rig.gate.send(()).unwrap();
    rig.gate.send(()).unwrap();
    let seen: Vec<usize> = (0..5).map(|_| rig.seen.recv().unwrap()).collect();
    assert_eq!(seen, [1, 1_001, 1, 1_002, 1_003]);
}
