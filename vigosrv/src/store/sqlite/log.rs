//! Does the write-ahead log beside a database belong to it? SQLite does not ask: a log that is left over from another database, or
//! from before this one was replaced, is laid over it page by page, and what comes of it is damage.
//!
//! Every commit of ours counts `server_state.continuity` up by one at most, and a log is started over only when all of it is in the
//! database. So the database file, read without its log, is at the count where the log begins or beyond, and not beyond where it
//! ends. Reads the frames of a log, changes nothing.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::copy::open_alone;
use super::{PAGE_BYTES, bits};
use crate::store::StoreError;

const HEADER_BYTES: usize = 32;
const FRAME_BYTES: usize = 24;
/// Magic numbers of a log, by the byte order of its checksums.
const MAGIC: [u32; 2] = [0x377f_0682, 0x377f_0683];
/// First byte of a page that is a leaf of a table.
const LEAF: u8 = 0x0d;
/// Columns of `server_state`.
const SERVER_ID: usize = 1;
const CONTINUITY: usize = 8;

/// What one copy of the page of `server_state` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    server: Vec<u8>,
    continuity: u64,
}

/// Checks the log beside a database that nobody has open. Fine is also what cannot be told: no log, an empty one, a database
/// that was never copied back to.
pub fn check_log(database: &Path) -> Result<(), StoreError> {
    let wal = beside(database, "-wal");
    // What cannot be read is for SQLite to say.
    let Some((page, ours)) = file_alone(database) else { return Ok(()) };
    let Some(states) = states_in(&wal, page) else { return Ok(()) };
    let (Some(first), Some(last)) = (states.first(), states.iter().map(|state| state.continuity).max()) else {
        return Ok(());
    };
    let why = if states.iter().any(|state| state.server != ours.server) {
        "it is of another server's database".to_string()
    } else if ours.continuity + 1 < first.continuity {
        let (n, m) = (ours.continuity, first.continuity);
        format!("it begins at change {m}, and the database ends at change {n}: the database is an older copy")
    } else if ours.continuity > last {
        format!("it ends at change {last}, and the database is at change {} without it", ours.continuity)
    } else {
        return Ok(());
    };
    Err(StoreError::ForeignLog { log: wal, why })
}

/// `database` with something behind its name.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    database.with_file_name(name)
}

/// The database as it is without its log: which page holds `server_state`, and what it says.
fn file_alone(database: &Path) -> Option<(u32, State)> {
    let conn = open_alone(database).ok()?;
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'server_state'";
    let page = conn.query_row(sql, [], |row| row.get(0)).ok()?;
    let sql = "SELECT server_id, continuity FROM server_state WHERE id = 1";
    let state = conn.query_row(sql, [], |row| Ok(State { server: row.get(0)?, continuity: bits(row, 1)? })).ok()?;
    Some((page, state))
}

/// Every state in a log, in order. None where it is no log of such a database.
fn states_in(wal: &Path, page: u32) -> Option<Vec<State>> {
    let mut file = BufReader::new(File::open(wal).ok()?);
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).ok()?;
    if !MAGIC.contains(&word(&header, 0)) || u64::from(word(&header, 8)) != PAGE_BYTES {
        return None;
    }
    let salts = header[16..24].to_vec();
    let mut states = Vec::new();
    let mut frame = [0; FRAME_BYTES];
    let mut bytes = vec![0; PAGE_BYTES as usize];
    // Behind the last frame lie those of before the log was started over, under other salts.
    while file.read_exact(&mut frame).is_ok() && frame[8..16] == salts {
        if word(&frame, 0) == page {
            if file.read_exact(&mut bytes).is_err() {
                break;
            }
            states.extend(state_of(&bytes));
        } else if file.seek_relative(PAGE_BYTES as i64).is_err() {
            file.seek(SeekFrom::End(0)).ok()?;
        }
    }
    Some(states)
}

/// The one row on the page of `server_state` (SQLite's file format, sections 1.6 and 2.1).
fn state_of(page: &[u8]) -> Option<State> {
    if *page.first()? != LEAF || page.get(3..5)? != [0, 1] {
        return None;
    }
    let at = usize::from(u16::from_be_bytes(page.get(8..10)?.try_into().ok()?));
    let mut cell = page.get(at..)?;
    let (_payload_bytes, _id) = (varint(&mut cell)?, varint(&mut cell)?);
    let record = cell;
    let header_bytes = usize::try_from(varint(&mut cell)?).ok()?;
    let mut kinds = record.get(record.len() - cell.len()..header_bytes)?;
    let mut body = record.get(header_bytes..)?;
    let (mut server, mut continuity, mut column) = (None, None, 0);
    while !kinds.is_empty() {
        let kind = varint(&mut kinds)?;
        let bytes = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            _ => usize::try_from(kind.checked_sub(12)? / 2).ok()?,
        };
        let (value, rest) = body.split_at_checked(bytes)?;
        body = rest;
        match column {
            SERVER_ID => server = Some(value.to_vec()),
            CONTINUITY => continuity = Some(if kind == 9 { 1 } else { number(value) }),
            _ => {}
        }
        column += 1;
    }
    Some(State { server: server?, continuity: continuity? })
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| number(bytes) as u32)
}

/// Takes a number of SQLite's variable length from the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for n in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if n == 8 {
            return Some(value << 8 | u64::from(*byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::contract::{SERVER, enrolled};
    use crate::store::{OpenOptions, SqliteStore, Store};

    fn open(dir: &Path) -> SqliteStore {
        fs::create_dir_all(dir).unwrap();
        let options = OpenOptions { ballast_bytes: 0, ..OpenOptions::new(dir.join("vigo.db"), SERVER) };
        SqliteStore::open(&options).unwrap().store
    }

    /// What lies in the directory at this moment, as a crash would leave it.
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }

    fn refused(dir: &Path) -> String {
        let error = check_log(&dir.join("vigo.db")).unwrap_err();
        assert!(matches!(error, StoreError::ForeignLog { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn a_log_that_belongs_to_its_database_is_told_from_others_at_every_moment() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let mut store = open(&at("live"));
        // With the log growing, copied back, and started over; each moment is what a crash would leave.
        for n in 0..40 {
            enrolled(&mut store, n);
            if n % 7 == 6 {
                store.upkeep().unwrap();
                store.upkeep().unwrap();
            }
            let crashed = at(&format!("crash-{n}"));
            copy(&at("live"), &crashed);
            assert_eq!(check_log(&crashed.join("vigo.db")), Ok(()), "{n}");
        }
        // An older database beside a newer log, a newer one beside an older log.
        let mix = |database: u32, log: u32| {
            let mixed = at(&format!("mixed-{database}-{log}"));
            fs::create_dir_all(&mixed).unwrap();
            fs::copy(at(&format!("crash-{database}/vigo.db")), mixed.join("vigo.db")).unwrap();
            fs::copy(at(&format!("crash-{log}/vigo.db-wal")), mixed.join("vigo.db-wal")).unwrap();
            mixed
        };
        assert!(refused(&mix(8, 39)).contains("older copy"));
        assert!(refused(&mix(39, 9)).contains("without it"));
        let error = SqliteStore::open(&OpenOptions::new(mix(7, 38).join("vigo.db"), SERVER)).unwrap_err();
        assert!(error.to_string().contains("vigo.db-wal.foreign"), "{error}");
    }

    #[test]
    fn the_jump_that_settles_a_restore_is_no_mixture() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let mut store = open(&at("live"));
        for n in 0..9 {
            enrolled(&mut store, n);
        }
        drop(store);
        let older = at("older");
        fs::create_dir_all(&older).unwrap();
        let mut first = open(&older);
        enrolled(&mut first, 1);
        drop(first);
        fs::copy(at("live/vigo.db.continuity"), older.join("vigo.db.continuity")).unwrap();
        let mut store = open(&older);
        // All of the log is in the database, so that the next commit starts it over.
        store.upkeep().unwrap();
        store.upkeep().unwrap();
        let raise = crate::store::Write::RaiseEpoch { epoch: 2, reason: "x".into(), at: common::time::Wall(1) };
        store.apply(&[raise]).unwrap();
        copy(&older, &at("crashed"));
        assert_eq!(check_log(&at("crashed/vigo.db")), Ok(()));
        assert!(file_alone(&at("crashed/vigo.db")).unwrap().1.continuity < 9, "the jump is in the log alone");
    }

    #[test]
    fn what_cannot_be_told_is_left_to_sqlite() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let mut store = open(scratch.path());
        enrolled(&mut store, 1);
        let (database, other) = (scratch.path().join("vigo.db"), outside.path().join("with a blank?"));
        copy(scratch.path(), &other);
        for log in [&b""[..], b"short", &[0xff; 9_000]] {
            fs::write(other.join("vigo.db-wal"), log).unwrap();
            assert_eq!(check_log(&other.join("vigo.db")), Ok(()));
        }
        assert_eq!(check_log(&scratch.path().join("none.db")), Ok(()));
        // Bytes that lie are no panic.
        let mut page = fs::read(&database).unwrap();
        page.truncate(2 * PAGE_BYTES as usize);
        for at in 0..page.len() {
            page[at] ^= 0xff;
            let _ = (state_of(&page[..4096.min(page.len())]), page.get(4096..).map(state_of));
            page[at] ^= 0xff;
        }
    }
}
