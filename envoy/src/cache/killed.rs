//! A writer process that is killed at random moments: what it committed is there, and nothing by halves.
//!
//! The writer is this test binary, started again for one ignored test. `VIGO_KILL_ROUNDS` makes it longer.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::chain::Lane;
use common::ids::Uuid;
use common::rng::{Rng, SplitMix64};
use common::time::Wall;

use super::fixture;
use super::{Cache, Options, Store, StoreOp};

const DIR_VARIABLE: &str = "VIGO_TEST_WRITER_DIR";
/// Records that stay: older ones are deleted in the transaction that adds one.
const KEPT: u64 = 40;

fn open(dir: &Path) -> Store {
    let options = Options { bytes_max: 16 << 20, ..Options::new(dir, Uuid::from_bytes([8; 16]), Wall(0)) };
    Store::open(&options).expect("nobody else holds it")
}

/// Number of the last whole step that a store holds, checked to be whole.
fn step_of(dir: &Path) -> u64 {
    let mut store = open(dir);
    let loaded = store.load().expect("it loads");
    assert_eq!(loaded.incidents, [""; 0], "a killed writer leaves a sound store");
    let step = loaded.meta.get("step").map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("8 bytes")));
    let expected: Vec<u64> = (step.saturating_sub(KEPT) + 1..=step).collect();
    assert_eq!(loaded.lanes[0].iter().map(|index| index.first).collect::<Vec<_>>(), expected, "step {step}");
    assert_eq!(loaded.tails[1].as_ref().map_or(0, |record| record.record.last_sequence), step, "step {step}");
    let slot = loaded.current.map_or(0, |(assignment, _)| u64::from(assignment.payload[0]));
    assert_eq!(slot, step / 8 % 200, "step {step}");
    step
}

#[test]
#[ignore = "the writer: started by the test below, for ever"]
fn the_writer() {
    let dir = PathBuf::from(std::env::var(DIR_VARIABLE).expect("started by the test below"));
    let mut step = step_of(&dir);
    let mut store = open(&dir);
    loop {
        step += 1;
        let bytes = (step * 977 % 5_000) as usize;
        let mut batch = vec![
            StoreOp::PutRecord(fixture::run_of_size(Lane::Urgent, step, 1, &[0; 32], bytes)),
            StoreOp::PutRecord(fixture::stretch(1, step)),
            StoreOp::SetMeta("step".into(), step.to_be_bytes().to_vec()),
        ];
        if step > KEPT {
            batch.push(StoreOp::DeleteRecords { lane: Lane::Urgent, firsts: vec![step - KEPT] });
        }
        if step.is_multiple_of(8) {
            batch.push(fixture::slot((step / 8 % 200) as u8, bytes * 9 + 1));
        }
        store.commit(&batch).expect("it fits");
        // The reader counts this step as promised.
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nstep {step}").and_then(|()| out.flush()).expect("the reader reads");
    }
}

struct Writer {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    promised: u64,
}

impl Writer {
    fn start(dir: &Path) -> Writer {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "cache::killed::the_writer", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIR_VARIABLE, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Writer { child, lines, promised: 0 }
    }

    /// Reads one promise; `false` at the end.
    fn next(&mut self) -> bool {
        for line in self.lines.by_ref() {
            if let Some(step) = line.unwrap_or_default().strip_prefix("step ") {
                self.promised = step.parse().expect("a number");
                return true;
            }
        }
        false
    }

    /// Kills it, and gives back the last step that it promised.
    fn kill(mut self) -> u64 {
        self.child.kill().expect("it is ours");
        while self.next() {}
        self.child.wait().expect("it is ours");
        self.promised
    }
}

#[test]
fn a_writer_killed_at_any_moment_leaves_the_old_state_or_the_new() {
    let rounds = std::env::var("VIGO_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = scratch.path().join("state");
    let mut rng = SplitMix64(3);
    let mut last = step_of(&dir);
    for round in 0..rounds {
        let mut writer = Writer::start(&dir);
        for _ in 0..rng.below(12) + 1 {
            assert!(writer.next(), "round {round}: the writer ended by itself");
        }
        // Somewhere inside the next commit.
        for _ in 0..rng.below(400_000) {
            std::hint::spin_loop();
        }
        let promised = writer.kill();
        assert!(promised > last, "round {round}");
        last = step_of(&dir);
        assert!((promised..=promised + 1).contains(&last), "round {round}: promised {promised}, found {last}");
    }
}
