//! The queue of two lanes: takes in runs and incidents, cuts the next batch, takes acknowledgements, stays within its bound.
//!
//! **Exactly once.** A run becomes one record with one sequence and link, in one transaction with everything that depends
//! on it. What is sent is what is stored; a batch whose answer got lost is sent again, the same to the byte, and the server
//! recognises it by (lane, first sequence, last link). `kill -9` before the commit loses the run (it never finished);
//! after it, the record is found at start. An acknowledgement that was not yet stored costs one repetition.
//!
//! **Or said aloud.** What must be dropped (bound), is missing (damage) or was forgotten by a restored server and pruned
//! here becomes a gap record over exactly those sequences, which is delivered like any other record.

use common::chain::Lane as LaneId;
use common::ids::Hash32;
use common::limits;
use common::proto::wire::gap::Reason;
use common::proto::wire::record::Body;
use common::proto::{Message, wire};
use common::time::Now;

use super::bytes::{Reader, Writer};
use super::lane::{Lane, meta_name};
use crate::agent::status::{LaneDocument, QueueDocument, SCHEMA};
use crate::cache::{Loaded, META_ACKED, QueueRecord, RecordClass, StoreOp};

/// Bodies that stay in memory though the disk has them, in bytes a lane.
pub const HOT_BYTES_MAX: u64 = 128 << 10;
/// Waiting records in memory while the disk refuses, in bytes.
pub const MEMORY_QUEUE_BYTES_MAX: u64 = 4 << 20;
/// Bytes that a report keeps free for traits and framing.
const REPORT_HEAD_BYTES: usize = 64 << 10;
/// Bytes of a record beyond its encoding, inside a report: tag and length.
const RECORD_FRAME_BYTES: usize = 6;

/// What to send next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Nothing that may be sent now.
    Nothing,
    /// These bodies first: read them from the store.
    Read {
        /// Lane.
        lane: LaneId,
        /// From this first sequence on.
        first: u64,
    },
    /// This batch. It is in flight until [`Queue::on_answer`] or [`Queue::on_lost`].
    Send(Vec<wire::Record>),
}

/// Both lanes.
#[derive(Clone, Debug)]
pub struct Queue {
    /// By [`LaneId::index`].
    pub(super) lanes: [Lane; 2],
    /// Records of the batch in flight, by lane: the first so many that wait.
    pub(super) in_flight: [usize; 2],
    /// So many records at the front hold one that a server refuses; 0: none is known to. See `refuse`.
    pub(super) suspects: usize,
    /// Epoch of the server when it last acknowledged.
    acked_epoch: u64,
    /// The meta value with the epoch differs from the store's.
    epoch_dirty: bool,
    /// A commit is under way.
    storing: bool,
    /// What the next batch depends on beside its records must be committed first: a first contact, a new numbering.
    pub(super) settle: bool,
    /// The same, in the commit under way.
    settling: bool,
}

impl Queue {
    /// The queue as the store left it, and what is missing from it.
    pub fn load(loaded: &Loaded, now: Now) -> (Queue, Vec<String>) {
        let mut notes = Vec::new();
        let lanes = LaneId::ALL.map(|id| {
            let acked = loaded.meta.get(META_ACKED[id.index()]);
            let acked = acked.and_then(|bytes| bytes[..].try_into().ok()).map(u64::from_be_bytes);
            let meta = loaded.meta.get(meta_name(id)).map(|bytes| &bytes[..]);
            let index = &loaded.lanes[id.index()];
            let (lane, note) = Lane::load(id, index, meta, acked, loaded.highest[id.index()], now.wall.0);
            notes.extend(note);
            lane
        });
        let epoch = loaded.meta.get(EPOCH_META).and_then(|bytes| Reader::open(bytes, 1)?.u64()).unwrap_or(0);
        let queue = Queue {
            lanes,
            in_flight: [0; 2],
            suspects: 0,
            acked_epoch: epoch,
            epoch_dirty: false,
            storing: false,
            settle: false,
            settling: false,
        };
        (queue, notes)
    }

    /// Takes in a run. Urgent when it changed, failed or blocked anything or could not start; else it may collapse.
    pub fn push_run(&mut self, run: &wire::RunResult) -> LaneId {
        let counts = common::proto::counts_from_wire(run.counts.as_ref());
        if counts.urgent() || !run.error.is_empty() {
            let bad = counts.failed > 0 || counts.blocked > 0 || !run.error.is_empty();
            let class = if bad { RecordClass::Failure } else { RecordClass::Change };
            self.lanes[LaneId::Urgent.index()].push(Body::Run(run.encode_to_vec()), class);
            LaneId::Urgent
        } else {
            self.lanes[LaneId::Routine.index()].push_quiet(run);
            LaneId::Routine
        }
    }

    /// Takes in something that happened to the agent itself.
    pub fn push_incident(&mut self, incident: &wire::Incident) {
        let body = Body::Incident(incident.encode_to_vec());
        self.lanes[LaneId::Urgent.index()].push(body, RecordClass::Failure);
    }

    /// Cuts the next batch: urgent records first, then, if `routine`, the others, up to `bytes_max`. Only what is committed
    /// goes out, unless the disk refuses altogether (`from_memory`).
    pub fn next(&mut self, routine: bool, from_memory: bool, bytes_max: usize) -> Next {
        // What a crash must not undo is committed first. On a disk that refuses that cannot be; then only what a crash
        // forgets altogether may go, or it would be found again, and numbered anew, after it was delivered.
        let in_doubt = self.settle || self.settling;
        let settled = !in_doubt || from_memory && self.lanes.iter().all(Lane::only_in_memory);
        if !settled || self.in_flight != [0; 2] {
            return Next::Nothing;
        }
        let mut room = bytes_max.min(limits::REPORT_BYTES_MAX) - REPORT_HEAD_BYTES;
        let records_max = self.records_max();
        let mut batch = Vec::new();
        let mut taken = [0; 2];
        for id in LaneId::ALL {
            if id == LaneId::Routine && !routine {
                continue;
            }
            let lane = &self.lanes[id.index()];
            for entry in lane.waiting() {
                let ready = lane.committed(entry.first) || from_memory && lane.may_go_from_memory(entry.first);
                if batch.len() >= records_max || !ready {
                    break;
                }
                let Some(record) = lane.hot.get(&entry.first) else {
                    if batch.is_empty() {
                        return Next::Read { lane: id, first: entry.first };
                    }
                    break;
                };
                let bytes = record.encoded_len() + RECORD_FRAME_BYTES;
                if bytes > room {
                    break;
                }
                room -= bytes;
                batch.push(record.clone());
                taken[id.index()] += 1;
            }
            let urgent_left = id == LaneId::Urgent && lane.waiting().nth(taken[id.index()]).is_some();
            if urgent_left && !batch.is_empty() {
                break;
            }
        }
        if batch.is_empty() {
            return Next::Nothing;
        }
        self.in_flight = taken;
        for (lane, n) in self.lanes.iter_mut().zip(taken) {
            let n_acked = lane.n_acked;
            lane.entries.iter_mut().skip(n_acked).take(n).for_each(|entry| {
                entry.sealed = true;
                entry.gap = None;
            });
            if lane
                .open
                .as_ref()
                .is_some_and(|open| lane.entries.iter().skip(n_acked).take(n).any(|entry| entry.first == open.first))
            {
                lane.open = None;
            }
        }
        Next::Send(batch)
    }

    /// Bodies that [`Next::Read`] asked for. A record that the store does not have any more becomes a gap.
    pub fn on_read(&mut self, id: LaneId, first: u64, records: Vec<QueueRecord>, now: Now) {
        let lane = &mut self.lanes[id.index()];
        for QueueRecord { record, .. } in records {
            let known = lane.entries.binary_search_by_key(&record.first_sequence, |entry| entry.first);
            let fits = known.is_ok_and(|at| {
                let entry = &lane.entries[at];
                entry.last == record.last_sequence && entry.last_link.0[..] == record.last_link[..]
            });
            if fits && !lane.hot.contains_key(&record.first_sequence) {
                let first = record.first_sequence;
                lane.hot_bytes += u64::from(super::lane::stored_bytes(&record));
                lane.hot.insert(first, record);
            }
        }
        if !lane.hot.contains_key(&first) {
            let detail = "the record cannot be read any more";
            self.replace_by_gap(id, first, Reason::Corrupt, detail, now.wall.0);
        }
    }

    /// The batch in flight was answered: what is up to the watermarks is acknowledged. Whether anything was.
    pub fn on_answer(&mut self, watermarks: [u64; 2], epoch: u64, server_ms: u64) -> bool {
        let (mut progress, before) = (false, self.waiting());
        for (lane, n) in self.lanes.iter_mut().zip(std::mem::take(&mut self.in_flight)) {
            let watermark = watermarks[lane.id.index()];
            let sent = lane.entries.iter().skip(lane.n_acked).take(n);
            if let Some(last) = sent.map(|entry| entry.last).take_while(|last| *last <= watermark).max() {
                lane.ack(last, server_ms);
                lane.prune(limits::RETAINED_BYTES_MAX, server_ms);
                progress = true;
            }
        }
        let after = self.waiting();
        self.suspects = self.suspects.saturating_sub(before[0] + before[1] - after[0] - after[1]);
        self.epoch_dirty |= self.acked_epoch != epoch;
        self.acked_epoch = epoch;
        progress
    }

    /// The batch in flight got no answer: it will be sent again, the same.
    pub fn on_lost(&mut self) {
        self.in_flight = [0; 2];
    }

    /// Whether a commit is wanted for the queue's own sake. (Acknowledgements alone can wait for the next one.)
    pub fn wants_store(&self) -> bool {
        self.settle || self.lanes.iter().any(|lane| !lane.dirty.is_empty())
    }

    /// Moves everything that differs from the store into a batch. [`Queue::on_stored`] must follow before the next call.
    pub fn take_ops(&mut self, ops: &mut Vec<StoreOp>) {
        self.storing = true;
        self.settling = std::mem::take(&mut self.settle);
        self.lanes.iter_mut().for_each(|lane| lane.take_ops(ops));
        if std::mem::take(&mut self.epoch_dirty) {
            ops.push(StoreOp::SetMeta(EPOCH_META.into(), Writer::new(1).u64(self.acked_epoch).finish()));
        }
    }

    /// What became of that batch.
    pub fn on_stored(&mut self, ok: bool) {
        if !std::mem::take(&mut self.storing) {
            return;
        }
        self.settle |= std::mem::take(&mut self.settling) && !ok;
        self.epoch_dirty |= !ok;
        for lane in &mut self.lanes {
            lane.stored(ok, HOT_BYTES_MAX);
        }
    }

    /// Records that wait, by lane.
    pub fn waiting(&self) -> [usize; 2] {
        [0, 1].map(|lane| self.lanes[lane].entries.len() - self.lanes[lane].n_acked)
    }

    /// Bytes of everything that waits.
    pub fn waiting_bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.waiting_bytes).sum()
    }

    /// Highest acknowledged sequences, by lane.
    pub fn acked(&self) -> [u64; 2] {
        [0, 1].map(|lane| self.lanes[lane].acked)
    }

    /// Epoch of the server when it last acknowledged.
    pub fn acked_epoch(&self) -> u64 {
        self.acked_epoch
    }

    /// Links of the newest records, by lane.
    pub fn tails(&self) -> [Hash32; 2] {
        [0, 1].map(|lane| self.lanes[lane].head_link)
    }

    /// For `status` and `queue`.
    pub fn document(&self, bytes_max: u64) -> QueueDocument {
        let lane = |lane: &Lane| LaneDocument {
            lane: lane.id.name().into(),
            records: lane.entries.len() - lane.n_acked,
            runs: lane.waiting().map(|entry| entry.last - entry.first + 1).sum(),
            bytes: lane.waiting_bytes,
            acknowledged: lane.acked,
            newest: lane.next - 1,
            retained: lane.n_acked,
            lost: lane.waiting().filter(|e| e.class == RecordClass::Gap).map(|e| e.last - e.first + 1).sum(),
        };
        QueueDocument {
            schema: SCHEMA,
            lanes: self.lanes.iter().map(lane).collect(),
            bytes: self.waiting_bytes(),
            bytes_max,
        }
    }
}

/// Name of the meta value with the epoch of the last acknowledgement.
const EPOCH_META: &str = "queue.epoch";
