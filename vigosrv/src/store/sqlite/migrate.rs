//! Brings an older database to the schema of this binary: one transaction a step, and before the first step of a start a copy
//! of the file, so that going back to the older binary is a matter of putting the copy in place.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::error::store_error;
use super::schema::Migration;
use crate::store::StoreError;

/// `PRAGMA application_id` of our files: "Vigo".
pub const APPLICATION_ID: i32 = 0x5669_676f;

/// What was done to the schema at this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Version found; 0 for a new database.
    pub from: u32,
    /// Version now.
    pub to: u32,
    /// The copy that was taken before, if there was anything to copy.
    pub backup: Option<PathBuf>,
}

/// Runs the steps that the database lacks. `None` when there are none.
pub fn migrate(conn: &mut Connection, path: &Path, steps: &[Migration]) -> Result<Option<Migrated>, StoreError> {
    let fail = |error| store_error(path, error);
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    let from: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail)?;
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(fail)?;
    if from > known {
        return Err(StoreError::Newer(from, known));
    }
    let tables: u32 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(StoreError::Io(format!(
            "{}: this is a SQLite database, but not one of vigosrv: choose another place with database.dsn",
            path.display()
        )));
    }
    if from == known {
        return Ok(None);
    }
    let backup = if from > 0 { Some(copy_before(conn, path, from)?) } else { None };
    for (version, step) in (1u32..).zip(steps).skip(from as usize) {
        let transaction = conn.transaction().map_err(fail)?;
        transaction.execute_batch(step.sql).map_err(fail)?;
        if version == 1 {
            transaction.execute_batch(MIGRATIONS_TABLE).map_err(fail)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
        }
        let done = "INSERT INTO migrations (version, name, at) VALUES (?1, ?2, unixepoch() * 1000)";
        transaction.execute(done, (version, step.name)).map_err(fail)?;
        transaction.pragma_update(None, "user_version", version).map_err(fail)?;
        transaction.commit().map_err(fail)?;
    }
    Ok(Some(Migrated { from, to: known, backup }))
}

const MIGRATIONS_TABLE: &str =
    "CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, at INTEGER NOT NULL) STRICT;";

/// Copies the database to `NAME.schema-N.bak` beside it. One step over all pages: stepping in parts starts over whenever the
/// source changes, and nobody waits for this server yet. The copy is written under another name first, so that a file with the
/// final name is whole.
fn copy_before(conn: &Connection, path: &Path, version: u32) -> Result<PathBuf, StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".schema-{version}.bak"));
    let target = path.with_file_name(name);
    let part = target.with_extension("part");
    let fail = |error: String| {
        StoreError::Io(format!(
            "{}: no copy of the database could be made before migrating it ({error}); nothing was changed: free space \
             there and start again",
            target.display()
        ))
    };
    let _ = std::fs::remove_file(&part);
    let copied = Connection::open(&part)
        .and_then(|mut copy| {
            let backup = rusqlite::backup::Backup::new(conn, &mut copy)?;
            backup.step(-1)?;
            drop(backup);
            copy.close().map_err(|(_, error)| error)
        })
        .map_err(|error| error.to_string());
    let placed = copied.and_then(|()| std::fs::rename(&part, &target).map_err(|error| error.to_string()));
    match placed {
        Ok(()) => Ok(target),
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            Err(fail(error))
        }
    }
}
