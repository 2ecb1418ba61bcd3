//! Real agents of every architecture against a native server: what an agent promises holds on each.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use vigo_arch_tests::{Target, native_server, targets};
use vigo_e2e::{
    Account, Deaf, Envoy, KEPT, MAPPINGS, Server, account, mappings, read_ledger, stored_records, wait_for, wait_until,
};

/// Each scenario on each architecture is a test of its own.
macro_rules! on_every_target {
    ($($module:ident = $short:literal,)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn an_agent_enrolls_converges_and_then_changes_nothing() {
                converges(&target($short));
            }

            #[test]
            fn an_agent_goes_on_from_its_cache_without_the_server_and_delivers_once() {
                lives_without_its_server(&target($short));
            }

            #[test]
            fn pauses_between_attempts_double_to_their_ceiling() {
                backs_off(&target($short));
            }

            #[test]
            fn a_damaged_cache_is_refused_reported_and_replaced() {
                refuses_a_damaged_cache(&target($short));
            }

            #[test]
            fn an_agent_lives_after_2038() {
                lives_in_2040(&target($short));
            }
        }
    )*};
}

on_every_target! {
    x86_64 = "x86_64",
    aarch64 = "aarch64",
    armv7 = "armv7",
    riscv64 = "riscv64gc",
    s390x = "s390x",
}

const NAME: &str = "arch.example";
const CRATE: &str = r#"name: ledger
resources:
  - {name: ledger, type: exec, command: 'echo "$VIGO_RUN_ID $PPID" >> ledger'}
  - {name: fact, type: file, target_path: /fact, content: "{{ traits.site.number }}\n"}
"#;
const MAPPING: &str = "envoys:\n  - {match: '*', configcrates: [ledger, kept], vars: {content: one}}\n";

fn target(short: &str) -> Target {
    targets().into_iter().find(|target| target.short() == short).expect("it is in the list")
}

#[test]
fn every_target_has_its_scenarios() {
    let tested = ["x86_64", "aarch64", "armv7", "riscv64gc", "s390x"];
    assert_eq!(targets().iter().map(|target| target.short().to_string()).collect::<Vec<_>>(), tested);
}

/// A server of this build that serves this policy, and an agent of that architecture enrolled with it.
fn site(dir: &Path, target: &Target, settings: &str, policy: &[(&str, &str)]) -> (Server, Envoy) {
    let mut server = Server::with_program(dir, settings, policy, native_server());
    server.start();
    let envoy = Envoy::with_program(&dir.join("envoy"), target.binary("vigo-envoy"));
    // The name that the server advertises: the agent has one address, and a round is one attempt.
    envoy.enroll_at(&format!("localhost:{}", server.port), &server, NAME);
    (server, envoy)
}

fn kept(content: &str) -> String {
    mappings(&[("*", content)])
}

fn converges(target: &Target) {
    let dir = tempfile::tempdir().unwrap();
    let (server, envoy) = site(dir.path(), target, "checkin: {interval: 1s}", &[KEPT, (MAPPINGS, &kept("one"))]);
    let run = || envoy.command(&["run", "--once", "--detailed-exitcodes"]).output().expect("vigo-envoy starts");
    let first = run();
    assert_eq!(first.status.code(), Some(2), "{}", String::from_utf8_lossy(&first.stderr));
    envoy.keeps("one");
    assert_eq!(run().status.code(), Some(0), "the second run changes nothing");
    let list = server.cli(&["envoys", "list"]);
    let row = list["envoys"].as_array().and_then(|rows| rows.first()).cloned().unwrap_or_default();
    assert_eq!(row["hostname"], NAME, "{list}");
    assert_eq!(row["status"], "converged", "{list}");
}

/// A trait that the test chooses.
fn say_number(envoy: &Envoy, number: u32) {
    let folder = envoy.dir.join("traits.d");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("site.sh");
    fs::write(&program, format!("#!/bin/sh\necho '{{\"number\": {number}}}'\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

fn knows_number(envoy: &Envoy, number: u32) {
    wait_for(&format!("trait {number}"), || match fs::read_to_string(envoy.path("fact")) {
        Ok(text) if text == format!("{number}\n") => Ok(()),
        found => Err(format!("{found:?}: {}", envoy.log())),
    });
}

fn queued(envoy: &Envoy) -> u64 {
    let queue = envoy.ask(&["queue"]);
    (0..2).filter_map(|lane| queue["lanes"][lane]["records"].as_u64()).sum()
}

fn lives_without_its_server(target: &Target) {
    let dir = tempfile::tempdir().unwrap();
    let policy = [("configcrates/ledger.vgo", CRATE), KEPT, (MAPPINGS, MAPPING)];
    let (mut server, mut envoy) = site(dir.path(), target, "checkin: {interval: 1s}", &policy);
    let config = envoy.dir.join("envoy.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}traits_dir: traits.d\n")).unwrap();
    say_number(&envoy, 1);
    let mut killed = BTreeSet::new();
    let lines = |envoy: &Envoy| read_ledger(&envoy.path("ledger")).len();
    let runs = |envoy: &Envoy, n: usize| {
        let before = lines(envoy);
        wait_until("runs", || (lines(envoy) >= before + n).then_some(()));
    };
    envoy.start();
    envoy.keeps("one");
    knows_number(&envoy, 1);

    server.kill();
    envoy.repairs("one");
    say_number(&envoy, 2);
    knows_number(&envoy, 2);
    let before = queued(&envoy);
    runs(&envoy, 2);
    wait_until("the queue to grow", || (queued(&envoy) > before).then_some(()));
    // Without a server it starts from what it has: after an end, and after a death.
    envoy.stop();
    envoy.start();
    envoy.repairs("one");
    killed.insert(envoy.id());
    envoy.kill();
    envoy.start();
    envoy.repairs("one");
    runs(&envoy, 1);
    let required = lines(&envoy);

    server.start();
    let database = server.root.join("db/vigo.db");
    let reading = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let arrived = |required: usize| -> Result<Account, String> {
        account(&read_ledger(&envoy.path("ledger")), &stored_records(&reading, NAME), required, &killed)
    };
    let found = wait_for("every run to arrive", || arrived(required).map_err(|why| format!("{why}: {}", envoy.log())));
    assert_eq!(found.lost, 0);
    envoy.stop();
    let found = account(&read_ledger(&envoy.path("ledger")), &stored_records(&reading, NAME), required, &killed);
    assert_eq!(found.map(|found| found.lost), Ok(0));
}

fn backs_off(target: &Target) {
    const SCALE: u32 = 50;
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut envoy) =
        site(dir.path(), target, "checkin: {interval: 10m}", &[KEPT, (MAPPINGS, &kept("one"))]);
    envoy.clock = format!("scale={SCALE}");
    envoy.start();
    wait_until("the first check-in", || envoy.ask(&["status"])["checked_in_ms_ago"].as_u64());
    server.kill();
    let deaf = Deaf::listen(server.port);
    let first = deaf.next();
    let pauses = deaf.pauses(first, 8);
    // The loss of the connection may be a failure of its own, and the listener may miss one: the first pause that is seen is one of
    // the first three.
    let nominal_s = [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0];
    let fits = |(pause, nominal_s): (&Duration, &f64)| vigo_e2e::pause_fits(*pause, *nominal_s, SCALE);
    assert!((0..3).any(|skipped| pauses.iter().zip(&nominal_s[skipped..]).all(fits)), "{pauses:?}");
    drop(deaf);
    server.start();
    wait_until("the agent to find the server", || (envoy.ask(&["status"])["attempt"] == 0).then_some(()));
}

fn refuses_a_damaged_cache(target: &Target) {
    let dir = tempfile::tempdir().unwrap();
    let content = format!("one-{}", "x".repeat(40));
    let (mut server, mut envoy) =
        site(dir.path(), target, "checkin: {interval: 1s}", &[KEPT, (MAPPINGS, &kept(&content))]);
    envoy.start();
    envoy.keeps(&content);
    envoy.stop();
    server.stop();
    let store = envoy.dir.join("state/data.mdb");
    let mut bytes = fs::read(&store).unwrap();
    let at: Vec<usize> =
        (0..bytes.len() - content.len()).filter(|at| bytes[*at..].starts_with(content.as_bytes())).collect();
    assert!(!at.is_empty(), "the policy is in the store as text");
    at.into_iter().for_each(|at| bytes[at] ^= 1);
    fs::write(&store, bytes).unwrap();
    fs::write(envoy.path("kept"), "by hand").unwrap();

    envoy.start();
    wait_for("a look at the policy", || {
        let status = envoy.ask(&["status"]);
        (status["policy"].is_null() && status["next_run_ms"].is_u64()).then_some(()).ok_or_else(|| status.to_string())
    });
    assert_eq!(fs::read_to_string(envoy.path("kept")).unwrap(), "by hand", "nothing of it is applied");
    assert!(envoy.log().contains("the checksum of its payload does not hold"), "{}", envoy.log());
    server.start();
    envoy.keeps(&content);
    wait_for("the incident at the server", || {
        let runs = server.cli(&["runs", NAME, "--limit", "1000"]);
        let told = runs["runs"].as_array().is_some_and(|list| list.iter().any(|run| run["kind"] == "incident"));
        told.then_some(()).ok_or_else(|| runs.to_string())
    });
}

fn lives_in_2040(target: &Target) {
    let dir = tempfile::tempdir().unwrap();
    let mut server =
        Server::with_program(dir.path(), "checkin: {interval: 1s}", &[KEPT, (MAPPINGS, &kept("one"))], native_server());
    server.start();
    let mut envoy = Envoy::with_program(&dir.path().join("envoy"), target.binary("vigo-envoy"));
    envoy.clock = "wall=2040-06-01T00:00:00Z".into();
    envoy.enroll(&server, NAME);
    envoy.start();
    envoy.keeps("one");
    server.kill();
    // A file with a time beyond 32 bits is seen and put right like any other.
    fs::write(envoy.path("kept"), "broken").unwrap();
    let late = std::time::UNIX_EPOCH + std::time::Duration::from_secs(2_222_000_000);
    let times = fs::FileTimes::new().set_modified(late);
    fs::File::options().write(true).open(envoy.path("kept")).unwrap().set_times(times).unwrap();
    envoy.keeps("one");
    envoy.stop();
    envoy.start();
    envoy.repairs("one");
    server.start();
    let started = wait_until("the runs to arrive", || {
        let runs = server.cli(&["runs", NAME, "--limit", "100"])["runs"].as_array().cloned().unwrap_or_default();
        let changed: Vec<&Value> = runs.iter().filter(|run| run["changed"].as_u64() > Some(0)).collect();
        (changed.len() >= 3).then(|| changed.iter().map(|run| run["started"].to_string()).collect::<Vec<_>>())
    });
    assert!(started.iter().all(|text| text.starts_with("\"2040-")), "{started:?}");
}
