//! Signed redirects that were ordered and wait for their envoys' next contact: durable before the operator reads that they
//! are, handed over at every check-in until they run out, and said aloud when they do so without having been followed.

use common::ids::Uuid;
use common::limits::REBOOTSTRAPS_PER_SECOND_MAX;
use common::log::Level;
use common::proto::{Message, wire};
use common::time::{Mono, Now};

use super::pending::AfterAdmin;
use super::periodic::push;
use super::{AdminReply, Effect, Pending, RebootstrapTarget, Server, log};
use crate::store::{EventRow, StatementRow, Write};

/// A re-bootstrap statement is good for this long, in milliseconds of server time.
const STATEMENT_TTL_MS: u64 = 7 * 24 * 3_600_000;

/// A statement that waits.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    signed: wire::Signed,
    expires_ms: u64,
    epoch: u64,
}

/// How many statements were handed over lately. Whoever comes above the bound goes on as before, and hears it at a later check-in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handed {
    since: Mono,
    n: u32,
}

impl Handed {
    /// Whether one more may go now; then it counts.
    pub(crate) fn may(&mut self, now: Mono) -> bool {
        if now.since(self.since) >= 1_000 {
            *self = Handed { since: now, n: 0 };
        }
        self.n += 1;
        self.n <= REBOOTSTRAPS_PER_SECOND_MAX
    }
}

/// What was ordered before this process began. What ran out meanwhile is dropped.
pub(super) fn load(server: &mut Server, now: Now, rows: Vec<StatementRow>, out: &mut Vec<Effect>) {
    keep(server, rows);
    let over = |statement: &Statement| statement.expires_ms <= now.wall.ms();
    let late: Vec<Uuid> =
        server.statements.iter().filter(|(_, statement)| over(statement)).map(|(uuid, _)| *uuid).collect();
    late.iter().for_each(|uuid| give_up(server, now, uuid, out));
}

/// Makes one for each envoy (for all where none is named). The operator is answered when they are stored.
pub(super) fn order(
    server: &mut Server,
    now: Now,
    ticket: u64,
    mut uuids: Vec<Uuid>,
    target: &RebootstrapTarget,
    out: &mut Vec<Effect>,
) {
    if uuids.is_empty() {
        server.fleet.for_each(|entry| {
            if entry.may_connect() {
                uuids.push(entry.uuid);
            }
        });
    }
    let mut rows = Vec::with_capacity(uuids.len());
    for uuid in uuids {
        let mut nonce = vec![0; 16];
        server.rng.fill(&mut nonce);
        let statement = wire::Redirect {
            uuid: uuid.as_bytes().to_vec(),
            nonce,
            expires_ms: now.wall.ms() + STATEMENT_TTL_MS,
            epoch: server.state.version.epoch,
            address: target.address.clone(),
            ca_hash: ca_hash(&target.ca_pem),
            identity_key: target.identity_key.as_bytes().to_vec(),
            policy_key: target.policy_key.as_bytes().to_vec(),
            ca_pem: target.ca_pem.clone(),
        };
        let key = &server.identity.identity;
        let signed = common::bundle::sign(key, common::crypto::Context::Redirect, statement.encode_to_vec());
        rows.push(StatementRow { uuid, signed });
    }
    let then = AfterAdmin::Statements { rows: rows.clone() };
    server.write(Write::PutStatements(rows), Pending::Admin { ticket, then }, out);
}

/// They are stored.
pub(super) fn ordered(server: &mut Server, rows: Vec<StatementRow>, out: &mut Vec<Effect>) -> AdminReply {
    let total = rows.len();
    let uuids: Vec<Uuid> = rows.iter().map(|row| row.uuid).collect();
    keep(server, rows);
    // A held envoy is told to check in, and gets the statement there: one way to deliver it, not two.
    let reached = uuids.iter().filter(|uuid| push(server, uuid, out)).count();
    AdminReply::Reached { now: reached, later: total - reached }
}

/// The statement for an envoy that checks in. One that no envoy would follow any more is dropped: it would only keep policy
/// from this one.
pub(crate) fn statement_for(server: &mut Server, now: Now, uuid: &Uuid, out: &mut Vec<Effect>) -> Option<wire::Signed> {
    let epoch = server.state.version.epoch;
    let statement = server.statements.get(uuid)?;
    if statement.expires_ms > now.wall.ms() && statement.epoch == epoch {
        let signed = statement.signed.clone();
        return server.handed.may(now.mono).then_some(signed);
    }
    give_up(server, now, uuid, out);
    None
}

fn keep(server: &mut Server, rows: Vec<StatementRow>) {
    for StatementRow { uuid, signed } in rows {
        // Our own signature is on it; what does not read is of no use to anybody.
        let Ok(redirect) = wire::Redirect::decode(&signed.payload[..]) else { continue };
        if server.fleet.with(&uuid, |entry| entry.may_connect()) == Some(true) {
            let statement = Statement { signed, expires_ms: redirect.expires_ms, epoch: redirect.epoch };
            server.statements.insert(uuid, statement);
        }
    }
}

fn give_up(server: &mut Server, now: Now, uuid: &Uuid, out: &mut Vec<Effect>) {
    server.statements.remove(uuid);
    let name = server.fleet.with(uuid, |entry| entry.hostname.to_string()).unwrap_or_default();
    let detail = format!("{name}: the re-bootstrap that was ordered has run out; order it again if it is still wanted");
    log(Level::Warn, detail.clone(), out);
    let event = EventRow { at: now.wall, kind: "statement-expired".into(), uuid: Some(*uuid), detail };
    server.write(Write::Event(event), Pending::Nobody, out);
    server.write(Write::DropStatement { uuid: *uuid }, Pending::Nobody, out);
}

/// Hash of the certificate inside a PEM text; of the text itself where it is none, so that it fits nothing.
fn ca_hash(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let der = CertificateDer::from_pem_slice(pem.as_bytes());
    let bytes = der.as_ref().map_or(pem.as_bytes(), |der| der.as_ref());
    common::crypto::sha256(&[bytes]).0.to_vec()
}
