//! Opening LMDB: flags, map size and databases. The only place that talks to `heed` about files.
//!
//! `NO_LOCK`: LMDB's own locks are off. The caller holds the lock of the state directory and uses an [`Env`] from one
//! thread, one transaction at a time. Commits sync; no flag that weakens that is set outside tests.

use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{CommitOrAbort, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};

use crate::sys::fork::while_nothing_forks;

use super::ops::CacheError;

/// The file that LMDB keeps in its directory.
pub(super) const DATA_FILE: &str = "data.mdb";
/// Directory below the state directory in which a new store is made before it takes the place of the old one.
pub(super) const REBUILD_DIR: &str = "rebuild";

/// Smallest map: what an empty store with all databases needs, and some room.
const MAP_BYTES_MIN: usize = 256 << 10;

/// The file is given room on its disk in steps of about so much, so that not every commit asks for it.
const ROOM_STEP_BYTES: usize = 128 << 10;

/// A database of the store; all have bytes for keys and values.
pub(super) type Db<'t> = heed::Database<'t, Bytes, Bytes>;

/// Puts what belongs into the transaction that makes the databases.
pub(super) type Fill<'a> = &'a mut dyn FnMut(&mut RwTxn<'_>, &[Db<'_>; 7]) -> Result<(), Fault>;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Name {
    /// Slots of the signed bundle.
    Bundle,
    /// Slots of the signed assignment.
    Assignment,
    /// Sealed secrets.
    Secrets,
    /// Trait trees.
    Traits,
    /// Records of the urgent lane.
    Urgent,
    /// Records of the routine lane.
    Routine,
    /// Everything else, and the seal.
    Meta,
}

impl Name {
    pub(super) const ALL: [Name; 7] =
        [Name::Bundle, Name::Assignment, Name::Secrets, Name::Traits, Name::Urgent, Name::Routine, Name::Meta];

    pub(super) fn text(self) -> &'static str {
        match self {
            Name::Bundle => "bundle",
            Name::Assignment => "assignment",
            Name::Secrets => "secrets",
            Name::Traits => "traits",
            Name::Urgent => "urgent",
            Name::Routine => "routine",
            Name::Meta => "meta",
        }
    }
}

/// What LMDB could not do.
#[derive(Debug)]
pub(super) enum Fault {
    /// The map is too small for this transaction.
    MapFull,
    /// The address space is too small for the map.
    NoMemory,
    /// The environment is unusable until it is opened again, or the operation failed: what the core is told.
    Failed(CacheError),
}

impl From<CacheError> for Fault {
    fn from(error: CacheError) -> Fault {
        Fault::Failed(error)
    }
}

impl From<heed::Error> for Fault {
    fn from(error: heed::Error) -> Fault {
        match error {
            heed::Error::Mdb(MdbError::MapFull) => Fault::MapFull,
            // LMDB refuses to go on after a failed write of its meta page; opening again picks the older one.
            heed::Error::Mdb(MdbError::Panic) => {
                Fault::Failed(CacheError::Io("state store: LMDB stopped after a failed write".into()))
            }
            heed::Error::Mdb(error) => Fault::Failed(CacheError::Corrupt(format!("state store: {error}"))),
            heed::Error::Io(error) => match error.raw_os_error() {
                Some(libc::ENOMEM) => Fault::NoMemory,
                Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Fault::Failed(CacheError::Full),
                _ => Fault::Failed(CacheError::Io(format!("state store: {error}"))),
            },
            error => Fault::Failed(CacheError::Io(format!("state store: {error}"))),
        }
    }
}

/// An open LMDB environment with its databases.
pub(super) struct Env {
    /// `None` only while it is dropped.
    env: Option<heed::Env<WithoutTls>>,
    dbs: [Db<'static>; 7],
    /// Bytes of the map.
    pub(super) map_bytes: usize,
    path: PathBuf,
}

impl Env {
    /// Opens the store in `dir`; `create` makes the databases, and `fill` puts what belongs into the same transaction.
    /// Starts with a map of about `map_bytes` and halves it while the address space does not suffice.
    pub(super) fn open(dir: &Path, map_bytes: usize, extra: EnvFlags, fill: Option<Fill<'_>>) -> Result<Env, Fault> {
        let path = dir.join(DATA_FILE);
        let file_bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len() as usize);
        let least = page_multiple(file_bytes.max(MAP_BYTES_MIN));
        let mut map_bytes = page_multiple(map_bytes).max(least);
        let env = loop {
            match open_env(dir, map_bytes, extra) {
                Err(Fault::NoMemory) if map_bytes > least => map_bytes = page_multiple(map_bytes / 2).max(least),
                result => break result?,
            }
        };
        let dbs = match fill {
            Some(fill) => create_databases(&env, fill),
            None => open_databases(&env),
        };
        match dbs {
            Ok(dbs) => Ok(Env { env: Some(env), dbs, map_bytes, path }),
            Err(fault) => {
                while_nothing_forks(|| drop(env));
                Err(fault)
            }
        }
    }

    fn inner(&self) -> &heed::Env<WithoutTls> {
        // `None` only inside `drop`.
        self.env.as_ref().expect("the environment is open")
    }

    pub(super) fn read(&self) -> Result<RoTxn<'_, WithoutTls>, Fault> {
        Ok(self.inner().read_txn()?)
    }

    pub(super) fn write(&self) -> Result<RwTxn<'_>, Fault> {
        Ok(self.inner().write_txn()?)
    }

    pub(super) fn db(&self, name: Name) -> Db<'static> {
        self.dbs[name as usize]
    }

    /// Changes the map size; no transaction is open, because each borrows `self`. After an error the environment must be
    /// opened again: LMDB has unmapped the old map by then.
    pub(super) fn resize(&mut self, map_bytes: usize) -> Result<(), Fault> {
        let map_bytes = page_multiple(map_bytes);
        // SAFETY: no transaction is open (`&mut self`, and transactions borrow `self`), in this process or another (the
        // caller holds the lock of the directory).
        unsafe { self.inner().resize(map_bytes) }?;
        self.map_bytes = map_bytes;
        Ok(())
    }

    /// Bytes of the pages that hold something, as `txn` sees them; without the free pages and the list of them.
    pub(super) fn live_bytes(&self, txn: &heed::RoTxn<'_>) -> Result<usize, Fault> {
        let mut pages = 0;
        let mut page_bytes = 0;
        for name in Name::ALL {
            let stat = self.db(name).stat(txn)?;
            pages += stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
            page_bytes = stat.page_size as usize;
        }
        Ok(pages * page_bytes)
    }

    /// Makes sure that the file has room on its disk for `bytes` more than `live_bytes`, what is in use. A full disk is an
    /// error of kind [`CacheError::Full`] here, before a page is written; LMDB calls it an I/O error when half is written.
    pub(super) fn reserve(&self, live_bytes: usize, bytes: usize) -> Result<(), Fault> {
        let file = std::fs::OpenOptions::new().write(true).open(&self.path).map_err(heed::Error::Io)?;
        let have = file.metadata().map_err(heed::Error::Io)?.len() as usize;
        let wanted = live_bytes.saturating_add(bytes).min(self.map_bytes);
        if have >= wanted {
            return Ok(());
        }
        let more = page_multiple(wanted.saturating_add(ROOM_STEP_BYTES)).min(self.map_bytes).max(wanted) - have;
        // What does not fit an offset does not fit a disk.
        let (from, more) = (i64::try_from(have).unwrap_or(i64::MAX), i64::try_from(more).unwrap_or(i64::MAX));
        match nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), from, more) {
            Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) | Ok(()) => Ok(()),
            Err(errno) => Err(heed::Error::Io(errno.into()).into()),
        }
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> usize {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len() as usize)
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        // heed holds a process-wide lock while it closes; a child forked meanwhile would find it locked for ever.
        while_nothing_forks(|| drop(self.env.take()));
    }
}

/// Rounds up to a multiple of any page size in use (64 KiB), saturating at the largest one.
pub(super) fn page_multiple(bytes: usize) -> usize {
    const STEP: usize = 64 << 10;
    bytes.div_ceil(STEP).min(usize::MAX / STEP) * STEP
}

fn open_env(dir: &Path, map_bytes: usize, extra: EnvFlags) -> Result<heed::Env<WithoutTls>, Fault> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_dbs(Name::ALL.len() as u32);
    while_nothing_forks(|| {
        // SAFETY: NO_LOCK makes the caller own all concurrency: the state directory is locked against other processes
        // before this is reached, one thread owns the environment, and no two transactions are open at a time. The file
        // is mapped: it is changed by this process only, and a child has read all of it before (see `probe`), so that a
        // damaged one is not opened here.
        let opened = unsafe { options.flags(EnvFlags::NO_LOCK | EnvFlags::NO_READ_AHEAD | extra).open(dir) };
        Ok(opened?)
    })
}

fn create_databases(env: &heed::Env<WithoutTls>, fill: Fill<'_>) -> Result<[Db<'static>; 7], Fault> {
    let txn = env.write_txn()?;
    let made = env.create_databases_and_commit(txn, |opener, txn| {
        let mut dbs = Vec::with_capacity(Name::ALL.len());
        for name in Name::ALL {
            dbs.push(opener.create_database::<Bytes, Bytes>(txn, Some(name.text()))?);
        }
        let dbs: [Db<'_>; 7] =
            dbs.try_into().map_err(|_| CacheError::Io("state store: a database is missing".into()))?;
        fill(txn, &dbs)?;
        Ok::<_, Fault>(CommitOrAbort::<_, ()>::Commit(dbs))
    })?;
    match made {
        CommitOrAbort::Commit(dbs) => Ok(dbs),
        CommitOrAbort::Abort(()) => Err(CacheError::Io("state store: its databases could not be made".into()).into()),
    }
}

fn open_databases(env: &heed::Env<WithoutTls>) -> Result<[Db<'static>; 7], Fault> {
    let txn = env.read_txn()?;
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let mut dbs = Vec::with_capacity(Name::ALL.len());
        for name in Name::ALL {
            match opener.open_database::<Bytes, Bytes>(txn, Some(name.text()))? {
                Some(db) => dbs.push(db),
                None => return Ok(CommitOrAbort::Abort(name.text())),
            }
        }
        let dbs: [Db<'_>; 7] =
            dbs.try_into().map_err(|_| CacheError::Io("state store: a database is missing".into()))?;
        Ok::<_, Fault>(CommitOrAbort::Commit(dbs))
    })?;
    match opened {
        CommitOrAbort::Commit(dbs) => Ok(dbs),
        CommitOrAbort::Abort(name) => {
            Err(CacheError::Corrupt(format!("state store: the database {name} is missing")).into())
        }
    }
}
