//! Policy in the cache that was altered on disk: the current slot gives way to the previous one, which is applied without a
//! server and said; a server brings the current one again. What does not verify is never applied.

use std::fs;
use std::path::Path;

use vigo_e2e::{Envoy, KEPT, MAPPINGS, Server, mappings, wait_for};

/// Long enough that it lies in pages of its own, and found in the store by its text.
fn content(word: &str) -> String {
    format!("{word}-{}", "x".repeat(40))
}

/// Alters every place in the store where this text is. How many there were.
fn alter(store: &Path, text: &str) -> usize {
    let mut bytes = fs::read(store).unwrap();
    let places: Vec<usize> = bytes
        .windows(text.len())
        .enumerate()
        .filter(|(_, found)| *found == text.as_bytes())
        .map(|(at, _)| at)
        .collect();
    places.iter().for_each(|at| bytes[*at] ^= 1);
    fs::write(store, bytes).unwrap();
    places.len()
}

fn runs_serial(envoy: &Envoy, serial: u64) {
    wait_for(&format!("the policy of serial {serial}"), || {
        let status = envoy.ask(&["status"]);
        (status["policy"]["serial"] == serial).then_some(()).ok_or_else(|| format!("{status}: {}", envoy.log()))
    });
}

#[test]
fn an_altered_current_slot_gives_way_to_the_previous_one_until_a_server_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = [content("one"), content("two")];
    let mut server = Server::new(dir.path(), "checkin: {interval: 1s}", &[KEPT, (MAPPINGS, &mappings(&[("*", &one)]))]);
    server.start();
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "slots.example");
    envoy.clock = "scale=10".into();
    envoy.start();
    envoy.keeps(&one);
    server.publish(&[(MAPPINGS, &mappings(&[("*", &two)]))]);
    envoy.keeps(&two);
    envoy.stop();
    server.stop();

    let store = envoy.dir.join("state/data.mdb");
    assert!(alter(&store, &two) > 0, "the policy is in the store as text");
    envoy.start();
    // The policy of before, and not the altered one.
    envoy.keeps(&one);
    runs_serial(&envoy, 2);
    let log = envoy.log();
    assert!(log.contains("database bundle, key current: the checksum of its payload does not hold"), "{log}");
    assert!(log.contains("the previous policy"), "{log}");
    envoy.repairs(&one);
    server.start();
    envoy.keeps(&two);
    runs_serial(&envoy, 3);
    wait_for("the incident at the server", || {
        let runs = server.cli(&["runs", "slots.example", "--limit", "1000"]);
        let told = runs["runs"].as_array().is_some_and(|list| list.iter().any(|run| run["kind"] == "incident"));
        told.then_some(()).ok_or_else(|| runs.to_string())
    });
}

#[test]
fn with_both_slots_altered_nothing_is_applied_until_a_server_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let one = content("one");
    let mut server = Server::new(dir.path(), "checkin: {interval: 1s}", &[KEPT, (MAPPINGS, &mappings(&[("*", &one)]))]);
    server.start();
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "slots.example");
    envoy.clock = "scale=10".into();
    envoy.start();
    envoy.keeps(&one);
    envoy.stop();
    server.stop();
    assert!(alter(&envoy.dir.join("state/data.mdb"), &one) > 0);
    fs::write(envoy.path("kept"), "by hand").unwrap();
    envoy.start();
    wait_for("a look at the policy", || {
        let status = envoy.ask(&["status"]);
        (status["policy"].is_null() && status["next_run_ms"].is_u64()).then_some(()).ok_or_else(|| status.to_string())
    });
    assert_eq!(fs::read_to_string(envoy.path("kept")).unwrap(), "by hand");
    server.start();
    envoy.keeps(&one);
}
