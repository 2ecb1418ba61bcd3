//! Disks that are full or take no writes, under the agent and under the server: nothing is lost, it is told, and it recovers by
//! itself when there is space again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use vigo_e2e::{
    Account, Disk, Envoy, Server, account, binary, read_ledger, stored_records, wait_for, wait_until, with_own_mounts,
};

/// Every run fails with two kilobytes of message: the store grows.
const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/loud.vgo",
        r#"name: loud
resources:
  - {name: ledger, type: exec, command: 'echo "$VIGO_RUN_ID $PPID" >> ledger; printf %02000d 0; exit 1'}
  - {name: kept, type: file, target_path: /kept, content: "kept\n", mode: "0644"}
"#,
    ),
    ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [loud]}\n"),
];
const SETTINGS: &str = "checkin: {interval: 1s}\nlog: {level: warn}";
const NAME: &str = "disk.example";

fn scene(dir: &Path) -> (Server, Envoy) {
    let server = Server::new(dir, SETTINGS, POLICY);
    (server, Envoy::new(&dir.join("envoy")))
}

fn runs(envoy: &Envoy) -> usize {
    read_ledger(&envoy.path("ledger")).len()
}

/// Waits until so many more runs were made.
fn more_runs(envoy: &Envoy, n: usize) {
    let before = runs(envoy);
    wait_until("runs", || (runs(envoy) >= before + n).then_some(()));
}

fn account_now(server: &Server, envoy: &Envoy, required: usize, killed: &BTreeSet<u32>) -> Result<Account, String> {
    let path = server.root.join("db/vigo.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|e| e.to_string())?;
    account(&read_ledger(&envoy.path("ledger")), &stored_records(&database, NAME), required, killed)
        .map_err(|why| format!("{why}\n{}\n{}", envoy.log(), server.log()))
}

/// Everything that was run until now arrives, once.
fn all_arrive(server: &Server, envoy: &Envoy, killed: &BTreeSet<u32>) -> Account {
    let required = runs(envoy);
    wait_for("everything to arrive", || account_now(server, envoy, required, killed))
}

fn repairs(envoy: &Envoy) {
    fs::write(envoy.path("kept"), "broken").unwrap();
    wait_until("a repair", || fs::read(envoy.path("kept")).is_ok_and(|text| text == b"kept\n").then_some(()));
}

/// `vigocli status`, which ends with a monitoring code.
fn status(server: &Server) -> (i32, String) {
    let output =
        Command::new(binary("vigocli")).args(["status", "--root"]).arg(&server.root).output().expect("vigocli");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn an_agent_goes_on_through_a_full_disk() {
    with_own_mounts("an_agent_goes_on_through_a_full_disk", || {
        let dir = tempfile::tempdir().unwrap();
        let (mut server, mut envoy) = scene(dir.path());
        server.start();
        envoy.enroll(&server, NAME);
        let disk = Disk::mount(&envoy.dir.join("state"), 4 << 20);
        // Ten runs a second.
        envoy.clock = "scale=10".into();
        envoy.start();
        more_runs(&envoy, 2);
        all_arrive(&server, &envoy, &BTreeSet::new());

        // With the server away too, the oldest results give way to the newest: counted, and told later. It converges.
        server.stop();
        disk.fill();
        wait_for("results to be dropped", || {
            let queue = envoy.ask(&["queue"]);
            let state = || format!("{queue}, {}: {}", envoy.ask(&["status"]), envoy.log());
            (queue["lanes"][0]["lost"].as_u64() > Some(0)).then_some(()).ok_or_else(state)
        });
        repairs(&envoy);
        assert_eq!(envoy.ask(&["status"])["disk"], "", "it takes what there is room for");
        let killed = BTreeSet::from([envoy.id()]);
        envoy.kill();
        envoy.start();
        more_runs(&envoy, 2);
        disk.free();
        server.start();
        let account = all_arrive(&server, &envoy, &killed);
        assert!(account.lost > 0 && account.stored > account.lost && account.killed <= 1, "{account:?}");
        let events = server.cli(&["events"])["events"].clone();
        let told = |event: &Value| event["kind"] == "queue-full";
        assert!(events.as_array().is_some_and(|list| list.iter().any(told)), "{events}");
    });
}

#[test]
fn a_server_with_a_full_disk_answers_and_loses_nothing() {
    with_own_mounts("a_server_with_a_full_disk_answers_and_loses_nothing", || {
        let dir = tempfile::tempdir().unwrap();
        let (mut server, mut envoy) = scene(dir.path());
        let disk = Disk::mount(&server.root.join("db"), 16 << 20);
        server.start();
        envoy.enroll(&server, NAME);
        // Ten runs a second, and pauses that end ten times sooner.
        envoy.clock = "scale=10".into();
        envoy.start();
        more_runs(&envoy, 2);
        all_arrive(&server, &envoy, &BTreeSet::new());

        // The reserve is released, and filled as well.
        let waiting = wait_until("results to be refused", || {
            disk.fill();
            Some(envoy.ask(&["queue"])).filter(|queue| queue["lanes"][0]["records"].as_u64() > Some(3))
        });
        let (code, said) = status(&server);
        assert!(code == 2 && said.contains("the disk is full: results stay with the agents"), "{code}: {said}");
        // Check-ins go on, and the agent converges.
        repairs(&envoy);
        let seen = envoy.ask(&["status"]);
        assert!(text(&seen["connection"]).starts_with("connected"), "{seen}");
        assert!(seen["checked_in_ms_ago"].as_u64() < Some(10_000), "{seen}");
        assert_eq!(waiting["lanes"][0]["lost"], 0);
        disk.free();
        let account = all_arrive(&server, &envoy, &BTreeSet::new());
        assert_eq!(account.lost, 0, "{account:?}");
        assert!(!status(&server).1.contains("disk is full"));
    });
}

#[test]
fn a_read_only_disk_is_said() {
    with_own_mounts("a_read_only_disk_is_said", || {
        let dir = tempfile::tempdir().unwrap();
        let (mut server, mut envoy) = scene(dir.path());
        server.start();
        envoy.enroll(&server, NAME);
        let disk = Disk::mount(&envoy.dir.join("state"), 4 << 20);
        disk.make_read_only();
        let output = envoy.command(&["run", "--once"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // One of the resources always fails.
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("memory-only: cannot open the lock"), "{said}");
        assert!(said.contains("read-only file system"), "{said}");
        all_arrive(&server, &envoy, &BTreeSet::new());
        disk.make_writable();
        envoy.start();
        more_runs(&envoy, 1);
        server.stop();
        let disk = Disk::mount(&server.root, 32 << 20);
        disk.make_read_only();
        let output = Command::new(binary("vigosrv")).args(["serve", "--root"]).arg(&server.root).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("read-only file system") && said.contains("server/run/lock"), "{said}");
        disk.make_writable();
        server.start();
        all_arrive(&server, &envoy, &BTreeSet::new());
    });
}
