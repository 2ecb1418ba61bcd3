//! The agent's state in LMDB.
//!
//! One batch is one synced transaction, sealed (see [`super::seal`]). The map grows on demand up to the bound; at the
//! bound a batch that grows is refused with [`CacheError::Full`], and a reserve stays for those that shrink it, because
//! LMDB needs fresh pages even to free some. One thread owns an [`LmdbCache`], under the lock of the state directory.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use heed::{EnvFlags, RwTxn};

use common::chain::Lane;
use common::ids::Uuid;
use common::proto::{Message, wire};

use super::check::check_batch;
use super::codec::{self, Header, Kind, Slot, Value};
use super::env::{Db, Env, Fault, Name, page_multiple};
use super::memory::NO_CURRENT_BUNDLE;
use super::ops::{Cache, CacheError, Loaded, QueueRecord, StoreOp};
use super::seal::{SEAL_KEY, Seal};

/// Map of a store that is small; it doubles from here.
const MAP_BYTES_FIRST: usize = 1 << 20;
/// Of the bound, the part that is kept free for batches that delete: one in so many.
const RESERVE_PART: usize = 8;
/// A file above this is mapped afresh after a load, so that its pages do not stay in this process's memory.
const REMAP_BYTES: u64 = 1 << 20;

/// Where a store is, whose it is, and how large it may become.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Directory of the data file.
    pub(super) dir: PathBuf,
    /// The envoy whose state it is.
    pub(super) uuid: Uuid,
    /// Bound of the map in bytes.
    pub(super) bytes_max: usize,
    /// Only to look: the child that probes a store must not change it.
    pub(super) read_only: bool,
    /// Commits do not sync: for tests that commit a hundred thousand times.
    #[cfg(test)]
    pub(super) no_sync: bool,
}

impl Place {
    pub(super) fn new(dir: &Path, uuid: Uuid, bytes_max: u64) -> Place {
        // What a 32-bit host cannot address is refused by `mmap` and halved.
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX / 4);
        Place {
            dir: dir.to_path_buf(),
            uuid,
            bytes_max,
            read_only: false,
            #[cfg(test)]
            no_sync: false,
        }
    }

    fn flags(&self) -> EnvFlags {
        #[cfg(test)]
        if self.no_sync {
            return EnvFlags::NO_SYNC;
        }
        if self.read_only { EnvFlags::READ_ONLY } else { EnvFlags::empty() }
    }
}

/// The agent's state in LMDB.
pub(super) struct LmdbCache {
    place: Place,
    /// `None` after a failure, until the next operation opens it again.
    env: Option<Env>,
    /// As of the last commit.
    seal: Seal,
    /// Lowest revision that may be given out: above everything that a scan of the file found, also what was never committed.
    revision_floor: u64,
}

/// A write transaction with the seal that it will end in.
struct Batch<'e> {
    txn: RwTxn<'e>,
    env: &'e Env,
    seal: Seal,
    uuid: Uuid,
    /// Lanes whose floor must be found again, by [`Lane::index`].
    touched: [bool; 2],
}

impl LmdbCache {
    /// Opens the store at `place`, which has been probed. `revision_floor` is the highest revision in the raw file.
    pub(super) fn open(place: Place, revision_floor: u64) -> Result<LmdbCache, CacheError> {
        let mut cache = LmdbCache { place, env: None, seal: Seal::default(), revision_floor };
        cache.reopen()?;
        Ok(cache)
    }

    /// Makes a store in an empty directory. `seal` is what is remembered of the store before it: sequences, revision.
    pub(super) fn create(place: Place, seal: Seal) -> Result<LmdbCache, CacheError> {
        let uuid = place.uuid;
        let mut put_seal = |txn: &mut RwTxn<'_>, dbs: &[Db<'_>; 7]| -> Result<(), Fault> {
            let seal = Seal { txn: txn.id() as u64, ..seal };
            Ok(dbs[Name::Meta as usize].put(txn, SEAL_KEY, &seal.encode(uuid))?)
        };
        let opened = Env::open(&place.dir, MAP_BYTES_FIRST.min(place.bytes_max), place.flags(), Some(&mut put_seal));
        opened.map(drop).map_err(|fault| told(fault, &place.dir))?;
        LmdbCache::open(place, 0)
    }

    /// Puts values that were found elsewhere, as they are, in one transaction.
    pub(super) fn import(&mut self, values: &[(Name, Vec<u8>, Vec<u8>)]) -> Result<(), CacheError> {
        self.transact(&mut |batch| {
            let put = |(name, key, value): &(Name, Vec<u8>, Vec<u8>)| {
                for lane in Lane::ALL {
                    batch.touched[lane.index()] |= db_of(lane) == *name;
                }
                batch.replace(*name, key, Some(value))
            };
            values.iter().try_for_each(put)
        })
    }

    /// Bytes of the map and of the pages in use: for `status` and the tests.
    #[cfg(test)]
    pub(super) fn map_bytes(&self) -> usize {
        self.env.as_ref().map_or(0, |env| env.map_bytes)
    }

    /// The seal of the last commit.
    pub(super) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Visits every value but the seal, in order of database and key, checked.
    pub(super) fn walk(
        &mut self,
        visit: &mut dyn FnMut(Name, &[u8], &Value<'_>) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        let (uuid, dir) = (self.place.uuid, self.place.dir.clone());
        let env = self.env()?;
        walk(env, uuid, visit).map_err(|fault| told(fault, &dir))
    }

    fn env(&mut self) -> Result<&Env, CacheError> {
        if self.env.is_none() {
            self.reopen()?;
        }
        match &self.env {
            Some(env) => Ok(env),
            None => Err(CacheError::Io(format!("{}: the store is not open", self.place.dir.display()))),
        }
    }

    fn reopen(&mut self) -> Result<(), CacheError> {
        // The old one first: heed refuses to open a path twice.
        self.env = None;
        let wanted = MAP_BYTES_FIRST.min(self.place.bytes_max);
        let env = Env::open(&self.place.dir, wanted, self.place.flags(), None)
            .map_err(|fault| told(fault, &self.place.dir))?;
        let seal = read_seal(&env, self.place.uuid).map_err(|fault| told(fault, &self.place.dir))?;
        self.seal = seal;
        self.env = Some(env);
        Ok(())
    }

    /// Does `work` in one transaction, with as large a map as it needs.
    fn transact(&mut self, work: &mut dyn FnMut(&mut Batch<'_>) -> Result<(), Fault>) -> Result<(), CacheError> {
        // Ends: every turn but the last doubles the map, up to its bound.
        loop {
            match self.try_transact(work) {
                Ok(()) => return Ok(()),
                Err(Fault::MapFull) => {
                    if !self.grow()? {
                        return Err(CacheError::Full);
                    }
                }
                Err(fault) => {
                    // Aborted; but after a failed write LMDB may refuse to go on until it is opened again.
                    self.env = None;
                    return Err(told(fault, &self.place.dir));
                }
            }
        }
    }

    fn try_transact(&mut self, work: &mut dyn FnMut(&mut Batch<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        let (uuid, bytes_max) = (self.place.uuid, self.place.bytes_max);
        // Opens first where it must: that reads the seal.
        self.env()?;
        let mut seal = self.seal;
        seal.revision = seal.revision.max(self.revision_floor);
        let env = self.env()?;
        let mut batch = Batch { txn: env.write()?, env, seal, uuid, touched: [false; 2] };
        let before = env.live_bytes(&batch.txn)?;
        work(&mut batch)?;
        self.seal = batch.commit(before, bytes_max)?;
        Ok(())
    }

    /// Makes the map larger. `false` where it is at its bound.
    fn grow(&mut self) -> Result<bool, CacheError> {
        let Some(env) = &mut self.env else { return Ok(false) };
        let before = env.map_bytes;
        let wanted = before.saturating_mul(2).min(page_multiple(self.place.bytes_max));
        if wanted <= before {
            return Ok(false);
        }
        match env.resize(wanted) {
            Ok(()) => Ok(true),
            Err(Fault::NoMemory) => {
                // The address space is the bound from now on. LMDB has let go of its map: open again with the old size.
                self.place.bytes_max = before;
                self.reopen()?;
                Ok(false)
            }
            Err(fault) => {
                self.env = None;
                Err(told(fault, &self.place.dir))
            }
        }
    }
}

impl Batch<'_> {
    fn apply(&mut self, op: &StoreOp) -> Result<(), Fault> {
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
    fn replace(&mut self, name: Name, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
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
}

impl Batch<'_> {
    /// Seals and commits, and gives back the seal. `before` is what the pages in use were before the batch.
    fn commit(mut self, before: usize, bytes_max: usize) -> Result<Seal, Fault> {
        for lane in Lane::ALL {
            if self.touched[lane.index()] {
                set_floor(&self.txn, &self.env.db(db_of(lane)), lane, &mut self.seal)?;
            }
        }
        // The bound counts pages in use, not the file: free pages inside the map are as good as none to a batch that must
        // write before it can free. A batch that shrinks is always welcome: it is the way out.
        let after = self.env.live_bytes(&self.txn)?;
        if after > before && after > bytes_max - bytes_max / RESERVE_PART {
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

impl Cache for LmdbCache {
    fn load(&mut self) -> Result<Loaded, CacheError> {
        let mut loaded = Loaded::default();
        let mut slots: [[Option<wire::Signed>; 2]; 2] = Default::default();
        let mut found = Seal::default();
        let mut last: [Option<QueueRecord>; 2] = [None, None];
        let newest = self.seal.lanes.map(|lane| lane.highest);
        self.walk(&mut |name, key, value| {
            found.add(&value.header);
            let damaged = |damage| corrupt(name.text(), key, &damage);
            match name {
                Name::Assignment | Name::Bundle => {
                    let slot = usize::from(value.header.place) - 1;
                    slots[slot][usize::from(name == Name::Bundle)] = Some(value.signed().map_err(damaged)?);
                }
                Name::Meta => drop(loaded.meta.insert(value.name.to_owned(), value.payload.to_vec())),
                Name::Traits => drop(loaded.traits.insert(value.name.to_owned(), value.payload.to_vec())),
                Name::Secrets => {}
                Name::Urgent | Name::Routine => {
                    let lane = usize::from(name == Name::Routine);
                    loaded.lanes[lane].extend(value.index());
                    // Usually only the newest record is decoded whole; where the newest is gone, whatever is last.
                    if value.header.last == newest[lane] {
                        last[lane] = Some(value.record().map_err(damaged)?);
                    }
                }
            }
            Ok(())
        })?;
        if let Some(difference) = self.seal.difference(&found) {
            return Err(CacheError::Corrupt(format!("{}: {difference}", self.place.dir.display())));
        }
        for lane in Lane::ALL {
            let tail = loaded.lanes[lane.index()].last().map(|index| index.first);
            let have = last[lane.index()].as_ref().map(|record| record.record.first_sequence);
            if let (Some(first), true) = (tail, tail != have) {
                last[lane.index()] = self.read_records(lane, first, 0)?.pop();
            }
        }
        loaded.tails = last;
        loaded.highest = self.seal.lanes.map(|lane| lane.highest);
        let [[current_assignment, current_bundle], [previous_assignment, previous_bundle]] = slots;
        loaded.current = current_assignment.zip(current_bundle);
        loaded.previous = previous_assignment.zip(previous_bundle);
        if self.env.as_ref().is_some_and(|env| std::fs::metadata(env.path()).is_ok_and(|m| m.len() > REMAP_BYTES)) {
            self.reopen()?;
        }
        Ok(loaded)
    }

    fn commit(&mut self, batch: &[StoreOp]) -> Result<(), CacheError> {
        check_batch(batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        self.transact(&mut |work| batch.iter().try_for_each(|op| work.apply(op)))
    }

    fn read_records(&mut self, lane: Lane, first: u64, max_bytes: usize) -> Result<Vec<QueueRecord>, CacheError> {
        let (uuid, dir) = (self.place.uuid, self.place.dir.clone());
        let read = |env: &Env| -> Result<Vec<QueueRecord>, Fault> {
            let (txn, name) = (env.read()?, db_of(lane));
            let (mut records, mut total) = (Vec::new(), 0);
            let from = first.to_be_bytes();
            for entry in env.db(name).range(&txn, &(Bound::Included(from.as_slice()), Bound::Unbounded))? {
                let (key, bytes) = entry?;
                total += bytes.len();
                if total > max_bytes && !records.is_empty() {
                    break;
                }
                let value = checked(name, uuid, key, bytes)?;
                records.push(value.record().map_err(|damage| corrupt(name.text(), key, &damage))?);
            }
            Ok(records)
        };
        read(self.env()?).map_err(|fault| told(fault, &dir))
    }
}

/// The database of a lane.
pub(super) fn db_of(lane: Lane) -> Name {
    match lane {
        Lane::Urgent => Name::Urgent,
        Lane::Routine => Name::Routine,
    }
}

/// Where a value of this header and name belongs: database and key. `None` for the seal.
pub(super) fn home(header: &Header, name: &str) -> Option<(Name, Vec<u8>)> {
    let slot = || Slot::ALL.into_iter().find(|slot| *slot as u8 == header.place).map(|slot| slot.name().into());
    match header.kind {
        Kind::Record => header.lane().map(|lane| (db_of(lane), header.first.to_be_bytes().to_vec())),
        Kind::Assignment => slot().map(|key| (Name::Assignment, key)),
        Kind::Bundle => slot().map(|key| (Name::Bundle, key)),
        Kind::Meta => Some((Name::Meta, name.into())),
        Kind::Trait => Some((Name::Traits, name.into())),
        Kind::Seal => None,
    }
}

/// A stored value, checked to be whole, ours, and where it belongs.
pub(super) fn checked<'a>(name: Name, uuid: Uuid, key: &[u8], bytes: &'a [u8]) -> Result<Value<'a>, CacheError> {
    let value = Value::decode(bytes).map_err(|damage| corrupt(name.text(), key, &damage))?;
    if value.header.uuid != uuid {
        return Err(CacheError::Corrupt(format!("state store: it belongs to envoy {}", value.header.uuid)));
    }
    if home(&value.header, value.name).is_none_or(|(db, at)| db != name || at != key) {
        let text = "it is not where it belongs";
        return Err(CacheError::Corrupt(format!("state store: database {}, {}: {text}", name.text(), key_text(key))));
    }
    Ok(value)
}

fn walk(
    env: &Env,
    uuid: Uuid,
    visit: &mut dyn FnMut(Name, &[u8], &Value<'_>) -> Result<(), CacheError>,
) -> Result<(), Fault> {
    let txn = env.read()?;
    for name in Name::ALL {
        for entry in env.db(name).iter(&txn)? {
            let (key, bytes) = entry?;
            if key != SEAL_KEY {
                visit(name, key, &checked(name, uuid, key, bytes)?)?;
            }
        }
    }
    Ok(())
}

fn read_seal(env: &Env, uuid: Uuid) -> Result<Seal, Fault> {
    let txn = env.read()?;
    let missing = || CacheError::Corrupt("state store: it has no seal".into());
    let bytes = env.db(Name::Meta).get(&txn, SEAL_KEY)?.ok_or_else(missing)?;
    let value = Value::decode(bytes).map_err(|damage| corrupt("meta", SEAL_KEY, &damage))?;
    let seal = Seal::decode(&value).map_err(|damage| corrupt("meta", SEAL_KEY, &damage))?;
    if value.header.uuid != uuid {
        return Err(CacheError::Corrupt(format!("state store: it belongs to envoy {}", value.header.uuid)).into());
    }
    if seal.txn != txn.id() as u64 {
        let text = format!("state store: its seal is of transaction {}, not {}", seal.txn, txn.id());
        return Err(CacheError::Corrupt(text).into());
    }
    Ok(seal)
}

/// The floor of a lane: the oldest record that is left, or above all where none is.
fn set_floor(txn: &heed::RoTxn<'_>, db: &Db<'_>, lane: Lane, seal: &mut Seal) -> Result<(), Fault> {
    let first = db.first(txn)?.and_then(|(key, _)| key.try_into().ok().map(u64::from_be_bytes));
    let lane = &mut seal.lanes[lane.index()];
    lane.floor = first.unwrap_or(lane.highest + 1);
    Ok(())
}

fn corrupt(db: &str, key: &[u8], damage: &codec::Damage) -> CacheError {
    CacheError::Corrupt(format!("state store: database {db}, {}: {damage}", key_text(key)))
}

/// A key for people: a sequence, or a name.
fn key_text(key: &[u8]) -> String {
    match (<[u8; 8]>::try_from(key), std::str::from_utf8(key)) {
        (_, Ok(name)) if key.iter().all(u8::is_ascii_graphic) => format!("key {name}"),
        (Ok(bytes), _) => format!("sequence {}", u64::from_be_bytes(bytes)),
        _ => "a key that is none of ours".to_string(),
    }
}

/// What the core is told of a fault, with the path.
pub(super) fn told(fault: Fault, dir: &Path) -> CacheError {
    let at = |text: String| match text.strip_prefix("state store: ") {
        Some(rest) => format!("state store {}: {rest}", dir.display()),
        None => text,
    };
    match fault {
        Fault::MapFull | Fault::Failed(CacheError::Full) => CacheError::Full,
        Fault::NoMemory => CacheError::Io(at("state store: the address space is too small to map it".into())),
        Fault::Failed(CacheError::Io(text)) => CacheError::Io(at(text)),
        Fault::Failed(CacheError::Corrupt(text)) => CacheError::Corrupt(at(text)),
    }
}

#[cfg(test)]
mod tests;
