//! A state directory on a machine of another architecture: its store is set aside and rebuilt, the identity and what can be read of the
//! queue are kept. LMDB's files are not portable; the plain files beside them, and the values in them, are.

use std::collections::BTreeSet;
use std::fs;

use rusqlite::{Connection, OpenFlags};
use vigo_arch_tests::{Target, native_server, targets};
use vigo_e2e::{Envoy, KEPT, MAPPINGS, Server, account, read_ledger, stored_records, wait_for, wait_until};

const NAME: &str = "moved.example";
const CRATE: &str = r#"name: ledger
resources:
  - {name: ledger, type: exec, command: 'echo "$VIGO_RUN_ID $PPID" >> ledger'}
"#;

/// From one to the next around the list: another word size, another byte order, both, and neither.
const ROUND: [&str; 6] = ["x86_64", "armv7", "s390x", "aarch64", "riscv64gc", "x86_64"];

fn target(short: &str) -> Target {
    targets().into_iter().find(|target| target.short() == short).expect("it is in the list")
}

fn same_layout(one: &Target, other: &Target) -> bool {
    (one.bits, one.little_endian) == (other.bits, other.little_endian)
}

#[test]
fn a_state_directory_moves_through_every_architecture_and_loses_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let mapping = "envoys:\n  - {match: '*', configcrates: [ledger, kept], vars: {content: one}}\n";
    let policy = [("configcrates/ledger.vgo", CRATE), KEPT, (MAPPINGS, mapping)];
    let mut server = Server::with_program(dir.path(), "checkin: {interval: 1s}", &policy, native_server());
    server.start();
    let mut before = target(ROUND[0]);
    let mut envoy = Envoy::with_program(&dir.path().join("envoy"), before.binary("vigo-envoy"));
    envoy.enroll(&server, NAME);
    let identity = fs::read(envoy.dir.join("identity/identity_key")).unwrap();
    envoy.start();
    envoy.keeps("one");
    for short in &ROUND[1..] {
        let now = target(short);
        // Runs that nobody has yet.
        server.kill();
        let lines = || read_ledger(&envoy.dir.join("root/ledger")).len();
        let from = lines();
        wait_until("runs without the server", || (lines() >= from + 2).then_some(()));
        envoy.stop();
        server.start();
        envoy = Envoy::with_program(&envoy.dir, now.binary("vigo-envoy"));
        let told = envoy.log().len();
        envoy.start();
        wait_for("a check-in", || {
            let status = envoy.ask(&["status"]);
            (status["attempt"] == 0).then_some(()).ok_or_else(|| format!("{status}: {}", envoy.log()))
        });
        envoy.repairs("one");
        let log = envoy.log();
        let aside = log[told..].contains("moved-aside") || log[told..].contains("set aside");
        assert_eq!(aside, !same_layout(&before, &now), "{} to {}: {}", before.triple, now.triple, &log[told..]);
        assert_eq!(fs::read(envoy.dir.join("identity/identity_key")).unwrap(), identity);
        before = now;
    }
    let required = read_ledger(&envoy.path("ledger")).len();
    let database =
        Connection::open_with_flags(server.root.join("db/vigo.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let found = wait_for("every run to arrive", || {
        let ledger = read_ledger(&envoy.path("ledger"));
        account(&ledger, &stored_records(&database, NAME), required, &BTreeSet::new())
    });
    assert_eq!(found.lost, 0, "{}", envoy.log());
    let rows = server.cli(&["envoys", "list"]);
    assert_eq!(rows["envoys"].as_array().map(Vec::len), Some(1), "it is the same envoy everywhere: {rows}");
}
