//! The agent's state in memory, behind the same interface: for the simulator, and for a host whose disk refuses altogether.
//!
//! A batch is applied whole or not at all, and what it would take on disk is counted, so that [`CacheError::Full`] happens
//! here as it does there. A clone is cheap (values are shared) and is what a crash leaves: every commit that returned.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::chain::Lane;
use common::limits;
use common::proto::{Message, wire};

use super::check::check_batch;
use super::codec::HEADER_BYTES;
use super::ops::{Cache, CacheError, Loaded, QueueRecord, RecordIndex, StoreOp};

/// A pair of assignment and bundle, shared between clones and slots.
type Pair = (Arc<wire::Signed>, Arc<wire::Signed>);

/// The agent's state in memory.
#[derive(Clone, Debug)]
pub struct MemoryCache {
    /// Stored bytes above which a batch that grows is refused.
    bytes_max: u64,
    /// Stored bytes of everything below.
    bytes: u64,
    current: Option<Pair>,
    previous: Option<Pair>,
    /// By [`Lane::index`], by first sequence.
    lanes: [BTreeMap<u64, (RecordIndex, Arc<QueueRecord>)>; 2],
    /// Highest sequence that each lane ever held.
    highest: [u64; 2],
    meta: BTreeMap<String, Arc<[u8]>>,
    traits: BTreeMap<String, Arc<[u8]>>,
    /// Handed to the core once, by the first `load`.
    incidents: Vec<String>,
}

/// How to take one applied operation back.
enum Undo {
    Slots(Option<Pair>, Option<Pair>),
    Record(usize, u64, Option<(RecordIndex, Arc<QueueRecord>)>),
    Meta(String, Option<Arc<[u8]>>),
    Trait(String, Option<Arc<[u8]>>),
}

impl Default for MemoryCache {
    fn default() -> MemoryCache {
        MemoryCache::new(limits::STATE_BYTES_DEFAULT)
    }
}

impl MemoryCache {
    /// An empty state that holds up to `bytes_max` stored bytes.
    pub fn new(bytes_max: u64) -> MemoryCache {
        MemoryCache {
            bytes_max,
            bytes: 0,
            current: None,
            previous: None,
            lanes: Default::default(),
            highest: [0; 2],
            meta: BTreeMap::new(),
            traits: BTreeMap::new(),
            incidents: Vec::new(),
        }
    }

    /// A state that holds what was saved from a store, and says why it is in memory.
    pub fn from_loaded(bytes_max: u64, loaded: Loaded, records: Vec<QueueRecord>) -> MemoryCache {
        let share = |(assignment, bundle)| (Arc::new(assignment), Arc::new(bundle));
        let mut cache = MemoryCache::new(bytes_max);
        cache.current = loaded.current.map(share);
        cache.previous = loaded.previous.map(share);
        cache.meta = loaded.meta.into_iter().map(|(name, value)| (name, value.into())).collect();
        cache.traits = loaded.traits.into_iter().map(|(name, value)| (name, value.into())).collect();
        cache.incidents = loaded.incidents;
        cache.highest = loaded.highest;
        cache.bytes = pair_bytes(&cache.current) + pair_bytes(&cache.previous);
        cache.bytes += cache.meta.iter().map(|(name, value)| named_bytes(name, value)).sum::<u64>();
        cache.bytes += cache.traits.iter().map(|(name, value)| named_bytes(name, value)).sum::<u64>();
        for record in records {
            // Records from a store have a lane; any other could never be sent.
            if let Some(lane) = u32::try_from(record.record.lane).ok().and_then(Lane::from_u32) {
                cache.replace_record(lane.index(), record.record.first_sequence, Some(record));
            }
        }
        cache
    }

    /// Stored bytes: what the same state takes on disk, without LMDB's own pages.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the bound, for a simulated disk that fills up.
    pub fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    fn apply(&mut self, op: &StoreOp, undo: &mut Vec<Undo>) -> Result<(), CacheError> {
        match op {
            StoreOp::PutSlot { assignment, bundle } => {
                let bundle = match (bundle, &self.current) {
                    (Some(bundle), _) => Arc::new(bundle.clone()),
                    (None, Some((_, bundle))) => bundle.clone(),
                    (None, None) => return Err(CacheError::Io(NO_CURRENT_BUNDLE.into())),
                };
                let older = self.current.replace((Arc::new(assignment.clone()), bundle));
                // Without a current pair there is nothing to shift: a previous one is still the better fallback.
                let previous = if older.is_some() { older.clone() } else { self.previous.clone() };
                let oldest = std::mem::replace(&mut self.previous, previous);
                self.bytes = self.bytes + pair_bytes(&self.current) + pair_bytes(&self.previous)
                    - pair_bytes(&older)
                    - pair_bytes(&oldest);
                undo.push(Undo::Slots(older, oldest));
            }
            StoreOp::PutRecord(record) => {
                let (lane, first) = (record.record.lane as usize - 1, record.record.first_sequence);
                let old = self.replace_record(lane, first, Some(record.clone()));
                undo.push(Undo::Record(lane, first, old));
            }
            StoreOp::DeleteRecords { lane, firsts } => {
                for &first in firsts {
                    let old = self.replace_record(lane.index(), first, None);
                    undo.push(Undo::Record(lane.index(), first, old));
                }
            }
            StoreOp::SetMeta(name, value) => {
                let old = replace_named(&mut self.meta, &mut self.bytes, name, Some(value));
                undo.push(Undo::Meta(name.clone(), old));
            }
            StoreOp::SetTrait(name, value) => {
                let old = replace_named(&mut self.traits, &mut self.bytes, name, value.as_deref());
                undo.push(Undo::Trait(name.clone(), old));
            }
        }
        Ok(())
    }

    fn replace_record(
        &mut self,
        lane: usize,
        first: u64,
        record: Option<QueueRecord>,
    ) -> Option<(RecordIndex, Arc<QueueRecord>)> {
        let old = match record {
            Some(record) => {
                let index = RecordIndex::of(&record);
                self.bytes += u64::from(index.bytes);
                self.highest[lane] = self.highest[lane].max(index.last);
                self.lanes[lane].insert(first, (index, Arc::new(record)))
            }
            None => self.lanes[lane].remove(&first),
        };
        self.bytes -= old.as_ref().map_or(0, |(index, _)| u64::from(index.bytes));
        old
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Slots(current, previous) => (self.current, self.previous) = (current, previous),
            Undo::Record(lane, first, Some(old)) => drop(self.lanes[lane].insert(first, old)),
            Undo::Record(lane, first, None) => drop(self.lanes[lane].remove(&first)),
            Undo::Meta(name, Some(old)) => drop(self.meta.insert(name, old)),
            Undo::Meta(name, None) => drop(self.meta.remove(&name)),
            Undo::Trait(name, Some(old)) => drop(self.traits.insert(name, old)),
            Undo::Trait(name, None) => drop(self.traits.remove(&name)),
        }
    }
}

impl Cache for MemoryCache {
    fn load(&mut self) -> Result<Loaded, CacheError> {
        let owned = |pair: &Option<Pair>| pair.as_ref().map(|(a, b)| ((**a).clone(), (**b).clone()));
        let values = |map: &BTreeMap<String, Arc<[u8]>>| map.iter().map(|(k, v)| (k.clone(), v.to_vec())).collect();
        let tail = |lane: usize| self.lanes[lane].values().next_back().map(|(_, record)| (**record).clone());
        Ok(Loaded {
            current: owned(&self.current),
            previous: owned(&self.previous),
            lanes: [0, 1].map(|lane| self.lanes[lane].values().map(|(index, _)| *index).collect()),
            tails: [tail(0), tail(1)],
            meta: values(&self.meta),
            traits: values(&self.traits),
            highest: self.highest,
            incidents: std::mem::take(&mut self.incidents),
        })
    }

    fn commit(&mut self, batch: &[StoreOp]) -> Result<(), CacheError> {
        check_batch(batch)?;
        let (bytes, highest, mut undo) = (self.bytes, self.highest, Vec::with_capacity(batch.len()));
        let mut result = batch.iter().try_for_each(|op| self.apply(op, &mut undo));
        // A batch that shrinks is always welcome: it is the way out.
        if result.is_ok() && self.bytes > self.bytes_max && self.bytes > bytes {
            result = Err(CacheError::Full);
        }
        if result.is_err() {
            undo.into_iter().rev().for_each(|undo| self.take_back(undo));
            (self.bytes, self.highest) = (bytes, highest);
        }
        result
    }

    fn read_records(&mut self, lane: Lane, first: u64, max_bytes: usize) -> Result<Vec<QueueRecord>, CacheError> {
        let mut total = 0;
        let mut fits = |index: &RecordIndex| {
            total += index.bytes as usize;
            total <= max_bytes || total == index.bytes as usize
        };
        let records = self.lanes[lane.index()].range(first..).map(|(_, stored)| stored);
        Ok(records.take_while(|(index, _)| fits(index)).map(|(_, record)| (**record).clone()).collect())
    }
}

/// What a `PutSlot` without a bundle is told where no current one can be kept.
pub(super) const NO_CURRENT_BUNDLE: &str =
    "state store: an assignment came without its bundle, and there is no current bundle to keep";

fn pair_bytes(pair: &Option<Pair>) -> u64 {
    pair.as_ref().map_or(0, |(a, b)| (a.encoded_len() + b.encoded_len() + 2 * HEADER_BYTES) as u64)
}

fn named_bytes(name: &str, value: &[u8]) -> u64 {
    (HEADER_BYTES + name.len() + value.len()) as u64
}

fn replace_named(
    map: &mut BTreeMap<String, Arc<[u8]>>,
    bytes: &mut u64,
    name: &str,
    value: Option<&[u8]>,
) -> Option<Arc<[u8]>> {
    let old = match value {
        Some(value) => {
            *bytes += named_bytes(name, value);
            map.insert(name.to_owned(), value.into())
        }
        None => map.remove(name),
    };
    *bytes -= old.as_ref().map_or(0, |old| named_bytes(name, old));
    old
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{contract, fixture};

    #[test]
    fn memory_keeps_the_contract() {
        contract::check_all(|bytes_max| Box::new(MemoryCache::new(bytes_max)));
    }

    #[test]
    fn a_clone_is_what_a_crash_leaves() {
        let mut cache = MemoryCache::default();
        cache.commit(&[StoreOp::PutRecord(fixture::run(Lane::Urgent, 1, 1, &[0; 32]))]).expect("it fits");
        let crashed = cache.clone();
        cache.commit(&[StoreOp::DeleteRecords { lane: Lane::Urgent, firsts: vec![1] }]).expect("it fits");
        assert_eq!(cache.bytes(), 0);
        assert_eq!(crashed.clone().load().expect("it loads").lanes[0].len(), 1);
    }

    #[test]
    fn bytes_return_to_what_they_were_when_a_batch_is_refused() {
        let mut cache = MemoryCache::new(2_000);
        cache.commit(&[StoreOp::SetMeta("a".into(), vec![0; 100])]).expect("it fits");
        let (bytes, loaded) = (cache.bytes(), cache.load());
        let batch = [
            StoreOp::SetMeta("a".into(), vec![1; 50]),
            StoreOp::SetTrait("os".into(), Some(vec![2; 9_000])),
            StoreOp::PutRecord(fixture::run(Lane::Urgent, 1, 1, &[0; 32])),
        ];
        assert_eq!(cache.commit(&batch), Err(CacheError::Full));
        assert_eq!((cache.bytes(), cache.load()), (bytes, loaded));
    }
}
