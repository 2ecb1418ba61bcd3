//! Cases of `process`, with real processes: copies of `sleep` under names that nothing else has, on the running system. Nothing
//! is written there; what is started is gone at the end.

use std::fs;
use std::path::PathBuf;

use common::bundle::{Resource, Value};
use common::outcome::Outcome::{self, Changed, Failed, Ok as Fine, Skipped};

use super::sandbox::{Params, Sandbox, is_root, resource, text};
use crate::exec::run;
use crate::report::ResourceReport;

/// A program of its own name; its processes end with it.
struct Program {
    sandbox: Sandbox,
    name: String,
}

impl Program {
    fn new(name: &str) -> Program {
        let sandbox = Sandbox::new();
        // Unique, and of 15 bytes at most.
        let name = format!("{name}{:x}", std::process::id());
        fs::copy("/bin/sleep", sandbox.at("/d").join(&name)).unwrap();
        Program { sandbox, name }
    }

    fn path(&self) -> PathBuf {
        self.sandbox.at("/d").join(&self.name)
    }

    fn command(&self) -> String {
        format!("{} 1000", self.path().display())
    }

    fn asked(&self, more: &[(&'static str, Value)]) -> Params {
        let base = [("process", text(&self.name)), ("command", text(&self.command()))];
        base.into_iter().chain(more.iter().cloned()).collect()
    }

    fn stopped(&self) -> Params {
        vec![("process", text(&self.name)), ("state", text("stopped"))]
    }

    fn run(&self, resources: Vec<Resource>, dry_run: bool) -> Vec<ResourceReport> {
        let mut input = self.sandbox.input(resources, dry_run);
        (input.sysroot, input.live) = (None, true);
        run(&input).resources
    }

    fn look(&self, params: &Params) -> ResourceReport {
        self.run(vec![resource("r", "process", params)], true).remove(0)
    }

    fn expect(&self, params: &Params, outcome: Outcome) -> String {
        let report = self.run(vec![resource("r", "process", params)], false).remove(0);
        assert_eq!(report.outcome, outcome, "{params:?}: {}", report.message);
        report.message
    }

    fn pids(&self) -> Vec<i32> {
        let is_own = |pid: &i32| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("comm").trim() == self.name && !read("stat").contains(") Z ")
        };
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        all.filter(is_own).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        for pid in self.pids() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[test]
fn it_is_started_once_and_lives_on() {
    let program = Program::new("vp-a");
    assert_eq!(program.look(&program.asked(&[])).message, "would change: was not running");
    assert!(program.pids().is_empty());
    assert_eq!(program.expect(&program.asked(&[]), Changed), "changed: was not running");
    let pids = program.pids();
    assert_eq!(pids.len(), 1);
    assert_eq!(program.expect(&program.asked(&[]), Fine), "");
    assert_eq!(program.pids(), pids);
}

#[test]
fn a_list_needs_no_shell_to_be_understood() {
    let program = Program::new("vp-b");
    let words = Value::List(vec![text(program.path().to_str().unwrap()), text("1000")]);
    program.expect(&vec![("process", text(&program.name)), ("command", words)], Changed);
    assert_eq!(program.pids().len(), 1);
}

#[test]
fn all_of_them_are_stopped() {
    let program = Program::new("vp-c");
    program.expect(&program.stopped(), Fine);
    let more = format!("{0} & {0} & {0}", program.command());
    program.expect(&vec![("process", text(&program.name)), ("command", text(&more))], Changed);
    let report = program.look(&program.stopped());
    assert!(report.message.starts_with("would change: was running as process "), "{}", report.message);
    assert!(!program.pids().is_empty());
    program.expect(&program.stopped(), Changed);
    assert!(program.pids().is_empty());
    program.expect(&program.stopped(), Fine);
}

#[test]
fn one_that_ignores_the_signal_is_killed() {
    let program = Program::new("vp-d");
    let deaf = format!("trap '' TERM; exec {}", program.command());
    program.expect(&vec![("process", text(&program.name)), ("command", text(&deaf))], Changed);
    let stopped: Params = program.stopped().into_iter().chain([("grace", text("100ms"))]).collect();
    program.expect(&stopped, Changed);
    assert!(program.pids().is_empty());
}

#[test]
fn the_command_line_and_the_user_tell_processes_apart() {
    let program = Program::new("vp-e");
    program.expect(&program.asked(&[]), Changed);
    let with =
        |name: &'static str, value: Value| -> Params { program.stopped().into_iter().chain([(name, value)]).collect() };
    program.expect(&with("pattern", text(" 999$")), Fine);
    program.expect(&with("user", Value::Int(54_321)), Fine);
    assert_eq!(program.pids().len(), 1);
    program.expect(&with("pattern", text(" 1000$")), Changed);
    assert!(program.pids().is_empty());
}

#[test]
fn a_notification_stops_and_starts_it() {
    let program = Program::new("vp-f");
    program.expect(&program.asked(&[]), Changed);
    let before = program.pids();
    let first = Resource { notify: vec![1], ..resource("conf", "exec", &vec![("command", text("true"))]) };
    let reports = program.run(vec![first, resource("r", "process", &program.asked(&[]))], false);
    assert_eq!((reports[1].outcome, reports[1].message.as_str()), (Changed, "changed: restart, as notified"));
    let after = program.pids();
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
}

#[test]
fn a_program_that_ends_at_once_is_a_failure() {
    let program = Program::new("vp-g");
    let params = program.asked(&[]).into_iter().map(|(name, value)| match name {
        "command" => (name, text("exit 3")),
        _ => (name, value),
    });
    let resource = Resource { timeout_ms: 300, ..resource("r", "process", &params.collect()) };
    let report = program.run(vec![resource], false).remove(0);
    assert_eq!(report.outcome, Failed);
    assert!(report.message.contains("no process `vp-g"), "{}", report.message);
}

#[test]
fn without_a_command_it_cannot_be_started() {
    let program = Program::new("vp-h");
    let message = program.expect(&vec![("process", text(&program.name))], Failed);
    assert!(message.contains("there is no `command` that would start it"), "{message}");
}

#[test]
fn the_first_process_and_threads_of_the_kernel_are_spared() {
    let program = Program::new("vp-i");
    let first = fs::read_to_string("/proc/1/comm").unwrap().trim().to_string();
    let only =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    // What is first in a container may have namesakes, which are not to be stopped by a test.
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_string();
    if !first.contains(' ') && only.filter(|pid| name(*pid) == first).count() == 1 {
        let message = program.expect(&vec![("process", text(&first)), ("state", text("stopped"))], Failed);
        assert!(message.contains("process 1 is the first process"), "{message}");
    }
}

#[test]
fn the_agent_itself_is_spared() {
    let mut program = Program::new("vp-j");
    program.sandbox.protected = vec![program.sandbox.at("/d")];
    // This test is the agent here.
    let own = fs::read_to_string("/proc/self/comm").unwrap().trim().to_string();
    let pattern = text(&format!("^{}", std::env::args().next().unwrap()));
    let message =
        program.expect(&vec![("process", text(&own)), ("pattern", pattern), ("state", text("stopped"))], Failed);
    assert!(message.contains("allow_self"), "{message}");
}

#[test]
fn it_runs_as_asked() {
    let program = Program::new("vp-k");
    let environment = Value::Map([("COLOUR".to_string(), text("red"))].into_iter().collect());
    let mut asked = program.asked(&[("environment", environment), ("cwd", text("/usr"))]);
    if is_root() {
        super::sandbox::set_mode(program.sandbox.dir.path(), 0o755);
        asked.push(("user", text("nobody")));
    }
    program.expect(&asked, Changed);
    let pid = program.pids()[0];
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), PathBuf::from("/usr"));
    assert!(fs::read_to_string(format!("/proc/{pid}/environ")).unwrap().contains("COLOUR=red\0"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(!is_root() || status.contains("Uid:\t65534\t65534"), "{status}");
}

#[test]
fn bad_parameters_are_named_and_a_sysroot_has_no_processes() {
    let program = Program::new("vp-l");
    for (params, expected) in [
        (vec![], "needs the parameter `process`"),
        (vec![("process", text("a b"))], "text without blanks"),
        (vec![("process", text(""))], "text without blanks"),
        (program.asked(&[("pattern", text("("))]), "`pattern` is no regular expression"),
        (program.asked(&[("state", text("absent"))]), "`running` or `stopped`"),
        (program.asked(&[("signal", text("STOP"))]), "`TERM` or `INT`"),
        (program.asked(&[("grace", text("soon"))]), "a length of time"),
        (program.asked(&[("user", text("nobody-here"))]), "there is no user `nobody-here`"),
    ] {
        let message = program.expect(&params, Failed);
        assert!(message.contains(expected), "{message}");
    }
    let report = program.sandbox.expect("process", &program.asked(&[]), Skipped);
    assert!(report.message.contains("it has no processes"), "{}", report.message);
    assert!(program.pids().is_empty());
}
