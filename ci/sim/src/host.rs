//! One simulated host: the real agent core, a disk that survives crashes, and a set of resources that drift.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use common::chain::Lane;
use common::crypto::SigningKey;
use common::ids::{Hash32, Uuid};
use common::outcome::Outcome;
use common::proto::{Message, wire};
use common::rng::{Rng, SplitMix64};
use common::time::{Mono, Now, Wall};
use envoy::agent::pins::Pins;
use envoy::agent::{Agent, AgentConfig, AgentInit, Mode, RunOrder, Ticket};
use envoy::cache::{Cache, MemoryCache, StoreOp};
use envoy::report::{ResourceReport, RunReport};

/// A request to the owner of the store.
#[derive(Debug)]
pub(crate) enum StoreRequest {
    Commit { ticket: Ticket, ops: Vec<StoreOp> },
    Read { ticket: Ticket, lane: Lane, first: u64, max_bytes: usize },
}

/// What the simulator promises to find in the server's database at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    pub lane: Lane,
    pub sequence: u64,
}

/// A host.
pub(crate) struct Host {
    pub name: String,
    pub key_seed: [u8; 32],
    pub uuid: Option<Uuid>,
    /// On disk.
    pub pins: Option<Pins>,
    pub sealing: [u8; 32],
    pub cache: MemoryCache,
    pub blobs: BTreeSet<Hash32>,
    /// Resource name to what it is set to: the host itself.
    pub state: BTreeMap<String, u64>,
    /// In memory.
    pub agent: Option<Agent>,
    pub incarnation: u32,
    pub requests: VecDeque<StoreRequest>,
    pub saving: VecDeque<Pins>,
    pub running: Option<(Box<RunOrder>, Now)>,
    pub tick_at: Option<Mono>,
    /// The host's clocks.
    pub boot: u32,
    pub boot_at: Mono,
    pub wall_offset: i64,
    /// Trouble.
    pub partitioned: bool,
    pub slow: bool,
    pub disk_full: bool,
    pub crash_in: Option<u64>,
    pub lose_ack: bool,
    pub queue_bytes_max: u64,
    /// Facts for the checkers.
    pub owed: HashMap<Uuid, Owed>,
    pub last_outcome_ok: bool,
    pub runs: u64,
    pub applied: BTreeSet<Hash32>,
}

impl Host {
    pub fn new(index: usize, rng: &mut SplitMix64) -> Host {
        let mut key_seed = [0; 32];
        rng.fill(&mut key_seed);
        Host {
            name: format!("n{index:04}.sim.example"),
            key_seed,
            uuid: None,
            pins: None,
            sealing: [9; 32],
            cache: MemoryCache::default(),
            blobs: BTreeSet::new(),
            state: BTreeMap::new(),
            agent: None,
            incarnation: 0,
            requests: VecDeque::new(),
            saving: VecDeque::new(),
            running: None,
            tick_at: None,
            boot: 0,
            boot_at: Mono(0),
            wall_offset: 0,
            partitioned: false,
            slow: false,
            disk_full: false,
            crash_in: None,
            lose_ack: false,
            queue_bytes_max: common::limits::QUEUE_BYTES_DEFAULT,
            owed: HashMap::new(),
            last_outcome_ok: false,
            runs: 0,
            applied: BTreeSet::new(),
        }
    }

    pub fn key(&self) -> SigningKey {
        SigningKey::from_seed(self.key_seed)
    }

    /// The host's own view of time.
    pub fn now(&self, world: Mono, wall_base: i64) -> Now {
        let wall = wall_base.saturating_add(world.0 as i64).saturating_add(self.wall_offset);
        Now { mono: Mono(world.since(self.boot_at)), wall: Wall(wall) }
    }

    /// What the agent is started with, from what is on disk.
    pub fn init(&mut self) -> Option<AgentInit> {
        let (uuid, pins) = (self.uuid?, self.pins.clone()?);
        let loaded = self.cache.load().ok()?;
        Some(AgentInit {
            mode: Mode::Daemon,
            config: self.config(),
            uuid,
            key: self.key(),
            sealing: self.sealing,
            pins,
            loaded,
            boot_id: format!("{}-{}", self.name, self.boot),
            machine_id: self.name.clone(),
            version: "0.1.0".into(),
            build_ms: 0,
        })
    }

    pub fn config(&self) -> AgentConfig {
        AgentConfig {
            servers: vec!["server.sim.example:1530".into()],
            rebootstrap_deny: false,
            queue_bytes_max: self.queue_bytes_max,
        }
    }

    /// The process is gone; what is on disk stays. A commit or a pin file under way is on disk or not, by chance.
    pub fn kill(&mut self, rng: &mut SplitMix64) {
        self.agent = None;
        self.incarnation += 1;
        self.tick_at = None;
        self.running = None;
        self.crash_in = None;
        if let Some(StoreRequest::Commit { ops, .. }) = self.requests.pop_front()
            && rng.below(2) == 0
        {
            // A full disk took nothing, as it would have before the crash.
            let _ = self.commit(&ops);
        }
        self.requests.clear();
        if let Some(pins) = self.saving.pop_front()
            && rng.below(2) == 0
        {
            self.pins = Some(pins);
        }
        self.saving.clear();
    }

    /// Commits a batch to the host's disk and notes which runs are owed from now on.
    pub fn commit(&mut self, ops: &[StoreOp]) -> Result<(), envoy::cache::CacheError> {
        if self.disk_full && ops.iter().any(|op| !matches!(op, StoreOp::DeleteRecords { .. })) {
            return Err(envoy::cache::CacheError::Full);
        }
        self.cache.commit(ops)?;
        for op in ops {
            if let StoreOp::PutRecord(put) = op
                && let Some((run_id, owed)) = newest_run(&put.record)
            {
                self.owed.insert(run_id, owed);
            }
        }
        Ok(())
    }

    /// Does a run on the host: what differs is set, a few fail.
    pub fn converge(&mut self, order: &RunOrder, started: Now, duration_ms: u64, rng: &mut SplitMix64) -> RunReport {
        let mut resources = Vec::with_capacity(order.bundle.resources.len());
        for resource in &order.bundle.resources {
            let text = format!("{}{:?}", resource.name, resource.params);
            let fingerprint = common::crypto::sha256(&[text.as_bytes()]).short();
            let outcome = if self.state.get(&resource.name) == Some(&fingerprint) {
                Outcome::Ok
            } else if rng.below(25) == 0 {
                Outcome::Failed
            } else {
                self.state.insert(resource.name.clone(), fingerprint);
                Outcome::Changed
            };
            resources.push(ResourceReport {
                name: resource.name.clone(),
                kind: resource.kind.clone(),
                outcome,
                message: String::new(),
                diff: String::new(),
                duration_ms: 1,
                fingerprint,
            });
        }
        self.runs += 1;
        self.last_outcome_ok = resources.iter().all(|r| r.outcome != Outcome::Failed);
        RunReport { run_id: order.run_id, started, duration_ms, resources, ..RunReport::default() }
    }
}

/// The newest run that a record holds, and where.
fn newest_run(record: &wire::Record) -> Option<(Uuid, Owed)> {
    use wire::record::Body;
    let lane = Lane::from_u32(u32::try_from(record.lane).ok()?)?;
    let run_id = match record.body.as_ref()? {
        Body::Run(body) => wire::RunResult::decode(&body[..]).ok()?.run_id,
        Body::Stretch(body) => wire::Stretch::decode(&body[..]).ok()?.last_run_id,
        Body::Gap(_) | Body::Incident(_) => return None,
    };
    Some((Uuid::try_from_slice(&run_id).ok()?, Owed { lane, sequence: record.last_sequence }))
}
