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
use common::proto::wire;

use super::batch::{Batch, Work, put_bytes};
use super::check::check_batch;
use super::codec::{self, Header, Kind, Slot, Value};
use super::compact::{copy_beside, put_in_place};
use super::env::{Db, Env, Fault, Name, page_multiple};
use super::ops::{Cache, CacheError, Loaded, QueueRecord, StoreOp};
use super::seal::{SEAL_KEY, Seal};

/// Map of a store that is small; it doubles from here.
const MAP_BYTES_FIRST: usize = 1 << 20;
/// Of the bound, the part that is kept free for batches that delete: one in so many.
const RESERVE_PART: usize = 8;
/// Room on the disk that a batch must leave for the next one that deletes: LMDB writes pages before it frees some.
const ROOM_BYTES: usize = 128 << 10;
/// After about so many bytes read through the map it is made afresh: pages that were read stay in this process's memory as
/// long as it stands.
const REMAP_BYTES: usize = 2 << 20;
/// Bytes of pages that a transaction reads, about, whatever it puts.
const TRANSACTION_BYTES: usize = 64 << 10;

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

/// Receives a checked value: database, key, value.
pub(super) type OnValue<'a> = &'a mut dyn FnMut(Name, &[u8], &Value<'_>) -> Result<(), CacheError>;

/// The agent's state in LMDB.
pub(super) struct LmdbCache {
    place: Place,
    /// `None` after a failure, until the next operation opens it again.
    env: Option<Env>,
    /// As of the last commit.
    seal: Seal,
    /// Bytes of the map when it was last open.
    map_bytes: usize,
    /// Bytes read through the map, about.
    read_bytes: usize,
    /// Lowest revision that may be given out: above everything that a scan of the file found, also what was never committed.
    revision_floor: u64,
}

impl LmdbCache {
    /// Opens the store at `place`, which has been probed. `revision_floor` is the highest revision in the raw file.
    pub(super) fn open(place: Place, revision_floor: u64) -> Result<LmdbCache, CacheError> {
        let (seal, map_bytes) = (Seal::default(), MAP_BYTES_FIRST);
        let mut cache = LmdbCache { place, env: None, seal, map_bytes, read_bytes: 0, revision_floor };
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
        let bytes = values.iter().map(|(_, _, value)| value.len()).sum();
        self.transact(bytes, false, &mut |batch| {
            let put = |(name, key, value): &(Name, Vec<u8>, Vec<u8>)| {
                batch.touch(*name);
                batch.replace(*name, key, Some(value))
            };
            values.iter().try_for_each(put)
        })
    }

    /// Bytes of the map and of the pages in use: for `status` and the tests.
    #[cfg(test)]
    pub(super) fn map_bytes(&self) -> usize {
        self.map_bytes
    }

    /// The seal of the last commit.
    pub(super) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Visits every value but the seal, in order of database and key, checked.
    pub(super) fn walk(&mut self, visit: OnValue<'_>) -> Result<(), CacheError> {
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
        self.read_bytes = 0;
        let env = Env::open(&self.place.dir, self.map_bytes.min(self.place.bytes_max), self.place.flags(), None)
            .map_err(|fault| told(fault, &self.place.dir))?;
        let seal = read_seal(&env, self.place.uuid).map_err(|fault| told(fault, &self.place.dir))?;
        (self.seal, self.map_bytes) = (seal, env.map_bytes);
        self.env = Some(env);
        Ok(())
    }

    /// Notes that so much was read, and lets the map go where that is enough; the next operation makes it again.
    fn note_read(&mut self, bytes: usize) {
        self.read_bytes += bytes;
        if self.read_bytes > REMAP_BYTES {
            self.env = None;
        }
    }

    /// Does `work`, which puts about `bytes`, in one transaction, with as large a map as it needs. One that deletes may need
    /// as many fresh pages as it touches: it may grow the map beyond the bound for once, and is compacted after.
    fn transact(&mut self, bytes: usize, deletes: bool, work: Work<'_>) -> Result<(), CacheError> {
        let bound = page_multiple(self.place.bytes_max);
        let result = self.transact_within(bytes, if deletes { bound.saturating_mul(2) } else { bound }, work);
        self.map_bytes = self.env.as_ref().map_or(self.map_bytes, |env| env.map_bytes);
        if deletes && self.env.as_ref().is_some_and(|env| env.file_bytes() > bound) {
            // What was asked for is done; a disk that has no room for a copy has room for the file as it is.
            let _ = self.compact();
        }
        self.note_read(bytes + TRANSACTION_BYTES);
        result
    }

    fn transact_within(&mut self, bytes: usize, map_max: usize, work: Work<'_>) -> Result<(), CacheError> {
        // Ends: every turn but the last makes the map larger, up to its bound, or compacts, once.
        let mut compacted = false;
        loop {
            match self.try_transact(bytes, work) {
                Ok(()) => return Ok(()),
                Err(Fault::MapFull) => {
                    // At the bound with room enough, but in pieces: once, compacted.
                    if !self.grow(map_max)? {
                        if compacted || !self.fits_in_pieces(bytes)? || !self.compact()? {
                            return Err(CacheError::Full);
                        }
                        compacted = true;
                    }
                }
                Err(Fault::Failed(CacheError::Full)) => return Err(CacheError::Full),
                Err(fault) => {
                    // Where a disk was full after all, LMDB says "I/O error" for a write that was cut short.
                    let room = self.env.as_ref().map(|env| env.reserve(env.file_bytes(), ROOM_BYTES));
                    // Aborted; but after a failed write LMDB may refuse to go on until it is opened again.
                    self.env = None;
                    return match (told(fault, &self.place.dir), room) {
                        (CacheError::Io(_), Some(Err(Fault::Failed(CacheError::Full)))) => Err(CacheError::Full),
                        (error, _) => Err(error),
                    };
                }
            }
        }
    }

    fn try_transact(&mut self, bytes: usize, work: Work<'_>) -> Result<(), Fault> {
        let (uuid, bytes_max) = (self.place.uuid, self.place.bytes_max);
        // Opens first where it must: that reads the seal.
        let env = self.env()?;
        let before = env.live_bytes(&*env.read()?)?;
        // The map grows ahead of need: where the address space ends it, there is still room to delete.
        if before / 3 * 4 > env.map_bytes {
            self.grow(page_multiple(bytes_max))?;
        }
        let mut seal = self.seal;
        seal.revision = seal.revision.max(self.revision_floor);
        let env = self.env()?;
        let has_room = match env.reserve(before, bytes + ROOM_BYTES) {
            Ok(()) => true,
            Err(Fault::Failed(CacheError::Full)) => false,
            Err(fault) => return Err(fault),
        };
        let mut batch = Batch::begin(env, seal, uuid)?;
        work(&mut batch)?;
        let live_max = if has_room { bytes_max - bytes_max / RESERVE_PART } else { 0 };
        self.seal = batch.commit(before, live_max)?;
        Ok(())
    }

    /// Whether a batch of `bytes` would fit if the free pages were in one piece.
    fn fits_in_pieces(&mut self, bytes: usize) -> Result<bool, CacheError> {
        let (bytes_max, dir) = (self.place.bytes_max, self.place.dir.clone());
        let live_bytes = |env: &Env| -> Result<usize, Fault> { env.live_bytes(&*env.read()?) };
        let live = live_bytes(self.env()?).map_err(|fault| told(fault, &dir))?;
        let file_bytes = self.env()?.file_bytes();
        // A file that is compact already would be written again for nothing, each time that the batch is tried.
        let in_pieces = file_bytes > live + live / 8 + 4 * ROOM_BYTES;
        Ok(in_pieces && live + bytes <= bytes_max - bytes_max / RESERVE_PART)
    }

    /// Writes the store afresh; it is closed after it. `false` where the disk has no room for that.
    fn compact(&mut self) -> Result<bool, CacheError> {
        let place = self.place.clone();
        let Ok(made) = copy_beside(self, &place) else { return Ok(false) };
        self.env = None;
        put_in_place(&place.dir, &made).map_err(CacheError::Io)?;
        Ok(true)
    }

    /// Makes the map larger. `false` where it is at `map_max`.
    fn grow(&mut self, map_max: usize) -> Result<bool, CacheError> {
        for part in [1, 2, 4] {
            let Some(env) = &mut self.env else { return Ok(false) };
            let before = env.map_bytes;
            let wanted = before.saturating_add(before / part).min(map_max);
            if wanted <= before {
                return Ok(false);
            }
            match env.resize(wanted) {
                Ok(()) => return Ok(true),
                // LMDB has let go of its map: open again with the old size, and try a smaller step.
                Err(Fault::NoMemory) => self.reopen()?,
                Err(fault) => {
                    self.env = None;
                    return Err(told(fault, &self.place.dir));
                }
            }
        }
        // The address space is the bound from now on.
        self.place.bytes_max = self.env.as_ref().map_or(self.place.bytes_max, |env| env.map_bytes);
        Ok(false)
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
        let file_bytes = self.env.as_ref().map_or(0, Env::file_bytes);
        self.note_read(file_bytes);
        Ok(loaded)
    }

    fn commit(&mut self, batch: &[StoreOp]) -> Result<(), CacheError> {
        check_batch(batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = batch.iter().map(put_bytes).sum();
        let deletes = batch.iter().any(|op| matches!(op, StoreOp::DeleteRecords { .. }));
        self.transact(bytes, deletes, &mut |work| batch.iter().try_for_each(|op| work.apply(op)))
    }

    fn read_records(&mut self, lane: Lane, first: u64, max_bytes: usize) -> Result<Vec<QueueRecord>, CacheError> {
        let (uuid, dir) = (self.place.uuid, self.place.dir.clone());
        let mut total = 0;
        let mut read = |env: &Env| -> Result<Vec<QueueRecord>, Fault> {
            let (txn, name) = (env.read()?, db_of(lane));
            let mut records = Vec::new();
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
        let records = read(self.env()?).map_err(|fault| told(fault, &dir));
        self.note_read(total);
        records
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

fn walk(env: &Env, uuid: Uuid, visit: OnValue<'_>) -> Result<(), Fault> {
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

pub(super) fn corrupt(db: &str, key: &[u8], damage: &codec::Damage) -> CacheError {
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
