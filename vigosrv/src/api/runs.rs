//! Runs and events, read from the database.

use std::sync::Arc;

use common::ids::{Uuid, hex};
use common::outcome::Outcome;
use common::proto::{RecordBody, wire};
use common::time::Wall;
use serde_json::{Value, json};

use super::{Context, Request, Respond, Response};
use crate::store::RecordKind;
use crate::store::read::{EventItem, RunItem, RunQuery};

/// Rows of one answer.
const ROWS_MAX: usize = 1_000;

pub(super) fn list(context: &Arc<Context>, request: &Request, respond: Respond) {
    let envoy = match request.query("envoy") {
        None => None,
        Some(name) => match super::envoys::find(context, &name) {
            Ok(uuid) => Some(uuid),
            Err(response) => return respond(response),
        },
    };
    let limit = request.query("limit").and_then(|n| n.parse().ok()).unwrap_or(50).min(ROWS_MAX);
    let before = request.query("before").and_then(|n| n.parse().ok());
    context.read(respond, move |reader| match reader.runs(&RunQuery { envoy, before, limit, run_id: None }) {
        Ok(rows) => {
            let rows: Vec<Value> = rows.iter().map(document).collect();
            Response::json(&json!({"schema": 1, "runs": rows}))
        }
        Err(error) => Response::error(503, "store", &error.to_string(), ""),
    });
}

/// Envoys whose runs may have ids that begin alike: in a fleet of a million, two are likely somewhere, three are not.
const ENVOYS_OF_A_PREFIX_MAX: usize = 8;

pub(super) fn show(context: &Arc<Context>, id: &str, respond: Respond) {
    let Ok(uuid) = id.parse::<Uuid>() else {
        let text = format!("`{id}` is not a run id");
        return respond(Response::error(400, "bad_run", &text, "`vigocli runs` lists them"));
    };
    // The id says whose it may be, and the runs of one envoy have an index. Ids that other makers drew are looked for among all.
    let mut envoys = Vec::new();
    context.fleet.for_each(|entry| envoys.extend(uuid.may_be_of(&entry.uuid).then_some(Some(entry.uuid))));
    envoys.truncate(ENVOYS_OF_A_PREFIX_MAX);
    envoys.push(None);
    context.read(respond, move |reader| {
        let mut find = |envoy| {
            let query = RunQuery { run_id: Some(uuid), envoy, limit: 1, ..RunQuery::default() };
            reader.runs(&query).and_then(|rows| rows.first().map_or(Ok(None), |row| reader.run(row.id)))
        };
        let found = envoys.into_iter().map(&mut find).find(|found| !matches!(found, Ok(None))).unwrap_or(Ok(None));
        match found {
            Ok(Some(item)) => {
                let mut value = document(&item);
                if let RecordBody::Run(run) = &item.body {
                    value["outcomes"] = run.outcomes.iter().map(outcome).collect();
                }
                Response::json(&json!({"schema": 1, "run": value}))
            }
            Ok(None) => Response::error(404, "unknown_run", "no such run", "`vigocli runs` lists them"),
            Err(error) => Response::error(503, "store", &error.to_string(), ""),
        }
    });
}

fn document(item: &RunItem) -> Value {
    let kind = match item.kind {
        RecordKind::Run => "run",
        RecordKind::Stretch => "stretch",
        RecordKind::Gap => "gap",
        RecordKind::Incident => "incident",
    };
    let counts = item.counts().unwrap_or_default();
    let (started, duration, serial, source, text) = match &item.body {
        RecordBody::Run(run) => {
            (run.started_wall_ms, run.duration_ms, run.serial, source(run.source), run.error.clone())
        }
        RecordBody::Stretch(stretch) => {
            (stretch.first_wall_ms, stretch.duration_ms_sum, stretch.serial, source(stretch.source), String::new())
        }
        RecordBody::Gap(gap) => (gap.wall_ms, 0, 0, "", format!("{} {}", reason(gap.reason), gap.detail)),
        RecordBody::Incident(incident) => {
            (incident.wall_ms, 0, 0, "", format!("{}: {}", incident.kind, incident.detail))
        }
    };
    json!({
        "id": item.id, "envoy": item.envoy.to_string(), "hostname": item.hostname, "lane": item.lane.name(), "kind": kind,
        "first_sequence": item.first, "last_sequence": item.last, "count": item.count(), "link": hex(&item.link.0),
        "received_at": item.received_at.to_string(), "started": Wall(started).to_string(), "duration_ms": duration,
        "run_id": item.run_id().map(|id| id.to_string()), "serial": serial, "source": source,
        "ok": counts.ok, "changed": counts.changed, "skipped": counts.skipped, "failed": counts.failed,
        "blocked": counts.blocked, "status": item.status().map(|status| status.name()), "detail": text.trim(),
    })
}

fn outcome(outcome: &wire::ResourceOutcome) -> Value {
    json!({
        "resource": outcome.resource, "type": outcome.r#type, "message": outcome.message, "diff": outcome.diff,
        "outcome": Outcome::from_u32(outcome.outcome).map(Outcome::name), "duration_ms": outcome.duration_ms,
        "relapse": outcome.relapse, "consecutive": outcome.consecutive,
    })
}

fn source(source: i32) -> &'static str {
    use wire::run_result::Source;
    match Source::try_from(source) {
        Ok(Source::Live) => "live",
        Ok(Source::Cache) => "cache",
        Ok(Source::File) => "file",
        _ => "",
    }
}

fn reason(reason: i32) -> &'static str {
    use wire::gap::Reason;
    match Reason::try_from(reason) {
        Ok(Reason::QueueFull) => "queue-full",
        Ok(Reason::LostInRestore) => "lost-in-restore",
        Ok(Reason::Corrupt) => "corrupt",
        Ok(Reason::Refused) => "refused",
        _ => "unknown",
    }
}

pub(super) fn events(context: &Arc<Context>, request: &Request, respond: Respond) {
    let limit = request.query("limit").and_then(|n| n.parse().ok()).unwrap_or(50).min(ROWS_MAX);
    let fleet = context.fleet.clone();
    context.read(respond, move |reader| match reader.events(None, None, limit) {
        Ok(rows) => {
            let row = |item: &EventItem| {
                let event = &item.event;
                let name = event.uuid.and_then(|uuid| fleet.with(&uuid, |entry| entry.hostname.to_string()));
                json!({
                    "id": item.id, "at": event.at.to_string(), "kind": event.kind, "detail": event.detail,
                    "envoy": event.uuid.map(|uuid| uuid.to_string()), "hostname": name,
                })
            };
            let rows: Vec<Value> = rows.iter().map(row).collect();
            Response::json(&json!({"schema": 1, "events": rows}))
        }
        Err(error) => Response::error(503, "store", &error.to_string(), ""),
    });
}
