//! A server that is lost with everything: its envoys come back to a new one by the recovery kit, and where there is none by the
//! bootstrap line; and a master key that is lost alone. The commands are those of the operations guide.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;
use vigo_e2e::{Envoy, Server, account, guide, read_ledger, stored_records, wait_for};

const GUIDE: &str = "docs/operations/keys.md";
const SETTINGS: &str = "checkin: {interval: 1s}\nlog: {level: info}";
/// Every run leaves a line in the ledger and fails, so that every run is a record of its own.
const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/loud.vgo",
        r#"name: loud
resources:
  - {name: ledger, type: exec, command: 'echo "$VIGO_RUN_ID $PPID" >> ledger; exit 1'}
"#,
    ),
    ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [loud]}\n"),
];

/// A new machine in the place of the old one: nothing but the settings is there.
fn lose_everything(server: &mut Server) {
    server.stop();
    let yaml = fs::read(server.root.join("server.yaml")).unwrap();
    fs::remove_dir_all(&server.root).unwrap();
    fs::create_dir(&server.root).unwrap();
    fs::write(server.root.join("server.yaml"), yaml).unwrap();
    for (name, text) in POLICY {
        let path = server.root.join("stacks").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn follow(server: &mut Server, name: &str, variables: &[(&str, &str)]) -> String {
    let root = server.root.display().to_string();
    let all: Vec<(&str, &str)> = variables.iter().copied().chain([("ROOT", root.as_str())]).collect();
    guide::run(GUIDE, name, &all, |words| match words {
        "start vigosrv" => server.start(),
        "stop vigosrv" => server.stop(),
        "restart vigosrv" => {
            server.stop();
            server.start();
        }
        other => panic!("systemctl {other}"),
    })
}

fn run(envoy: &Envoy, times: usize) {
    for _ in 0..times {
        envoy.ask(&["run", "--once"]);
    }
}

fn row(server: &Server, name: &str) -> Value {
    let document = server.cli(&["envoys", "list"]);
    let list = document["envoys"].as_array().cloned().unwrap_or_default();
    list.into_iter().find(|row| row["hostname"] == name).unwrap_or_default()
}

/// Waits until every run in an envoy's ledger is in the new server's database, once, or said to be lost.
fn delivered(server: &Server, envoy: &Envoy, name: &str) {
    wait_for("the queue to be delivered", || {
        let database = Connection::open(server.root.join("db/vigo.db")).map_err(|error| error.to_string())?;
        let ledger = read_ledger(&envoy.path("ledger"));
        account(&ledger, &stored_records(&database, name), ledger.len(), &BTreeSet::new())
            .map(|_| ())
            .map_err(|why| format!("{why}: {}\n{}", envoy.log(), server.log()))
    });
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_kit_brings_the_envoys_of_a_lost_server_back_to_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let kit = dir.path().join("kit.txt");
    let mut server = Server::new(dir.path(), SETTINGS, POLICY);
    server.start();
    // Enrolled before there is a recovery key: it learns of it over its channel.
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "one.example");
    envoy.start();
    follow(&mut server, "kit", &[("KIT", &text(&kit))]);
    wait_for("the recovery key to be pinned", || {
        if envoy.log().contains("recovery key") { Ok(()) } else { Err(envoy.log()) }
    });
    let uuid = row(&server, "one.example")["uuid"].clone();
    envoy.stop();
    run(&envoy, 3);
    let lost = fs::read(server.root.join("tls/identity_key")).unwrap();

    lose_everything(&mut server);
    // Results that nobody could take wait in the queue.
    run(&envoy, 2);
    follow(&mut server, "scenario-5-kit", &[("KIT", &text(&kit))]);
    assert_ne!(fs::read(server.root.join("tls/identity_key")).unwrap(), lost);
    envoy.start();
    delivered(&server, &envoy, "one.example");
    let found = row(&server, "one.example");
    assert_eq!((&found["uuid"], &found["state"]), (&uuid, &"review".into()), "{}", envoy.log());
    follow(&mut server, "scenario-5-approve", &[("HOST", "one.example")]);
    assert_eq!(row(&server, "one.example")["state"], "active");
    assert_eq!(envoy.ask(&["status"])["policy"]["source"], "live", "{}", envoy.ask(&["status"]));
    envoy.stop();
    assert!(envoy.log().contains("vouched for by its recovery key"), "{}", envoy.log());
}
