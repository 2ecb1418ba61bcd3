//! `vigocli runs` and `events`.

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Style, Table, color_wanted, print};
use common::units::human_duration;
use serde_json::Value;

use super::http::{encode, get};

/// Lists runs, newest first, or shows one.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "runs", example = "{command_name} web-1.example.com --limit 10")]
pub(super) struct Runs {
    /// host name or UUID of an envoy, or the id of a run with --show
    #[argh(positional)]
    envoy: Option<String>,
    /// how many (default 50)
    #[argh(option, default = "50")]
    limit: usize,
    /// show this one run with its outcomes
    #[argh(option)]
    show: Option<String>,
}

/// Lists what happened, newest first.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "events", example = "{command_name} --limit 10")]
pub(super) struct Events {
    /// how many (default 50)
    #[argh(option, default = "50")]
    limit: usize,
}

pub(super) fn run(verb: Runs, common: &Common) -> Result<Exit, Failure> {
    if let Some(id) = &verb.show {
        return show(id, common);
    }
    let mut path = format!("/api/v1/runs?limit={}", verb.limit);
    if let Some(envoy) = &verb.envoy {
        path.push_str(&format!("&envoy={}", encode(envoy)));
    }
    let answer = get(common, &path)?;
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    let mut table =
        Table::new(&["HOSTNAME", "STARTED", "KIND", "RUNS", "OK", "CHANGED", "FAILED", "SOURCE", "TOOK", "RUN"]);
    for column in [3, 4, 5, 6] {
        table = table.right(column);
    }
    for row in answer["runs"].as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_string();
        let number = |key: &str| row[key].as_u64().unwrap_or(0);
        let failed = number("failed") + number("blocked");
        let style = if failed > 0 { Style::Bad } else { Style::Plain };
        table.styled_row([
            (text("hostname"), Style::Plain),
            (text("started"), Style::Plain),
            (text("kind"), Style::Plain),
            (number("count").to_string(), Style::Plain),
            (number("ok").to_string(), Style::Plain),
            (number("changed").to_string(), Style::Plain),
            (failed.to_string(), style),
            (text("source"), Style::Plain),
            (human_duration(number("duration_ms")), Style::Plain),
            (text("run_id"), Style::Dim),
        ]);
    }
    print(&table.render(color_wanted())).map(|()| Exit::Done)
}

fn show(id: &str, common: &Common) -> Result<Exit, Failure> {
    let answer = get(common, &format!("/api/v1/runs/{}", encode(id)))?;
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    let run = &answer["run"];
    let mut out = String::new();
    for (key, value) in run.as_object().into_iter().flatten() {
        if key != "outcomes" && !value.is_null() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            out.push_str(&format!("{key:<16} {text}\n"));
        }
    }
    for outcome in run["outcomes"].as_array().into_iter().flatten() {
        out.push_str(&outcome_text(outcome));
    }
    print(&out).map(|()| Exit::Done)
}

fn outcome_text(outcome: &Value) -> String {
    let text = |key: &str| outcome[key].as_str().unwrap_or_default();
    let mut out = format!("\n{} {}: {}\n", text("outcome"), text("resource"), text("message"));
    for line in text("diff").lines() {
        out.push_str(&format!("    {line}\n"));
    }
    out
}

pub(super) fn events(verb: Events, common: &Common) -> Result<Exit, Failure> {
    let answer = get(common, &format!("/api/v1/events?limit={}", verb.limit))?;
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    let mut table = Table::new(&["WHEN", "KIND", "ENVOY", "DETAIL"]);
    for row in answer["events"].as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_string();
        table.row([text("at"), text("kind"), text("hostname"), text("detail")]);
    }
    print(&table.render(color_wanted())).map(|()| Exit::Done)
}
