//! Reads a whole store before it is used: in a child with a deadline, first page by page and then through LMDB.
//!
//! LMDB maps its file, so a damaged one kills its reader; and one flipped bit can hide or bring back a value without
//! touching its checksum. A store is sound where every page, value, count and digest agrees. It is not changed here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::ids::Uuid;

use crate::sys::fork::{self, Ended};

use super::codec::Value;
use super::env::{DATA_FILE, Name};
use super::lmdb::{LmdbCache, Place, checked};
use super::pages::{self, Format};
use super::scan::scan;
use super::seal::{SEAL_KEY, Seal};
use super::walk::{self, Walked};

/// What a probe says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything agrees. The highest revision in the raw file, committed or not.
    Sound {
        /// Highest revision.
        revision: u64,
    },
    /// Something does not: what, in words.
    Damaged(String),
}

/// Counts of a store that is sound page by page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Examined {
    pub(super) walked: Walked,
    pub(super) seal: Seal,
}

/// Probes the store of `place` in a child; without one to be had, page by page in this process, which no file can crash.
pub(super) fn probe(place: &Place, deadline_ms: u64) -> Verdict {
    let path = place.dir.join(DATA_FILE);
    let answer = fork::run(deadline_ms, || match examine_all(place, &path) {
        Ok(revision) => [b"+".as_slice(), &revision.to_be_bytes()].concat(),
        Err(text) => [b"-".as_slice(), text.as_bytes()].concat(),
    });
    match answer {
        Ended::Answered(bytes) => match bytes.split_first() {
            Some((b'+', rest)) => match rest.try_into() {
                Ok(revision) => Verdict::Sound { revision: u64::from_be_bytes(revision) },
                Err(_) => Verdict::Damaged("its reader did not say what it found".into()),
            },
            Some((_, text)) => Verdict::Damaged(String::from_utf8_lossy(text).into_owned()),
            None => Verdict::Damaged("its reader did not say what it found".into()),
        },
        Ended::Died(how) => Verdict::Damaged(format!("its reader died: {how}")),
        Ended::TimedOut => Verdict::Damaged(format!("it could not be read within {} s", deadline_ms / 1_000)),
        Ended::NotStarted(_) => match examine(&path, place.uuid, &mut |_| {}) {
            Ok(_) => Verdict::Sound { revision: highest_revision(&path) },
            Err(text) => Verdict::Damaged(text),
        },
    }
}

fn examine_all(place: &Place, path: &Path) -> Result<u64, String> {
    examine(path, place.uuid, &mut |_| {})?;
    // Once more with the code that the agent will use.
    let mut cache =
        LmdbCache::open(Place { read_only: true, ..place.clone() }, 0).map_err(|error| error.to_string())?;
    let mut found = Seal::default();
    cache
        .walk(&mut |_, _, value| {
            found.add(&value.header);
            Ok(())
        })
        .map_err(|error| error.to_string())?;
    match cache.seal().difference(&found) {
        Some(difference) => Err(format!("read through LMDB, {difference}")),
        None => Ok(highest_revision(path)),
    }
}

/// Reads a store page by page, without LMDB, and checks that everything agrees. `visit` sees every value but the seal.
pub(super) fn examine(path: &Path, uuid: Uuid, visit: &mut dyn FnMut(&Value<'_>)) -> Result<Examined, String> {
    let file = File::open(path).map_err(|error| format!("it cannot be opened: {error}"))?;
    let mut head = [0; 64];
    let head_bytes = file.read_at(&mut head, 0).map_err(|error| format!("it cannot be read: {error}"))?;
    match pages::format(&head[..head_bytes]) {
        Format::Native => {}
        Format::Foreign(of) => return Err(format!("it was made on a {of} host")),
        Format::Unknown => return Err("its first page is not that of a store".into()),
    }
    let metas = pages::read_metas(&file).map_err(|bad| bad.to_string())?;
    let mut seal = None;
    let mut found = Seal::default();
    let mut on_value = |db: &str, key: &[u8], bytes: &[u8]| {
        let name = Name::ALL.into_iter().find(|name| name.text() == db);
        let name = name.ok_or_else(|| format!("it has a database {db:?} that this program does not know"))?;
        if name == Name::Meta && key == SEAL_KEY {
            seal = Some(read_seal(bytes, uuid)?);
            return Ok(());
        }
        let value = checked(name, uuid, key, bytes).map_err(|error| error.to_string())?;
        found.add(&value.header);
        visit(&value);
        Ok(())
    };
    let walked = walk::newest(&file, &metas, &mut on_value).map_err(|bad| bad.to_string())?;
    let seal = seal.ok_or("it has no seal")?;
    if seal.txn != walked.txn {
        return Err(format!("its seal is of transaction {}, not {}", seal.txn, walked.txn));
    }
    if let Some(difference) = seal.difference(&found) {
        return Err(difference);
    }
    // The other meta page must be the older one: one flipped bit in a transaction number makes LMDB go back by one. Pages
    // of that snapshot alone may be damaged; nothing reads them.
    let other = walk::lookup(&file, &metas[1], Name::Meta.text(), SEAL_KEY);
    if let Ok(Some(bytes)) = other
        && let Ok(older) = read_seal(&bytes, uuid)
        && older.txn != metas[1].txn
    {
        return Err(format!("a newer transaction, {}, is hidden by a damaged meta page", older.txn));
    }
    Ok(Examined { walked, seal })
}

fn read_seal(bytes: &[u8], uuid: Uuid) -> Result<Seal, String> {
    let value = Value::decode(bytes).map_err(|damage| format!("its seal: {damage}"))?;
    if value.header.uuid != uuid {
        return Err(format!("it belongs to envoy {}", value.header.uuid));
    }
    Seal::decode(&value).map_err(|damage| format!("its seal: {damage}"))
}

fn highest_revision(path: &Path) -> u64 {
    let mut highest = 0;
    if let Ok(file) = File::open(path) {
        scan(&file, &mut |found| highest = highest.max(found.header.revision));
    }
    highest
}
