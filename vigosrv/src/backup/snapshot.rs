//! The database in an archive: a copy of one state that it really had, beside a server that goes on writing, and the checks of
//! such a copy.

use std::collections::BTreeMap;
use std::path::Path;

use common::sys::Owner;
use common::sys::file::hand_over;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::error::BackupError;
use super::manifest::DatabaseFacts;

/// How long to wait for a process that holds the database at an awkward moment.
const BUSY_MS: u64 = 10_000;

/// Copies a live database to a file that is not there yet. One step over all pages inside one read transaction: stepping in
/// parts would start over whenever somebody writes. Writers are not stalled; the WAL grows meanwhile.
pub fn copy(from: &Path, to: &Path, owner: Owner) -> Result<(), BackupError> {
    let fail = |error: rusqlite::Error| BackupError::Database(format!("{}: {error}", from.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags).map_err(fail)?;
    source.busy_timeout(std::time::Duration::from_millis(BUSY_MS)).map_err(fail)?;
    let mut copy = Connection::open(to).map_err(fail)?;
    // It has a name of its own until it is whole: nothing is lost when it is cut.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;").map_err(fail)?;
    let done = Backup::new(&source, &mut copy).and_then(|backup| backup.step(-1)).map_err(fail)?;
    // A reader makes these where they were missing; the server must be able to open them.
    for suffix in ["-wal", "-shm"] {
        let mut name = from.as_os_str().to_os_string();
        name.push(suffix);
        if Path::new(&name).exists() {
            let _ = hand_over(Path::new(&name), Some(owner));
        }
    }
    if done != StepResult::Done {
        return Err(BackupError::Database(format!("{}: it is busy: try again", from.display())));
    }
    copy.close().map_err(|(_, error)| fail(error))
}

/// What a copy holds.
pub fn facts(copy: &Path) -> Result<DatabaseFacts, BackupError> {
    let fail = |error: rusqlite::Error| BackupError::Database(format!("{}: {error}", copy.display()));
    let conn = open(copy)?;
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
pub fn check(copy: &Path) -> Result<(), BackupError> {
    let fail = |error: rusqlite::Error| BackupError::Database(format!("{}: {error}", copy.display()));
    let conn = open(copy)?;
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(fail)?;
    if verdict != "ok" {
        let first = verdict.lines().next().unwrap_or("?");
        return Err(BackupError::Database(format!("{}: the database is damaged ({first})", copy.display())));
    }
    let mut statement = conn.prepare("PRAGMA foreign_key_check").map_err(fail)?;
    let mut rows = statement.query([]).map_err(fail)?;
    if let Some(row) = rows.next().map_err(fail)? {
        let table: String = row.get(0).map_err(fail)?;
        let text = format!("{}: a row of `{table}` refers to one that is not there", copy.display());
        return Err(BackupError::Database(text));
    }
    Ok(())
}

/// A copy that nobody writes to: opened without making files beside it.
fn open(copy: &Path) -> Result<Connection, BackupError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let path: String = copy.to_string_lossy().chars().map(escaped).collect();
    Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)
        .map_err(|error| BackupError::Database(format!("{}: {error}", copy.display())))
}

/// As in a URI.
fn escaped(c: char) -> String {
    match c {
        '%' | '?' | '#' => format!("%{:02x}", c as u32),
        c => c.to_string(),
    }
}
