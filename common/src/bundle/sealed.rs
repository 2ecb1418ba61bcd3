//! A secret on its way to one envoy: encrypted to the envoy's sealing key, bound to its path and version, signed by the
//! policy key. It travels and rests with the assignment that names it.

use prost::Message;
use zeroize::Zeroizing;

use super::{Refused, SecretRef, open, sign};
use crate::crypto::{BadSeal, Context, PublicKey, Sealed, SigningKey, seal, sealing_key_id, unseal};
use crate::ids::Uuid;
use crate::limits;
use crate::proto::{BadMessage, wire};
use crate::rng::Rng;

/// What begins a reference to a secret.
pub const SECRET_PREFIX: &str = "secret:";

/// The checked content of a signed secret. Its value is still encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    /// Whose.
    pub uuid: Uuid,
    /// Path, version and the key that it is sealed to.
    pub reference: SecretRef,
    /// The value.
    pub sealed: Sealed,
}

impl SealedSecret {
    /// Seals a value to an envoy.
    pub fn seal(
        rng: &mut dyn Rng,
        uuid: Uuid,
        sealing_key: &[u8; 32],
        (path, version): (&str, u64),
        value: &[u8],
    ) -> Result<SealedSecret, BadSeal> {
        let reference =
            SecretRef { path: path.to_string(), version, sealing_key_id: sealing_key_id(sealing_key).to_vec() };
        let sealed = seal(rng, sealing_key, &bound(&uuid, path, version), value)?;
        Ok(SealedSecret { uuid, reference, sealed })
    }

    /// Opens the value with the envoy's sealing secret.
    pub fn unseal(&self, secret: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, BadSeal> {
        unseal(secret, &self.sealed, &bound(&self.uuid, &self.reference.path, self.reference.version))
    }

    /// Encodes and signs with the policy key.
    pub fn sign(&self, key: &SigningKey) -> wire::Signed {
        let raw = wire::SealedSecret {
            uuid: self.uuid.as_bytes().to_vec(),
            path: self.reference.path.clone(),
            version: self.reference.version,
            sealing_key_id: self.reference.sealing_key_id.clone(),
            ephemeral_key: self.sealed.ephemeral.to_vec(),
            ciphertext: self.sealed.ciphertext.clone(),
        };
        sign(key, Context::Secret, raw.encode_to_vec())
    }

    /// Verifies with the pinned policy key, then checks.
    pub fn open(key: &PublicKey, signed: &wire::Signed) -> Result<SealedSecret, Refused> {
        let raw: wire::SealedSecret = open(key, Context::Secret, signed)?;
        let bad = |field: &str, expected| Refused::Content(BadMessage::new(field, expected));
        if !is_secret_path(&raw.path) {
            return Err(bad("path", "a path of a secret"));
        }
        if raw.ciphertext.len() > limits::SECRET_BYTES_MAX + crate::crypto::TAG_BYTES {
            return Err(bad("ciphertext", "a value within its limit"));
        }
        Ok(SealedSecret {
            uuid: Uuid::try_from_slice(&raw.uuid).map_err(|_| bad("uuid", "16 bytes"))?,
            reference: SecretRef { path: raw.path, version: raw.version, sealing_key_id: raw.sealing_key_id },
            sealed: Sealed {
                ephemeral: raw.ephemeral_key.try_into().map_err(|_| bad("ephemeral_key", "32 bytes"))?,
                ciphertext: raw.ciphertext,
            },
        })
    }
}

/// The path in a value that is a reference to a secret.
pub fn secret_path(text: &str) -> Option<&str> {
    text.trim().strip_prefix(SECRET_PREFIX)
}

/// Whether a path can name a secret: parts of letters, digits, `_`, `-` and `.` between slashes, none of which begins with a
/// dot.
pub fn is_secret_path(path: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(fits);
    path.len() <= limits::SECRET_PATH_BYTES_MAX && path.split('/').all(part)
}

/// UUID | path | version: of fixed lengths but for the path in the middle.
fn bound(uuid: &Uuid, path: &str, version: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + path.len());
    out.extend_from_slice(uuid.as_bytes());
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    #[test]
    fn a_secret_reaches_its_envoy_and_nobody_else() {
        let mut rng = SplitMix64(3);
        let (policy, other) = (SigningKey::generate(&mut rng), SigningKey::generate(&mut rng));
        let secret = [4; 32];
        let public = crate::crypto::sealing_public(&secret);
        let uuid = Uuid::random(&mut rng);
        let sealed = SealedSecret::seal(&mut rng, uuid, &public, ("prod/db/password", 7), b"hunter2").unwrap();
        let signed = sealed.sign(&policy);
        assert_eq!(SealedSecret::open(&policy.public(), &signed).as_ref(), Ok(&sealed));
        assert_eq!(SealedSecret::open(&other.public(), &signed), Err(Refused::Signature));
        assert_eq!(&**sealed.unseal(&secret).unwrap(), b"hunter2");
        let moved = [
            SealedSecret { uuid: Uuid::random(&mut rng), ..sealed.clone() },
            SealedSecret { reference: SecretRef { version: 8, ..sealed.reference.clone() }, ..sealed.clone() },
            SealedSecret { reference: SecretRef { path: "prod/db/user".into(), ..sealed.reference.clone() }, ..sealed },
        ];
        assert!(moved.iter().all(|other| other.unseal(&secret).is_err()));
    }

    #[test]
    fn paths_are_plain() {
        assert!(["a", "prod/db/password", "x_1-2.pem"].into_iter().all(is_secret_path));
        for bad in ["", "/a", "a/", "a//b", "../a", "a/.lost/b", ".master.key", "a b", "ä", "{{ x }}", &"a".repeat(300)]
        {
            assert!(!is_secret_path(bad), "{bad}");
        }
        assert_eq!(secret_path(" secret:a/b "), Some("a/b"));
        assert_eq!(secret_path("secrets:a"), None);
    }
}
