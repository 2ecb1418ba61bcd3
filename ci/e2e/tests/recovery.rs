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

    // A kit for secrets alone, and one for the server that has it, bring no envoys anywhere.
    let bare = dir.path().join("bare.txt");
    server.cli(&["secrets", "key", "export", &text(&bare)]);
    refused(&server, &["server", "recover", "--kit", &text(&kit)], 75, "another process works in");
    server.stop();
    refused(&server, &["server", "recover", "--kit", &text(&kit)], 1, "nothing is lost that envoys must be told of");
    server.start();

    lose_everything(&mut server);
    refused(&server, &["server", "recover", "--kit", &text(&bare)], 1, "it was made without --new-recovery-key");
    let mut damaged = fs::read(&kit).unwrap();
    damaged[200] ^= 1;
    fs::write(&bare, damaged).unwrap();
    refused(&server, &["server", "recover", "--kit", &text(&bare)], 78, "the recovery kit is damaged");
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

#[test]
fn without_a_kit_the_line_of_an_invitation_brings_an_envoy_and_its_queue_to_a_new_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path(), SETTINGS, POLICY);
    server.start();
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "one.example");
    run(&envoy, 3);
    let uuid = row(&server, "one.example")["uuid"].clone();
    lose_everything(&mut server);
    run(&envoy, 2);
    envoy.start();

    let invite = text(&dir.path().join("invite.json"));
    follow(&mut server, "scenario-5-fresh", &[("INVITE", &invite), ("HOST", "one.example")]);
    // It says that this is another server, and goes on.
    wait_for("the new server to be met", || {
        if envoy.log().contains("trust: server changed") { Ok(()) } else { Err(envoy.log()) }
    });
    let (config, address) = (text(&envoy.dir.join("envoy.yaml")), format!("127.0.0.1:{}", server.port));
    let variables = [
        ("INVITE", invite.as_str()),
        ("HOST", "one.example"),
        ("CONFIG", config.as_str()),
        ("SERVER", address.as_str()),
    ];
    guide::run(GUIDE, "scenario-5-host", &variables, |words| match words {
        "stop vigo-envoy" => envoy.stop(),
        "start vigo-envoy" => envoy.start(),
        other => panic!("systemctl {other}"),
    });
    delivered(&server, &envoy, "one.example");
    let found = row(&server, "one.example");
    assert_eq!(found["state"], "active");
    assert_ne!(found["uuid"], uuid);
    // A stranger's epoch and counters mean nothing here: this server was not restored.
    let events = server.cli(&["events"]).to_string();
    assert!(!events.contains("older copy") && !events.contains("revocations-lost"), "{events}");
    envoy.stop();
}

#[test]
fn a_lost_master_key_costs_its_secrets_alone_and_a_kit_brings_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let kit = text(&dir.path().join("kit.txt"));
    let policy = [
        (
            "configcrates/app.vgo",
            "name: app\nresources:\n  - {name: conf, type: file, target_path: /conf, content: \"secret:a/one\"}\n",
        ),
        ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [app]}\n"),
    ];
    let mut server = Server::at(dir.path(), SETTINGS, vigo_e2e::binary("vigosrv"));
    server.set_secret("a/one", "first value");
    server.set_secret("b/two", "second value");
    server.publish(&policy);
    server.start();
    follow(&mut server, "kit", &[("KIT", &kit)]);
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "one.example");
    envoy.start();
    let holds = |envoy: &Envoy, value: &str| {
        wait_for("the secret on the host", || match fs::read_to_string(envoy.path("conf")) {
            Ok(text) if text == value => Ok(()),
            found => Err(format!("{found:?}: {}", envoy.log())),
        });
    };
    holds(&envoy, "first value");

    fs::remove_file(server.root.join("secrets/.master.key")).unwrap();
    let said = follow(&mut server, "scenario-4-check", &[]);
    assert!(said.contains("0 secrets open, 2 do not") && said.contains("a/one") && said.contains("b/two"), "{said}");
    assert!(server.log().contains("secrets that no key opens are set aside"), "{}", server.log());
    // Everything else works: the envoy repairs with the value that it has, and policy is published.
    fs::remove_file(envoy.path("conf")).unwrap();
    holds(&envoy, "first value");
    server.publish(&policy);
    follow(&mut server, "scenario-4-set", &[("SECRET", "a/one"), ("VALUE", "new value")]);
    holds(&envoy, "new value");
    let lost = doctor(&server, "secrets");
    assert!(lost.contains("b/two") && !lost.contains("a/one"), "{lost}");

    let said = follow(&mut server, "scenario-4-kit", &[("KIT", &kit)]);
    assert!(said.contains("b/two"), "{said}");
    assert_eq!(server.cli(&["secrets", "check"])["open"], 2);
    assert_eq!(server.cli(&["secrets", "get", "b/two"])["value"], "second value");
    // The value that was set meanwhile stays.
    assert_eq!(server.cli(&["secrets", "get", "a/one"])["value"], "new value");
    envoy.stop();
}

/// A command that must be refused with this exit status, in these words.
fn refused(server: &Server, words: &[&str], code: i32, said: &str) {
    let output = std::process::Command::new(vigo_e2e::binary("vigocli"))
        .args(words)
        .arg("--root")
        .arg(&server.root)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && stderr.contains(said), "{:?}: {stderr}", output.status);
}

/// What `doctor` says of one thing; its exit status is that of the worst of all.
fn doctor(server: &Server, check: &str) -> String {
    let output = std::process::Command::new(vigo_e2e::binary("vigocli"))
        .args(["doctor", "--json", "--root"])
        .arg(&server.root)
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = document["findings"].as_array().cloned().unwrap_or_default();
    let texts = all.iter().filter(|row| row["check"] == check).map(|row| row["text"].as_str().unwrap_or_default());
    texts.collect::<Vec<_>>().join("\n")
}
