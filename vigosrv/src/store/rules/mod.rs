//! What every [`Write`] means, once for all stores: generic over [`Tables`], no clock, no entropy, no I/O of its own.
//!
//! A write that is refused has changed nothing: each rule looks first and writes last, so no savepoint is needed.

mod enroll;
mod hash;
mod results;

pub use hash::{audit_link, next_revocation};
pub use results::gap_reason;

use common::ids::{Hash32, Uuid};
use common::proto::Enrolled;
use common::time::Wall;

use super::tables::Tables;
use super::{AuditRow, EventRow, PublishWrite, StoreError, Write, Written};

/// Applies the writes of a batch in order. On an error the caller undoes the whole batch.
pub fn apply<T: Tables>(tables: &mut T, batch: &[Write]) -> Result<Vec<Written>, StoreError> {
    batch.iter().map(|write| apply_one(tables, write)).collect()
}

fn apply_one<T: Tables>(tables: &mut T, write: &Write) -> Result<Written, StoreError> {
    match write {
        Write::Enroll(enroll) => enroll::enroll(tables, enroll),
        Write::Readmit(row) => enroll::readmit(tables, row),
        Write::Results(results) => results::store(tables, results),
        Write::Sightings(sightings) => {
            sightings.iter().try_for_each(|sighting| tables.sight(sighting))?;
            Ok(Written::Done)
        }
        Write::Invite(invite) => {
            if tables.token(&invite.token)?.is_none() {
                tables.insert_token(invite)?;
            }
            Ok(Written::Done)
        }
        Write::Revoke { uuid, at, reason } => revoke(tables, uuid, *at, reason),
        Write::SetState { uuid, state: Enrolled::Revoked, at, .. } => revoke(tables, uuid, *at, "state"),
        Write::SetState { uuid, state, new_serial, .. } => set_state(tables, uuid, *state, *new_serial),
        Write::Rename { uuid, hostname, bundle, .. } => rename(tables, uuid, hostname, *bundle),
        Write::SetSealingKey { uuid, key } => set_sealing_key(tables, uuid, key),
        Write::Publish(publish) => publish_tree(tables, publish),
        Write::Assign { assign, .. } => {
            let serial = raise_serial(tables);
            assign_all(tables, assign, serial)
        }
        Write::SetInterval { interval_ms, .. } => {
            let serial = raise_serial(tables);
            let mut state = tables.server().clone();
            state.interval_ms = *interval_ms;
            tables.put_server(state);
            tables.set_serial(None, serial)?;
            Ok(state_now(tables))
        }
        Write::RaiseEpoch { epoch, reason, at } => raise_epoch(tables, *epoch, reason, *at),
        Write::PutStatements(rows) => {
            for row in rows {
                if standing(tables, &row.uuid)? {
                    tables.put_statement(row)?;
                }
            }
            Ok(Written::Done)
        }
        Write::DropStatement { uuid } => {
            tables.remove_statement(uuid)?;
            Ok(Written::Done)
        }
        Write::Event(event) => {
            tables.event(event)?;
            Ok(Written::Done)
        }
        Write::Audit(row) => audit(tables, row),
    }
}

fn state_now<T: Tables>(tables: &T) -> Written {
    Written::State(tables.server().clone())
}

/// The next serial, which becomes the server's.
fn raise_serial<T: Tables>(tables: &mut T) -> u64 {
    let mut state = tables.server().clone();
    state.version.serial += 1;
    let serial = state.version.serial;
    tables.put_server(state);
    serial
}

fn revoke<T: Tables>(tables: &mut T, uuid: &Uuid, at: Wall, reason: &str) -> Result<Written, StoreError> {
    let Some(row) = tables.envoy(uuid)? else { return Ok(Written::UnknownEnvoy) };
    // Said twice, it is one revocation: the counter is compared with what envoys echo.
    if row.state == Enrolled::Revoked {
        return Ok(state_now(tables));
    }
    let mut state = tables.server().clone();
    (state.revocation_counter, state.revocation_digest) =
        next_revocation(state.revocation_counter, state.revocation_digest, uuid);
    tables.insert_revocation(state.revocation_counter, uuid, at, reason)?;
    tables.put_server(state);
    tables.set_envoy_state(uuid, Enrolled::Revoked)?;
    tables.remove_statement(uuid)?;
    let detail = format!("{} is revoked: {reason}", row.hostname);
    tables.event(&EventRow { at, kind: "revoked".into(), uuid: Some(*uuid), detail })?;
    Ok(state_now(tables))
}

/// Envoys that are revoked stay so: a new standing is not for them.
fn standing<T: Tables>(tables: &mut T, uuid: &Uuid) -> Result<bool, StoreError> {
    Ok(tables.envoy(uuid)?.is_some_and(|row| row.state != Enrolled::Revoked))
}

fn set_state<T: Tables>(tables: &mut T, uuid: &Uuid, state: Enrolled, new_serial: bool) -> Result<Written, StoreError> {
    if !standing(tables, uuid)? {
        return Ok(Written::UnknownEnvoy);
    }
    tables.set_envoy_state(uuid, state)?;
    if new_serial {
        let serial = raise_serial(tables);
        tables.set_serial(Some(uuid), serial)?;
    }
    Ok(state_now(tables))
}

fn rename<T: Tables>(
    tables: &mut T,
    uuid: &Uuid,
    hostname: &str,
    bundle: Option<Hash32>,
) -> Result<Written, StoreError> {
    if !standing(tables, uuid)? {
        return Ok(Written::UnknownEnvoy);
    }
    if tables.envoys_named(hostname)?.iter().any(|other| other.uuid != *uuid) {
        return Ok(Written::NameTaken);
    }
    tables.set_hostname(uuid, hostname)?;
    let serial = raise_serial(tables);
    tables.assign(uuid, bundle, serial)?;
    Ok(state_now(tables))
}

fn set_sealing_key<T: Tables>(tables: &mut T, uuid: &Uuid, key: &[u8; 32]) -> Result<Written, StoreError> {
    if !standing(tables, uuid)? {
        return Ok(Written::UnknownEnvoy);
    }
    tables.set_sealing_key(uuid, key)?;
    let serial = raise_serial(tables);
    tables.set_serial(Some(uuid), serial)?;
    Ok(state_now(tables))
}

fn assign_all<T: Tables>(
    tables: &mut T,
    assign: &[(Uuid, Option<Hash32>)],
    serial: u64,
) -> Result<Written, StoreError> {
    assign.iter().try_for_each(|(uuid, bundle)| tables.assign(uuid, *bundle, serial))?;
    Ok(state_now(tables))
}

fn publish_tree<T: Tables>(tables: &mut T, publish: &PublishWrite) -> Result<Written, StoreError> {
    let serial = raise_serial(tables);
    let mut state = tables.server().clone();
    state.published = Some(publish.tree);
    tables.put_server(state);
    tables.insert_publish(serial, publish)?;
    assign_all(tables, &publish.assign, serial)
}

fn raise_epoch<T: Tables>(tables: &mut T, epoch: u64, reason: &str, at: Wall) -> Result<Written, StoreError> {
    let mut state = tables.server().clone();
    if epoch > state.version.epoch {
        // What was open when the backup was made may have been used, or taken back, since.
        let dropped = if tables.remove_open_tokens()? { "; invitations that were open are void" } else { "" };
        let detail = format!("epoch {} -> {epoch}: {reason}{dropped}", state.version.epoch);
        state.version.epoch = epoch;
        tables.put_server(state);
        tables.event(&EventRow { at, kind: "epoch".into(), uuid: None, detail })?;
    }
    Ok(state_now(tables))
}

fn audit<T: Tables>(tables: &mut T, row: &AuditRow) -> Result<Written, StoreError> {
    let hash = audit_link(&tables.audit_head()?, row);
    tables.insert_audit(row, hash)?;
    Ok(Written::Done)
}
