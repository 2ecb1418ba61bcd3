//! One transaction on LMDB: operations applied in order, counted into the seal, and committed with it.
//!
//! Decides nothing about map sizes and retries: that is [`super::lmdb`]. Ruled by the bound that the caller gives.

use heed::RwTxn;

use common::chain::Lane;
use common::ids::Uuid;
use common::proto::{Message, wire};

use super::codec::{self, Header, Kind, Slot, Value};
use super::env::{Db, Env, Fault, Name};
use super::lmdb::{corrupt, db_of};
use super::memory::NO_CURRENT_BUNDLE;
use super::ops::{CacheError, StoreOp};
use super::seal::{SEAL_KEY, Seal};

/// What a transaction does.
pub(super) type Work<'a> = &'a mut dyn FnMut(&mut Batch<'_>) -> Result<(), Fault>;

/// A write transaction with the seal that it will end in.
pub(super) struct Batch<'e> {
    txn: RwTxn<'e>,
    env: &'e Env,
    seal: Seal,
    uuid: Uuid,
    /// Lanes whose floor must be found again, by [`Lane::index`].
    touched: [bool; 2],
}

impl<'e> Batch<'e> {
    /// Begins a transaction on a store whose seal is `seal`.
    pub(super) fn begin(env: &'e Env, seal: Seal, uuid: Uuid) -> Result<Batch<'e>, Fault> {
        Ok(Batch { txn: env.write()?, env, seal, uuid, touched: [false; 2] })
    }

    /// Marks the lane of a database: its floor must be found again.
    pub(super) fn touch(&mut self, name: Name) {
        Lane::ALL.into_iter().for_each(|lane| self.touched[lane.index()] |= db_of(lane) == name);
    }
}

impl Batch<'_> {
    /// Applies one operation of a batch that was checked.
    pub(super) fn apply(&mut self, op: &StoreOp) -> Result<(), Fault> {
        match op {
            StoreOp::PutSlot { assignment, bundle } => self.put_slot(assignment, bundle.as_ref()),
            StoreOp::PutRecord(record) => {
                let head = &record.record;
                // Checked with the batch.
                let Some(lane) = u32::try_from(head.lane).ok().and_then(Lane::from_u32) else { return Ok(()) };
                self.touched[lane.index()] = true;
                self.seal.note_acked(lane, head.first_sequence, head.last_sequence, record.acked_at_ms != 0);
                self.seal.revision += 1;
                let value = codec::encode_record(self.uuid, self.seal.revision, record);
                self.replace(db_of(lane), &head.first_sequence.to_be_bytes(), Some(&value))
            }
            StoreOp::DeleteRecords { lane, firsts } => {
                self.touched[lane.index()] = true;
                firsts.iter().try_for_each(|first| self.replace(db_of(*lane), &first.to_be_bytes(), None))
            }
            StoreOp::SetMeta(name, value) => self.put_named(Kind::Meta, name, value),
            StoreOp::SetTrait(name, Some(value)) => self.put_named(Kind::Trait, name, value),
            StoreOp::SetTrait(name, None) => self.replace(Name::Traits, name.as_bytes(), None),
        }
    }

    fn put_named(&mut self, kind: Kind, name: &str, value: &[u8]) -> Result<(), Fault> {
        let db = if kind == Kind::Meta { Name::Meta } else { Name::Traits };
        self.seal.revision += 1;
        let value = codec::encode(Header::new(kind, 0, self.uuid, self.seal.revision), name, value);
        self.replace(db, name.as_bytes(), Some(&value))
    }

    fn put_slot(&mut self, assignment: &wire::Signed, bundle: Option<&wire::Signed>) -> Result<(), Fault> {
        let current = (self.slot(Name::Assignment, Slot::Current)?, self.slot(Name::Bundle, Slot::Current)?);
        let (pair, bundle) = match (bundle, &current) {
            (Some(bundle), _) => (codec::pair_of(bundle), bundle.encode_to_vec()),
            (None, (Some(_), Some(bundle))) => bundle.clone(),
            (None, _) => return Err(CacheError::Io(NO_CURRENT_BUNDLE.into()).into()),
        };
        // Without a current pair there is nothing to shift: a previous one is still the better fallback.
        if let (Some((_, old_assignment)), Some((old_pair, old_bundle))) = &current {
            self.write_slot(Kind::Assignment, Slot::Previous, *old_pair, old_assignment)?;
            self.write_slot(Kind::Bundle, Slot::Previous, *old_pair, old_bundle)?;
        }
        self.write_slot(Kind::Assignment, Slot::Current, pair, &assignment.encode_to_vec())?;
        self.write_slot(Kind::Bundle, Slot::Current, pair, &bundle)
    }

    /// Pair number and payload of a slot; `None` where it is empty or its checksum does not hold (it is replaced).
    fn slot(&self, db: Name, slot: Slot) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        let stored = self.env.db(db).get(&self.txn, slot.name().as_bytes())?;
        Ok(stored.and_then(|bytes| Value::decode(bytes).ok()).map(|value| (value.header.first, value.payload.to_vec())))
    }

    fn write_slot(&mut self, kind: Kind, slot: Slot, pair: u64, payload: &[u8]) -> Result<(), Fault> {
        let db = if kind == Kind::Bundle { Name::Bundle } else { Name::Assignment };
        // A bundle that stays is not written again: it is by far the largest value.
        if self.slot(db, slot)?.is_some_and(|stored| stored.0 == pair && stored.1 == payload) {
            return Ok(());
        }
        self.seal.revision += 1;
        let value = codec::encode_slot(kind, slot, self.uuid, self.seal.revision, pair, payload);
        self.replace(db, slot.name().as_bytes(), Some(&value))
    }

    /// Puts or deletes a value, and counts.
    pub(super) fn replace(&mut self, name: Name, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        let db = self.env.db(name);
        if let Some(old) = db.get(&self.txn, key)? {
            let header = Header::decode(old).map_err(|damage| corrupt(name.text(), key, &damage))?;
            self.seal.remove(&header);
        }
        match value {
            Some(value) => {
                let header = Header::decode(value).map_err(|damage| corrupt(name.text(), key, &damage))?;
                self.seal.add(&header);
                db.put(&mut self.txn, key, value)?;
            }
            None => drop(db.delete(&mut self.txn, key)?),
        }
        Ok(())
    }

    /// Seals and commits, and gives back the seal. `before` is what the pages in use were before the batch.
    /// A batch that needs more than that must not leave more than `live_max` in use.
    pub(super) fn commit(mut self, before: usize, live_max: usize) -> Result<Seal, Fault> {
        for lane in Lane::ALL {
            if self.touched[lane.index()] {
                set_floor(&self.txn, &self.env.db(db_of(lane)), lane, &mut self.seal)?;
            }
        }
        // The bound counts pages in use, not the file: free pages inside the map are as good as none to a batch that must
        // write before it can free. A batch that shrinks is always welcome: it is the way out.
        let after = self.env.live_bytes(&self.txn)?;
        if after > before && after > live_max {
            return Err(CacheError::Full.into());
        }
        // The number of the transaction: a store that was rolled back by a damaged meta page shows.
        self.seal.txn = self.txn.id() as u64;
        self.seal.revision += 1;
        self.env.db(Name::Meta).put(&mut self.txn, SEAL_KEY, &self.seal.encode(self.uuid))?;
        self.txn.commit()?;
        Ok(self.seal)
    }
}

/// About the bytes that an operation writes, without LMDB's own pages: a slot moves what was in it.
pub(super) fn put_bytes(op: &StoreOp) -> usize {
    match op {
        StoreOp::PutSlot { assignment, bundle } => {
            2 * (assignment.encoded_len() + bundle.as_ref().map_or(0, wire::Signed::encoded_len))
        }
        StoreOp::PutRecord(record) => codec::stored_bytes(record),
        StoreOp::SetMeta(name, value) => name.len() + value.len(),
        StoreOp::SetTrait(name, value) => name.len() + value.as_ref().map_or(0, Vec::len),
        StoreOp::DeleteRecords { .. } => 0,
    }
}

/// The floor of a lane: the oldest record that is left, or above all where none is.
fn set_floor(txn: &heed::RoTxn<'_>, db: &Db<'_>, lane: Lane, seal: &mut Seal) -> Result<(), Fault> {
    let first = db.first(txn)?.and_then(|(key, _)| key.try_into().ok().map(u64::from_be_bytes));
    let lane = &mut seal.lanes[lane.index()];
    lane.floor = first.unwrap_or(lane.highest + 1);
    Ok(())
}
