//! `vigo-envoy enroll`: creates the identity, asks the server for a name in its fleet, and pins whom to trust. Blocking: it has
//! nothing else to do. Nothing is saved before the server's answer was checked whole.

use common::cli::{Exit, Failure, VERSION, build_ms};
use common::crypto::{
    Context, PublicKey, Side, auth_transcript, enroll_transcript, hello_hash, server_id, sha256, trust_hash,
};
use common::ids::{Hash32, Uuid, is_hostname};
use common::limits;
use common::net::{CallError, Line, LineClock, Pins as CaPins};
use common::proto::{Code, Message, method, wire};
use common::rng::SystemRng;
use common::sys::Clock;
use common::time::Wall;

use crate::agent::hello_request;
use crate::agent::pins::{PinnedServer, Pins};
use crate::identity::{Enrollment, EnvoyKeys, IdentityDir};

/// What to enroll with.
#[derive(Clone, Debug)]
pub struct Enroll {
    /// `host` or `host:port`.
    pub server: String,
    /// One-time token; empty where a trusted entry should match.
    pub token: String,
    /// The name to ask for.
    pub hostname: String,
    /// How the server proves itself the first time.
    pub trusting: Trusting,
    /// Also where this host is enrolled: with a server that is lost. Key and queue are kept.
    pub again: bool,
}

/// How the server proves itself the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusting {
    /// Its CA, identity and policy key have this hash.
    Hash(Hash32),
    /// Whoever answers is believed.
    FirstUse,
    /// Nothing was said: show the fingerprint and stop.
    Ask,
}

/// Enrolls and saves. Returns what was saved and the standing that the server gave.
pub fn enroll(dir: &IdentityDir, wanted: &Enroll, clock: &Clock) -> Result<(Enrollment, String), Failure> {
    let known = dir.enrollment()?;
    if let Some(known) = known.as_ref().filter(|_| !wanted.again) {
        let name = &known.pins.server.hostname;
        return Err(Failure::failed(format!("this host is enrolled already, as {name}"))
            .hint("where its server is lost, stop the agent and say --again: key and queue are kept"));
    }
    if !is_hostname(&wanted.hostname) {
        return Err(Failure::usage(format!("`{}` is not a host name", wanted.hostname)).hint("use --hostname NAME"));
    }
    let keys = dir.keys(&mut SystemRng::default())?;
    let mut line = open_line(&wanted.server, clock)?;
    let hello = hello_request(VERSION).encode_to_vec();
    let reply =
        wire::HelloReply::decode(&call(&mut line, method::HELLO, &hello)?[..]).map_err(|_| nonsense("Hello"))?;
    let body = wire::HelloBody::decode(&reply.body[..]).map_err(|_| nonsense("Hello"))?;
    let identity = checked_identity(&reply, &body, &hello, &line.identity.exporter)?;
    let policy = PublicKey::try_from_slice(&body.policy_key).map_err(|_| nonsense("Hello"))?;
    identity
        .verify(Context::PolicyKey, policy.as_bytes(), &body.policy_key_signature)
        .map_err(|_| distrust("its policy key is not signed by its identity key"))?;
    let ca_hash = Hash32::try_from_slice(&body.ca_hash).map_err(|_| nonsense("Hello"))?;
    decide_trust(wanted, &trust_hash(&ca_hash, &identity, &policy))?;

    let hash = hello_hash(&hello, &reply.body);
    let request = enroll_request(wanted, &keys, &identity, &hash);
    let answer = call(&mut line, method::ENROLL, &request.encode_to_vec())?;
    let answer = wire::EnrollReply::decode(&answer[..]).map_err(|_| nonsense("Enroll"))?;
    let mut enrollment = checked_enrollment(answer.clone(), identity, policy, ca_hash, &line, &wanted.server)?;
    if let Some(known) = known {
        // The queue is under the name that the server before gave; a second time, perhaps still under the one before that.
        let former = Some(known.uuid).filter(|uuid| *uuid != enrollment.uuid).or(known.pins.former_uuid);
        let server = std::mem::replace(&mut enrollment.pins, known.pins).server;
        enrollment.pins.replace_server(server);
        enrollment.pins.former_uuid = former;
    }
    dir.save(&enrollment)?;
    Ok((enrollment, answer.state))
}

fn checked_identity(
    reply: &wire::HelloReply,
    body: &wire::HelloBody,
    hello: &[u8],
    exporter: &[u8; 32],
) -> Result<PublicKey, Failure> {
    let identity = PublicKey::try_from_slice(&body.identity_key).map_err(|_| nonsense("Hello"))?;
    let transcript = auth_transcript(Side::Server, &server_id(&identity), &hello_hash(hello, &reply.body), exporter);
    identity
        .verify(Context::Auth, &transcript, &reply.signature)
        .map_err(|_| distrust("it did not prove its identity key on this connection"))?;
    Ok(identity)
}

fn decide_trust(wanted: &Enroll, found: &Hash32) -> Result<(), Failure> {
    match wanted.trusting {
        Trusting::FirstUse => Ok(()),
        Trusting::Hash(hash) if hash == *found => Ok(()),
        Trusting::Hash(hash) => Err(Failure::new(
            Exit::NotPermitted,
            format!("{} has the trust hash {found}, expected {hash}: it is another server", wanted.server),
        )
        .hint("take the line that `vigocli envoys invite` prints on the right server; nothing was sent to this one")),
        Trusting::Ask => Err(Failure::new(
            Exit::NotPermitted,
            format!("{} is not known yet; its trust hash is {found}", wanted.server),
        )
        .hint("compare it with `vigocli envoys invite` and say --trust-hash HASH, or believe it with --trust-on-first-use")),
    }
}

fn enroll_request(wanted: &Enroll, keys: &EnvoyKeys, identity: &PublicKey, hello: &Hash32) -> wire::EnrollRequest {
    let transcript = enroll_transcript(&server_id(identity), hello, &wanted.hostname, &wanted.token);
    wire::EnrollRequest {
        token: wanted.token.clone(),
        hostname: wanted.hostname.clone(),
        public_key: keys.identity.public().as_bytes().to_vec(),
        sealing_key: keys.sealing.public.to_vec(),
        sealing_signature: keys.sealing_signature.to_vec(),
        proof: keys.identity.sign(Context::Enroll, &transcript).to_vec(),
        machine_id: super::read_id("/etc/machine-id"),
        os: "linux".into(),
        arch: std::env::consts::ARCH.into(),
        agent_version: VERSION.into(),
    }
}

fn checked_enrollment(
    answer: wire::EnrollReply,
    identity: PublicKey,
    policy: PublicKey,
    ca_hash: Hash32,
    line: &Line,
    server: &str,
) -> Result<Enrollment, Failure> {
    let uuid = Uuid::try_from_slice(&answer.uuid).map_err(|_| nonsense("Enroll"))?;
    let ca = CaPins::from_pem(&answer.ca_pem).map_err(|_| nonsense("Enroll"))?;
    // The CA that the server hands out must be the one that it named, and the one that its own certificate chains to.
    let der_hash = pem_hash(&answer.ca_pem);
    if der_hash != Some(ca_hash) || ca.check(&line.identity.chain, trust_time()).is_err() {
        return Err(distrust("its certificate does not chain to the CA that it names"));
    }
    if answer.policy_key != policy.as_bytes() {
        return Err(distrust("it names two policy keys"));
    }
    let recovery_key = match answer.recovery_key.len() {
        0 => None,
        _ => Some(PublicKey::try_from_slice(&answer.recovery_key).map_err(|_| nonsense("Enroll"))?),
    };
    let mut servers = vec![server.to_string()];
    servers.extend(answer.servers.into_iter().filter(|other| other != server).take(limits::SERVERS_MAX - 1));
    let pinned = PinnedServer {
        identity_key: identity,
        policy_key: policy,
        recovery_key,
        ca_pem: answer.ca_pem,
        ca_hash,
        epoch: answer.epoch,
        receipt: answer.receipt,
        hostname: answer.hostname,
        servers,
    };
    if pinned.receipt().is_none_or(|receipt| receipt.uuid != uuid) {
        return Err(distrust("its receipt is not for this envoy"));
    }
    Ok(Enrollment { uuid, pins: Pins::new(pinned) })
}

/// SHA-256 of the certificate in a PEM text.
fn pem_hash(pem: &str) -> Option<Hash32> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| sha256(&[der.as_ref()]))
}

fn nonsense(call: &str) -> Failure {
    Failure::new(Exit::Unreachable, format!("the answer to {call} is not one of a Vigo server"))
        .hint("is the port right? Agents talk to 1530")
}

fn distrust(why: &str) -> Failure {
    Failure::new(Exit::NotPermitted, format!("the server is not to be trusted: {why}"))
        .hint("somebody may be in between; nothing was saved")
}

/// A connection to the server that was named, believed by nobody yet.
fn open_line(server: &str, clock: &Clock) -> Result<Line, Failure> {
    let (host, port) = crate::link::split(server)
        .ok_or_else(|| Failure::usage(format!("`{server}` is not a server address")).hint("write HOST or HOST:PORT"))?;
    let (of_now, of_real) = (clock.clone(), clock.clone());
    let clock = LineClock { now: Box::new(move || of_now.now()), real: Box::new(move |ms| of_real.real(ms)) };
    Line::open(host, port, trust_time(), clock)
        .map_err(|why| Failure::new(Exit::Unreachable, why).hint("is it running, and is its port open?"))
}

/// The build date: certificates that ended before it are over, whatever the clock of this host says.
fn trust_time() -> Wall {
    Wall(build_ms() as i64)
}

fn call(line: &mut Line, path: &'static str, message: &[u8]) -> Result<bytes::Bytes, Failure> {
    line.call(path, message).map_err(|error| match error {
        CallError::Status(_) => refused(error),
        other => Failure::new(Exit::Unreachable, format!("the server gave no answer: {other}")),
    })
}

fn refused(error: CallError) -> Failure {
    match error {
        CallError::Status(status) => {
            let exit = match status.code {
                Code::PermissionDenied | Code::Unauthenticated | Code::AlreadyExists => Exit::NotPermitted,
                Code::Unavailable | Code::ResourceExhausted => Exit::TryAgain,
                _ => Exit::Failed,
            };
            Failure::new(exit, format!("the server refused: {}", status.message))
        }
        other => Failure::new(Exit::Unreachable, other.to_string()),
    }
}
