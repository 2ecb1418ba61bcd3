//! The store on SQLite: WAL, `synchronous=FULL`, one transaction a batch. One owner, one connection that writes; readers have
//! their own (see [`super::read`]).
//!
//! Must not: read a clock, retry by itself, or acknowledge before the commit.

mod ballast;
mod batch;
mod check;
mod continuity;
mod copy;
#[cfg(test)]
mod crash_tests;
mod error;
mod generate;
mod log;
mod marker;
mod migrate;
#[cfg(test)]
mod probe;
mod record;
mod retain;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::bundle::Version;
use common::ids::ServerId;
use common::limits;
use common::sys::Owner;
use common::sys::file::hand_over;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

pub(super) use batch::{bits, hash, hash_or_none, uuid};
pub use check::check_whole;
pub use copy::{DatabaseFacts, check_copy, copy_database, facts_of_copy};
pub use error::store_error;
pub use generate::{DataSet, generate, identity};
pub use log::check_log;
pub use marker::{Held, Marker, read_marker, write_marker};
pub use migrate::Migrated;
pub(super) use record::{BODY_COLUMN_COUNT, BODY_COLUMNS, body_of_row, encode_body, kind_of, parse_outcomes};

use super::{
    EnvoyRow, RetainRule, Retained, ServerState, Snapshot, StatementRow, Store, StoreError, Write, Written, rules,
};
use ballast::Ballast;
use batch::{Batch, ENVOY_COLUMNS, envoy_row, statement_row};
use continuity::Continuity;

/// Who copies the WAL back into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoints {
    /// This store, by size and when nothing is written.
    Own,
    /// Another process (Litestream): this store does not, unless [`Gauges::leave_checkpoints`] says otherwise.
    Elsewhere,
}

/// How to open a database.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The file; it is made where it is missing, its directory is not.
    pub path: PathBuf,
    /// Whose database it must be.
    pub server_id: ServerId,
    /// Who checkpoints.
    pub checkpoints: Checkpoints,
    /// Size of the emergency reserve, 0 for none.
    pub ballast_bytes: u64,
}

/// A database that is open, and what was found.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: SqliteStore,
    /// The database is older than what this server once acknowledged, or came without its history: raise the epoch.
    pub restored: bool,
    /// The last shutdown was not clean; the tables needed to start were checked, the whole file was not (see
    /// [`check_whole`]).
    pub unclean: bool,
    /// The schema was brought forward.
    pub migrated: Option<Migrated>,
}

/// Sizes that others read: shared, never waited for.
#[derive(Clone, Debug, Default)]
pub struct Gauges(Arc<GaugeValues>);

#[derive(Debug, Default)]
struct GaugeValues {
    wal_pages: AtomicU64,
    ballast_missing: AtomicU64,
    /// Somebody else copies the WAL back.
    checkpoints_elsewhere: AtomicBool,
}

impl Gauges {
    /// Bytes in use in the WAL since it was last started over.
    pub fn wal_bytes(&self) -> u64 {
        self.0.wal_pages.load(Ordering::Relaxed) * PAGE_BYTES
    }

    /// Leaves the WAL to another process from the next upkeep on, or takes it back.
    pub fn leave_checkpoints(&self, elsewhere: bool) {
        self.0.checkpoints_elsewhere.store(elsewhere, Ordering::Relaxed);
    }

    fn checkpoints_elsewhere(&self) -> bool {
        self.0.checkpoints_elsewhere.load(Ordering::Relaxed)
    }

    /// The emergency reserve is given up: the disk is full or was.
    pub fn ballast_missing(&self) -> bool {
        self.0.ballast_missing.load(Ordering::Relaxed) != 0
    }
}

/// [`Store`] on SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    conn: Connection,
    path: PathBuf,
    /// As committed.
    state: ServerState,
    continuity: Continuity,
    /// The database was found restored and no batch has raised the epoch since: the continuity file is not touched, so that
    /// the next start finds the same.
    unsettled: bool,
    /// Frames of the WAL that are in the database already, of those in the gauge.
    backfilled_pages: u64,
    /// A batch was applied since the last upkeep.
    busy: bool,
    ballast: Ballast,
    /// The disk was full and the ballast could not be made again yet: what is left is for writes that cannot wait, not for
    /// results, and not for copying the WAL back, which makes the database longer.
    starved: bool,
    gauges: Gauges,
    /// Reused for the JSON of outcomes.
    list: String,
    /// Reused for re-encoded bodies.
    scratch: Vec<u8>,
}

/// Version of the schema that this binary makes and reads.
// The table of migrations is short.
pub const SCHEMA: u32 = schema::MIGRATIONS.len() as u32;

/// Page size of every database that this product makes.
const PAGE_BYTES: u64 = 4096;

impl OpenOptions {
    /// The usual: own checkpoints, the usual reserve.
    pub fn new(path: impl Into<PathBuf>, server_id: ServerId) -> OpenOptions {
        OpenOptions {
            path: path.into(),
            server_id,
            checkpoints: Checkpoints::Own,
            ballast_bytes: limits::DATABASE_BALLAST_BYTES,
        }
    }
}

impl SqliteStore {
    /// Opens, recovers, checks what is needed to start, migrates, and compares with the continuity file.
    pub fn open(options: &OpenOptions) -> Result<Opened, StoreError> {
        SqliteStore::open_with(options, schema::MIGRATIONS)
    }

    fn open_with(options: &OpenOptions, steps: &[schema::Migration]) -> Result<Opened, StoreError> {
        let path = &options.path;
        let fail = |error| store_error(path, error);
        let empty = !std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
        if empty && !log::beside(path, "-wal").exists() && Continuity::had_history(path) {
            return Err(StoreError::Missing(path.clone()));
        }
        check_log(path)?;
        let mut conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(fail)?;
        prepare(&conn).map_err(fail)?;
        let migrated = migrate::migrate(&mut conn, path, steps)?;
        let continuity = Continuity::open(path)?;
        let fresh = seed(&mut conn, options.server_id).map_err(fail)?;
        let before = read_state(&conn).map_err(fail)?;
        if before.server_id != options.server_id {
            return Err(StoreError::Io(format!(
                "{}: this database belongs to server {}, but the identity key is that of server {}: restore db/ and tls/ \
                 from one backup",
                path.display(),
                before.server_id,
                options.server_id
            )));
        }
        let unclean = !fresh && !before.clean_shutdown;
        if unclean {
            check::check_to_start(&conn, path)?;
        }
        let restored = match continuity.found {
            Some(found) => before.continuity < found,
            None => before.continuity > 0,
        };
        let gauges = Gauges::default();
        gauges.leave_checkpoints(options.checkpoints == Checkpoints::Elsewhere);
        let hook = gauges.clone();
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            hook.0.wal_pages.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
        .map_err(fail)?;
        conn.execute("UPDATE server_state SET clean_shutdown = 0", []).map_err(fail)?;
        if continuity.found.is_none() && !restored {
            continuity.write(before.continuity)?;
            continuity.sync()?;
            sync_directory(path)?;
        }
        let mut store = SqliteStore {
            conn,
            path: path.clone(),
            state: ServerState { clean_shutdown: false, ..before },
            continuity,
            unsettled: restored,
            backfilled_pages: 0,
            busy: false,
            ballast: Ballast::new(path, options.ballast_bytes),
            starved: false,
            gauges,
            list: String::new(),
            scratch: Vec::new(),
        };
        // A disk that is full at start must not keep the server from starting.
        store.tend_ballast();
        give_to_owner(path);
        Ok(Opened { store, restored, unclean, migrated })
    }

    /// Sizes for metrics.
    pub fn gauges(&self) -> Gauges {
        self.gauges.clone()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn fail(&self, error: rusqlite::Error) -> StoreError {
        store_error(&self.path, error)
    }

    /// Everything of a batch up to the commit; returns the answers and the state to keep.
    fn apply_in_transaction(&mut self, batch: &[Write]) -> Result<(Vec<Written>, ServerState), StoreError> {
        let mut tables = Batch {
            conn: &self.conn,
            path: &self.path,
            state: self.state.clone(),
            list: &mut self.list,
            scratch: &mut self.scratch,
        };
        let written = rules::apply(&mut tables, batch)?;
        let mut state = tables.state;
        // A restore that is not settled stays behind its file, whatever is written meanwhile.
        if !self.unsettled || settles(batch) {
            let lift = if self.unsettled { self.continuity.found.unwrap_or(0) } else { 0 };
            state.continuity = state.continuity.max(lift) + 1;
        }
        write_state(&self.conn, &state).map_err(|error| self.fail(error))?;
        Ok((written, state))
    }

    fn tend_ballast(&mut self) {
        if self.ballast.missing() && self.ballast.restore().is_ok() {
            self.starved = false;
        }
        self.gauges.0.ballast_missing.store(u64::from(self.ballast.missing()), Ordering::Relaxed);
    }

    /// Copies the WAL back without waiting for anybody. When it was copied whole, the next write starts it over.
    fn checkpoint(&mut self, mode: &str) -> Result<(), StoreError> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let (_, log, done): (i64, i64, i64) = self
            .conn
            .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(|error| self.fail(error))?;
        self.backfilled_pages = u64::try_from(done).unwrap_or(0);
        self.gauges.0.wal_pages.store(u64::try_from(log).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }
}

/// A command of root's leaves nothing that the server cannot open: its files belong to whom their directory does.
fn give_to_owner(path: &Path) {
    let Some(owner) = path.parent().and_then(|dir| Owner::of(dir).ok()).filter(|owner| *owner != Owner::own()) else {
        return;
    };
    for suffix in ["", "-wal", "-shm", ".continuity", ".ballast"] {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(suffix);
        // Another user than root may not, and need not.
        let _ = hand_over(&path.with_file_name(name), Some(owner));
    }
}

/// Whether a batch settles a recognised restore.
fn settles(batch: &[Write]) -> bool {
    batch.iter().any(|write| matches!(write, Write::RaiseEpoch { .. }))
}

impl Store for SqliteStore {
    fn apply(&mut self, batch: &[Write]) -> Result<Vec<Written>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if self.starved && batch.iter().any(Write::can_wait) {
            return Err(StoreError::Full);
        }
        if self.unsettled && settles(batch) {
            // The counter is about to jump. A log that was started over must not begin with the jump: see `check_log`.
            let step = "UPDATE server_state SET continuity = continuity + 1";
            self.conn.execute(step, []).map_err(|error| self.fail(error))?;
        }
        self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut s| s.execute([])).map_err(|e| self.fail(e))?;
        let applied = self.apply_in_transaction(batch).and_then(|done| {
            let committed = self.conn.prepare_cached("COMMIT").and_then(|mut statement| statement.execute([]));
            committed.map(|_| done).map_err(|error| self.fail(error))
        });
        match applied {
            Ok((written, state)) => {
                self.unsettled &= !settles(batch);
                self.state = state;
                self.busy = true;
                if !self.unsettled {
                    // It lags until the next commit if this fails, which means nothing; the batch is durable.
                    let _ = self.continuity.write(self.state.continuity);
                }
                Ok(written)
            }
            Err(error) => {
                // SQLite has rolled back by itself after some errors.
                if !self.conn.is_autocommit() {
                    let _ = self.conn.execute_batch("ROLLBACK");
                }
                Err(error)
            }
        }
    }

    fn load(&mut self) -> Result<Snapshot, StoreError> {
        let sql = format!("SELECT {ENVOY_COLUMNS} FROM envoys e JOIN envoy_progress p USING (id) ORDER BY e.id");
        let read = || -> rusqlite::Result<Vec<EnvoyRow>> {
            let n: u32 = self.conn.query_row("SELECT count(*) FROM envoy_progress", [], |row| row.get(0))?;
            let mut envoys = Vec::with_capacity(n as usize);
            let mut statement = self.conn.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                envoys.push(envoy_row(row)?);
            }
            Ok(envoys)
        };
        let envoys = read().map_err(|error| self.fail(error))?;
        let waiting = || -> rusqlite::Result<Vec<StatementRow>> {
            let mut statement = self.conn.prepare("SELECT uuid, payload, signature FROM statements ORDER BY uuid")?;
            let rows = statement.query_map([], statement_row)?;
            rows.collect()
        };
        let statements = waiting().map_err(|error| self.fail(error))?;
        Ok(Snapshot { state: self.state.clone(), envoys, statements })
    }

    fn upkeep(&mut self) -> Result<(), StoreError> {
        let busy = std::mem::take(&mut self.busy);
        self.tend_ballast();
        if self.gauges.checkpoints_elsewhere() || self.starved {
            return Ok(());
        }
        let pages = self.gauges.0.wal_pages.load(Ordering::Relaxed);
        if self.backfilled_pages > pages {
            // It was started over.
            self.backfilled_pages = 0;
        }
        let waiting = pages - self.backfilled_pages;
        if pages * PAGE_BYTES >= limits::WAL_EMERGENCY_BYTES {
            self.checkpoint("TRUNCATE")
        } else if waiting * PAGE_BYTES >= limits::WAL_CHECKPOINT_BYTES || (!busy && waiting > 0) {
            self.checkpoint("PASSIVE")
        } else {
            Ok(())
        }
    }

    fn release_reserve(&mut self) -> bool {
        let released = self.ballast.release();
        self.starved = self.ballast.missing();
        self.gauges.0.ballast_missing.store(u64::from(self.starved), Ordering::Relaxed);
        released
    }

    fn retain(&mut self, rule: &RetainRule) -> Result<Retained, StoreError> {
        retain::step(&mut self.conn, rule).map_err(|error| store_error(&self.path, error))
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.conn.execute("UPDATE server_state SET clean_shutdown = 1", []).map_err(|error| self.fail(error))?;
        self.state.clean_shutdown = true;
        self.continuity.sync()?;
        if !self.gauges.checkpoints_elsewhere() {
            // What stays in the log is as durable there.
            let _ = self.checkpoint("PASSIVE");
        }
        Ok(())
    }
}

/// Settings of the connection that writes. Own checkpoints replace SQLite's, which would stall a commit at random.
fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(std::time::Duration::from_millis(limits::DATABASE_BUSY_MS))?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
    // Returns the mode that came of it.
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "the file system cannot hold a write-ahead log (journal mode {mode})"
        )));
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", limits::WAL_CHECKPOINT_BYTES as i64)?;
    conn.pragma_update(None, "cache_size", -(limits::DATABASE_CACHE_BYTES as i64 / 1024))?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // A damaged or hostile file must not make SQLite run what its schema says.
    conn.pragma_update(None, "trusted_schema", false)
}

/// Makes the one row of a new database. `true` if it was new.
fn seed(conn: &mut Connection, server_id: ServerId) -> rusqlite::Result<bool> {
    let there: Option<i64> =
        conn.query_row("SELECT id FROM server_state WHERE id = 1", [], |row| row.get(0)).optional()?;
    if there.is_some() {
        return Ok(false);
    }
    let sql =
        "INSERT INTO server_state (id, server_id, epoch, serial, revocation_counter, revocation_digest, interval_ms,
        continuity, clean_shutdown) VALUES (1, ?1, 0, 0, 0, 0, 0, 0, 0)";
    let transaction = conn.transaction()?;
    transaction.execute(sql, [server_id.0.0])?;
    write_state(&transaction, &ServerState::fresh(server_id))?;
    transaction.commit()?;
    Ok(true)
}

fn write_state(conn: &Connection, state: &ServerState) -> rusqlite::Result<()> {
    let sql = "UPDATE server_state SET epoch = ?1, serial = ?2, revocation_counter = ?3, revocation_digest = ?4,
        published = ?5, interval_ms = ?6, continuity = ?7";
    conn.prepare_cached(sql)?
        .execute(params![
            state.version.epoch as i64,
            state.version.serial as i64,
            state.revocation_counter as i64,
            state.revocation_digest as i64,
            state.published.map(|tree| tree.0),
            state.interval_ms as i64,
            state.continuity as i64,
        ])
        .map(drop)
}

fn read_state(conn: &Connection) -> rusqlite::Result<ServerState> {
    let sql =
        "SELECT server_id, epoch, serial, revocation_counter, revocation_digest, published, interval_ms, continuity,
        clean_shutdown FROM server_state WHERE id = 1";
    conn.query_row(sql, [], |row| {
        Ok(ServerState {
            server_id: ServerId(hash(row, 0)?),
            version: Version { epoch: bits(row, 1)?, serial: bits(row, 2)? },
            revocation_counter: bits(row, 3)?,
            revocation_digest: bits(row, 4)?,
            published: hash_or_none(row, 5)?,
            interval_ms: bits(row, 6)?,
            continuity: bits(row, 7)?,
            clean_shutdown: row.get(8)?,
        })
    })
}

/// A new file is only there after a power cut if its directory was synced.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| error::io_error(directory, "sync the directory", &error))
}

#[cfg(test)]
mod tests;
