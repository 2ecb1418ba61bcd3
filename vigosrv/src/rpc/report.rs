//! `Report`: a batch of queued records and trait trees. The answer waits for the commit.

use bytes::Bytes;
use common::limits;
use common::proto::{BadMessage, Code, RecordBody, record_meta, wire};
use common::time::Now;

use crate::app::{BEHIND_RETRY_MS, CallId, Effect, Pending, Server, fail, put_off};
use crate::store::{RecordKind, ResultsWrite, StoredRecord, Write};

pub(super) fn on_report(server: &mut Server, now: Now, call: CallId, body: &Bytes, out: &mut Vec<Effect>) {
    let Some(uuid) = super::authenticated(server, call, out) else { return };
    if body.len() > limits::REPORT_BYTES_MAX {
        return fail(call, Code::ResourceExhausted, "a Report has at most 1 MiB: send fewer records", out);
    }
    let Some(request) = super::decode::<wire::ReportRequest>(call, body, out) else { return };
    if server.stepped_down() {
        return fail(call, Code::FailedPrecondition, "this server is read-only now: keep the results", out);
    }
    let Some(session) = server.sessions.get_mut(&call.conn) else { return };
    if session.reporting {
        return fail(call, Code::Aborted, "one Report at a time on a connection", out);
    }
    let write = match checked(uuid, request, now) {
        Ok(write) => write,
        Err(bad) => return fail(call, Code::InvalidArgument, bad.to_string(), out),
    };
    if server.pending.len() >= server.settings.pending_writes_max {
        return put_off(server, now, call, Some(uuid), BEHIND_RETRY_MS, out);
    }
    session.reporting = true;
    server.fleet.update(&uuid, |entry| entry.touch(now.mono, now.wall));
    server.write(Write::Results(Box::new(write)), Pending::Report { call }, out);
}

/// The message as a write: every record checked before any is stored.
fn checked(uuid: common::ids::Uuid, request: wire::ReportRequest, now: Now) -> Result<ResultsWrite, BadMessage> {
    if request.records.len() > limits::REPORT_RECORDS_MAX {
        return Err(BadMessage::new("records", "at most 512 records"));
    }
    if request.traits.len() + request.removed_traits.len() > limits::REPORT_TREES_MAX {
        return Err(BadMessage::new("traits", "at most 64 trees"));
    }
    let mut records = Vec::with_capacity(request.records.len());
    for (index, record) in request.records.into_iter().enumerate() {
        let (meta, decoded) = record_meta(&record)
            .map_err(|bad| BadMessage::new(format!("records[{index}].{}", bad.field), bad.expected))?;
        use wire::record::Body;
        let Some(Body::Run(body) | Body::Stretch(body) | Body::Gap(body) | Body::Incident(body)) = record.body else {
            return Err(BadMessage::new(format!("records[{index}].body"), "a body"));
        };
        let kind = match &decoded {
            RecordBody::Run(_) => RecordKind::Run,
            RecordBody::Stretch(_) => RecordKind::Stretch,
            RecordBody::Gap(_) => RecordKind::Gap,
            RecordBody::Incident(_) => RecordKind::Incident,
        };
        records.push(StoredRecord { meta, kind, body, decoded });
    }
    let mut stable = false;
    let mut traits = Vec::with_capacity(request.traits.len());
    for (index, tree) in request.traits.into_iter().enumerate() {
        let fits = tree.json.len() <= limits::TRAIT_TREE_BYTES_MAX
            && serde_json::from_str::<serde::de::IgnoredAny>(&tree.json).is_ok();
        if !fits || tree.path.is_empty() || tree.path.len() > limits::TRAIT_NAME_BYTES_MAX {
            return Err(BadMessage::new(format!("traits[{index}]"), "a named tree of JSON of at most 256 KiB"));
        }
        stable |= !tree.volatile;
        traits.push((tree.path, tree.json, tree.volatile));
    }
    stable |= !request.removed_traits.is_empty();
    Ok(ResultsWrite {
        uuid,
        records,
        traits,
        removed_traits: request.removed_traits,
        trait_hash: stable.then_some(request.trait_hash),
        trait_base: request.trait_base,
        at: now.wall,
    })
}
