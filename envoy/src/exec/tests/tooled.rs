//! The cases that every executor which calls a tool of the host has to pass: tools that are missing, hang, lie, die, or never
//! stop talking.

use std::fs;

use common::bundle::Resource;
use common::outcome::Outcome::{Blocked, Changed, Failed};

use super::sandbox::{Params, Sandbox, resource, set_mode};
use crate::report::ResourceReport;

/// What the cases have to know about a type.
pub struct Tooled {
    pub kind: &'static str,
    /// A host on which the tool would have something to change.
    pub host: fn() -> Sandbox,
    pub params: fn(&Sandbox) -> Params,
    /// The tool.
    pub tool: &'static str,
    /// The tool as a script of shell; where it should change something it says `BEHAVE`.
    pub script: &'static str,
    /// What comes of a tool that says it did its work and did not.
    pub lied: common::outcome::Outcome,
}

/// All of them.
pub const CASES: [fn(&Tooled); 10] = [
    a_tool_that_is_missing_is_named,
    a_tool_that_may_not_be_run_is_missing,
    a_tool_that_hangs_is_ended_at_the_deadline,
    a_tool_that_never_stops_talking_is_bounded,
    a_tool_that_says_it_worked_is_not_believed,
    a_full_disk_of_the_tool_blocks,
    a_tool_that_dies_is_told_from_one_that_refuses,
    what_a_tool_leaves_running_does_not_hold_the_run,
    a_tool_that_waits_for_an_answer_gets_none,
    a_dry_run_has_the_tool_change_nothing,
];

/// Runs all of them.
pub fn check(tooled: &Tooled) {
    CASES.iter().for_each(|case| case(tooled));
}

/// A tool that behaves like this wherever it should change something, for so long.
fn behaves(tooled: &Tooled, how: &str, timeout_ms: u64) -> (Sandbox, ResourceReport) {
    let mut sandbox = (tooled.host)();
    let how = format!(": > $R/tools/changed; {how}");
    sandbox.fake_tool(tooled.tool, &tooled.script.replace("BEHAVE", &how));
    let asked = resource("r", tooled.kind, &(tooled.params)(&sandbox));
    let mut report = sandbox.run_all(vec![Resource { timeout_ms, ..asked }]);
    (sandbox, report.resources.remove(0))
}

fn a_tool_that_is_missing_is_named(tooled: &Tooled) {
    let mut sandbox = (tooled.host)();
    sandbox.fake_tool(tooled.tool, "");
    fs::remove_file(sandbox.at("/tools").join(tooled.tool)).unwrap();
    let report = sandbox.expect(tooled.kind, &(tooled.params)(&sandbox), Failed);
    assert!(report.message.contains(tooled.tool), "{}: {}", tooled.kind, report.message);
}

fn a_tool_that_may_not_be_run_is_missing(tooled: &Tooled) {
    let mut sandbox = (tooled.host)();
    sandbox.fake_tool(tooled.tool, "");
    set_mode(&sandbox.at("/tools").join(tooled.tool), 0o644);
    sandbox.expect(tooled.kind, &(tooled.params)(&sandbox), Failed);
    fs::remove_file(sandbox.at("/tools").join(tooled.tool)).unwrap();
    fs::create_dir(sandbox.at("/tools").join(tooled.tool)).unwrap();
    sandbox.expect(tooled.kind, &(tooled.params)(&sandbox), Failed);
}

fn a_tool_that_hangs_is_ended_at_the_deadline(tooled: &Tooled) {
    let (_, report) = behaves(tooled, "trap '' TERM; while :; do /bin/sleep 1; done", 400);
    assert_eq!(report.outcome, Failed, "{}: {}", tooled.kind, report.message);
    assert!(report.message.contains("timeout"), "{}: {}", tooled.kind, report.message);
}

fn a_tool_that_never_stops_talking_is_bounded(tooled: &Tooled) {
    let (_, report) = behaves(tooled, "/usr/bin/head -c 3000000 /dev/urandom >&2; exit 1", 60_000);
    assert!(matches!(report.outcome, Failed | Blocked), "{}: {}", tooled.kind, report.message);
    assert!(report.message.len() < 32 << 10, "{}: {} bytes", tooled.kind, report.message.len());
}

fn a_tool_that_says_it_worked_is_not_believed(tooled: &Tooled) {
    let (_, report) = behaves(tooled, "exit 0", 20_000);
    assert_eq!(report.outcome, tooled.lied, "{}: {}", tooled.kind, report.message);
}

fn a_full_disk_of_the_tool_blocks(tooled: &Tooled) {
    let (_, report) = behaves(tooled, "echo 'write error: No space left on device' >&2; exit 1", 60_000);
    assert_eq!(report.outcome, Blocked, "{}: {}", tooled.kind, report.message);
    assert!(report.message.contains("No space left"), "{}: {}", tooled.kind, report.message);
}

fn a_tool_that_dies_is_told_from_one_that_refuses(tooled: &Tooled) {
    let (_, report) = behaves(tooled, "kill -SEGV $$", 60_000);
    assert_eq!(report.outcome, Failed, "{}: {}", tooled.kind, report.message);
    assert!(report.message.contains("signal 11"), "{}: {}", tooled.kind, report.message);
    let (_, report) = behaves(tooled, "echo 'it may not be so' >&2; exit 9", 60_000);
    assert!(report.message.contains("it may not be so"), "{}: {}", tooled.kind, report.message);
}

fn what_a_tool_leaves_running_does_not_hold_the_run(tooled: &Tooled) {
    let (_, report) = behaves(tooled, "/bin/sleep 20 & exit 1", 15_000);
    assert_eq!(report.outcome, Failed, "{}: {}", tooled.kind, report.message);
    assert!(!report.message.contains("timeout"), "{}: {}", tooled.kind, report.message);
}

fn a_tool_that_waits_for_an_answer_gets_none(tooled: &Tooled) {
    let (_, report) = behaves(tooled, "/bin/cat > /dev/null; read answer; exit 3", 15_000);
    assert_eq!(report.outcome, Failed, "{}: {}", tooled.kind, report.message);
    assert!(!report.message.contains("timeout"), "{}: {}", tooled.kind, report.message);
}

fn a_dry_run_has_the_tool_change_nothing(tooled: &Tooled) {
    let mut sandbox = (tooled.host)();
    sandbox.fake_tool(tooled.tool, &tooled.script.replace("BEHAVE", ": > $R/tools/changed"));
    let report = sandbox.look(tooled.kind, &(tooled.params)(&sandbox));
    assert_eq!(report.outcome, Changed, "{}: {}", tooled.kind, report.message);
    assert!(!sandbox.at("/tools/changed").exists(), "{}: {}", tooled.kind, report.message);
}
