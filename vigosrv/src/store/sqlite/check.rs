//! Is the file whole? At start only what is bounded by the number of envoys is checked; the history, which may be gigabytes, is
//! checked by [`check_whole`] on a connection of its own after the server is up.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::PAGE_BYTES;
use super::error::{corrupt, store_error};
use super::schema::START_TABLES;
use crate::store::StoreError;

/// Checks the tables that the server starts from, and that the file is not cut short. The caller's connection has the write
/// lock to itself.
pub fn check_to_start(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let fail = |error| store_error(path, error);
    for table in START_TABLES {
        quick_check(conn, path, Some(table))?;
    }
    // With all of the WAL copied back, the file must hold every page that its header counts.
    let (log, done): (i64, i64) =
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?))).map_err(fail)?;
    let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(fail)?;
    let whole = u64::try_from(pages).unwrap_or(0) * PAGE_BYTES;
    let bytes = std::fs::metadata(path).map_err(|error| super::error::io_error(path, "read its size", &error))?.len();
    if log == done && bytes < whole {
        return Err(corrupt(path, &format!("the file has {bytes} bytes of {whole}")));
    }
    Ok(())
}

/// Checks every page of a database while it is in use, on a connection of its own. Takes seconds a gigabyte; a job for after
/// the start that followed an unclean shutdown, and for `doctor`.
pub fn check_whole(path: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|error| store_error(path, error))?;
    quick_check(&conn, path, None)
}

fn quick_check(conn: &Connection, path: &Path, table: Option<&str>) -> Result<(), StoreError> {
    let sql = match table {
        Some(table) => format!("PRAGMA quick_check({table})"),
        None => "PRAGMA quick_check(1)".into(),
    };
    let verdict: String = conn.query_row(&sql, [], |row| row.get(0)).map_err(|error| store_error(path, error))?;
    if verdict == "ok" { Ok(()) } else { Err(corrupt(path, verdict.lines().next().unwrap_or("?"))) }
}
