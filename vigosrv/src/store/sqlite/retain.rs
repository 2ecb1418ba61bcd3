//! Retention: what is oldest goes first, in steps that a writer can take between two batches.

use rusqlite::{Connection, params};

use super::PAGE_BYTES;
use crate::store::{RetainRule, Retained};

/// Removes at most `rule.step` of the oldest rows of history (runs with their outcomes, then forks and events), while the
/// database uses more than its bytes or where they were received before the cutoff. Envoys, publishes, revocations and the
/// audit log are not history.
pub fn step(conn: &mut Connection, rule: &RetainRule) -> rusqlite::Result<Retained> {
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let used = used_bytes(&transaction)?;
    let cutoff = if used > rule.bytes_max { i64::MAX } else { rule.cutoff.0 };
    let step = i64::from(rule.step);
    // Ids are in order of arrival: the oldest rows are at the low end, in pages that empty whole.
    let last: Option<i64> = transaction
        .prepare_cached(
            "SELECT max(id) FROM (SELECT id, received_at FROM runs ORDER BY id LIMIT ?1) WHERE received_at < ?2",
        )?
        .query_row(params![step, cutoff], |row| row.get(0))?;
    let mut removed = 0;
    if let Some(last) = last {
        transaction.prepare_cached("DELETE FROM outcomes WHERE run <= ?1")?.execute([last])?;
        removed += transaction.prepare_cached("DELETE FROM runs WHERE id <= ?1")?.execute([last])?;
    }
    // Events are few and say what happened: they give way to bytes only when no runs are left.
    let log_cutoff = if last.is_none() { cutoff } else { rule.cutoff.0 };
    for (table, time) in [("forks", "received_at"), ("events", "at")] {
        let left = step - removed as i64;
        let sql =
            format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?1) AND {time} < ?2");
        removed += transaction.prepare_cached(&sql)?.execute(params![left, log_cutoff])?;
    }
    transaction.commit()?;
    let more = removed as i64 >= step || (removed > 0 && used_bytes(conn)? > rule.bytes_max);
    Ok(Retained { removed: removed as u64, more })
}

/// Bytes of pages that hold something.
fn used_bytes(conn: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let free: i64 = conn.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    Ok(u64::try_from(pages - free).unwrap_or(0) * PAGE_BYTES)
}
