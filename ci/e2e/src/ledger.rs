//! The account of runs: what agents really ran, by the ledger that an `exec` of their policy writes, against what the server's
//! database holds. Every run once; absent only where its agent was killed in it, or where a gap says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::ids::Uuid;
use rusqlite::Connection;
use vigosrv::store::RecordKind;

/// One line of a ledger: `echo "$VIGO_RUN_ID $PPID"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The run.
    pub run: String,
    /// Process id of the agent that it was a run of; 1 where that agent was dead by the time the line was written.
    pub agent: u32,
}

/// One record in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it is.
    pub kind: RecordKind,
    /// First run that it stands for.
    pub first: String,
    /// Last run that it stands for.
    pub last: String,
    /// How many runs it stands for.
    pub count: u64,
}

/// How the two compare, where they agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Runs in the ledger.
    pub runs: usize,
    /// Of them, in the database.
    pub stored: usize,
    /// Of those, within a stretch.
    pub collapsed: usize,
    /// Absent because their agent was killed.
    pub killed: usize,
    /// Reported as lost, by gaps.
    pub lost: usize,
}

/// A ledger; a line that is being written is left out.
pub fn read_ledger(path: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let entry = |line: &str| {
        let (run, agent) = line.split_once(' ').unwrap_or((line, ""));
        Entry { run: run.into(), agent: agent.parse().unwrap_or(0) }
    };
    whole.lines().map(entry).collect()
}

/// Records of the envoy of this name, in the order of their lanes.
pub fn stored_records(database: &Connection, hostname: &str) -> Vec<Stored> {
    let mut statement = database
        .prepare(
            "SELECT r.kind, r.first_run_id, r.run_id, r.count FROM runs r JOIN envoys e ON e.id = r.envoy
             WHERE e.hostname = ?1 ORDER BY r.lane, r.first_seq",
        )
        .expect("the tables of a server");
    let text = |bytes: Option<Vec<u8>>| {
        bytes.and_then(|bytes| Uuid::try_from_slice(&bytes).ok()).map(|id| id.to_string()).unwrap_or_default()
    };
    let kinds = [RecordKind::Run, RecordKind::Stretch, RecordKind::Gap, RecordKind::Incident];
    let row = |row: &rusqlite::Row<'_>| {
        let number: u8 = row.get(0)?;
        let (first, last): (Option<Vec<u8>>, String) = (row.get(1)?, text(row.get(2)?));
        Ok(Stored {
            kind: kinds.into_iter().find(|kind| *kind as u8 == number).expect("a kind that is known"),
            first: first.map_or_else(|| last.clone(), |first| text(Some(first))),
            last,
            count: row.get::<_, i64>(3)? as u64,
        })
    };
    let rows = statement.query_map([hostname], row).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

/// Compares. The first `required` runs must be accounted for, later ones may still be on their way. `killed` are the agents that
/// died by `kill -9`: the last run of each may be absent. The error says what is wrong.
pub fn account(
    ledger: &[Entry],
    stored: &[Stored],
    required: usize,
    killed: &BTreeSet<u32>,
) -> Result<Account, String> {
    let mut place = BTreeMap::new();
    for (at, entry) in ledger.iter().enumerate() {
        if let Some(before) = place.insert(entry.run.as_str(), at) {
            return Err(format!("run {} was made twice, in lines {} and {}", entry.run, before + 1, at + 1));
        }
    }
    let find = |run: &str| place.get(run).copied().ok_or_else(|| format!("run {run} is stored, but was never made"));
    let may_miss = cut_short(ledger, killed);
    let mut times = vec![0_usize; ledger.len()];
    for record in stored.iter().filter(|record| record.kind == RecordKind::Run) {
        times[find(&record.last)?] += 1;
    }
    let single = times.clone();
    let mut result = Account { runs: ledger.len(), ..Account::default() };
    for record in stored {
        match record.kind {
            RecordKind::Run => {}
            RecordKind::Stretch => {
                let (from, to) = (find(&record.first)?, find(&record.last)?);
                let inside: Vec<usize> = (from..=to).filter(|at| single[*at] == 0).collect();
                let surplus = (inside.len() as u64).checked_sub(record.count).ok_or_else(|| {
                    format!("a stretch counts {} runs, the ledger has {} there", record.count, inside.len())
                })?;
                // What is not in it can only be runs that were cut short.
                let mut absent: Vec<usize> = inside.iter().copied().filter(|at| may_miss.contains(at)).collect();
                absent.truncate(surplus as usize);
                if absent.len() as u64 != surplus {
                    let n = inside.len();
                    return Err(format!("a stretch counts {} of the {n} runs between its ends", record.count));
                }
                inside.iter().filter(|at| !absent.contains(at)).for_each(|at| times[*at] += 1);
                result.collapsed += inside.len() - absent.len();
            }
            RecordKind::Gap => result.lost += record.count as usize,
            RecordKind::Incident => {}
        }
    }
    let absent = |at: &usize| times[*at] == 0;
    if let Some(at) = times.iter().position(|n| *n > 1) {
        return Err(format!("run {} (line {}) is stored {} times", ledger[at].run, at + 1, times[at]));
    }
    let missing: Vec<usize> = (0..required).filter(absent).filter(|at| !may_miss.contains(at)).collect();
    if missing.len() > result.lost {
        let (n, at) = (missing.len(), missing[0]);
        let first = &ledger[at].run;
        return Err(format!(
            "{n} runs are not stored, {} are said to be lost; first {first} (line {})",
            result.lost,
            at + 1
        ));
    }
    let n_absent = (0..times.len()).filter(absent).count();
    if result.lost > n_absent {
        return Err(format!("{} runs are said to be lost, but only {n_absent} are absent", result.lost));
    }
    result.stored = times.len() - n_absent;
    result.killed = (0..times.len()).filter(absent).filter(|at| may_miss.contains(at)).count();
    Ok(result)
}

/// Places of the runs in which an agent was killed: the last of each that was, and what was written after its death.
fn cut_short(ledger: &[Entry], killed: &BTreeSet<u32>) -> BTreeSet<usize> {
    let last: BTreeMap<u32, usize> = ledger.iter().enumerate().map(|(at, entry)| (entry.agent, at)).collect();
    let orphans = ledger.iter().enumerate().filter(|(_, entry)| entry.agent <= 1).map(|(at, _)| at);
    last.into_iter().filter(|(agent, _)| killed.contains(agent)).map(|(_, at)| at).chain(orphans).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(lines: &[(&str, u32)]) -> Vec<Entry> {
        lines.iter().map(|(run, agent)| Entry { run: (*run).into(), agent: *agent }).collect()
    }

    fn run(id: &str) -> Stored {
        Stored { kind: RecordKind::Run, first: id.into(), last: id.into(), count: 1 }
    }

    fn stretch(first: &str, last: &str, count: u64) -> Stored {
        Stored { kind: RecordKind::Stretch, first: first.into(), last: last.into(), count }
    }

    fn check(stored: &[Stored], required: usize) -> Result<Account, String> {
        // Agent 7 is killed in run c; agent 8 goes on.
        let lines = ledger(&[("a", 7), ("b", 7), ("c", 7), ("d", 8), ("e", 8), ("f", 8)]);
        account(&lines, stored, required, &BTreeSet::from([7]))
    }

    #[test]
    fn every_run_once_is_right() {
        let all = Account { runs: 6, stored: 5, collapsed: 4, killed: 1, lost: 0 };
        assert_eq!(check(&[run("b"), stretch("a", "f", 4)], 6), Ok(all));
        let singles = ["a", "b", "d", "e", "f"].map(run);
        assert_eq!(check(&singles, 6), Ok(Account { collapsed: 0, ..all }));
        // The run that was cut short may also have been recorded.
        assert_eq!(
            check(&[stretch("a", "f", 6)], 6),
            Ok(Account { runs: 6, stored: 6, collapsed: 6, killed: 0, lost: 0 })
        );
        let gap = Stored { kind: RecordKind::Gap, count: 1, ..run("") };
        assert_eq!(
            check(&[&singles[1..], &[gap]].concat(), 6),
            Ok(Account { stored: 4, lost: 1, collapsed: 0, ..all })
        );
        assert_eq!(check(&singles[..4], 5).map(|account| account.stored), Ok(4));
    }

    #[test]
    fn what_is_missing_double_or_invented_is_found() {
        let is_wrong = |stored: &[Stored], word: &str| {
            let said = check(stored, 6).expect_err(word);
            assert!(said.contains(word), "{said}");
        };
        is_wrong(&["a", "b", "d", "e"].map(run), "not stored");
        is_wrong(&["a", "b", "b", "d", "e", "f"].map(run), "2 times");
        is_wrong(&[stretch("a", "f", 6), stretch("e", "f", 2)], "2 times");
        is_wrong(&[stretch("a", "f", 4)], "counts 4");
        is_wrong(&[stretch("a", "f", 7)], "counts 7");
        is_wrong(&[run("x")], "never made");
        let gap = |count| Stored { kind: RecordKind::Gap, count, ..run("a") };
        is_wrong(&[gap(4)], "5 runs are not stored, 4 are said to be lost");
        is_wrong(&[run("a"), run("b"), run("d"), run("e"), run("f"), gap(2)], "only 1 are absent");
        let twice = ledger(&[("a", 7), ("a", 7)]);
        assert!(account(&twice, &[run("a")], 2, &BTreeSet::new()).is_err());
    }

    #[test]
    fn half_a_line_is_left_for_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(&path, "one 5\ntwo 6\nthr").unwrap();
        assert_eq!(read_ledger(&path), ledger(&[("one", 5), ("two", 6)]));
        assert_eq!(read_ledger(&dir.path().join("none")), []);
    }
}
