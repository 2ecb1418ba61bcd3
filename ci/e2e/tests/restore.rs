//! A restored server is the same server: its database is replaced by an older copy, and the agents bring back what they still
//! have, say what they no longer have, and are let in again when the copy does not know them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::chain::Lane;
use common::ids::Uuid;
use rusqlite::Connection;
use serde_json::Value;
use vigo_e2e::{Account, Envoy, Server, account, read_ledger, stored_records, wait_for};
use vigosrv::store::read::Reader;

/// Every run fails with two kilobytes of message, so that some tens of records are more than a small queue retains.
const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/loud.vgo",
        r#"name: loud
resources:
  - {name: ledger, type: exec, command: 'echo "$VIGO_RUN_ID $PPID" >> ledger; printf %02000d 0; exit 1'}
"#,
    ),
    ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [loud]}\n"),
];
const SETTINGS: &str = "checkin: {interval: 1s}\nlog: {level: warn}";
/// Runs of the known envoy before and after the copy is made.
const RUNS: [usize; 2] = [3, 60];

struct Scene {
    server: Server,
    known: Envoy,
    newer: Envoy,
    _dir: tempfile::TempDir,
}

/// Plays it up to the restart on the older copy. With its continuity file the copy looks like a database that nobody replaced.
fn scene(with_continuity: bool) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path(), SETTINGS, POLICY);
    server.start();
    let known = Envoy::new(&dir.path().join("known"));
    let yaml = known.dir.join("envoy.yaml");
    fs::write(&yaml, fs::read_to_string(&yaml).unwrap() + "queue: {max_bytes: 64KiB}\n").unwrap();
    known.enroll(&server, "known.example");
    run(&known, RUNS[0]);
    server.stop();
    let (db, copy) = (server.root.join("db"), dir.path().join("copy"));
    copy_files(&db, &copy);

    server.start();
    run(&known, RUNS[1]);
    let newer = Envoy::new(&dir.path().join("newer"));
    newer.enroll(&server, "newer.example");
    run(&newer, 2);
    server.stop();
    for file in fs::read_dir(&db).unwrap().map(|entry| entry.unwrap().path()) {
        if with_continuity || !file.to_string_lossy().contains("continuity") {
            fs::remove_file(file).unwrap();
        }
    }
    for file in fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().path()) {
        if with_continuity || !file.to_string_lossy().contains("continuity") {
            fs::copy(&file, db.join(file.file_name().unwrap())).unwrap();
        }
    }
    server.start();
    Scene { server, known, newer, _dir: dir }
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn run(envoy: &Envoy, times: usize) {
    for _ in 0..times {
        envoy.ask(&["run", "--once"]);
    }
}

/// The account of an envoy, once all of its ledger is there or reported as lost.
fn settled(server: &Server, envoy: &Envoy, name: &str) -> Result<Account, String> {
    let database = Connection::open(server.root.join("db/vigo.db")).map_err(|error| error.to_string())?;
    let ledger = read_ledger(&envoy.path("ledger"));
    account(&ledger, &stored_records(&database, name), ledger.len(), &BTreeSet::new())
        .map_err(|why| format!("{name}: {why}: {}", envoy.log()))
}

fn events(server: &Server, kind: &str) -> Vec<Value> {
    let document = server.cli(&["events"]);
    let list = document["events"].as_array().cloned().unwrap_or_default();
    list.into_iter().filter(|event| event["kind"] == kind).collect()
}

fn state(server: &Server, name: &str) -> String {
    let document = server.cli(&["envoys", "list"]);
    let list = document["envoys"].as_array().cloned().unwrap_or_default();
    let row = list.into_iter().find(|row| row["hostname"] == name).unwrap_or_default();
    row["state"].as_str().unwrap_or_default().to_owned()
}

fn play(with_continuity: bool) {
    let Scene { mut server, mut known, mut newer, _dir } = scene(with_continuity);
    known.start();
    newer.start();
    let known_account = wait_for("the known envoy's runs", || {
        let found = settled(&server, &known, "known.example")?;
        if found.lost == 0 { Err("nothing is reported as lost yet".into()) } else { Ok(found) }
    });
    // What was acknowledged last is retained, and came again; what was dropped from the queue meanwhile is a gap.
    let Account { stored, lost, .. } = known_account;
    assert!(stored > RUNS[0] + 10, "{stored} runs came again");
    assert!(lost > 10 && lost < RUNS[1], "{lost} of {} runs are lost", RUNS[1]);
    let newer_account = wait_for("the new envoy's runs", || settled(&server, &newer, "newer.example"));
    assert_eq!(newer_account.lost, 0, "the new envoy had everything still");

    let told = events(&server, "lost-in-restore");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(events(&server, "readmitted").len(), 1);
    assert_eq!(events(&server, "epoch").len(), 1, "the epoch is raised once");
    assert_eq!(state(&server, "newer.example"), "review");
    assert_eq!(state(&server, "known.example"), "active");
    server.cli(&["envoys", "approve", "newer.example"]);
    assert_eq!(state(&server, "newer.example"), "active");
    assert_eq!(newer.ask(&["status"])["policy"]["epoch"], 2);

    known.stop();
    newer.stop();
    server.stop();
    let database = server.root.join("db/vigo.db");
    let mut reader = Reader::open(&database).unwrap();
    let connection = Connection::open(&database).unwrap();
    let mut statement = connection.prepare("SELECT uuid FROM envoys").unwrap();
    let uuids: Vec<Vec<u8>> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(uuids.len(), 2);
    for uuid in uuids.iter().map(|bytes| Uuid::try_from_slice(bytes).unwrap()) {
        let report = reader.verify(&uuid, Lane::Urgent, 0, 10_000).unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
    }
    let forks: i64 = connection.query_row("SELECT count(*) FROM forks", [], |row| row.get(0)).unwrap();
    assert_eq!(forks, 0);
}

#[test]
fn a_database_behind_its_continuity_file_gets_everything_again_or_is_told_what_is_lost() {
    play(false);
}

#[test]
fn an_older_copy_with_its_continuity_file_is_recognised_by_its_envoys() {
    play(true);
}
