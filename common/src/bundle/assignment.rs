//! Which bundle is whose, and the envoy's proof of enrollment.

use prost::Message;

use super::{Refused, open, sign};
use crate::crypto::{Context, PublicKey, SigningKey};
use crate::ids::{Hash32, ServerId, Uuid, is_hostname};
use crate::limits;
use crate::proto::{BadMessage, wire};

/// Order of assignments of one server: a lower one never replaces a higher one from the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Raised by promote and restore.
    pub epoch: u64,
    /// Raised by every act that changes policy.
    pub serial: u64,
}

/// A secret that a bundle refers to, as assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    /// Literal path.
    pub path: String,
    /// Version of the value.
    pub version: u64,
    /// Which sealing key of the envoy it is sealed to.
    pub sealing_key_id: Vec<u8>,
}

/// The checked content of a signed assignment. All times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The server that assigned.
    pub server: ServerId,
    /// Its order.
    pub version: Version,
    /// The one envoy it is for.
    pub uuid: Uuid,
    /// The bundle, by hash of its payload.
    pub bundle: Hash32,
    /// Secrets of the bundle.
    pub secrets: Vec<SecretRef>,
    /// Between check-ins, within the limits.
    pub interval_ms: u64,
    /// Server wall time.
    pub issued_at_ms: u64,
    /// How long it may be applied from the cache; 0 = for ever.
    pub max_age_ms: u64,
    /// The name that the server knows the envoy by.
    pub hostname: String,
}

impl Assignment {
    /// Encodes and signs with the policy key.
    pub fn sign(&self, key: &SigningKey) -> wire::Signed {
        let secrets = self.secrets.iter().map(|s| wire::SecretRef {
            path: s.path.clone(),
            version: s.version,
            sealing_key_id: s.sealing_key_id.clone(),
        });
        let raw = wire::Assignment {
            server_id: self.server.0.0.to_vec(),
            epoch: self.version.epoch,
            serial: self.version.serial,
            uuid: self.uuid.as_bytes().to_vec(),
            bundle_hash: self.bundle.0.to_vec(),
            secrets: secrets.collect(),
            interval_ms: self.interval_ms,
            issued_at_ms: self.issued_at_ms,
            max_age_ms: self.max_age_ms,
            hostname: self.hostname.clone(),
        };
        sign(key, Context::Assignment, raw.encode_to_vec())
    }

    /// Verifies with the pinned policy key, then checks.
    pub fn open(key: &PublicKey, signed: &wire::Signed) -> Result<Assignment, Refused> {
        let raw: wire::Assignment = open(key, Context::Assignment, signed)?;
        let bad = |field: &str, expected| Refused::Content(BadMessage::new(field, expected));
        if !(limits::INTERVAL_MIN_MS..=limits::INTERVAL_MAX_MS).contains(&raw.interval_ms) {
            return Err(bad("interval_ms", "an interval from 1 s to 24 h"));
        }
        let hash = |field, bytes: &[u8]| Hash32::try_from_slice(bytes).map_err(|_| bad(field, "32 bytes"));
        let secrets = raw.secrets.into_iter().map(|s| SecretRef {
            path: s.path,
            version: s.version,
            sealing_key_id: s.sealing_key_id,
        });
        Ok(Assignment {
            server: ServerId(hash("server_id", &raw.server_id)?),
            version: Version { epoch: raw.epoch, serial: raw.serial },
            uuid: Uuid::try_from_slice(&raw.uuid).map_err(|_| bad("uuid", "16 bytes"))?,
            bundle: hash("bundle_hash", &raw.bundle_hash)?,
            secrets: secrets.collect(),
            interval_ms: raw.interval_ms,
            issued_at_ms: raw.issued_at_ms,
            max_age_ms: raw.max_age_ms,
            hostname: raw.hostname,
        })
    }
}

/// The envoy's proof that this server once enrolled it, for a server whose database is older than the enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The envoy.
    pub uuid: Uuid,
    /// Its identity key.
    pub public_key: PublicKey,
    /// Its sealing key (X25519).
    pub sealing_key: [u8; 32],
    /// Its name, as fixed at enrollment.
    pub hostname: String,
    /// The server that enrolled it.
    pub server: ServerId,
    /// The server's serial then.
    pub serial: u64,
}

impl Receipt {
    /// Encodes and signs with the identity key.
    pub fn sign(&self, key: &SigningKey) -> wire::Signed {
        let raw = wire::Receipt {
            uuid: self.uuid.as_bytes().to_vec(),
            public_key: self.public_key.as_bytes().to_vec(),
            sealing_key: self.sealing_key.to_vec(),
            hostname: self.hostname.clone(),
            server_id: self.server.0.0.to_vec(),
            serial: self.serial,
        };
        sign(key, Context::Receipt, raw.encode_to_vec())
    }

    /// Verifies with an identity key, then checks.
    pub fn open(key: &PublicKey, signed: &wire::Signed) -> Result<Receipt, Refused> {
        let raw: wire::Receipt = open(key, Context::Receipt, signed)?;
        let bad = |field: &str, expected| Refused::Content(BadMessage::new(field, expected));
        if !is_hostname(&raw.hostname) {
            return Err(bad("hostname", "a host name"));
        }
        Ok(Receipt {
            uuid: Uuid::try_from_slice(&raw.uuid).map_err(|_| bad("uuid", "16 bytes"))?,
            public_key: PublicKey::try_from_slice(&raw.public_key).map_err(|_| bad("public_key", "32 bytes"))?,
            sealing_key: raw.sealing_key.try_into().map_err(|_| bad("sealing_key", "32 bytes"))?,
            hostname: raw.hostname,
            server: ServerId(Hash32::try_from_slice(&raw.server_id).map_err(|_| bad("server_id", "32 bytes"))?),
            serial: raw.serial,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    fn assignment() -> Assignment {
        Assignment {
            server: ServerId::default(),
            version: Version { epoch: 1, serial: 7 },
            uuid: Uuid::from_bytes([3; 16]),
            bundle: Hash32([4; 32]),
            secrets: Vec::new(),
            interval_ms: 300_000,
            issued_at_ms: 5,
            max_age_ms: 0,
            hostname: "a.example".into(),
        }
    }

    #[test]
    fn an_assignment_round_trips_under_its_key_only() {
        let (key, other) = (SigningKey::generate(&mut SplitMix64(1)), SigningKey::generate(&mut SplitMix64(2)));
        let signed = assignment().sign(&key);
        assert_eq!(Assignment::open(&key.public(), &signed), Ok(assignment()));
        assert_eq!(Assignment::open(&other.public(), &signed), Err(Refused::Signature));
    }

    #[test]
    fn an_interval_out_of_bounds_is_refused() {
        let key = SigningKey::generate(&mut SplitMix64(1));
        let signed = Assignment { interval_ms: 1, ..assignment() }.sign(&key);
        assert!(matches!(Assignment::open(&key.public(), &signed), Err(Refused::Content(_))));
    }

    #[test]
    fn versions_order_by_epoch_then_serial() {
        assert!(Version { epoch: 2, serial: 1 } > Version { epoch: 1, serial: 9 });
    }
}
