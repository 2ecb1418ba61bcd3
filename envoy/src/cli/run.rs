//! `vigo-envoy run --once`: one pass now, by the daemon where one runs, else by this process.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, print};

use super::ask::refused;
use crate::agent::status::{ROLLED_BACK, ResourceDocument, RunDocument};
use crate::agent::{ControlReply, ControlRequest};
use crate::boot::{self, Setup};
use crate::control::{ControlError, Request, ask};

/// A run may take as long as its resources take.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// Converges once.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "run", example = "{command_name} --once --dry-run --diff")]
pub(super) struct Run {
    /// one pass, then exit (the only way to run by hand; `daemon` does it for ever)
    #[argh(switch)]
    once: bool,
    /// change nothing, say what would change
    #[argh(switch)]
    dry_run: bool,
    /// use the cached policy, do not ask the server
    #[argh(switch)]
    offline: bool,
    /// show differences
    #[argh(switch)]
    diff: bool,
    /// exit with 0 nothing to do, 2 changed, 4 some failed, 6 both, 8 rolled back
    #[argh(switch)]
    detailed_exitcodes: bool,
}

pub(super) fn run(verb: &Run, setup: &Setup, common: &Common) -> Result<Exit, Failure> {
    if !verb.once {
        return Err(Failure::usage("say --once for one run, or use `vigo-envoy daemon`"));
    }
    let (dry_run, offline, diff, all) = (verb.dry_run, verb.offline, verb.diff, common.json());
    let document = match ask(&setup.config.state_dir, &Request::RunOnce { dry_run, offline, diff, all }, PATIENCE) {
        Ok(value) => serde_json::from_value(value)
            .map_err(|error| Failure::failed(format!("the daemon's answer is not a run: {error}")))?,
        Err(ControlError::NotRunning) => {
            match boot::once(setup, ControlRequest::RunOnce { dry_run, offline, diff, all })? {
                ControlReply::Ran(document) => *document,
                ControlReply::Refused(why) => return Err(Failure::failed(why)),
                ControlReply::Status(_) | ControlReply::Queue(_) => return Err(Failure::failed("no run took place")),
            }
        }
        Err(error) => return Err(refused(&error)),
    };
    show(&document, common, diff)?;
    Ok(exit(&document, verb.detailed_exitcodes))
}

/// Prints a run.
pub(super) fn show(document: &RunDocument, common: &Common, diff: bool) -> Result<(), Failure> {
    if common.json() {
        let value = serde_json::to_value(document).unwrap_or_default();
        return print(&format!("{value}\n"));
    }
    print(&prose(document, diff))
}

fn prose(document: &RunDocument, diff: bool) -> String {
    let mut out = String::new();
    for resource in &document.resources {
        // Skipped by its own `when` is as wished, and has nothing to say.
        let as_wished = resource.outcome == "ok" || (resource.outcome == "skipped" && resource.message.is_empty());
        if !as_wished {
            out.push_str(&text(resource, diff));
        }
    }
    let run = &document.run;
    out.push_str(&format!(
        "{}{} ok, {} changed, {} skipped, {} failed, {} blocked in {} ms",
        if document.dry_run { "dry run: " } else { "" },
        run.ok,
        run.changed,
        run.skipped,
        run.failed,
        run.blocked,
        run.duration_ms
    ));
    if document.source != "file" {
        let age = common::units::human_duration(document.age_ms);
        out.push_str(&format!(
            "; {}, policy {} from the {}, {age} old",
            document.status, document.serial, document.source
        ));
    }
    out.push('\n');
    if !run.error.is_empty() {
        out.push_str(&format!("error: {}\n", run.error));
    }
    if !document.server.is_empty() {
        out.push_str(&format!("server: {}\n", document.server));
    }
    out
}

fn text(resource: &ResourceDocument, diff: bool) -> String {
    let mut out = format!("{} {} {}: {}\n", resource.outcome, resource.r#type, resource.name, resource.message);
    for line in resource.diff.lines().filter(|_| diff) {
        out.push_str(&format!("    {line}\n"));
    }
    out
}

/// Exit status of a run.
pub(super) fn exit(document: &RunDocument, detailed: bool) -> Exit {
    let run = &document.run;
    let rolled_back = |one: &ResourceDocument| one.outcome == "failed" && one.message.starts_with(ROLLED_BACK);
    if detailed && document.resources.iter().any(rolled_back) {
        return Exit::Other(8);
    }
    let bad = run.failed + run.blocked > 0 || !run.error.is_empty();
    match (detailed, run.changed > 0, bad) {
        (true, changed, bad) if changed || bad => Exit::Other(2 * u8::from(changed) + 4 * u8::from(bad)),
        (false, _, true) => Exit::Failed,
        _ => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::status::LastRunDocument;

    #[test]
    fn what_was_not_done_is_said_and_what_was_not_wanted_is_not() {
        let one = |outcome: &str, name: &str, message: &str| ResourceDocument {
            outcome: outcome.into(),
            name: name.into(),
            message: message.into(),
            r#type: "file".into(),
            ..ResourceDocument::default()
        };
        let resources = vec![
            one("ok", "a", ""),
            one("skipped", "b", ""),
            one("failed", "c", "no disk"),
            one("skipped", "d", "not checked: `c`, which it depends on, is not settled"),
        ];
        let text = prose(&RunDocument { resources, ..RunDocument::default() }, false);
        let lines: Vec<&str> = text.lines().take(2).collect();
        assert_eq!(
            lines,
            ["failed file c: no disk", "skipped file d: not checked: `c`, which it depends on, is not settled"]
        );
    }

    #[test]
    fn exit_codes_say_what_happened() {
        let run = |changed, failed| {
            let run = LastRunDocument { changed, failed, ..LastRunDocument::default() };
            RunDocument { run, ..RunDocument::default() }
        };
        let codes = |detailed| [run(0, 0), run(1, 0), run(0, 1), run(1, 1)].map(|run| exit(&run, detailed).code());
        assert_eq!(codes(true), [0, 2, 4, 6]);
        assert_eq!(codes(false), [0, 0, 1, 1]);
        let mut back = run(1, 1);
        let message = format!("{ROLLED_BACK}: no check-in was answered");
        back.resources = vec![ResourceDocument { outcome: "failed".into(), message, ..ResourceDocument::default() }];
        assert_eq!([true, false].map(|detailed| exit(&back, detailed).code()), [8, 1]);
    }
}
