//! The entry: one run, from its order to its report. Blocks until it is over; never panics on what a bundle says.

use std::collections::BTreeMap;

use common::bundle::Value;
use common::outcome::Outcome;
use common::policy::template::Scope;
use common::policy::types::unknown_type;
use common::time::Mono;

use super::host::Host;
use super::input::RunInput;
use super::{accounts, commands, containers, files, packages, services, sources, system, undo};
use crate::plan::{Hands, Options, Task, Verdict, Walked, walk};
use crate::report::RunReport;

/// One executor: brings a resource of its type to its state.
type Executor = fn(&mut Host, &Task<'_>) -> Verdict;

/// Every executor, by type.
const EXECUTORS: &[(&str, Executor)] = &[
    ("file", files::file::run),
    ("exec", commands::exec::run),
    ("custom", commands::custom::run),
    ("process", commands::process::run),
    ("directory", files::directory::run),
    ("symlink", files::symlink::run),
    ("file_line", files::file_line::run),
    ("blockinfile", files::blockinfile::run),
    ("host", files::host::run),
    ("ini", files::ini::run),
    ("json_file", files::json_file::run),
    ("replace", files::replace::run),
    ("sshkey", files::sshkey::run),
    ("authorized_key", accounts::authorized_key::run),
    ("group", accounts::group::run),
    ("user", accounts::user::run),
    ("service", services::service::run),
    ("cron", system::cron::run),
    ("firewall", system::firewall::run),
    ("hostname", system::hostname::run),
    ("kernel_module", system::kernel_module::run),
    ("limits", system::limits::run),
    ("mount", system::mount::run),
    ("sysctl", system::sysctl::run),
    ("systemd_timer", system::systemd_timer::run),
    ("timezone", system::timezone::run),
    ("container", containers::container::run),
    ("git", sources::git::run),
    ("package", packages::package::run),
    ("nonrepo_package", packages::nonrepo::run),
    ("source_package", packages::source::run),
    ("repository", packages::repository::run),
];

/// Runs a bundle.
pub fn run(input: &RunInput) -> RunReport {
    let started = input.clock.now();
    let mut report = RunReport { run_id: input.order.run_id, started, ..RunReport::default() };
    let mut host = match Host::try_new(input) {
        Ok(host) => host,
        Err(fault) => {
            report.error = format!("the run could not start: {fault}");
            report.owed.clone_from(&input.order.owed);
            return report;
        }
    };
    let mut notes = if input.order.dry_run { Vec::new() } else { undo::recover(&mut host) };
    let order = &input.order;
    let options = Options { dry_run: order.dry_run, diff: order.diff, owed: &order.owed };
    let mut worker = Worker { host: &mut host, input };
    let Walked { entries: mut resources, interrupted, owed } =
        walk(&input.order.bundle, &|| scope(input), options, &mut worker);
    if let Some((names, why)) = undo::settle(&mut host) {
        for entry in resources.iter_mut().filter(|entry| names.contains(&entry.name)) {
            entry.outcome = Outcome::Failed;
            entry.message.clone_from(&why);
        }
    }
    if interrupted {
        let left = resources
            .iter()
            .filter(|one| one.outcome == Outcome::Skipped && one.message.contains("interrupted"))
            .count();
        report.error = format!("the run was interrupted: {left} of {} resources were not checked", resources.len());
    }
    // Before anybody is told that something was changed.
    if let Err(fault) = host.sync() {
        report.error = format!("what this run changed may not outlive a power cut: {fault}");
    }
    report.resources = resources;
    report.interrupted = interrupted;
    report.owed = owed;
    notes.extend(host.take_notes());
    report.notes = notes;
    report.duration_ms = input.clock.now().mono.since(started.mono);
    report
}

struct Worker<'r> {
    host: &'r mut Host,
    input: &'r RunInput,
}

impl Hands for Worker<'_> {
    fn now(&mut self) -> Mono {
        self.input.clock.now().mono
    }

    fn stopping(&self) -> bool {
        self.input.stop.grace_ms().is_some()
    }

    fn pause(&mut self, ms: u64) {
        // In short pieces, so that a stop is heard.
        let until = self.now() + ms;
        while !self.stopping() && self.now() < until {
            self.input.clock.pause(until.since(self.now()).min(PAUSE_PIECE_MS));
        }
    }

    fn settle(&mut self, task: &Task<'_>) -> Verdict {
        match EXECUTORS.iter().find(|(kind, _)| *kind == task.kind) {
            Some((_, executor)) => executor(self.host, task),
            None => Verdict {
                outcome: Outcome::Failed,
                message: format!("{}: this agent is older than the policy, upgrade it", unknown_type(task.kind)),
                diff: String::new(),
            },
        }
    }
}

/// How often a stop is looked for between attempts, in milliseconds.
const PAUSE_PIECE_MS: u64 = 100;

fn scope(input: &RunInput) -> Scope {
    let text = |text: &str| Value::Str(text.to_string());
    let order = &input.order;
    let envoy = BTreeMap::from([
        ("environment".to_string(), text(&order.bundle.environment)),
        ("hostname".to_string(), text(&order.hostname)),
        ("uuid".to_string(), Value::Str(input.uuid.to_string())),
    ]);
    let traits = order.traits.iter().map(|tree| (tree.name.clone(), tree.value.clone())).collect();
    Scope::new(&order.bundle.vars, &serde_json::Value::Object(traits), &envoy)
}
