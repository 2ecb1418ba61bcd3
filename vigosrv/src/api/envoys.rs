//! Envoys: list, show, and what can be done to them.

use std::sync::Arc;

use common::crypto::{PublicKey, sha256};
use common::glob::Glob;
use common::ids::{Uuid, hex, is_hostname, unhex};
use common::outcome::Status;
use common::units::{duration_ms, nearest};
use serde_json::{Value, json};

use super::{Context, Request, Respond, Response};
use crate::app::{AdminReply, AdminRequest, RebootstrapTarget};
use crate::fleet::{Filter, View};

/// Rows of one page.
const PAGE_MAX: usize = 100_000;
/// How long a token is good when nobody says otherwise.
const TOKEN_TTL: &str = "24h";

pub(super) fn list(context: &Context, request: &Request) -> Response {
    let filter = match filter(request) {
        Ok(filter) => filter,
        Err(text) => return Response::error(400, "bad_filter", &text, ""),
    };
    let number = |name: &str, default| request.query(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (offset, limit) = (number("offset", 0), number("limit", PAGE_MAX).min(PAGE_MAX));
    let mut rows = context.fleet.list(&filter, &context.clocks());
    match request.query("sort").as_deref() {
        None | Some("hostname") => {}
        Some("status") => rows.sort_by_key(|row| row.status),
        Some("last_seen") => rows.sort_by_key(|row| row.last_seen),
        Some(other) => {
            let text = format!("cannot sort by `{other}`: there are hostname, status, last_seen");
            return Response::error(400, "bad_sort", &text, "");
        }
    }
    let total = rows.len();
    let page: Vec<Value> = rows.iter().skip(offset).take(limit).map(|row| document(context, row)).collect();
    Response::json(&json!({"schema": 1, "total": total, "envoys": page}))
}

fn filter(request: &Request) -> Result<Filter, String> {
    let name = match request.query("name") {
        Some(pattern) => Some(Glob::try_new(&pattern).map_err(|bad| bad.to_string())?),
        None => None,
    };
    let status = match request.query("status") {
        Some(word) => Some(Status::ALL.into_iter().find(|status| status.name() == word).ok_or_else(|| {
            let names = Status::ALL.map(Status::name);
            let hint = nearest(&word, names).map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
            format!("no such status: `{word}`{hint}; there are {}", names.join(", "))
        })?),
        None => None,
    };
    Ok(Filter { name, status, revoked: request.query("revoked").is_some_and(|value| value != "false") })
}

fn document(context: &Context, row: &View) -> Value {
    let now = context.backend.now();
    json!({
        "uuid": row.uuid.to_string(),
        "hostname": row.hostname,
        "state": row.state.name(),
        "status": row.status_text,
        "compliance": row.status.compliance(),
        "last_seen": row.last_seen.to_string(),
        "seen_ms_ago": now.wall.ms().saturating_sub(row.last_seen.ms()),
        "serial": row.serial,
        "bundle": row.bundle.map(|hash| hash.to_string()),
        "kept_cached": row.kept_cached,
        "counts": {
            "ok": row.counts.ok, "changed": row.counts.changed, "skipped": row.counts.skipped,
            "failed": row.counts.failed, "blocked": row.counts.blocked,
        },
        "queued": {"urgent": row.queued[0], "routine": row.queued[1]},
        "watermark": {"urgent": row.watermark[0], "routine": row.watermark[1]},
        "agent_version": row.agent_version,
        "cadence_ms": row.cadence_ms,
    })
}

/// An envoy by UUID or by host name, or the answer that names near ones.
pub(super) fn find(context: &Context, name: &str) -> Result<Uuid, Response> {
    let by_id = name.parse::<Uuid>().ok().filter(|uuid| context.fleet.with(uuid, |_| ()).is_some());
    by_id.or_else(|| context.fleet.by_name(&name.to_lowercase())).ok_or_else(|| {
        let names = context.fleet.names();
        let hint = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`vigocli nodes` lists them".into(),
        };
        Response::error(404, "unknown_envoy", &format!("no envoy is called `{name}`"), &hint)
    })
}

pub(super) fn show(context: &Arc<Context>, name: &str, respond: Respond) {
    let uuid = match find(context, name) {
        Ok(uuid) => uuid,
        Err(response) => return respond(response),
    };
    let Some(view) = context.fleet.view(&uuid, &context.clocks()) else {
        return respond(Response::error(404, "unknown_envoy", "no such envoy", ""));
    };
    respond(Response::json(&json!({"schema": 1, "envoy": document(context, &view)})));
}

pub(super) fn traits(context: &Arc<Context>, name: &str, respond: Respond) {
    let uuid = match find(context, name) {
        Ok(uuid) => uuid,
        Err(response) => return respond(response),
    };
    context.read(respond, move |reader| match reader.traits(&uuid) {
        Ok(trees) => {
            let map: serde_json::Map<String, Value> = trees
                .into_iter()
                .map(|tree| (tree.path, serde_json::from_str(&tree.json).unwrap_or(Value::Null)))
                .collect();
            Response::json(&json!({"schema": 1, "traits": map}))
        }
        Err(error) => Response::error(503, "store", &error.to_string(), ""),
    });
}

pub(super) fn act(context: &Arc<Context>, request: &Request, name: &str, action: &str, respond: Respond) {
    let uuid = match find(context, name) {
        Ok(uuid) => uuid,
        Err(response) => return respond(response),
    };
    let body = match request.json() {
        Ok(body) => body,
        Err(response) => return respond(response),
    };
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_string();
    let actor = request.actor();
    let wanted = match action {
        "push" => AdminRequest::Push { uuids: vec![uuid], actor },
        "revoke" => AdminRequest::Revoke { uuid, reason: text("reason"), actor },
        "approve" => AdminRequest::Approve { uuid, actor },
        "rename" => AdminRequest::Rename { uuid, hostname: text("hostname"), actor },
        "rekey" => AdminRequest::Rekey { uuid, actor },
        "rebootstrap" => match target(context, &body) {
            Ok(target) => AdminRequest::Rebootstrap { uuids: vec![uuid], target, actor },
            Err(text) => return respond(Response::error(400, "bad_target", &text, "")),
        },
        other => {
            let text = format!("nothing called `{other}` can be done to an envoy");
            return respond(Response::error(
                404,
                "not_found",
                &text,
                "push, revoke, approve, rename, rekey, rebootstrap",
            ));
        }
    };
    context.core(wanted, respond, done);
}

pub(super) fn act_all(context: &Arc<Context>, request: &Request, action: &str, respond: Respond) {
    let body = match request.json() {
        Ok(body) => body,
        Err(response) => return respond(response),
    };
    let actor = request.actor();
    let wanted = if action == "push" {
        AdminRequest::Push { uuids: Vec::new(), actor }
    } else {
        match target(context, &body) {
            Ok(target) => AdminRequest::Rebootstrap { uuids: Vec::new(), target, actor },
            Err(text) => return respond(Response::error(400, "bad_target", &text, "")),
        }
    };
    context.core(wanted, respond, done);
}

/// The server to move to; without one in the body it is this server, under its present keys and addresses.
fn target(context: &Context, body: &Value) -> Result<RebootstrapTarget, String> {
    let key = |name: &str, own: &PublicKey| match body[name].as_str() {
        None => Ok(*own),
        Some(text) => unhex(text)
            .and_then(|bytes| PublicKey::try_from_slice(&bytes).ok())
            .ok_or(format!("`{name}` is not a key of 64 hexadecimal digits")),
    };
    let own = context.servers.first().cloned().unwrap_or_default();
    Ok(RebootstrapTarget {
        address: body["address"].as_str().map_or(own, str::to_string),
        ca_pem: body["ca_pem"].as_str().unwrap_or(&context.trust.ca_pem).to_string(),
        identity_key: key("identity_key", &context.trust.identity_key)?,
        policy_key: key("policy_key", &context.trust.policy_key)?,
    })
}

pub(super) fn invite(context: &Arc<Context>, request: &Request, respond: Respond) {
    let body = match request.json() {
        Ok(body) => body,
        Err(response) => return respond(response),
    };
    let hostname = body["hostname"].as_str().map(str::to_lowercase);
    if let Some(name) = hostname.as_deref().filter(|name| !is_hostname(name)) {
        let text = format!("`{name}` is not a host name");
        return respond(Response::error(400, "bad_hostname", &text, "letters, digits, hyphens and dots"));
    }
    let ttl_ms = match duration_ms(body["ttl"].as_str().unwrap_or(TOKEN_TTL)) {
        Ok(ms) if ms > 0 => ms,
        Ok(_) => return respond(Response::error(400, "bad_ttl", "a token needs a time to live above 0", "")),
        Err(text) => return respond(Response::error(400, "bad_ttl", &text, "")),
    };
    let token = format!("vgt_{}", hex(&context.backend.random()));
    let wanted = AdminRequest::Invite {
        token: sha256(&[token.as_bytes()]),
        hostname: hostname.clone(),
        replace: body["replace"].as_bool().unwrap_or(false),
        ttl_ms,
        actor: request.actor(),
    };
    let server = context.servers.first().cloned().unwrap_or_default();
    let trust = context.trust.hash();
    let bootstrap = format!(
        "curl -sSfk https://{}/bootstrap | sudo sh -s -- --token {token} --trust-hash {trust}",
        context.api_address
    );
    let enroll = format!("vigo-envoy enroll --server {server} --token {token} --trust-hash {trust}");
    context.core(wanted, respond, move |_| {
        Response::json(&json!({
            "schema": 1, "token": token, "hostname": hostname, "ttl_ms": ttl_ms, "server": server,
            "trust_hash": trust.to_string(), "enroll": enroll, "bootstrap": bootstrap,
        }))
    });
}

fn done(reply: AdminReply) -> Response {
    match reply {
        AdminReply::Reached { now, later } => Response::json(&json!({"schema": 1, "reached": now, "later": later})),
        _ => Response::json(&json!({"schema": 1, "done": true})),
    }
}
