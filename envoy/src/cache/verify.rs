//! `vigo-envoy verify`: whether all of a store agrees. Changes nothing.
//!
//! `verify` reads the file page by page as the probe does, and goes on to what only people ask for: order of the queue,
//! links of the chains, decoding of every record. Signatures of the slots are checked by who knows the keys.

use std::fmt;
use std::fs::File;
use std::path::Path;

use common::chain::Lane;
use common::ids::{Hash32, Uuid};
use common::proto::record_meta;
use serde::Serialize;

use super::codec::Kind;
use super::env::DATA_FILE;
use super::ops::QueueRecord;
use super::pages::read_metas;
use super::probe::examine;

/// Problems that are named; the count is always complete.
const PROBLEMS_NAMED_MAX: usize = 100;
/// Times that a store is read which an agent writes meanwhile: a walk holds for two commits.
const ATTEMPTS_MAX: u32 = 20;

/// What a check of the whole store found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Pages that hold something, and free ones.
    pub used_pages: u64,
    /// Free pages.
    pub free_pages: u64,
    /// Number of the last transaction.
    pub transaction: u64,
    /// By [`Lane::index`].
    pub lanes: [LaneReport; 2],
    /// Slots whose checksums hold: `current assignment`, `current bundle`, ...
    pub slots: Vec<String>,
    /// Meta values and trait trees.
    pub other_values: u64,
    /// What is wrong, each with its place. Empty: the store is sound.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub n_problems: u64,
}

/// One lane of a [`Report`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneReport {
    /// Records.
    pub records: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Of them, acknowledged and kept for a server that is restored.
    pub acknowledged: u64,
    /// First sequence of the oldest record, 0 where the lane is empty.
    pub first: u64,
    /// Last sequence of the newest record.
    pub last: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.n_problems == 0
    }

    fn problem(&mut self, text: String) {
        self.n_problems += 1;
        if self.problems.len() < PROBLEMS_NAMED_MAX {
            self.problems.push(text);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "store: {} bytes, {} pages in use, {} free", self.file_bytes, self.used_pages, self.free_pages)?;
        for lane in Lane::ALL {
            let report = &self.lanes[lane.index()];
            write!(f, "{}: {} records, {} bytes", lane.name(), report.records, report.bytes)?;
            match report.records {
                0 => writeln!(f)?,
                _ => {
                    writeln!(f, ", sequences {}..={}, {} acknowledged", report.first, report.last, report.acknowledged)?
                }
            }
        }
        let slots = if self.slots.is_empty() { "none".to_string() } else { self.slots.join(", ") };
        writeln!(f, "slots: {slots}; {} other values", self.other_values)?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "PROBLEM {problem}"))?;
        match self.n_problems {
            0 => write!(f, "sound"),
            n => write!(
                f,
                "{n} problems; the agent sets a damaged store aside at its next start and keeps what is whole"
            ),
        }
    }
}

/// Checks the store in a state directory, also beside the agent that writes it: what was read while it wrote is read again.
pub fn verify(dir: &Path, uuid: Uuid) -> Report {
    let path = dir.join(DATA_FILE);
    let txn = || File::open(&path).ok().and_then(|file| read_metas(&file).ok()).map(|metas| metas[0].txn);
    let mut before = txn();
    for _ in 1..ATTEMPTS_MAX {
        let report = read_once(&path, uuid);
        let after = txn();
        if report.is_sound() || before == after {
            return report;
        }
        before = after;
    }
    read_once(&path, uuid)
}

fn read_once(path: &Path, uuid: Uuid) -> Report {
    let mut report = Report::default();
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(meta) => report.file_bytes = meta.len(),
        Err(error) => {
            report.problem(format!("{}: {error}", path.display()));
            return report;
        }
    }
    let mut tails: [Option<(u64, Hash32)>; 2] = [None; 2];
    let mut found = Report::default();
    let examined = examine(path, uuid, &mut |value| match value.header.kind {
        Kind::Record => match value.record() {
            Ok(record) => check_record(&record, value.header.value_bytes() as u64, &mut tails, &mut found),
            Err(damage) => found.problem(format!("sequence {}: {damage}", value.header.first)),
        },
        Kind::Assignment | Kind::Bundle => {
            let what = if value.header.kind == Kind::Bundle { "bundle" } else { "assignment" };
            let slot = if value.header.place == 1 { "current" } else { "previous" };
            match value.signed() {
                Ok(_) => found.slots.push(format!("{slot} {what}")),
                Err(damage) => found.problem(format!("{slot} {what}: {damage}")),
            }
        }
        Kind::Meta | Kind::Trait | Kind::Seal => found.other_values += 1,
    });
    report = Report { file_bytes: report.file_bytes, ..found };
    match examined {
        Ok(examined) => {
            report.used_pages = examined.walked.used_pages;
            report.free_pages = examined.walked.free_pages;
            report.transaction = examined.walked.txn;
        }
        Err(text) => report.problem(format!("{}: {text}", path.display())),
    }
    report
}

/// Order, coverage and links against the record before it.
fn check_record(record: &QueueRecord, bytes: u64, tails: &mut [Option<(u64, Hash32)>; 2], report: &mut Report) {
    let (meta, _) = match record_meta(&record.record) {
        Ok(checked) => checked,
        Err(bad) => {
            report.problem(format!("sequence {}: {bad}", record.record.first_sequence));
            return;
        }
    };
    let name = meta.lane.name();
    if let Some((last, link)) = tails[meta.lane.index()] {
        if meta.first <= last {
            report.problem(format!("{name} {}: it covers what an older record covers", meta.first));
        } else if meta.first > last + 1 {
            report.problem(format!("{name} {}..={}: missing, and no gap record says why", last + 1, meta.first - 1));
        } else if meta.previous_link != link {
            report.problem(format!("{name} {}: its previous link is not the link of {last}", meta.first));
        }
    }
    tails[meta.lane.index()] = Some((meta.last, meta.last_link));
    let lane = &mut report.lanes[meta.lane.index()];
    lane.records += 1;
    lane.bytes += bytes;
    lane.acknowledged += u64::from(record.acked_at_ms != 0);
    lane.first = if lane.first == 0 { meta.first } else { lane.first };
    lane.last = meta.last;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture;
    use crate::cache::ops::{Cache, StoreOp};
    use crate::cache::{Options, Store};
    use common::time::Wall;

    fn uuid() -> Uuid {
        Uuid::from_bytes([5; 16])
    }

    fn stored(records: Vec<QueueRecord>) -> (tempfile::TempDir, Report) {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let mut store = Store::open(&Options::new(scratch.path(), uuid(), Wall(0))).expect("nobody else holds it");
        store.commit(&records.into_iter().map(StoreOp::PutRecord).collect::<Vec<_>>()).expect("it fits");
        store.commit(&[fixture::slot(1, 500), StoreOp::SetMeta("a".into(), vec![])]).expect("it fits");
        drop(store);
        let report = verify(scratch.path(), uuid());
        (scratch, report)
    }

    #[test]
    fn a_sound_store_is_counted() {
        let mut records = fixture::chain(Lane::Urgent, 30, 100);
        records[0].acked_at_ms = 5;
        records.push(fixture::stretch(4, 9));
        let (_scratch, report) = stored(records);
        assert!(report.is_sound(), "{report}");
        assert_eq!((report.lanes[0].records, report.lanes[0].first, report.lanes[0].last), (30, 1, 30));
        assert_eq!((report.lanes[0].acknowledged, report.lanes[1].records, report.other_values), (1, 1, 1));
        assert_eq!(report.slots, ["current assignment", "current bundle"]);
        assert!(report.to_string().ends_with("sound"));
    }

    #[test]
    fn holes_overlaps_and_broken_links_are_named() {
        let mut records = fixture::chain(Lane::Urgent, 9, 10);
        records.remove(3);
        records[5].record.previous_link = vec![7; 32];
        records.push(fixture::stretch(1, 5));
        records.push(fixture::stretch(4, 6));
        let (_scratch, report) = stored(records);
        let found = report.problems.join("\n");
        assert!(found.contains("urgent 4..=4: missing"), "{found}");
        assert!(found.contains("sequence 7: field last_link"), "{found}");
        assert!(found.contains("routine 4: it covers what an older record covers"), "{found}");
    }

    #[test]
    fn damage_and_a_missing_store_are_problems() {
        let (scratch, _) = stored(fixture::chain(Lane::Urgent, 30, 100));
        let path = scratch.path().join(DATA_FILE);
        let mut bytes = std::fs::read(&path).expect("it reads");
        let at = bytes.windows(8).rposition(|window| window == crate::cache::codec::MAGIC).expect("a value is there");
        bytes[at + 90] ^= 1;
        std::fs::write(&path, bytes).expect("it is written");
        assert!(!verify(scratch.path(), uuid()).is_sound());
        std::fs::remove_file(&path).expect("it is removed");
        assert_eq!(verify(scratch.path(), uuid()).n_problems, 1);
    }
}
