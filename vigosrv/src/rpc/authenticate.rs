//! `Authenticate`: one signature over the connection's TLS exporter, which then vouches for every later message.

use bytes::Bytes;
use common::bundle::Receipt;
use common::crypto::{Context, PublicKey, Side, auth_transcript, server_id};
use common::ids::{Hash32, Uuid};
use common::limits;
use common::outcome::{Counts, Status};
use common::proto::{Code, Enrolled, wire};
use common::time::Now;
use wire::authenticate_reply::Result as Answer;

use crate::app::{CallId, Effect, Pending, Server, Stage, fail, reply, revocation};
use crate::store::{EnvoyRow, Write};

pub(super) fn on_authenticate(server: &mut Server, now: Now, call: CallId, body: &Bytes, out: &mut Vec<Effect>) {
    let Some(request) = super::decode::<wire::AuthenticateRequest>(call, body, out) else { return };
    let Some((hello, exporter)) = server.sessions.get(&call.conn).and_then(|s| Some((s.hello()?, s.exporter))) else {
        return fail(call, Code::Unauthenticated, "call Hello on this connection first", out);
    };
    let Ok(uuid) = Uuid::try_from_slice(&request.uuid) else {
        return fail(call, Code::InvalidArgument, "field uuid: expected 16 bytes", out);
    };
    let transcript = auth_transcript(Side::Envoy(uuid), &server.identity.server_id, &hello, &exporter);
    let proves = |key: &PublicKey| key.verify(Context::Auth, &transcript, &request.signature).is_ok();

    let Some((key, state)) = server.fleet.with(&uuid, |entry| (entry.public_key, entry.state)) else {
        return unknown(server, now, call, uuid, &request, &proves, out);
    };
    if !proves(&key) {
        return refuse(server, now, call, Answer::BadSignature, out);
    }
    if state == Enrolled::Revoked {
        return refuse(server, now, call, Answer::Revoked, out);
    }
    let memory = memory(&request);
    let current = crate::app::weigh(server, now, uuid, memory, out);
    admit(server, call, uuid, current, hello, out);
    if !current {
        return refuse(server, now, call, Answer::SteppedDown, out);
    }
    let (boot_id, version) = (line(&request.boot_id), line(&request.agent_version));
    let alternates = server.fleet.update(&uuid, |entry| {
        if *entry.agent_version != *version {
            entry.agent_version = version.as_str().into();
        }
        entry.saw_boot(&boot_id)
    });
    if alternates == Some(true) {
        crate::app::found_duplicate(server, now, uuid, "two boot ids take turns", out);
    }
    finish_authenticate(server, now, call, uuid, None, out);
}

/// Answers "welcome" with everything that a new connection needs to know.
pub(crate) fn finish_authenticate(
    server: &mut Server,
    now: Now,
    call: CallId,
    uuid: Uuid,
    receipt: Option<wire::Signed>,
    out: &mut Vec<Effect>,
) {
    let Some(hello) = server.sessions.get(&call.conn).and_then(|session| session.hello()) else { return };
    admit(server, call, uuid, true, hello, out);
    let hold = hold(server);
    let Some((watermark, link, state)) = server.fleet.with(&uuid, |entry| (entry.watermark, entry.link, entry.state))
    else {
        return;
    };
    let links = [0, 1].map(|lane| if watermark[lane] == 0 { Vec::new() } else { link[lane].0.to_vec() });
    let [link_urgent, link_routine] = links;
    let answer = wire::AuthenticateReply {
        result: Answer::Ok as i32,
        epoch: server.state.version.epoch,
        revocation: revocation(&server.state),
        server_time_ms: now.wall.ms(),
        watermark_urgent: watermark[0],
        watermark_routine: watermark[1],
        link_urgent,
        link_routine,
        servers: server.settings.servers.iter().take(limits::SERVERS_MAX).cloned().collect(),
        hold,
        state: state.name().into(),
        receipt,
        recovery_key: server.identity.recovery.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        recovery_succession: server.identity.recovery_succession.clone(),
    };
    reply(call, &answer, out);
}

fn admit(server: &mut Server, call: CallId, uuid: Uuid, current: bool, hello: Hash32, out: &mut Vec<Effect>) {
    if let Some(session) = server.sessions.get_mut(&call.conn) {
        session.stage = Stage::Authenticated { uuid, current, hello };
        server.connected.insert(uuid, call.conn);
        out.push(Effect::Trust { conn: call.conn });
    }
}

fn hold(server: &Server) -> bool {
    use crate::app::Hold;
    match server.settings.hold {
        Hold::Always => true,
        Hold::Never => false,
        Hold::Auto => !server.draining && server.watchers.len() < server.settings.held_connections_max,
    }
}

/// The UUID is in no row. With a receipt of ours, the database is older than the enrollment.
fn unknown(
    server: &mut Server,
    now: Now,
    call: CallId,
    uuid: Uuid,
    request: &wire::AuthenticateRequest,
    proves: &dyn Fn(&PublicKey) -> bool,
    out: &mut Vec<Effect>,
) {
    let Some(signed) = &request.receipt else {
        return refuse(server, now, call, Answer::UnknownEnvoy, out);
    };
    let Some((receipt, former)) = open_receipt(server, signed).filter(|(receipt, _)| receipt.uuid == uuid) else {
        server.stats.refused += 1;
        return fail(call, Code::PermissionDenied, "this receipt is not one of this server for this envoy", out);
    };
    if !proves(&receipt.public_key) {
        return refuse(server, now, call, Answer::BadSignature, out);
    }
    if !crate::app::weigh(server, now, uuid, memory(request), out) {
        return refuse(server, now, call, Answer::SteppedDown, out);
    }
    let row = EnvoyRow {
        uuid,
        bundle: server.bundle_for(&receipt.hostname),
        hostname: receipt.hostname,
        public_key: receipt.public_key,
        sealing_key: receipt.sealing_key,
        state: Enrolled::Review,
        machine_id: line(&request.machine_id),
        agent_version: line(&request.agent_version),
        os: String::new(),
        arch: String::new(),
        enrolled_at: now.wall,
        // A serial of the server that was lost says nothing here.
        enrolled_serial: if former { 0 } else { receipt.serial },
        assigned_serial: 0,
        last_seen: now.wall,
        status: Status::Nodata,
        counts: Counts::default(),
        watermark: [0; 2],
        link: [Hash32::ZERO; 2],
        trait_hash: 0,
        boot_id: line(&request.boot_id),
    };
    server.write(Write::Readmit(Box::new(row)), Pending::Readmit { call, former }, out);
}

/// A receipt of this server, or (true) of the lost one in whose place a recovery statement puts it.
fn open_receipt(server: &Server, signed: &wire::Signed) -> Option<(Receipt, bool)> {
    let former = server.identity.rebuilt.as_ref().map(|rebuilt| (rebuilt.old_identity, true));
    [Some((server.identity.identity.public(), false)), former].into_iter().flatten().find_map(|(key, former)| {
        let receipt = Receipt::open(&key, signed).ok()?;
        (receipt.server == server_id(&key)).then_some((receipt, former))
    })
}

fn refuse(server: &mut Server, now: Now, call: CallId, result: Answer, out: &mut Vec<Effect>) {
    if result != Answer::UnknownEnvoy {
        server.stats.refused += 1;
    }
    let answer = wire::AuthenticateReply {
        result: result as i32,
        epoch: server.state.version.epoch,
        server_time_ms: now.wall.ms(),
        ..wire::AuthenticateReply::default()
    };
    reply(call, &answer, out);
}

fn memory(request: &wire::AuthenticateRequest) -> crate::app::Memory {
    let echo = request.revocation.unwrap_or_default();
    crate::app::Memory {
        epoch: request.epoch,
        assignment_epoch: request.assignment_epoch,
        serial: request.serial,
        acked_epoch: request.acked_epoch,
        acked: [request.acked_urgent, request.acked_routine],
        revocation_counter: echo.counter,
        revocation_digest: echo.digest,
    }
}

fn line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}
