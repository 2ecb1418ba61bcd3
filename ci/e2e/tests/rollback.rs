//! What a publish would do is shown before, per envoy and with its own traits; a rollback takes it back on the hosts.

use std::fs;

use vigo_e2e::{Envoy, Server, wait_until};

const CRATE: &str = r#"
name: web
vars: {greeting: hello}
resources:
  - name: conf
    type: file
    target_path: /conf
    content: "{{ vars.greeting }} {{ envoy.hostname }} {{ traits.os.family }}\n"
  - name: elsewhere
    type: exec
    command: "true"
    when: "traits.os.family == 'plan9'"
"#;

const MAPPING: &str = "envoys:\n  - match: [\"web-*\", \"db-*\"]\n    configcrates: [web]\n";

#[test]
fn a_diff_is_shown_before_a_publish_and_a_rollback_takes_it_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let policy = [("configcrates/web.vgo", CRATE), ("envoys/all.vgo", MAPPING)];
    let mut server = Server::new(dir.path(), "checkin:\n  interval: 1s", &policy);
    server.start();
    let mut envoys: Vec<Envoy> = ["web-1", "db-1"]
        .into_iter()
        .map(|name| {
            let envoy = Envoy::new(&dir.path().join(name));
            envoy.enroll(&server, name);
            envoy
        })
        .collect();
    envoys.iter_mut().for_each(Envoy::start);
    let says = |envoy: &Envoy, what: &str| {
        let text = fs::read_to_string(envoy.path("/conf")).unwrap_or_default();
        text.starts_with(what).then_some(text)
    };
    let first = wait_until("the first policy", || says(&envoys[0], "hello web-1 "));
    wait_until("the first policy", || says(&envoys[1], "hello db-1 "));
    wait_until("the traits of both", || {
        // Some come with the first report, and the others with the next one.
        let known = |name: &str| server.cli(&["traits", name])["os"]["family"].is_string();
        (known("web-1") && known("db-1")).then_some(())
    });

    // Only the web servers, and only where it matters to them.
    let other = format!("{MAPPING}    vars: {{greeting: hello}}\n").replace("[\"web-*\", \"db-*\"]", "\"db-*\"");
    let web = "envoys:\n  - match: \"web-*\"\n    configcrates: [web]\n    vars: {greeting: howdy}\n";
    fs::write(server.root.join("stacks/envoys/all.vgo"), other).expect("it is written");
    fs::write(server.root.join("stacks/envoys/a.vgo"), web).expect("it is written");
    let diff = server.cli(&["config", "diff"]);
    let changes = diff["changes"].as_array().expect("a list");
    let of = |name: &str| {
        let found = changes.iter().find(|change| change["names"][0] == name).expect("it is in a group");
        found["diff"].as_str().unwrap_or_default().to_string()
    };
    assert_eq!((&diff["envoys"], changes.len()), (&serde_json::json!(2), 2), "{diff}");
    assert!(of("web-1").contains(&first.replace("hello", "howdy")), "rendered with its own traits: {}", of("web-1"));
    assert!(!of("web-1").contains("elsewhere"), "what the host skips is not shown: {}", of("web-1"));
    assert!(of("db-1").starts_with("~ a new bundle that asks for nothing else"), "{}", of("db-1"));
    assert_eq!(says(&envoys[0], "hello"), Some(first.clone()), "a diff changes nothing");

    server.publish(&[]);
    wait_until("the new policy", || says(&envoys[0], "howdy web-1 "));
    server.cli(&["config", "rollback", "--message", "too casual"]);
    wait_until("the old policy", || says(&envoys[0], "hello web-1 "));
    let history = server.cli(&["config", "history"]);
    assert_eq!(history["publishes"][0]["message"], "too casual");
    assert_eq!(history["publishes"][0]["tree"], history["publishes"][2]["tree"]);
    let trace = server.cli(&["config", "trace", "web-1"]);
    assert_eq!(trace["vars"][0]["source"], "envoys/a.vgo:4:12 (mapping)", "{trace}");

    // The same with no server, and the hosts follow when it is back.
    server.stop();
    server.cli(&["config", "rollback"]);
    server.start();
    wait_until("the new policy again", || says(&envoys[0], "howdy web-1 "));
    envoys.iter_mut().for_each(Envoy::stop);
    server.stop();
}
