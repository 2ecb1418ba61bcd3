//! A notification outlives the agent that is killed between the change and the action: a real agent, really killed.

use std::fs;

use vigo_e2e::{Envoy, enrolled, mapping, wait_until};

/// Kills its agent once, between the change and the refresh.
const CRATE: &str = r#"
name: web
resources:
  - name: conf
    type: file
    target_path: /conf
    content: "{{ vars.content }}\n"
    notify: [refresh]
  - name: killer
    type: exec
    command: "touch \"$VIGO_SYSROOT/killed\"; kill -9 $PPID; sleep 30"
    onlyif: "test -e \"$VIGO_SYSROOT/deadly\" -a ! -e \"$VIGO_SYSROOT/killed\""
    depends_on: [conf]
  - name: refresh
    type: exec
    command: "echo refreshed >> \"$VIGO_SYSROOT/ledger\""
    onlyif: "false"
    depends_on: [killer]
"#;

#[test]
fn a_refresh_that_was_pending_when_the_agent_was_killed_is_done_by_the_next_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut server, mut envoy) = enrolled(dir.path(), CRATE, &mapping("one"));
    envoy.start();
    let refreshes = |envoy: &Envoy| fs::read_to_string(envoy.path("/ledger")).unwrap_or_default().lines().count();
    wait_until("the first refresh", || (refreshes(&envoy) == 1).then_some(()));

    fs::write(envoy.path("/deadly"), "").expect("a file");
    let second = mapping("two");
    server.publish(&[("envoys/all.vgo", &second)]);
    wait_until("the agent to be killed", || envoy.path("/killed").exists().then_some(()));
    assert_eq!(fs::read_to_string(envoy.path("/conf")).expect("it is there"), "two\n", "the change was made");
    assert_eq!(refreshes(&envoy), 1, "and the refresh was not");

    envoy.kill();
    envoy.start();
    wait_until("the second refresh", || (refreshes(&envoy) == 2).then_some(()));
    envoy.stop();
    assert_eq!(refreshes(&envoy), 2, "once");
    server.stop();
}
