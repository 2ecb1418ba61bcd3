//! The archives under `paths.snapshots`: listed, and sent as they are.

use std::sync::Arc;

use common::time::Wall;
use serde_json::{Value, json};

use super::{Body, Context, Respond, Response};
use crate::backup::{self, Listed, Proof, Proofs};

pub(super) fn list(context: &Arc<Context>, respond: Respond) {
    let directory = context.snapshots.clone();
    context.job(respond, move |respond| {
        let proofs = Proofs::read(&directory).proofs;
        respond(match backup::list(&directory) {
            Ok(all) => {
                let rows: Vec<Value> = all.iter().map(|one| document(one, &proofs)).collect();
                Response::json(&json!({"schema": 1, "directory": directory, "archives": rows}))
            }
            Err(error) => Response::error(500, "file", &error.to_string(), ""),
        });
    });
}

/// One archive, in the same words for REST and `vigocli`.
pub(crate) fn document(one: &Listed, proofs: &[Proof]) -> Value {
    let proved = proofs.iter().rev().find(|proof| proof.archive == one.name).map(|proof| proof.at.as_str());
    json!({
        "name": one.name, "bytes": one.bytes, "modified": Wall(one.modified_ms).to_string(),
        "encrypted": one.encrypted, "sidecar": one.has_sidecar, "proved": proved,
    })
}

pub(super) fn download(context: &Context, name: &str) -> Response {
    let archive = name.strip_suffix(".sha256").unwrap_or(name);
    let path = context.snapshots.join(name);
    if !backup::is_archive_name(archive) || !path.is_file() {
        let text = format!("there is no archive called `{name}`");
        return Response::error(404, "unknown_archive", &text, "GET /api/v1/backups lists them");
    }
    let content_type = if archive == name { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    Response { status: 200, content_type, body: Body::File(path) }
}
