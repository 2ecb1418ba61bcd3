//! Who is at the other end: the first words on a connection, verified. Pure functions over bytes and pins; what follows
//! from their answers is decided in [`super::contact`].
//!
//! `Hello` comes first and says nothing about this envoy but versions. The reply is believed when the server's signature
//! covers this very TLS channel (exporter) and this very exchange; then the identity key in it is *some* server's. Whether
//! it is *the* server is [`judge`]'s question. Only then `Authenticate` goes out, with the envoy's own signature over the
//! same channel.

use common::crypto::{Context, PublicKey, Side, SigningKey, auth_transcript, hello_hash, server_id};
use common::ids::{Hash32, ServerId, Uuid};
use common::proto::{BadMessage, Message, PROTOCOL_VERSION, wire};

use super::events::PresentedCa;
use super::pins::PinnedServer;

/// Bytes of an address in a statement: a host name, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 300;
/// Bytes of a nonce in a statement.
const NONCE_BYTES: std::ops::RangeInclusive<usize> = 8..=64;

/// A verified `Hello`.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Hash of the identity key.
    pub server: ServerId,
    /// The key that signed.
    pub identity_key: PublicKey,
    /// The policy key, signed by the identity key.
    pub policy_key: PublicKey,
    /// CA that the server says it is under.
    pub ca_hash: Hash32,
    /// Its epoch.
    pub epoch: u64,
    /// Its time.
    pub server_time_ms: u64,
    /// Not verified yet: by whom depends on the pins.
    pub recovery: Option<wire::Signed>,
    /// Over the exchange, for our own signature.
    pub hash: Hash32,
}

/// Why the first words were not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloRefused {
    /// Not the promised messages.
    Message(BadMessage),
    /// No common protocol version: the one that the server chose.
    Version(u32),
    /// The signature is not by the key in it over this channel: somebody is in between.
    Proof,
    /// The policy key is not signed by the identity key.
    PolicyKey,
    /// The server id is not the hash of the identity key.
    ServerId,
}

impl std::fmt::Display for HelloRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HelloRefused::Message(bad) => write!(f, "hello refused: {bad}"),
            HelloRefused::Version(n) => {
                write!(
                    f,
                    "hello refused: the server speaks protocol {n}, this agent {PROTOCOL_VERSION}: upgrade the older"
                )
            }
            HelloRefused::Proof => {
                f.write_str("hello refused: the server's proof does not fit this connection: something is in between")
            }
            HelloRefused::PolicyKey => f.write_str("hello refused: the policy key is not signed by the identity key"),
            HelloRefused::ServerId => f.write_str("hello refused: the server id is not the hash of the identity key"),
        }
    }
}

impl std::error::Error for HelloRefused {}

/// What a believed `Hello` means to this envoy.
#[derive(Clone, Debug, PartialEq)]
pub enum Trust {
    /// The pinned server.
    Pinned,
    /// The pinned server, with a new policy key.
    NewPolicyKey(PublicKey),
    /// A rebuilt server that the recovery key vouches for: what to pin.
    Recovered(Box<PinnedServer>),
    /// The pinned identity, under a CA that is not the pinned one.
    OtherCa,
    /// Some other server: first 16 hex digits of its id.
    Changed(String),
}

/// The request. One encoding, so that its bytes can be hashed.
pub fn hello_request(version: &str) -> Vec<u8> {
    let request = wire::HelloRequest {
        protocol_versions: vec![PROTOCOL_VERSION],
        agent_version: version.into(),
        capabilities: Vec::new(),
    };
    request.encode_to_vec()
}

/// Verifies a reply to `request` on the channel with this exporter. `known`: a policy key whose signature need not be
/// checked again.
pub fn open_hello(
    request: &[u8],
    reply: &[u8],
    exporter: &[u8; 32],
    known: &PinnedServer,
) -> Result<Hello, HelloRefused> {
    let bad = |field: &str, expected| HelloRefused::Message(BadMessage::new(field, expected));
    let reply = wire::HelloReply::decode(reply).map_err(|_| bad("hello", "a HelloReply"))?;
    let body = wire::HelloBody::decode(&reply.body[..]).map_err(|_| bad("body", "a HelloBody"))?;
    if body.protocol_version != PROTOCOL_VERSION {
        return Err(HelloRefused::Version(body.protocol_version));
    }
    let key = |field, bytes: &[u8]| PublicKey::try_from_slice(bytes).map_err(|_| bad(field, "an Ed25519 key"));
    let hash = |field, bytes: &[u8]| Hash32::try_from_slice(bytes).map_err(|_| bad(field, "32 bytes"));
    let identity_key = key("identity_key", &body.identity_key)?;
    let policy_key = key("policy_key", &body.policy_key)?;
    let server = ServerId(hash("server_id", &body.server_id)?);
    let ca_hash = hash("ca_hash", &body.ca_hash)?;
    if server != server_id(&identity_key) {
        return Err(HelloRefused::ServerId);
    }
    let exchange = hello_hash(request, &reply.body);
    let transcript = auth_transcript(Side::Server, &server, &exchange, exporter);
    identity_key.verify(Context::Auth, &transcript, &reply.signature).map_err(|_| HelloRefused::Proof)?;
    let pinned = (known.identity_key, known.policy_key) == (identity_key, policy_key);
    if !pinned {
        let signed = identity_key.verify(Context::PolicyKey, policy_key.as_bytes(), &body.policy_key_signature);
        signed.map_err(|_| HelloRefused::PolicyKey)?;
    }
    Ok(Hello {
        server,
        identity_key,
        policy_key,
        ca_hash,
        epoch: body.epoch,
        server_time_ms: body.server_time_ms,
        recovery: body.recovery,
        hash: exchange,
    })
}

/// What a believed `Hello` means, against what is pinned. `server_now_ms`: for the expiry of a recovery statement.
pub fn judge(
    hello: &Hello,
    pinned: &PinnedServer,
    ca_trusted: bool,
    presented: Option<&PresentedCa>,
    server_now_ms: u64,
) -> Trust {
    if hello.identity_key == pinned.identity_key {
        return match (ca_trusted, hello.policy_key == pinned.policy_key) {
            (false, _) => Trust::OtherCa,
            (true, true) => Trust::Pinned,
            (true, false) => Trust::NewPolicyKey(hello.policy_key),
        };
    }
    match recovered(hello, pinned, presented, server_now_ms) {
        Some(server) => Trust::Recovered(Box::new(server)),
        None => Trust::Changed(format!("{:.16}", hello.server)),
    }
}

/// A statement of the pinned recovery key that names the pinned server as the old one, this server as the new one and this
/// CA, has not run out and does not go back in epochs.
fn recovered(
    hello: &Hello,
    pinned: &PinnedServer,
    presented: Option<&PresentedCa>,
    server_now_ms: u64,
) -> Option<PinnedServer> {
    let key = pinned.recovery_key?;
    let statement: wire::RecoveryStatement =
        common::bundle::open(&key, Context::Recovery, hello.recovery.as_ref()?).ok()?;
    let presented = presented?;
    let fits = statement.old_server_id == pinned.id().0.0
        && statement.identity_key == hello.identity_key.as_bytes()
        && statement.policy_key == hello.policy_key.as_bytes()
        && statement.ca_hash == presented.hash.0
        && statement.epoch >= pinned.epoch
        && statement.expires_ms > server_now_ms;
    fits.then(|| PinnedServer {
        identity_key: hello.identity_key,
        policy_key: hello.policy_key,
        ca_pem: presented.pem.clone(),
        ca_hash: presented.hash,
        epoch: statement.epoch,
        ..pinned.clone()
    })
}

/// This envoy's signature over the channel.
pub fn prove(key: &SigningKey, uuid: Uuid, hello: &Hello, exporter: &[u8; 32]) -> Vec<u8> {
    let transcript = auth_transcript(Side::Envoy(uuid), &hello.server, &hello.hash, exporter);
    key.sign(Context::Auth, &transcript).to_vec()
}

/// A verified redirect or re-bootstrap: where to, and what makes it work once.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// What to pin when the new server has proved itself.
    pub server: PinnedServer,
    /// Works once.
    pub nonce: Vec<u8>,
    /// Until then (server time, ms).
    pub expires_ms: u64,
}

/// Verifies a statement by the identity key of `from`, for this envoy. The error says what to log.
pub fn open_move(
    from: &PinnedServer,
    uuid: Uuid,
    signed: Option<&wire::Signed>,
    server_now_ms: u64,
    deny_new_identity: bool,
) -> Result<Move, String> {
    let signed = signed.ok_or("there is no statement")?;
    let raw: wire::Redirect =
        common::bundle::open(&from.identity_key, Context::Redirect, signed).map_err(|why| why.to_string())?;
    let key = |bytes: &[u8]| PublicKey::try_from_slice(bytes).map_err(|_| "a key in it has the wrong length");
    let (identity_key, policy_key) = (key(&raw.identity_key)?, key(&raw.policy_key)?);
    let ca_hash = Hash32::try_from_slice(&raw.ca_hash).map_err(|_| "the CA hash in it has the wrong length")?;
    if raw.uuid != uuid.as_bytes() {
        return Err("it is for another envoy".into());
    }
    if !NONCE_BYTES.contains(&raw.nonce.len()) {
        return Err("its nonce has the wrong length".into());
    }
    if raw.expires_ms <= server_now_ms {
        return Err("it has run out".into());
    }
    if raw.epoch < from.epoch {
        return Err(format!("its epoch {} is lower than {}", raw.epoch, from.epoch));
    }
    let port = raw.address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
    if raw.address.len() > ADDRESS_BYTES_MAX || !matches!(port, Some(Ok(_))) {
        return Err("its address is not host:port".into());
    }
    let same = identity_key == from.identity_key;
    if deny_new_identity && !same {
        return Err("the configuration says rebootstrap: deny".into());
    }
    let server = PinnedServer {
        identity_key,
        policy_key,
        recovery_key: from.recovery_key.filter(|_| same),
        ca_pem: if raw.ca_pem.is_empty() && same { from.ca_pem.clone() } else { raw.ca_pem },
        ca_hash,
        epoch: if same { raw.epoch } else { 0 },
        servers: vec![raw.address],
        ..from.clone()
    };
    Ok(Move { server, nonce: raw.nonce, expires_ms: raw.expires_ms })
}
