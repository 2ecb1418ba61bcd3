//! What an operator does to an envoy that is connected: revoke, rename, move to another place. It takes effect at once, and the
//! host stays in its state.

use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;
use vigo_e2e::{Envoy, KEPT, MAPPINGS, Server, binary, mappings, wait_for, wait_until};

const NAME: &str = "web.example";
const SETTINGS: &str = "checkin: {interval: 1s, hold: always}";

fn scene(dir: &Path, mapped: &[(&str, &str)]) -> (Server, Envoy) {
    let mut server = Server::new(dir, SETTINGS, &[KEPT, (MAPPINGS, &mappings(mapped))]);
    server.start();
    let mut envoy = Envoy::new(&dir.join("envoy"));
    envoy.enroll(&server, NAME);
    envoy.clock = "scale=10".into();
    envoy.start();
    (server, envoy)
}

/// Waits until `status` says so.
fn says(envoy: &Envoy, key: &str, is: impl Fn(&Value) -> bool) {
    wait_for(key, || {
        let status = envoy.ask(&["status"]);
        is(&status[key]).then_some(()).ok_or_else(|| format!("{status}: {}", envoy.log()))
    });
}

fn starts_with(text: &str) -> impl Fn(&Value) -> bool {
    move |value| value.as_str().is_some_and(|found| found.starts_with(text))
}

#[test]
fn a_revoked_envoy_is_cut_off_at_once_and_goes_on_converging() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, envoy) = scene(dir.path(), &[("*", "one")]);
    envoy.keeps("one");
    says(&envoy, "connection", starts_with("connected"));
    server.cli(&["envoys", "revoke", NAME, "--reason", "stolen", "--yes"]);
    says(&envoy, "standing", |standing| standing == "revoked");
    says(&envoy, "trust", |trust| trust == "trust: this envoy was revoked");
    assert_eq!(server.cli(&["envoys", "list"])["total"], 0);
    let shown = server.cli(&["envoys", "list", "--revoked"]);
    assert_eq!(shown["envoys"][0]["state"], "revoked", "{shown}");
    // New policy does not reach it any more; what it has, it keeps.
    server.publish(&[(MAPPINGS, &mappings(&[("*", "two")]))]);
    envoy.repairs("one");
    server.stop();
    server.start();
    envoy.repairs("one");
    assert_eq!(envoy.ask(&["status"])["standing"], "revoked");
}

#[test]
fn a_renamed_envoy_gets_the_policy_of_its_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let (server, envoy) = scene(dir.path(), &[("web.*", "web-policy"), ("db.*", "db-policy")]);
    envoy.keeps("web-policy");
    let renamed = |from: &str, to: &str| {
        Command::new(binary("vigocli"))
            .args(["envoys", "rename", from, to, "--root"])
            .arg(&server.root)
            .output()
            .unwrap()
    };
    let wrong = renamed(NAME, "not a name");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("`not a name` is not a host name"), "{wrong:?}");
    assert!(renamed(NAME, "db.example").status.success());
    envoy.keeps("db-policy");
    says(&envoy, "hostname", |name| name == "db.example");
    // What it did under either name is its history.
    let runs = || server.cli(&["runs", "db.example"])["runs"].as_array().map_or(0, Vec::len);
    wait_until("both runs", || (runs() >= 2).then_some(()));
    // The old name is free again.
    Envoy::new(&dir.path().join("other")).enroll(&server, NAME);
}

#[test]
fn an_envoy_that_is_rekeyed_gets_its_secrets_under_the_new_key() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut envoy) = scene(dir.path(), &[("*", "one")]);
    let set = |server: &Server, value: &str| {
        let file = dir.path().join("value");
        fs::write(&file, value).unwrap();
        server.cli(&["secrets", "set", "a/b", "--file", &file.to_string_lossy()]);
    };
    set(&server, "the first");
    server.publish(&[(MAPPINGS, &mappings(&[("*", "secret:a/b")]))]);
    envoy.keeps("the first");
    let (key, former) = (envoy.dir.join("identity/sealing_key"), envoy.dir.join("identity/sealing_key.former"));
    let before = fs::read(&key).unwrap();
    server.cli(&["envoys", "rekey", NAME]);
    wait_until("the new key to be stored", || {
        server.cli(&["events"])["events"].as_array()?.iter().any(|event| event["kind"] == "rekeyed").then_some(())
    });
    assert_ne!(fs::read(&key).unwrap(), before);
    assert_eq!(fs::read(&former).unwrap(), before);
    set(&server, "the second");
    envoy.keeps("the second");
    // Sealed to the new key alone, and from the store, without a server.
    server.stop();
    envoy.kill();
    fs::remove_file(&former).unwrap();
    envoy.start();
    envoy.repairs("the second");
}

#[test]
fn an_envoy_follows_its_server_to_another_address_and_delivers_there() {
    let dir = tempfile::tempdir().unwrap();
    let (mut old, envoy) = scene(dir.path(), &[("*", "one")]);
    envoy.keeps("one");
    // The server moves: a copy of its root, on another address.
    old.stop();
    let copied = dir.path().join("moved");
    fs::create_dir(&copied).unwrap();
    let status = Command::new("cp").arg("-a").arg(&old.root).arg(&copied).status().unwrap();
    assert!(status.success());
    let mut new = Server::at(&copied, SETTINGS, binary("vigosrv"));
    old.start();
    new.start();
    says(&envoy, "connection", starts_with(&format!("connected to 127.0.0.1:{}", old.port)));
    let address = format!("localhost:{}", new.port);
    let answer = old.cli(&["envoys", "rebootstrap", NAME, "--address", &address, "--yes"]);
    assert_eq!(answer["reached"], 1, "{answer}");
    says(&envoy, "connection", starts_with(&format!("connected to {address}")));
    wait_for("the end of the move", || match envoy.log() {
        log if log.contains(&format!("moved to {address}")) => Ok(()),
        log => Err(log),
    });
    old.stop();

    new.publish(&[(MAPPINGS, &mappings(&[("*", "two")]))]);
    envoy.keeps("two");
    let delivered = || {
        let database = Connection::open(new.root.join("db/vigo.db")).ok()?;
        let changed: i64 =
            database.query_row("SELECT count(*) FROM runs WHERE changed > 0", [], |row| row.get(0)).ok()?;
        (changed >= 2).then_some(())
    };
    wait_until("the delivery to the new place", delivered);
}

#[test]
fn a_program_of_the_operator_is_a_trait_that_policy_uses_and_both_sides_show() {
    let dir = tempfile::tempdir().unwrap();
    let crate_of = "name: racks\nresources:\n  - {name: site, type: file, target_path: /site, content: \"row {{ traits.rack.row }}\\n\"}\n  - {name: high, type: file, target_path: /high, content: \"x\", when: \"traits.rack.row > 5\"}\n  - {name: low, type: file, target_path: /low, content: \"x\", when: \"traits.rack.row < 5 and 'root' in traits.users\"}\n";
    let mapping = "envoys:\n  - {match: \"*\", configcrates: [racks]}\n";
    let policy = [("configcrates/racks.vgo", crate_of), ("envoys/all.vgo", mapping)];
    let mut server = Server::new(dir.path(), SETTINGS, &policy);
    server.start();
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    let programs = envoy.dir.join("traits.d");
    fs::create_dir_all(&programs).unwrap();
    let config = envoy.dir.join("envoy.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}traits_dir: traits.d\n")).unwrap();
    let program = |name: &str, script: &str| {
        let path = programs.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    program("rack.volatile.sh", "echo '{\"row\": 7}'");
    program("bad.sh", "echo nonsense");
    assert_eq!(envoy.ask(&["traits", "rack"]), serde_json::json!({"row": 7}));
    envoy.enroll(&server, NAME);
    envoy.clock = "scale=10".into();
    envoy.start();
    let site = |expected: &str| fs::read_to_string(envoy.path("site")).is_ok_and(|text| text == expected);
    wait_for("the trait in the file", || site("row 7\n").then_some(()).ok_or_else(|| envoy.log()));
    wait_until("the condition", || envoy.path("high").exists().then_some(()));
    assert!(!envoy.path("low").exists());
    assert!(envoy.log().contains("traits.d/bad.sh printed no JSON"), "{}", envoy.log());
    let shown = || server.cli(&["traits", NAME]);
    wait_until("the server to know", || (shown()["users"]["root"]["uid"] == 0).then_some(()));
    assert_eq!(server.cli(&["traits", NAME, "rack.row"]), 7);
    // What changes on the host changes what it does, with no server asked.
    program("rack.volatile.sh", "echo '{\"row\": 3}'");
    wait_until("the new value", || (site("row 3\n") && envoy.path("low").exists()).then_some(()));
}
