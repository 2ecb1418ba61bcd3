//! A database of one row that says whose a replica is.

use std::path::Path;

use common::ids::{Hash32, ServerId};
use common::time::Wall;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::error::store_error;
use super::{bits, hash};
use crate::store::StoreError;

/// Whose a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The server.
    pub server_id: ServerId,
    /// The installation of that server.
    pub installation: String,
    /// Its host, for people.
    pub host: String,
    /// Since when.
    pub at: Wall,
}

/// Makes the database of a marker.
pub fn write_marker(path: &Path, marker: &Marker) -> Result<(), StoreError> {
    let write = || -> rusqlite::Result<()> {
        let conn = Connection::open(path)?;
        let _: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        conn.execute_batch(
            "CREATE TABLE owner (id INTEGER PRIMARY KEY, server_id BLOB, installation TEXT, host TEXT, at INTEGER)",
        )?;
        let Marker { server_id: ServerId(Hash32(server_id)), installation, host, at } = marker;
        let sql = "INSERT INTO owner VALUES (1, ?1, ?2, ?3, ?4)";
        conn.execute(sql, params![server_id, installation, host, at.0]).map(drop)
    };
    write().map_err(|error| store_error(path, error))
}

/// Reads it.
pub fn read_marker(path: &Path) -> Result<Option<Marker>, StoreError> {
    let read = || -> rusqlite::Result<Option<Marker>> {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let sql = "SELECT server_id, installation, host, at FROM owner WHERE id = 1";
        conn.query_row(sql, [], |row| {
            let server_id = ServerId(hash(row, 0)?);
            Ok(Marker { server_id, installation: row.get(1)?, host: row.get(2)?, at: Wall(bits(row, 3)? as i64) })
        })
        .optional()
    };
    read().map_err(|error| store_error(path, error))
}

/// Keeps a database open without reading it: while this is held, the last of the others to close it leaves its WAL as it is.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "what counts is that it is open")] Connection);

impl Held {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Held, StoreError> {
        let fail = |error| store_error(path, error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(fail)?;
        // Only what was read once is open.
        let _: i64 = conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).map_err(fail)?;
        Ok(Held(conn))
    }
}
