//! One simulated fleet: agenda, faults, and the shells that obey the cores' effects.

mod agents;
mod enroll;
mod faulty;
mod server;
mod transport;

use std::collections::BTreeSet;

use common::chain::Lane;
use common::crypto::{Context, enroll_transcript, hello_hash};
use common::ids::{Hash32, Uuid};
use common::proto::{Code, Message, method, wire};
use common::rng::{Rng, SplitMix64};
use common::time::{Mono, Now};
use envoy::agent::pins::{PinnedServer, Pins};
use envoy::agent::{Agent, CallId as AgentCall, Effect as AgentEffect, Event as AgentEvent, LinkId, Signal};
use envoy::cache::{Cache, StoreOp};
use vigosrv::app::{AdminRequest, CallId, ConnId, Effect, Event, Hold, Method};
use vigosrv::store::{Store, StoreError, Write};

use crate::agenda::{Agenda, What};
use crate::faults::{Fault, Kind, Plan};
use crate::host::{Host, StoreRequest};
use crate::net::{Net, Peer, ToAgent, ToServer};
use crate::plant::Bug;
use crate::policy;
use crate::site::{INTERVAL_MS, Site};

/// Server wall time at the start of every simulation: 2026-01-01.
const WALL_BASE: i64 = 1_767_225_600_000;
/// Intervals with faults, and time to heal after them. The longest backoff is ten intervals.
const FAULTY_INTERVALS: u64 = 44;
const HEAL_MS: u64 = 1_500_000;
/// Events of one simulation, per host: a run that needs more is a loop.
const EVENTS_PER_HOST_MAX: u64 = 60_000;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Decides everything.
    pub seed: u64,
    /// Hosts.
    pub agents: usize,
    /// A bug to plant.
    pub bug: Option<Bug>,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the checkers found; empty is good.
    pub violations: Vec<String>,
    /// Kinds of faults that really happened.
    pub happened: BTreeSet<Kind>,
    /// Runs of all hosts.
    pub runs: u64,
    /// Events handled.
    pub events: u64,
    /// Records in the server's database at the end.
    pub records: u64,
    /// Of these, gaps.
    pub gaps: u64,
}

pub(crate) struct World {
    pub config: Config,
    pub rng: SplitMix64,
    pub now: Mono,
    pub agenda: Agenda,
    pub net: Net,
    pub site: Site,
    pub hosts: Vec<Host>,
    pub plan: Plan,
    pub outcome: Outcome,
    /// Bundles that the operator really published, by hash.
    pub published: BTreeSet<Hash32>,
    /// Records that were really lost to the disk or the queue bound are reported as such by these hosts.
    pub healing: bool,
    pub versions: u32,
    pub served_version: Option<u32>,
    trace: bool,
}

/// Simulates one seed.
pub fn run(config: Config) -> Outcome {
    let mut world = World::new(config);
    world.set_up();
    let (faults_end, end) = (Mono(FAULTY_INTERVALS * INTERVAL_MS), Mono(FAULTY_INTERVALS * INTERVAL_MS + HEAL_MS));
    let events_max = EVENTS_PER_HOST_MAX * (config.agents as u64 + 1);
    while let Some((when, what)) = world.agenda.pop() {
        if when > faults_end && !world.healing {
            world.now = faults_end;
            world.heal();
        }
        if when > end || !world.outcome.violations.is_empty() {
            break;
        }
        world.now = when;
        world.outcome.events += 1;
        if world.outcome.events > events_max {
            world.violation(format!("more than {events_max} events: somebody loops"));
            break;
        }
        world.happen(what);
    }
    world.now = end;
    crate::check::at_the_end(&mut world);
    world.outcome
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        let mut rng = SplitMix64(config.seed ^ 0x5167_0a11_0000_0000);
        let plan = Plan::draw(&mut rng, config.agents, Mono(INTERVAL_MS * 2), Mono(FAULTY_INTERVALS * INTERVAL_MS));
        let hold = [Hold::Auto, Hold::Always, Hold::Never][rng.below(3) as usize];
        // One a second: even a fleet of twenty is too much at once after an outage.
        let rate = if plan.has(Kind::Overload) { 1 } else { 10_000 };
        World {
            hosts: (0..config.agents).map(|index| Host::new(index, &mut rng)).collect(),
            site: Site::new(hold, rate),
            config,
            rng,
            now: Mono(0),
            agenda: Agenda::default(),
            net: Net::default(),
            plan,
            outcome: Outcome::default(),
            published: BTreeSet::new(),
            healing: false,
            versions: 0,
            served_version: None,
            trace: std::env::var_os("VIGO_SIM_TRACE").is_some(),
        }
    }

    pub(crate) fn violation(&mut self, text: String) {
        self.outcome.violations.push(format!("at {} ms: {text}", self.now.0));
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>9} {}", self.now.0, line());
        }
    }

    pub(crate) fn set_up(&mut self) {
        for (when, fault) in std::mem::take(&mut self.plan.moments) {
            self.agenda.at(when, What::Fault(fault));
        }
        self.remember_version(0);
        self.site.live = Some(policy::version(0));
        self.served_version = Some(0);
        let late = self.plan.has(Kind::LateEnroll);
        if self.plan.has(Kind::TinyQueue) {
            self.outcome.happened.insert(Kind::TinyQueue);
        }
        for index in 0..self.hosts.len() {
            if self.plan.has(Kind::TinyQueue) && index % 2 == 0 {
                self.hosts[index].queue_bytes_max = 4 << 10;
            }
            if late && index % 4 == 1 {
                self.outcome.happened.insert(Kind::LateEnroll);
            }
            let when = if late && index % 4 == 1 {
                Mono(self.rng.below(FAULTY_INTERVALS / 2 * INTERVAL_MS))
            } else {
                Mono(self.rng.below(INTERVAL_MS))
            };
            self.agenda.at(when + 100, What::Enroll { host: index });
        }
        // A copy of the database for restores, taken while things happen.
        for index in 0..self.hosts.len() * 6 {
            let when = self.rng.below(FAULTY_INTERVALS * INTERVAL_MS);
            self.agenda.at(Mono(when), What::Drift { host: index % self.hosts.len() });
        }
        self.agenda.at(Mono(0), What::ServerStart);
    }

    pub(crate) fn remember_version(&mut self, n: u32) {
        let compiled = policy::version(n);
        for index in 0..compiled.mappings().len() as u32 {
            self.published.insert(compiled.bundle(vigosrv::policy::MappingId(index)).0);
        }
    }

    /// Faults stop: everything that is broken is mended, everything that is down is started.
    pub(crate) fn heal(&mut self) {
        self.healing = true;
        self.site.disk_full = false;
        self.site.crash_in = None;
        self.site.lose_ack = false;
        self.site.checkins_per_second = 10_000;
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            (host.partitioned, host.slow, host.disk_full) = (false, false, false);
            (host.crash_in, host.lose_ack) = (None, false);
        }
        if self.site.server.is_none() {
            self.agenda.at(self.now + 1, What::ServerStart);
        } else if self.plan.has(Kind::Overload) {
            // The operator raises the rate, which needs a restart.
            self.crash_server(true);
        }
        if self.site.live.is_none() {
            let version = self.versions;
            self.agenda.at(self.now + 2_000, What::Publish { version });
        }
    }

    pub(crate) fn happen(&mut self, what: What) {
        match what {
            What::ServerStart => self.start_server(),
            What::ServerTick { boot } => self.server_tick(boot),
            What::ToServer { boot, message } => self.deliver_to_server(boot, message),
            What::WriterTurn { boot } => self.writer_turn(boot),
            What::AgentStart { host, reboot } => self.start_agent(host, reboot),
            What::Drift { host } => {
                let name = format!("base.r{}", self.rng.below(6));
                self.hosts[host].state.remove(&name);
            }
            What::Enroll { host } => self.enroll(host),
            What::Publish { version } => self.publish(version),
            What::Fault(fault) => self.fault(fault),
            What::AgentTick { host, incarnation } => {
                let due = self.hosts[host].tick_at.is_some_and(|at| at <= self.now);
                if self.alive(host, incarnation) && due {
                    self.hosts[host].tick_at = None;
                    self.agent_event(host, AgentEvent::Tick);
                }
            }
            What::ToAgent { host, incarnation, message } => self.deliver_to_agent(host, incarnation, message),
            What::StoreTurn { host, incarnation } if self.alive(host, incarnation) => self.store_turn(host),
            What::Traits { host, incarnation, ticket } if self.alive(host, incarnation) => {
                let trees = std::sync::Arc::new(self.traits(host));
                self.agent_event(host, AgentEvent::Traits { ticket, trees });
            }
            What::RunEnd { host, incarnation } if self.alive(host, incarnation) => self.run_end(host),
            What::PinsSaved { host, incarnation } if self.alive(host, incarnation) => {
                let Some(pins) = self.hosts[host].saving.pop_front() else { return };
                self.hosts[host].pins = Some(pins);
                self.agent_event(host, AgentEvent::PinsSaved { result: Ok(()) });
            }
            What::SealingKey { host, incarnation } if self.alive(host, incarnation) => {
                let result = Ok(self.hosts[host].sealing);
                self.agent_event(host, AgentEvent::SealingKey { result });
            }
            What::BlobsChecked { host, incarnation, ticket, missing } if self.alive(host, incarnation) => {
                let missing = missing.into_iter().map(|blob| (blob, 0)).collect();
                self.agent_event(host, AgentEvent::BlobsChecked { ticket, missing });
            }
            What::BlobWritten { host, incarnation, hash } if self.alive(host, incarnation) => {
                self.hosts[host].blobs.insert(hash);
                self.agent_event(host, AgentEvent::BlobWritten { hash, result: Ok(()) });
            }
            // What a dead process was waiting for.
            _ => {}
        }
    }

    pub(crate) fn alive(&self, host: usize, incarnation: u32) -> bool {
        self.hosts[host].agent.is_some() && self.hosts[host].incarnation == incarnation
    }
}
