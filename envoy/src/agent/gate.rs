//! The gate between what arrives and what is applied: nothing passes that the current assignment does not name.
//!
//! From the wire: signed by the pinned policy key, by the server that was authenticated, for this UUID, not lower in
//! (epoch, serial) than what is current, and with a bundle whose hash it names, that decodes. It becomes current only
//! when bundle and blobs are stored and synced ([`Gate::make_current`] is called on the store's word, never before).
//! From the cache: the same signatures are checked again at every start; a former policy key will do there. Where the
//! current slot does not verify, the previous one runs, and that is an incident.

use std::sync::Arc;

use common::bundle::{Assignment, Bundle, Refused, SealedSecret, Version, bundle_hash};
use common::crypto::{PublicKey, sha256};
use common::ids::{Hash32, Uuid};
use common::proto::wire;

use super::pins::{PinnedServer, Pins};
use crate::cache::Loaded;

/// Verified policy that may be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Whose, which, how often, how long.
    pub assignment: Assignment,
    /// First 8 bytes of the hash over its payload.
    pub assignment_hash: u64,
    /// The policy.
    pub bundle: Arc<Bundle>,
    /// Values that the policy refers to, sealed to this envoy; opened by a run only.
    pub secrets: Arc<Vec<SealedSecret>>,
    /// The same as they came, signed.
    sealed: Arc<Vec<wire::Signed>>,
    /// It comes from the `previous` slot, because `current` did not verify.
    pub fallback: bool,
}

/// A verified answer of a server that is not current yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// What it will be.
    pub applied: Applied,
    /// As received.
    pub assignment: wire::Signed,
    /// As received; `None` where the bundle is the current one already.
    pub bundle: Option<wire::Signed>,
}

/// Why an answer was refused. Nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferRefused {
    /// No assignment in it.
    Empty,
    /// The assignment.
    Assignment(Refused),
    /// The bundle.
    Bundle(Refused),
    /// It is another envoy's.
    OtherEnvoy(Uuid),
    /// It is another server's.
    OtherServer,
    /// Older than what is current.
    Lower {
        /// What was offered.
        offered: Version,
        /// What is current.
        current: Version,
    },
    /// The bundle is not the one that the assignment names.
    OtherBundle {
        /// Named.
        named: Hash32,
        /// Hash of what came.
        came: Hash32,
    },
    /// The assignment names a bundle that neither came nor is here.
    NoBundle(Hash32),
    /// A sealed secret.
    Secret(Refused),
    /// The assignment names a secret that did not come with it.
    NoSecret(String),
}

impl std::fmt::Display for OfferRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OfferRefused::Empty => f.write_str("policy refused: the answer promises an assignment and has none"),
            OfferRefused::Assignment(why) => write!(f, "assignment refused: {why}"),
            OfferRefused::Bundle(why) => write!(f, "bundle refused: {why}"),
            OfferRefused::OtherEnvoy(uuid) => write!(f, "assignment refused: it is for the envoy {uuid}"),
            OfferRefused::OtherServer => f.write_str("assignment refused: it names another server"),
            OfferRefused::Lower { offered, current } => write!(
                f,
                "assignment refused: epoch {} serial {} is older than epoch {} serial {}",
                offered.epoch, offered.serial, current.epoch, current.serial
            ),
            OfferRefused::OtherBundle { named, came } => {
                write!(f, "bundle refused: the assignment names {named:.12}, this is {came:.12}")
            }
            OfferRefused::Secret(why) => write!(f, "sealed secret refused: {why}"),
            OfferRefused::NoSecret(path) => write!(f, "assignment refused: its secret `{path}` did not come"),
            OfferRefused::NoBundle(named) => write!(f, "assignment refused: its bundle {named:.12} did not come"),
        }
    }
}

impl std::error::Error for OfferRefused {}

/// The gate.
#[derive(Clone, Debug)]
pub struct Gate {
    uuid: Uuid,
    current: Option<Applied>,
    /// Blobs of the slot behind the current one: they are kept for it.
    previous_blobs: Vec<Hash32>,
    /// Values before the current ones: a host still has them somewhere, and no report may quote them.
    former_secrets: Vec<SealedSecret>,
}

impl Gate {
    /// Verifies the slots. The second value says what was wrong with them.
    pub fn load(uuid: Uuid, loaded: &Loaded, pins: &Pins) -> (Gate, Vec<String>) {
        let mut incidents = Vec::new();
        let mut open = |slot: &Option<(wire::Signed, wire::Signed)>, name: &str| {
            let (assignment, bundle) = slot.as_ref()?;
            match open_slot(uuid, pins, assignment, bundle) {
                Ok(applied) => Some(applied),
                Err(why) => {
                    incidents.push(format!("slot {name} in the state store does not verify: {why}"));
                    None
                }
            }
        };
        let (current, previous) = (open(&loaded.current, "current"), open(&loaded.previous, "previous"));
        let previous_blobs = previous.as_ref().map(blobs).unwrap_or_default();
        let former_secrets = previous.as_ref().map(|applied| applied.secrets.to_vec()).unwrap_or_default();
        let fallback = previous.map(|applied| Applied { fallback: true, ..applied });
        if current.is_none() && loaded.current.is_some() && fallback.is_some() {
            incidents.push("going on with the previous policy until a server sends the current one again".into());
        }
        (Gate { uuid, current: current.or(fallback), previous_blobs, former_secrets }, incidents)
    }

    /// What may be applied.
    pub fn current(&self) -> Option<&Applied> {
        self.current.as_ref()
    }

    /// Checks an answer of the server that was authenticated.
    pub fn check(
        &self,
        server: &PinnedServer,
        assignment: Option<wire::Signed>,
        bundle: Option<wire::Signed>,
    ) -> Result<Offer, OfferRefused> {
        let mut signed = assignment.ok_or(OfferRefused::Empty)?;
        let assignment = Assignment::open(&server.policy_key, &signed).map_err(OfferRefused::Assignment)?;
        if assignment.uuid != self.uuid {
            return Err(OfferRefused::OtherEnvoy(assignment.uuid));
        }
        if assignment.server != server.id() {
            return Err(OfferRefused::OtherServer);
        }
        let current = self.current.as_ref().filter(|current| current.assignment.server == assignment.server);
        if let Some(current) = current.filter(|current| assignment.version < current.assignment.version) {
            let (offered, current) = (assignment.version, current.assignment.version);
            return Err(OfferRefused::Lower { offered, current });
        }
        // A bundle from the `previous` slot cannot be kept by name: the store's `current` is the damaged one.
        let held = self.current.as_ref().filter(|held| held.assignment.bundle == assignment.bundle && !held.fallback);
        let (decoded, bundle) = match (held, bundle) {
            (Some(held), _) => (held.bundle.clone(), None),
            (None, None) => return Err(OfferRefused::NoBundle(assignment.bundle)),
            (None, Some(signed)) => {
                let came = bundle_hash(&signed.payload);
                if came != assignment.bundle {
                    return Err(OfferRefused::OtherBundle { named: assignment.bundle, came });
                }
                let decoded = Bundle::open(&server.policy_key, &signed).map_err(OfferRefused::Bundle)?;
                (Arc::new(decoded), Some(signed))
            }
        };
        let mut secrets = open_secrets(self.uuid, &server.policy_key, &signed)?;
        if let Some(named) = assignment.secrets.iter().find(|named| !secrets.iter().any(|one| one.reference == **named))
        {
            return Err(OfferRefused::NoSecret(named.path.clone()));
        }
        // What the server cannot or will not give now (a lost master key, a review) stays what it was.
        for path in &decoded.secrets {
            if secrets.iter().any(|one| one.reference.path == *path) {
                continue;
            }
            let Some(held) = self.current.as_ref().and_then(|current| current.secret(path)) else { continue };
            secrets.push(held.0.clone());
            signed.sealed.push(held.1.clone());
        }
        let sealed = Arc::new(signed.sealed.clone());
        let assignment_hash = sha256(&[&signed.payload]).short();
        let secrets = Arc::new(secrets);
        let applied = Applied { assignment, assignment_hash, bundle: decoded, secrets, sealed, fallback: false };
        Ok(Offer { applied, assignment: signed, bundle })
    }

    /// An offer and everything it names is stored and synced: it is current from now on.
    pub fn make_current(&mut self, applied: Applied) {
        if let Some(old) = self.current.replace(applied).filter(|old| !old.fallback) {
            self.previous_blobs = blobs(&old);
            if !self.current.as_ref().is_some_and(|new| new.has_secrets_of(&old)) {
                self.former_secrets = old.secrets.to_vec();
            }
        }
    }

    /// Sealed values for a run: the current ones first, then those before them.
    pub fn secrets(&self) -> Vec<SealedSecret> {
        let current = self.current.iter().flat_map(|applied| applied.secrets.iter());
        current.chain(&self.former_secrets).cloned().collect()
    }

    /// Blobs that either slot names.
    pub fn blobs_kept(&self) -> Vec<Hash32> {
        let mut kept = self.current.as_ref().map(blobs).unwrap_or_default();
        kept.extend(&self.previous_blobs);
        kept.sort();
        kept.dedup();
        kept
    }
}

impl Applied {
    /// Whether the same versions of the same secrets are here.
    pub fn has_secrets_of(&self, other: &Applied) -> bool {
        let all = |applied: &Applied| applied.secrets.iter().map(|one| one.reference.clone()).collect::<Vec<_>>();
        all(self) == all(other)
    }

    /// A secret that is here, opened as far as its signature and as it came.
    fn secret(&self, path: &str) -> Option<(&SealedSecret, &wire::Signed)> {
        self.secrets.iter().zip(self.sealed.iter()).find(|(secret, _)| secret.reference.path == path)
    }

    /// When it stops being applied (server time, ms), counted from when a server last named it; `None` for never.
    pub fn expires_ms(&self, confirmed_ms: u64) -> Option<u64> {
        let max_age = self.assignment.max_age_ms;
        (max_age > 0).then(|| self.assignment.issued_at_ms.max(confirmed_ms).saturating_add(max_age))
    }
}

fn open_slot(
    uuid: Uuid,
    pins: &Pins,
    assignment: &wire::Signed,
    bundle: &wire::Signed,
) -> Result<Applied, OfferRefused> {
    let mut refused = OfferRefused::Assignment(Refused::Signature);
    for key in pins.policy_keys() {
        let opened = match Assignment::open(&key.policy_key, assignment) {
            Ok(opened) => opened,
            Err(Refused::Signature) => continue,
            Err(why) => return Err(OfferRefused::Assignment(why)),
        };
        if opened.uuid != uuid {
            return Err(OfferRefused::OtherEnvoy(opened.uuid));
        }
        if opened.server != key.server {
            refused = OfferRefused::OtherServer;
            continue;
        }
        let came = bundle_hash(&bundle.payload);
        if came != opened.bundle {
            return Err(OfferRefused::OtherBundle { named: opened.bundle, came });
        }
        // The bundle may be older than a change of the policy key, and the assignment newer.
        let by_any = pins.policy_keys().map(|key| Bundle::open(&key.policy_key, bundle));
        let decoded = by_any.reduce(|best, next| best.or(next)).unwrap_or(Err(Refused::Signature));
        let decoded = decoded.map_err(OfferRefused::Bundle)?;
        let assignment_hash = sha256(&[&assignment.payload]).short();
        // A secret that does not verify is missing for the resources that need it, and for no others.
        let opens = |signed: &wire::Signed| {
            let by_any = pins.policy_keys().find_map(|key| SealedSecret::open(&key.policy_key, signed).ok());
            by_any.filter(|secret| secret.uuid == uuid).map(|secret| (secret, signed.clone()))
        };
        let (secrets, sealed): (Vec<_>, Vec<_>) = assignment.sealed.iter().filter_map(opens).unzip();
        return Ok(Applied {
            assignment: opened,
            assignment_hash,
            bundle: Arc::new(decoded),
            secrets: Arc::new(secrets),
            sealed: Arc::new(sealed),
            fallback: false,
        });
    }
    Err(refused)
}

/// The secrets that came with an assignment: all of them are good, or the answer is not used.
fn open_secrets(uuid: Uuid, key: &PublicKey, signed: &wire::Signed) -> Result<Vec<SealedSecret>, OfferRefused> {
    let open = |signed| match SealedSecret::open(key, signed) {
        Ok(secret) if secret.uuid != uuid => Err(OfferRefused::OtherEnvoy(secret.uuid)),
        result => result.map_err(OfferRefused::Secret),
    };
    signed.sealed.iter().map(open).collect()
}

fn blobs(applied: &Applied) -> Vec<Hash32> {
    applied.bundle.blobs.iter().map(|blob| blob.sha256).collect()
}
