//! First words with a server about the queue: its watermarks against ours, before anything is sent.
//!
//! Four cases a lane, with `W` the server's watermark, `A` what we know as acknowledged, `T` our newest sequence:
//!
//! - `W == A`: nothing to do.
//! - `A < W <= T`: an acknowledgement got lost. When the server's link at `W` is ours, everything up to `W` is there; when it
//!   is not, what waits is sent again: the server keeps the same once, and shows another history as a fork. (Unless:)
//! - `W < A`: the server was restored. What is retained is sent again; what is not becomes a gap `lost-in-restore`.
//! - `W >= U`, the first sequence that was certainly never sent (`T + 1` where there is none): the server has what we never
//!   gave it, so our store was lost or set back. What was certainly never sent is numbered anew behind `W`; what may have
//!   been sent before goes out as it is (the same is kept once; another history shows as a fork). New records follow `W`.
//!
//! A record is certainly unsent when this process made it and has not sent it, or when processes before it made it since the
//! last one that met a server (`unmet_from`, stored along with the records). The first contact of a process ends the latter,
//! in a commit of its own before the first record is sent: one more sync in the life of a process, none in that of a record. (docs/adr/0071-renumber-only-what-was-never-sent.md)

use common::chain::{Lane as LaneId, link};
use common::ids::Hash32;
use common::proto::wire::gap::Reason;
use common::proto::wire::record::Body;
use common::proto::{Message, wire};

use super::lane::{Entry, Lane, entry_of, gap_record};
use super::queue::Queue;
use super::record::{self, record};
use crate::cache::RecordClass;

/// Where a server says that the lanes stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Highest contiguous stored sequence, by [`LaneId::index`].
    pub watermarks: [u64; 2],
    /// Link there; zero where the lane is empty or the server does not say.
    pub links: [Hash32; 2],
}

impl Queue {
    /// The first sequence of each lane whose bodies [`Queue::reconcile`] needs and that are not in memory: read them first.
    pub fn bodies_for(&self, standing: &Standing) -> Option<(LaneId, u64)> {
        self.lanes.iter().find_map(|lane| {
            let from = lane.unsent_from();
            let (watermark, link) = (standing.watermarks[lane.id.index()], standing.links[lane.id.index()]);
            if watermark <= lane.acked || lane.has_link(watermark, &link) {
                return None;
            }
            let anew = |entry: &Entry| watermark >= from && entry.first >= from;
            let clipped = |entry: &Entry| (entry.first..entry.last).contains(&watermark) && is_gap(entry);
            let cold = |entry: &&Entry| (anew(entry) || clipped(entry)) && !lane.hot.contains_key(&entry.first);
            lane.waiting().find(cold).map(|entry| (lane.id, entry.first))
        })
    }

    /// Brings both lanes in line with a server. Says what is worth a line in the log.
    pub fn reconcile(&mut self, standing: &Standing, server_ms: u64, wall_ms: i64) -> Vec<String> {
        self.on_lost();
        let mut notes = Vec::new();
        for lane in &mut self.lanes {
            let index = lane.id.index();
            let (watermark, server_link) = (standing.watermarks[index], standing.links[index]);
            notes.extend(lane.reconcile(watermark, server_link, server_ms, wall_ms));
            if lane.unmet_from.take().is_some() {
                lane.meta_dirty = true;
                self.settle = true;
            }
        }
        self.settle |= !notes.is_empty();
        notes
    }

    /// A record that cannot be delivered: its place in the chain stays, as a gap.
    pub(super) fn replace_by_gap(&mut self, id: LaneId, first: u64, reason: Reason, detail: &str, wall_ms: i64) {
        let lane = &mut self.lanes[id.index()];
        let Ok(at) = lane.entries.binary_search_by_key(&first, |entry| entry.first) else { return };
        let (previous, old) = (lane.link_before(at, first), lane.entries[at].clone());
        let span = (old.first, old.last);
        let built = gap_record(id, span, &previous, (&old.last_link, &old.last_link), reason, detail, wall_ms);
        lane.waiting_bytes -= u64::from(old.bytes);
        // What was sent before it became a gap stays what it is in one respect: a server may have it.
        let entry = Entry { sealed: old.sealed, ..entry_of(&built, RecordClass::Gap) };
        lane.waiting_bytes += u64::from(entry.bytes);
        lane.entries[at] = entry;
        lane.put_hot(first, built);
        if lane.open.as_ref().is_some_and(|open| open.first == first) {
            lane.open = None;
        }
    }
}

impl Lane {
    fn reconcile(&mut self, watermark: u64, server_link: Hash32, server_ms: u64, wall_ms: i64) -> Option<String> {
        let name = self.id.name();
        if watermark > self.acked && watermark < self.next && self.has_link(watermark, &server_link) {
            self.ack(watermark, server_ms);
        }
        self.met = watermark;
        if watermark > self.acked {
            self.clip_gaps(watermark, &server_link);
            if watermark >= self.unsent_from() {
                return self.follow(watermark, server_link);
            }
            if self.waiting().next().is_some_and(|entry| entry.first > watermark) {
                self.ack(watermark, server_ms);
            }
        }
        if watermark < self.acked {
            let acknowledged = self.acked;
            self.split_at(watermark);
            self.clip_gaps(watermark, &server_link);
            self.marks.retain(|(upto, _)| *upto <= watermark);
            let lost = self.bridge(watermark, server_link, Reason::LostInRestore, wall_ms) + self.fill_jump(wall_ms);
            let again = self.waiting().map(|e| e.last - e.first + 1).sum::<u64>() - lost;
            return Some(format!(
                "the server has the {name} lane up to {watermark} and once acknowledged {acknowledged}: it was restored; \
                 {again} runs are delivered again, {lost} are lost in the restore"
            ));
        }
        let jumped = self.jump.is_some_and(|(_, to)| watermark < to);
        let reason = if jumped { Reason::LostInRestore } else { Reason::Corrupt };
        let lost = self.bridge(watermark.max(self.acked), server_link, reason, wall_ms);
        (lost > 0).then(|| format!("{lost} runs of the {name} lane are missing from the store; the server is told"))
    }

    /// Whether our own chain has this link there: then the server has our history up to it.
    fn has_link(&self, sequence: u64, server_link: &Hash32) -> bool {
        let at = self.entries.binary_search_by_key(&sequence, |entry| entry.last).ok();
        at.is_some_and(|at| self.entries[at].last_link == *server_link)
    }

    /// A gap says that runs are lost. Those that the server has are not: only the rest is still told, as a gap that follows
    /// what the server has. Boundaries of gaps move when they are joined, so the server would not know it again otherwise.
    fn clip_gaps(&mut self, watermark: u64, server_link: &Hash32) {
        let unsent = self.unsent_from();
        let mut at = self.n_acked;
        while let Some(entry) = self.entries.get(at).filter(|entry| entry.first <= watermark && entry.first < unsent) {
            if !is_gap(entry) {
                at += 1;
                continue;
            }
            let Some(old) = self.entries.remove(at) else { return };
            let told = self.hot.get(&old.first).and_then(gap_of).unwrap_or_default();
            self.waiting_bytes -= u64::from(old.bytes);
            self.unstore(old.first);
            if old.last > watermark {
                let span = (watermark + 1, old.last);
                let previous = if *server_link == Hash32::ZERO { self.link_before(at, span.0) } else { *server_link };
                let first_link = if span.0 == span.1 { old.last_link } else { Hash32::ZERO };
                let reason = Reason::try_from(told.reason).unwrap_or(Reason::Corrupt);
                let links = (&first_link, &old.last_link);
                let built = gap_record(self.id, span, &previous, links, reason, &told.detail, told.wall_ms);
                let entry = Entry { sealed: old.sealed, ..entry_of(&built, RecordClass::Gap) };
                self.waiting_bytes += u64::from(entry.bytes);
                self.entries.insert(at, entry);
                self.put_hot(span.0, built);
            }
            self.meta_dirty = true;
        }
    }

    /// First sequence of what was certainly never sent: the newest records, up to the first that may have been.
    fn unsent_from(&self) -> u64 {
        let unsealed =
            self.waiting_rev().take_while(|entry| !entry.sealed).last().map_or(self.next, |entry| entry.first);
        self.unmet_from.map_or(unsealed, |from| from.min(unsealed))
    }

    /// Fills what is missing between a watermark and the first record that waits; how many runs that is.
    fn bridge(&mut self, watermark: u64, server_link: Hash32, reason: Reason, wall_ms: i64) -> u64 {
        let first_waiting = self.entries.get(self.n_acked).map_or(self.next, |entry| entry.first);
        if first_waiting <= watermark + 1 {
            return 0;
        }
        let span = (watermark + 1, first_waiting - 1);
        // The retained record before the hole, if any, is acknowledged: the links are the server's and our own base.
        let end = if self.n_acked == 0 { self.base_link } else { Hash32::ZERO };
        let end = if self.entries.is_empty() { self.head_link } else { end };
        let detail =
            if reason == Reason::LostInRestore { "no longer kept here" } else { "missing from the state store" };
        let built = gap_record(self.id, span, &server_link, (&end, &end), reason, detail, wall_ms);
        let entry = entry_of(&built, RecordClass::Gap);
        self.waiting_bytes += u64::from(entry.bytes);
        self.entries.insert(self.n_acked, entry);
        self.put_hot(span.0, built);
        span.1 - span.0 + 1
    }

    /// Sequences that only the server had, between records that it wants again: it has lost them, and so have we.
    fn fill_jump(&mut self, wall_ms: i64) -> u64 {
        let Some((from, to)) = self.jump else { return 0 };
        let at = self.entries.partition_point(|entry| entry.first <= to);
        let before = at.checked_sub(1).and_then(|before| self.entries.get(before));
        let first = before.map_or(from, |entry| entry.last + 1);
        // At the very front the bridge has covered it; without a record behind it the next one will show the hole.
        if at <= self.n_acked || first > to || at == self.entries.len() {
            return 0;
        }
        let previous = self.link_before(at, first);
        let (end, detail) = (self.jump_link, "sent from memory and forgotten by this host");
        let built = gap_record(self.id, (first, to), &previous, (&end, &end), Reason::LostInRestore, detail, wall_ms);
        let entry = entry_of(&built, RecordClass::Gap);
        self.waiting_bytes += u64::from(entry.bytes);
        self.entries.insert(at, entry);
        self.put_hot(first, built);
        to - first + 1
    }

    /// The server is ahead: go on behind it.
    fn follow(&mut self, watermark: u64, server_link: Hash32) -> Option<String> {
        let (name, top) = (self.id.name(), self.next - 1);
        let unsent = self.unsent_from();
        let at = self.entries.partition_point(|entry| entry.first < unsent).max(self.n_acked);
        let old: Vec<Entry> = self.entries.drain(at..).collect();
        self.waiting_bytes -= old.iter().map(|entry| u64::from(entry.bytes)).sum::<u64>();
        self.open = None;
        self.jump = Some((self.entries.back().map_or(self.acked, |back| back.last) + 1, watermark));
        (self.next, self.head_link, self.jump_link) = (watermark + 1, server_link, server_link);
        if self.entries.len() == self.n_acked {
            self.acked = watermark;
        }
        self.meta_dirty = true;
        let moved: u64 = old.iter().map(|entry| entry.last - entry.first + 1).sum();
        let bodies: Vec<(Entry, Option<wire::Record>)> =
            old.into_iter().map(|entry| (entry.clone(), self.hot.get(&entry.first).cloned())).collect();
        bodies.iter().for_each(|(entry, _)| self.unstore(entry.first));
        bodies.into_iter().for_each(|(entry, body)| self.renumber(&entry, body));
        Some(format!(
            "the server has the {name} lane up to {watermark}, this store up to {top}: going on behind the server, \
             {moved} runs numbered anew"
        ))
    }

    /// Appends an old record under the next sequences. The links inside a stretch are over runs whose bodies are gone: they
    /// are made anew over its own body.
    fn renumber(&mut self, old: &Entry, body: Option<wire::Record>) {
        let (count, previous) = (old.last - old.first + 1, self.head_link);
        let span = (self.next, self.next + count - 1);
        let built = match body.and_then(|record| record.body) {
            Some(body) => {
                let bytes =
                    record::body_bytes(&wire::Record { body: Some(body.clone()), ..Default::default() }).to_vec();
                let first = link(&previous, self.id, span.0, &bytes);
                let last = if count == 1 { first } else { link(&first, self.id, span.1, &bytes) };
                let class = old.class;
                (record(self.id, span, &previous, (&first, &last), body), class)
            }
            None => {
                let zero = (&Hash32::ZERO, &Hash32::ZERO);
                let detail = "could not be numbered anew after the store was lost";
                (gap_record(self.id, span, &previous, zero, Reason::Corrupt, detail, 0), RecordClass::Gap)
            }
        };
        let (built, class) = built;
        let entry = entry_of(&built, class);
        (self.next, self.head_link) = (span.1 + 1, entry.last_link);
        self.push_entry(entry);
        self.put_hot(span.0, built);
    }
}

fn is_gap(entry: &Entry) -> bool {
    entry.class == RecordClass::Gap
}

fn gap_of(record: &wire::Record) -> Option<wire::Gap> {
    match record.body.as_ref()? {
        Body::Gap(bytes) => wire::Gap::decode(&bytes[..]).ok(),
        _ => None,
    }
}
