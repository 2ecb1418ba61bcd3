//! Snapshots over many days: how much they share, and that a process which is killed at any moment leaves the old state or the
//! new one.
//!
//! The one that is killed is this test binary, started again for one ignored test. `VIGO_SNAPSHOT_KILLS=500` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::outcome::Outcome;
use common::rng::{Rng, SplitMix64};
use common::sys::{Clock, TestClock};

use super::sandbox::{Params, Sandbox, resource, text};
use crate::exec::{RunInput, run};

const DIR_VARIABLE: &str = "VIGO_TEST_SNAPSHOT_DIR";
const FILES: u64 = 60;
/// The day that the series begins with, as days since 1970.
const FIRST_DAY: u64 = 20_454;
/// Lines of the database that is dumped.
const LINES: u64 = 20_000;

fn wall(day: u64) -> Clock {
    let at = common::time::Wall(((FIRST_DAY + day) * 86_400_000) as i64);
    Clock::test(TestClock::parse(&format!("wall={at}")).unwrap())
}

fn files_of(root: &Path) -> Params {
    let _ = root;
    vec![
        ("source_dir", text("/src")),
        ("target_path", text("/keep")),
        ("retain", text("5")),
        ("min_free_space", text("0")),
    ]
}

fn dump_of(root: &Path) -> Params {
    let command = format!("seq {LINES} | sed \"s/^/$(cat {}) /\"", root.join("day").display());
    vec![
        ("db_type", text("mysql")),
        ("source_db", text("shop")),
        ("db_dump_command", text(&command)),
        ("target_path", text("/dumps")),
        ("retain", text("5")),
        ("min_free_space", text("0")),
    ]
}

/// What a file says on a day: each changes every seventh.
fn content(file: u64, day: u64) -> String {
    let since = (0..=day.min(6)).map(|back| day - back).find(|day| (day + file).is_multiple_of(7)).unwrap_or(0);
    let line = format!("file {file} since {since}\n");
    // One of them takes a while.
    line.repeat(if file == 0 { 40_000 } else { 20 + file as usize })
}

fn write_source(root: &Path, day: u64) {
    fs::write(root.join("day"), format!("day {day}")).unwrap();
    for file in 0..FILES {
        let path = root.join(format!("src/{}/{file}", file % 7));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let wanted = content(file, day);
        if fs::read(&path).map_or(true, |is| is != wanted.as_bytes()) {
            fs::write(path, wanted).unwrap();
        }
    }
}

/// Both kinds, as of a day.
fn take(root: &Path, day: u64) {
    let sandbox = Sandbox::new();
    let resources = vec![resource("files", "backup", &files_of(root)), resource("dump", "db_backup", &dump_of(root))];
    let input = RunInput { sysroot: Some(root.to_path_buf()), clock: wall(day), ..sandbox.input(resources, false) };
    let report = run(&input);
    assert!(report.resources.iter().all(|one| one.outcome == Outcome::Changed), "{:?}", report.resources);
}

fn name_of(day: u64) -> String {
    let days = common::time::days_from_civil(2026, 1, 1) as u64;
    format!("2026.{:03}.00.00", FIRST_DAY + day - days + 1)
}

fn names(path: &Path) -> BTreeSet<String> {
    let Ok(all) = fs::read_dir(path) else { return BTreeSet::new() };
    all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Checks that every name is whole; gives the days that there are.
fn whole(root: &Path) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let days = |list: &str| -> BTreeSet<u64> {
        let names = names(&root.join(list));
        let days: BTreeSet<u64> = (0..300).filter(|day| names.contains(&name_of(*day))).collect();
        assert_eq!(names.iter().filter(|name| !name.starts_with(".partial-")).count(), days.len(), "{names:?}");
        days
    };
    let (snapshots, dumps) = (days("keep"), days("dumps"));
    for day in &snapshots {
        for file in 0..FILES {
            let path = root.join(format!("keep/{}/{}/{file}", name_of(*day), file % 7));
            let is = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(is == content(file, *day), "{}", path.display());
        }
    }
    for day in &dumps {
        let is = super::db_backup::unpacked(&root.join(format!("dumps/{}/shop.sql.gz", name_of(*day))));
        assert!(is.lines().all(|line| line.starts_with(&format!("day {day} "))), "{day}");
        assert_eq!(is.lines().count() as u64, LINES, "{day}");
    }
    (snapshots, dumps)
}

#[test]
#[ignore = "the one that is killed: started by the test below, for ever"]
fn the_keeper() {
    let root = PathBuf::from(std::env::var(DIR_VARIABLE).expect("started by the test below"));
    let (snapshots, dumps) = whole(&root);
    let mut day = snapshots.last().max(dumps.last()).map_or(0, |day| day + 1);
    loop {
        write_source(&root, day);
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nday {day}").and_then(|()| out.flush()).expect("the reader reads");
        take(&root, day);
        day += 1;
    }
}

#[test]
fn a_run_killed_at_any_moment_leaves_the_old_state_or_the_new() {
    let rounds = std::env::var("VIGO_SNAPSHOT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12u64);
    let scratch = tempfile::tempdir().unwrap();
    let (clock, mut rng) = (Clock::system(), SplitMix64(77));
    let (mut reached, mut rests) = (0, 0);
    for round in 0..rounds {
        // A year has no more days than a hundred rounds use.
        let root = scratch.path().join((round / 20).to_string());
        fs::create_dir_all(root.join("src")).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "exec::tests::snapshots::the_keeper", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIR_VARIABLE, &root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut days = rng.below(3) + 1;
        while days > 0 {
            let line = lines.next().expect("it goes on for ever").unwrap();
            days -= u64::from(line.starts_with("day "));
        }
        clock.pause(rng.below(60));
        child.kill().unwrap();
        child.wait().unwrap();
        let (snapshots, dumps) = whole(&root);
        reached += snapshots.len() + dumps.len();
        rests += ["keep", "dumps"]
            .iter()
            .filter(|at| names(&root.join(at)).iter().any(|name| name.starts_with('.')))
            .count();
        // The next run cures what is left.
        let next = snapshots.last().max(dumps.last()).map_or(0, |day| day + 1);
        write_source(&root, next);
        take(&root, next);
        let (snapshots, dumps) = whole(&root);
        assert!(snapshots.contains(&next) && dumps.contains(&next));
        assert!(snapshots.len() <= 6 && dumps.len() <= 6, "{snapshots:?} {dumps:?}");
        let left = ["keep", "dumps"].map(|at| names(&root.join(at)).into_iter().find(|name| name.starts_with('.')));
        assert_eq!(left, [None, None]);
    }
    println!("{rounds} kills, {rests} of them left something to cure");
    assert!(reached > 0);
}

#[test]
fn thirty_days_of_one_percent_cost_a_third_of_a_copy() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    const COUNT: u64 = 300;
    fs::create_dir_all(root.join("src")).unwrap();
    let write = |file: u64, day: u64| {
        fs::write(root.join(format!("src/{file}")), vec![(file + day) as u8; (32 << 10) + (file as usize % 5) * 4_096])
            .unwrap();
    };
    (0..COUNT).for_each(|file| write(file, 0));
    let sandbox = Sandbox::new();
    let params: Params =
        vec![("source_dir", text("/src")), ("target_path", text("/keep")), ("min_free_space", text("0"))];
    for day in 0..30 {
        if day > 0 {
            (0..COUNT / 100).for_each(|n| write((day * 3 + n * 97) % COUNT, day));
        }
        let resources = vec![resource("r", "backup", &params)];
        let input = RunInput { sysroot: Some(root.to_path_buf()), clock: wall(day), ..sandbox.input(resources, false) };
        assert_eq!(run(&input).resources[0].outcome, Outcome::Changed);
    }
    let blocks = |path: &Path| {
        let mut inodes = BTreeMap::new();
        let mut open = vec![path.to_path_buf()];
        while let Some(at) = open.pop() {
            for entry in fs::read_dir(at).unwrap().map(|entry| entry.unwrap()) {
                let meta = entry.metadata().unwrap();
                match meta.is_dir() {
                    true => open.push(entry.path()),
                    false => drop(inodes.insert(meta.ino(), meta.blocks())),
                }
            }
        }
        inodes.values().sum::<u64>()
    };
    assert_eq!(names(&root.join("keep")).len(), 30);
    let ratio = blocks(&root.join("keep")) as f64 / blocks(&root.join("src")) as f64;
    println!("30 snapshots in {ratio:.3} of one copy");
    assert!((1.2..=1.35).contains(&ratio), "{ratio}");
}
