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
    /// A secret came that the assignment does not name, in this version.
    StraySecret(String),
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
            OfferRefused::StraySecret(path) => {
                write!(f, "assignment refused: with it came a secret `{path}` that it does not name in this version")
            }
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
    former_secrets: Arc<Vec<SealedSecret>>,
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
        let former_secrets = previous.as_ref().map(|applied| applied.secrets.clone()).unwrap_or_default();
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
        // A value that was good once is no use to whoever replays it: only what this assignment names comes in.
        if let Some(stray) = secrets.iter().find(|one| !assignment.secrets.contains(&one.reference)) {
            return Err(OfferRefused::StraySecret(stray.reference.path.clone()));
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
                self.former_secrets = old.secrets.clone();
            }
        }
    }

    /// The values before the current ones, sealed: for a run to recognise, never to apply.
    pub fn former_secrets(&self) -> Arc<Vec<SealedSecret>> {
        self.former_secrets.clone()
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
            // As named; of a path that is not named, what was kept from before.
            let named = |one: &SealedSecret| match opened.secrets.iter().find(|named| named.path == one.reference.path)
            {
                Some(named) => *named == one.reference,
                None => true,
            };
            by_any.filter(|one| one.uuid == uuid && named(one)).map(|secret| (secret, signed.clone()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use common::bundle::{Value, sign};
    use common::crypto::{Context, SigningKey, sealing_public};
    use common::rng::SplitMix64;

    const SEALING: [u8; 32] = [4; 32];

    struct Site {
        policy: SigningKey,
        server: PinnedServer,
        gate: Gate,
        bundle: wire::Signed,
    }

    fn site() -> Site {
        let mut rng = SplitMix64(1);
        let (identity, policy) = (SigningKey::generate(&mut rng), SigningKey::generate(&mut rng));
        let server = PinnedServer {
            identity_key: identity.public(),
            policy_key: policy.public(),
            recovery_key: None,
            ca_pem: String::new(),
            ca_hash: Hash32::ZERO,
            epoch: 1,
            receipt: None,
            hostname: String::new(),
            servers: Vec::new(),
        };
        let vars = [("pw".to_string(), Value::Str("secret:a/b".into()))].into();
        let bundle = Bundle { vars, secrets: vec!["a/b".into()], ..Bundle::default() };
        let bundle = sign(&policy, Context::Bundle, bundle.encode());
        let (gate, _) = Gate::load(Uuid::from_bytes([9; 16]), &Loaded::default(), &Pins::new(server.clone()));
        Site { policy, server, gate, bundle }
    }

    impl Site {
        fn sealed(&self, uuid: u8, version: u64) -> SealedSecret {
            let (uuid, key) = (Uuid::from_bytes([uuid; 16]), sealing_public(&SEALING));
            let value = format!("value {version}");
            SealedSecret::seal(&mut SplitMix64(version), uuid, &key, ("a/b", version), value.as_bytes()).unwrap()
        }

        /// The answer with an assignment that names some secrets, and carries some.
        fn offer(
            &self,
            serial: u64,
            named: &[&SealedSecret],
            carried: &[&SealedSecret],
        ) -> Result<Offer, OfferRefused> {
            let assignment = Assignment {
                server: self.server.id(),
                version: Version { epoch: 1, serial },
                uuid: self.gate.uuid,
                bundle: bundle_hash(&self.bundle.payload),
                secrets: named.iter().map(|one| one.reference.clone()).collect(),
                interval_ms: 60_000,
                issued_at_ms: 1,
                max_age_ms: 0,
                hostname: "a".into(),
            };
            let mut signed = assignment.sign(&self.policy);
            signed.sealed = carried.iter().map(|one| one.sign(&self.policy)).collect();
            self.gate.check(&self.server, Some(signed), Some(self.bundle.clone()))
        }
    }

    #[test]
    fn a_secret_comes_in_only_as_the_assignment_names_it() {
        let site = site();
        let (old, new, foreign) = (site.sealed(9, 1), site.sealed(9, 2), site.sealed(8, 2));
        let offer = site.offer(5, &[&new], &[&new]).expect("as named");
        assert_eq!(*offer.applied.secrets, std::slice::from_ref(&new));
        assert_eq!(site.offer(5, &[&new], &[]), Err(OfferRefused::NoSecret("a/b".into())));
        // Each was signed by the right key once, and is replayed.
        for carried in [&[&old, &new][..], &[&new, &old], &[&old]] {
            let refused = site.offer(5, &[&new], carried).expect_err("an old value is no use");
            assert!(matches!(refused, OfferRefused::StraySecret(_) | OfferRefused::NoSecret(_)), "{refused}");
        }
        assert_eq!(site.offer(5, &[], &[&old]), Err(OfferRefused::StraySecret("a/b".into())));
        assert_eq!(site.offer(5, &[&new], &[&foreign]), Err(OfferRefused::OtherEnvoy(foreign.uuid)));
    }

    #[test]
    fn a_secret_that_is_not_given_stays_and_one_that_was_altered_on_disk_is_gone() {
        let mut site = site();
        let (old, new) = (site.sealed(9, 1), site.sealed(9, 2));
        let first = site.offer(5, &[&old], &[&old]).expect("as named");
        site.gate.make_current(first.applied);
        let kept = site.offer(6, &[], &[]).expect("it names none");
        assert_eq!(*kept.applied.secrets, std::slice::from_ref(&old));
        assert_eq!(kept.assignment.sealed.len(), 1, "it is stored with the new assignment");
        let second = site.offer(7, &[&new], &[&new]).expect("as named");
        let mut slot = second.assignment.clone();
        site.gate.make_current(second.applied);
        assert_eq!(*site.gate.former_secrets(), std::slice::from_ref(&old));
        // Somebody puts the old value back into the store of the agent.
        slot.sealed = vec![old.sign(&site.policy)];
        let current = Some((slot, site.bundle.clone()));
        let loaded = Loaded { current, ..Loaded::default() };
        let (gate, incidents) = Gate::load(site.gate.uuid, &loaded, &Pins::new(site.server.clone()));
        assert!(incidents.is_empty(), "{incidents:?}");
        assert!(gate.current().is_some_and(|applied| applied.secrets.is_empty()));
    }
}
