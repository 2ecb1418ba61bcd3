//! A scripted server by the rules of the wire, with its own database.

use std::collections::BTreeMap;

use common::bundle::{Assignment, BlobRef, Bundle, Receipt, Resource, Version, bundle_hash};
use common::chain::Lane;
use common::crypto::{Context, SigningKey, server_id, sha256};
use common::ids::{Hash32, Uuid};
use common::proto::{Code, RecordBody, record_meta, wire};
use common::rng::SplitMix64;

use super::harness::{INTERVAL, envoy_key, uuid};
use crate::agent::pins::PinnedServer;

/// A server by the rules of the wire, with its own database.
pub struct Server {
    pub identity: SigningKey,
    pub policy: SigningKey,
    pub ca: Hash32,
    pub epoch: u64,
    pub up: bool,
    pub hold: bool,
    pub policy_at: Option<(Version, Bundle)>,
    pub max_age_ms: u64,
    pub blobs: BTreeMap<Hash32, Vec<u8>>,
    /// By lane: stored records in order, and forks.
    pub stored: [Vec<wire::Record>; 2],
    pub forks: Vec<wire::Record>,
    pub known: bool,
    pub answer_later_ms: u32,
    pub redirect: Option<wire::Signed>,
    pub recovery: Option<wire::Signed>,
    pub recovery_key: Vec<u8>,
    pub succession: Vec<wire::Signed>,
    /// Answers to `Report` that get lost after the commit.
    pub lose_reports: u32,
    pub step_down: bool,
    pub receipts_seen: u32,
    pub trait_hash: u64,
    pub traits: BTreeMap<String, String>,
    pub advertised: Vec<String>,
    pub n_check_ins: u32,
    pub revocation: wire::RevocationEcho,
    /// Zeros: another one is wanted.
    pub sealing: [u8; 32],
    pub n_sealing_shown: u32,
    /// Tampers with what is sent.
    pub forge: Option<fn(&mut wire::CheckInReply)>,
    /// Reports that are not taken: the status of the answer.
    pub refuse: Option<fn(&wire::ReportRequest) -> Option<Code>>,
    /// Reports that came, refused ones included.
    pub n_reports: u32,
}

/// The sealing key that an envoy was enrolled with.
pub const SEALING: [u8; 32] = [5; 32];

impl Server {
    pub fn new(seed: u64) -> Server {
        let rng = &mut SplitMix64(seed);
        let (identity, policy) = (SigningKey::generate(rng), SigningKey::generate(rng));
        Server {
            ca: sha256(&[b"ca", &seed.to_be_bytes()]),
            identity,
            policy,
            epoch: 1,
            up: true,
            hold: true,
            policy_at: None,
            max_age_ms: 0,
            blobs: BTreeMap::new(),
            stored: Default::default(),
            forks: Vec::new(),
            known: true,
            answer_later_ms: 0,
            redirect: None,
            recovery: None,
            recovery_key: Vec::new(),
            succession: Vec::new(),
            lose_reports: 0,
            step_down: false,
            receipts_seen: 0,
            trait_hash: 0,
            traits: BTreeMap::new(),
            advertised: Vec::new(),
            n_check_ins: 0,
            revocation: wire::RevocationEcho::default(),
            sealing: SEALING,
            n_sealing_shown: 0,
            forge: None,
            refuse: None,
            n_reports: 0,
        }
    }

    fn receipt(&self, uuid: Uuid, key: &SigningKey, sealing_key: [u8; 32]) -> wire::Signed {
        let receipt = Receipt {
            uuid,
            public_key: key.public(),
            sealing_key,
            hostname: "a.example".into(),
            server: server_id(&self.identity.public()),
            serial: 1,
        };
        receipt.sign(&self.identity)
    }

    pub fn pinned(&self, uuid: Uuid, key: &SigningKey, address: &str) -> PinnedServer {
        PinnedServer {
            identity_key: self.identity.public(),
            policy_key: self.policy.public(),
            recovery_key: None,
            ca_pem: self.ca.to_string(),
            ca_hash: self.ca,
            epoch: 1,
            receipt: Some(self.receipt(uuid, key, SEALING)),
            hostname: "a.example".into(),
            servers: vec![address.into()],
        }
    }

    pub fn publish(&mut self, serial: u64, names: &[&str]) {
        let resource =
            |name: &&str| Resource { name: (*name).into(), kind: "file".into(), timeout_ms: 1, ..Resource::default() };
        let blobs =
            self.blobs.iter().map(|(hash, data)| BlobRef { sha256: *hash, size: data.len() as u64, path: "f".into() });
        let bundle = Bundle {
            mapping: "envoys/a.vgo:1".into(),
            resources: names.iter().map(resource).collect(),
            blobs: blobs.collect(),
            ..Bundle::default()
        };
        self.policy_at = Some((Version { epoch: self.epoch, serial }, bundle));
    }

    pub fn watermark(&self, lane: usize) -> u64 {
        self.stored[lane].last().map_or(0, |record| record.last_sequence)
    }

    pub fn link(&self, lane: usize) -> Vec<u8> {
        self.stored[lane].last().map_or(Vec::new(), |record| record.last_link.clone())
    }

    pub fn store(&mut self, record: wire::Record) {
        let (meta, _) = record_meta(&record).expect("the agent sends well-formed records");
        let lane = meta.lane.index();
        let watermark = self.watermark(lane);
        if watermark == 0 || meta.first == watermark + 1 {
            self.stored[lane].push(record);
        } else if meta.first <= watermark {
            let same = |old: &&wire::Record| old.last_sequence == meta.last && old.last_link == meta.last_link.0;
            if meta.last > watermark || self.stored[lane].iter().find(same).is_none() {
                self.forks.push(record);
            }
        }
    }

    /// Ids of delivered runs with their counts, gaps as `None`.
    pub fn runs(&self, lane: Lane) -> Vec<(u64, Option<Uuid>)> {
        let decode = |record: &wire::Record| {
            let (meta, body) = record_meta(record).expect("checked when stored");
            let id = match body {
                RecordBody::Run(run) => Uuid::try_from_slice(&run.run_id).ok(),
                RecordBody::Stretch(stretch) => Uuid::try_from_slice(&stretch.last_run_id).ok(),
                RecordBody::Gap(_) | RecordBody::Incident(_) => None,
            };
            (meta.count(), id)
        };
        self.stored[lane.index()].iter().map(decode).collect()
    }

    pub fn count(&self, lane: Lane) -> u64 {
        self.stored[lane.index()].iter().map(|r| r.last_sequence - r.first_sequence + 1).sum()
    }

    pub fn chain_holds(&self) -> bool {
        self.stored.iter().all(|lane| {
            let first = lane.first().is_none_or(|r| r.first_sequence == 1 && r.previous_link == [0; 32]);
            first
                && lane.windows(2).all(|pair| {
                    pair[0].last_sequence + 1 == pair[1].first_sequence && pair[0].last_link == pair[1].previous_link
                })
        })
    }
}

impl Server {
    pub fn check_in(&mut self, request: &wire::CheckInRequest, wall: u64) -> wire::CheckInReply {
        use wire::check_in_reply::Result as Answer;
        self.n_check_ins += 1;
        let mut reply = wire::CheckInReply {
            result: Answer::KeepCached as i32,
            epoch: self.epoch,
            revocation: Some(self.revocation),
            server_time_ms: wall,
            want_traits: request.trait_hash != self.trait_hash,
            ..wire::CheckInReply::default()
        };
        if let Ok(shown) = <[u8; 32]>::try_from(&request.sealing_key[..]) {
            envoy_key().public().verify(Context::Sealing, &shown, &request.sealing_signature).expect("it is signed");
            self.n_sealing_shown += 1;
            let receipt = self.receipt(uuid(), &envoy_key(), shown);
            reply.receipt = (self.sealing == shown).then_some(receipt);
            self.sealing = shown;
        }
        reply.want_sealing_key = self.sealing == [0; 32];
        if self.answer_later_ms > 0 {
            (reply.result, reply.retry_after_ms) = (Answer::Later as i32, self.answer_later_ms);
            return reply;
        }
        if let Some(redirect) = &self.redirect {
            (reply.result, reply.redirect) = (Answer::Redirect as i32, Some(redirect.clone()));
            return reply;
        }
        let Some((version, bundle)) = &self.policy_at else { return reply };
        let signed = bundle.sign(&self.policy);
        let hash = bundle_hash(&signed.payload);
        if request.bundle_hash == hash.0 && (request.epoch, request.serial) == (version.epoch, version.serial) {
            reply.result = Answer::NoChange as i32;
            return reply;
        }
        let assignment = Assignment {
            server: server_id(&self.identity.public()),
            version: *version,
            uuid: uuid(),
            bundle: hash,
            secrets: Vec::new(),
            interval_ms: INTERVAL,
            issued_at_ms: wall,
            max_age_ms: self.max_age_ms,
            hostname: "a.example".into(),
        };
        reply.result = Answer::Send as i32;
        reply.assignment = Some(assignment.sign(&self.policy));
        reply.bundle = (request.bundle_hash != hash.0).then_some(signed);
        if let Some(forge) = self.forge {
            forge(&mut reply);
        }
        reply
    }
}
