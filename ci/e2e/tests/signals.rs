//! TERM and HUP, for agents and servers: an end in bounded time that loses nothing, and settings read again without one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use vigo_e2e::{Envoy, KEPT, MAPPINGS, Server, Signal, free_port, mappings, timed, wait_for, wait_until};

const NAME: &str = "signal.example";
/// TERM ends an agent within ten seconds, a server within its drain of eight; the machine may be busy.
const ENDED: Duration = Duration::from_secs(13);

fn server(dir: &Path, policy: &[(&str, &str)]) -> Server {
    let mut server = Server::new(dir, "checkin: {interval: 1s}", policy);
    server.start();
    server
}

/// A command that ignores TERM, and has a child that holds its pipes.
const STUBBORN: &str = r#"name: stubborn
resources:
  - {name: before, type: file, target_path: /before, content: "made\n"}
  - name: stubborn
    type: exec
    command: "trap '' TERM; touch begun; sleep 300 & wait; sleep 300"
    depends_on: [before]
  - {name: after, type: file, target_path: /after, content: "made\n", depends_on: [stubborn]}
"#;

#[test]
fn an_agent_told_to_stop_in_a_run_ends_in_time_and_reports_the_run_as_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mapping = (MAPPINGS, "envoys:\n  - {match: '*', configcrates: [stubborn]}\n");
    let server = server(dir.path(), &[("configcrates/stubborn.vgo", STUBBORN), mapping]);
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, NAME);
    envoy.start();
    wait_until("the command", || envoy.path("begun").exists().then_some(()));
    let ((), took) = timed(|| envoy.stop());
    println!("a run with a command that ignores TERM ended after {took:?}");
    assert!(took < ENDED, "{took:?}: {}", envoy.log());
    assert!(envoy.path("before").exists() && !envoy.path("after").exists());

    // What it did is delivered by the next process, as what it was.
    let (docile, _) = STUBBORN.split_once("  - name: stubborn").unwrap();
    server.publish(&[("configcrates/stubborn.vgo", docile)]);
    envoy.start();
    let first = wait_until("the run", || {
        let runs = server.cli(&["runs", NAME])["runs"].clone();
        runs.as_array()?.iter().find(|run| run["changed"] == 1).cloned()
    });
    assert!(first["detail"].as_str().is_some_and(|text| text.contains("interrupted")), "{first}");
    assert_eq!(first["failed"], 1, "{first}");
}

#[test]
fn an_agent_reads_its_settings_again_and_keeps_the_old_ones_if_the_new_ones_are_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), &[KEPT, (MAPPINGS, &mappings(&[("*", "one")]))]);
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, NAME);
    envoy.clock = "scale=20".into();
    envoy.start();
    envoy.keeps("one");
    let yaml = envoy.dir.join("envoy.yaml");
    let text = fs::read_to_string(&yaml).unwrap();
    fs::write(&yaml, format!("{text}server: wrong\n")).unwrap();
    envoy.signal(Signal::SIGHUP);
    wait_for("the refusal", || {
        let log = envoy.log();
        let said = log.contains("the configuration stays as it was") && log.contains("did you mean `servers`?");
        said.then_some(()).ok_or(log)
    });
    envoy.repairs("one");

    // The server comes back where nobody told the agent to look.
    server.stop();
    server.port = free_port();
    server.start();
    fs::write(&yaml, format!("{text}servers: ['127.0.0.1:{}']\n", server.port)).unwrap();
    envoy.signal(Signal::SIGHUP);
    server.publish(&[(MAPPINGS, &mappings(&[("*", "two")]))]);
    envoy.keeps("two");
    assert!(envoy.log().contains("configuration read again"));
}

#[test]
fn a_server_told_to_stop_says_goodbye_and_ends_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), &[KEPT, (MAPPINGS, &mappings(&[("*", "one")]))]);
    let names: Vec<String> = (0..4).map(|n| format!("{n}.{NAME}")).collect();
    let mut envoys: Vec<Envoy> = names.iter().map(|name| Envoy::new(&dir.path().join(name))).collect();
    for (envoy, name) in envoys.iter_mut().zip(&names) {
        envoy.enroll(&server, name);
        envoy.start();
    }
    envoys.iter().for_each(|envoy| envoy.keeps("one"));
    // HUP is answered by a look at certificates, without any connection lost.
    server.signal(Signal::SIGHUP);
    wait_until("the look", || server.log().contains("new connections get the new certificate").then_some(()));
    let ((), took) = timed(|| server.stop());
    println!("a server with agents on it ended after {took:?}");
    assert!(took < ENDED, "{took:?}: {}", server.log());
    envoys.iter().for_each(|envoy| envoy.repairs("one"));
    server.start();
    server.publish(&[(MAPPINGS, &mappings(&[("*", "two")]))]);
    envoys.iter().for_each(|envoy| envoy.keeps("two"));
    let waiting = |queue: &Value| queue["lanes"][0]["records"] == 0;
    envoys.iter().for_each(|envoy| {
        wait_until("the delivery", || waiting(&envoy.ask(&["queue"])).then_some(()));
    });
}
