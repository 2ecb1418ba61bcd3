//! Whom this envoy trusts. Pure values; the shell keeps them in one file beside the identity, replaced atomically.

use common::bundle::Receipt;
use common::crypto::{PublicKey, server_id};
use common::ids::{Hash32, ServerId, Uuid};
use common::proto::wire;

/// Former policy keys that are kept, newest first: a slot that one of them signed stays usable from the cache.
pub const FORMER_KEYS_MAX: usize = 4;
/// Nonces of statements that were obeyed and have not run out.
pub const NONCES_MAX: usize = 64;

/// Everything pinned.
#[derive(Clone, Debug, PartialEq)]
pub struct Pins {
    /// The server of this envoy.
    pub server: PinnedServer,
    /// Earlier policy keys, newest first: good for what is in the cache, for nothing from the wire.
    pub former: Vec<FormerKey>,
    /// Statements that were obeyed: each works once.
    pub nonces: Vec<SpentNonce>,
    /// Who this envoy was for the server before: the queue in the state store may still be under that name.
    pub former_uuid: Option<Uuid>,
}

/// One server: its identity stays when it moves, its address does not.
#[derive(Clone, Debug, PartialEq)]
pub struct PinnedServer {
    /// Its identity key; the hash of it is the server id.
    pub identity_key: PublicKey,
    /// Its policy key.
    pub policy_key: PublicKey,
    /// Its recovery key, when it has one.
    pub recovery_key: Option<PublicKey>,
    /// PEM of the CA that its leaf chains to.
    pub ca_pem: String,
    /// SHA-256 of that certificate's DER.
    pub ca_hash: Hash32,
    /// Highest epoch that was met.
    pub epoch: u64,
    /// Proof that this (or the server before it) enrolled the envoy.
    pub receipt: Option<wire::Signed>,
    /// The name by which it was enrolled.
    pub hostname: String,
    /// Addresses that came with enrollment or a redirect, each `host:port`.
    pub servers: Vec<String>,
}

/// A policy key that was pinned once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormerKey {
    /// Whose it was.
    pub server: ServerId,
    /// The key.
    pub policy_key: PublicKey,
}

/// A statement that was obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpentNonce {
    /// As in the statement, at most 64 bytes.
    pub nonce: Vec<u8>,
    /// When the statement runs out and the nonce may be forgotten (server time, ms).
    pub expires_ms: u64,
}

impl Pins {
    /// Pins of a server met for the first time.
    pub fn new(server: PinnedServer) -> Pins {
        Pins { server, former: Vec::new(), nonces: Vec::new(), former_uuid: None }
    }

    /// The policy key that may have signed a slot for this server id: the pinned one first, then former ones.
    pub fn policy_keys(&self) -> impl Iterator<Item = FormerKey> + '_ {
        let pinned = FormerKey { server: self.server.id(), policy_key: self.server.policy_key };
        std::iter::once(pinned).chain(self.former.iter().copied())
    }

    /// Replaces the server; the old policy key stays good for the cache.
    pub fn replace_server(&mut self, server: PinnedServer) {
        self.remember_policy_key();
        self.server = server;
        self.forget_current_among_former();
    }

    /// Replaces the policy key of the same server.
    pub fn replace_policy_key(&mut self, key: PublicKey) {
        self.remember_policy_key();
        self.server.policy_key = key;
        self.forget_current_among_former();
    }

    /// Whether a statement was obeyed before.
    pub fn is_spent(&self, nonce: &[u8]) -> bool {
        self.nonces.iter().any(|spent| spent.nonce == nonce)
    }

    /// Notes a statement that was obeyed; forgets those that have run out, and the oldest beyond the bound.
    pub fn spend(&mut self, nonce: &[u8], expires_ms: u64, server_now_ms: u64) {
        self.nonces.retain(|spent| spent.expires_ms > server_now_ms);
        if self.nonces.len() >= NONCES_MAX {
            self.nonces.remove(0);
        }
        self.nonces.push(SpentNonce { nonce: nonce.to_vec(), expires_ms });
    }

    fn remember_policy_key(&mut self) {
        let key = FormerKey { server: self.server.id(), policy_key: self.server.policy_key };
        self.former.retain(|former| *former != key);
        self.former.insert(0, key);
        self.former.truncate(FORMER_KEYS_MAX);
    }

    fn forget_current_among_former(&mut self) {
        let key = FormerKey { server: self.server.id(), policy_key: self.server.policy_key };
        self.former.retain(|former| *former != key);
    }
}

impl PinnedServer {
    /// Its id.
    pub fn id(&self) -> ServerId {
        server_id(&self.identity_key)
    }

    /// The receipt, opened, when it is by this server's own key.
    pub fn receipt(&self) -> Option<Receipt> {
        Receipt::open(&self.identity_key, self.receipt.as_ref()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::crypto::SigningKey;
    use common::rng::SplitMix64;

    fn server(seed: u64) -> PinnedServer {
        let key = SigningKey::generate(&mut SplitMix64(seed)).public();
        PinnedServer {
            identity_key: key,
            policy_key: key,
            recovery_key: None,
            ca_pem: String::new(),
            ca_hash: Hash32::ZERO,
            epoch: 1,
            receipt: None,
            hostname: "a.example".into(),
            servers: Vec::new(),
        }
    }

    #[test]
    fn a_former_policy_key_stays_good_for_the_cache() {
        let mut pins = Pins::new(server(1));
        let old = pins.policy_keys().next();
        pins.replace_server(server(2));
        assert_eq!(pins.policy_keys().nth(1), old);
        pins.replace_server(server(1));
        assert_eq!(pins.policy_keys().next(), old);
        assert_eq!(pins.policy_keys().filter(|key| Some(*key) == old).count(), 1);
        (3..20).for_each(|seed| pins.replace_server(server(seed)));
        assert_eq!(pins.former.len(), FORMER_KEYS_MAX);
    }

    #[test]
    fn a_nonce_is_spent_until_its_statement_runs_out() {
        let mut pins = Pins::new(server(1));
        pins.spend(b"a", 100, 50);
        assert!(pins.is_spent(b"a") && !pins.is_spent(b"b"));
        pins.spend(b"b", 300, 200);
        assert!(!pins.is_spent(b"a"));
        (0..2 * NONCES_MAX as u8).for_each(|n| pins.spend(&[n], 1_000, 200));
        assert_eq!(pins.nonces.len(), NONCES_MAX);
    }
}
