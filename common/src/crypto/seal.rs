//! Encryption: values to one X25519 key, and values at rest under a symmetric key. AES-256-GCM by ring both times.
//!
//! A sealing draws an ephemeral key of its own, so that each key encrypts one message and its nonce can be zero, as in
//! HPKE (RFC 9180). The key is HKDF-SHA-256 over the shared secret with `"vigo-seal-v1" | ephemeral | recipient` as info.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::rng::Rng;

/// Bytes that an encryption adds: the tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

const INFO: &[u8] = b"vigo-seal-v1";

/// A value sealed to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Public half of the key that was made for it.
    pub ephemeral: [u8; 32],
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// It was sealed to another key, belongs elsewhere, or was altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSeal;

impl std::fmt::Display for BadSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it does not open with this key")
    }
}

impl std::error::Error for BadSeal {}

/// Seals to a recipient's public key. `bound` is what the value belongs to; it opens nowhere else.
pub fn seal(rng: &mut dyn Rng, recipient: &[u8; 32], bound: &[u8], plain: &[u8]) -> Result<Sealed, BadSeal> {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill(&mut *secret);
    let ephemeral = super::sealing_public(&secret);
    let key = key(&secret, recipient, &ephemeral, recipient)?;
    Ok(Sealed { ephemeral, ciphertext: encrypt(&key, &[0; NONCE_BYTES], bound, plain) })
}

/// Opens what was sealed to the public half of `secret`.
pub fn unseal(secret: &[u8; 32], sealed: &Sealed, bound: &[u8]) -> Result<Zeroizing<Vec<u8>>, BadSeal> {
    let key = key(secret, &sealed.ephemeral, &sealed.ephemeral, &super::sealing_public(secret))?;
    decrypt(&key, &[0; NONCE_BYTES], bound, &sealed.ciphertext)
}

/// Encrypts under a symmetric key. A nonce never serves twice under one key.
pub fn encrypt(key: &[u8; 32], nonce: &[u8; NONCE_BYTES], bound: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + TAG_BYTES);
    out.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(*nonce);
    // ring refuses only what is larger than 64 GiB.
    cipher(key).seal_in_place_append_tag(nonce, Aad::from(bound), &mut out).expect("a value in memory");
    out
}

/// Decrypts what [`encrypt`] made.
pub fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    bound: &[u8],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, BadSeal> {
    let mut out = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let n = cipher(key).open_in_place(nonce, Aad::from(bound), &mut out).map_err(|_| BadSeal)?.len();
    out.truncate(n);
    Ok(out)
}

/// Names a sealing key: the first eight bytes of the SHA-256 of its public half.
pub fn sealing_key_id(public: &[u8; 32]) -> [u8; 8] {
    super::sha256(&[b"vigo-sealing-key-v1\0", public]).short().to_be_bytes()
}

fn key(
    secret: &[u8; 32],
    other: &[u8; 32],
    ephemeral: &[u8; 32],
    recipient: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>, BadSeal> {
    let shared = StaticSecret::from(*secret).diffie_hellman(&x25519_dalek::PublicKey::from(*other));
    // A point of small order would make a key that everybody knows.
    if !shared.was_contributory() {
        return Err(BadSeal);
    }
    let mut out = Zeroizing::new([0; 32]);
    let derived = Salt::new(HKDF_SHA256, &[]).extract(shared.as_bytes());
    let info = [INFO, ephemeral, recipient];
    let okm = derived.expand(&info, HKDF_SHA256).map_err(|_| BadSeal)?;
    okm.fill(&mut *out).map_err(|_| BadSeal)?;
    Ok(out)
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    // ring refuses only a wrong length, which the type excludes.
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a key of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    #[test]
    fn a_sealed_value_opens_for_its_key_in_its_place_only() {
        let mut rng = SplitMix64(7);
        let (mine, other) = ([1; 32], [2; 32]);
        let public = super::super::sealing_public(&mine);
        let sealed = seal(&mut rng, &public, b"here", b"hunter2").unwrap();
        assert_eq!(&**unseal(&mine, &sealed, b"here").unwrap(), b"hunter2");
        assert_eq!(unseal(&other, &sealed, b"here"), Err(BadSeal));
        assert_eq!(unseal(&mine, &sealed, b"elsewhere"), Err(BadSeal));
        for at in 0..sealed.ciphertext.len() {
            let mut altered = sealed.clone();
            altered.ciphertext[at] ^= 1;
            assert_eq!(unseal(&mine, &altered, b"here"), Err(BadSeal));
        }
        let again = seal(&mut rng, &public, b"here", b"hunter2").unwrap();
        assert_ne!((again.ephemeral, &again.ciphertext), (sealed.ephemeral, &sealed.ciphertext));
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        assert_eq!(seal(&mut SplitMix64(1), &[0; 32], b"", b"x"), Err(BadSeal));
        let sealed = Sealed { ephemeral: [0; 32], ciphertext: vec![0; 32] };
        assert_eq!(unseal(&[1; 32], &sealed, b""), Err(BadSeal));
    }

    #[test]
    fn what_is_cut_short_does_not_open() {
        let ciphertext = encrypt(&[9; 32], &[1; 12], b"path", b"");
        assert_eq!(ciphertext.len(), TAG_BYTES);
        assert!(decrypt(&[9; 32], &[1; 12], b"path", &ciphertext).unwrap().is_empty());
        for n in 0..TAG_BYTES {
            assert_eq!(decrypt(&[9; 32], &[1; 12], b"path", &ciphertext[..n]), Err(BadSeal));
        }
    }

    #[test]
    fn the_construction_stays_what_it_is() {
        // A fixed ephemeral key: what agents hold sealed must open for ever.
        struct Fixed;
        impl Rng for Fixed {
            fn next_u64(&mut self) -> u64 {
                0x0303_0303_0303_0303
            }
        }
        let public = super::super::sealing_public(&[1; 32]);
        let sealed = seal(&mut Fixed, &public, b"bound", b"value").unwrap();
        assert_eq!(crate::ids::hex(&sealed.ciphertext), "1a3b9ff158c5651df0ac86ea64b18d166fc5c6d29c");
    }
}
