//! What goes when the queue must become smaller: runs that changed nothing, then changes, then failures, each oldest first;
//! gaps never. What goes leaves a gap over exactly its sequences; neighbouring gaps become one.

use common::proto::wire::gap::Reason;

use super::lane::{Entry, Lane, entry_of, gap_record};
use super::queue::{MEMORY_QUEUE_BYTES_MAX, Queue};
use crate::cache::RecordClass;

/// Sixteenths of the bound that are left after a drop, so that not every run drops something.
const KEEP_SIXTEENTHS: u64 = 15;

impl Queue {
    /// Keeps the queue within `bytes_max`; what is retained goes before anything that waits. How many runs were dropped.
    pub fn fit(&mut self, bytes_max: u64, server_ms: u64, wall_ms: i64) -> u64 {
        let waiting = self.waiting_bytes();
        let retained: u64 = self.lanes.iter().map(|lane| lane.retained_bytes).sum();
        if waiting + retained > bytes_max && retained > 0 {
            let keep = bytes_max.saturating_sub(waiting) / 2;
            self.lanes.iter_mut().for_each(|lane| lane.prune(keep, server_ms));
        }
        if waiting <= bytes_max {
            return 0;
        }
        self.drop_bytes(waiting - bytes_max / 16 * KEEP_SIXTEENTHS, false, wall_ms)
    }

    /// The store is full below its bound: makes a sixteenth smaller whatever there is. How many runs were dropped; `None`
    /// when there is nothing to drop.
    pub fn relieve(&mut self, server_ms: u64, wall_ms: i64) -> Option<u64> {
        let retained: u64 = self.lanes.iter().map(|lane| lane.retained_bytes).sum();
        if retained > 0 {
            self.lanes.iter_mut().for_each(|lane| lane.prune(lane.retained_bytes / 2, server_ms));
            self.settle = true;
            return Some(0);
        }
        let dropped = self.drop_bytes((self.waiting_bytes() / 16).max(4_096), false, wall_ms);
        self.settle |= dropped > 0;
        (dropped > 0).then_some(dropped)
    }

    /// Keeps what waits in memory for a disk that refuses within its bound. How many runs were dropped.
    pub fn fit_memory(&mut self, wall_ms: i64) -> u64 {
        let unsaved = |lane: &Lane| {
            let dirty = lane.waiting().filter(|entry| !lane.committed(entry.first));
            dirty.map(|entry| u64::from(entry.bytes)).sum::<u64>()
        };
        let bytes: u64 = self.lanes.iter().map(unsaved).sum();
        if bytes <= MEMORY_QUEUE_BYTES_MAX {
            return 0;
        }
        self.drop_bytes(bytes - MEMORY_QUEUE_BYTES_MAX / 16 * KEEP_SIXTEENTHS, true, wall_ms)
    }

    fn drop_bytes(&mut self, bytes: u64, unsaved_only: bool, wall_ms: i64) -> u64 {
        let (mut need, mut dropped) = (bytes, 0);
        for class in [RecordClass::NoChange, RecordClass::Change, RecordClass::Failure] {
            for (lane, in_flight) in self.lanes.iter_mut().zip(self.in_flight) {
                if need > 0 {
                    dropped += lane.drop_class(class, &mut need, in_flight, unsaved_only, wall_ms);
                }
            }
        }
        dropped
    }
}

impl Lane {
    /// Drops records of a class, oldest first, until `need` bytes are gone.
    fn drop_class(&mut self, class: RecordClass, need: &mut u64, in_flight: usize, unsaved: bool, wall_ms: i64) -> u64 {
        let keep = (self.n_acked + in_flight).min(self.entries.len());
        let open = self.open.as_ref().map(|open| open.first);
        let rest: Vec<Entry> = self.entries.drain(keep..).collect();
        let mut dropped = 0;
        for entry in rest {
            let victim = entry.class == class
                && *need > 0
                && Some(entry.first) != open
                && !(unsaved && self.committed(entry.first));
            if victim {
                *need = need.saturating_sub(u64::from(entry.bytes));
                dropped += entry.last - entry.first + 1;
            }
            if !victim && entry.gap.is_none() {
                self.entries.push_back(entry);
                continue;
            }
            // A victim, or a gap that may be joined to the one before it.
            let joins = self.entries.len() > keep && self.entries.back().is_some_and(|back| self.joins(back, &entry));
            if !victim && !joins {
                self.entries.push_back(entry);
                continue;
            }
            self.swallow(entry, joins, wall_ms);
        }
        self.waiting_bytes = self.waiting().map(|entry| u64::from(entry.bytes)).sum();
        dropped
    }

    /// Whether a gap may grow over `entry`: what the server may have by its own boundaries stays apart from what it cannot have,
    /// or the whole could neither be acknowledged nor numbered anew.
    fn joins(&self, gap: &Entry, entry: &Entry) -> bool {
        let adjacent = gap.last + 1 == entry.first && gap.first > self.met;
        gap.gap.is_some() && adjacent && self.may_have_been_sent(gap) == self.may_have_been_sent(entry)
    }

    /// Puts a gap in the place of `entry`, or stretches the newest gap over it.
    fn swallow(&mut self, entry: Entry, joins: bool, wall_ms: i64) {
        let old = joins.then(|| self.entries.pop_back()).flatten();
        let (first, first_link) = match &old {
            Some(gap) => (gap.first, gap.gap.as_deref().copied().unwrap_or(gap.last_link)),
            None => (entry.first, entry.gap.as_deref().copied().unwrap_or(entry.last_link)),
        };
        let previous = self.link_before(self.entries.len(), first);
        self.unstore(entry.first);
        let span = (first, entry.last);
        let links = (&first_link, &entry.last_link);
        let detail = "the queue was full";
        let built = gap_record(self.id, span, &previous, links, Reason::QueueFull, detail, wall_ms);
        // What was sent before it became a gap stays what it is in one respect: the server may have it.
        let sealed = entry.sealed || old.is_some_and(|gap| gap.sealed);
        let gap = Entry { gap: Some(Box::new(first_link)), sealed, ..entry_of(&built, RecordClass::Gap) };
        self.entries.push_back(gap);
        self.put_hot(first, built);
    }
}
