//! The promise that acknowledged means durable, against `kill -9`, a full disk and a read-only one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::chain::Lane;
use common::time::Wall;

use super::*;
use crate::store::contract::{Agent, SERVER, enrolled, report, stored, uuid};
use crate::store::{EventRow, Writer};

const CHILD: &str = "VIGO_TEST_STORE_CHILD";
/// Reports of one batch of the child.
const BATCH: u64 = 16;

fn options(dir: &Path, ballast_bytes: u64) -> OpenOptions {
    OpenOptions { ballast_bytes, ..OpenOptions::new(dir.join("vigo.db"), SERVER) }
}

/// Not a test of its own: the process that is killed. Says how many results are acknowledged, batch by batch.
#[test]
#[ignore = "started by another test"]
fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let mut store = SqliteStore::open(&options(Path::new(&dir), 0)).unwrap().store;
    let mut agent = Agent::new(Lane::Urgent);
    let done = store.load().unwrap().envoys[0].watermark[0];
    (0..done).for_each(|n| drop(agent.run(2, n as i64)));
    loop {
        let next = agent.next;
        let batch: Vec<Write> = (next..next + BATCH).map(|n| report(uuid(1), vec![agent.run(2, n as i64)])).collect();
        store.apply(&batch).unwrap();
        println!("acknowledged {}", agent.next - 1);
        store.upkeep().unwrap();
    }
}

#[test]
fn every_acknowledged_result_survives_being_killed() {
    let dir = tempfile::tempdir().unwrap();
    enrolled(&mut SqliteStore::open(&options(dir.path(), 0)).unwrap().store, 1);
    let name = "store::sqlite::crash_tests::child_that_writes_until_it_is_killed";
    for round in 0..8u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        // Killed after a different number of batches each time, always with the next one under way.
        let counts =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        for count in counts.take(3 + round as usize * 7) {
            told = count;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut opened = SqliteStore::open(&options(dir.path(), 0)).unwrap();
        assert!(opened.unclean && !opened.restored);
        let row = opened.store.load().unwrap().envoys.remove(0);
        assert!(told > 0 && row.watermark[0] >= told, "{told} acknowledged, {} there", row.watermark[0]);
        assert_eq!(row.watermark[0] % BATCH, 0, "a batch is there as a whole or not at all");
        let rows = opened.store.probe("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0));
        assert_eq!(rows, [row.watermark[0] as i64]);
    }
    check_whole(&dir.path().join("vigo.db")).unwrap();
}

/// A small file system, gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn try_new(bytes: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(dir));
        }
        println!("skipped: mounting a tmpfs is not permitted here");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_results_keeps_what_was_acknowledged_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::try_new("32m") else { return };
    std::fs::write(disk.path().join("somebody-else-s"), vec![1; 24 << 20]).unwrap();
    let mut store = SqliteStore::open(&options(disk.path(), 1 << 20)).unwrap().store;
    let gauges = store.gauges();
    assert!(!gauges.ballast_missing());
    let a = enrolled(&mut store, 1);
    let mut agent = Agent::new(Lane::Urgent);
    let mut acknowledged = 0;
    let refused = loop {
        let write = report(a, vec![agent.run(200, 1)]);
        match store.apply(&[write]) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        store.upkeep().unwrap();
        assert!(acknowledged < 100_000);
    };
    assert_eq!(refused, StoreError::Full);
    assert!(acknowledged > 10);
    // What cannot wait still goes, through the writer.
    let (sender, receiver) = std::sync::mpsc::sync_channel(1 << 16);
    let full = std::fs::File::create(disk.path().join("filler")).unwrap();
    let filler = std::io::copy(&mut std::io::repeat(1), &mut { full });
    assert!(filler.is_err());
    let writer = Writer::spawn(store, move |done| drop(sender.send(done))).unwrap();
    // The log may have room left from before; then no more of it.
    let result = report(a, vec![agent.run(200, 1)]);
    let mut answers = (2..1_000).map(|ticket| {
        writer.submit(ticket, result.clone()).unwrap();
        receiver.recv().unwrap().remove(0).1
    });
    assert!(answers.any(|answer| answer == Err(StoreError::Full)));
    assert!(gauges.ballast_missing());
    let event = EventRow { at: Wall(1), kind: "disk-full".into(), uuid: None, detail: String::new() };
    writer.submit(1, Write::Event(event)).unwrap();
    assert_eq!(receiver.recv().unwrap(), [(1, Ok(Written::Done))]);
    // Space returns.
    std::fs::remove_file(disk.path().join("filler")).unwrap();
    std::fs::remove_file(disk.path().join("somebody-else-s")).unwrap();
    writer.stop().unwrap();
    let mut opened = SqliteStore::open(&options(disk.path(), 1 << 20)).unwrap();
    let row = opened.store.load().unwrap().envoys.remove(0);
    assert!(row.watermark[0] >= acknowledged, "{acknowledged} acknowledged, {} there", row.watermark[0]);
    check_whole(&disk.path().join("vigo.db")).unwrap();
    assert!(
        opened.store.probe("SELECT kind FROM events", [], |row| row.get::<_, String>(0)).contains(&"disk-full".into())
    );
    let mut agent = Agent::new(Lane::Urgent);
    (0..row.watermark[0]).for_each(|_| drop(agent.run(200, 1)));
    opened.store.retain(&RetainRule { bytes_max: 0, cutoff: Wall(0), step: 1_000 }).unwrap();
    assert_eq!(stored(&mut opened.store, a, vec![agent.run(1, 1)]).watermark[0], row.watermark[0] + 1);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = OpenOptions::new(dir.path().join("no-such-directory/vigo.db"), SERVER);
    let refused = SqliteStore::open(&missing).unwrap_err().to_string();
    assert!(refused.contains("no-such-directory/vigo.db") && refused.contains("must be writable"), "{refused}");
    // Root writes through permissions, so a read-only file system stands for a directory without them.
    let Some(disk) = SmallDisk::try_new("8m") else { return };
    drop(SqliteStore::open(&options(disk.path(), 0)).unwrap());
    let remount = ["-o", "remount,ro"];
    let done = Command::new("mount").args(remount).arg(disk.path()).status();
    assert!(done.is_ok_and(|status| status.success()));
    let refused = SqliteStore::open(&options(disk.path(), 0)).unwrap_err().to_string();
    assert!(refused.contains("vigo.db") && refused.contains("must be writable"), "{refused}");
}
