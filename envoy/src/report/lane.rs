//! One lane of the queue: which records exist, where the chain stands, what is acknowledged, what the disk has.
//!
//! The lane holds an index entry for every record and the bodies of the newest ones; it never waits for anything. Order of
//! entries: acknowledged ones that are kept for a server that comes back older (`n_acked` of them), then what waits.
//!
//! **Sealing.** A record that was sent must never change, or the server would see a fork. Only the newest routine record
//! ever changes (a stretch that grows), and only while it is *open*: made by this process and not yet sent. A restart
//! closes it. So no seal has to be written anywhere, and a record that was sent, then found after `kill -9`, is the one
//! that was sent. The price is one more record for each restart. (docs/adr/0070-seal-by-process.md)
//!
//! **Order of disk and wire.** A record is dirty until a commit that holds its present form is confirmed, and only
//! records that are not dirty are sent; [`super::Queue`] makes one exception, for a disk that refuses altogether.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::chain::{Lane as LaneId, link};
use common::ids::Hash32;
use common::limits;
use common::proto::wire::record::Body;
use common::proto::{Message, wire};

use super::bytes::{Reader, Writer};
use super::record::{self, record};
use crate::cache::codec::HEADER_BYTES;
use crate::cache::{QueueRecord, RecordClass, RecordIndex, StoreOp};

/// Time that acknowledgements share one mark, in milliseconds.
const MARK_MS: u64 = 3_600_000;
/// Marks that are kept: one an hour for as long as acknowledged records are, and two for the edges.
const MARKS_MAX: usize = (limits::RETAINED_MS_MAX / MARK_MS) as usize + 2;
const META_VERSION: u8 = 1;

/// What the lane knows of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Bytes in the store.
    pub bytes: u32,
    /// For dropping.
    pub class: RecordClass,
    /// It was, or may have been, sent: it must never change.
    pub sealed: bool,
    /// Link at `last`.
    pub last_link: Hash32,
    /// Only for a gap that may still swallow its neighbours: link at `first`.
    pub gap: Option<Box<Hash32>>,
}

/// The stretch that may still grow: the newest record.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) first: u64,
    pub(super) body: wire::Stretch,
}

/// One lane.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Which.
    pub(super) id: LaneId,
    /// In order of sequence, acknowledged ones first.
    pub(super) entries: VecDeque<Entry>,
    /// How many of them are acknowledged.
    pub(super) n_acked: usize,
    /// Bytes of acknowledged entries.
    pub(super) retained_bytes: u64,
    /// Bytes of the others.
    pub(super) waiting_bytes: u64,
    /// Highest acknowledged sequence.
    pub(super) acked: u64,
    /// Sequence of the next record.
    pub(super) next: u64,
    /// Link at `next - 1`.
    pub(super) head_link: Hash32,
    /// Link before the first entry.
    pub(super) base_link: Hash32,
    /// From this sequence on nothing was ever sent: records may be numbered anew when the server turns out to be ahead.
    /// `None` once this process has met a server.
    pub(super) unmet_from: Option<u64>,
    /// Watermark of the server at the last first words: up to here it may have records by other boundaries than ours.
    pub(super) met: u64,
    /// Sequences that are another history's: skipped when the server was found to be ahead. No gap, and not lost.
    pub(super) jump: Option<(u64, u64)>,
    /// The server's link at the end of `jump`: what comes behind it continues from there.
    pub(super) jump_link: Hash32,
    /// (sequence, server time) of acknowledgements, oldest first: what came up to this sequence was acknowledged by then.
    pub(super) marks: VecDeque<(u64, u64)>,
    /// Bodies by first sequence: all that the disk does not have, and some that it has.
    pub(super) hot: BTreeMap<u64, wire::Record>,
    /// Bytes of `hot`.
    pub(super) hot_bytes: u64,
    /// The stretch that may grow.
    pub(super) open: Option<Open>,
    /// The newest record that was stored: if it is dirty again, it has grown since.
    pub(super) newest_stored: Option<u64>,
    /// To be stored, by first sequence.
    pub(super) dirty: BTreeSet<u64>,
    /// To be removed from the store.
    pub(super) deleted: BTreeSet<u64>,
    /// Being stored.
    pub(super) storing: BTreeSet<u64>,
    /// Being removed.
    pub(super) deleting: BTreeSet<u64>,
    /// The meta value differs from what the store has.
    pub(super) meta_dirty: bool,
}

impl Lane {
    /// The lane as the store left it. The second value says what is missing, where something is.
    pub fn load(
        id: LaneId,
        index: &[RecordIndex],
        meta: Option<&[u8]>,
        acked: Option<u64>,
        highest: u64,
        wall_ms: i64,
    ) -> (Lane, Option<String>) {
        let mut lane = Lane::empty(id);
        lane.unmet_from = None;
        meta.and_then(|bytes| lane.read_meta(bytes));
        lane.acked = acked.unwrap_or(0);
        let mut lost = 0;
        for found in index {
            let covered = lane.entries.back().map_or(0, |back| back.last);
            if found.last <= covered {
                // Two revisions of one story, as salvage may leave them: the one that says more stays.
                lane.deleted.insert(found.first);
                continue;
            }
            if covered > 0 && found.first > covered + 1 && covered >= lane.acked {
                lost += lane.fill_hole(covered + 1, found.first - 1, found.previous_link, wall_ms);
            }
            if lane.entries.is_empty() {
                lane.base_link = found.previous_link;
            }
            lane.push_entry(Entry {
                first: found.first,
                last: found.last,
                bytes: found.bytes,
                class: found.class,
                sealed: true,
                last_link: found.last_link,
                gap: None,
            });
        }
        let newest = lane.entries.back().map_or((0, Hash32::ZERO), |back| (back.last, back.last_link));
        if newest.0 >= lane.next {
            (lane.next, lane.head_link) = (newest.0 + 1, newest.1);
        }
        let top = highest.max(lane.next - 1);
        let from = newest.0.max(lane.acked) + 1;
        if from <= top {
            let end = if lane.next == top + 1 { lane.head_link } else { Hash32::ZERO };
            lost += lane.fill_hole(from, top, end, wall_ms);
        }
        if lane.next <= top {
            lane.next = top + 1;
            lane.head_link = lane.entries.back().map_or(Hash32::ZERO, |back| back.last_link);
        }
        if lane.next <= lane.acked {
            // Nothing is left but the knowledge of what was acknowledged.
            (lane.next, lane.head_link) = (lane.acked + 1, Hash32::ZERO);
        }
        // Nothing that this process will make has been sent; nor what earlier ones made without meeting a server.
        lane.unmet_from = lane.unmet_from.or(Some(lane.next));
        lane.split_at(lane.acked);
        let note = (lost > 0).then(|| format!("{lost} runs of the {} lane are missing from the store", id.name()));
        (lane, note)
    }

    /// An empty lane that never met a server.
    pub fn empty(id: LaneId) -> Lane {
        Lane {
            id,
            entries: VecDeque::new(),
            n_acked: 0,
            retained_bytes: 0,
            waiting_bytes: 0,
            acked: 0,
            next: 1,
            head_link: Hash32::ZERO,
            base_link: Hash32::ZERO,
            unmet_from: Some(1),
            met: 0,
            jump: None,
            jump_link: Hash32::ZERO,
            marks: VecDeque::new(),
            hot: BTreeMap::new(),
            hot_bytes: 0,
            open: None,
            newest_stored: None,
            dirty: BTreeSet::new(),
            deleted: BTreeSet::new(),
            storing: BTreeSet::new(),
            deleting: BTreeSet::new(),
            meta_dirty: true,
        }
    }

    /// Appends a record that stands for one sequence.
    pub fn push(&mut self, body: Body, class: RecordClass) {
        self.open = None;
        let (sequence, previous) = (self.next, self.head_link);
        let built = record(self.id, (sequence, sequence), &previous, (&Hash32::ZERO, &Hash32::ZERO), body);
        let own = link(&previous, self.id, sequence, record::body_bytes(&built));
        let built = wire::Record { first_link: own.0.to_vec(), last_link: own.0.to_vec(), ..built };
        (self.next, self.head_link) = (sequence + 1, own);
        let entry = entry_of(&built, class);
        self.put_hot(sequence, built);
        self.push_entry(entry);
    }

    /// Takes in a run that changed nothing: the open stretch grows where it says the same, else a new one starts.
    pub fn push_quiet(&mut self, run: &wire::RunResult) {
        let bytes = run.encode_to_vec();
        let (sequence, own) = (self.next, link(&self.head_link, self.id, self.next, &bytes));
        match self.open.take().filter(|open| record::fits_stretch(&open.body, run)) {
            Some(mut open) => {
                record::grow_stretch(&mut open.body, run);
                self.grow_newest(&open, sequence, own);
                self.open = Some(open);
            }
            None => {
                let body = record::stretch_of(run);
                let encoded = Body::Stretch(body.encode_to_vec());
                let built = record(self.id, (sequence, sequence), &self.head_link, (&own, &own), encoded);
                let entry = entry_of(&built, RecordClass::NoChange);
                self.put_hot(sequence, built);
                self.push_entry(entry);
                self.open = Some(Open { first: sequence, body });
            }
        }
        (self.next, self.head_link) = (sequence + 1, own);
    }

    fn grow_newest(&mut self, open: &Open, sequence: u64, own: Hash32) {
        let (Some(record), Some(entry)) = (self.hot.get(&open.first), self.entries.back_mut()) else { return };
        let grown = wire::Record {
            last_sequence: sequence,
            last_link: own.0.to_vec(),
            body: Some(Body::Stretch(open.body.encode_to_vec())),
            ..record.clone()
        };
        self.waiting_bytes -= u64::from(entry.bytes);
        (entry.last, entry.last_link, entry.bytes) = (sequence, own, stored_bytes(&grown));
        self.waiting_bytes += u64::from(entry.bytes);
        self.put_hot(open.first, grown);
    }

    /// Acknowledges up to `sequence`, whole records only.
    pub fn ack(&mut self, sequence: u64, server_ms: u64) {
        if sequence <= self.acked {
            return;
        }
        self.acked = sequence;
        self.meta_dirty = true;
        while let Some(entry) = self.entries.get(self.n_acked).filter(|entry| entry.last <= sequence) {
            let (first, bytes) = (entry.first, u64::from(entry.bytes));
            self.n_acked += 1;
            self.retained_bytes += bytes;
            self.waiting_bytes -= bytes;
            if self.committed(first) {
                forget_hot(&mut self.hot, &mut self.hot_bytes, first);
            }
        }
        match self.marks.back_mut() {
            Some((upto, ms)) if server_ms.saturating_sub(*ms) < MARK_MS => *upto = sequence.max(*upto),
            _ => self.marks.push_back((sequence, server_ms)),
        }
        if self.marks.len() > MARKS_MAX {
            self.marks.pop_front();
        }
        if self.open.as_ref().is_some_and(|open| open.first <= sequence) {
            self.open = None;
        }
    }

    /// Sets what is acknowledged, up or down, and counts anew.
    pub(super) fn split_at(&mut self, sequence: u64) {
        self.acked = sequence;
        self.n_acked = self.entries.partition_point(|entry| entry.last <= sequence);
        let bytes = |entry: &Entry| u64::from(entry.bytes);
        self.retained_bytes = self.entries.iter().take(self.n_acked).map(bytes).sum();
        self.waiting_bytes = self.entries.iter().skip(self.n_acked).map(bytes).sum();
        self.meta_dirty = true;
    }

    /// Forgets acknowledged records, oldest first, until `keep_bytes` are left and none is older than the limit.
    pub fn prune(&mut self, keep_bytes: u64, server_ms: u64) {
        while let Some(&(upto, ms)) = self.marks.front()
            && server_ms.saturating_sub(ms) > limits::RETAINED_MS_MAX
        {
            while self.n_acked > 0 && self.entries.front().is_some_and(|entry| entry.last <= upto) {
                self.forget_oldest();
            }
            self.marks.pop_front();
            self.meta_dirty = true;
        }
        while self.n_acked > 0 && self.retained_bytes > keep_bytes {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.n_acked -= 1;
        self.retained_bytes -= u64::from(entry.bytes);
        self.base_link = entry.last_link;
        self.meta_dirty = true;
        self.unstore(entry.first);
    }

    /// Removes a record from memory and from the store.
    pub(super) fn unstore(&mut self, first: u64) {
        forget_hot(&mut self.hot, &mut self.hot_bytes, first);
        self.dirty.remove(&first);
        self.deleted.insert(first);
    }

    /// Whether the store has this record in its present form.
    pub fn committed(&self, first: u64) -> bool {
        !self.dirty.contains(&first) && !self.storing.contains(&first)
    }

    /// The entries that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().skip(self.n_acked)
    }

    /// Whether a server may have this record; what it certainly does not have may be numbered anew.
    pub(super) fn may_have_been_sent(&self, entry: &Entry) -> bool {
        entry.sealed && self.unmet_from.is_none_or(|from| entry.first < from)
    }

    /// The disk has nothing that waits, in this form or an older one: a crash forgets all of it together.
    pub(super) fn only_in_memory(&self) -> bool {
        !self.has_ghosts() && self.waiting().all(|entry| !self.committed(entry.first))
    }

    /// The disk still has records that were replaced since: a crash would bring them back.
    pub(super) fn has_ghosts(&self) -> bool {
        let waiting = self.acked + 1..;
        self.deleted.range(waiting.clone()).chain(self.deleting.range(waiting)).next().is_some()
    }

    /// Whether a record that the disk does not have may be sent: not one that the disk has in an older form, which a crash
    /// would bring back.
    pub(super) fn may_go_from_memory(&self, first: u64) -> bool {
        self.newest_stored != Some(first) && !self.has_ghosts()
    }

    /// The entries that wait, newest first.
    pub(super) fn waiting_rev(&self) -> impl Iterator<Item = &Entry> {
        let n = self.entries.len() - self.n_acked;
        self.entries.iter().rev().take(n)
    }

    /// Link before the entry at `position`, whose first sequence is `first`.
    pub(super) fn link_before(&self, position: usize, first: u64) -> Hash32 {
        if self.jump.is_some_and(|(_, to)| first == to + 1) {
            return self.jump_link;
        }
        position.checked_sub(1).and_then(|before| self.entries.get(before)).map_or(self.base_link, |e| e.last_link)
    }

    pub(super) fn put_hot(&mut self, first: u64, built: wire::Record) {
        self.hot_bytes += u64::from(stored_bytes(&built));
        if let Some(old) = self.hot.insert(first, built) {
            self.hot_bytes -= u64::from(stored_bytes(&old));
        }
        self.deleted.remove(&first);
        self.dirty.insert(first);
        self.meta_dirty = true;
    }

    pub(super) fn push_entry(&mut self, entry: Entry) {
        self.waiting_bytes += u64::from(entry.bytes);
        self.entries.push_back(entry);
    }

    /// Puts a gap over sequences that should be there and are not; returns how many. `end` is the link at `last` if known.
    fn fill_hole(&mut self, first: u64, last: u64, end: Hash32, wall_ms: i64) -> u64 {
        if self.jump == Some((first, last)) {
            return 0;
        }
        let previous = self.entries.back().map_or(self.base_link, |back| back.last_link);
        let detail = "the state store was damaged";
        let built =
            gap_record(self.id, (first, last), &previous, (&end, &end), wire::gap::Reason::Corrupt, detail, wall_ms);
        self.push_entry(entry_of(&built, RecordClass::Gap));
        self.put_hot(first, built);
        last - first + 1
    }

    /// Moves what must be stored into a batch; [`Lane::stored`] says what became of it.
    pub fn take_ops(&mut self, ops: &mut Vec<StoreOp>) {
        if !self.deleted.is_empty() {
            self.deleting = std::mem::take(&mut self.deleted);
            ops.push(StoreOp::DeleteRecords { lane: self.id, firsts: self.deleting.iter().copied().collect() });
        }
        self.storing = std::mem::take(&mut self.dirty);
        for first in &self.storing {
            if let Some(record) = self.hot.get(first) {
                let stored = QueueRecord { record: record.clone(), sealed: false, acked_at_ms: 0 };
                ops.push(StoreOp::PutRecord(stored));
            }
        }
        if self.meta_dirty {
            self.meta_dirty = false;
            ops.push(StoreOp::SetMeta(
                crate::cache::META_ACKED[self.id.index()].into(),
                self.acked.to_be_bytes().into(),
            ));
            ops.push(StoreOp::SetMeta(meta_name(self.id).into(), self.meta()));
        }
    }

    /// What became of the batch that [`Lane::take_ops`] went into. `hot_bytes_max`: bodies beyond it are left to the disk.
    pub fn stored(&mut self, ok: bool, hot_bytes_max: u64) {
        let (storing, deleting) = (std::mem::take(&mut self.storing), std::mem::take(&mut self.deleting));
        if !ok {
            let alive = |first: &u64| self.hot.contains_key(first);
            self.dirty.extend(storing.into_iter().filter(alive));
            self.deleted.extend(deleting.into_iter().filter(|first| !self.dirty.contains(first)));
            self.meta_dirty = true;
            return;
        }
        self.newest_stored = storing.last().copied().max(self.newest_stored);
        let open = self.open.as_ref().map(|open| open.first);
        while self.hot_bytes > hot_bytes_max {
            let cold = self.hot.keys().copied().find(|first| !self.dirty.contains(first) && Some(*first) != open);
            let Some(first) = cold else { break };
            forget_hot(&mut self.hot, &mut self.hot_bytes, first);
        }
    }

    fn meta(&self) -> Vec<u8> {
        let (from, to) = self.jump.unwrap_or((0, 0));
        let writer = Writer::new(META_VERSION).u64(self.next).hash(&self.head_link).hash(&self.base_link);
        let writer = writer.u64(self.unmet_from.unwrap_or(0)).u64(from).u64(to).hash(&self.jump_link);
        self.marks.iter().fold(writer, |writer, (upto, ms)| writer.u64(*upto).u64(*ms)).finish()
    }

    fn read_meta(&mut self, bytes: &[u8]) -> Option<()> {
        let mut reader = Reader::open(bytes, META_VERSION)?;
        let (next, head, base) = (reader.u64()?.max(1), reader.hash()?, reader.hash()?);
        let (unmet, from, to, jump_link) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.hash()?);
        (self.next, self.head_link, self.base_link, self.jump_link) = (next, head, base, jump_link);
        (self.unmet_from, self.jump) = ((unmet > 0).then_some(unmet), (from > 0).then_some((from, to)));
        while self.marks.len() < MARKS_MAX && !reader.is_empty() {
            self.marks.push_back((reader.u64()?, reader.u64()?));
        }
        Some(())
    }
}

/// Name of the meta value with the standing of a lane.
pub fn meta_name(lane: LaneId) -> &'static str {
    match lane {
        LaneId::Urgent => "queue.urgent",
        LaneId::Routine => "queue.routine",
    }
}

/// Bytes that a record takes in the store.
pub(super) fn stored_bytes(record: &wire::Record) -> u32 {
    (HEADER_BYTES + record.encoded_len()) as u32
}

/// The entry of a record made here.
pub(super) fn entry_of(record: &wire::Record, class: RecordClass) -> Entry {
    Entry {
        first: record.first_sequence,
        last: record.last_sequence,
        bytes: stored_bytes(record),
        class,
        sealed: false,
        last_link: Hash32::try_from_slice(&record.last_link).unwrap_or(Hash32::ZERO),
        gap: None,
    }
}

/// A gap over `span`.
pub(super) fn gap_record(
    lane: LaneId,
    span: (u64, u64),
    previous: &Hash32,
    links: (&Hash32, &Hash32),
    reason: wire::gap::Reason,
    detail: &str,
    wall_ms: i64,
) -> wire::Record {
    let gap = wire::Gap { reason: reason as i32, count: span.1 - span.0 + 1, detail: detail.into(), wall_ms };
    let bytes = gap.encode_to_vec();
    // Where the links are unknown, the gap is a link of its own: the chain goes on from it.
    let own = link(previous, lane, span.1, &bytes);
    let or_own = |known: &Hash32| if *known == Hash32::ZERO { own } else { *known };
    record(lane, span, previous, (&or_own(links.0), &or_own(links.1)), Body::Gap(bytes))
}

pub(super) fn forget_hot(hot: &mut BTreeMap<u64, wire::Record>, hot_bytes: &mut u64, first: u64) {
    if let Some(old) = hot.remove(&first) {
        *hot_bytes -= u64::from(stored_bytes(&old));
    }
}
