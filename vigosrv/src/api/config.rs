//! Policy: what is published, and publishing.

use std::sync::{Arc, PoisonError};

use serde_json::json;

use super::{Context, Request, Respond, Response};
use crate::app::{AdminReply, AdminRequest};
use crate::publish;

pub(super) fn status(context: &Arc<Context>, respond: Respond) {
    let root = context.root.clone();
    context.read(respond, move |reader| match (reader.publishes(1), publish::live_tree(&root).ok().flatten()) {
        (Ok(newest), live) => {
            let newest = newest.first().map(|row| {
                json!({
                    "serial": row.serial, "tree": row.tree.to_string(), "author": row.author, "message": row.message,
                    "summary": row.summary, "at": row.at.to_string(),
                })
            });
            Response::json(&json!({"schema": 1, "live": live.map(|hash| hash.to_string()), "published": newest}))
        }
        (Err(error), _) => Response::error(503, "store", &error.to_string(), ""),
    });
}

pub(super) fn validate(context: &Arc<Context>, respond: Respond) {
    let (root, later) = (context.root.clone(), context.clone());
    context.job(respond, move |respond| {
        let site = match site(&later, &root) {
            Ok(site) => site,
            Err(response) => return respond(response),
        };
        respond(match publish::check(site) {
            Ok((tree, n)) => {
                Response::json(&json!({"schema": 1, "valid": true, "tree": tree.to_string(), "mappings": n}))
            }
            Err(error) => invalid(&error),
        });
    });
}

pub(super) fn publish(context: &Arc<Context>, request: &Request, respond: Respond) {
    let body = match request.json() {
        Ok(body) => body,
        Err(response) => return respond(response),
    };
    let message = body["message"].as_str().unwrap_or_default().to_string();
    let source = match body["tree"].as_str().map(str::parse) {
        None => publish::Source::Stacks,
        Some(Ok(tree)) => publish::Source::Kept(tree),
        Some(Err(_)) => {
            return respond(Response::error(400, "bad_request", "`tree` is no hash of 64 hexadecimal digits", ""));
        }
    };
    let (actor, root, later) = (request.actor(), context.root.clone(), context.clone());
    context.job(respond, move |respond| {
        let live = later.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let site = match site(&later, &root) {
            Ok(site) => site,
            Err(response) => return respond(response),
        };
        let published = match publish::publish(site, source, live.as_deref()) {
            Ok(published) => published,
            Err(error) => return respond(invalid(&error)),
        };
        let tree = published.tree;
        // What the disk has and the core has not (its record was refused) is published again.
        if published.unchanged && live.as_ref().is_some_and(|live| live.tree_hash() == tree) {
            let answer = json!({"schema": 1, "changed": false, "tree": tree.to_string(), "summary": published.changes.to_string()});
            return respond(Response::json(&answer));
        }
        let compiled = published.compiled;
        let changes =
            if published.unchanged { compiled.changes_from(live.as_deref()) } else { published.changes };
        let summary = changes.to_string();
        let served = later.clone();
        let current = compiled.clone();
        let request = AdminRequest::Published { compiled, actor, message, summary: summary.clone() };
        later.core(request, respond, move |reply| {
            *served.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
            let (serial, envoys) = match reply {
                AdminReply::Published { serial, envoys } => (serial, envoys),
                _ => (0, 0),
            };
            Response::json(&json!({
                "schema": 1, "changed": true, "tree": tree.to_string(), "serial": serial, "envoys": envoys,
                "summary": summary,
            }))
        });
    });
}

/// The root, and which secrets there are.
fn site<'r>(context: &Context, root: &'r std::path::Path) -> Result<publish::Site<'r>, Response> {
    let known = context.secrets.names();
    known.map(|known| publish::Site::with_secrets(root, known)).map_err(|error| super::secrets::failed(&error))
}

fn invalid(error: &publish::PublishError) -> Response {
    Response::error(422, "invalid_policy", &error.to_string(), "nothing was published; correct the files and try again")
}
