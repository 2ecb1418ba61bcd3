//! `CheckIn`: heartbeat and bundle negotiation. The hot path: no disk, no signature, nothing that grows with the policy,
//! unless something is new for this envoy.

use bytes::Bytes;
use common::bundle::{Assignment, SealedSecret, Version};
use common::ids::{Hash32, Uuid};
use common::limits;
use common::log::Level;
use common::outcome::Status;
use common::proto::{Code, Enrolled, counts_from_wire, wire};
use common::time::Now;
use wire::check_in_reply::Result as Answer;

use crate::app::{CallId, Effect, Pending, Server, Verdict, fail, reply, revocation};
use crate::fleet::Entry;
use crate::store::{EventRow, NO_SEALING_KEY, Write};

/// What a check-in is answered with. A pure decision over the entry and the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    NoChange,
    KeepCached,
    Send { bundle: Hash32, version: Version, with_bundle: bool },
}

pub(super) fn on_check_in(server: &mut Server, now: Now, call: CallId, body: &Bytes, out: &mut Vec<Effect>) {
    let Some(uuid) = super::authenticated(server, call, out) else { return };
    let Some(request) = super::decode::<wire::CheckInRequest>(call, body, out) else { return };
    let mut answer = wire::CheckInReply {
        epoch: server.state.version.epoch,
        revocation: revocation(&server.state),
        server_time_ms: now.wall.ms(),
        ..wire::CheckInReply::default()
    };
    if server.stepped_down() {
        answer.result = Answer::SteppedDown as i32;
        return reply(call, &answer, out);
    }
    let reserved = server.fleet.with(&uuid, |entry| entry.reserved).flatten();
    if let Verdict::Later(ms) = server.admission.judge(now.mono, reserved) {
        server.fleet.update(&uuid, |entry| entry.reserved = Some(now.mono + u64::from(ms)));
        server.stats.checkins_later += 1;
        (answer.result, answer.retry_after_ms) = (Answer::Later as i32, ms);
        return reply(call, &answer, out);
    }
    let (epoch, published) = (server.state.version.epoch, server.served.is_published());
    let decided = server.fleet.update(&uuid, |entry| {
        sight(entry, &request, now);
        let decision = decide(entry, &request, epoch, published);
        entry.kept_cached = decision == Decision::KeepCached;
        (decision, request.trait_hash != entry.trait_hash)
    });
    let Some((decision, want_traits)) = decided else {
        return fail(call, Code::Unauthenticated, "this envoy is not known any more", out);
    };
    answer.want_traits = want_traits;
    if let Some(statement) = crate::app::statement_for(server, now, &uuid, out) {
        (answer.result, answer.redirect) = (Answer::Redirect as i32, Some(statement));
        return reply(call, &answer, out);
    }
    if let Err((code, text)) = sealing_key(server, now, uuid, &request, &mut answer, out) {
        return fail(call, code, text, out);
    }
    match decision {
        Decision::NoChange => {
            server.stats.checkins_no_change += 1;
            answer.result = Answer::NoChange as i32;
        }
        Decision::KeepCached => {
            server.stats.checkins_keep_cached += 1;
            answer.result = Answer::KeepCached as i32;
        }
        Decision::Send { bundle, version, with_bundle } => {
            let Some(signed) = server.served.signed(&bundle, &server.identity.policy) else {
                // The tree that is served has no such bundle: a publish is under way. Nothing half new.
                answer.result = Answer::KeepCached as i32;
                return reply(call, &answer, out);
            };
            server.stats.checkins_sent += 1;
            answer.result = Answer::Send as i32;
            answer.assignment = Some(assign(server, now, uuid, bundle, version, out));
            answer.bundle = with_bundle.then_some(signed);
        }
    }
    reply(call, &answer, out);
    replaced(server, now, uuid, out);
}

/// A sealing key that is shown is stored, one that is stored is confirmed, one that is wanted is asked for.
fn sealing_key(
    server: &mut Server,
    now: Now,
    uuid: Uuid,
    request: &wire::CheckInRequest,
    answer: &mut wire::CheckInReply,
    out: &mut Vec<Effect>,
) -> Result<(), (Code, String)> {
    let Some((known, owner)) = server.fleet.with(&uuid, |entry| (entry.sealing_key, entry.public_key)) else {
        return Ok(());
    };
    if request.sealing_key.is_empty() {
        answer.want_sealing_key = known == NO_SEALING_KEY;
        return Ok(());
    }
    let shown = super::enroll::sealing_key(&owner, &request.sealing_key, &request.sealing_signature)?;
    if shown == known {
        answer.receipt = server.fleet.with(&uuid, |entry| crate::app::receipt(server, entry));
        return Ok(());
    }
    let detail = "it has another sealing key".to_string();
    let event = EventRow { at: now.wall, kind: "rekeyed".into(), uuid: Some(uuid), detail };
    server.write(Write::Event(event), Pending::Nobody, out);
    server.write(Write::SetSealingKey { uuid, key: shown }, Pending::SealingKey { uuid, key: shown }, out);
    Ok(())
}

fn decide(entry: &Entry, request: &wire::CheckInRequest, epoch: u64, published: bool) -> Decision {
    let Some(bundle) = entry.bundle.filter(|_| published) else { return Decision::KeepCached };
    let has_bundle = request.bundle_hash == bundle.0;
    if has_bundle && request.epoch == epoch && request.serial == entry.assigned_serial {
        return Decision::NoChange;
    }
    let version = Version { epoch, serial: entry.assigned_serial };
    Decision::Send { bundle, version, with_bundle: !has_bundle }
}

fn sight(entry: &mut Entry, request: &wire::CheckInRequest, now: Now) {
    entry.touch(now.mono, now.wall);
    entry.reserved = None;
    entry.queued = [request.queue_urgent, request.queue_routine];
    if request.runs > 0 || request.last_run.is_some() {
        entry.counts = counts_from_wire(request.last_run.as_ref());
        // Only what a run can say of itself; the rest is the server's to judge.
        if let Some(status) = Status::from_u32(request.status)
            && status >= Status::Failed
        {
            entry.status = status;
        }
    }
}

fn assign(
    server: &mut Server,
    now: Now,
    uuid: Uuid,
    bundle: Hash32,
    version: Version,
    out: &mut Vec<Effect>,
) -> wire::Signed {
    let secrets = seal(server, uuid, &bundle, out);
    let hostname = server.fleet.with(&uuid, |entry| entry.hostname.to_string()).unwrap_or_default();
    let assignment = Assignment {
        server: server.identity.server_id,
        version,
        uuid,
        bundle,
        secrets: secrets.iter().map(|secret| secret.reference.clone()).collect(),
        interval_ms: server.settings.interval_ms,
        issued_at_ms: now.wall.ms(),
        max_age_ms: server.settings.bundle_max_age_ms,
        hostname,
    };
    let mut signed = assignment.sign(&server.identity.policy);
    signed.sealed = secrets.iter().map(|secret| secret.sign(&server.identity.policy)).collect();
    signed
}

/// The secrets of a bundle, sealed to an envoy that may have them. What there is none of is left out: an envoy goes on with
/// what it has.
fn seal(server: &mut Server, uuid: Uuid, bundle: &Hash32, out: &mut Vec<Effect>) -> Vec<SealedSecret> {
    let paths = server.served.secrets(bundle);
    if paths.is_empty() {
        return Vec::new();
    }
    let standing = server.fleet.with(&uuid, |entry| (entry.state, entry.sealing_key));
    let Some((Enrolled::Active, key)) = standing else { return Vec::new() };
    let (mut sealed, mut bytes) = (Vec::new(), 0);
    for path in paths {
        let Some(secret) = server.vault.get(path) else { continue };
        bytes += secret.value.len();
        if bytes > limits::SEALED_BYTES_MAX {
            let text =
                format!("{uuid}: its secrets have more than {} bytes, `{path}` is left out", limits::SEALED_BYTES_MAX);
            out.push(Effect::Log { level: Level::Error, line: text });
            break;
        }
        match SealedSecret::seal(&mut *server.rng, uuid, &key, (path, secret.version), &secret.value) {
            Ok(one) => sealed.push(one),
            Err(error) => {
                let text = format!("{uuid}: nothing can be sealed to its key: {error}; enroll it anew");
                out.push(Effect::Log { level: Level::Error, line: text });
                break;
            }
        }
    }
    sealed
}

/// The first check-in of an envoy that was enrolled to replace another retires the other's key.
fn replaced(server: &mut Server, now: Now, uuid: Uuid, out: &mut Vec<Effect>) {
    let Some(old) = server.replacing.remove(&uuid) else { return };
    if server.fleet.with(&old, |entry| entry.state) == Some(Enrolled::Revoked) {
        return;
    }
    let reason = format!("replaced by {uuid}");
    server.write(Write::Revoke { uuid: old, at: now.wall, reason }, Pending::Replaced { old }, out);
}
