//! `/api/v1/secrets`: names and versions, never values; and word that some changed on disk.

use std::sync::{Arc, PoisonError};

use serde_json::json;

use super::{Context, Request, Respond, Response};
use crate::app::{AdminReply, AdminRequest};
use crate::secrets::SecretError;

pub(super) fn list(context: &Arc<Context>, respond: Respond) {
    let later = context.clone();
    context.job(respond, move |respond| {
        respond(match later.secrets.open() {
            Err(error) => failed(&error),
            Ok(opened) => {
                let all = opened.vault.versions().map(|(path, version)| json!({"path": path, "version": version}));
                let bad = opened.problems().map(|(path, why)| json!({"path": path, "problem": why}));
                Response::json(
                    &json!({"schema": 1, "secrets": all.collect::<Vec<_>>(), "bad": bad.collect::<Vec<_>>()}),
                )
            }
        });
    });
}

/// Reads them again, and gives the envoys of everything that changed a new serial.
pub(super) fn changed(context: &Arc<Context>, request: &Request, respond: Respond) {
    let (actor, later) = (request.actor(), context.clone());
    context.job(respond, move |respond| {
        let _turn = later.secrets_turn.lock().unwrap_or_else(PoisonError::into_inner);
        let read = later.secrets.pending().and_then(|changed| Ok((changed, later.secrets.open()?)));
        let (changed, opened) = match read {
            Ok(read) => read,
            Err(error) => return respond(failed(&error)),
        };
        let told = changed.clone();
        let request = AdminRequest::Secrets { vault: Arc::new(opened.vault), changed, actor };
        let settled = later.clone();
        later.core(request, respond, move |reply| {
            let (serial, envoys) = match reply {
                AdminReply::Published { serial, envoys } => (serial, envoys),
                _ => (0, 0),
            };
            // What stays noted is told once more at the next start, which does no harm.
            let _ = settled.secrets.settle(&told);
            Response::json(&json!({"schema": 1, "changed": told, "serial": serial, "envoys": envoys}))
        });
    });
}

pub(super) fn failed(error: &SecretError) -> Response {
    Response::error(503, "secrets", &error.to_string(), "")
}
