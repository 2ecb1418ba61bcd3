//! Cases of `custom`: programs that keep the protocol, and programs that do not.

use std::collections::BTreeMap;
use std::fs;

use common::bundle::{Resource, Value};
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, is_root, resource, set_mode, text};
use super::suite::{refused, settles};

fn program(sandbox: &Sandbox, script: &str) {
    let root = sandbox.dir.path().display().to_string();
    sandbox.write(
        "/lib/own",
        &format!("#!/bin/sh\nR={root}\nread -r question\nprintf '%s\\n' \"$question\" >> $R/asked\n{script}\n"),
    );
    set_mode(&sandbox.at("/lib/own"), 0o755);
}

/// Keeps the file `/d/state` equal to what the input says.
const KEEPER: &str = r#"
want=$(echo "$question" | sed 's/.*"value":"\([^"]*\)".*/\1/')
have=$(cat $R/d/state 2>/dev/null)
case $question in
*'"action":"apply"'*) printf %s "$want" > $R/d/state; echo '{"status":"ok"}';;
*) if [ "$have" = "$want" ]; then echo '{"status":"ok","more":[1]}'
   else printf '{"status":"differs","message":"has %s","diff":"-%s\\n+%s\\n"}\n' "$have" "$have" "$want"; fi;;
esac"#;

fn asked(more: &[(&'static str, Value)]) -> Params {
    let input = Value::Map(BTreeMap::from([("value".to_string(), text("blue"))]));
    [("program", text("/lib/own")), ("input", input)].into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn a_program_that_keeps_the_protocol_is_an_executor() {
    let sandbox = Sandbox::new();
    program(&sandbox, KEEPER);
    sandbox.write("/d/state", "red");
    let report = sandbox.look("custom", &asked(&[]));
    assert_eq!((report.message.as_str(), report.diff.as_str()), ("would change: has red", "-red\n+blue"));
    assert_eq!(sandbox.read("/d/state"), "red");
    let report = sandbox.expect("custom", &asked(&[]), Changed);
    assert_eq!(report.message, "changed: has red");
    assert_eq!(sandbox.read("/d/state"), "blue");
    fs::remove_file(sandbox.at("/asked")).unwrap();
    sandbox.expect("custom", &asked(&[]), Fine);
    let root = sandbox.dir.path().canonicalize().unwrap().display().to_string();
    let expected = format!(
        "{{\"action\":\"check\",\"input\":{{\"value\":\"blue\"}},\"notified\":false,\"protocol\":1,\"resource\":\"r\",\
         \"sysroot\":\"{root}\"}}\n"
    );
    assert_eq!(sandbox.read("/asked"), expected);
}

#[test]
fn a_dry_run_only_checks() {
    let sandbox = Sandbox::new();
    program(&sandbox, KEEPER);
    sandbox.look("custom", &asked(&[]));
    assert!(!sandbox.read("/asked").contains("apply"));
    assert!(!sandbox.at("/d/state").exists());
}

#[test]
fn every_kind_of_value_arrives() {
    let sandbox = Sandbox::new();
    program(&sandbox, "echo '{\"status\":\"ok\"}'");
    let list = Value::List(vec![Value::Int(-1), Value::Bool(true), Value::Null, Value::Float(0.5), text("ä\"\n")]);
    let input = Value::Map(BTreeMap::from([("a b".to_string(), list)]));
    sandbox.expect("custom", &vec![("program", text("/lib/own")), ("input", input)], Fine);
    assert!(
        sandbox.read("/asked").contains(r#""input":{"a b":[-1,true,null,0.5,"ä\"\n"]}"#),
        "{}",
        sandbox.read("/asked")
    );
}

#[test]
fn surroundings_are_as_asked() {
    let sandbox = Sandbox::new();
    program(&sandbox, "echo \"$1,$2 $COLOUR $(pwd) $VIGO_RUN_ID\" > $R/seen; echo '{\"status\":\"ok\"}'");
    let environment = Value::Map(BTreeMap::from([("COLOUR".to_string(), text("red"))]));
    let args = Value::List(vec![text("a b"), text("$HOME")]);
    sandbox.expect("custom", &asked(&[("args", args), ("environment", environment), ("cwd", text("/d"))]), Fine);
    let root = sandbox.dir.path().canonicalize().unwrap().display().to_string();
    assert_eq!(sandbox.read("/seen"), format!("a b,$HOME red {root}/d 07070707-0707-0707-0707-070707070707\n"));
}

#[test]
fn answers_that_keep_no_protocol_fail_with_what_was_said() {
    let sandbox = Sandbox::new();
    for (script, expected) in [
        ("echo done", "the answer of /lib/own to `check` is not one JSON object:\ndone"),
        ("true", "is not one JSON object"),
        ("echo '[]'", "is not one JSON object"),
        ("echo '{\"status\":\"ok\"} {}'", "is not one JSON object"),
        ("echo '{\"status\":\"fine\"}'", "no `status` of ok, differs, failed or blocked"),
        ("echo '{}'", "no `status` of ok"),
        ("echo '{\"status\":\"ok\",\"message\":7}'", "has a `message` that is no text"),
        ("printf '\\377\\376'", "is not one JSON object"),
        ("echo '{\"status\":\"failed\",\"message\":\"no such zone\"}'", "no such zone"),
        ("echo '{\"status\":\"failed\"}'", "the program gave no reason"),
        ("echo trouble >&2; exit 3", "`/lib/own` exited with 3:\ntrouble"),
        ("kill -9 $$", "was ended by signal 9"),
    ] {
        program(&sandbox, script);
        let report = sandbox.expect("custom", &asked(&[]), Failed);
        assert!(report.message.contains(expected), "{script}: {}", report.message);
    }
}

#[test]
fn endless_answers_and_hanging_programs_are_ended() {
    let sandbox = Sandbox::new();
    program(&sandbox, "while :; do echo '{\"status\":\"ok\"}'; done");
    let params = asked(&[]);
    let slow = || Resource { timeout_ms: 400, ..resource("r", "custom", &params) };
    let report = sandbox.run_all(vec![slow()]).resources.remove(0);
    assert_eq!(report.outcome, Failed);
    assert!(report.message.contains("took longer than the timeout"), "{}", report.message);
    program(&sandbox, "sleep 60 & wait");
    let report = sandbox.run_all(vec![slow()]).resources.remove(0);
    assert!(report.message.contains("took longer than the timeout"), "{}", report.message);
    program(&sandbox, "head -c 200000 /dev/zero | tr '\\0' x; echo '{\"status\":\"ok\"}'");
    let report = sandbox.expect("custom", &asked(&[]), Failed);
    assert!(report.message.contains("is not one JSON object"), "{}", report.message);
}

#[test]
fn what_blocks_a_program_blocks_the_resource() {
    let sandbox = Sandbox::new();
    program(&sandbox, "echo '{\"status\":\"blocked\",\"message\":\"the API is down\"}'");
    assert_eq!(sandbox.expect("custom", &asked(&[]), Blocked).message, "the API is down");
    program(&sandbox, "echo 'No space left on device' >&2; exit 1");
    sandbox.expect("custom", &asked(&[]), Blocked);
}

#[test]
fn a_program_that_says_it_applied_is_asked_again() {
    let sandbox = Sandbox::new();
    program(
        &sandbox,
        "case $question in *apply*) echo '{\"status\":\"ok\"}';; *) echo '{\"status\":\"differs\",\"message\":\"x\"}';; esac",
    );
    let report = sandbox.expect("custom", &asked(&[]), Failed);
    assert_eq!(report.message, "it still differs after it was changed: x");
    program(&sandbox, "echo '{\"status\":\"differs\",\"message\":\"y\"}'");
    let report = sandbox.expect("custom", &asked(&[]), Failed);
    assert_eq!(report.message, "/lib/own could not apply it: y");
}

#[test]
fn a_notification_is_told_once() {
    let sandbox = Sandbox::new();
    program(
        &sandbox,
        "case $question in *'\"notified\":true'*check* | *check*'\"notified\":true'*) echo '{\"status\":\"differs\"}';; *) echo '{\"status\":\"ok\"}';; esac",
    );
    let first = Resource { notify: vec![1], ..resource("conf", "exec", &vec![("command", text("true"))]) };
    let report = sandbox.run_all(vec![first, resource("r", "custom", &asked(&[]))]);
    assert_eq!((report.resources[1].outcome, report.resources[1].message.as_str()), (Changed, "changed"));
    let told: Vec<bool> = sandbox.read("/asked").lines().map(|line| line.contains("\"notified\":true")).collect();
    assert_eq!(told, [true, true, false]);
}

#[test]
fn programs_that_cannot_run_are_named() {
    let mut sandbox = Sandbox::new();
    let report = sandbox.expect("custom", &asked(&[]), Failed);
    assert_eq!(report.message, "there is no program /lib/own: install it first, and depend on that");
    assert_eq!(sandbox.look("custom", &asked(&[])).message, "would run: there is no program /lib/own yet");
    program(&sandbox, "");
    set_mode(&sandbox.at("/lib/own"), 0o644);
    let report = sandbox.expect("custom", &asked(&[]), Failed);
    assert!(report.message.contains("cannot start") && report.message.contains("/lib/own"), "{}", report.message);
    set_mode(&sandbox.at("/lib/own"), 0o755);
    refused(
        &sandbox,
        "custom",
        &[
            (vec![], "needs the parameter `program`"),
            (vec![("program", text("own"))], "a path that starts with /"),
            (vec![("program", text("/lib/../own"))], "a path that starts with /"),
            (asked(&[("user", text("nobody-here"))]), "there is no user `nobody-here`"),
            (asked(&[("inptu", text("x"))]), "did you mean `input`?"),
        ],
    );
    sandbox.expect("custom", &vec![("program", text("/lib/own")), ("input", text("x"))], Failed);
    sandbox.protected = vec![sandbox.at("/d")];
    program(&sandbox, KEEPER);
    sandbox.expect("custom", &asked(&[]), Changed);
}

#[test]
fn it_runs_as_another_user() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("/etc/passwd", "app:x:4242:4242::/:/bin/sh\n");
    set_mode(sandbox.dir.path(), 0o777);
    program(&sandbox, "id -u > $R/who; echo '{\"status\":\"ok\"}'");
    sandbox.expect("custom", &asked(&[("user", text("app"))]), Fine);
    assert_eq!(sandbox.read("/who"), "4242\n");
}

#[test]
fn it_settles_like_any_other_type() {
    let sandbox = Sandbox::new();
    program(&sandbox, KEEPER);
    // What it was asked is kept in a file, which is not a change of state.
    let quiet = sandbox.read("/lib/own").replace(">> $R/asked", "> /dev/null");
    sandbox.write("/lib/own", &quiet);
    settles(&sandbox, "custom", &asked(&[]), "has");
}
