//! FleetIndex: the server's in-memory view of every envoy, rebuilt from the database at start.
//!
//! Sharded by UUID so that readers (API) and the one writer (the core) meet rarely. It holds what a check-in needs, and
//! nothing that grows with policy or history. It never talks to the database: the core turns its dirty set into
//! [`Write::Sightings`](crate::store::Write).

mod entry;
mod view;

pub use entry::{Clocks, Entry};
pub use view::{Filter, Totals, View};

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::ids::Uuid;
use common::time::Mono;

use crate::store::EnvoyRow;

/// Shards: enough that an API scan holds only a small part at a time, few enough that an empty fleet is small.
const SHARDS: usize = 64;

/// A map for keys that the server itself draws (UUIDs, connection numbers): nobody can choose them to collide, and the same
/// history gives the same order, which the simulator needs.
pub(crate) type OwnKeys<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// The index. Shared by the gRPC loop (writes) and the API (reads).
#[derive(Debug)]
pub struct Fleet {
    shards: Vec<Mutex<OwnKeys<Uuid, Entry>>>,
    names: Mutex<BTreeMap<Box<str>, Uuid>>,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), names: Mutex::default() }
    }
}

impl Fleet {
    /// From the rows of the database. `start` counts as a sighting of everybody: time in which the server itself was down
    /// makes no envoy stale.
    pub fn rebuild(rows: &[EnvoyRow], start: Mono) -> Fleet {
        let fleet = Fleet::default();
        for row in rows {
            fleet.insert(Entry::from_row(row, start));
        }
        fleet
    }

    /// Adds or replaces an envoy. Its name then leads to it, unless it is revoked or a younger envoy has that name.
    pub fn insert(&self, entry: Entry) {
        if entry.may_connect() {
            let mut names = lock(&self.names);
            let held = names.get(&entry.hostname).copied();
            let older = held.and_then(|uuid| self.with(&uuid, |other| other.enrolled_serial)).unwrap_or(0);
            if held.is_none() || older <= entry.enrolled_serial {
                names.insert(entry.hostname.clone(), entry.uuid);
            }
        }
        lock(self.shard(&entry.uuid)).insert(entry.uuid, entry);
    }

    /// Reads one entry under its shard's lock.
    pub fn with<T>(&self, uuid: &Uuid, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        lock(self.shard(uuid)).get(uuid).map(read)
    }

    /// Changes one entry under its shard's lock. A change of name goes through [`Fleet::rename`].
    pub fn update<T>(&self, uuid: &Uuid, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        lock(self.shard(uuid)).get_mut(uuid).map(change)
    }

    /// Gives an envoy another name.
    pub fn rename(&self, uuid: &Uuid, hostname: &str) {
        let old = self.update(uuid, |entry| std::mem::replace(&mut entry.hostname, hostname.into()));
        let mut names = lock(&self.names);
        if let Some(old) = old
            && names.get(&old) == Some(uuid)
        {
            names.remove(&old);
        }
        names.insert(hostname.into(), *uuid);
    }

    /// Frees the name of an envoy that may not connect any more.
    pub fn release_name(&self, uuid: &Uuid) {
        lock(&self.names).retain(|_, holder| holder != uuid);
    }

    /// Who has this host name (lower case).
    pub fn by_name(&self, hostname: &str) -> Option<Uuid> {
        lock(&self.names).get(hostname).copied()
    }

    /// Every name in use, for "did you mean".
    pub fn names(&self) -> Vec<String> {
        lock(&self.names).keys().map(|name| name.to_string()).collect()
    }

    /// Visits every entry, one shard locked at a time.
    pub fn for_each(&self, mut visit: impl FnMut(&Entry)) {
        for shard in &self.shards {
            lock(shard).values().for_each(&mut visit);
        }
    }

    /// Visits every entry for change, one shard locked at a time.
    pub fn for_each_mut(&self, mut visit: impl FnMut(&mut Entry)) {
        for shard in &self.shards {
            lock(shard).values_mut().for_each(&mut visit);
        }
    }

    /// Envoys in the index, revoked ones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether nobody is enrolled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, uuid: &Uuid) -> &Mutex<OwnKeys<Uuid, Entry>> {
        // A UUID is random in its last byte, whatever its version.
        &self.shards[usize::from(uuid.as_bytes()[15]) % SHARDS]
    }
}

/// A poisoned lock means that a reader panicked; entries are plain values and stay consistent, so the loop goes on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::entry::tests::row;

    #[test]
    fn a_rebuilt_index_finds_by_id_and_by_name() {
        let rows = [row(1, "a.example"), row(2, "b.example")];
        let fleet = Fleet::rebuild(&rows, Mono(0));
        assert_eq!(fleet.len(), 2);
        assert_eq!(fleet.by_name("b.example"), Some(rows[1].uuid));
        assert_eq!(fleet.with(&rows[0].uuid, |entry| entry.hostname.to_string()), Some("a.example".into()));
    }

    #[test]
    fn a_rename_frees_the_old_name() {
        let rows = [row(1, "a.example")];
        let fleet = Fleet::rebuild(&rows, Mono(0));
        fleet.rename(&rows[0].uuid, "c.example");
        assert_eq!((fleet.by_name("a.example"), fleet.by_name("c.example")), (None, Some(rows[0].uuid)));
    }

    #[test]
    fn the_younger_of_two_holders_has_the_name() {
        let old = row(1, "a.example");
        let mut young = row(2, "a.example");
        young.enrolled_serial = 9;
        for rows in [[old.clone(), young.clone()], [young.clone(), old.clone()]] {
            assert_eq!(Fleet::rebuild(&rows, Mono(0)).by_name("a.example"), Some(young.uuid));
        }
    }
}
