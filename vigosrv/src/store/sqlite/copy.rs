//! Copies of a database: made of one state that it really had, beside a server that goes on writing; what one holds; and
//! whether one is whole, made here or brought back from elsewhere.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use common::sys::Owner;
use common::sys::file::hand_over;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::log::beside;
use crate::store::StoreError;

/// How long to wait for a process that holds the database at an awkward moment.
const BUSY_MS: u64 = 10_000;

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Version of the schema.
    pub schema: u32,
    /// Envoys that are not revoked.
    pub envoys: u64,
    /// Epoch of the server.
    pub epoch: u64,
    /// Its serial.
    pub serial: u64,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
}

/// Copies a live database to a file that is not there yet. One step over all pages inside one read transaction: stepping in
/// parts would start over whenever somebody writes. Writers are not stalled; the WAL grows meanwhile.
pub fn copy_database(from: &Path, to: &Path, owner: Owner) -> Result<(), StoreError> {
    let fail = |error: rusqlite::Error| wrong(from, &error.to_string());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags).map_err(fail)?;
    source.busy_timeout(std::time::Duration::from_millis(BUSY_MS)).map_err(fail)?;
    let mut copy = Connection::open(to).map_err(fail)?;
    // It has a name of its own until it is whole: nothing is lost when it is cut.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;").map_err(fail)?;
    let done = Backup::new(&source, &mut copy).and_then(|backup| backup.step(-1)).map_err(fail)?;
    // A reader makes these where they were missing; the server must be able to open them.
    for suffix in ["-wal", "-shm"] {
        let path = beside(from, suffix);
        if path.symlink_metadata().is_ok() {
            let _ = hand_over(&path, Some(owner));
        }
    }
    if done != StepResult::Done {
        return Err(wrong(from, "it is busy: try again"));
    }
    copy.close().map_err(|(_, error)| fail(error))
}

/// Counts what a copy holds.
pub fn facts_of_copy(copy: &Path) -> Result<DatabaseFacts, StoreError> {
    let fail = |error: rusqlite::Error| wrong(copy, &error.to_string());
    let conn = open_alone(copy).map_err(fail)?;
    let schema = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail)?;
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut statement = conn.prepare(tables).map_err(fail)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0)).map_err(fail)?;
    let names: Vec<String> = names.collect::<rusqlite::Result<_>>().map_err(fail)?;
    let mut rows = BTreeMap::new();
    for name in names {
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        let n: i64 = conn.query_row(&sql, [], |row| row.get(0)).map_err(fail)?;
        rows.insert(name, n.unsigned_abs());
    }
    let (epoch, serial): (i64, i64) = conn
        .query_row("SELECT epoch, serial FROM server_state", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(fail)?;
    let envoys = rows.get("envoys").copied().unwrap_or(0);
    Ok(DatabaseFacts { schema, envoys, epoch: epoch.cast_unsigned(), serial: serial.cast_unsigned(), rows })
}

/// Is the copy whole? Every page, every index, every reference between tables.
pub fn check_copy(copy: &Path) -> Result<(), StoreError> {
    let fail = |error: rusqlite::Error| wrong(copy, &error.to_string());
    let conn = open_alone(copy).map_err(fail)?;
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(fail)?;
    if verdict != "ok" {
        let first = verdict.lines().next().unwrap_or("?");
        return Err(wrong(copy, &format!("the database is damaged ({first})")));
    }
    let mut statement = conn.prepare("PRAGMA foreign_key_check").map_err(fail)?;
    let mut rows = statement.query([]).map_err(fail)?;
    if let Some(row) = rows.next().map_err(fail)? {
        let table: String = row.get(0).map_err(fail)?;
        return Err(wrong(copy, &format!("a row of `{table}` refers to one that is not there")));
    }
    Ok(())
}

/// Opens a database file that nobody writes to, without its log and without making files beside it.
pub(super) fn open_alone(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let mut uri = "file:".to_string();
    for byte in std::path::absolute(file).unwrap_or_default().as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    Connection::open_with_flags(uri + "?immutable=1", flags)
}

/// About a copy there is no more advice than what is wrong: another one is taken.
fn wrong(path: &Path, why: &str) -> StoreError {
    StoreError::Io(format!("{}: {why}", path.display()))
}
