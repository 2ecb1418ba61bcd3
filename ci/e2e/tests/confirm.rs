//! A change that may lock out is put back unless a check-in is answered after it: a real agent, and a server that goes away.

use std::fs;

use vigo_e2e::{Envoy, enrolled, mapping, wait_until};

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

fn content(envoy: &Envoy) -> String {
    fs::read_to_string(envoy.path("/conf")).unwrap_or_default()
}

#[test]
fn a_change_after_which_no_server_answers_is_rolled_back_and_one_that_is_confirmed_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut server, mut envoy) = enrolled(dir.path(), CRATE, &mapping("one"));
    envoy.start();
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

#[test]
fn one_run_waits_for_the_answer_and_exits_with_8_where_it_was_rolled_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut server, envoy) = enrolled(dir.path(), CRATE, &mapping("one"));
    let once = || envoy.command(&["run", "--once", "--detailed-exitcodes"]);
    assert_eq!(once().status().expect("vigo-envoy starts").code(), Some(2));
    assert_eq!(content(&envoy), "one\n");
    fs::write(envoy.path("/hold"), "").expect("a file");
    server.publish(&[("envoys/all.vgo", &mapping("two"))]);
    let mut run = once().spawn().expect("vigo-envoy starts");
    wait_until("the change", || (content(&envoy) == "two\n").then_some(()));
    server.stop();
    fs::write(envoy.path("/go"), "").expect("a file");
    assert_eq!(run.wait().expect("it ends").code(), Some(8));
    assert_eq!(content(&envoy), "one\n");
}

#[test]
fn a_configuration_that_the_agent_cannot_read_is_put_back_and_a_good_one_is_obeyed() {
    let dir = tempfile::tempdir().expect("a folder");
    let policy = |more: &str| {
        format!(
            "name: web\nresources:\n  - name: conf\n    type: file\n    target_path: /etc/envoy.yaml\n    confirm: 5s\n    content: \
             |\n      state_dir: state\n      identity_dir: identity\n      sysroot: root\n      test_clock: allow\n      \
             allow_self: true\n      {more}\n"
        )
    };
    let (mut server, envoy) = enrolled(dir.path(), &policy("rebootstrap: allow"), &mapping("x"));
    // Where the policy of a host finds it, and the agent too.
    let (outside, inside) = (envoy.dir.join("envoy.yaml"), envoy.path("/etc/envoy.yaml"));
    fs::create_dir_all(envoy.path("/etc")).expect("a folder");
    let first = fs::read_to_string(&outside).expect("a configuration") + "allow_self: true\n";
    fs::write(&inside, &first).expect("it is written");
    fs::remove_file(&outside).expect("it is removed");
    std::os::unix::fs::symlink("root/etc/envoy.yaml", &outside).expect("a link");
    let run = || {
        let answer = envoy.ask(&["run", "--once"]);
        let found = &answer["resources"][0];
        format!("{}: {}", found["outcome"], found["message"])
    };
    let kept = || fs::read_to_string(&inside).expect("a configuration");
    let said = run();
    assert!(said.starts_with("\"changed\"") && kept().contains("rebootstrap: allow"), "{said}");
    let good = kept();
    server.publish(&[("configcrates/web.vgo", &policy("rebootstrop: deny"))]);
    let said = run();
    assert!(said.contains("rolled back: the agent cannot read its new configuration"), "{said}");
    assert!(said.contains("rebootstrop"), "{said}");
    assert_eq!(kept(), good);
    let said = run();
    assert!(said.contains("it was rolled back before"), "{said}");
    server.stop();
}
