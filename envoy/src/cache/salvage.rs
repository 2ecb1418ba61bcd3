//! Takes what is whole out of a damaged store, by a scan of the raw file, never through LMDB.
//!
//! A scan also finds values that were replaced or deleted. For each (lane, first sequence) the highest revision wins; a
//! record that a newer one covers, that was acknowledged, or that was deleted from the old end of its lane stays out.
//! Slots are taken only as pairs. Works on any file, also one of another word size or byte order.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use common::chain::Lane;
use common::ids::Uuid;

use super::codec::{self, Header, Kind, Slot, Value};
use super::compact::CHUNK_BYTES;
use super::env::Name;
use super::lmdb::{LmdbCache, db_of};
use super::memory::MemoryCache;
use super::ops::{CacheError, Loaded, META_ACKED, QueueRecord};
use super::scan::{Found, read_value, scan};
use super::seal::Seal;

/// Values that are remembered while scanning; a file that holds more was not made by an agent.
const VALUES_MAX: usize = 1 << 20;
/// Ranges of lost sequences that are named one by one.
const RANGES_NAMED_MAX: usize = 8;

/// What an envoy keeps of the server before: how far its lanes are, and what it owes to its host. Neither epochs nor counters.
const CARRIED_META: [&str; 5] = [META_ACKED[0], META_ACKED[1], "queue.urgent", "queue.routine", "agent.owed"];

/// What a scan saved, still lying in the file.
pub(super) struct Salvaged {
    file: Option<File>,
    uuid: Uuid,
    /// By [`Lane::index`], by first sequence.
    records: [BTreeMap<u64, Found>; 2],
    /// Whole pairs of assignment and bundle.
    slots: Vec<(Slot, Found, Found)>,
    /// Meta values and trait trees, by their database and name.
    named: BTreeMap<(bool, String), Found>,
    /// Sequences and revision, to go on from.
    seal: Seal,
    /// Values of other envoys, which stay out.
    foreign: u64,
}

/// What one value is for: of two with the same key the higher revision wins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Record(usize, u64),
    Assignment(Slot),
    /// By pair, so that one copy in either slot serves both.
    Bundle(u64),
    Named(bool, String),
}

impl Salvaged {
    /// Nothing, for a fresh store.
    pub(super) fn nothing(uuid: Uuid) -> Salvaged {
        Salvaged {
            file: None,
            uuid,
            records: Default::default(),
            slots: Vec::new(),
            named: BTreeMap::new(),
            seal: Seal::default(),
            foreign: 0,
        }
    }

    /// Scans a file. One that cannot be opened holds nothing.
    /// Of the envoy's `former` self its queue is taken, and what it owes to its host; not what another server assigned.
    pub(super) fn from_file(path: &Path, uuid: Uuid, former: Option<Uuid>) -> Salvaged {
        let mut out = Salvaged::nothing(uuid);
        let Ok(file) = File::open(path) else { return out };
        let mut best: BTreeMap<Key, Found> = BTreeMap::new();
        let mut seal: Option<Seal> = None;
        let mut highest = [0; 2];
        let mut revision = 0;
        scan(&file, &mut |found| {
            let was_former = former == Some(found.header.uuid) && found.header.uuid != uuid;
            if found.header.uuid != uuid && !(was_former && carried(&found)) {
                out.foreign += 1;
                return;
            }
            revision = revision.max(found.header.revision);
            if let Some(lane) = found.header.lane() {
                highest[lane.index()] = found.header.last.max(highest[lane.index()]);
            }
            if found.header.kind == Kind::Seal {
                if seal.is_none_or(|seal| seal.revision < found.header.revision) {
                    seal = read_value(&file, &found)
                        .ok()
                        .and_then(|b| Seal::decode(&Value::decode(&b).ok()?).ok())
                        .or(seal);
                }
                return;
            }
            let Some(key) = key_of(&file, &found) else { return };
            if was_former && matches!(&key, Key::Named(_, name) if !CARRIED_META.contains(&name.as_str())) {
                return;
            }
            let newer = best.get(&key).is_none_or(|known| known.header.revision < found.header.revision);
            if newer && (best.len() < VALUES_MAX || best.contains_key(&key)) {
                best.insert(key, found);
            }
        });
        let mut assignments = Vec::new();
        let mut bundles = BTreeMap::new();
        let mut records = Vec::new();
        for (key, found) in best {
            match key {
                Key::Record(lane, _) => records.push((lane, found)),
                Key::Assignment(slot) => assignments.push((slot, found)),
                Key::Bundle(pair) => drop(bundles.insert(pair, found)),
                Key::Named(is_trait, name) => drop(out.named.insert((is_trait, name), found)),
            }
        }
        for (slot, assignment) in assignments {
            out.slots.extend(bundles.get(&assignment.header.first).map(|bundle| (slot, assignment, *bundle)));
        }
        out.file = Some(file);
        let seal = seal.unwrap_or_default();
        for lane in Lane::ALL {
            let (at, from) = (lane.index(), &seal.lanes[lane.index()]);
            let acked = from.acked.max(out.meta_acked(lane));
            out.seal.lanes[at].acked = acked;
            out.seal.lanes[at].highest = from.highest.max(highest[at]);
        }
        out.seal.revision = revision;
        out.choose_records(records, &seal);
        out
    }

    /// Newest first: what a newer record covers was replaced by it.
    fn choose_records(&mut self, mut records: Vec<(usize, Found)>, seal: &Seal) {
        records.sort_by_key(|(_, found)| std::cmp::Reverse(found.header.revision));
        for (lane, found) in records {
            let head = &found.header;
            let deleted = head.last < seal.lanes[lane].floor;
            let acknowledged = head.acked_at_ms == 0 && head.last <= self.seal.lanes[lane].acked;
            let kept = &mut self.records[lane];
            // The nearest record that begins at or below the end of this one is the only one that can reach into it.
            let covered =
                kept.range(..=head.last).next_back().is_some_and(|(_, other)| other.header.last >= head.first);
            if !deleted && !acknowledged && !covered {
                kept.insert(head.first, found);
            }
        }
    }

    fn meta_acked(&self, lane: Lane) -> u64 {
        let found = self.named.get(&(false, META_ACKED[lane.index()].to_owned()));
        let bytes = found.and_then(|found| self.read(found));
        let value = bytes.as_deref().and_then(|bytes| Value::decode(bytes).ok()?.payload.try_into().ok());
        value.map_or(0, u64::from_be_bytes)
    }

    fn read(&self, found: &Found) -> Option<Vec<u8>> {
        self.file.as_ref().and_then(|file| read_value(file, found).ok())
    }

    /// What a new store starts from: sequences, acknowledgements and revision of the old one.
    pub(super) fn seal(&self) -> Seal {
        self.seal
    }

    /// Puts everything into a new store. What does not fit any more stays out; gives back how many values that were.
    pub(super) fn import(&self, store: &mut LmdbCache) -> Result<u64, CacheError> {
        let (mut chunk, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        let mut result = Ok(());
        self.each(&mut |name, key, value| {
            bytes += value.len();
            chunk.push((name, key, value));
            if bytes >= CHUNK_BYTES && result.is_ok() {
                result = flush(store, &mut chunk, &mut left_out);
                bytes = 0;
            }
        });
        result?;
        flush(store, &mut chunk, &mut left_out)?;
        Ok(left_out)
    }

    /// The same in memory, for a disk that takes nothing.
    pub(super) fn into_memory(self, bytes_max: u64, incidents: Vec<String>) -> MemoryCache {
        let mut loaded = Loaded { incidents, highest: self.seal.lanes.map(|lane| lane.highest), ..Loaded::default() };
        let mut records: Vec<QueueRecord> = Vec::new();
        let mut slots: BTreeMap<(String, bool), common::proto::wire::Signed> = BTreeMap::new();
        self.each(&mut |name, key, value| {
            let Ok(value) = Value::decode(&value) else { return };
            match name {
                Name::Urgent | Name::Routine => records.extend(value.record().ok()),
                Name::Meta => drop(loaded.meta.insert(value.name.to_owned(), value.payload.to_vec())),
                Name::Traits => drop(loaded.traits.insert(value.name.to_owned(), value.payload.to_vec())),
                Name::Assignment | Name::Bundle => {
                    let slot = String::from_utf8_lossy(&key).into_owned();
                    slots.extend(value.signed().ok().map(|signed| ((slot, name == Name::Bundle), signed)));
                }
                Name::Secrets => {}
            }
        });
        let mut pair = |slot: Slot| {
            let mut take = |is_bundle| slots.remove(&(slot.name().to_owned(), is_bundle));
            take(false).zip(take(true))
        };
        (loaded.current, loaded.previous) = (pair(Slot::Current), pair(Slot::Previous));
        MemoryCache::from_loaded(bytes_max, loaded, records)
    }

    /// What was saved and what was not, one line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let [urgent, routine] = [0, 1].map(|lane| self.records[lane].len());
        let slots: Vec<&str> = self.slots.iter().map(|(slot, ..)| slot.name()).collect();
        let policy =
            if slots.is_empty() { "no policy".to_string() } else { format!("the {} policy", slots.join(" and ")) };
        let total = urgent + routine;
        let mut lines = vec![format!(
            "salvaged {total} records ({urgent} urgent, {routine} routine), {policy} and {} other values",
            self.named.len()
        )];
        for lane in Lane::ALL {
            lines.extend(self.lost(lane));
        }
        if self.foreign > 0 {
            lines.push(format!("left out {} values of another envoy", self.foreign));
        }
        lines
    }

    /// Holes of a lane between what was saved and the highest sequence that it ever held.
    fn lost(&self, lane: Lane) -> Option<String> {
        let (mut ranges, mut next) = (Vec::new(), None);
        let highest = self.seal.lanes[lane.index()].highest;
        for (first, found) in &self.records[lane.index()] {
            if next.is_some_and(|next| next < *first) {
                ranges.push((next.unwrap_or(0), first - 1));
            }
            next = Some(found.header.last + 1);
        }
        // Below the oldest record everything may have been delivered; above the newest nothing was.
        let from = next.unwrap_or(self.seal.lanes[lane.index()].acked + 1);
        if from <= highest && (next.is_some() || from > 1) {
            ranges.push((from, highest));
        }
        let named: Vec<String> = ranges.iter().take(RANGES_NAMED_MAX).map(|(a, b)| format!("{a}..={b}")).collect();
        let more = ranges.len().saturating_sub(RANGES_NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more ranges") } else { String::new() };
        (!ranges.is_empty()).then(|| format!("lost {} sequences {}{more}", lane.name(), named.join(", ")))
    }

    /// A value under this envoy's name.
    fn own(&self, bytes: Vec<u8>) -> Vec<u8> {
        match Value::decode(&bytes) {
            Ok(value) if value.header.uuid != self.uuid => {
                codec::encode(Header { uuid: self.uuid, ..value.header }, value.name, value.payload)
            }
            _ => bytes,
        }
    }

    /// Every saved value where it belongs; what cannot be read a second time is passed over.
    fn each(&self, visit: &mut dyn FnMut(Name, Vec<u8>, Vec<u8>)) {
        for (slot, assignment, bundle) in &self.slots {
            let (Some(a), Some(b)) = (self.read(assignment), self.read(bundle)) else { continue };
            let (Ok(a), Ok(b)) = (Value::decode(&a), Value::decode(&b)) else { continue };
            for (kind, name, value) in [(Kind::Assignment, Name::Assignment, a), (Kind::Bundle, Name::Bundle, b)] {
                let (revision, pair) = (value.header.revision, value.header.first);
                let bytes = codec::encode_slot(kind, *slot, self.uuid, revision, pair, value.payload);
                visit(name, slot.name().into(), bytes);
            }
        }
        for ((is_trait, name), found) in &self.named {
            let db = if *is_trait { Name::Traits } else { Name::Meta };
            let bytes = self.read(found).map(|bytes| self.own(bytes));
            bytes.into_iter().for_each(|bytes| visit(db, name.clone().into_bytes(), bytes));
        }
        for lane in Lane::ALL {
            for (first, found) in &self.records[lane.index()] {
                let bytes = self.read(found).map(|bytes| self.own(bytes));
                bytes.into_iter().for_each(|bytes| visit(db_of(lane), first.to_be_bytes().to_vec(), bytes));
            }
        }
    }
}

/// Whether a value of an envoy's former self is of a kind that means something to another server.
fn carried(found: &Found) -> bool {
    matches!(found.header.kind, Kind::Record | Kind::Meta | Kind::Seal)
}

fn key_of(file: &File, found: &Found) -> Option<Key> {
    let head = &found.header;
    match head.kind {
        Kind::Record => head.lane().map(|lane| Key::Record(lane.index(), head.first)),
        Kind::Assignment => Slot::ALL.into_iter().find(|slot| *slot as u8 == head.place).map(Key::Assignment),
        Kind::Bundle => Some(Key::Bundle(head.first)),
        Kind::Meta | Kind::Trait => {
            let bytes = read_value(file, found).ok()?;
            let name = Value::decode(&bytes).ok()?.name.to_owned();
            Some(Key::Named(head.kind == Kind::Trait, name))
        }
        Kind::Seal => None,
    }
}

/// One transaction; where it does not fit, value by value as far as it goes.
fn flush(
    store: &mut LmdbCache,
    chunk: &mut Vec<(Name, Vec<u8>, Vec<u8>)>,
    left_out: &mut u64,
) -> Result<(), CacheError> {
    let values = std::mem::take(chunk);
    match store.import(&values) {
        Err(CacheError::Full) if values.len() > 1 => {
            for value in values {
                match store.import(std::slice::from_ref(&value)) {
                    Ok(()) => {}
                    Err(CacheError::Full) => *left_out += 1,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }
        Err(CacheError::Full) => {
            *left_out += 1;
            Ok(())
        }
        result => result,
    }
}

#[cfg(test)]
mod tests;
