//! `vigocli status`: how server and fleet are, with the exit codes of a monitoring plugin.

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, print};
use common::units::human_duration;
use serde_json::Value;

use super::http::get;

/// A replica that is further behind is worth a warning, milliseconds.
const LAG_WARNING_MS: u64 = 5 * 60_000;

/// Shows how the server and the fleet are. Exit status: 0 good, 1 warning, 2 critical, 3 no server.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "status", example = "{command_name} --json")]
pub(super) struct Status {}

pub(super) fn run(_: Status, common: &Common) -> Result<Exit, Failure> {
    let answer = match get(common, "/api/v1/status") {
        Ok(answer) => answer,
        Err(failure) if failure.exit == Exit::Unreachable => {
            return Err(Failure { exit: Exit::Other(3), ..failure });
        }
        Err(failure) => return Err(failure),
    };
    let text = if common.json() { format!("{answer}\n") } else { people(&answer) };
    print(&text)?;
    Ok(judge(&answer))
}

fn judge(answer: &Value) -> Exit {
    let is = |key: &str| answer[key].as_bool() == Some(true);
    let n = |key: &str| answer["by_status"][key].as_u64().unwrap_or(0);
    if is("stepped_down") || is("disk_full") || answer["database_damage"].is_string() {
        Exit::Other(2)
    } else if is("review")
        || replica_is_bad(&answer["replica"])
        || n("failed") + n("degraded") + n("offline") + n("duplicate") + n("review") > 0
    {
        Exit::Other(1)
    } else {
        Exit::Done
    }
}

fn people(answer: &Value) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_string();
    let uptime = human_duration(answer["uptime_ms"].as_u64().unwrap_or(0));
    let mut out = format!(
        "server     {} (version {}, up {uptime}, epoch {}, serial {})\n",
        text("status"),
        text("version"),
        answer["epoch"],
        answer["serial"]
    );
    out.push_str(&format!("envoys     {}", answer["envoys"]));
    for (status, n) in answer["by_status"].as_object().into_iter().flatten() {
        if n.as_u64().unwrap_or(0) > 0 {
            out.push_str(&format!(", {n} {status}"));
        }
    }
    out.push_str(&format!(
        "\nconnected  {} connections, {} held, {} of {} envoys seen since the start\n",
        answer["connections"], answer["held"], answer["seen_since_start"], answer["envoys"]
    ));
    for (key, line) in [
        ("pending", "wait for approval: `vigocli envoys approve HOST`"),
        ("kept_cached", "were told to keep what they have: nothing is published for them"),
    ] {
        if answer[key].as_u64().unwrap_or(0) > 0 {
            out.push_str(&format!("note       {} {line}\n", answer[key]));
        }
    }
    for (key, line) in [
        ("stepped_down", "envoys have met a higher epoch: this server is read-only"),
        ("disk_full", "the disk is full: results stay with the agents until there is room"),
        ("review", "revocations may be lost in a restore: see `vigocli events`"),
    ] {
        if answer[key].as_bool() == Some(true) {
            out.push_str(&format!("WARNING    {line}\n"));
        }
    }
    if let Some(damage) = answer["database_damage"].as_str() {
        out.push_str(&format!("WARNING    {damage}\n"));
    }
    out.push_str(&replica(&answer["replica"]));
    for note in answer["notes"].as_array().into_iter().flatten() {
        out.push_str(&format!("note       {}\n", note.as_str().unwrap_or_default()));
    }
    out
}

/// Worth a warning.
pub(super) fn replica_is_bad(replica: &Value) -> bool {
    let behind = replica["lag_ms"].as_u64().unwrap_or(0) > LAG_WARNING_MS;
    replica.is_object() && (behind || replica["trouble"].as_str().is_some_and(|trouble| !trouble.is_empty()))
}

/// What is wrong, or how far the replica is.
pub(super) fn replica_in_words(replica: &Value) -> String {
    let text = |key: &str| replica[key].as_str().unwrap_or_default();
    let lag = human_duration(replica["lag_ms"].as_u64().unwrap_or(0));
    let complete = match replica["synced"].is_null() {
        true => format!("not complete since the start, {lag} ago"),
        false => format!("complete {lag} ago"),
    };
    match text("trouble") {
        "" => format!("{} ({}), {complete}", text("url"), text("stage")),
        trouble => trouble.to_string(),
    }
}

fn replica(replica: &Value) -> String {
    if !replica.is_object() {
        return String::new();
    }
    let word = if replica_is_bad(replica) { "WARNING    replica:" } else { "replica   " };
    format!("{word} {}\n", replica_in_words(replica))
}
