//! Runs and events, read from the database.

use std::sync::Arc;

use common::ids::Uuid;
use serde_json::json;

use super::{Context, Request, Respond, Response};

/// Rows of one answer.
const ROWS_MAX: usize = 1_000;

pub(super) fn list(context: &Arc<Context>, request: &Request, respond: Respond) {
    let uuid = match request.query("envoy") {
        None => None,
        Some(name) => match super::envoys::find(context, &name) {
            Ok(uuid) => Some(uuid),
            Err(response) => return respond(response),
        },
    };
    let limit = request.query("limit").and_then(|n| n.parse().ok()).unwrap_or(50).min(ROWS_MAX);
    let before = request.query("before").and_then(|n| n.parse().ok());
    context.read(respond, move |reader| match reader.runs(uuid.as_ref(), before, limit) {
        Ok(rows) => Response::json(&json!({"schema": 1, "runs": rows})),
        Err(error) => Response::error(503, "store", &error.to_string(), ""),
    });
}

pub(super) fn show(context: &Arc<Context>, id: &str, respond: Respond) {
    let Ok(uuid) = id.parse::<Uuid>() else {
        let text = format!("`{id}` is not a run id");
        return respond(Response::error(400, "bad_run", &text, "`vigocli runs` lists them"));
    };
    context.read(respond, move |reader| match reader.run(&uuid) {
        Ok(Some(run)) => Response::json(&json!({"schema": 1, "run": run})),
        Ok(None) => Response::error(404, "unknown_run", "no such run", "`vigocli runs` lists them"),
        Err(error) => Response::error(503, "store", &error.to_string(), ""),
    });
}

pub(super) fn events(context: &Arc<Context>, request: &Request, respond: Respond) {
    let limit = request.query("limit").and_then(|n| n.parse().ok()).unwrap_or(50).min(ROWS_MAX);
    context.read(respond, move |reader| match reader.events(None, limit) {
        Ok(rows) => Response::json(&json!({"schema": 1, "events": rows})),
        Err(error) => Response::error(503, "store", &error.to_string(), ""),
    });
}
