//! Records as rows and back. The columns hold everything that the body says, so that a chain can be verified, and an edited row
//! found, from the database alone; a body that the columns do not give back bit for bit is kept beside them.

use common::proto::{Message, RecordBody, wire};
use rusqlite::{CachedStatement, Row, ToSql};

use crate::store::RecordKind;
use crate::store::rules::gap_reason;

/// The columns of `runs` that come from the body. Absent is NULL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BodyColumns<'a> {
    first_run_id: Option<&'a [u8]>,
    run_id: Option<&'a [u8]>,
    started_at: Option<i64>,
    started_boot_ms: Option<u64>,
    last_started_at: Option<i64>,
    last_started_boot_ms: Option<u64>,
    duration_ms: Option<u64>,
    boot_id: Option<&'a str>,
    bundle_hash: Option<&'a [u8]>,
    serial: Option<u64>,
    epoch: Option<u64>,
    source: Option<i32>,
    bundle_age_ms: Option<u64>,
    counts: Option<wire::RunCounts>,
    status: Option<u32>,
    dry_run: Option<bool>,
    reason: Option<&'a str>,
    error: Option<&'a str>,
}

/// Inserts a record: nine columns of its head, those of its body, and the body itself where they do not suffice.
pub const INSERT_RUN: &str = "INSERT INTO runs (envoy, lane, kind, first_seq, last_seq, previous_link, first_link, last_link,
    received_at, first_run_id, run_id, started_at, started_boot_ms, last_started_at, last_started_boot_ms, duration_ms,
    boot_id, bundle_hash, serial, epoch, source, bundle_age_ms, ok, changed, skipped, failed, blocked, status, dry_run,
    reason, error, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
    ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32)";

/// Columns of `runs` as [`body_of_row`] reads them, in the order of [`INSERT_RUN`].
pub const BODY_COLUMNS: &str = "r.first_run_id, r.run_id, r.started_at, r.started_boot_ms, r.last_started_at, \
     r.last_started_boot_ms, r.duration_ms, r.boot_id, r.bundle_hash, r.serial, r.epoch, r.source, r.bundle_age_ms, \
     r.ok, r.changed, r.skipped, r.failed, r.blocked, r.status, r.dry_run, r.reason, r.error";

/// Parameter of [`INSERT_RUN`] that is the first of the body's columns.
const BODY_FIRST_PARAMETER: usize = 10;

/// How many they are.
pub const BODY_COLUMN_COUNT: usize = 22;

/// Parameter of [`INSERT_RUN`] that is the body itself.
pub const BODY_PARAMETER: usize = BODY_FIRST_PARAMETER + BODY_COLUMN_COUNT;

impl<'a> BodyColumns<'a> {
    /// Of a decoded body.
    pub fn of(body: &'a RecordBody) -> BodyColumns<'a> {
        match body {
            RecordBody::Run(run) => BodyColumns {
                run_id: Some(&run.run_id),
                started_at: Some(run.started_wall_ms),
                started_boot_ms: Some(run.started_boot_ms),
                duration_ms: Some(run.duration_ms),
                boot_id: Some(&run.boot_id),
                bundle_hash: (!run.bundle_hash.is_empty()).then_some(&run.bundle_hash),
                serial: Some(run.serial),
                epoch: Some(run.epoch),
                source: Some(run.source),
                bundle_age_ms: Some(run.bundle_age_ms),
                counts: run.counts,
                status: Some(run.status),
                dry_run: Some(run.dry_run),
                error: (!run.error.is_empty()).then_some(&run.error),
                ..BodyColumns::default()
            },
            RecordBody::Stretch(stretch) => BodyColumns {
                first_run_id: Some(&stretch.first_run_id),
                run_id: Some(&stretch.last_run_id),
                started_at: Some(stretch.first_wall_ms),
                started_boot_ms: Some(stretch.first_boot_ms),
                last_started_at: Some(stretch.last_wall_ms),
                last_started_boot_ms: Some(stretch.last_boot_ms),
                duration_ms: Some(stretch.duration_ms_sum),
                boot_id: Some(&stretch.boot_id),
                bundle_hash: (!stretch.bundle_hash.is_empty()).then_some(&stretch.bundle_hash),
                serial: Some(stretch.serial),
                epoch: Some(stretch.epoch),
                source: Some(stretch.source),
                bundle_age_ms: Some(stretch.bundle_age_ms),
                counts: stretch.counts,
                ..BodyColumns::default()
            },
            RecordBody::Gap(gap) => BodyColumns {
                started_at: Some(gap.wall_ms),
                reason: Some(gap_reason(gap.reason)),
                error: Some(&gap.detail),
                ..BodyColumns::default()
            },
            RecordBody::Incident(incident) => BodyColumns {
                started_at: Some(incident.wall_ms),
                started_boot_ms: Some(incident.boot_ms),
                reason: Some(&incident.kind),
                error: Some(&incident.detail),
                ..BodyColumns::default()
            },
        }
    }

    /// Binds to consecutive parameters from [`BODY_FIRST_PARAMETER`] on.
    pub fn bind(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
        let counts = |pick: fn(&wire::RunCounts) -> u32| self.counts.as_ref().map(pick);
        let bits = |n: Option<u64>| n.map(|n| n as i64);
        let values: [&dyn ToSql; BODY_COLUMN_COUNT] = [
            &self.first_run_id,
            &self.run_id,
            &self.started_at,
            &bits(self.started_boot_ms),
            &self.last_started_at,
            &bits(self.last_started_boot_ms),
            &bits(self.duration_ms),
            &self.boot_id,
            &self.bundle_hash,
            &bits(self.serial),
            &bits(self.epoch),
            &self.source,
            &bits(self.bundle_age_ms),
            &counts(|c| c.ok),
            &counts(|c| c.changed),
            &counts(|c| c.skipped),
            &counts(|c| c.failed),
            &counts(|c| c.blocked),
            &self.status,
            &self.dry_run,
            &self.reason,
            &self.error,
        ];
        (BODY_FIRST_PARAMETER..).zip(values).try_for_each(|(at, value)| statement.raw_bind_parameter(at, value))
    }
}

/// The body that a row stands for, made again from its columns, which begin at column `at`. `count` is that of the record,
/// `outcomes` the list of a run.
pub fn body_of_row(
    row: &Row<'_>,
    at: usize,
    kind: RecordKind,
    count: u64,
    outcomes: Option<&str>,
) -> rusqlite::Result<RecordBody> {
    let bytes = |i: usize| row.get::<_, Option<Vec<u8>>>(at + i).map(Option::unwrap_or_default);
    let text = |i: usize| row.get::<_, Option<String>>(at + i).map(Option::unwrap_or_default);
    let number = |i: usize| row.get::<_, Option<i64>>(at + i).map(Option::unwrap_or_default);
    let bits = |i: usize| number(i).map(|n| n as u64);
    let narrow = |i: usize| number(i).map(|n| n as u32);
    let counts = match row.get::<_, Option<u32>>(at + 13)? {
        None => None,
        Some(ok) => Some(wire::RunCounts {
            ok,
            changed: narrow(14)?,
            skipped: narrow(15)?,
            failed: narrow(16)?,
            blocked: narrow(17)?,
        }),
    };
    Ok(match kind {
        RecordKind::Run => RecordBody::Run(wire::RunResult {
            run_id: bytes(1)?,
            started_wall_ms: number(2)?,
            started_boot_ms: bits(3)?,
            duration_ms: bits(6)?,
            boot_id: text(7)?,
            bundle_hash: bytes(8)?,
            serial: bits(9)?,
            epoch: bits(10)?,
            source: number(11)? as i32,
            bundle_age_ms: bits(12)?,
            counts,
            outcomes: outcomes.map(parse_outcomes).unwrap_or_default(),
            error: text(21)?,
            dry_run: number(19)? != 0,
            status: narrow(18)?,
        }),
        RecordKind::Stretch => RecordBody::Stretch(wire::Stretch {
            first_run_id: bytes(0)?,
            last_run_id: bytes(1)?,
            first_wall_ms: number(2)?,
            last_wall_ms: number(4)?,
            first_boot_ms: bits(3)?,
            last_boot_ms: bits(5)?,
            count,
            bundle_hash: bytes(8)?,
            serial: bits(9)?,
            epoch: bits(10)?,
            source: number(11)? as i32,
            bundle_age_ms: bits(12)?,
            counts,
            boot_id: text(7)?,
            duration_ms_sum: bits(6)?,
        }),
        RecordKind::Gap => {
            let reason = text(20)?;
            let known = (0..4).find(|n| gap_reason(*n) == reason).unwrap_or_default();
            RecordBody::Gap(wire::Gap { reason: known, count, detail: text(21)?, wall_ms: number(2)? })
        }
        RecordKind::Incident => RecordBody::Incident(wire::Incident {
            kind: text(20)?,
            detail: text(21)?,
            wall_ms: number(2)?,
            boot_ms: bits(3)?,
        }),
    })
}

/// Encodes a body as agents do.
pub fn encode_body(body: &RecordBody, out: &mut Vec<u8>) {
    out.clear();
    // Encoding into a Vec cannot run out of room.
    let _ = match body {
        RecordBody::Run(run) => run.encode(out),
        RecordBody::Stretch(stretch) => stretch.encode(out),
        RecordBody::Gap(gap) => gap.encode(out),
        RecordBody::Incident(incident) => incident.encode(out),
    };
}

/// Whether the columns say everything that the body does: what they give back encodes to the same bytes. Numbers of gap
/// reasons that this version does not know are lost in their word.
pub fn columns_suffice(decoded: &RecordBody, body: &[u8], scratch: &mut Vec<u8>) -> bool {
    encode_body(decoded, scratch);
    let worded = match decoded {
        RecordBody::Gap(gap) => (0..4).contains(&gap.reason),
        _ => true,
    };
    worded && scratch == body
}

/// Number of a kind in the database.
pub fn kind_of(number: u8) -> Option<RecordKind> {
    [RecordKind::Run, RecordKind::Stretch, RecordKind::Gap, RecordKind::Incident]
        .into_iter()
        .find(|kind| *kind as u8 == number)
}

/// The JSON of a run's outcomes: an array of arrays, trailing defaults left out. By hand, because it is on the path of every
/// result: a `serde_json::Value` costs more than the insert.
pub fn write_outcomes(outcomes: &[wire::ResourceOutcome], out: &mut String) {
    use std::fmt::Write;
    out.clear();
    out.push('[');
    for (i, outcome) in outcomes.iter().enumerate() {
        out.push_str(if i == 0 { "[" } else { ",[" });
        push_json(out, &outcome.resource);
        out.push(',');
        push_json(out, &outcome.r#type);
        // Writing to a String cannot fail.
        let _ = write!(out, ",{},{}", outcome.outcome, outcome.duration_ms);
        let tail = [
            (!outcome.message.is_empty(), 1),
            (!outcome.diff.is_empty(), 2),
            (outcome.relapse, 3),
            (outcome.consecutive != 0, 4),
        ];
        let needed = tail.iter().filter(|(set, _)| *set).map(|(_, n)| *n).max().unwrap_or(0);
        for n in 1..=needed {
            out.push(',');
            match n {
                1 => push_json(out, &outcome.message),
                2 => push_json(out, &outcome.diff),
                3 => out.push(if outcome.relapse { '1' } else { '0' }),
                _ => {
                    let _ = write!(out, "{}", outcome.consecutive);
                }
            }
        }
        out.push(']');
    }
    out.push(']');
}

/// The outcomes of such a list. An edited list that is no such list reads as what of it can be read.
pub fn parse_outcomes(list: &str) -> Vec<wire::ResourceOutcome> {
    let rows: Vec<Vec<serde_json::Value>> = serde_json::from_str(list).unwrap_or_default();
    let parse = |row: Vec<serde_json::Value>| {
        let text = |i: usize| row.get(i).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let number = |i: usize| row.get(i).and_then(serde_json::Value::as_u64).unwrap_or_default();
        wire::ResourceOutcome {
            resource: text(0),
            r#type: text(1),
            outcome: number(2) as u32,
            duration_ms: number(3),
            message: text(4),
            diff: text(5),
            relapse: number(6) != 0,
            consecutive: number(7) as u32,
        }
    };
    rows.into_iter().map(parse).collect()
}

/// A JSON string (RFC 8259 section 7). Runs of ordinary bytes are copied whole.
fn push_json(out: &mut String, text: &str) {
    use std::fmt::Write;
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // Every byte that is escaped is ASCII, so both ends are character boundaries.
        out.push_str(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            control => {
                let _ = write!(out, "\\u{control:04x}");
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(resource: &str, message: &str, consecutive: u32) -> wire::ResourceOutcome {
        wire::ResourceOutcome {
            resource: resource.into(),
            outcome: 2,
            message: message.into(),
            duration_ms: 17,
            r#type: "file".into(),
            consecutive,
            ..wire::ResourceOutcome::default()
        }
    }

    #[test]
    fn outcome_lists_round_trip() {
        let outcomes = vec![
            outcome("web.conf", "", 0),
            outcome("web.\"quoted\"\\\n\u{1}ü", "a\tb", 3),
            wire::ResourceOutcome { relapse: true, diff: "-a\n+b\n".into(), ..outcome("", "", 0) },
            wire::ResourceOutcome { duration_ms: u64::MAX, outcome: u32::MAX, ..outcome("x", "", 0) },
        ];
        let mut list = String::new();
        write_outcomes(&outcomes, &mut list);
        assert_eq!(parse_outcomes(&list), outcomes);
        assert!(list.starts_with(r#"[["web.conf","file",2,17],["#), "{list}");
        write_outcomes(&[], &mut list);
        assert_eq!(list, "[]");
    }

    #[test]
    fn an_unknown_field_keeps_the_body() {
        let incident = wire::Incident { kind: "salvaged".into(), ..wire::Incident::default() };
        let mut body = incident.encode_to_vec();
        let (decoded, mut scratch) = (RecordBody::Incident(incident), Vec::new());
        assert!(columns_suffice(&decoded, &body, &mut scratch));
        body.extend_from_slice(&[0x78, 1]);
        assert!(!columns_suffice(&decoded, &body, &mut scratch));
    }
}
