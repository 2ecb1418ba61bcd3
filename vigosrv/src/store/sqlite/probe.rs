//! What the contract suite looks at.

use common::chain::Lane;
use common::ids::{Hash32, Uuid};
use common::time::Wall;
use rusqlite::{Params, Row};

use super::{SqliteStore, hash, kind_of};
use crate::store::{AuditRow, RecordKind};

impl SqliteStore {
    /// All rows of a query.
    pub(in crate::store) fn probe<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Vec<T> {
        let mut statement = self.conn.prepare(sql).unwrap();
        statement.query_map(params, read).unwrap().collect::<Result<_, _>>().unwrap()
    }

    pub(in crate::store) fn probe_rows(&self, uuid: &Uuid) -> Vec<(Lane, u64, u64, RecordKind)> {
        let sql =
            "SELECT lane, first_seq, last_seq, kind FROM runs WHERE envoy = (SELECT id FROM envoys WHERE uuid = ?1)
            ORDER BY lane, last_seq";
        self.probe(sql, [uuid.as_bytes()], |row| {
            let number = |at| row.get::<_, i64>(at).map(|n| n as u64);
            let lane = Lane::from_u32(row.get(0)?).unwrap();
            Ok((lane, number(1)?, number(2)?, kind_of(row.get(3)?).unwrap()))
        })
    }

    pub(in crate::store) fn probe_forks(&self, uuid: &Uuid) -> Vec<(Lane, u64)> {
        let sql = "SELECT lane, first_seq FROM forks WHERE envoy = (SELECT id FROM envoys WHERE uuid = ?1)";
        self.probe(sql, [uuid.as_bytes()], |row| {
            Ok((Lane::from_u32(row.get(0)?).unwrap(), row.get::<_, i64>(1)? as u64))
        })
    }

    pub(in crate::store) fn probe_events(&self) -> Vec<String> {
        self.probe("SELECT kind FROM events ORDER BY id", [], |row| row.get(0))
    }

    pub(in crate::store) fn probe_traits(&self, uuid: &Uuid) -> Vec<(String, String)> {
        let sql =
            "SELECT path, json FROM envoy_traits WHERE envoy = (SELECT id FROM envoys WHERE uuid = ?1) ORDER BY path";
        self.probe(sql, [uuid.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    pub(in crate::store) fn probe_audit(&self) -> Vec<(AuditRow, Hash32)> {
        let sql = "SELECT at, actor, action, subject, detail, hash FROM audit ORDER BY id";
        self.probe(sql, [], |row| {
            let [actor, action, subject, detail] = [1, 2, 3, 4].map(|at| row.get(at));
            let entry =
                AuditRow { at: Wall(row.get(0)?), actor: actor?, action: action?, subject: subject?, detail: detail? };
            Ok((entry, hash(row, 5)?))
        })
    }
}
