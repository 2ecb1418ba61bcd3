//! `/health` and `/api/v1/status`: how the server is.

use std::sync::Arc;

use common::outcome::Status;
use common::time::Wall;
use serde_json::{Value, json};

use super::{Context, Respond, Response};
use crate::app::{AdminReply, AdminRequest, Stats};
use crate::litestream::state::Replication;

/// For load balancers and probes: no authentication, no names.
pub(super) fn health(context: &Arc<Context>, respond: Respond) {
    let context_later = context.clone();
    context.core(AdminRequest::Stats, respond, move |reply| {
        let AdminReply::Stats(stats) = reply else { return Response::json(&json!({})) };
        let uptime = context_later.backend.now().mono.since(context_later.started.mono);
        Response::json(&json!({
            "status": word(&context_later, &stats),
            "version": common::cli::VERSION,
            "uptime_ms": uptime,
            "role": if stats.stepped_down { "stepped-down" } else { "standalone" },
            "database": database(&context_later, &stats),
        }))
    });
}

fn word(context: &Context, stats: &Stats) -> &'static str {
    if stats.stepped_down || database(context, stats) != "ok" { "degraded" } else { "ok" }
}

/// In one word, the worst first.
fn database(context: &Context, stats: &Stats) -> &'static str {
    if context.damage.get().is_some() {
        "damaged"
    } else if stats.disk_full {
        "full"
    } else {
        "ok"
    }
}

/// For operators: `vigocli status`.
pub(super) fn status(context: &Arc<Context>, respond: Respond) {
    let context_later = context.clone();
    context.core(AdminRequest::Stats, respond, move |reply| {
        let AdminReply::Stats(stats) = reply else { return Response::json(&json!({})) };
        let context = context_later;
        let totals = context.fleet.totals(&context.clocks());
        let by_status: serde_json::Map<String, Value> =
            Status::ALL.iter().zip(totals.by_status).map(|(status, n)| (status.name().into(), json!(n))).collect();
        Response::json(&json!({
            "schema": 1,
            "status": word(&context, &stats),
            "version": common::cli::VERSION,
            "server_id": context.trust.server_id.to_string(),
            "epoch": stats.epoch,
            "serial": stats.serial,
            "uptime_ms": context.backend.now().mono.since(context.started.mono),
            "started": context.started.wall.to_string(),
            "interval_ms": context.interval_ms,
            "envoys": totals.envoys,
            "revoked": totals.revoked,
            "pending": totals.pending,
            "kept_cached": totals.kept_cached,
            "seen_since_start": totals.back,
            "by_status": by_status,
            "connections": stats.connections,
            "held": stats.held,
            "stepped_down": stats.stepped_down,
            "review": stats.review,
            "disk_full": stats.disk_full,
            "database_damage": context.damage.get(),
            "pending_writes": stats.pending_writes,
            "replica": context.replication.as_ref().map(|watch| replica(&watch.now(), context.backend.now().wall)),
            "notes": context.notes,
        }))
    });
}

/// `lag_ms` is the time since Litestream last said that the replica has everything.
fn replica(state: &Replication, now: Wall) -> Value {
    json!({
        "url": state.url,
        "stage": state.stage.name(),
        "lag_ms": state.lag_ms(now),
        "synced": state.synced.map(|at| at.to_string()),
        "kept_bytes": state.kept_bytes,
        "restarts": state.restarts,
        "errors": state.errors,
        "trouble": state.trouble,
    })
}
