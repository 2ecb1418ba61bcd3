//! The pauses between attempts of a real agent whose server is gone, seen by a listener in the server's place, on a test clock that
//! runs faster.

#![allow(clippy::disallowed_methods, reason = "the pauses of a real process are seen in real time")]

use std::time::{Duration, Instant};

use vigo_e2e::{Deaf, Envoy, LATE, SLACK, Server, check_pause, pause, wait_until};

const NAME: &str = "backoff.example";
const SCALE: u32 = 20;
const NOMINAL_S: [f64; 8] = [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0];
const POLICY: [(&str, &str); 2] = [
    (
        "configcrates/kept.vgo",
        "name: kept\nresources:\n  - {name: kept, type: file, target_path: /kept, content: kept}\n",
    ),
    ("envoys/all.vgo", "envoys:\n  - match: \"*\"\n    configcrates: [kept]\n"),
];

fn check(pause: Duration, nominal_s: f64) {
    check_pause(pause, nominal_s, SCALE);
}

fn site(dir: &std::path::Path, settings: &str) -> (Server, Envoy) {
    let mut server = Server::new(dir, settings, &POLICY);
    server.start();
    let mut envoy = Envoy::new(&dir.join("envoy"));
    envoy.clock = format!("scale={SCALE}");
    // The name that the server advertises: the agent has one address, and a round is one attempt.
    envoy.enroll_at(&format!("localhost:{}", server.port), &server, NAME);
    envoy.start();
    wait_until("the first check-in", || envoy.ask(&["status"])["checked_in_ms_ago"].as_u64());
    (server, envoy)
}

#[test]
fn pauses_double_to_their_ceiling_survive_restarts_and_are_reset_by_success() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut envoy) = site(dir.path(), "checkin: {interval: 10m}");
    server.kill();
    let deaf = Deaf::listen(server.port);
    // The loss of the connection may be a failure of its own, and the listener may miss one: the agent says how many there were.
    let mut last = deaf.next();
    // That call has failed, and is counted, well before the next one.
    pause(Duration::from_millis(100));
    let mut n_failed = wait_until("the failure", || envoy.ask(&["status"])["attempt"].as_u64().filter(|n| *n > 0));
    assert!((1..4).contains(&n_failed), "{n_failed}");
    while n_failed < 4 {
        let next = deaf.next();
        check(next - last, NOMINAL_S[n_failed as usize - 1]);
        (last, n_failed) = (next, n_failed + 1);
    }
    // Killed in the middle, and stopped in the middle: it goes on where it was.
    wait_until("the fourth failure", || (envoy.ask(&["status"])["attempt"] == 4).then_some(()));
    // It is written down after it is known: a third of the pause is enough for a busy disk.
    pause(Duration::from_millis(700));
    envoy.kill();
    let started = Instant::now();
    envoy.start();
    // What is left of a pause is not known after a restart: the whole of it, without jitter.
    let again = deaf.next();
    check(again - started, NOMINAL_S[3]);
    let mut pauses = deaf.pauses(again, 2);
    envoy.stop();
    let started = Instant::now();
    envoy.start();
    let again = deaf.next();
    check(again - started, NOMINAL_S[6]);
    pauses.extend(deaf.pauses(again, 2));
    for (pause, nominal) in pauses.into_iter().zip([NOMINAL_S[4], NOMINAL_S[5], NOMINAL_S[7], NOMINAL_S[7]]) {
        check(pause, nominal);
    }

    // The server is back: one success, and the next loss begins with the shortest pause.
    drop(deaf);
    server.start();
    wait_until("the agent to find the server", || (envoy.ask(&["status"])["attempt"] == 0).then_some(()));
    server.kill();
    let deaf = Deaf::listen(server.port);
    let first = deaf.next();
    let second = deaf.next();
    let most = Duration::from_secs_f64(NOMINAL_S[2] * 1.2 / f64::from(SCALE)) + LATE;
    assert!(second - first <= most, "{:?}: not from the beginning", second - first);
    drop(deaf);
    let log = envoy.log();
    assert_eq!(log.matches("server lost").count(), 4, "one line for each loss and each start without a server: {log}");
    assert_eq!(log.matches("is back after").count(), 1, "{log}");
    envoy.stop();
}

#[test]
fn the_slot_of_an_overloaded_server_wins_over_backoff_and_interval() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut envoy) = site(dir.path(), "checkin: {interval: 1s}\nlimits: {checkins_per_second: 1}");
    // It is in backoff when the server comes back.
    server.kill();
    wait_until("a few failures", || (envoy.ask(&["status"])["attempt"].as_u64() >= Some(3)).then_some(()));
    server.start();
    // A second agent whose clock is so fast that the server promises slots far ahead.
    let mut greedy = Envoy::new(&dir.path().join("greedy"));
    greedy.clock = "scale=2000".into();
    greedy.enroll(&server, "greedy.example");
    greedy.start();
    // Further away than interval and backoff could be: a slot.
    let slot_ms = wait_until("a slot", || {
        let status = envoy.ask(&["status"]);
        assert_ne!(status["connection"], "refused", "{status}");
        status["next_check_in_ms"].as_u64().filter(|ms| *ms > 30_000 && status["attempt"] == 0)
    });
    let from = Instant::now();
    greedy.kill();
    let checked_in = || envoy.ask(&["status"])["checked_in_ms_ago"].as_u64();
    let early = Duration::from_millis(slot_ms / u64::from(SCALE)) / 2;
    wait_until("half of the slot to pass", || {
        let age = checked_in().unwrap();
        assert!(age + 1_000 >= from.elapsed().as_millis() as u64 * u64::from(SCALE), "it did not wait: {age} ms ago");
        (from.elapsed() >= early).then_some(())
    });
    let waited = wait_until("the appointment", || {
        let age = checked_in().unwrap();
        (age < slot_ms / 2).then(|| from.elapsed() - Duration::from_millis(age / u64::from(SCALE)))
    });
    let promised = Duration::from_millis(slot_ms / u64::from(SCALE));
    assert!(waited + SLACK >= promised && waited <= promised + LATE, "{waited:?} for a slot in {promised:?}");
    envoy.stop();
}
