//! Read-only questions to the database, for the API: each on a connection of its own, bounded in rows and in work, so that no
//! reader holds the WAL for long and none can wait for the writer.
//!
//! Envoys are not read here: the FleetIndex has them.

mod chain;
mod log;

use std::path::{Path, PathBuf};

use common::chain::Lane;
use common::ids::{Hash32, Uuid};
use common::limits;
use common::outcome::{Counts, Status};
use common::proto::{RecordBody, wire};
use common::time::Wall;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params, params_from_iter};

pub use chain::ChainReport;
pub use log::{AuditItem, EventItem, ForkItem, HostItem, PublishItem, TokenItem, TraitItem};

use super::sqlite::{
    BODY_COLUMN_COUNT, BODY_COLUMNS, bits, body_of_row, hash, hash_or_none, kind_of, parse_outcomes, store_error, uuid,
};
use super::{RecordKind, StoreError};

/// A connection for questions.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
    path: PathBuf,
}

/// Which runs, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Of this envoy only.
    pub envoy: Option<Uuid>,
    /// Only rows with a lower id: the last id of the page before.
    pub before: Option<u64>,
    /// At most so many rows, and never over [`limits::READ_ROWS_MAX`].
    pub limit: usize,
    /// Only the row that holds this run (as its own, or as first or last of a stretch). Quick together with `envoy`.
    pub run_id: Option<Uuid>,
}

/// A record as stored: a run, a stretch, a gap or an incident.
#[derive(Clone, Debug, PartialEq)]
pub struct RunItem {
    /// Order of arrival.
    pub id: u64,
    /// Whose.
    pub envoy: Uuid,
    /// Its present name.
    pub hostname: String,
    /// Lane.
    pub lane: Lane,
    /// What it is.
    pub kind: RecordKind,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Link at `last`.
    pub link: Hash32,
    /// Server time.
    pub received_at: Wall,
    /// What the agent said, outcomes left out.
    pub body: RecordBody,
}

/// Numbers of rows, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows of records on main chains.
    pub records: u64,
    /// Records beside them.
    pub forks: u64,
    /// Lines of the event log.
    pub events: u64,
    /// Bytes of the database file in use.
    pub bytes: u64,
}

impl RunItem {
    /// Runs (or lost runs) that the row stands for.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Id of the run, or of the last one of a stretch.
    pub fn run_id(&self) -> Option<Uuid> {
        let bytes = match &self.body {
            RecordBody::Run(run) => &run.run_id,
            RecordBody::Stretch(stretch) => &stretch.last_run_id,
            RecordBody::Gap(_) | RecordBody::Incident(_) => return None,
        };
        Uuid::try_from_slice(bytes).ok()
    }

    /// Counts of the run, or of the newest one of a stretch.
    pub fn counts(&self) -> Option<Counts> {
        let counts = match &self.body {
            RecordBody::Run(run) => run.counts.as_ref(),
            RecordBody::Stretch(stretch) => stretch.counts.as_ref(),
            RecordBody::Gap(_) | RecordBody::Incident(_) => return None,
        };
        Some(common::proto::counts_from_wire(counts))
    }

    /// Status after it, where it has one.
    pub fn status(&self) -> Option<Status> {
        match &self.body {
            RecordBody::Run(run) => Status::from_u32(run.status),
            RecordBody::Stretch(_) => self.counts().map(|counts| counts.status(false, 0, false)),
            RecordBody::Gap(_) | RecordBody::Incident(_) => None,
        }
    }
}

/// Columns of [`run_item`], from `runs r JOIN envoys e ON e.id = r.envoy`, in front of the body's.
const HEAD_COLUMNS: &str =
    "r.id, e.uuid, e.hostname, r.lane, r.kind, r.first_seq, r.last_seq, r.last_link, r.received_at";
const HEAD_COLUMN_COUNT: usize = 9;

impl Reader {
    /// Opens a database that a [`super::SqliteStore`] has made.
    pub fn open(path: &Path) -> Result<Reader, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> rusqlite::Result<Connection> {
            let conn = Connection::open_with_flags(path, flags)?;
            conn.busy_timeout(std::time::Duration::from_millis(limits::DATABASE_BUSY_MS))?;
            conn.pragma_update(None, "cache_size", -2_048)?;
            conn.pragma_update(None, "trusted_schema", false)?;
            Ok(conn)
        };
        let conn = open().map_err(|error| store_error(path, error))?;
        Ok(Reader { conn, path: path.to_owned() })
    }

    /// Epoch of the server, as committed.
    pub fn epoch(&self) -> Result<u64, StoreError> {
        let sql = "SELECT epoch FROM server_state WHERE id = 1";
        self.conn.query_row(sql, [], |row| bits(row, 0)).map_err(|error| store_error(&self.path, error))
    }

    /// Records, newest first.
    pub fn runs(&mut self, query: &RunQuery) -> Result<Vec<RunItem>, StoreError> {
        self.ask(|conn| {
            let limit = query.limit.min(limits::READ_ROWS_MAX);
            let before = query.before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
            let run_id = query.run_id.as_ref().map(|id| id.as_bytes().to_vec());
            let run_filter = if run_id.is_some() { "AND ?2 IN (r.run_id, r.first_run_id)" } else { "AND ?2 IS NULL" };
            let envoy = match &query.envoy {
                None => None,
                Some(uuid) => match row_id(conn, uuid)? {
                    Some(id) => Some(id),
                    None => return Ok(Vec::new()),
                },
            };
            // The index of one envoy is by lane and sequence, in which ids only grow: the newest of each lane, then of both.
            let ids = match envoy {
                None => format!("SELECT r.id FROM runs r WHERE r.id < ?1 {run_filter} ORDER BY r.id DESC LIMIT ?3"),
                Some(envoy) => {
                    let lane = |lane: Lane| {
                        format!(
                            "SELECT * FROM (SELECT r.id FROM runs r WHERE r.envoy = {envoy} AND r.lane = {} AND r.id < ?1
                             {run_filter} ORDER BY r.last_seq DESC LIMIT ?3)",
                            lane as u8
                        )
                    };
                    format!("{} UNION ALL {}", lane(Lane::Urgent), lane(Lane::Routine))
                }
            };
            let sql = format!(
                "SELECT {HEAD_COLUMNS}, {BODY_COLUMNS} FROM runs r JOIN envoys e ON e.id = r.envoy
                 WHERE r.id IN ({ids}) ORDER BY r.id DESC LIMIT ?3"
            );
            let mut statement = conn.prepare(&sql)?;
            let rows = statement.query_map(params![before, run_id, limit as i64], |row| run_item(row, None))?;
            rows.collect()
        })
    }

    /// One record by its id, outcomes included.
    pub fn run(&mut self, id: u64) -> Result<Option<RunItem>, StoreError> {
        self.ask(|conn| {
            let sql = format!(
                "SELECT {HEAD_COLUMNS}, {BODY_COLUMNS}, o.list FROM runs r JOIN envoys e ON e.id = r.envoy
                 LEFT JOIN outcomes o ON o.run = r.id WHERE r.id = ?1"
            );
            conn.query_row(&sql, [id as i64], |row| {
                let list: Option<String> = row.get(HEAD_COLUMN_COUNT + BODY_COLUMN_COUNT)?;
                run_item(row, list.as_deref())
            })
            .optional()
        })
    }

    /// Outcomes other than ok and skipped of several runs, as (run, outcomes), for a page of [`Reader::runs`].
    pub fn outcomes(&mut self, runs: &[u64]) -> Result<Vec<(u64, Vec<wire::ResourceOutcome>)>, StoreError> {
        self.ask(|conn| {
            let runs = &runs[..runs.len().min(limits::READ_ROWS_MAX)];
            let marks = vec!["?"; runs.len()].join(", ");
            let sql = format!("SELECT run, list FROM outcomes WHERE run IN ({marks}) ORDER BY run");
            let mut statement = conn.prepare(&sql)?;
            let ids = params_from_iter(runs.iter().map(|id| *id as i64));
            let rows =
                statement.query_map(ids, |row| Ok((bits(row, 0)?, parse_outcomes(row.get_ref(1)?.as_str()?))))?;
            rows.collect()
        })
    }

    /// How much there is. Counting rows of a long history takes more work than one question may: such a number is an estimate
    /// from the highest id.
    pub fn totals(&mut self) -> Result<Totals, StoreError> {
        self.ask(|conn| {
            let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|n| n as u64);
            let span = |table: &str| {
                number(&format!(
                    "SELECT coalesce((SELECT max(id) FROM {table}) - (SELECT min(id) FROM {table}) + 1, 0)"
                ))
            };
            let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
            let bytes = pages * number("PRAGMA page_size")?;
            Ok(Totals { records: span("runs")?, forks: span("forks")?, events: span("events")?, bytes })
        })
    }

    /// Runs a question within its bound of work.
    fn ask<T>(&mut self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut left = limits::READ_STEPS_MAX / limits::READ_STEPS_BETWEEN;
        let over = move || {
            left = left.saturating_sub(1);
            left == 0
        };
        let between = i32::try_from(limits::READ_STEPS_BETWEEN).unwrap_or(i32::MAX);
        self.conn.progress_handler(between, Some(over)).map_err(|error| store_error(&self.path, error))?;
        question(&mut self.conn).map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => {
                StoreError::Io("the question is too wide for one answer: ask for one envoy, or for fewer rows".into())
            }
            _ => store_error(&self.path, error),
        })
    }
}

/// Row id of an envoy.
fn row_id(conn: &Connection, uuid: &Uuid) -> rusqlite::Result<Option<i64>> {
    conn.query_row("SELECT id FROM envoys WHERE uuid = ?1", [uuid.as_bytes()], |row| row.get(0)).optional()
}

fn lane_column(row: &Row<'_>, at: usize) -> rusqlite::Result<Lane> {
    let n: i64 = row.get(at)?;
    u32::try_from(n).ok().and_then(Lane::from_u32).ok_or(rusqlite::Error::IntegralValueOutOfRange(at, n))
}

fn kind_column(row: &Row<'_>, at: usize) -> rusqlite::Result<RecordKind> {
    let n: i64 = row.get(at)?;
    u8::try_from(n).ok().and_then(kind_of).ok_or(rusqlite::Error::IntegralValueOutOfRange(at, n))
}

fn run_item(row: &Row<'_>, outcomes: Option<&str>) -> rusqlite::Result<RunItem> {
    let kind = kind_column(row, 4)?;
    let (first, last) = (bits(row, 5)?, bits(row, 6)?);
    let count = last.saturating_sub(first).saturating_add(1);
    Ok(RunItem {
        id: bits(row, 0)?,
        envoy: uuid(row, 1)?,
        hostname: row.get(2)?,
        lane: lane_column(row, 3)?,
        kind,
        first,
        last,
        link: hash(row, 7)?,
        received_at: Wall(row.get(8)?),
        body: body_of_row(row, HEAD_COLUMN_COUNT, kind, count, outcomes)?,
    })
}

#[cfg(test)]
mod tests;
