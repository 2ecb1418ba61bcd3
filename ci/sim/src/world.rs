//! One simulated fleet: agenda, faults, and the shells that obey the cores' effects.

use std::collections::BTreeSet;

use common::crypto::{Context, enroll_transcript, hello_hash};
use common::ids::{Hash32, Uuid};
use common::proto::{Code, Message, method, wire};
use common::rng::{Rng, SplitMix64};
use common::time::{Mono, Now};
use envoy::agent::pins::{PinnedServer, Pins};
use envoy::agent::{Agent, CallId as AgentCall, Effect as AgentEffect, Event as AgentEvent, LinkId};
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
    fn new(config: Config) -> World {
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

    pub fn violation(&mut self, text: String) {
        self.outcome.violations.push(format!("at {} ms: {text}", self.now.0));
    }

    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>9} {}", self.now.0, line());
        }
    }

    fn set_up(&mut self) {
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

    fn remember_version(&mut self, n: u32) {
        let compiled = policy::version(n);
        for index in 0..compiled.mappings().len() as u32 {
            self.published.insert(compiled.bundle(vigosrv::policy::MappingId(index)).0);
        }
    }

    /// Faults stop: everything that is broken is mended, everything that is down is started.
    fn heal(&mut self) {
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

    fn happen(&mut self, what: What) {
        match what {
            What::ServerStart => self.start_server(),
            What::ServerTick { boot } => {
                if boot == self.site.boot && self.site.tick_at.is_some_and(|at| at <= self.now) {
                    self.site.tick_at = None;
                    self.server_event(Event::Tick);
                }
            }
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
            What::BlobsChecked { host, incarnation, ticket, missing } if self.alive(host, incarnation) => {
                let missing = missing.into_iter().map(|blob| (blob, 0)).collect();
                self.agent_event(host, AgentEvent::BlobsChecked { ticket, missing });
            }
            What::BlobWritten { host, incarnation, hash } if self.alive(host, incarnation) => {
                self.hosts[host].blobs.insert(hash);
                self.agent_event(host, AgentEvent::BlobWritten { hash, result: Ok(()) });
            }
            What::Control { host, incarnation, request } if self.alive(host, incarnation) => {
                let id = envoy::agent::ControlId(self.rng.next_u64());
                self.agent_event(host, AgentEvent::Control { id, request });
            }
            // What a dead process was waiting for.
            _ => {}
        }
    }

    fn alive(&self, host: usize, incarnation: u32) -> bool {
        self.hosts[host].agent.is_some() && self.hosts[host].incarnation == incarnation
    }

    // ------------------------------------------------------------------------------------------------ the server

    fn start_server(&mut self) {
        if self.site.server.is_some() {
            return;
        }
        let mut out = Vec::new();
        let (now, seed) = (self.site.now(self.now, WALL_BASE), self.rng.next_u64());
        self.site.start(now, seed, &mut out);
        self.trace(|| format!("server starts, boot {}", self.site.boot));
        self.obey_server(out);
    }

    pub fn server_event(&mut self, event: Event) {
        let Some(server) = &mut self.site.server else { return };
        let mut out = Vec::new();
        let now = Now { mono: self.now, wall: common::time::Wall(WALL_BASE + self.now.0 as i64) };
        server.handle(now, event, &mut out);
        self.obey_server(out);
    }

    fn obey_server(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Some(left) = &mut self.site.crash_in {
                if *left == 0 {
                    return self.crash_server(false);
                }
                *left -= 1;
            }
            self.server_effect(effect);
        }
        let Some(server) = &self.site.server else { return };
        if let Some(deadline) = server.next_deadline() {
            let deadline = deadline.max(self.now + 1);
            if self.site.tick_at.is_none_or(|at| at > deadline) {
                self.site.tick_at = Some(deadline);
                self.agenda.at(deadline, What::ServerTick { boot: self.site.boot });
            }
        }
    }

    fn server_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { call, body } => {
                self.note_later(call, &body);
                let body = self.twist_reply(call, body);
                self.to_agent(call.conn, call.stream, |conn, call| ToAgent::Reply { conn, call, result: Ok(body) });
            }
            Effect::Fail { call, code, message } => {
                self.trace(|| format!("server fails {call:?}: {code:?} {message}"));
                let streaming = self.net.conns.get(&call.conn).and_then(|conn| conn.calls.get(&call.stream));
                let streaming = matches!(streaming, Some((_, Method::Watch | Method::FetchBlob)));
                let result = (code, message);
                self.to_agent(call.conn, call.stream, |conn, call| {
                    if streaming {
                        ToAgent::End { conn, call, result: Err(result) }
                    } else {
                        ToAgent::Reply { conn, call, result: Err(result) }
                    }
                });
            }
            Effect::Item { call, body } => {
                self.to_agent(call.conn, call.stream, |conn, call| ToAgent::Item { conn, call, body });
                let message = ToServer::StreamReady { call };
                self.agenda.at(self.now + 3, What::ToServer { boot: self.site.boot, message });
            }
            Effect::End { call } => {
                self.to_agent(call.conn, call.stream, |conn, call| ToAgent::End { conn, call, result: Ok(()) });
            }
            Effect::Close { conn, .. } => self.break_conn(conn),
            Effect::Write { ticket, write } => {
                if self.config.bug == Some(Bug::AckBeforeCommit)
                    && let Write::Results(_) = &write
                {
                    // The answer of a store that is ahead of its disk.
                    let mut ahead = self.site.store.clone();
                    let queued: Vec<Write> = self.site.queue.iter().map(|(_, write)| write.clone()).collect();
                    if ahead.apply(&queued).is_ok()
                        && let Ok(mut written) = ahead.apply(std::slice::from_ref(&write))
                        && let Some(written) = written.pop()
                    {
                        self.site.queue.push((u64::MAX, write));
                        self.writer_soon();
                        return self.server_event(Event::Written { ticket, result: Ok(written) });
                    }
                }
                self.site.queue.push((ticket, write));
                self.writer_soon();
            }
            Effect::ReadBlob { ticket, .. } => {
                self.server_event(Event::BlobRead { ticket, result: Err("no blobs here".into()) });
            }
            Effect::AdminReply { result, .. } => {
                if let Err(error) = result {
                    self.trace(|| format!("operator is refused: {error:?}"));
                }
            }
            Effect::Trust { .. } => {}
            Effect::Log { level, line } => self.trace(|| format!("server {level}: {line}")),
        }
    }

    fn note_later(&mut self, call: CallId, body: &[u8]) {
        let method = self.net.conns.get(&call.conn).and_then(|conn| conn.calls.get(&call.stream));
        if matches!(method, Some((_, Method::CheckIn)))
            && let Ok(reply) = wire::CheckInReply::decode(body)
            && reply.result == wire::check_in_reply::Result::Later as i32
        {
            self.site.later_answers += 1;
        }
    }

    fn writer_soon(&mut self) {
        if !self.site.writer_busy {
            self.site.writer_busy = true;
            let when = self.now + 1 + self.rng.below(25);
            self.agenda.at(when, What::WriterTurn { boot: self.site.boot });
        }
    }

    fn writer_turn(&mut self, boot: u32) {
        if boot != self.site.boot || self.site.server.is_none() {
            return;
        }
        self.site.writer_busy = false;
        let batch = std::mem::take(&mut self.site.queue);
        let (tickets, writes): (Vec<u64>, Vec<Write>) = batch.into_iter().unzip();
        let mut results: Vec<Result<_, StoreError>> = Vec::new();
        if self.site.disk_full {
            results.extend(tickets.iter().map(|_| Err(StoreError::Full)));
        } else {
            match self.site.store.apply(&writes) {
                Ok(written) => results.extend(written.into_iter().map(Ok)),
                Err(error) => results.extend(tickets.iter().map(|_| Err(error.clone()))),
            }
            if self.config.bug == Some(Bug::DoubleStore) {
                self.store_twice(&writes);
            }
        }
        if std::mem::take(&mut self.site.lose_ack) {
            self.outcome.happened.insert(Kind::LostAcknowledgement);
            return self.crash_server(false);
        }
        for (ticket, result) in tickets.into_iter().zip(results) {
            if self.site.server.is_none() {
                return;
            }
            self.server_event(Event::Written { ticket, result });
        }
    }

    pub fn crash_server(&mut self, restart_now: bool) {
        self.trace(|| "server dies".into());
        let committed = self.rng.below(2) == 0;
        self.site.kill(committed);
        for conn in self.net.conns.keys().copied().collect::<Vec<_>>() {
            self.break_conn(conn);
        }
        let wait = if restart_now || self.healing { 100 } else { 500 + self.rng.below(90_000) };
        self.agenda.at(self.now + wait, What::ServerStart);
    }

    fn publish(&mut self, version: u32) {
        self.remember_version(version);
        let compiled = policy::version(version);
        self.site.live = Some(compiled.clone());
        self.served_version = Some(version);
        self.versions = self.versions.max(version);
        let ticket = self.site.next_admin;
        self.site.next_admin += 1;
        let request = AdminRequest::Published {
            compiled,
            actor: "operator".into(),
            message: String::new(),
            summary: String::new(),
        };
        self.server_event(Event::Admin { ticket, request });
    }

    fn deliver_to_server(&mut self, boot: u32, message: ToServer) {
        if boot != self.site.boot || self.site.server.is_none() {
            return;
        }
        match message {
            ToServer::Connected { conn } => {
                let Some(exporter) = self.net.conns.get(&conn).map(|known| known.exporter) else { return };
                let peer = std::net::IpAddr::from([127, 0, 0, 1]);
                self.server_event(Event::Connected { conn, peer, exporter });
            }
            ToServer::Disconnected { conn } => self.server_event(Event::Disconnected { conn }),
            ToServer::Request { call, method, body } if self.net.conns.contains_key(&call.conn) => {
                self.server_event(Event::Request { call, method, body });
            }
            ToServer::StreamReady { call } if self.net.conns.contains_key(&call.conn) => {
                self.server_event(Event::StreamReady { call });
            }
            // Lost with its connection.
            ToServer::Request { .. } | ToServer::StreamReady { .. } => {}
        }
    }

    // ------------------------------------------------------------------------------------------------ the wire

    fn latency(&mut self, host: usize) -> u64 {
        let base = 1 + self.rng.below(40);
        if self.hosts[host].slow { base + self.rng.below(8_000) } else { base }
    }

    fn host_of(&self, conn: ConnId) -> Option<usize> {
        self.net.conns.get(&conn).map(|known| match known.peer {
            Peer::Agent { host, .. } | Peer::Enroller { host } => host,
        })
    }

    fn to_agent(&mut self, conn: ConnId, stream: u32, make: impl FnOnce(ConnId, AgentCall) -> ToAgent) {
        let Some(host) = self.host_of(conn) else { return };
        let latency = self.latency(host);
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        let Some((call, _)) = known.calls.get(&stream) else { return };
        let message = make(conn, *call);
        known.busy_down = known.busy_down.max(self.now + latency);
        let (when, peer) = (known.busy_down, known.peer);
        let incarnation = if let Peer::Agent { incarnation, .. } = peer { incarnation } else { 0 };
        self.agenda.at(when, What::ToAgent { host, incarnation, message });
    }

    fn to_server(&mut self, conn: ConnId, message: ToServer) {
        let Some(host) = self.host_of(conn) else { return };
        let latency = self.latency(host);
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        known.busy_up = known.busy_up.max(self.now + latency);
        let (when, boot) = (known.busy_up, known.boot);
        self.agenda.at(when, What::ToServer { boot, message });
    }

    /// Both ends learn of the end of a connection; what is in flight is lost.
    pub fn break_conn(&mut self, conn: ConnId) {
        let Some(known) = self.net.conns.remove(&conn) else { return };
        let message = ToServer::Disconnected { conn };
        self.agenda.at(self.now + 5, What::ToServer { boot: known.boot, message });
        match known.peer {
            Peer::Agent { host, incarnation, link } => {
                // Before it was up, the attempt failed.
                let up = known.next_stream > 1 || known.busy_down <= self.now;
                let message = if up { ToAgent::Disconnected { link } } else { ToAgent::ConnectFailed { link } };
                self.agenda.at(self.now + 2, What::ToAgent { host, incarnation, message });
            }
            Peer::Enroller { host } => self.agenda.at(self.now + 10_000, What::Enroll { host }),
        }
    }

    fn open(&mut self, peer: Peer, host: usize) -> ConnId {
        let mut exporter = [0; 32];
        self.rng.fill(&mut exporter);
        let conn = self.net.open(peer, self.site.boot, exporter, self.now);
        self.to_server(conn, ToServer::Connected { conn });
        let latency = 2 * self.latency(host);
        if let Some(known) = self.net.conns.get_mut(&conn) {
            known.busy_down = known.busy_up.max(self.now + latency);
        }
        conn
    }

    // ------------------------------------------------------------------------------------------------ the agents

    fn start_agent(&mut self, index: usize, reboot: bool) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if host.agent.is_some() || host.uuid.is_none() {
            return;
        }
        if reboot {
            host.boot += 1;
            host.boot_at = now;
        }
        let Some(init) = host.init() else {
            return self.violation(format!("host {index} cannot read its own state"));
        };
        let mut out = Vec::new();
        let host = &mut self.hosts[index];
        let local = host.now(now, WALL_BASE);
        host.agent = Some(Agent::new(init, local, &mut out));
        self.trace(|| format!("agent {index} starts"));
        self.obey_agent(index, out);
    }

    pub fn agent_event(&mut self, index: usize, event: AgentEvent) {
        let host = &mut self.hosts[index];
        let local = host.now(self.now, WALL_BASE);
        let Some(agent) = &mut host.agent else { return };
        let mut out = Vec::new();
        agent.step(local, event, &mut self.rng, &mut out);
        self.obey_agent(index, out);
    }

    fn obey_agent(&mut self, index: usize, effects: Vec<AgentEffect>) {
        for effect in effects {
            if let Some(left) = &mut self.hosts[index].crash_in {
                if *left == 0 {
                    return self.kill_agent(index, false);
                }
                *left -= 1;
            }
            self.agent_effect(index, effect);
            if self.hosts[index].agent.is_none() {
                return;
            }
        }
        let host = &mut self.hosts[index];
        if let Some(agent) = &host.agent
            && let Some(deadline) = agent.next_deadline()
        {
            let deadline = (host.boot_at + deadline.0).max(self.now + 1);
            if host.tick_at.is_none_or(|at| at > deadline) {
                host.tick_at = Some(deadline);
                let what = What::AgentTick { host: index, incarnation: host.incarnation };
                self.agenda.at(deadline, what);
            }
        }
    }

    pub fn kill_agent(&mut self, index: usize, reboot: bool) {
        self.trace(|| format!("agent {index} dies{}", if reboot { ", host reboots" } else { "" }));
        self.hosts[index].kill(&mut self.rng);
        for conn in self.net.of_host(index) {
            if let Some(Peer::Agent { .. }) = self.net.conns.get(&conn).map(|known| known.peer) {
                self.break_conn(conn);
            }
        }
        let wait = if self.healing { 100 } else { 200 + self.rng.below(60_000) };
        self.agenda.at(self.now + wait, What::AgentStart { host: index, reboot });
    }

    fn agent_effect(&mut self, index: usize, effect: AgentEffect) {
        let incarnation = self.hosts[index].incarnation;
        match effect {
            AgentEffect::Connect { link, .. } => self.connect(index, incarnation, link),
            AgentEffect::Disconnect { link } => {
                if let Some(conn) = self.net.of_link(index, incarnation, link) {
                    // What was sent before is still delivered: the connection is closed behind it.
                    self.to_server(conn, ToServer::Disconnected { conn });
                    self.net.conns.remove(&conn);
                }
            }
            AgentEffect::Call { link, call, method, body, timeout_ms } => {
                self.call(index, incarnation, link, call, method, body);
                let message = ToAgent::Timeout { call };
                self.agenda.at(self.now + timeout_ms, What::ToAgent { host: index, incarnation, message });
            }
            AgentEffect::Stream { link, call, method, body } => self.call(index, incarnation, link, call, method, body),
            AgentEffect::Store { ticket, ops } => {
                self.store_request(index, StoreRequest::Commit { ticket, ops });
            }
            AgentEffect::ReadRecords { ticket, lane, first, max_bytes } => {
                self.store_request(index, StoreRequest::Read { ticket, lane, first, max_bytes });
            }
            AgentEffect::GatherTraits { ticket } => {
                let when = self.now + 1 + self.rng.below(50);
                self.agenda.at(when, What::Traits { host: index, incarnation, ticket });
            }
            AgentEffect::StartRun(order) => {
                crate::check::on_start_run(self, index, &order);
                let local = self.hosts[index].now(self.now, WALL_BASE);
                self.hosts[index].running = Some((order, local));
                let when = self.now + 5 + self.rng.below(4_000);
                self.agenda.at(when, What::RunEnd { host: index, incarnation });
            }
            AgentEffect::StopRun { .. } => {
                self.agenda.at(self.now + 1, What::RunEnd { host: index, incarnation });
            }
            AgentEffect::BlobCheck { ticket, blobs } => {
                let have = &self.hosts[index].blobs;
                let missing = blobs.into_iter().filter(|blob| !have.contains(&blob.sha256)).collect();
                self.agenda.at(self.now + 1, What::BlobsChecked { host: index, incarnation, ticket, missing });
            }
            AgentEffect::BlobWrite { hash, last: true, .. } => {
                self.agenda.at(self.now + 2, What::BlobWritten { host: index, incarnation, hash });
            }
            AgentEffect::BlobWrite { .. } | AgentEffect::BlobsKeep(_) | AgentEffect::Notify(_) => {}
            AgentEffect::SavePins(pins) => {
                self.hosts[index].saving.push_back(*pins);
                let when = self.now + 1 + self.rng.below(20);
                self.agenda.at(when, What::PinsSaved { host: index, incarnation });
            }
            AgentEffect::ControlReply { .. } => {}
            AgentEffect::Log { level, line } => self.trace(|| format!("agent {index} {level}: {line}")),
            AgentEffect::Exit { code } => {
                self.violation(format!("agent {index} ends by itself with {code}"));
            }
        }
    }

    fn connect(&mut self, index: usize, incarnation: u32, link: LinkId) {
        let refused = |wait| (wait, ToAgent::ConnectFailed { link });
        let trouble = if self.hosts[index].partitioned {
            Some(refused(common::limits::CONNECT_TIMEOUT_MS))
        } else if self.site.server.is_none() {
            Some(refused(20))
        } else {
            None
        };
        if let Some((wait, message)) = trouble {
            return self.agenda.at(self.now + wait, What::ToAgent { host: index, incarnation, message });
        }
        let conn = self.open(Peer::Agent { host: index, incarnation, link }, index);
        let Some(known) = self.net.conns.get(&conn) else { return };
        let (when, exporter) = (known.busy_down, known.exporter);
        let message = ToAgent::Connected { link, exporter, ca_trusted: true };
        self.agenda.at(when, What::ToAgent { host: index, incarnation, message });
    }

    fn call(
        &mut self,
        index: usize,
        incarnation: u32,
        link: LinkId,
        call: AgentCall,
        path: &'static str,
        body: bytes::Bytes,
    ) {
        let Some(method) = Method::from_path(path) else {
            return self.violation(format!("agent {index} calls {path}"));
        };
        let Some(conn) = self.net.of_link(index, incarnation, link) else { return };
        if self.config.bug == Some(Bug::DeleteBeforeAck) && method == Method::Report {
            self.delete_sent(index, &body);
        }
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        let stream = known.next_stream;
        known.next_stream += 2;
        known.calls.insert(stream, (call, method));
        self.to_server(conn, ToServer::Request { call: CallId { conn, stream }, method, body });
    }

    fn deliver_to_agent(&mut self, host: usize, incarnation: u32, message: ToAgent) {
        let enroller = match &message {
            ToAgent::Reply { conn, .. } => {
                self.net.conns.get(conn).is_some_and(|known| known.peer == Peer::Enroller { host })
            }
            _ => false,
        };
        if enroller {
            return self.enroll_reply(host, message);
        }
        if !self.alive(host, incarnation) {
            return;
        }
        let event = match message {
            ToAgent::Connected { link, exporter, ca_trusted } => {
                if self.net.of_link(host, incarnation, link).is_none() {
                    return;
                }
                AgentEvent::Connected { link, exporter, ca_trusted, presented_ca: None, ip: None }
            }
            ToAgent::ConnectFailed { link } => AgentEvent::ConnectFailed { link, reason: "refused".into() },
            ToAgent::Disconnected { link } => AgentEvent::Disconnected { link, reason: "reset".into() },
            ToAgent::Reply { conn, call, result } => {
                let Some(known) = self.net.conns.get_mut(&conn) else { return };
                let before = known.calls.len();
                known.calls.retain(|_, (waiting, _)| *waiting != call);
                if known.calls.len() == before {
                    return;
                }
                AgentEvent::Reply { call, result }
            }
            ToAgent::Timeout { call } => {
                let mut found = false;
                for conn in self.net.of_host(host) {
                    if let Some(known) = self.net.conns.get_mut(&conn) {
                        let before = known.calls.len();
                        known.calls.retain(|_, (waiting, _)| *waiting != call);
                        found |= known.calls.len() != before;
                    }
                }
                if !found {
                    return;
                }
                AgentEvent::Reply { call, result: Err((Code::DeadlineExceeded, "too late".into())) }
            }
            ToAgent::Item { conn, call, body } if self.net.conns.contains_key(&conn) => {
                AgentEvent::StreamItem { call, body }
            }
            ToAgent::End { conn, call, result } => {
                let Some(known) = self.net.conns.get_mut(&conn) else { return };
                known.calls.retain(|_, (waiting, _)| *waiting != call);
                AgentEvent::StreamEnd { call, result }
            }
            ToAgent::Item { .. } => return,
        };
        self.agent_event(host, event);
    }

    fn store_request(&mut self, index: usize, request: StoreRequest) {
        let host = &mut self.hosts[index];
        host.requests.push_back(request);
        if host.requests.len() == 1 {
            let (when, incarnation) = (self.now + 1 + self.rng.below(15), host.incarnation);
            self.agenda.at(when, What::StoreTurn { host: index, incarnation });
        }
    }

    fn store_turn(&mut self, index: usize) {
        let Some(request) = self.hosts[index].requests.pop_front() else { return };
        if !self.hosts[index].requests.is_empty() {
            let (when, incarnation) = (self.now + 1 + self.rng.below(15), self.hosts[index].incarnation);
            self.agenda.at(when, What::StoreTurn { host: index, incarnation });
        }
        let event = match request {
            StoreRequest::Commit { ticket, ops } => {
                let result = if self.config.bug == Some(Bug::NoSync) && self.rng.below(4) == 0 {
                    self.hosts[index].pretend(&ops)
                } else {
                    self.hosts[index].commit(&ops)
                };
                if std::mem::take(&mut self.hosts[index].lose_ack) {
                    self.outcome.happened.insert(Kind::LostAcknowledgement);
                    return self.kill_agent(index, false);
                }
                AgentEvent::Stored { ticket, result }
            }
            StoreRequest::Read { ticket, lane, first, max_bytes } => {
                let result = self.hosts[index].cache.read_records(lane, first, max_bytes);
                AgentEvent::Records { ticket, result }
            }
        };
        self.agent_event(index, event);
    }

    fn run_end(&mut self, index: usize) {
        let Some((order, started)) = self.hosts[index].running.take() else { return };
        let mono = self.hosts[index].now(self.now, WALL_BASE).mono;
        let duration = mono.since(started.mono);
        let report = self.hosts[index].converge(&order, started, duration, &mut self.rng);
        self.outcome.runs += 1;
        self.agent_event(index, AgentEvent::RunDone { report: Box::new(report) });
    }

    fn traits(&mut self, index: usize) -> Vec<envoy::agent::TraitTree> {
        let name = self.hosts[index].name.clone();
        let boots = self.hosts[index].boot;
        let tree = |name: &str, value, volatile| envoy::agent::TraitTree { name: name.into(), value, volatile };
        vec![
            tree("load", serde_json::json!({"one": self.rng.below(100)}), true),
            tree("os", serde_json::json!({"distro": "sim", "kernel": format!("{}", boots / 2)}), false),
            tree("vigo", serde_json::json!({"host": name}), false),
        ]
    }

    // ------------------------------------------------------------------------------------------------ enrollment

    fn enroll(&mut self, host: usize) {
        if self.hosts[host].uuid.is_some() {
            return;
        }
        if self.site.server.is_none() || self.hosts[host].partitioned {
            return self.agenda.at(self.now + 10_000, What::Enroll { host });
        }
        let conn = self.open(Peer::Enroller { host }, host);
        let hello =
            wire::HelloRequest { protocol_versions: vec![1], agent_version: "0.1.0".into(), ..Default::default() };
        self.enroller_sends(conn, method::HELLO, hello.encode_to_vec());
    }

    fn enroller_sends(&mut self, conn: ConnId, path: &'static str, body: Vec<u8>) {
        let Some(method) = Method::from_path(path) else { return };
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        let stream = known.next_stream;
        known.next_stream += 2;
        known.calls.insert(stream, (AgentCall(u64::from(stream)), method));
        self.to_server(conn, ToServer::Request { call: CallId { conn, stream }, method, body: body.into() });
    }

    fn enroll_reply(&mut self, index: usize, message: ToAgent) {
        let ToAgent::Reply { conn, call, result } = message else { return };
        let Ok(body) = result else { return self.break_conn(conn) };
        let hello =
            wire::HelloRequest { protocol_versions: vec![1], agent_version: "0.1.0".into(), ..Default::default() };
        if call == AgentCall(1) {
            let Ok(reply) = wire::HelloReply::decode(&body[..]) else { return };
            let hash = hello_hash(&hello.encode_to_vec(), &reply.body);
            let (key, name) = (self.hosts[index].key(), self.hosts[index].name.clone());
            let transcript = enroll_transcript(&self.site.server_id(), &hash, &name, "");
            let sealing_key = vec![9; 32];
            let request = wire::EnrollRequest {
                hostname: name,
                public_key: key.public().as_bytes().to_vec(),
                sealing_signature: key.sign(Context::Sealing, &sealing_key).to_vec(),
                sealing_key,
                proof: key.sign(Context::Enroll, &transcript).to_vec(),
                ..Default::default()
            };
            return self.enroller_sends(conn, method::ENROLL, request.encode_to_vec());
        }
        let Ok(reply) = wire::EnrollReply::decode(&body[..]) else { return };
        let Ok(uuid) = Uuid::try_from_slice(&reply.uuid) else { return };
        let server = PinnedServer {
            identity_key: self.site.identity_key().public(),
            policy_key: self.site.policy_key().public(),
            recovery_key: None,
            ca_pem: reply.ca_pem,
            ca_hash: Hash32([7; 32]),
            epoch: reply.epoch,
            receipt: reply.receipt,
            hostname: reply.hostname,
            servers: reply.servers,
        };
        self.hosts[index].uuid = Some(uuid);
        self.hosts[index].pins = Some(Pins::new(server));
        self.net.conns.remove(&conn);
        let message = ToServer::Disconnected { conn };
        self.agenda.at(self.now + 3, What::ToServer { boot: self.site.boot, message });
        self.agenda.at(self.now + 50, What::AgentStart { host: index, reboot: false });
    }

    // ------------------------------------------------------------------------------------------------ faults

    fn fault(&mut self, fault: Fault) {
        let Fault { kind, host, begins } = fault;
        if self.healing && begins {
            return;
        }
        if begins {
            self.trace(|| format!("fault {kind:?} host {host}"));
        }
        let mut happened = begins;
        match kind {
            Kind::Drop => {
                let conns: Vec<ConnId> = self.net.conns.keys().copied().collect();
                happened = !conns.is_empty();
                if happened {
                    let at = self.rng.below(conns.len() as u64) as usize;
                    self.break_conn(conns[at]);
                }
            }
            Kind::Delay => self.hosts[host].slow = begins,
            Kind::Partition => {
                self.hosts[host].partitioned = begins;
                if begins {
                    self.net.of_host(host).into_iter().for_each(|conn| self.break_conn(conn));
                }
            }
            Kind::AgentCrash => self.hosts[host].crash_in = Some(self.rng.below(15)),
            Kind::Reboot => {
                happened = self.hosts[host].agent.is_some();
                if happened {
                    self.kill_agent(host, true);
                }
            }
            Kind::ServerCrash => self.site.crash_in = Some(self.rng.below(40)),
            Kind::LostAcknowledgement => {
                happened = false;
                if self.rng.below(4) == 0 { self.site.lose_ack = true } else { self.hosts[host].lose_ack = true }
            }
            Kind::AgentDiskFull => self.hosts[host].disk_full = begins,
            Kind::ServerDiskFull => self.site.disk_full = begins,
            Kind::ClockJump => {
                let years = self.rng.below(140) as i64 - 70;
                self.hosts[host].wall_offset = years * 31_557_600_000;
            }
            Kind::Restore | Kind::SilentRestore => happened = self.restore(kind),
            Kind::SlotDamage => happened = self.damage_slot(host),
            Kind::Publish => {
                self.versions += 1;
                let version = self.versions;
                self.publish(version);
            }
            Kind::Unpublished => {
                if begins {
                    self.site.live = None;
                    self.crash_server(true);
                } else if !self.healing {
                    let version = self.versions;
                    self.publish(version);
                }
            }
            Kind::TinyQueue | Kind::LateEnroll | Kind::Overload => {}
        }
        if happened {
            self.outcome.happened.insert(kind);
        }
    }

    /// First the copy is taken; ten minutes later it replaces the database.
    fn restore(&mut self, kind: Kind) -> bool {
        let Some(older) = self.site.older.take() else {
            self.site.older = Some(self.site.store.clone());
            let later = self.now + 60_000 + self.rng.below(600_000);
            self.agenda.at(later, What::Fault(Fault { kind, host: 0, begins: true }));
            return false;
        };
        self.crash_server(true);
        self.site.store = older;
        self.site.was_restored = true;
        if kind == Kind::Restore {
            self.site.restored = Some("the operator restored a backup".into());
        }
        true
    }

    /// The process dies, and a byte of what it had cached changes.
    fn damage_slot(&mut self, index: usize) -> bool {
        if self.hosts[index].agent.is_none() {
            return false;
        }
        self.kill_agent(index, false);
        let Ok(loaded) = self.hosts[index].cache.load() else { return false };
        let Some((mut assignment, mut bundle)) = loaded.current else { return false };
        let target = if self.rng.below(2) == 0 { &mut assignment } else { &mut bundle };
        let mut bytes = target.payload.to_vec();
        if bytes.is_empty() {
            return false;
        }
        let at = self.rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.rng.below(8);
        target.payload = bytes.into();
        if self.config.bug == Some(Bug::AcceptUnverified) {
            let key = self.site.policy_key();
            bundle.signature = key.sign(Context::Bundle, &bundle.payload).to_vec();
            self.rename_bundle(&mut assignment, &bundle);
        }
        // A damaged current value beside the intact previous one: a put shifts, so the previous one goes first.
        if let Some((older, its_bundle)) = loaded.previous {
            let put = StoreOp::PutSlot { assignment: older, bundle: Some(its_bundle) };
            let _ = self.hosts[index].cache.commit(&[put]);
        }
        let put = StoreOp::PutSlot { assignment, bundle: Some(bundle) };
        let _ = self.hosts[index].cache.commit(&[put]);
        true
    }
}
