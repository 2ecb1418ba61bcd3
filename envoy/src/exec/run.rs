//! The entry: one run, from its order to its report. Blocks until it is over; never panics on what a bundle says.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use common::bundle::{Bundle, Value};
use common::outcome::Outcome;
use common::policy::template::Scope;
use common::policy::types::unknown_type;
use common::redact::Filter;
use common::time::Mono;

use super::diff::NOT_SHOWN;
use super::host::Host;
use super::input::RunInput;
use super::secrets::Secrets;
use super::{accounts, backups, commands, containers, files, packages, services, sources, system, undo};
use crate::plan::{Hands, Options, Params, Task, Verdict, Walked, walk};
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
    ("backup", backups::backup::run),
    ("db_backup", backups::db_backup::run),
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
    let secrets = Arc::new(Secrets::open(order, input.unseal.as_deref()));
    host.secrets = Arc::clone(&secrets);
    common::sys::redaction::install(Arc::clone(secrets.filter()));
    let resolved = secrets.resolve(&order.bundle);
    let bundle: &Bundle = resolved.as_deref().unwrap_or(&order.bundle);
    let options = Options { dry_run: order.dry_run, diff: order.diff, owed: &order.owed };
    let mut worker = Worker { host: &mut host, input, secrets: &secrets };
    let Walked { entries: mut resources, interrupted, owed } =
        walk(bundle, &|| scope(input, bundle), options, &mut worker);
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
    clean(&mut report, secrets.filter());
    report.duration_ms = input.clock.now().mono.since(started.mono);
    report
}

struct Worker<'r> {
    host: &'r mut Host,
    input: &'r RunInput,
    secrets: &'r Secrets,
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

    fn is_secret(&self, params: &Params<'_>) -> bool {
        self.secrets.taint(params)
    }

    fn settle(&mut self, task: &Task<'_>) -> Verdict {
        if let Some(message) = self.secrets.missing_from(task.params) {
            return Verdict { outcome: Outcome::Failed, message, diff: String::new() };
        }
        let tainted = self.secrets.taint(task.params);
        self.host.is_tainted = tainted;
        let verdict = self.execute(task);
        if tainted && verdict.outcome == Outcome::Changed {
            // What was found may be a value of long ago, which nobody knows any more.
            let message = if task.enforce { "changed" } else { "would be changed" };
            return Verdict { message: format!("{message}, {NOT_SHOWN}"), diff: String::new(), ..verdict };
        }
        // Before anything is cut: half of a secret would not be found.
        let filter = self.secrets.filter();
        let diff = if filter.holds(verdict.diff.as_bytes()) {
            NOT_SHOWN.into()
        } else {
            filter.clean(&verdict.diff).into_owned()
        };
        Verdict { message: filter.clean(&verdict.message).into_owned(), diff, ..verdict }
    }
}

impl Worker<'_> {
    fn execute(&mut self, task: &Task<'_>) -> Verdict {
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

/// The last look: names, and errors of templates, which quote values.
fn clean(report: &mut RunReport, filter: &Filter) {
    if filter.is_empty() {
        return;
    }
    let clean = |text: &mut String| {
        if let Cow::Owned(cleaned) = filter.clean(text) {
            *text = cleaned;
        }
    };
    clean(&mut report.error);
    report.notes.iter_mut().for_each(clean);
    for one in &mut report.resources {
        clean(&mut one.name);
        clean(&mut one.message);
        clean(&mut one.diff);
    }
}

fn scope(input: &RunInput, bundle: &Bundle) -> Scope {
    let text = |text: &str| Value::Str(text.to_string());
    let order = &input.order;
    let envoy = BTreeMap::from([
        ("environment".to_string(), text(&bundle.environment)),
        ("hostname".to_string(), text(&order.hostname)),
        ("uuid".to_string(), Value::Str(input.uuid.to_string())),
    ]);
    let traits = order.traits.iter().map(|tree| (tree.name.clone(), Arc::clone(&tree.value)));
    Scope::with_trees(&bundle.vars, traits.collect(), &envoy)
}
