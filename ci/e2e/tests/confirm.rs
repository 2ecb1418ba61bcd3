//! A change that may lock out is put back unless a check-in is answered after it: a real agent, and a server that goes away.

use std::fs;

use vigo_e2e::{Envoy, Server, wait_until};

/// The second resource holds the run until the test has done its part.
const CRATE: &str = r#"
name: web
resources:
  - name: conf
    type: file
    target_path: /conf
    content: "{{ vars.content }}\n"
    confirm: 4s
  - name: gate
    type: exec
    command: "n=0; while [ ! -e \"$VIGO_SYSROOT/go\" ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n+1)); done"
    onlyif: "test -e \"$VIGO_SYSROOT/hold\""
    depends_on: [conf]
"#;

fn mapping(content: &str) -> String {
    format!("envoys:\n  - match: \"*\"\n    configcrates: [web]\n    vars: {{content: {content}}}\n")
}

#[test]
fn a_change_after_which_no_server_answers_is_rolled_back_and_one_that_is_confirmed_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = mapping("one");
    let policy = [("configcrates/web.vgo", CRATE), ("envoys/all.vgo", first.as_str())];
    let mut server = Server::new(dir.path(), "checkin:\n  interval: 1s", &policy);
    server.start();
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "web-1");
    envoy.start();
    let content = |envoy: &Envoy| fs::read_to_string(envoy.path("/conf")).unwrap_or_default();
    let nothing_kept = |envoy: &Envoy| {
        let all = fs::read_dir(envoy.dir.join("state/undo"))
            .map_or(0, |all| all.flatten().filter(|entry| entry.file_name() != "refused").count());
        all == 0
    };
    wait_until("the first change to be confirmed", || {
        (content(&envoy) == "one\n" && nothing_kept(&envoy)).then_some(())
    });

    fs::write(envoy.path("/hold"), "").expect("a file");
    server.publish(&[("envoys/all.vgo", &mapping("two"))]);
    wait_until("the second change", || (content(&envoy) == "two\n").then_some(()));
    server.stop();
    fs::write(envoy.path("/go"), "").expect("a file");
    wait_until("what was there before", || (content(&envoy) == "one\n").then_some(()));

    server.start();
    let answer = wait_until("an agent that refuses to try again", || {
        let answer = envoy.ask(&["run", "--once"]);
        let message = answer["resources"][0]["message"].as_str().unwrap_or_default().to_string();
        message.contains("rolled back").then_some(answer)
    });
    assert_eq!(answer["resources"][0]["outcome"], "failed", "{answer}");
    assert_eq!(content(&envoy), "one\n");

    server.publish(&[("envoys/all.vgo", &mapping("three"))]);
    wait_until("the third change to be confirmed", || {
        (content(&envoy) == "three\n" && nothing_kept(&envoy)).then_some(())
    });
    envoy.stop();
    server.stop();
    assert_eq!(content(&envoy), "three\n");
}
