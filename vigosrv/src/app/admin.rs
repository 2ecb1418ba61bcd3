//! What operators ask of the core. Every change is durable before the operator reads "done".

use common::ids::{Uuid, hex, is_hostname};
use common::proto::Enrolled;
use common::time::Now;

use super::pending::AfterAdmin;
use super::periodic::push;
use super::{AdminError, AdminReply, AdminRequest, Effect, Pending, Server};
use crate::store::{AuditRow, InviteRow, NO_SEALING_KEY, PublishWrite, Write};

/// An operator wants something.
pub(crate) fn on_request(server: &mut Server, now: Now, ticket: u64, request: AdminRequest, out: &mut Vec<Effect>) {
    if server.stepped_down() && !matches!(request, AdminRequest::Stats) {
        return out.push(Effect::AdminReply { ticket, result: Err(AdminError::ReadOnly) });
    }
    if let Err(error) = decide(server, now, ticket, request, out) {
        out.push(Effect::AdminReply { ticket, result: Err(error) });
    }
}

fn decide(
    server: &mut Server,
    now: Now,
    ticket: u64,
    request: AdminRequest,
    out: &mut Vec<Effect>,
) -> Result<(), AdminError> {
    let at = now.wall;
    match request {
        AdminRequest::Invite { token, hostname, replace, ttl_ms, actor } => {
            let hostname = hostname.map(|name| name.to_lowercase());
            audit(server, now, &actor, "invite", hostname.as_deref().unwrap_or("any host"), out);
            let expires_at = common::time::Wall(at.0.saturating_add(i64::try_from(ttl_ms).unwrap_or(i64::MAX)));
            let row = InviteRow { token, hostname, replace, expires_at, created_at: at, author: actor };
            server.write(Write::Invite(row), Pending::Admin { ticket, then: AfterAdmin::Nothing }, out);
        }
        AdminRequest::Revoke { uuid, reason, actor } => {
            let name = name_of(server, &uuid)?;
            audit(server, now, &actor, "revoke", &name, out);
            let then = AfterAdmin::Revoked { uuid };
            server.write(Write::Revoke { uuid, at, reason }, Pending::Admin { ticket, then }, out);
        }
        AdminRequest::Approve { uuid, actor } => {
            let name = name_of(server, &uuid)?;
            let state = server.fleet.with(&uuid, |entry| entry.state).unwrap_or(Enrolled::Active);
            if state == Enrolled::Revoked {
                let cure = format!("{name} is revoked and stays so: enroll it anew with `vigocli envoys invite`");
                return Err(AdminError::Conflict(cure));
            }
            audit(server, now, &actor, "approve", &name, out);
            let then = AfterAdmin::State { uuid, state: Enrolled::Active };
            let write = Write::SetState { uuid, state: Enrolled::Active, new_serial: true, at };
            server.write(write, Pending::Admin { ticket, then }, out);
        }
        AdminRequest::Rename { uuid, hostname, actor } => {
            let name = name_of(server, &uuid)?;
            let hostname = hostname.to_lowercase();
            if !is_hostname(&hostname) {
                return Err(AdminError::Conflict(format!("`{hostname}` is not a host name")));
            }
            audit(server, now, &actor, "rename", &format!("{name} to {hostname}"), out);
            let bundle = server.bundle_for(&hostname);
            let then = AfterAdmin::Renamed { uuid, hostname: hostname.clone(), bundle };
            server.write(Write::Rename { uuid, hostname, bundle, at }, Pending::Admin { ticket, then }, out);
        }
        AdminRequest::Rekey { uuid, actor } => {
            let name = name_of(server, &uuid)?;
            let standing = server.fleet.with(&uuid, |entry| entry.state);
            if standing != Some(Enrolled::Active) {
                // It gets no secrets now: what it has under its present key is all that it has.
                let cure = format!("{name} gets no secrets now, and would lose those it has: approve it first");
                return Err(AdminError::Conflict(cure));
            }
            audit(server, now, &actor, "rekey", &name, out);
            let write = Write::SetSealingKey { uuid, key: NO_SEALING_KEY };
            server.write(write, Pending::Admin { ticket, then: AfterAdmin::Rekey { uuid } }, out);
        }
        AdminRequest::Push { uuids, actor } => {
            let subject = if uuids.is_empty() { "all".to_string() } else { format!("{} envoys", uuids.len()) };
            audit(server, now, &actor, "push", &subject, out);
            let held = server.watchers.len();
            let result = if uuids.is_empty() {
                server.periodic.push_all(&server.watchers, now.mono);
                let all = server.fleet.totals(&server.clocks(now.mono)).envoys as usize;
                AdminReply::Reached { now: held, later: all.saturating_sub(held) }
            } else {
                let reached = uuids.iter().filter(|uuid| push(server, uuid, out)).count();
                AdminReply::Reached { now: reached, later: uuids.len() - reached }
            };
            out.push(Effect::AdminReply { ticket, result: Ok(result) });
        }
        AdminRequest::Rebootstrap { uuids, target, actor } => {
            audit(server, now, &actor, "rebootstrap", &target.address, out);
            super::statements::order(server, now, ticket, uuids, &target, out);
        }
        AdminRequest::Published { compiled, actor, message, summary } => {
            audit(server, now, &actor, "publish", &hex(&compiled.tree_hash().0), out);
            let mut assign = Vec::new();
            server.fleet.for_each(|entry| {
                let bundle = compiled.bundle_for(&entry.hostname);
                if entry.may_connect() && bundle != entry.bundle {
                    assign.push((entry.uuid, bundle));
                }
            });
            let tree = compiled.tree_hash();
            let write = PublishWrite { tree, author: actor, message, summary, at, assign: assign.clone() };
            let then = AfterAdmin::Published { compiled, assign };
            server.write(Write::Publish(Box::new(write)), Pending::Admin { ticket, then }, out);
        }
        AdminRequest::Secrets { vault, changed, actor } => {
            // Also what another request noted and this one read: whoever comes first tells of both.
            let changed = server.vault.differences(&vault).chain(changed).collect::<std::collections::BTreeSet<_>>();
            let changed: Vec<String> = changed.into_iter().collect();
            audit(server, now, &actor, "secrets", &changed.join(", "), out);
            let assign = server.envoys_with(&changed);
            let write = Write::Assign { assign: assign.clone(), at };
            server.write(write, Pending::Admin { ticket, then: AfterAdmin::Secrets { vault, assign } }, out);
        }
        AdminRequest::Stats => {
            let mut stats = server.stats;
            stats.connections = server.sessions.len() as u64;
            stats.held = server.watchers.len() as u64;
            stats.pending_writes = server.pending.len() as u64;
            stats.epoch = server.state.version.epoch;
            stats.serial = server.state.version.serial;
            out.push(Effect::AdminReply { ticket, result: Ok(AdminReply::Stats(Box::new(stats))) });
        }
    }
    Ok(())
}

/// An envoy was revoked, durably: it is out at once.
pub(crate) fn revoked(server: &mut Server, uuid: &Uuid, out: &mut Vec<Effect>) {
    server.fleet.update(uuid, |entry| entry.state = Enrolled::Revoked);
    server.fleet.release_name(uuid);
    server.statements.remove(uuid);
    // Every connection on which it ever authenticated, not only the newest.
    for (conn, session) in &server.sessions {
        if session.uuid() == Some(*uuid) {
            out.push(Effect::Close { conn: *conn, graceful: false });
        }
    }
}

fn name_of(server: &Server, uuid: &Uuid) -> Result<String, AdminError> {
    server.fleet.with(uuid, |entry| entry.hostname.to_string()).ok_or(AdminError::UnknownEnvoy)
}

fn audit(server: &mut Server, now: Now, actor: &str, action: &str, subject: &str, out: &mut Vec<Effect>) {
    let row = AuditRow {
        at: now.wall,
        actor: actor.into(),
        action: action.into(),
        subject: subject.into(),
        detail: String::new(),
    };
    server.write(Write::Audit(row), Pending::Nobody, out);
}
