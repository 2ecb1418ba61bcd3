//! The simulated server: the real core, a database that survives crashes, and a writer that takes its time.

use std::sync::Arc;

use common::crypto::{Context, SigningKey, server_id};
use common::glob::Glob;
use common::ids::{Hash32, ServerId};
use common::rng::SplitMix64;
use common::time::{Mono, Now, Wall};
use vigosrv::app::{Hold, Identity, Server, ServerInit, Settings, TrustedEntry};
use vigosrv::policy::Compiled;
use vigosrv::store::{MemoryStore, Store, Write};

/// Check-in interval of the simulated fleet, milliseconds.
pub(crate) const INTERVAL_MS: u64 = 30_000;

/// The server's side.
pub(crate) struct Site {
    identity_seed: [u8; 32],
    policy_seed: [u8; 32],
    pub hold: Hold,
    pub checkins_per_second: u32,
    /// On disk.
    pub store: MemoryStore,
    pub live: Option<Arc<Compiled>>,
    /// An older copy of the database.
    pub older: Option<MemoryStore>,
    /// In memory.
    pub server: Option<Server>,
    pub boot: u32,
    pub queue: Vec<(u64, Write)>,
    pub writer_busy: bool,
    pub tick_at: Option<Mono>,
    /// Trouble.
    pub disk_full: bool,
    pub crash_in: Option<u64>,
    pub lose_ack: bool,
    /// The next start is told that the database was restored.
    pub restored: Option<String>,
    /// An older copy came back at least once.
    pub was_restored: bool,
    pub next_admin: u64,
    /// Check-ins that overload control sent away.
    pub later_answers: u64,
}

impl Site {
    pub fn new(hold: Hold, checkins_per_second: u32) -> Site {
        let mut site = Site {
            identity_seed: [1; 32],
            policy_seed: [2; 32],
            hold,
            checkins_per_second,
            store: MemoryStore::new(ServerId::default()),
            live: None,
            older: None,
            server: None,
            boot: 0,
            queue: Vec::new(),
            writer_busy: false,
            tick_at: None,
            disk_full: false,
            crash_in: None,
            lose_ack: false,
            restored: None,
            was_restored: false,
            next_admin: 1,
            later_answers: 0,
        };
        site.store = MemoryStore::new(site.server_id());
        site
    }

    pub fn identity_key(&self) -> SigningKey {
        SigningKey::from_seed(self.identity_seed)
    }

    pub fn policy_key(&self) -> SigningKey {
        SigningKey::from_seed(self.policy_seed)
    }

    pub fn server_id(&self) -> ServerId {
        server_id(&self.identity_key().public())
    }

    pub fn now(&self, world: Mono, wall_base: i64) -> Now {
        Now { mono: world, wall: Wall(wall_base + world.0 as i64) }
    }

    /// Starts the server from what is on disk.
    pub fn start(&mut self, now: Now, seed: u64, out: &mut Vec<vigosrv::app::Effect>) {
        self.boot += 1;
        let identity = self.identity_key();
        let policy = self.policy_key();
        let policy_key_signature = identity.sign(Context::PolicyKey, policy.public().as_bytes()).to_vec();
        let Ok(snapshot) = self.store.load() else { return };
        let init = ServerInit {
            identity: Identity {
                server_id: self.server_id(),
                identity,
                policy,
                policy_key_signature,
                ca_pem: "ca".into(),
                ca_hash: Hash32([7; 32]),
                recovery: None,
                recovery_succession: Vec::new(),
                rebuilt: None,
            },
            settings: self.settings(),
            snapshot,
            compiled: self.live.clone(),
            restored: self.restored.take(),
            outbid_ms: 0,
            rng: Box::new(SplitMix64(seed)),
            vault: Arc::default(),
            changed_secrets: Vec::new(),
            now,
        };
        self.server = Some(Server::new(init, out));
    }

    fn settings(&self) -> Settings {
        let pattern = Glob::try_new("*").unwrap_or_else(|_| unreachable!("a star is a pattern"));
        Settings {
            interval_ms: INTERVAL_MS,
            bundle_max_age_ms: 0,
            hold: self.hold,
            held_connections_max: 10_000,
            checkins_per_second: self.checkins_per_second,
            pending_writes_max: 10_000,
            trusted: vec![TrustedEntry { pattern, cidr: None, until: None, max: None, secrets: true }],
            servers: Vec::new(),
            version: "0.1.0".into(),
        }
    }

    /// The process is gone; what is on disk stays. What the writer had is on disk as a whole, or not at all.
    pub fn kill(&mut self, committed: bool) {
        let batch: Vec<Write> = self.queue.drain(..).map(|(_, write)| write).collect();
        if committed && !self.disk_full {
            let _ = self.store.apply(&batch);
        }
        self.server = None;
        self.writer_busy = false;
        self.tick_at = None;
        self.crash_in = None;
        self.lose_ack = false;
    }
}
