//! Agents whose wall clock is at 1970, at 2100, or jumps, against a real server over real TLS: they enroll, converge and deliver.
//!
//! Policy runs out after an hour without a server, so that an agent which measured that by the wall clock would stop.

use std::fs;
use std::path::Path;

use serde_json::Value;
use vigo_e2e::{Envoy, Server, wait_until};

const NAME: &str = "clock.example";
const SETTINGS: &str = "checkin: {interval: 1s, bundle_max_age: 1h}";
const WANTED: &str = "kept by Vigo\n";
const POLICY: [(&str, &str); 2] = [
    (
        "configcrates/kept.vgo",
        "name: kept\nresources:\n  - {name: kept, type: file, target_path: /kept, content: \"kept by Vigo\\n\"}\n",
    ),
    ("envoys/all.vgo", "envoys:\n  - match: \"*\"\n    configcrates: [kept]\n"),
];
/// Besides the file, a command that takes long enough for a jump to fall into its run.
const SLOW_POLICY: [(&str, &str); 2] = [
    (
        "configcrates/kept.vgo",
        "name: kept\nresources:\n  - {name: slow, type: exec, command: sleep 0.8}\n  - {name: kept, type: file, target_path: /kept, content: \"kept by Vigo\\n\"}\n",
    ),
    POLICY[1],
];

/// A server that runs, and an agent enrolled with it under this clock.
fn site(dir: &Path, policy: &[(&str, &str)], clock: &str) -> (Server, Envoy) {
    let mut server = Server::new(dir, SETTINGS, policy);
    server.start();
    let mut envoy = Envoy::new(&dir.join("envoy"));
    envoy.clock = clock.into();
    envoy.enroll(&server, NAME);
    (server, envoy)
}

/// The runs that the server has, oldest first.
fn runs(server: &Server) -> Vec<Value> {
    let mut rows = server.cli(&["runs", NAME, "--limit", "1000"])["runs"].as_array().cloned().unwrap_or_default();
    rows.reverse();
    rows
}

/// Runs at the server that changed something.
fn n_changed(server: &Server) -> usize {
    runs(server).iter().filter(|run| run["changed"].as_u64() > Some(0)).count()
}

fn is_kept(envoy: &Envoy) -> bool {
    fs::read_to_string(envoy.path("/kept")).is_ok_and(|text| text == WANTED)
}

/// Breaks the file and waits for its repair.
fn drift_and_repair(envoy: &Envoy, when: &str) {
    fs::write(envoy.path("/kept"), "broken").unwrap();
    wait_until(&format!("the repair {when}; the agent says {}", envoy.log()), || is_kept(envoy).then_some(()));
}

/// Breaks the file, and waits for its repair and for the server to have that run.
fn converges_and_delivers(server: &Server, envoy: &Envoy, when: &str) {
    let before = n_changed(server);
    drift_and_repair(envoy, when);
    wait_until(&format!("the delivery {when}"), || (n_changed(server) > before).then_some(()));
}

/// Every sequence of each lane is there once, with nothing between.
fn delivered_once(server: &Server) {
    for lane in ["urgent", "routine"] {
        let mut next = 1;
        for run in runs(server).iter().filter(|run| run["lane"] == lane) {
            assert_eq!(run["first_sequence"], next, "{lane}: {run}");
            assert!(run["kind"] != "gap", "{run}");
            next = run["last_sequence"].as_u64().unwrap() + 1;
        }
    }
}

fn years(server: &Server) -> Vec<String> {
    let mut years: Vec<String> = runs(server).iter().map(|run| run["started"].as_str().unwrap()[..4].into()).collect();
    years.sort();
    years.dedup();
    years
}

fn lives_in_another_time(clock: &str, year: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut envoy) = site(dir.path(), &POLICY, clock);
    envoy.start();
    wait_until("the first run", || is_kept(&envoy).then_some(()));
    wait_until("its delivery", || (n_changed(&server) == 1).then_some(()));
    assert_eq!(years(&server), [year]);
    converges_and_delivers(&server, &envoy, "with the server");

    server.kill();
    drift_and_repair(&envoy, "without the server");
    server.start();
    wait_until("the delivery afterwards", || (n_changed(&server) == 3).then_some(()));
    assert_eq!(years(&server), [year]);

    envoy.stop();
    envoy.start();
    converges_and_delivers(&server, &envoy, "after a restart");
    let log = envoy.log();
    assert!(log.contains("the clock of this host is"), "{log}");
    delivered_once(&server);
    envoy.stop();
}

#[test]
fn an_agent_at_1970_enrolls_converges_and_delivers() {
    lives_in_another_time("wall=1970-01-01T00:00:00Z", "1970");
}

#[test]
fn an_agent_at_2100_enrolls_converges_and_delivers() {
    lives_in_another_time("wall=2100-06-01T00:00:00Z", "2100");
}

#[test]
fn a_clock_that_jumps_during_runs_breaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Runs follow one another nearly without a pause: jumps a second and a bit apart fall into them.
    let clock = "jump=3s:1970-01-01T00:00:00Z,jump=4300ms:2100-01-01T00:00:00Z,jump=5600ms:-3650d,jump=7s:+20000d,jump=8300ms:1970-01-01T00:00:00Z,jump=10s:2100-06-01T00:00:00Z";
    let (server, mut envoy) = site(dir.path(), &SLOW_POLICY, "");
    envoy.clock = clock.into();
    envoy.start();
    let jumped = || {
        let seen = years(&server);
        ["1970", "2100"].iter().all(|year| seen.iter().any(|one| one == year)).then_some(())
    };
    wait_until("runs of both ends of time", jumped);
    converges_and_delivers(&server, &envoy, "after all jumps");
    // None of them took the length of a jump: durations are measured by the clock that does not jump.
    let longest = runs(&server).iter().map(|run| run["duration_ms"].as_u64().unwrap()).max();
    assert!(longest < Some(60_000), "{longest:?}");
    let status = envoy.ask(&["status"]);
    assert_eq!((status["trust"].as_str(), status["attempt"].as_u64()), (Some(""), Some(0)), "{status}");
    delivered_once(&server);
    envoy.stop();
}

#[test]
fn a_clock_that_jumps_between_runs_of_the_agent_breaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut envoy) = site(dir.path(), &POLICY, "");
    envoy.start();
    wait_until("the first run", || is_kept(&envoy).then_some(()));
    for (n, clock) in ["wall=2100-01-01T00:00:00Z", "wall=1970-01-01T00:00:00Z", "wall=2100-12-01T00:00:00Z", ""]
        .into_iter()
        .enumerate()
    {
        envoy.stop();
        envoy.clock = clock.into();
        // Every other time it wakes up in another year with nobody to ask.
        if n % 2 == 0 {
            server.stop();
            envoy.start();
            drift_and_repair(&envoy, &format!("offline, clock `{clock}`"));
            let status = envoy.ask(&["status"]);
            assert_eq!(status["last_run"]["error"], "", "{status}");
            server.start();
        } else {
            envoy.start();
        }
        converges_and_delivers(&server, &envoy, &format!("with clock `{clock}`"));
    }
    let seen = years(&server);
    assert!(seen.contains(&"1970".to_string()) && seen.contains(&"2100".to_string()), "{seen:?}");
    delivered_once(&server);
    envoy.stop();
}
