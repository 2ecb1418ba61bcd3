//! One agent on a whole emulated machine, as a service: no clock, no server, no power, and nothing lost.
//!
//! `VIGO_BOARDS=all` runs it on every board that there is, `VIGO_BOARDS="riscv64gc s390x"` on these; otherwise aarch64 alone.

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use vigo_arch_tests::{BOARDS, Board, Guest, native_server, targets};
use vigo_e2e::{Server, account, pause, read_ledger, stored_records, wait_for};

/// Where to look for the least memory that a kernel boots with.
const LEAST_MIB: u32 = 32;
const MOST_MIB: u32 = 256;
/// For a boot that may not succeed: 40 seconds.
const LOOKS_MAX: u32 = 200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
const NAME: &str = "machine.example";
const CRATE: &str = r#"name: machine
resources:
  - {name: ledger, type: exec, command: 'echo "$VIGO_RUN_ID $(cat /disk/boot)" >> /disk/ledger; sync; echo VIGO run begun > /dev/console'}
  - {name: pause, type: exec, command: 'exit 1', unless: 'sleep 1', depends_on: [ledger]}
  - {name: kept, type: file, target_path: /disk/kept, content: "one\n", depends_on: [pause]}
"#;

/// Those that are asked for.
fn boards_wanted() -> Vec<Board> {
    let words = std::env::var("VIGO_BOARDS").unwrap_or_default();
    let known = |word: &str| word == "all" || BOARDS.iter().any(|board| word == board.target);
    assert!(
        words.split_whitespace().all(known),
        "VIGO_BOARDS: there are {:?}, and all",
        BOARDS.map(|board| board.target)
    );
    let wanted = |board: &Board| words.split_whitespace().any(|word| word == "all" || word == board.target);
    BOARDS.into_iter().filter(wanted).collect()
}

fn is_kept(guest: &mut Guest, boot: u32) -> Result<(), String> {
    assert!(guest.is_on(), "it went off: {}", guest.console());
    let state = |name: &str| guest.state(name).unwrap_or_default();
    if state("boot") == boot.to_string() && state("kept") == "one" { Ok(()) } else { Err(guest.console()) }
}

fn lines(guest: &Guest) -> usize {
    guest.state("lines").and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn lives_through_a_power_cut(board: Board, memory_mib: Option<u32>) {
    let dir = tempfile::tempdir().unwrap();
    let target = targets().into_iter().find(|target| target.short() == board.target).unwrap();
    let policy = [
        ("configcrates/machine.vgo", CRATE),
        ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [machine]}\n"),
    ];
    let mut server = Server::with_program(dir.path(), "checkin: {interval: 2s}", &policy, native_server());
    server.hostname = "10.0.2.2".into();
    server.start();
    let invite = server.cli(&["envoys", "invite", "--hostname", NAME]);
    let text = |key: &str| invite[key].as_str().unwrap_or_default().to_string();
    let (token, trust, port) = (text("token"), text("trust_hash"), server.port.to_string());
    let words = [("name", NAME), ("port", &*port), ("token", &*token), ("trust", &*trust)];

    let mut guest = Guest::new(board, &target, dir.path());
    guest.memory_mib = memory_mib.unwrap_or(guest.memory_mib);
    guest.switch_on(&words);
    wait_for("the first boot to converge", || is_kept(&mut guest, 1));
    if board.has_clock {
        assert!(guest.console().contains("VIGO boot 1 clock 1970"), "{}", guest.console());
    }
    let database = server.root.join("db/vigo.db");
    let reading = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    wait_for("a run at the server", || {
        if stored_records(&reading, NAME).is_empty() { Err("") } else { Ok(()) }.map_err(str::to_owned)
    });

    // No server; runs that nobody has; then no power, in the middle of a run.
    server.kill();
    let from = lines(&guest);
    wait_for("runs without the server", || (lines(&guest) >= from + 2).then_some(()).ok_or_else(|| guest.console()));
    let begun = guest.console().matches("VIGO run begun").count();
    wait_for("a run to begin", || {
        (guest.console().matches("VIGO run begun").count() > begun).then_some(()).ok_or_else(String::new)
    });
    guest.cut_power();

    // A clock at 1970 again, no server, and a file that was changed meanwhile: it converges from its cache.
    guest.switch_on(&words);
    wait_for("the second boot to converge", || is_kept(&mut guest, 2));
    let from = lines(&guest);
    wait_for("more runs", || (lines(&guest) > from).then_some(()).ok_or_else(String::new));
    let required = lines(&guest);
    let resident = guest.state("rss").unwrap_or_default();

    server.start();
    wait_for("the machine to be back", || {
        let rows = server.cli(&["runs", NAME, "--limit", "1000"]);
        let n = stored_records(&reading, NAME).len();
        (n > 0 && rows["runs"].as_array().is_some_and(|runs| runs.len() >= 4))
            .then_some(())
            .ok_or_else(|| guest.console())
    });
    // The ledger is on the disk, which cannot be read meanwhile: enough runs must have arrived after it.
    let stored =
        |reading: &Connection| -> u64 { stored_records(reading, NAME).iter().map(|record| record.count).sum() };
    wait_for("every run to arrive", || {
        let n = stored(&reading);
        (n as usize >= required).then_some(()).ok_or_else(|| format!("{n} of {required}: {}", guest.console()))
    });
    guest.cut_power();
    let ledger = dir.path().join("ledger");
    std::fs::write(&ledger, guest.file("/ledger")).unwrap();
    let found = account(&read_ledger(&ledger), &stored_records(&reading, NAME), required, &BTreeSet::from([1, 2]));
    let found = found.unwrap_or_else(|why| panic!("{why}: {}", guest.file("/log")));
    assert_eq!(found.lost, 0);
    assert!(guest.file("/log").contains("1970") || !board.has_clock, "{}", guest.file("/log"));
    println!(
        "on a machine of {} with {} MiB: {} runs in two boots, {} of them at the server, resident {resident}",
        board.target, guest.memory_mib, found.runs, found.stored
    );
}

#[test]
fn a_machine_without_clock_server_and_power_loses_nothing_that_it_acknowledged() {
    let mut boards = boards_wanted();
    if boards.is_empty() {
        boards.extend(BOARDS.into_iter().find(|board| board.target == "aarch64"));
    }
    boards.into_iter().for_each(|board| lives_through_a_power_cut(board, None));
}

/// Whether the kernel comes up with so much memory, with a first program that sleeps.
fn boots(board: Board, memory_mib: u32) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let target = targets().into_iter().find(|target| target.short() == board.target).unwrap();
    let mut guest = Guest::new(board, &target, dir.path());
    guest.memory_mib = memory_mib;
    guest.switch_on(&[("sleeping", "1")]);
    for _ in 0..LOOKS_MAX {
        if guest.console().contains("VIGO sleeping") {
            return true;
        }
        // A kernel that finds no memory panics, and that switches the machine off.
        if !guest.is_on() {
            return false;
        }
        pause(BETWEEN_LOOKS);
    }
    false
}

#[test]
fn sixteen_mebibytes_more_than_a_sleeping_machine_has_are_enough() {
    // Its many boots are part of the long form alone.
    for board in boards_wanted() {
        let least = (LEAST_MIB..=MOST_MIB).step_by(8).find(|mib| boots(board, *mib)).expect("it boots with that");
        println!("on a machine of {}: a first program that sleeps needs {least} MiB", board.target);
        lives_through_a_power_cut(board, Some(least + 16));
    }
}
