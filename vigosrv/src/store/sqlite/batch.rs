//! Rows of SQLite for the rules: finds, inserts and replaces inside the transaction of one batch.

use std::path::Path;

use common::chain::Lane;
use common::crypto::{PublicKey, sha256};
use common::ids::{Hash32, Uuid};
use common::outcome::{Counts, Status};
use common::proto::Enrolled;
use common::time::Wall;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::error::store_error;
use super::record::{self, BodyColumns};
use crate::store::tables::{NewRecord, Progress, Span, Tables, TokenRow};
use crate::store::{
    AuditRow, EnvoyRow, EventRow, InviteRow, PublishWrite, ServerState, Sighting, StatementRow, StoreError,
    StoredRecord,
};

/// One batch under way.
pub struct Batch<'a> {
    /// In a transaction.
    pub conn: &'a Connection,
    /// For messages.
    pub path: &'a Path,
    /// The single values, written back by the caller.
    pub state: ServerState,
    /// Reused for the JSON of outcomes.
    pub list: &'a mut String,
    /// Reused for re-encoded bodies.
    pub scratch: &'a mut Vec<u8>,
}

/// 32 or 16 bytes out of a BLOB.
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> FromSql for Bytes<N> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Bytes<N>> {
        let bytes = value.as_blob()?;
        let wrong = FromSqlError::InvalidBlobSize { expected_size: N, blob_size: bytes.len() };
        bytes.try_into().map(Bytes).map_err(|_| wrong)
    }
}

/// A hash column.
pub fn hash(row: &Row<'_>, at: usize) -> rusqlite::Result<Hash32> {
    row.get::<_, Bytes<32>>(at).map(|bytes| Hash32(bytes.0))
}

/// A hash column that may be NULL.
pub fn hash_or_none(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Hash32>> {
    row.get::<_, Option<Bytes<32>>>(at).map(|bytes| bytes.map(|bytes| Hash32(bytes.0)))
}

/// A UUID column.
pub fn uuid(row: &Row<'_>, at: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, Bytes<16>>(at).map(|bytes| Uuid::from_bytes(bytes.0))
}

/// A column of 64 bits, stored bit for bit.
pub fn bits(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(|n| n as u64)
}

fn key_column(row: &Row<'_>, at: usize) -> rusqlite::Result<PublicKey> {
    let bytes = row.get::<_, Bytes<32>>(at)?.0;
    PublicKey::try_from_slice(&bytes).map_err(|_| out_of_range(at, 0))
}

/// A number that is none of its enumeration: somebody edited the row, or it is damaged.
fn out_of_range(at: usize, n: i64) -> rusqlite::Error {
    rusqlite::Error::IntegralValueOutOfRange(at, n)
}

fn counts(row: &Row<'_>, at: usize) -> rusqlite::Result<Counts> {
    Ok(Counts {
        ok: row.get(at)?,
        changed: row.get(at + 1)?,
        skipped: row.get(at + 2)?,
        failed: row.get(at + 3)?,
        blocked: row.get(at + 4)?,
    })
}

fn status(row: &Row<'_>, at: usize) -> rusqlite::Result<Status> {
    let n: i64 = row.get(at)?;
    u32::try_from(n).ok().and_then(Status::from_u32).ok_or(out_of_range(at, n))
}

fn standing(row: &Row<'_>, at: usize) -> rusqlite::Result<Enrolled> {
    let n: i64 = row.get(at)?;
    Enrolled::ALL.into_iter().find(|state| *state as i64 == n).ok_or(out_of_range(at, n))
}

/// Columns of [`envoy_row`], from `envoys e JOIN envoy_progress p USING (id)`.
pub const ENVOY_COLUMNS: &str = "e.uuid, e.hostname, e.public_key, e.sealing_key, e.state, e.machine_id, e.os, e.arch, \
     e.enrolled_at, e.enrolled_serial, e.assigned_serial, e.bundle, p.last_seen, p.status, p.ok, p.changed, p.skipped, \
     p.failed, p.blocked, p.urgent_watermark, p.urgent_link, p.routine_watermark, p.routine_link, p.trait_hash, \
     p.boot_id, p.agent_version";

/// A whole envoy out of [`ENVOY_COLUMNS`].
pub fn statement_row(row: &Row<'_>) -> rusqlite::Result<StatementRow> {
    let payload = row.get::<_, Vec<u8>>(1)?.into();
    let signed = common::proto::wire::Signed { payload, signature: row.get(2)?, sealed: Vec::new() };
    Ok(StatementRow { uuid: uuid(row, 0)?, signed })
}

pub fn envoy_row(row: &Row<'_>) -> rusqlite::Result<EnvoyRow> {
    Ok(EnvoyRow {
        uuid: uuid(row, 0)?,
        hostname: row.get(1)?,
        public_key: key_column(row, 2)?,
        sealing_key: row.get::<_, Bytes<32>>(3)?.0,
        state: standing(row, 4)?,
        machine_id: row.get(5)?,
        os: row.get(6)?,
        arch: row.get(7)?,
        enrolled_at: Wall(row.get(8)?),
        enrolled_serial: bits(row, 9)?,
        assigned_serial: bits(row, 10)?,
        bundle: hash_or_none(row, 11)?,
        last_seen: Wall(row.get(12)?),
        status: status(row, 13)?,
        counts: counts(row, 14)?,
        watermark: [bits(row, 19)?, bits(row, 21)?],
        link: [hash(row, 20)?, hash(row, 22)?],
        trait_hash: bits(row, 23)?,
        boot_id: row.get(24)?,
        agent_version: row.get(25)?,
    })
}

const REVOKED: i64 = Enrolled::Revoked as i64;

impl Batch<'_> {
    fn fail(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.to_owned();
        move |error| store_error(&path, error)
    }

    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>, StoreError> {
        self.conn.prepare_cached(sql).map_err(|error| store_error(self.path, error))
    }

    /// Runs a statement that changes rows; `true` if it changed any.
    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<bool, StoreError> {
        self.statement(sql)?.execute(params).map(|n| n > 0).map_err(|error| store_error(self.path, error))
    }

    /// The first row, if any.
    fn first<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.statement(sql)?.query_row(params, read).optional().map_err(|error| store_error(self.path, error))
    }

    fn envoys_where(&self, condition: &str, value: &dyn rusqlite::ToSql) -> Result<Vec<EnvoyRow>, StoreError> {
        let sql = format!("SELECT {ENVOY_COLUMNS} FROM envoys e JOIN envoy_progress p USING (id) WHERE {condition}");
        let mut statement = self.statement(&sql)?;
        let rows = statement.query_map([value], envoy_row).map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    fn trait_value(&self, envoy: i64, path: &str) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT value FROM traits WHERE envoy = ?1 AND path = ?2";
        Ok(self.first(sql, params![envoy, path], |row| row.get(0))?.flatten())
    }

    /// Drops one use of a shared value, and the value with its last use.
    fn unshare(&self, value: Option<i64>) -> Result<(), StoreError> {
        let Some(value) = value else { return Ok(()) };
        self.run("UPDATE trait_values SET refs = refs - 1 WHERE id = ?1", [value])?;
        self.run("DELETE FROM trait_values WHERE id = ?1 AND refs <= 0", [value])?;
        Ok(())
    }

    fn share(&self, json: &str) -> Result<i64, StoreError> {
        let sql = "INSERT INTO trait_values (hash, refs, json) VALUES (?1, 1, ?2)
                   ON CONFLICT (hash) DO UPDATE SET refs = refs + 1 RETURNING id";
        let hash = sha256(&[json.as_bytes()]);
        let mut statement = self.statement(sql)?;
        statement.query_row(params![hash.0, json], |row| row.get(0)).map_err(self.fail())
    }
}

impl Tables for Batch<'_> {
    /// Row id of the envoy.
    type Key = i64;

    fn server(&self) -> &ServerState {
        &self.state
    }

    fn put_server(&mut self, state: ServerState) {
        self.state = state;
    }

    fn envoy(&mut self, uuid: &Uuid) -> Result<Option<EnvoyRow>, StoreError> {
        Ok(self.envoys_where("e.uuid = ?1", uuid.as_bytes())?.pop())
    }

    fn envoys_named(&mut self, hostname: &str) -> Result<Vec<EnvoyRow>, StoreError> {
        self.envoys_where("e.hostname = ?1 AND e.state <> 5", &hostname)
    }

    fn envoy_with_key(&mut self, key: &PublicKey) -> Result<Option<EnvoyRow>, StoreError> {
        Ok(self.envoys_where("e.public_key = ?1 AND e.state <> 5", key.as_bytes())?.pop())
    }

    fn insert_envoy(&mut self, row: &EnvoyRow) -> Result<(), StoreError> {
        let who =
            "INSERT INTO envoys (uuid, hostname, public_key, sealing_key, state, machine_id, os, arch, enrolled_at,
            enrolled_serial, assigned_serial, bundle) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        self.run(
            who,
            params![
                row.uuid.as_bytes(),
                row.hostname,
                row.public_key.as_bytes(),
                row.sealing_key,
                row.state as u8,
                row.machine_id,
                row.os,
                row.arch,
                row.enrolled_at.0,
                row.enrolled_serial as i64,
                row.assigned_serial as i64,
                row.bundle.map(|hash| hash.0),
            ],
        )?;
        let progress = "INSERT INTO envoy_progress (id, last_seen, status, ok, changed, skipped, failed, blocked,
            urgent_watermark, urgent_link, routine_watermark, routine_link, trait_hash, boot_id, agent_version)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        let counts = &row.counts;
        self.run(
            progress,
            params![
                self.conn.last_insert_rowid(),
                row.last_seen.0,
                row.status as u8,
                counts.ok,
                counts.changed,
                counts.skipped,
                counts.failed,
                counts.blocked,
                row.watermark[0] as i64,
                row.link[0].0,
                row.watermark[1] as i64,
                row.link[1].0,
                row.trait_hash as i64,
                row.boot_id,
                row.agent_version,
            ],
        )?;
        Ok(())
    }

    fn set_envoy_state(&mut self, uuid: &Uuid, state: Enrolled) -> Result<(), StoreError> {
        self.run("UPDATE envoys SET state = ?2 WHERE uuid = ?1", params![uuid.as_bytes(), state as u8]).map(drop)
    }

    fn set_hostname(&mut self, uuid: &Uuid, hostname: &str) -> Result<(), StoreError> {
        self.run("UPDATE envoys SET hostname = ?2 WHERE uuid = ?1", params![uuid.as_bytes(), hostname]).map(drop)
    }

    fn set_sealing_key(&mut self, uuid: &Uuid, key: &[u8; 32]) -> Result<(), StoreError> {
        self.run("UPDATE envoys SET sealing_key = ?2 WHERE uuid = ?1", params![uuid.as_bytes(), key]).map(drop)
    }

    fn assign(&mut self, uuid: &Uuid, bundle: Option<Hash32>, serial: u64) -> Result<(), StoreError> {
        let sql = "UPDATE envoys SET bundle = ?2, assigned_serial = ?3 WHERE uuid = ?1 AND state <> ?4";
        self.run(sql, params![uuid.as_bytes(), bundle.map(|hash| hash.0), serial as i64, REVOKED]).map(drop)
    }

    fn set_serial(&mut self, uuid: Option<&Uuid>, serial: u64) -> Result<(), StoreError> {
        match uuid {
            Some(uuid) => {
                let sql = "UPDATE envoys SET assigned_serial = ?2 WHERE uuid = ?1 AND state <> ?3";
                self.run(sql, params![uuid.as_bytes(), serial as i64, REVOKED])
            }
            None => {
                self.run("UPDATE envoys SET assigned_serial = ?1 WHERE state <> ?2", params![serial as i64, REVOKED])
            }
        }
        .map(drop)
    }

    fn sight(&mut self, sighting: &Sighting) -> Result<(), StoreError> {
        let sql = "UPDATE envoy_progress SET last_seen = max(last_seen, ?2), status = ?3, ok = ?4, changed = ?5,
            skipped = ?6, failed = ?7, blocked = ?8, boot_id = ?9, agent_version = ?10
            WHERE id = (SELECT id FROM envoys WHERE uuid = ?1 AND state <> 5)";
        let counts = &sighting.counts;
        self.run(
            sql,
            params![
                sighting.uuid.as_bytes(),
                sighting.at.0,
                sighting.status as u8,
                counts.ok,
                counts.changed,
                counts.skipped,
                counts.failed,
                counts.blocked,
                sighting.boot_id,
                sighting.agent_version,
            ],
        )
        .map(drop)
    }

    fn token(&mut self, token: &Hash32) -> Result<Option<TokenRow>, StoreError> {
        let sql = "SELECT hostname, replace_host, expires_at, created_at, author, used_key, used_uuid
            FROM tokens WHERE hash = ?1";
        self.first(sql, [token.0], |row| {
            let used = match row.get_ref(5)? {
                ValueRef::Null => None,
                _ => Some((key_column(row, 5)?, uuid(row, 6)?)),
            };
            let invite = InviteRow {
                token: *token,
                hostname: row.get(0)?,
                replace: row.get(1)?,
                expires_at: Wall(row.get(2)?),
                created_at: Wall(row.get(3)?),
                author: row.get(4)?,
            };
            Ok(TokenRow { invite, used })
        })
    }

    fn insert_token(&mut self, invite: &InviteRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO tokens (hash, hostname, replace_host, expires_at, created_at, author)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.run(
            sql,
            params![
                invite.token.0,
                invite.hostname,
                invite.replace,
                invite.expires_at.0,
                invite.created_at.0,
                invite.author
            ],
        )
        .map(drop)
    }

    fn remove_open_tokens(&mut self) -> Result<bool, StoreError> {
        self.run("DELETE FROM tokens WHERE used_key IS NULL", [])
    }

    fn use_token(&mut self, token: &Hash32, key: &PublicKey, uuid: &Uuid) -> Result<(), StoreError> {
        let sql = "UPDATE tokens SET used_key = ?2, used_uuid = ?3 WHERE hash = ?1";
        self.run(sql, params![token.0, key.as_bytes(), uuid.as_bytes()]).map(drop)
    }

    fn trusted_count(&mut self, entry: &str) -> Result<u32, StoreError> {
        let count = self.first("SELECT enrolled FROM trusted WHERE entry = ?1", [entry], |row| row.get(0))?;
        Ok(count.unwrap_or(0))
    }

    fn count_trusted(&mut self, entry: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO trusted (entry, enrolled) VALUES (?1, 1)
            ON CONFLICT (entry) DO UPDATE SET enrolled = enrolled + 1";
        self.run(sql, [entry]).map(drop)
    }

    fn progress(&mut self, uuid: &Uuid) -> Result<Option<(i64, Progress)>, StoreError> {
        let sql = "SELECT e.id, e.state, p.urgent_watermark, p.urgent_link, p.routine_watermark, p.routine_link,
            p.trait_hash, p.last_seen, p.status, p.ok, p.changed, p.skipped, p.failed, p.blocked
            FROM envoys e JOIN envoy_progress p USING (id) WHERE e.uuid = ?1";
        self.first(sql, [uuid.as_bytes()], |row| {
            let progress = Progress {
                state: standing(row, 1)?,
                watermark: [bits(row, 2)?, bits(row, 4)?],
                link: [hash(row, 3)?, hash(row, 5)?],
                trait_hash: bits(row, 6)?,
                last_seen: Wall(row.get(7)?),
                status: status(row, 8)?,
                counts: counts(row, 9)?,
            };
            Ok((row.get(0)?, progress))
        })
    }

    fn put_progress(&mut self, key: i64, progress: &Progress) -> Result<(), StoreError> {
        let sql = "UPDATE envoy_progress SET urgent_watermark = ?2, urgent_link = ?3, routine_watermark = ?4,
            routine_link = ?5, trait_hash = ?6, last_seen = ?7, status = ?8, ok = ?9, changed = ?10, skipped = ?11,
            failed = ?12, blocked = ?13 WHERE id = ?1";
        let counts = &progress.counts;
        self.run(
            sql,
            params![
                key,
                progress.watermark[0] as i64,
                progress.link[0].0,
                progress.watermark[1] as i64,
                progress.link[1].0,
                progress.trait_hash as i64,
                progress.last_seen.0,
                progress.status as u8,
                counts.ok,
                counts.changed,
                counts.skipped,
                counts.failed,
                counts.blocked,
            ],
        )
        .map(drop)
    }

    fn covering(&mut self, key: i64, lane: Lane, sequence: u64) -> Result<Option<Span>, StoreError> {
        let sql = "SELECT first_seq, last_seq, first_link, last_link FROM runs
            WHERE envoy = ?1 AND lane = ?2 AND last_seq >= ?3 ORDER BY last_seq LIMIT 1";
        let span = self.first(sql, params![key, lane as u8, sequence as i64], |row| {
            Ok(Span {
                first: bits(row, 0)?,
                last: bits(row, 1)?,
                first_link: hash_or_none(row, 2)?,
                last_link: hash(row, 3)?,
            })
        })?;
        Ok(span.filter(|span| span.first <= sequence))
    }

    fn insert_record(&mut self, key: i64, new: &NewRecord<'_>) -> Result<(), StoreError> {
        let (record, meta) = (new.record, &new.record.meta);
        let sufficient = record::columns_suffice(&record.decoded, &record.body, self.scratch);
        // Where it says the same as another column, a link is left out: it is 32 bytes of every row.
        let first_link = (meta.first != meta.last && new.first == meta.first).then_some(meta.first_link.0);
        let previous_link = (!new.fits).then_some(meta.previous_link.0);
        {
            let mut statement = self.conn.prepare_cached(record::INSERT_RUN).map_err(self.fail())?;
            let heads: [&dyn rusqlite::ToSql; 9] = [
                &key,
                &(meta.lane as u8),
                &(record.kind as u8),
                &(new.first as i64),
                &(meta.last as i64),
                &previous_link,
                &first_link,
                &meta.last_link.0,
                &new.at.0,
            ];
            let bound = (1..)
                .zip(heads)
                .try_for_each(|(at, value)| statement.raw_bind_parameter(at, value))
                .and_then(|()| BodyColumns::of(&record.decoded).bind(&mut statement))
                .and_then(|()| {
                    statement.raw_bind_parameter(record::BODY_PARAMETER, (!sufficient).then_some(&record.body))
                })
                .and_then(|()| statement.raw_execute());
            bound.map_err(self.fail())?;
        }
        if let common::proto::RecordBody::Run(run) = &record.decoded
            && !run.outcomes.is_empty()
        {
            record::write_outcomes(&run.outcomes, self.list);
            let row = self.conn.last_insert_rowid();
            self.run("INSERT INTO outcomes (run, list) VALUES (?1, ?2)", params![row, self.list.as_str()])?;
        }
        Ok(())
    }

    fn insert_fork(&mut self, key: i64, record: &StoredRecord, at: Wall) -> Result<bool, StoreError> {
        let sql = "INSERT INTO forks (envoy, lane, kind, first_seq, last_seq, previous_link, first_link, last_link,
            received_at, run_id, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING";
        let meta = &record.meta;
        let run_id = match &record.decoded {
            common::proto::RecordBody::Run(run) => Some(&run.run_id),
            common::proto::RecordBody::Stretch(stretch) => Some(&stretch.last_run_id),
            _ => None,
        };
        self.run(
            sql,
            params![
                key,
                meta.lane as u8,
                record.kind as u8,
                meta.first as i64,
                meta.last as i64,
                meta.previous_link.0,
                meta.first_link.0,
                meta.last_link.0,
                at.0,
                run_id,
                record.body
            ],
        )
    }

    fn put_trait(&mut self, key: i64, tree: &(String, String, bool), at: Wall) -> Result<(), StoreError> {
        let (path, json, volatile) = tree;
        let old = self.trait_value(key, path)?;
        let shared = if *volatile { None } else { Some(self.share(json)?) };
        let inline = volatile.then_some(json);
        let sql = "INSERT INTO traits (envoy, path, value, json, at) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT (envoy, path) DO UPDATE SET value = excluded.value, json = excluded.json, at = excluded.at";
        self.run(sql, params![key, path, shared, inline, at.0])?;
        self.unshare(old)
    }

    fn remove_trait(&mut self, key: i64, path: &str) -> Result<(), StoreError> {
        let old = self.trait_value(key, path)?;
        self.run("DELETE FROM traits WHERE envoy = ?1 AND path = ?2", params![key, path])?;
        self.unshare(old)
    }

    fn event(&mut self, event: &EventRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO events (at, kind, uuid, detail) VALUES (?1, ?2, ?3, ?4)";
        let uuid = event.uuid.as_ref().map(Uuid::as_bytes);
        self.run(sql, params![event.at.0, event.kind, uuid, event.detail]).map(drop)
    }

    fn audit_head(&mut self) -> Result<Hash32, StoreError> {
        let head = self.first("SELECT hash FROM audit ORDER BY id DESC LIMIT 1", [], |row| hash(row, 0))?;
        Ok(head.unwrap_or(Hash32::ZERO))
    }

    fn insert_audit(&mut self, row: &AuditRow, hash: Hash32) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit (at, actor, action, subject, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.run(sql, params![row.at.0, row.actor, row.action, row.subject, row.detail, hash.0]).map(drop)
    }

    fn insert_publish(&mut self, serial: u64, publish: &PublishWrite) -> Result<(), StoreError> {
        let sql = "INSERT INTO publishes (serial, tree, author, message, summary, at, envoys)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let envoys = publish.assign.len() as i64;
        let (author, message, summary) = (&publish.author, &publish.message, &publish.summary);
        self.run(sql, params![serial as i64, publish.tree.0, author, message, summary, publish.at.0, envoys]).map(drop)
    }

    fn put_statement(&mut self, row: &StatementRow) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO statements (uuid, payload, signature) VALUES (?1, ?2, ?3)";
        self.run(sql, params![row.uuid.as_bytes(), &row.signed.payload[..], row.signed.signature]).map(drop)
    }

    fn remove_statement(&mut self, uuid: &Uuid) -> Result<(), StoreError> {
        self.run("DELETE FROM statements WHERE uuid = ?1", [uuid.as_bytes()]).map(drop)
    }

    fn insert_revocation(&mut self, counter: u64, uuid: &Uuid, at: Wall, reason: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO revocations (counter, uuid, at, reason) VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, params![counter as i64, uuid.as_bytes(), at.0, reason]).map(drop)
    }
}
