//! The primitives, in one place: SHA-256, Ed25519, and the context strings that keep signatures apart.

mod seal;
mod seed;
mod sign;

pub use seal::{BadSeal, NONCE_BYTES, Sealed, TAG_BYTES, decrypt, encrypt, seal, sealing_key_id, unseal};
pub use seed::{BadSeed, KEY_FILE_BYTES_MAX, Purpose, parse_seed, seed_text};
pub use sign::{BadKey, BadSignature, PublicKey, SigningKey, sealing_public};

use crate::ids::{Hash32, ServerId};

/// SHA-256 over the parts in order. Parts of variable length must be framed by the caller.
pub fn sha256(parts: &[&[u8]]) -> Hash32 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finish()
}

/// SHA-256 of what comes in pieces.
pub struct Sha256(ring::digest::Context);

impl Default for Sha256 {
    fn default() -> Sha256 {
        Sha256::new()
    }
}

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Sha256 {
        Sha256(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Adds a piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all pieces.
    pub fn finish(self) -> Hash32 {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        Hash32(out)
    }
}

/// Server id of an identity key.
pub fn server_id(identity: &PublicKey) -> ServerId {
    ServerId(sha256(&[identity.as_bytes()]))
}

/// What a signature is for. The string is signed in front of the payload, so that no signature fits another use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A bundle, by the policy key.
    Bundle,
    /// An assignment, by the policy key.
    Assignment,
    /// A receipt of enrollment, by the identity key.
    Receipt,
    /// A redirect or re-bootstrap, by the identity key.
    Redirect,
    /// The policy key, by the identity key.
    PolicyKey,
    /// A recovery statement, by the recovery key.
    Recovery,
    /// A recovery key, by the one before it.
    RecoveryKey,
    /// An envoy's sealing key, by its identity key.
    Sealing,
    /// A sealed secret, by the policy key.
    Secret,
    /// Proof of possession at enrollment, by the envoy's key.
    Enroll,
    /// One side of a connection.
    Auth,
}

impl Context {
    /// The bytes in front of every payload, NUL included.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Context::Bundle => b"vigo-bundle-v1\0",
            Context::Assignment => b"vigo-assignment-v1\0",
            Context::Receipt => b"vigo-receipt-v1\0",
            Context::Redirect => b"vigo-redirect-v1\0",
            Context::PolicyKey => b"vigo-policy-key-v1\0",
            Context::Recovery => b"vigo-recovery-v1\0",
            Context::RecoveryKey => b"vigo-recovery-key-v1\0",
            Context::Sealing => b"vigo-sealing-v1\0",
            Context::Secret => b"vigo-secret-v1\0",
            Context::Enroll => b"vigo-enroll-v1\0",
            Context::Auth => b"vigo-auth-v1\0",
        }
    }
}

/// The side that speaks, in the authentication transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server's proof in `Hello`.
    Server,
    /// The envoy's proof in `Authenticate`.
    Envoy(crate::ids::Uuid),
}

/// What both sides sign (after [`Context::Auth`]): side, server id, hash of the `Hello` exchange, TLS exporter, and the
/// UUID for the envoy. Every part has a fixed length or ends in NUL, so the encoding is unambiguous.
pub fn auth_transcript(side: Side, server: &ServerId, hello: &Hash32, exporter: &[u8; 32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(if side == Side::Server { b"server\0" } else { b"envoy\0" });
    out.extend_from_slice(&server.0.0);
    out.extend_from_slice(&hello.0);
    out.extend_from_slice(exporter);
    if let Side::Envoy(uuid) = side {
        out.extend_from_slice(uuid.as_bytes());
    }
    out
}

/// Hash of the `Hello` exchange: request bytes and reply body bytes as they travelled, each with its length in front.
pub fn hello_hash(request: &[u8], reply_body: &[u8]) -> Hash32 {
    let (a, b) = ((request.len() as u64).to_be_bytes(), (reply_body.len() as u64).to_be_bytes());
    sha256(&[b"vigo-hello-v1\0", &a, request, &b, reply_body])
}

/// What the envoy signs at enrollment (after [`Context::Enroll`]). No TLS exporter: stock gRPC clients have none, and may
/// call `Hello` and `Enroll`.
pub fn enroll_transcript(server: &ServerId, hello: &Hash32, hostname: &str, token: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(160 + hostname.len() + token.len());
    out.extend_from_slice(&server.0.0);
    out.extend_from_slice(&hello.0);
    for text in [hostname, token] {
        out.extend_from_slice(&(text.len() as u64).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// What an operator compares, or the line of `envoys invite` carries, at first contact: covers everything that enrollment
/// pins.
pub fn trust_hash(ca: &Hash32, identity: &PublicKey, policy: &PublicKey) -> Hash32 {
    sha256(&[b"vigo-trust-v1\0", &ca.0, identity.as_bytes(), policy.as_bytes()])
}

/// Label of the TLS exporter (RFC 9266 section 2); the context is empty and the output 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_the_empty_string() {
        assert_eq!(sha256(&[]).to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn transcripts_of_the_two_sides_differ() {
        let (id, hash) = (ServerId::default(), Hash32::default());
        let uuid = crate::ids::Uuid::from_bytes([0; 16]);
        let server = auth_transcript(Side::Server, &id, &hash, &[0; 32]);
        assert_ne!(server, auth_transcript(Side::Envoy(uuid), &id, &hash, &[0; 32]));
    }

    #[test]
    fn hello_hash_frames_its_parts() {
        assert_ne!(hello_hash(b"ab", b"c"), hello_hash(b"a", b"bc"));
    }
}
