//! Pushes: an agent that would check in once an hour hears of new policy, and of the operator's word, at once; also after its
//! server died, and after it went in good order.

use std::time::Duration;

use serde_json::Value;
use vigo_e2e::{Envoy, KEPT, MAPPINGS, Server, mappings, timed, wait_until};

const NAME: &str = "pushed.example";
/// A push is promised within a second; the machine may be busy.
const SOON: Duration = Duration::from_secs(5);

fn scene(dir: &std::path::Path, hold: &str) -> (Server, Envoy) {
    let settings = format!("checkin: {{interval: 1h, hold: {hold}}}");
    let mut server = Server::new(dir, &settings, &[KEPT, (MAPPINGS, &mappings(&[("*", "one")]))]);
    server.start();
    let mut envoy = Envoy::new(&dir.join("envoy"));
    envoy.enroll(&server, NAME);
    // Ten times as fast: the first check-in is spread over ten seconds, the first pause of a lost server is five.
    envoy.clock = "scale=10".into();
    envoy.start();
    envoy.keeps("one");
    (server, envoy)
}

fn is_connected(envoy: &Envoy) {
    wait_until("a held connection", || {
        let status = envoy.ask(&["status"]);
        status["connection"].as_str().is_some_and(|text| text.starts_with("connected")).then_some(())
    });
}

fn publishes(server: &Server, envoy: &Envoy, content: &str) {
    server.publish(&[(MAPPINGS, &mappings(&[("*", content)]))]);
    let ((), took) = timed(|| envoy.keeps(content));
    println!("`{content}`: {took:?} from the answer of `config publish` to the file");
    assert!(took < SOON, "{took:?}: {}", envoy.log());
}

fn pushes(server: &Server, envoy: &Envoy) {
    let checked_in = || envoy.ask(&["status"])["checked_in_at"].clone();
    let before = checked_in();
    let answer = server.cli(&["envoys", "push", NAME]);
    assert_eq!((&answer["reached"], &answer["later"]), (&Value::from(1), &Value::from(0)), "{answer}");
    let ((), took) = timed(|| wait_until("a check-in", || (checked_in() != before).then_some(())));
    assert!(took < SOON, "{took:?}: {}", envoy.log());
}

#[test]
fn a_push_reaches_a_watching_agent_at_once_and_again_after_its_server_was_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, envoy) = scene(dir.path(), "always");
    is_connected(&envoy);
    publishes(&server, &envoy, "two");
    pushes(&server, &envoy);

    server.kill();
    // What is published meanwhile waits for the agent.
    server.publish(&[(MAPPINGS, &mappings(&[("*", "three")]))]);
    server.start();
    envoy.keeps("three");
    is_connected(&envoy);
    publishes(&server, &envoy, "four");
    pushes(&server, &envoy);

    server.stop();
    server.start();
    is_connected(&envoy);
    publishes(&server, &envoy, "five");
    assert_eq!(server.cli(&["envoys", "push", "--all"])["reached"], 1);
}

#[test]
fn a_push_to_an_agent_that_polls_waits_for_its_next_contact() {
    let dir = tempfile::tempdir().unwrap();
    let (server, envoy) = scene(dir.path(), "never");
    wait_until("the end of the connection", || (envoy.ask(&["status"])["connection"] == "polled").then_some(()));
    let answer = server.cli(&["envoys", "push", NAME]);
    assert_eq!((&answer["reached"], &answer["later"]), (&Value::from(0), &Value::from(1)), "{answer}");
    server.publish(&[(MAPPINGS, &mappings(&[("*", "two")]))]);
    // Somebody on the host who asks is such a contact.
    let run = envoy.ask(&["run", "--once"]);
    assert_eq!(run["source"], "live", "{run}");
    envoy.keeps("two");
}
