//! Events, audit, publishes, tokens, traits, forks: newest first, a page at a time.

use common::chain::Lane;
use common::ids::{Hash32, Uuid};
use common::limits;
use common::proto::Enrolled;
use common::time::Wall;
use rusqlite::{Row, ToSql, params};

use super::{Reader, bits, hash, kind_column, lane_column, row_id, uuid};
use crate::store::{AuditRow, EventRow, InviteRow, RecordKind, StoreError};

/// A line of the event log.
#[derive(Clone, Debug, PartialEq)]
pub struct EventItem {
    /// Order.
    pub id: u64,
    /// The line.
    pub event: EventRow,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditItem {
    /// Order.
    pub id: u64,
    /// The entry.
    pub entry: AuditRow,
    /// Hash over the entry and the one before.
    pub hash: Hash32,
}

/// An envoy, by what finds its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostItem {
    /// Row.
    pub id: u64,
    /// Which.
    pub uuid: Uuid,
    /// Its name.
    pub hostname: String,
}

/// A publish.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishItem {
    /// Its serial.
    pub serial: u64,
    /// SHA-256 over the tree.
    pub tree: Hash32,
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// What changed.
    pub summary: String,
    /// When.
    pub at: Wall,
    /// Envoys whose bundle changed.
    pub envoys: u64,
}

/// A token, as far as it may be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenItem {
    /// The invitation, with the hash of the token.
    pub invite: InviteRow,
    /// The envoy that used it.
    pub used_by: Option<Uuid>,
}

/// A trait tree of an envoy.
#[derive(Clone, Debug, PartialEq)]
pub struct TraitItem {
    /// `os`, `network`.
    pub path: String,
    /// As JSON.
    pub json: String,
    /// Changes all the time.
    pub volatile: bool,
    /// Server time at which it was received.
    pub at: Wall,
}

/// A record beside the main chain.
#[derive(Clone, Debug, PartialEq)]
pub struct ForkItem {
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
}

impl Reader {
    /// Events below an id, newest first; of one envoy if given.
    pub fn events(
        &mut self,
        envoy: Option<&Uuid>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<EventItem>, StoreError> {
        let sql = "SELECT id, at, kind, uuid, detail FROM events
            WHERE id < ?1 AND (?2 IS NULL OR uuid = ?2) ORDER BY id DESC LIMIT ?3";
        let envoy = envoy.map(|uuid| uuid.as_bytes().to_vec());
        self.page(sql, &[&before_id(before), &envoy, &rows(limit)], event_item)
    }

    /// Events above an id, oldest first: what is new since then.
    pub fn events_after(&mut self, after: u64, limit: usize) -> Result<Vec<EventItem>, StoreError> {
        let sql = "SELECT id, at, kind, uuid, detail FROM events WHERE id > ?1 ORDER BY id LIMIT ?2";
        self.page(sql, &[&(after as i64), &rows(limit)], event_item)
    }

    /// Audit entries below an id, newest first.
    pub fn audit(&mut self, before: Option<u64>, limit: usize) -> Result<Vec<AuditItem>, StoreError> {
        let sql =
            "SELECT id, at, actor, action, subject, detail, hash FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
        self.page(sql, &[&before_id(before), &rows(limit)], |row| {
            let [actor, action, subject, detail] = [2, 3, 4, 5].map(|at| row.get(at));
            let entry =
                AuditRow { at: Wall(row.get(1)?), actor: actor?, action: action?, subject: subject?, detail: detail? };
            Ok(AuditItem { id: bits(row, 0)?, entry, hash: hash(row, 6)? })
        })
    }

    /// Publishes, newest first.
    pub fn publishes(&mut self, limit: usize) -> Result<Vec<PublishItem>, StoreError> {
        let sql =
            "SELECT serial, tree, author, message, summary, at, envoys FROM publishes ORDER BY serial DESC LIMIT ?1";
        self.page(sql, &[&rows(limit)], |row| {
            Ok(PublishItem {
                serial: bits(row, 0)?,
                tree: hash(row, 1)?,
                author: row.get(2)?,
                message: row.get(3)?,
                summary: row.get(4)?,
                at: Wall(row.get(5)?),
                envoys: bits(row, 6)?,
            })
        })
    }

    /// Envoys that are not revoked, in order of their row, from the one after `after`: for questions with no server running.
    pub fn hosts(&mut self, after: u64, limit: usize) -> Result<Vec<HostItem>, StoreError> {
        let sql = "SELECT id, uuid, hostname FROM envoys WHERE id > ?1 AND state <> ?2 ORDER BY id LIMIT ?3";
        self.page(sql, &[&(after as i64), &(Enrolled::Revoked as i64), &rows(limit)], |row| {
            Ok(HostItem { id: bits(row, 0)?, uuid: uuid(row, 1)?, hostname: row.get(2)? })
        })
    }

    /// Tokens, newest first.
    pub fn tokens(&mut self, limit: usize) -> Result<Vec<TokenItem>, StoreError> {
        let sql = "SELECT hash, hostname, replace_host, expires_at, created_at, author, used_uuid FROM tokens
            ORDER BY created_at DESC LIMIT ?1";
        self.page(sql, &[&rows(limit)], |row| {
            let invite = InviteRow {
                token: hash(row, 0)?,
                hostname: row.get(1)?,
                replace: row.get(2)?,
                expires_at: Wall(row.get(3)?),
                created_at: Wall(row.get(4)?),
                author: row.get(5)?,
            };
            Ok(TokenItem { invite, used_by: uuid_or_none(row, 6)? })
        })
    }

    /// Trait trees of an envoy, by path.
    pub fn traits(&mut self, envoy: &Uuid) -> Result<Vec<TraitItem>, StoreError> {
        let sql = "SELECT path, json, volatile, at FROM envoy_traits
            WHERE envoy = (SELECT id FROM envoys WHERE uuid = ?1) ORDER BY path LIMIT ?2";
        self.page(sql, &[&envoy.as_bytes(), &rows(limits::READ_ROWS_MAX)], |row| {
            Ok(TraitItem { path: row.get(0)?, json: row.get(1)?, volatile: row.get(2)?, at: Wall(row.get(3)?) })
        })
    }

    /// Records of an envoy beside its main chain, newest first.
    pub fn forks(&mut self, envoy: &Uuid, limit: usize) -> Result<Vec<ForkItem>, StoreError> {
        let Some(id) = self.ask(|conn| row_id(conn, envoy))? else { return Ok(Vec::new()) };
        let sql = "SELECT lane, kind, first_seq, last_seq, last_link, received_at FROM forks WHERE envoy = ?1
            ORDER BY id DESC LIMIT ?2";
        self.page(sql, params![id, rows(limit)], |row| {
            Ok(ForkItem {
                lane: lane_column(row, 0)?,
                kind: kind_column(row, 1)?,
                first: bits(row, 2)?,
                last: bits(row, 3)?,
                link: hash(row, 4)?,
                received_at: Wall(row.get(5)?),
            })
        })
    }

    fn page<T>(
        &mut self,
        sql: &str,
        params: &[&dyn ToSql],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.ask(|conn| conn.prepare_cached(sql)?.query_map(params, read)?.collect())
    }
}

fn event_item(row: &Row<'_>) -> rusqlite::Result<EventItem> {
    let (at, who) = (Wall(row.get(1)?), uuid_or_none(row, 3)?);
    Ok(EventItem { id: bits(row, 0)?, event: EventRow { at, kind: row.get(2)?, uuid: who, detail: row.get(4)? } })
}

fn uuid_or_none(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Uuid>> {
    match row.get_ref(at)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => uuid(row, at).map(Some),
    }
}

fn rows(limit: usize) -> i64 {
    limit.min(limits::READ_ROWS_MAX) as i64
}

fn before_id(before: Option<u64>) -> i64 {
    before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX)
}
