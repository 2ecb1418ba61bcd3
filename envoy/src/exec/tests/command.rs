use std::collections::BTreeMap;
use std::fs;

use common::bundle::{Resource, Value};
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, is_root, mode, resource, text};

fn sh(command: &str, more: &[(&'static str, Value)]) -> Params {
    [("command", text(command))].into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn guards_decide_whether_it_runs() {
    let sandbox = Sandbox::new();
    for guard in [
        ("creates", text("/d/mark")),
        ("unless", text("test -f d/mark")),
        ("unless", text("cat d/mark >/dev/null")),
        ("onlyif", text("[ ! -e d/mark ]")),
        ("onlyif", text("! ls d/mark 2>/dev/null")),
        ("unless", Value::List(vec![text("test"), text("-f"), text("d/mark")])),
    ] {
        let asked = sh("touch d/mark", std::slice::from_ref(&guard));
        let report = sandbox.look("exec", &asked);
        assert_eq!((report.outcome, report.message.as_str()), (Changed, "would run: `touch d/mark`"), "{guard:?}");
        assert!(!sandbox.at("/d/mark").exists(), "a dry run runs nothing");
        sandbox.expect("exec", &asked, Changed);
        let before = sandbox.picture();
        sandbox.expect("exec", &asked, Fine);
        assert_eq!(sandbox.picture(), before);
        fs::remove_file(sandbox.at("/d/mark")).unwrap();
    }
}

#[test]
fn without_a_guard_it_runs_every_time() {
    let sandbox = Sandbox::new();
    sandbox.expect("exec", &sh("echo x >> d/log", &[]), Changed);
    sandbox.expect("exec", &sh("echo x >> d/log", &[]), Changed);
    assert_eq!(fs::read(sandbox.at("/d/log")).unwrap(), b"x\nx\n");
}

#[test]
fn surroundings_are_as_asked() {
    let sandbox = Sandbox::new();
    let environment = Value::Map(BTreeMap::from([("A".to_string(), text("b c")), ("N".to_string(), Value::Int(7))]));
    let asked = sh(
        "cat > out; pwd >> out; echo \"$A $N $VIGO_RUN_ID $VIGO_SYSROOT $HOME\" >> out; umask >> out; touch made",
        &[("cwd", text("/d")), ("environment", environment), ("stdin", text("in\n")), ("umask", text("077"))],
    );
    sandbox.expect("exec", &asked, Changed);
    let root = sandbox.dir.path().canonicalize().unwrap().display().to_string();
    let id = "07070707-0707-0707-0707-070707070707";
    let expected = format!("in\n{root}/d\nb c 7 {id} {root} /root\n0077\n");
    assert_eq!(fs::read_to_string(sandbox.at("/d/out")).unwrap(), expected);
    assert_eq!(mode(&sandbox.at("/d/made")), 0o600);
}

#[test]
fn the_working_directory_is_the_sysroot_and_the_environment_is_clean() {
    let sandbox = Sandbox::new();
    sandbox.expect("exec", &sh("pwd > d/out; env | cut -d= -f1 | sort | tr '\\n' ' ' >> d/out", &[]), Changed);
    let said = fs::read_to_string(sandbox.at("/d/out")).unwrap();
    let (cwd, names) = said.split_once('\n').unwrap();
    assert_eq!(cwd, sandbox.dir.path().canonicalize().unwrap().to_str().unwrap());
    assert_eq!(names.trim(), "HOME LANG PATH PWD VIGO_RUN_ID VIGO_SYSROOT");
}

#[test]
fn a_list_needs_no_shell() {
    let sandbox = Sandbox::new();
    let argv = Value::List(["touch", "d/$HOME; x"].map(text).to_vec());
    sandbox.expect("exec", &vec![("command", argv)], Changed);
    assert!(sandbox.at("/d/$HOME; x").exists());
}

#[test]
fn failures_say_what_the_command_said() {
    let sandbox = Sandbox::new();
    let report = sandbox.expect("exec", &sh("echo to stdout; echo broken >&2; exit 3", &[]), Failed);
    assert_eq!(report.message, "`echo to stdout; echo broken >&2; exit 3` exited with 3:\nbroken");
    sandbox.expect("exec", &sh("exit 3", &[("returns", Value::List(vec![Value::Int(0), Value::Int(3)]))]), Changed);
    sandbox.expect("exec", &sh("exit 0", &[("returns", Value::Int(3))]), Failed);
    let report = sandbox.expect("exec", &sh("kill -9 $$", &[]), Failed);
    assert!(report.message.contains("ended by signal 9"), "{}", report.message);
    let report = sandbox.expect("exec", &vec![("command", Value::List(vec![text("/none/such")]))], Failed);
    assert!(report.message.contains("cannot start /none/such"), "{}", report.message);
    let report = sandbox.expect("exec", &sh("true", &[("cwd", text("/none"))]), Failed);
    assert!(report.message.contains("/none does not exist"), "{}", report.message);
    let report = sandbox.expect("exec", &sh("true", &[("creates", text("/d/never"))]), Failed);
    assert!(report.message.contains("did not create"), "{}", report.message);
}

#[test]
fn output_without_end_and_a_timeout_are_bounded() {
    let sandbox = Sandbox::new();
    let endless = Resource { timeout_ms: 300, ..resource("r", "exec", &sh("yes", &[])) };
    let report = sandbox.run_all(vec![endless]);
    assert_eq!(report.resources[0].outcome, Failed);
    assert!(report.resources[0].message.contains("took longer than its timeout"), "{}", report.resources[0].message);
    assert!(report.resources[0].message.len() <= common::limits::OUTCOME_TEXT_BYTES_MAX);
}

#[test]
fn a_notified_command_runs_whatever_its_guards_say() {
    let sandbox = Sandbox::new();
    let write = |content: &str| vec![("target_path", text("/d/x")), ("content", text(content))];
    let both = |content: &str| {
        vec![
            Resource { notify: vec![1], ..resource("f", "file", &write(content)) },
            resource("restart", "exec", &sh("echo restarted >> d/log", &[("onlyif", text("false"))])),
        ]
    };
    assert_eq!(sandbox.run_all(both("a")).counts().changed, 2);
    assert_eq!(sandbox.run_all(both("a")).counts().ok, 2);
    assert_eq!(sandbox.run_all(both("b")).counts().changed, 2);
    assert_eq!(fs::read(sandbox.at("/d/log")).unwrap(), b"restarted\nrestarted\n");
}

#[test]
fn commands_that_would_harm_the_agent_are_refused() {
    let mut sandbox = Sandbox::new();
    sandbox.protected = vec!["/usr/bin/vigo-envoy".into(), "/var/lib/vigo/state".into()];
    for command in [
        "systemctl stop vigo-envoy",
        "systemctl disable --now vigo-envoy.service",
        "pkill vigo-envoy",
        "rm -rf /var/lib/vigo/state/data.mdb",
        "echo > /usr/bin/vigo-envoy",
        "apt-get -y purge vigo-envoy",
    ] {
        let report = sandbox.expect("exec", &sh(command, &[]), Failed);
        assert!(report.message.contains("allow_self"), "{command}: {}", report.message);
    }
    sandbox.expect("exec", &sh("echo vigo-envoy is fine; true /usr/bin/vigo-envoy", &[]), Changed);
    sandbox.allow_self = true;
    sandbox.expect("exec", &sh("echo rm /var/lib/vigo/state/x", &[]), Changed);
}

#[test]
fn another_user_is_really_that_user() {
    let sandbox = Sandbox::new();
    let report = sandbox.expect("exec", &sh("true", &[("user", text("nobody-here"))]), Failed);
    assert!(report.message.contains("no user `nobody-here`"), "{}", report.message);
    if !is_root() {
        return;
    }
    fs::create_dir(sandbox.at("/etc")).unwrap();
    fs::write(sandbox.at("/etc/passwd"), "ada:x:4711:4712::/home/ada:/bin/sh\n").unwrap();
    fs::write(sandbox.at("/etc/group"), "extra:x:4713:ada\n").unwrap();
    super::sandbox::set_mode(sandbox.dir.path(), 0o755);
    super::sandbox::set_mode(&sandbox.at("/d"), 0o777);
    sandbox.expect(
        "exec",
        &sh("id -u > d/out; id -G >> d/out; echo $HOME $USER >> d/out", &[("user", text("ada"))]),
        Changed,
    );
    assert_eq!(fs::read_to_string(sandbox.at("/d/out")).unwrap(), "4711\n4712 4713\n/home/ada ada\n");
}

#[test]
fn bad_parameters_are_named() {
    let sandbox = Sandbox::new();
    for (params, expected) in [
        (vec![], "needs the parameter `command`"),
        (sh("true", &[("unles", text("x"))]), "did you mean `unless`?"),
        (sh("true", &[("returns", text("0"))]), "exit status from 0 to 255"),
        (sh("true", &[("environment", text("A=b"))]), "mapping of names to texts"),
        (sh("true", &[("cwd", text("d"))]), "starts with /"),
    ] {
        let report = sandbox.expect("exec", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}

#[test]
fn a_stop_ends_the_command_and_the_run_says_so() {
    let sandbox = Sandbox::new();
    sandbox.stop.raise(50);
    // The flag is up before the run: nothing is begun at all.
    let report =
        sandbox.run_all(vec![resource("a", "exec", &sh("sleep 60", &[])), resource("b", "exec", &sh("true", &[]))]);
    assert!(report.interrupted && report.error.contains("2 of 2"), "{}", report.error);
    let sandbox = Sandbox::new();
    let stop = std::sync::Arc::clone(&sandbox.stop);
    let mark = sandbox.at("/d/started");
    let raiser = std::thread::Builder::new().spawn(move || {
        let clock = common::sys::Clock::system();
        let until = clock.now().mono + 20_000;
        while !mark.exists() && clock.now().mono < until {
            clock.pause(5);
        }
        stop.raise(50);
    });
    let raiser = raiser.unwrap();
    let report = sandbox.run_all(vec![
        resource("a", "exec", &sh("touch d/started; sleep 60", &[])),
        resource("b", "exec", &sh("true", &[])),
    ]);
    raiser.join().unwrap();
    assert!(report.interrupted);
    assert!(report.resources[0].message.starts_with("interrupted: "), "{}", report.resources[0].message);
    assert!(report.error.contains("1 of 2"), "{}", report.error);
    assert!(report.duration_ms < 20_000);
}
