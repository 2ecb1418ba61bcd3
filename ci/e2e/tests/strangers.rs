//! Who may not take whose place: a second agent, a second server, a used token, a second key for a host name; and how a new
//! machine does take the place of an old one. Every refusal has the documented exit code and words, and changes nothing.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use vigo_e2e::{Envoy, Server, binary, wait_until};

const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/motd.vgo",
        "name: motd\nresources:\n  - {name: motd, type: file, target_path: /motd, content: \"kept\\n\", mode: \"0644\"}\n",
    ),
    ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [motd]}\n"),
];
const SETTINGS: &str = "checkin: {interval: 1s}\nlog: {level: warn}";

fn server(dir: &Path) -> Server {
    let mut server = Server::new(dir, SETTINGS, POLICY);
    server.start();
    server
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "`{word}` is not in: {said}"));
}

fn enroll(envoy: &Envoy, server: &Server, hostname: &str, invite: &Value) -> Output {
    let text = |key: &str| invite[key].as_str().unwrap_or_default().to_string();
    let (address, token, hash) = (format!("127.0.0.1:{}", server.port), text("token"), text("trust_hash"));
    let words = ["enroll", "--server", &address, "--hostname", hostname, "--token", &token, "--trust-hash", &hash];
    envoy.command(&words).output().unwrap()
}

fn row(server: &Server, name: &str) -> Value {
    let document = server.cli(&["envoys", "list", "--revoked"]);
    let list = document["envoys"].as_array().cloned().unwrap_or_default();
    list.into_iter().find(|row| row["hostname"] == name && row["state"] != "revoked").unwrap_or_default()
}

#[test]
fn a_second_agent_on_a_state_directory_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "one.example");
    envoy.start();
    let holder = format!("is held by pid {}", envoy.id());
    refused(&envoy.command(&["daemon"]).output().unwrap(), 75, &["state", &holder]);
    // The first one did not notice.
    wait_until("a run", || envoy.path("motd").exists().then_some(()));
    assert_eq!(envoy.ask(&["status"])["hostname"], "one.example");
}

#[test]
fn a_second_server_in_a_root_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let second = Command::new(binary("vigosrv")).args(["serve", "--root"]).arg(&server.root).output().unwrap();
    refused(
        &second,
        75,
        &["another process works in", &format!("is held by pid {}", server.id()), "choose another root"],
    );
    assert_eq!(server.cli(&["envoys", "list"])["total"], 0);
}

#[test]
fn a_token_admits_one_host() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let invite = server.cli(&["envoys", "invite"]);
    let (one, two) = (Envoy::new(&dir.path().join("one")), Envoy::new(&dir.path().join("two")));
    assert!(enroll(&one, &server, "one.example", &invite).status.success());
    let output = enroll(&two, &server, "two.example", &invite);
    refused(&output, 77, &["this token was used by another host", "vigocli envoys invite"]);
    // The right token of a server that is another one than was meant.
    let mut wrong = server.cli(&["envoys", "invite"]);
    wrong["trust_hash"] = "00".repeat(32).into();
    let output = enroll(&two, &server, "two.example", &wrong);
    refused(&output, 77, &["it is another server", "nothing was sent to this one"]);
    assert_eq!(server.cli(&["envoys", "list"])["total"], 1);
    assert!(enroll(&two, &server, "two.example", &server.cli(&["envoys", "invite"])).status.success());
    // Enrolled is enrolled.
    let again = enroll(&two, &server, "two.example", &server.cli(&["envoys", "invite"]));
    refused(&again, 1, &["this host is enrolled already, as two.example"]);
}

#[test]
fn a_new_key_takes_the_place_of_a_host_only_where_the_operator_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut old = Envoy::new(&dir.path().join("old"));
    old.enroll(&server, "web.example");
    old.start();
    wait_until("a run", || old.path("motd").exists().then_some(()));
    let before = row(&server, "web.example")["uuid"].clone();

    let mut new = Envoy::new(&dir.path().join("new"));
    let output = enroll(&new, &server, "web.example", &server.cli(&["envoys", "invite"]));
    refused(&output, 77, &["another key is enrolled under this host name", "vigocli envoys invite --replace HOST"]);
    let output = enroll(&new, &server, "web.example", &server.cli(&["envoys", "invite", "--hostname", "web.example"]));
    refused(&output, 77, &["another key is enrolled under this host name"]);
    let output = enroll(&new, &server, "web.example", &server.cli(&["envoys", "invite", "--replace", "web.example"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // The old key is good until the new one has checked in.
    let served = || old.ask(&["status"])["standing"] == "active";
    assert!(served());
    new.start();
    wait_until("the old one to be revoked", || (old.ask(&["status"])["standing"] == "revoked").then_some(()));
    wait_until("the new one to be in its place", || {
        let uuid = &row(&server, "web.example")["uuid"];
        (*uuid != before && *uuid == new.ask(&["status"])["uuid"]).then_some(())
    });
    wait_until("a run of the new one", || new.path("motd").exists().then_some(()));
    // What was revoked goes on converging.
    std::fs::write(old.path("motd"), "broken").unwrap();
    wait_until("a repair", || std::fs::read(old.path("motd")).is_ok_and(|text| text == b"kept\n").then_some(()));
}
