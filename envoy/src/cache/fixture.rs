//! Records and slots for the tests of this folder, with links that hold.

use common::chain::{Lane, link};
use common::ids::Hash32;
use common::proto::{Message, wire};

use super::ops::{QueueRecord, StoreOp};

/// One run with `failed` failures (0: a run that changed something on the urgent lane, nothing on the routine one).
pub fn run(lane: Lane, sequence: u64, failed: u32, previous: &[u8; 32]) -> QueueRecord {
    run_of_size(lane, sequence, failed, previous, 0)
}

/// The same, with a message of so many bytes.
pub fn run_of_size(lane: Lane, sequence: u64, failed: u32, previous: &[u8; 32], bytes: usize) -> QueueRecord {
    let changed = u32::from(failed == 0 && lane == Lane::Urgent);
    let body = wire::RunResult {
        run_id: vec![sequence as u8; 16],
        counts: Some(wire::RunCounts { ok: 5, changed, failed, ..Default::default() }),
        duration_ms: sequence,
        error: "e".repeat(if failed > 0 { bytes } else { 0 }),
        boot_id: "b".repeat(if failed > 0 { 0 } else { bytes }),
        ..Default::default()
    }
    .encode_to_vec();
    let at = link(&Hash32(*previous), lane, sequence, &body).0.to_vec();
    record(lane, (sequence, sequence), [previous.to_vec(), at.clone(), at], wire::record::Body::Run(body))
}

/// A stretch of runs that changed nothing.
pub fn stretch(first: u64, last: u64) -> QueueRecord {
    let body = wire::Stretch { count: last - first + 1, last_wall_ms: last as i64 * 300_000, ..Default::default() };
    let links = [vec![1; 32], vec![2; 32], vec![3; 32]];
    record(Lane::Routine, (first, last), links, wire::record::Body::Stretch(body.encode_to_vec()))
}

/// A gap.
pub fn gap(lane: Lane, first: u64, last: u64) -> QueueRecord {
    let body = wire::Gap { reason: 1, count: last - first + 1, ..Default::default() };
    record(lane, (first, last), [vec![0; 32], vec![1; 32], vec![2; 32]], wire::record::Body::Gap(body.encode_to_vec()))
}

/// A chain of runs, each linked to the one before it.
pub fn chain(lane: Lane, count: u64, bytes: usize) -> Vec<QueueRecord> {
    let mut previous = [0; 32];
    (1..=count)
        .map(|sequence| {
            let record = run_of_size(lane, sequence, u32::from(sequence % 3 == 0), &previous, bytes);
            previous.copy_from_slice(&record.record.last_link);
            record
        })
        .collect()
}

/// A signed object with recognisable bytes; nothing here verifies signatures.
pub fn signed(fill: u8, bytes: usize) -> wire::Signed {
    wire::Signed { payload: vec![fill; bytes].into(), signature: vec![fill; 64], sealed: Vec::new() }
}

/// A new assignment with a new bundle.
pub fn slot(fill: u8, bundle_bytes: usize) -> StoreOp {
    StoreOp::PutSlot { assignment: signed(fill, 100), bundle: Some(signed(fill, bundle_bytes)) }
}

fn record(lane: Lane, (first, last): (u64, u64), links: [Vec<u8>; 3], body: wire::record::Body) -> QueueRecord {
    let [previous_link, first_link, last_link] = links;
    let record = wire::Record {
        lane: lane as i32,
        first_sequence: first,
        last_sequence: last,
        previous_link,
        first_link,
        last_link,
        body: Some(body),
    };
    QueueRecord { record, sealed: false, acked_at_ms: 0 }
}
