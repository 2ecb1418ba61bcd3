//! Acknowledged means durable, seen from below: `strace` shows the sync of the database before every acknowledgement, and of the
//! agent's store before every report.

use std::fs;
use std::path::Path;
use std::process::Command;

use vigo_e2e::trace::{self, CALLS};
use vigo_e2e::{Envoy, Server, read_ledger};

/// Every run is a change, so every run is reported at once.
const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/loud.vgo",
        r#"name: loud
resources:
  - {name: ledger, type: exec, command: 'echo "$VIGO_RUN_ID $PPID" >> ledger'}
"#,
    ),
    ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [loud]}\n"),
];

/// The first report of a connection brings volatile traits along: over 900 bytes. No other request of an agent has 600.
const REPORT_BYTES: i64 = 600;
const RUNS: usize = 5;

/// A command under `strace`, which writes to `output`.
fn traced(command: &Command, output: &Path) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-s", "0", "-e", &format!("trace={CALLS}"), "-o"]).arg(output);
    traced.arg(command.get_program()).args(command.get_args());
    traced
}

#[test]
fn reports_are_synced_on_both_sides_before_they_are_acknowledged_and_sent() {
    if !trace::is_permitted() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path(), "checkin: {interval: 1h, hold: never}", POLICY);
    let (seen, sent) = (dir.path().join("server.trace"), dir.path().join("agent.trace"));
    server.start_as(|command| traced(&command, &seen));
    let envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "traced.example");
    // The first run brings policy and stable traits; the others have nothing to say but what they did.
    envoy.ask(&["run", "--once"]);

    let mut proven = 0;
    for _ in 0..RUNS {
        let output = traced(&envoy.command(&["run", "--once", "--json"]), &sent).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let calls = trace::parse(&fs::read_to_string(&sent).unwrap());
        proven += trace::synced_before_sent(&calls, REPORT_BYTES).unwrap_or_else(|why| panic!("{why}"));
    }
    assert_eq!(proven, RUNS, "every run was reported by its own process");
    assert_eq!(read_ledger(&envoy.path("ledger")).len(), RUNS + 1);

    server.stop();
    let calls = trace::parse(&fs::read_to_string(&seen).unwrap());
    let proven = trace::synced_before_acknowledged(&calls, REPORT_BYTES).unwrap_or_else(|why| panic!("{why}"));
    assert!(proven >= RUNS, "{proven} reports were seen");
    let database = rusqlite::Connection::open(server.root.join("db/vigo.db")).unwrap();
    let stored: i64 = database.query_row("SELECT sum(count) FROM runs", [], |row| row.get(0)).unwrap();
    assert_eq!(stored as usize, RUNS + 1);
}
