//! Verifies what a lane's chain can show: that nothing is missing, and that no stored run was edited.

use common::chain::{self, Lane};
use common::ids::{Hash32, Uuid};
use rusqlite::{Row, params};

use super::{BODY_COLUMN_COUNT, BODY_COLUMNS, Reader, bits, body_of_row, hash, hash_or_none, kind_column, row_id};
use crate::store::sqlite::encode_body;
use crate::store::{RecordKind, StoreError};

/// What was found on one lane of one envoy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// First and last sequence looked at; zeros where there are none.
    pub span: (u64, u64),
    /// Sequences that runs, stretches and incidents stand for.
    pub present: u64,
    /// Sequences that gap records stand for.
    pub lost: u64,
    /// Rows whose content was compared with its link. Stretches and gaps have links only.
    pub compared: u64,
    /// What does not fit, one line each, the first hundred.
    pub faults: Vec<String>,
}

const FAULTS_MAX: usize = 100;

impl Reader {
    /// Follows a chain from the oldest row that retention has left, at most `rows` rows from `after` on.
    pub fn verify(&mut self, envoy: &Uuid, lane: Lane, after: u64, rows: usize) -> Result<ChainReport, StoreError> {
        self.ask(|conn| {
            let mut report = ChainReport::default();
            let Some(id) = row_id(conn, envoy)? else { return Ok(report) };
            let sql = format!(
                "SELECT r.kind, r.first_seq, r.last_seq, r.previous_link, r.last_link, r.body, o.list, {BODY_COLUMNS}
                 FROM runs r LEFT JOIN outcomes o ON o.run = r.id
                 WHERE r.envoy = ?1 AND r.lane = ?2 AND r.last_seq > ?3 ORDER BY r.last_seq LIMIT ?4"
            );
            let mut statement = conn.prepare(&sql)?;
            debug_assert_eq!(statement.column_count(), BODY_AT + BODY_COLUMN_COUNT);
            let mut rows = statement.query(params![id, lane as u8, after as i64, rows as i64])?;
            let (mut previous, mut scratch) = (None, Vec::new());
            while let Some(row) = rows.next()? {
                previous = Some(report.follow(row, lane, previous, &mut scratch)?);
            }
            Ok(report)
        })
    }
}

/// Where the body's columns begin.
const BODY_AT: usize = 7;

impl ChainReport {
    /// Looks at one row; gives its end to the next.
    fn follow(
        &mut self,
        row: &Row<'_>,
        lane: Lane,
        previous: Option<(u64, Hash32)>,
        scratch: &mut Vec<u8>,
    ) -> rusqlite::Result<(u64, Hash32)> {
        let kind = kind_column(row, 0)?;
        let (first, last, link) = (bits(row, 1)?, bits(row, 2)?, hash(row, 4)?);
        let count = last.saturating_sub(first).saturating_add(1);
        // NULL: as the row before; of the oldest row that is left, only a chain start is known.
        let stated = hash_or_none(row, 3)?;
        let before = match (stated, previous, first) {
            (Some(stated), ..) => Some(stated),
            (None, Some((_, link)), _) => Some(link),
            (None, None, 1) => Some(Hash32::ZERO),
            (None, None, _) => None,
        };
        if let Some((end, _)) = previous
            && end + 1 != first
        {
            self.fault(format!("{} lane: nothing is stored between {end} and {first}", lane.name()));
        }
        if stated.is_some() && previous.is_some() {
            self.fault(format!("{} lane: the agent's chain was broken before {first}", lane.name()));
        }
        let whole = matches!(kind, RecordKind::Run | RecordKind::Incident) && count == 1;
        if let (true, Some(before)) = (whole, before) {
            match row.get::<_, Option<Vec<u8>>>(5)? {
                Some(body) => *scratch = body,
                None => {
                    let list: Option<String> = row.get(6)?;
                    encode_body(&body_of_row(row, BODY_AT, kind, count, list.as_deref())?, scratch);
                }
            }
            self.compared += 1;
            if chain::link(&before, lane, first, scratch) != link {
                self.fault(format!("{} lane: what is stored at {first} is not what the agent sent", lane.name()));
            }
        }
        self.span = (if self.span.0 == 0 { first } else { self.span.0 }, last);
        match kind {
            RecordKind::Gap => self.lost += count,
            _ => self.present += count,
        }
        Ok((last, link))
    }

    fn fault(&mut self, line: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(line);
        }
    }
}
