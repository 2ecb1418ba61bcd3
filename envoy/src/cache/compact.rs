//! Writes a store afresh, without its free pages: for a batch that would fit, but finds no room in one piece.
//!
//! The new file is made and synced beside the old one and takes its place by a rename, as in a rebuild. It needs room on
//! the disk for both; where there is none, the store stays as it is, and full.

use std::fs;
use std::path::{Path, PathBuf};

use common::sys::file::{make_dir, sync_dir};

use super::codec;
use super::env::{DATA_FILE, REBUILD_DIR};
use super::lmdb::{LmdbCache, Place};
use super::ops::CacheError;
use super::seal::Seal;

/// Bytes of values that go into the new store in one transaction: bounds the memory of a small host.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

/// Makes a compact copy of `store` and gives back its file, which the caller puts in place once `store` is closed.
pub(super) fn copy_beside(store: &mut LmdbCache, place: &Place) -> Result<PathBuf, CacheError> {
    let dir = fresh_dir(&place.dir)?;
    let mut copy = LmdbCache::create(Place { dir: dir.clone(), ..place.clone() }, store.seal().without_counts())?;
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    store.walk(&mut |name, key, value| {
        let value = codec::encode(value.header, value.name, value.payload);
        bytes += value.len();
        chunk.push((name, key.to_vec(), value));
        if bytes >= CHUNK_BYTES {
            bytes = 0;
            copy.import(&std::mem::take(&mut chunk))?;
        }
        Ok(())
    })?;
    copy.import(&chunk)?;
    drop(copy);
    sync_dir(&dir).map_err(|error| CacheError::Io(error.to_string()))?;
    Ok(dir.join(DATA_FILE))
}

/// Puts a file that was made beside the store in its place, for good.
pub(super) fn put_in_place(dir: &Path, made: &Path) -> Result<(), String> {
    let path = dir.join(DATA_FILE);
    fs::rename(made, &path).map_err(|error| format!("{}: it cannot be replaced: {error}", path.display()))?;
    // An empty directory that stays is removed by the next one.
    let _ = fs::remove_dir_all(dir.join(REBUILD_DIR));
    sync_dir(dir).map_err(|error| error.to_string())
}

/// An empty directory below the state directory, whatever was there before.
pub(super) fn fresh_dir(state: &Path) -> Result<PathBuf, CacheError> {
    let dir = state.join(REBUILD_DIR);
    if fs::symlink_metadata(&dir).is_ok_and(|meta| !meta.is_dir()) {
        let _ = fs::remove_file(&dir);
    }
    let _ = fs::remove_dir_all(&dir);
    match make_dir(&dir, 0o700, None) {
        Ok(()) => Ok(dir),
        Err(error) if error.kind == std::io::ErrorKind::StorageFull => Err(CacheError::Full),
        Err(error) => Err(CacheError::Io(error.to_string())),
    }
}

impl Seal {
    /// What a copy starts from: everything but the counts, which its values make again.
    pub(super) fn without_counts(&self) -> Seal {
        let lanes = self.lanes.map(|lane| super::seal::LaneSeal {
            highest: lane.highest,
            acked: lane.acked,
            ..Default::default()
        });
        Seal { revision: self.revision, lanes, ..Seal::default() }
    }
}
