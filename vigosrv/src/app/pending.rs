//! Calls and operators that wait for the writer, and what happens when it answers.

use common::bundle::Receipt;
use common::ids::{Hash32, Uuid};
use common::log::Level;
use common::outcome::Status;
use common::proto::{Code, Enrolled, wire};
use common::time::Now;

use super::{AdminError, AdminReply, CallId, Effect, Server, entry_of, fail, log, reply, revocation};
use crate::fleet::Entry;
use crate::store::{EnrollRefusal, EventRow, NO_SEALING_KEY, ServerState, StoreError, StoredResults, Write, Written};

/// How long agents keep their results when the disk is full, in milliseconds.
const FULL_RETRY_MS: u32 = 60_000;
/// When the writer is behind, agents come back after this, in milliseconds.
pub(crate) const BEHIND_RETRY_MS: u32 = 2_000;

/// Who waits for a write.
#[derive(Debug)]
pub(crate) enum Pending {
    /// An `Enroll` call.
    Enroll { call: CallId },
    /// An `Authenticate` call with a receipt.
    Readmit { call: CallId, former: bool },
    /// A `Report` call.
    Report { call: CallId },
    /// An operator.
    Admin { ticket: u64, then: AfterAdmin },
    /// The core itself: assignments.
    Assigned { assign: Vec<(Uuid, Option<Hash32>)> },
    /// The core itself: a new check-in interval, for everybody.
    Interval,
    /// The core itself: a new epoch.
    Epoch,
    /// The core itself: another state for an envoy.
    State { uuid: Uuid, state: Enrolled },
    /// The core itself: a sealing key that an envoy showed.
    SealingKey { uuid: Uuid, key: [u8; 32] },
    /// The core itself: the old key of a replaced envoy.
    Replaced { old: Uuid },
    /// Nobody.
    Nobody,
}

/// What the core does once an operator's change is durable.
#[derive(Debug)]
pub(crate) enum AfterAdmin {
    /// Nothing.
    Nothing,
    /// Closes the envoy's connections.
    Revoked { uuid: Uuid },
    /// Hands the statements over.
    Statements { rows: Vec<crate::store::StatementRow> },
    /// Gives it its new standing.
    State { uuid: Uuid, state: Enrolled },
    /// Gives it its new name.
    Renamed { uuid: Uuid, hostname: String, bundle: Option<Hash32> },
    /// Seals nothing to it until it shows another key.
    Rekey { uuid: Uuid },
    /// Serves the new policy.
    Published { compiled: std::sync::Arc<crate::policy::Compiled>, assign: Vec<(Uuid, Option<Hash32>)> },
    /// Gives the new values.
    Secrets { vault: std::sync::Arc<crate::secrets::Vault>, assign: Vec<(Uuid, Option<Hash32>)> },
}

/// The writer is done with a ticket.
pub(crate) fn on_written(
    server: &mut Server,
    now: Now,
    ticket: u64,
    result: Result<Written, StoreError>,
    out: &mut Vec<Effect>,
) {
    let Some(pending) = server.pending.remove(&ticket) else { return };
    note_disk(server, &result, out);
    match (pending, result) {
        (Pending::Enroll { call }, result) => enrolled(server, now, call, result, out),
        (Pending::Readmit { call, former }, result) => readmitted(server, now, call, former, result, out),
        (Pending::Report { call }, result) => reported(server, now, call, result, out),
        (Pending::Admin { ticket, then }, result) => answered(server, now, ticket, then, result, out),
        (Pending::Assigned { assign }, Ok(Written::State(state))) => {
            server.state = state;
            server.apply_assignments(&assign);
        }
        (Pending::Interval, Ok(Written::State(state))) => {
            let serial = state.version.serial;
            server.state = state;
            server.fleet.for_each_mut(|entry| entry.assigned_serial = serial);
        }
        (Pending::Epoch, Ok(Written::State(state))) => {
            server.state = state;
            server.restore.refused = None;
        }
        (Pending::State { uuid, state }, Ok(written)) => {
            adopt(server, written);
            server.fleet.update(&uuid, |entry| entry.state = state);
        }
        (Pending::SealingKey { uuid, key }, Ok(Written::State(state))) => {
            server.state = state;
            take_sealing_key(server, &uuid, key, out);
        }
        (Pending::Replaced { old }, Ok(written)) => {
            adopt(server, written);
            super::admin::revoked(server, &old, out);
        }
        (Pending::Nobody, Ok(_)) => {}
        (Pending::Assigned { .. } | Pending::Interval, Err(error)) => {
            // A full disk: the next tick tries again, until every envoy has what the policy gives.
            server.periodic.reassign = true;
            log(Level::Warn, format!("assignments were not stored, to be tried again: {error}"), out);
        }
        (Pending::Epoch, Err(error)) => {
            // The next tick tries again, or the next envoy that knows more.
            server.restore.raising = 0;
            log(Level::Error, format!("the new epoch was not stored: {error}"), out);
        }
        (pending, Err(error)) => log(Level::Error, format!("a change was not stored ({pending:?}): {error}"), out),
        (pending, Ok(other)) => log(Level::Error, format!("the store answered {pending:?} with {other:?}"), out),
    }
}

/// A sealing key is stored: what the envoy has is sealed anew, or it hears that another one is wanted.
fn take_sealing_key(server: &mut Server, uuid: &Uuid, key: [u8; 32], out: &mut Vec<Effect>) {
    let serial = server.state.version.serial;
    server.fleet.update(uuid, |entry| (entry.sealing_key, entry.assigned_serial) = (key, serial));
    super::periodic::push(server, uuid, out);
}

/// One line when the disk fills, one when it has room again.
fn note_disk(server: &mut Server, result: &Result<Written, StoreError>, out: &mut Vec<Effect>) {
    let full = matches!(result, Err(StoreError::Full));
    if full && !server.stats.disk_full {
        log(Level::Error, "the disk is full: results are refused and stay with the agents until there is room", out);
    } else if !full && result.is_ok() && server.stats.disk_full {
        log(Level::Info, "the disk has room again: results are stored", out);
    }
    server.stats.disk_full = full || (server.stats.disk_full && result.is_err());
}

fn adopt(server: &mut Server, written: Written) {
    if let Written::State(state) = written {
        server.state = state;
    }
}

fn enrolled(server: &mut Server, now: Now, call: CallId, result: Result<Written, StoreError>, out: &mut Vec<Effect>) {
    let row = match result {
        Ok(Written::Enrolled(row)) => row,
        Ok(Written::EnrollRefused(refusal)) => {
            server.stats.refused += 1;
            let (code, message) = refusal_text(refusal);
            return fail(call, code, message, out);
        }
        Ok(other) => return fail(call, Code::Internal, format!("unexpected answer of the store: {other:?}"), out),
        Err(error) => return fail(call, Code::Unavailable, format!("the enrollment was not stored: {error}"), out),
    };
    server.stats.enrolled += 1;
    let known = server.fleet.with(&row.uuid, |_| ()).is_some();
    if !known {
        if let Some(old) = server.fleet.by_name(&row.hostname)
            && old != row.uuid
        {
            server.replacing.insert(row.uuid, old);
        }
        server.fleet.insert(entry_of(&row, now));
        super::restore::came(server, now, row.uuid, row.state, out);
    }
    log(Level::Info, format!("enrolled {} as {} ({})", row.hostname, row.uuid, row.state.name()), out);
    let answer = wire::EnrollReply {
        uuid: row.uuid.as_bytes().to_vec(),
        hostname: row.hostname.clone(),
        ca_pem: server.identity.ca_pem.clone(),
        policy_key: server.identity.policy.public().as_bytes().to_vec(),
        recovery_key: server.identity.recovery.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        receipt: Some(receipt(server, &entry_of(&row, now))),
        epoch: server.state.version.epoch,
        state: row.state.name().into(),
        servers: server.settings.servers.clone(),
        server_time_ms: now.wall.ms(),
    };
    // The policy may have changed between decision and commit.
    let bundle = server.bundle_for(&row.hostname);
    if bundle != row.bundle && server.served.is_published() {
        let assign = vec![(row.uuid, bundle)];
        let write = Write::Assign { assign: assign.clone(), at: now.wall };
        server.write(write, Pending::Assigned { assign }, out);
    }
    reply(call, &answer, out);
}

/// The envoy's proof of its enrollment.
pub(crate) fn receipt(server: &Server, entry: &Entry) -> wire::Signed {
    let receipt = Receipt {
        uuid: entry.uuid,
        public_key: entry.public_key,
        sealing_key: entry.sealing_key,
        hostname: entry.hostname.to_string(),
        server: server.identity.server_id,
        serial: entry.enrolled_serial,
    };
    receipt.sign(&server.identity.identity)
}

fn refusal_text(refusal: EnrollRefusal) -> (Code, &'static str) {
    match refusal {
        EnrollRefusal::UnknownToken => {
            (Code::PermissionDenied, "this token is not known here: ask for a new one with `vigocli envoys invite`")
        }
        EnrollRefusal::ExpiredToken => {
            (Code::PermissionDenied, "this token has expired: ask for a new one with `vigocli envoys invite`")
        }
        EnrollRefusal::UsedToken => (
            Code::PermissionDenied,
            "this token was used by another host: every host needs its own, from `vigocli envoys invite`",
        ),
        EnrollRefusal::WrongHostname => (
            Code::PermissionDenied,
            "this token is bound to another host name: invite this one, or enroll with --hostname",
        ),
        EnrollRefusal::NameTaken => (
            Code::AlreadyExists,
            "another key is enrolled under this host name: `vigocli envoys invite --replace HOST` lets this one take its place",
        ),
        EnrollRefusal::TrustedFull => (
            Code::PermissionDenied,
            "the trusted entry that matches has enrolled its maximum: raise `max` or use `vigocli envoys invite`",
        ),
    }
}

fn readmitted(
    server: &mut Server,
    now: Now,
    call: CallId,
    former: bool,
    result: Result<Written, StoreError>,
    out: &mut Vec<Effect>,
) {
    match result {
        Ok(Written::Enrolled(row)) => {
            let detail = match former {
                true => format!("{} was an envoy of the server that was lost", row.hostname),
                false => format!("{} was enrolled after the backup that this database comes from", row.hostname),
            };
            let event = EventRow { at: now.wall, kind: "readmitted".into(), uuid: Some(row.uuid), detail };
            server.write(Write::Event(event), Pending::Nobody, out);
            log(Level::Warn, format!("re-admitted {} ({}) for review by its receipt", row.hostname, row.uuid), out);
            server.fleet.insert(entry_of(&row, now));
            let receipt = receipt(server, &entry_of(&row, now));
            crate::rpc::finish_authenticate(server, now, call, row.uuid, Some(receipt), out);
        }
        Ok(Written::NameTaken | Written::EnrollRefused(EnrollRefusal::NameTaken)) => {
            fail(
                call,
                Code::AlreadyExists,
                "another envoy holds this host name now: rename or revoke one of them",
                out,
            );
        }
        Ok(other) => fail(call, Code::Internal, format!("unexpected answer of the store: {other:?}"), out),
        Err(error) => fail(call, Code::Unavailable, format!("the re-admission was not stored: {error}"), out),
    }
}

fn reported(server: &mut Server, now: Now, call: CallId, result: Result<Written, StoreError>, out: &mut Vec<Effect>) {
    if let Some(session) = server.sessions.get_mut(&call.conn) {
        session.reporting = false;
    }
    match result {
        Ok(Written::Stored(stored)) => {
            note_stored(server, now, &stored, out);
            let answer = wire::ReportReply {
                watermark_urgent: stored.watermark[0],
                watermark_routine: stored.watermark[1],
                epoch: server.state.version.epoch,
                revocation: revocation(&server.state),
                server_time_ms: now.wall.ms(),
                retry_after_ms: 0,
                trait_hash: stored.trait_hash,
            };
            reply(call, &answer, out);
        }
        Ok(Written::UnknownEnvoy) => fail(call, Code::Unauthenticated, "this envoy is not known any more", out),
        Ok(other) => fail(call, Code::Internal, format!("unexpected answer of the store: {other:?}"), out),
        Err(error @ (StoreError::Full | StoreError::Behind)) => {
            let uuid = server.sessions.get(&call.conn).and_then(|session| session.uuid());
            let retry_ms = if error == StoreError::Full { FULL_RETRY_MS } else { BEHIND_RETRY_MS };
            put_off(server, now, call, uuid, retry_ms, out);
        }
        Err(error) => {
            log(Level::Error, format!("results were not stored: {error}"), out);
            fail(call, Code::Unavailable, "the server could not store the results: keep them and try again", out);
        }
    }
}

/// Answers a `Report` with "keep everything, come back".
pub(crate) fn put_off(server: &mut Server, now: Now, call: CallId, uuid: Option<Uuid>, ms: u32, out: &mut Vec<Effect>) {
    server.stats.reports_later += 1;
    let known = uuid.and_then(|uuid| server.fleet.with(&uuid, |entry| (entry.watermark, entry.trait_hash)));
    let (watermark, trait_hash) = known.unwrap_or_default();
    let answer = wire::ReportReply {
        watermark_urgent: watermark[0],
        watermark_routine: watermark[1],
        epoch: server.state.version.epoch,
        revocation: revocation(&server.state),
        server_time_ms: now.wall.ms(),
        retry_after_ms: ms,
        trait_hash,
    };
    reply(call, &answer, out);
}

fn note_stored(server: &mut Server, now: Now, stored: &StoredResults, out: &mut Vec<Effect>) {
    let before = server.fleet.update(&stored.uuid, |entry| {
        let before = entry.watermark;
        (entry.watermark, entry.link, entry.trait_hash) = (stored.watermark, stored.link, stored.trait_hash);
        if let Some((status, counts)) = stored.newest {
            (entry.status, entry.counts, entry.dirty) = (status, counts, true);
        }
        before
    });
    if let Some(before) = before {
        server.stats.records_stored +=
            (0..2).map(|lane| stored.watermark[lane].saturating_sub(before[lane])).sum::<u64>();
    }
    if !stored.forks.is_empty() {
        found_duplicate(server, now, stored.uuid, "its result chain forks", out);
    }
}

/// Two hosts with one identity: say so, once.
pub(crate) fn found_duplicate(server: &mut Server, now: Now, uuid: Uuid, why: &str, out: &mut Vec<Effect>) {
    let name = server.fleet.with(&uuid, |entry| (entry.state, entry.hostname.to_string()));
    let Some((state, name)) = name else { return };
    if matches!(state, Enrolled::Duplicate | Enrolled::Revoked) {
        return;
    }
    log(Level::Warn, format!("{name} ({uuid}) seems to be two hosts: {why}; secrets are withheld"), out);
    let event = EventRow { at: now.wall, kind: "duplicate".into(), uuid: Some(uuid), detail: why.into() };
    server.write(Write::Event(event), Pending::Nobody, out);
    let state = Enrolled::Duplicate;
    server.write(Write::SetState { uuid, state, new_serial: true, at: now.wall }, Pending::State { uuid, state }, out);
}

fn answered(
    server: &mut Server,
    now: Now,
    ticket: u64,
    then: AfterAdmin,
    result: Result<Written, StoreError>,
    out: &mut Vec<Effect>,
) {
    let refuse = |error| Effect::AdminReply { ticket, result: Err(error) };
    let written = match result {
        Ok(Written::UnknownEnvoy) => return out.push(refuse(AdminError::UnknownEnvoy)),
        Ok(Written::NameTaken) => return out.push(refuse(AdminError::NameTaken)),
        Err(error) => return out.push(refuse(AdminError::Store(error))),
        Ok(written) => written,
    };
    let state: Option<ServerState> = if let Written::State(state) = written { Some(state) } else { None };
    if let Some(state) = state {
        server.state = state;
    }
    let mut answer = AdminReply::Done;
    match then {
        AfterAdmin::Nothing => {}
        AfterAdmin::Revoked { uuid } => super::admin::revoked(server, &uuid, out),
        AfterAdmin::Statements { rows } => answer = super::statements::ordered(server, rows, out),
        AfterAdmin::State { uuid, state } => {
            let serial = server.state.version.serial;
            server.fleet.update(&uuid, |entry| {
                (entry.state, entry.assigned_serial) = (state, serial);
                if entry.status == Status::Duplicate || entry.status == Status::Review {
                    entry.status = Status::Nodata;
                }
            });
            super::periodic::push(server, &uuid, out);
        }
        AfterAdmin::Renamed { uuid, hostname, bundle } => {
            server.fleet.rename(&uuid, &hostname);
            server.apply_assignments(&[(uuid, bundle)]);
            super::periodic::push(server, &uuid, out);
        }
        AfterAdmin::Rekey { uuid } => take_sealing_key(server, &uuid, NO_SEALING_KEY, out),
        AfterAdmin::Published { compiled, assign } => {
            server.served.replace(compiled);
            server.apply_assignments(&assign);
            server.periodic.push_all(&server.watchers, now.mono);
            answer = AdminReply::Published { serial: server.state.version.serial, envoys: assign.len() };
            server.reassign_differing(now, out);
        }
        AfterAdmin::Secrets { vault, assign } => {
            server.vault = vault;
            server.apply_assignments(&assign);
            for (uuid, _) in &assign {
                super::periodic::push(server, uuid, out);
            }
            answer = AdminReply::Published { serial: server.state.version.serial, envoys: assign.len() };
        }
    }
    out.push(Effect::AdminReply { ticket, result: Ok(answer) });
}
