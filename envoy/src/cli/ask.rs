//! `status`, `queue`, `traits` and `verify`: through the control socket while the daemon runs, under the lock while not.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Table, color_wanted, print};
use common::policy::trait_keys;
use common::units::{human_bytes, human_duration};
use serde_json::{Value, json};

use crate::agent::{ControlReply, ControlRequest};
use crate::boot::{self, Setup};
use crate::cache;
use crate::control::{ControlError, Request, ask};
use crate::identity::IdentityDir;
use crate::sys::child::StopFlag;
use crate::traits::Facts;

/// The daemon's loop answers in a turn; a store's check reads the whole file.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it is enrolled, how the server was last reached, what it runs, what waits.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "status", example = "{command_name} --json")]
pub(super) struct Status {}

/// What waits to be delivered.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "queue", example = "{command_name} --json")]
pub(super) struct Queue {}

/// Facts about this host, as JSON.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "traits", example = "{command_name} os.distro")]
pub(super) struct Traits {
    /// a path into the tree, such as os.distro
    #[argh(positional)]
    path: Option<String>,
}

/// Checks the state store: checksums, counts, order of the queue, chains.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "verify", example = "{command_name}")]
pub(super) struct Verify {}

/// A refusal of the control socket as a failure.
pub(super) fn refused(error: &ControlError) -> Failure {
    let exit = match error {
        ControlError::NotPermitted(_) => Exit::NotPermitted,
        ControlError::NotRunning | ControlError::Broken(_) => Exit::TryAgain,
        ControlError::Refused(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

pub(super) fn status(setup: &Setup, common: &Common) -> Result<Exit, Failure> {
    let document = match ask(&setup.config.state_dir, &Request::Status, PATIENCE) {
        Ok(document) => document,
        Err(ControlError::NotRunning) => {
            let document = stopped(setup, ControlRequest::Status)?;
            let mut document = document;
            document["connection"] = json!("the agent is not running");
            document
        }
        Err(error) => return Err(refused(&error)),
    };
    let text = if common.json() { format!("{document}\n") } else { people(&document) };
    print(&text).map(|()| Exit::Done)
}

/// What a core that is started and stopped at once says of what is on disk.
fn stopped(setup: &Setup, request: ControlRequest) -> Result<Value, Failure> {
    match boot::once(setup, request)? {
        ControlReply::Status(document) => Ok(serde_json::to_value(*document).unwrap_or_default()),
        ControlReply::Queue(document) => Ok(serde_json::to_value(*document).unwrap_or_default()),
        ControlReply::Ran(_) => Err(Failure::failed("no answer")),
        ControlReply::Refused(why) => Err(Failure::failed(why)),
    }
}

fn people(document: &Value) -> String {
    let text = |key: &str| document[key].as_str().unwrap_or_default().to_string();
    let mut lines = vec![
        ("envoy", format!("{} ({})", text("hostname"), text("uuid"))),
        ("server", format!("{} [{}]", text("connection"), list(&document["servers"]))),
        ("standing", text("standing")),
        ("trust", text("trust")),
        ("disk", text("disk")),
        ("status", text("status")),
        ("would stop", text("offline_horizon")),
    ];
    if let Some(ago) = document["checked_in_ms_ago"].as_u64() {
        lines.push(("checked in", format!("{} ago", human_duration(ago))));
    }
    if let Some(next) = document["next_check_in_ms"].as_u64() {
        lines.push(("next contact", format!("in {} (attempt {})", human_duration(next), document["attempt"])));
    }
    if let Some(next) = document["next_run_ms"].as_u64() {
        lines.push(("next run", format!("in {}", human_duration(next))));
    }
    let policy = &document["policy"];
    if policy.is_object() {
        let age = human_duration(policy["age_ms"].as_u64().unwrap_or(0));
        let (serial, n) = (&policy["serial"], &policy["resources"]);
        let source = policy["source"].as_str().unwrap_or_default();
        lines.push(("policy", format!("serial {serial}, {n} resources, from the {source}, {age} old")));
    } else {
        lines.push(("policy", "none yet".into()));
    }
    let run = &document["last_run"];
    if run.is_object() {
        let counts = format!(
            "{} ok, {} changed, {} skipped, {} failed, {} blocked",
            run["ok"], run["changed"], run["skipped"], run["failed"], run["blocked"]
        );
        lines.push(("last run", format!("{} ({counts})", run["started"].as_str().unwrap_or_default())));
    }
    let queue = &document["queue"];
    let waiting: u64 = queue["lanes"].as_array().into_iter().flatten().filter_map(|lane| lane["runs"].as_u64()).sum();
    lines.push(("queue", format!("{waiting} runs, {}", human_bytes(queue["bytes"].as_u64().unwrap_or(0)))));
    let shown = lines.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(label, value)| format!("{label:<13} {value}\n")).collect()
}

fn list(value: &Value) -> String {
    let words: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.join(", ")
}

pub(super) fn queue(setup: &Setup, common: &Common) -> Result<Exit, Failure> {
    let document = match ask(&setup.config.state_dir, &Request::Queue, PATIENCE) {
        Ok(document) => document,
        Err(ControlError::NotRunning) => stopped(setup, ControlRequest::Queue)?,
        Err(error) => return Err(refused(&error)),
    };
    if common.json() {
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let mut table = Table::new(&["LANE", "RUNS", "BYTES", "ACKNOWLEDGED", "NEWEST", "RETAINED", "LOST"]);
    for column in 1..7 {
        table = table.right(column);
    }
    for lane in document["lanes"].as_array().into_iter().flatten() {
        let cell = |key: &str| lane[key].to_string();
        table.row([
            lane["lane"].as_str().or(lane["name"].as_str()).unwrap_or_default().to_string(),
            cell("runs"),
            cell("bytes"),
            cell("acknowledged"),
            cell("newest"),
            cell("retained"),
            cell("lost"),
        ]);
    }
    print(&table.render(color_wanted())).map(|()| Exit::Done)
}

pub(super) fn traits(verb: &Traits, setup: &Setup) -> Result<Exit, Failure> {
    let facts =
        Facts { now: setup.clock.now(), serial: None, sysroot: setup.sysroot().map(|path| path.display().to_string()) };
    let gathered = setup.gatherer().gather(&facts, &StopFlag::default());
    for warning in &gathered.warnings {
        eprintln!("vigo-envoy: {warning}");
    }
    let map: serde_json::Map<String, Value> =
        gathered.trees.iter().map(|tree| (tree.name.clone(), (*tree.value).clone())).collect();
    let all = Value::Object(map);
    let value = trait_keys::find(&all, verb.path.as_deref().unwrap_or_default())
        .map_err(|(what, cure)| Failure::failed(what).hint(cure))?;
    print(&format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())).map(|()| Exit::Done)
}

pub(super) fn verify(setup: &Setup, common: &Common) -> Result<Exit, Failure> {
    let document = match ask(&setup.config.state_dir, &Request::Verify, PATIENCE) {
        Ok(document) => document,
        Err(ControlError::NotRunning) => {
            let Some(enrollment) = IdentityDir::open(&setup.config.identity_dir)?.enrollment()? else {
                return Err(Failure::new(Exit::BadConfig, "this host is not enrolled").hint("vigo-envoy enroll --help"));
            };
            // Under the lock, so that no agent starts meanwhile; opening the store would repair what is to be seen.
            let _lock = common::sys::Lock::take(&setup.config.state_dir.join(cache::LOCK_FILE), "vigo-envoy verify")
                .map_err(|error| Failure::new(Exit::TryAgain, error.to_string()))?;
            let report = cache::verify(&setup.config.state_dir, enrollment.uuid);
            if !common.json() {
                print(&format!("{report}\n"))?;
                return Ok(if report.is_sound() { Exit::Done } else { Exit::Failed });
            }
            serde_json::to_value(&report).unwrap_or_default()
        }
        Err(error) => return Err(refused(&error)),
    };
    let problems = document["n_problems"].as_u64().unwrap_or(0);
    let text = if common.json() {
        format!("{document}\n")
    } else {
        format!("{}\n", serde_json::to_string_pretty(&document).unwrap_or_default())
    };
    print(&text)?;
    Ok(if problems == 0 { Exit::Done } else { Exit::Failed })
}
