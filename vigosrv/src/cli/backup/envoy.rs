//! An envoy for one check-in: enrolls with a token, authenticates, checks in, as a real agent would. For drills.

use common::cli::{VERSION, build_ms};
use common::crypto::{
    Context, PublicKey, Side, SigningKey, auth_transcript, enroll_transcript, hello_hash, sealing_public, server_id,
};
use common::ids::Uuid;
use common::net::{Line, LineClock};
use common::proto::{Message, PROTOCOL_VERSION, method, wire};
use common::rng::{Rng, SystemRng};
use common::sys::Clock;
use common::time::Wall;

/// Name of the simulated host.
const HOSTNAME: &str = "vigo-drill.invalid";

/// What the check-in showed.
pub(super) struct CheckedIn {
    /// Id of the server that proved itself.
    pub server_id: String,
    /// Its epoch.
    pub epoch: u64,
    /// What it answered.
    pub answer: &'static str,
}

/// Everything that happens once. The error says which step failed.
pub(super) fn check_in(address: &str, token: &str) -> Result<CheckedIn, String> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("`{address}` is no address"))?;
    let port = port.parse().map_err(|_| format!("`{address}` is no address"))?;
    let mut rng = SystemRng::default();
    let key = SigningKey::generate(&mut rng);
    let mut sealing = zeroize::Zeroizing::new([0; 32]);
    rng.fill(&mut *sealing);
    let sealing = sealing_public(&sealing);

    let mut line = open(host, port)?;
    let (identity, hash, _) = greet(&mut line)?;
    let transcript = enroll_transcript(&server_id(&identity), &hash, HOSTNAME, token);
    let request = wire::EnrollRequest {
        token: token.into(),
        hostname: HOSTNAME.into(),
        public_key: key.public().as_bytes().to_vec(),
        sealing_key: sealing.to_vec(),
        sealing_signature: key.sign(Context::Sealing, &sealing).to_vec(),
        proof: key.sign(Context::Enroll, &transcript).to_vec(),
        machine_id: String::new(),
        os: "linux".into(),
        arch: std::env::consts::ARCH.into(),
        agent_version: VERSION.into(),
    };
    let enrolled: wire::EnrollReply = call(&mut line, "Enroll", method::ENROLL, &request)?;
    let uuid = Uuid::try_from_slice(&enrolled.uuid).map_err(|_| "Enroll: the answer has no UUID".to_string())?;

    let mut line = open(host, port)?;
    let (identity, hash, exporter) = greet(&mut line)?;
    let server = server_id(&identity);
    let transcript = auth_transcript(Side::Envoy(uuid), &server, &hash, &exporter);
    let request = wire::AuthenticateRequest {
        uuid: uuid.as_bytes().to_vec(),
        signature: key.sign(Context::Auth, &transcript).to_vec(),
        agent_version: VERSION.into(),
        ..wire::AuthenticateRequest::default()
    };
    let reply: wire::AuthenticateReply = call(&mut line, "Authenticate", method::AUTHENTICATE, &request)?;
    if reply.result != wire::authenticate_reply::Result::Ok as i32 {
        return Err(format!("Authenticate: the server answered {}", reply.result));
    }
    let request = wire::CheckInRequest::default();
    let reply: wire::CheckInReply = call(&mut line, "CheckIn", method::CHECK_IN, &request)?;
    use wire::check_in_reply::Result as Answer;
    let answer = match Answer::try_from(reply.result) {
        Ok(Answer::KeepCached) => "keep what you have",
        Ok(Answer::Send) => "a policy",
        Ok(Answer::NoChange) => "no change",
        _ => return Err(format!("CheckIn: the server answered {}", reply.result)),
    };
    Ok(CheckedIn { server_id: server.to_string(), epoch: reply.epoch, answer })
}

fn open(host: &str, port: u16) -> Result<Line, String> {
    let clock = Clock::system();
    let real = clock.clone();
    let clock = LineClock { now: Box::new(move || clock.now()), real: Box::new(move |ms| real.real(ms)) };
    Line::open(host, port, Wall(build_ms() as i64), clock)
}

/// `Hello`, believed only when the server has proved its identity key on this very channel.
fn greet(line: &mut Line) -> Result<(PublicKey, common::ids::Hash32, [u8; 32]), String> {
    let request = wire::HelloRequest {
        protocol_versions: vec![PROTOCOL_VERSION],
        agent_version: VERSION.into(),
        capabilities: Vec::new(),
    };
    let sent = request.encode_to_vec();
    let reply: wire::HelloReply = call(line, "Hello", method::HELLO, &request)?;
    let body = wire::HelloBody::decode(&reply.body[..]).map_err(|_| "Hello: the answer cannot be read".to_string())?;
    let identity = PublicKey::try_from_slice(&body.identity_key).map_err(|_| "Hello: no identity key".to_string())?;
    let (hash, exporter) = (hello_hash(&sent, &reply.body), line.identity.exporter);
    let transcript = auth_transcript(Side::Server, &server_id(&identity), &hash, &exporter);
    identity
        .verify(Context::Auth, &transcript, &reply.signature)
        .map_err(|_| "Hello: the server did not prove its identity key".to_string())?;
    Ok((identity, hash, exporter))
}

fn call<Q: Message, A: Message + Default>(
    line: &mut Line,
    name: &str,
    path: &'static str,
    request: &Q,
) -> Result<A, String> {
    let answer = line.call(path, &request.encode_to_vec()).map_err(|error| format!("{name}: {error}"))?;
    A::decode(answer).map_err(|_| format!("{name}: the answer cannot be read"))
}
