//! Opens the agent's state, whatever is there, without a human: probe, set aside, salvage, rebuild, or go on in memory.
//!
//! Order of a rebuild: the new store is made and synced beside the old one, the old one gets a second name in
//! `state.corrupt-<time>`, and the new one takes its place by a rename. A crash at any point leaves the old store or the
//! new one. Only one reason stops the agent: another one that holds the directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::chain::Lane;
use common::ids::Uuid;
use common::limits;
use common::sys::file::{make_dir, sync_dir};
use common::sys::{Lock, LockError};
use common::time::Wall;

use super::compact::{fresh_dir, put_in_place};
use super::env::{DATA_FILE, REBUILD_DIR};
use super::lmdb::{LmdbCache, Place};
use super::memory::MemoryCache;
use super::ops::{Cache, CacheError, Loaded, QueueRecord, StoreOp};
use super::probe::{Verdict, probe};
use super::salvage::Salvaged;

/// Name of the lock file in the state directory.
pub const LOCK_FILE: &str = "lock";

/// Meta value with incidents, one a line, that the next process that opens the store is to tell. No name of the core's.
const INCIDENTS_META: &str = "store.incidents";

/// What to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory, such as `/var/lib/vigo/state`.
    pub dir: PathBuf,
    /// The envoy whose state it is; values of another one are left out.
    pub uuid: Uuid,
    /// Whom the store may still belong to: who the envoy was before it was enrolled again. Its queue is carried over.
    pub former: Option<Uuid>,
    /// `state.max_bytes`.
    pub bytes_max: u64,
    /// Time that the child gets that reads the whole store, in milliseconds.
    pub probe_deadline_ms: u64,
    /// Who holds the lock, for the message that a second agent gets: `vigo-envoy daemon`.
    pub who: &'static str,
    /// Labels a store that is moved aside.
    pub now: Wall,
}

impl Options {
    /// With the bounds of [`limits`].
    pub fn new(dir: &Path, uuid: Uuid, now: Wall) -> Options {
        Options {
            dir: dir.to_path_buf(),
            uuid,
            former: None,
            bytes_max: limits::STATE_BYTES_DEFAULT,
            probe_deadline_ms: limits::PROBE_DEADLINE_MS,
            who: "vigo-envoy",
            now,
        }
    }
}

/// The agent's state, on disk or in memory, with the lock of its directory.
pub struct Store {
    options: Options,
    backend: Backend,
    /// Handed to the core once, by the first `load`.
    incidents: Vec<String>,
    /// Held as long as the store is open.
    lock: Option<Lock>,
}

enum Backend {
    Disk(Box<LmdbCache>),
    Memory(Box<MemoryCache>),
}

/// Why there is no store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process holds the directory: exit status 75, with the text that says who.
    Held(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let OpenError::Held(text) = self;
        write!(f, "{text}: one agent per state directory; stop it, or use another --state-dir")
    }
}

impl std::error::Error for OpenError {}

impl Store {
    /// Opens the state. Whatever is wrong with it becomes an incident of the first [`Cache::load`].
    pub fn open(options: &Options) -> Result<Store, OpenError> {
        let mut incidents = Vec::new();
        let lock = match take_lock(options, &mut incidents) {
            Ok(lock) => lock,
            Err(Refusal::Held(text)) => return Err(OpenError::Held(text)),
            Err(Refusal::Disk(reason)) => return Ok(Store::in_memory(options, incidents, reason, None)),
        };
        match open_locked(options, &mut incidents) {
            Ok(cache) => {
                let (backend, options) = (Backend::Disk(Box::new(cache)), options.clone());
                Ok(Store { options, backend, incidents, lock: Some(lock) })
            }
            Err(reason) => Ok(Store::in_memory(options, incidents, reason, Some(lock))),
        }
    }

    /// After [`CacheError::Corrupt`]: probes, sets aside and salvages again, under the lock that is held. What is in memory
    /// stays there. The next [`Cache::load`] says what happened.
    pub fn reopen(&mut self, now: Wall) {
        if self.is_memory_only() {
            return;
        }
        self.options.now = now;
        // The file must be closed before it is opened again.
        self.backend = Backend::Memory(Box::default());
        match open_locked(&self.options, &mut self.incidents) {
            Ok(cache) => self.backend = Backend::Disk(Box::new(cache)),
            Err(reason) => {
                let incidents = std::mem::take(&mut self.incidents);
                *self = Store::in_memory(&self.options, incidents, reason, self.lock.take());
            }
        }
    }

    /// Whether nothing of this store survives the process.
    pub fn is_memory_only(&self) -> bool {
        matches!(self.backend, Backend::Memory(_))
    }

    /// Leaves incidents for the next process that opens this store: for one that is about to end over them.
    pub fn leave_incidents(&mut self, incidents: &[String]) {
        let mut text = incidents.join("\n");
        let end = (0..=text.len().min(limits::META_VALUE_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        // A store that takes nothing tells its own story at the next start.
        let _ = self.commit(&[StoreOp::SetMeta(INCIDENTS_META.into(), text.into_bytes())]);
    }

    /// The disk refuses: what can still be read goes on in memory.
    fn in_memory(options: &Options, mut incidents: Vec<String>, reason: String, lock: Option<Lock>) -> Store {
        incidents.push(format!("memory-only: {reason}"));
        let salvaged = Salvaged::from_file(&options.dir.join(DATA_FILE), options.uuid, options.former);
        let memory = salvaged.into_memory(options.bytes_max, Vec::new());
        Store { options: options.clone(), backend: Backend::Memory(Box::new(memory)), incidents, lock }
    }

    fn cache(&mut self) -> &mut dyn Cache {
        match &mut self.backend {
            Backend::Disk(cache) => cache.as_mut(),
            Backend::Memory(cache) => cache.as_mut(),
        }
    }
}

impl Cache for Store {
    fn load(&mut self) -> Result<Loaded, CacheError> {
        let mut loaded = self.cache().load()?;
        let left = loaded.meta.remove(INCIDENTS_META).unwrap_or_default();
        if !left.is_empty() {
            self.incidents.extend(String::from_utf8_lossy(&left).lines().map(str::to_owned));
            // Told twice where this fails: better than never.
            let _ = self.cache().commit(&[StoreOp::SetMeta(INCIDENTS_META.into(), Vec::new())]);
        }
        loaded.incidents.splice(0..0, std::mem::take(&mut self.incidents));
        Ok(loaded)
    }

    fn commit(&mut self, batch: &[StoreOp]) -> Result<(), CacheError> {
        self.cache().commit(batch)
    }

    fn read_records(&mut self, lane: Lane, first: u64, max_bytes: usize) -> Result<Vec<QueueRecord>, CacheError> {
        self.cache().read_records(lane, first, max_bytes)
    }
}

enum Refusal {
    Held(String),
    Disk(String),
}

fn take_lock(options: &Options, incidents: &mut Vec<String>) -> Result<Lock, Refusal> {
    let dir = &options.dir;
    if fs::metadata(dir).is_ok_and(|meta| !meta.is_dir()) {
        let aside = aside_name(dir, options.now);
        let moved = fs::rename(dir, &aside);
        moved.map_err(|e| Refusal::Disk(format!("{} is no directory and cannot be moved: {e}", dir.display())))?;
        incidents.push(format!("moved-aside: {}: it is no directory", aside.display()));
    }
    make_dir(dir, 0o700, None).map_err(|error| Refusal::Disk(error.to_string()))?;
    let path = dir.join(LOCK_FILE);
    if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
        // Nothing that an agent made; a directory here would keep every agent from starting.
        let aside = free_name(&dir.join(format!("{LOCK_FILE}.aside")));
        let moved = fs::rename(&path, &aside);
        moved.map_err(|e| Refusal::Disk(format!("{} is no file and cannot be moved: {e}", path.display())))?;
        incidents.push(format!("moved-aside: {}: it is no lock file", aside.display()));
    }
    match Lock::take(&path, options.who) {
        Ok(lock) => Ok(lock),
        Err(error @ LockError::Held { .. }) => Err(Refusal::Held(error.to_string())),
        Err(LockError::File(error)) => Err(Refusal::Disk(error.to_string())),
    }
}

/// Opens or rebuilds; the error says why the disk cannot be used.
fn open_locked(options: &Options, incidents: &mut Vec<String>) -> Result<LmdbCache, String> {
    let path = options.dir.join(DATA_FILE);
    let place = Place::new(&options.dir, options.uuid, options.bytes_max.max(limits::STATE_BYTES_MIN));
    let rebuilt = options.dir.join(REBUILD_DIR).join(DATA_FILE);
    // Only where the file system has no hard links: the crash came between the two renames.
    if fs::symlink_metadata(&path).is_err() && rebuilt.exists() {
        let _ = fs::rename(&rebuilt, &path);
    }
    let reason = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return rebuild(options, &place, &Salvaged::nothing(options.uuid), None, incidents);
        }
        Err(error) => return Err(format!("{}: {error}", path.display())),
        Ok(meta) if !meta.is_file() => "it is no regular file".to_string(),
        Ok(meta) if meta.len() == 0 => "it is empty".to_string(),
        Ok(_) => match probe(&place, options.probe_deadline_ms) {
            Verdict::Damaged(reason) => reason,
            Verdict::Sound { revision } => match LmdbCache::open(place.clone(), revision) {
                Ok(cache) => return Ok(cache),
                Err(CacheError::Corrupt(reason)) => reason,
                // Not the store's fault: no memory, no permission. Nothing is moved.
                Err(error) => return Err(error.to_string()),
            },
        },
    };
    let salvaged = Salvaged::from_file(&path, options.uuid, options.former);
    rebuild(options, &place, &salvaged, Some(reason), incidents)
}

/// Makes a new store of what was saved, and puts it in the place of the old one.
fn rebuild(
    options: &Options,
    place: &Place,
    salvaged: &Salvaged,
    reason: Option<String>,
    incidents: &mut Vec<String>,
) -> Result<LmdbCache, String> {
    let mut made = make_beside(place, salvaged);
    if made.is_err() {
        // Perhaps the disk is full: what was set aside earlier is worth less than what is in use.
        prune_aside(&options.dir, 0);
        made = make_beside(place, salvaged);
    }
    let (left_out, built) = made?;
    if let Some(reason) = reason {
        let aside = set_aside(options)?;
        incidents.push(format!("moved-aside: {}: {reason}", aside.display()));
        incidents.extend(salvaged.lines());
        if left_out > 0 {
            incidents.push(format!("left out {left_out} values that do not fit any more"));
        }
    }
    put_in_place(&options.dir, &built)?;
    prune_aside(&options.dir, limits::CORRUPT_STORES_KEPT);
    LmdbCache::open(place.clone(), salvaged.seal().revision).map_err(|error| error.to_string())
}

/// The new store, synced, in its own directory. Gives back how many values did not fit, and its file.
fn make_beside(place: &Place, salvaged: &Salvaged) -> Result<(u64, PathBuf), String> {
    let dir = fresh_dir(&place.dir).map_err(|error| error.to_string())?;
    let beside = Place { dir: dir.clone(), ..place.clone() };
    let mut store = LmdbCache::create(beside, salvaged.seal()).map_err(|error| error.to_string())?;
    let left_out = salvaged.import(&mut store).map_err(|error| error.to_string())?;
    drop(store);
    sync_dir(&dir).map_err(|error| error.to_string())?;
    Ok((left_out, dir.join(DATA_FILE)))
}

/// Gives the damaged file a second name beside the state directory, or inside where that cannot be written. By a hard
/// link, so that the store is never without a file; where there are none, by a rename.
fn set_aside(options: &Options) -> Result<PathBuf, String> {
    let from = options.dir.join(DATA_FILE);
    let mut refusal = String::new();
    for base in [options.dir.clone(), options.dir.join("state")] {
        let dir = aside_name(&base, options.now);
        let to = dir.join(DATA_FILE);
        let moved = fs::create_dir(&dir).and_then(|()| fs::hard_link(&from, &to).or_else(|_| fs::rename(&from, &to)));
        match moved {
            Ok(()) => {
                // A directory cannot be linked, nor be replaced by a file: it was renamed. The names are durable before
                // the old one goes; an error here costs evidence, not state.
                let _ = sync_dir(&dir);
                return Ok(dir);
            }
            Err(error) => refusal = format!("{}: {error}", dir.display()),
        }
        let _ = fs::remove_dir(&dir);
    }
    Err(format!("{}: the damaged store cannot be set aside: {refusal}", from.display()))
}

/// `state.corrupt-<time>` beside `base`, a name that is free.
fn aside_name(base: &Path, now: Wall) -> PathBuf {
    let time: String = now.to_string().chars().filter(|c| *c != ':' && *c != '-').collect();
    let name = base.file_name().map_or("state".into(), |name| name.to_string_lossy().into_owned());
    free_name(&base.with_file_name(format!("{name}.corrupt-{time}")))
}

/// A name that nothing has: with a number behind it where needed.
fn free_name(path: &Path) -> PathBuf {
    let numbered = |n: u32| if n == 0 { path.to_path_buf() } else { PathBuf::from(format!("{}-{n}", path.display())) };
    // Two are kept, so the first few numbers do; the last one is an error where it is used.
    (0..100).map(numbered).find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| numbered(100))
}

/// Removes all but the newest `keep` stores that were moved aside. By the time of the directory, not by its name: the clock
/// may have been anywhere.
fn prune_aside(dir: &Path, keep: usize) {
    let own = dir.file_name().map_or("state".into(), |name| name.to_string_lossy().into_owned());
    let places = [(dir.parent(), own), (Some(dir), "state".to_string())];
    let mut found = Vec::new();
    for (parent, name) in places {
        let prefix = format!("{name}.corrupt-");
        let entries = parent.and_then(|parent| fs::read_dir(parent).ok()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            let changed = entry.metadata().and_then(|meta| meta.modified()).ok();
            found.push((changed, entry.file_name(), entry.path()));
        }
    }
    found.sort();
    let n_old = found.len().saturating_sub(keep);
    for (_, _, path) in found.into_iter().take(n_old) {
        if fs::remove_dir_all(&path).is_err() {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests;
