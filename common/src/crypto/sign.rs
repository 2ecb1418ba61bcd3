//! Ed25519 (RFC 8032) by ring. A seed of 32 bytes is the private key on disk.

use ring::signature::{self, Ed25519KeyPair, KeyPair};

use super::Context;
use crate::rng::Rng;

/// An Ed25519 public key that has the right length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// An Ed25519 private key. Cannot be printed; `seed` is for the key file only.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: zeroize::Zeroizing<[u8; 32]>,
}

/// A signature does not fit its key, context and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature;

/// Bytes that are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey;

impl std::fmt::Display for BadSignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the signature does not fit")
    }
}

impl std::fmt::Display for BadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("expected an Ed25519 key of 32 bytes")
    }
}

impl std::error::Error for BadSignature {}
impl std::error::Error for BadKey {}

impl PublicKey {
    /// From 32 bytes.
    pub fn try_from_slice(bytes: &[u8]) -> Result<PublicKey, BadKey> {
        bytes.try_into().map(PublicKey).map_err(|_| BadKey)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature over the context prefix and the payload.
    pub fn verify(&self, context: Context, payload: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let mut message = Vec::with_capacity(context.prefix().len() + payload.len());
        message.extend_from_slice(context.prefix());
        message.extend_from_slice(payload);
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, &self.0);
        key.verify(&message, signature).map_err(|_| BadSignature)
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::ids::hex(&self.0[..6]))
    }
}

impl SigningKey {
    /// A new key.
    pub fn generate(rng: &mut dyn Rng) -> SigningKey {
        let mut seed = [0; 32];
        rng.fill(&mut seed);
        SigningKey::from_seed(seed)
    }

    /// From its seed.
    pub fn from_seed(seed: [u8; 32]) -> SigningKey {
        // ring refuses only a wrong length, which the type excludes.
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed of 32 bytes");
        SigningKey { pair, seed: zeroize::Zeroizing::new(seed) }
    }

    /// The seed, for the key file.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs the context prefix and the payload.
    pub fn sign(&self, context: Context, payload: &[u8]) -> [u8; 64] {
        let mut message = Vec::with_capacity(context.prefix().len() + payload.len());
        message.extend_from_slice(context.prefix());
        message.extend_from_slice(payload);
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(&message).as_ref());
        out
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?})", self.public())
    }
}

/// Public half of an X25519 secret (RFC 7748 section 6.1).
pub fn sealing_public(secret: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*secret)).to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    #[test]
    fn a_signature_fits_one_key_one_context_one_payload() {
        let (key, other) = (SigningKey::generate(&mut SplitMix64(1)), SigningKey::generate(&mut SplitMix64(2)));
        let signature = key.sign(Context::Bundle, b"payload");
        assert_eq!(key.public().verify(Context::Bundle, b"payload", &signature), Ok(()));
        assert_eq!(key.public().verify(Context::Assignment, b"payload", &signature), Err(BadSignature));
        assert_eq!(key.public().verify(Context::Bundle, b"Payload", &signature), Err(BadSignature));
        assert_eq!(other.public().verify(Context::Bundle, b"payload", &signature), Err(BadSignature));
        assert_eq!(key.public().verify(Context::Bundle, b"payload", &[]), Err(BadSignature));
    }

    #[test]
    fn sealing_keys_are_x25519() {
        // RFC 7748 section 5.2: the first iteration multiplies the base point by 9.
        let mut secret = [0; 32];
        secret[0] = 9;
        let expected = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
        assert_eq!(crate::ids::hex(&sealing_public(&secret)), expected);
    }

    #[test]
    fn a_private_key_does_not_print() {
        let key = SigningKey::from_seed([0xab; 32]);
        assert!(!format!("{key:?}").contains("abab"));
    }
}
