//! `Enroll`: token or trusted entry in, identity and pins out. The database has the last word on uniqueness; the answer
//! leaves after its commit.

use bytes::Bytes;
use common::crypto::{Context, PublicKey, enroll_transcript, sha256};
use common::ids::{Hash32, Uuid, is_hostname};
use common::limits;
use common::outcome::{Counts, Status};
use common::proto::{Code, Enrolled, wire};
use common::time::{Now, Wall};

use crate::app::{CallId, Effect, Pending, Server, TrustedEntry, fail};
use crate::store::{EnrollWrite, EnvoyRow, NO_SEALING_KEY, Write};

pub(super) fn on_enroll(server: &mut Server, now: Now, call: CallId, body: &Bytes, out: &mut Vec<Effect>) {
    let Some(request) = super::decode::<wire::EnrollRequest>(call, body, out) else { return };
    let Some((peer, Some(hello))) = server.sessions.get(&call.conn).map(|session| (session.peer, session.hello()))
    else {
        return fail(call, Code::Unauthenticated, "call Hello on this connection first", out);
    };
    if server.stepped_down() || server.draining {
        return fail(call, Code::Unavailable, "this server is read-only now: enroll at another one, or later", out);
    }
    let decided = decide(server, &request, &hello, peer, now.wall);
    match decided {
        Ok(write) => server.write(Write::Enroll(Box::new(write)), Pending::Enroll { call }, out),
        Err((code, message)) => {
            server.stats.refused += 1;
            fail(call, code, message, out);
        }
    }
}

fn decide(
    server: &mut Server,
    request: &wire::EnrollRequest,
    hello: &Hash32,
    peer: std::net::IpAddr,
    at: Wall,
) -> Result<EnrollWrite, (Code, String)> {
    let invalid = |text: &str| (Code::InvalidArgument, text.to_string());
    let hostname = request.hostname.to_lowercase();
    if !is_hostname(&hostname) {
        return Err(invalid("field hostname: expected a host name of letters, digits, hyphens and dots"));
    }
    let public_key = PublicKey::try_from_slice(&request.public_key)
        .map_err(|_| invalid("field public_key: expected an Ed25519 key of 32 bytes"))?;
    let sealing_key = sealing_key(&public_key, &request.sealing_key, &request.sealing_signature)?;
    let transcript = enroll_transcript(&server.identity.server_id, hello, &request.hostname, &request.token);
    public_key
        .verify(Context::Enroll, &transcript, &request.proof)
        .map_err(|_| invalid("field proof: expected a signature of this enrollment by public_key"))?;

    let by_token = !request.token.is_empty();
    let trusted = if by_token { None } else { Some(admitting(server, &hostname, peer, at)?) };
    let full = trusted.as_ref().is_none_or(|entry| entry.secrets);
    let row = EnvoyRow {
        uuid: Uuid::random(&mut *server.rng),
        bundle: server.bundle_for(&hostname),
        hostname,
        public_key,
        sealing_key,
        state: match full {
            // It may be one that was revoked after the backup that this database comes from.
            true if server.restore.review => Enrolled::Review,
            true => Enrolled::Active,
            false => Enrolled::Pending,
        },
        machine_id: cut(&request.machine_id),
        agent_version: cut(&request.agent_version),
        os: cut(&request.os),
        arch: cut(&request.arch),
        enrolled_at: at,
        enrolled_serial: 0,
        assigned_serial: 0,
        last_seen: at,
        status: Status::Nodata,
        counts: Counts::default(),
        watermark: [0; 2],
        link: [Hash32::ZERO; 2],
        trait_hash: 0,
        boot_id: String::new(),
    };
    Ok(EnrollWrite {
        row,
        token: by_token.then(|| sha256(&[request.token.as_bytes()])),
        trusted: trusted.and_then(|entry| entry.max.map(|max| (entry.key(), max))),
        at,
    })
}

fn admitting(
    server: &Server,
    hostname: &str,
    peer: std::net::IpAddr,
    at: Wall,
) -> Result<TrustedEntry, (Code, String)> {
    server.settings.trusted.iter().find(|entry| entry.admits(hostname, peer, at)).cloned().ok_or_else(|| {
        let text = format!(
            "no trusted entry admits {hostname} from {peer}, and no token was given: \
             run `vigocli envoys invite` on the server and use the line that it prints"
        );
        (Code::PermissionDenied, text)
    })
}

/// What an agent says about itself is cut to a line.
/// A sealing key that an envoy shows, with its signature.
pub(super) fn sealing_key(owner: &PublicKey, key: &[u8], signature: &[u8]) -> Result<[u8; 32], (Code, String)> {
    let invalid = |text: &str| (Code::InvalidArgument, text.to_string());
    let found: Option<[u8; 32]> = key.try_into().ok().filter(|key| *key != NO_SEALING_KEY);
    let found = found.ok_or_else(|| invalid("field sealing_key: expected an X25519 key of 32 bytes"))?;
    owner
        .verify(Context::Sealing, &found, signature)
        .map_err(|_| invalid("field sealing_signature: expected a signature of sealing_key by public_key"))?;
    Ok(found)
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(limits::HOSTNAME_BYTES_MAX / 2).collect()
}
