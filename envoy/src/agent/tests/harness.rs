//! One agent, a scripted server and a store in memory on virtual time. Small on purpose: the fleet simulator drives many
//! agents against the real server core; this one reaches into every corner of one agent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use common::crypto::{Context, Side, SigningKey, auth_transcript, hello_hash, server_id, sha256};
use common::ids::{Hash32, Uuid};
use common::outcome::Outcome;
use common::proto::{Code, Message, method, wire};
use common::rng::SplitMix64;
use common::time::{Mono, Now, Wall};

use crate::agent::pins::Pins;
use crate::agent::*;
use crate::cache::{Cache, CacheError, MemoryCache};
use crate::report::{ResourceReport, RunReport};

pub use super::server::{SEALING, Server};

pub const INTERVAL: u64 = 10_000;

/// A host: agent, disk, and whatever of the world it can see.
pub struct World {
    pub agent: Agent,
    pub cache: MemoryCache,
    /// The pin file.
    pub pins: Pins,
    /// The file of the sealing key.
    pub sealing: [u8; 32],
    pub servers: BTreeMap<String, Server>,
    pub now: Now,
    pub rng: SplitMix64,
    pub log: Vec<String>,
    pub replies: Vec<(u64, ControlReply)>,
    pub exit: Option<u8>,
    /// What the next runs do, by resource name; `ok` where nothing is said.
    pub outcomes: BTreeMap<String, Outcome>,
    /// Names with another outcome once: drift.
    pub drift: Vec<String>,
    pub run_ms: u64,
    /// Run ids that were finished.
    pub finished: Vec<(Uuid, RunOrder)>,
    pub commits_fail: Option<CacheError>,
    pub stores: u32,
    pub connects: Vec<(u64, String)>,
    pub blobs: BTreeMap<Hash32, Vec<u8>>,
    /// Blobs that were asked for, in order.
    pub fetches: Vec<Hash32>,
    /// Until a blob comes.
    pub fetch_ms: u64,
    pub mode: Mode,
    pub config: AgentConfig,
    pub notices: Vec<Notice>,
    pub pins_fail: bool,
    pub stop_run: bool,
    /// Times that the program was executed anew.
    pub renewed: u32,
    /// The next ones fail.
    pub renew_fails: bool,
    pub promised: Vec<Uuid>,
    pub confirmed: Vec<Uuid>,
    queue: VecDeque<(u64, Event)>,
    link: Option<(LinkId, String, [u8; 32])>,
    hello: Option<Hash32>,
    watch: Option<CallId>,
    boots: u64,
    running: Option<(u64, RunOrder)>,
}

pub fn uuid() -> Uuid {
    Uuid::from_bytes([7; 16])
}

pub fn envoy_key() -> SigningKey {
    SigningKey::from_seed([9; 32])
}

impl World {
    pub fn new(seed: u64) -> World {
        let server = Server::new(seed + 1_000);
        let pins = Pins::new(server.pinned(uuid(), &envoy_key(), "one:1530"));
        World::with(seed, MemoryCache::default(), pins, BTreeMap::from([("one:1530".into(), server)]), Mode::Daemon)
    }

    pub fn with(seed: u64, cache: MemoryCache, pins: Pins, servers: BTreeMap<String, Server>, mode: Mode) -> World {
        let now = Now { mono: Mono(1_000_000 + seed), wall: Wall(1_700_000_000_000) };
        let mut cache = cache;
        let (agent, queue) = boot(&mut cache, &pins, SEALING, mode, AgentConfig::default(), 1, now);
        let mut world = World {
            agent,
            cache,
            pins,
            sealing: SEALING,
            servers,
            now,
            rng: SplitMix64(seed),
            log: Vec::new(),
            replies: Vec::new(),
            exit: None,
            outcomes: BTreeMap::new(),
            drift: Vec::new(),
            run_ms: 100,
            finished: Vec::new(),
            commits_fail: None,
            stores: 0,
            connects: Vec::new(),
            blobs: BTreeMap::new(),
            fetches: Vec::new(),
            fetch_ms: 3,
            mode,
            config: AgentConfig::default(),
            notices: Vec::new(),
            pins_fail: false,
            stop_run: false,
            renewed: 0,
            renew_fails: false,
            promised: Vec::new(),
            confirmed: Vec::new(),
            queue: VecDeque::new(),
            link: None,
            hello: None,
            watch: None,
            boots: 1,
            running: None,
        };
        world.obey(queue);
        world.push(0, Event::Tick);
        world
    }

    pub fn server(&mut self) -> &mut Server {
        self.servers.get_mut("one:1530").expect("the first server")
    }

    /// `kill -9` and a new process on the same disk.
    pub fn crash(&mut self) {
        self.restart_with(self.cache.clone());
    }

    /// The same with another disk.
    pub fn restart_with(&mut self, cache: MemoryCache) {
        self.cache = cache;
        self.queue.clear();
        (self.link, self.hello, self.watch, self.running) = (None, None, None, None);
        self.boots += 1;
        let config = self.config.clone();
        let (agent, effects) = boot(&mut self.cache, &self.pins, self.sealing, self.mode, config, self.boots, self.now);
        self.agent = agent;
        self.obey(effects);
        self.push(0, Event::Tick);
    }

    pub fn push(&mut self, in_ms: u64, event: Event) {
        let at = self.now.mono.0 + in_ms;
        let place = self.queue.partition_point(|(time, _)| *time <= at);
        self.queue.insert(place, (at, event));
    }

    pub fn control(&mut self, id: u64, request: ControlRequest) {
        self.push(0, Event::Control { id: ControlId(id), request });
    }

    /// Lets time pass until a run is under way; its id.
    pub fn start_run(&mut self) -> Uuid {
        for _ in 0..100_000 {
            if let Some((_, order)) = &self.running {
                return order.run_id;
            }
            self.run_for(1);
        }
        panic!("no run starts: {:#?}", self.log);
    }

    pub fn status(&mut self) -> Box<status::StatusDocument> {
        self.control(999, ControlRequest::Status);
        self.run_for(0);
        match self.replies.pop() {
            Some((999, ControlReply::Status(document))) => document,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now.mono.0 + ms;
        let (mut at_this_moment, mut moment) = (0, 0);
        loop {
            let deadline = self.agent.next_deadline().map(|at| at.0.max(self.now.mono.0));
            let event_at = self.queue.front().map(|(at, _)| *at);
            let next = match (deadline, event_at) {
                (Some(a), Some(b)) => a.min(b),
                (Some(a), None) => a,
                (None, Some(b)) => b,
                (None, None) => break,
            };
            if next > end || self.exit.is_some() {
                break;
            }
            at_this_moment = if moment == next { at_this_moment + 1 } else { 0 };
            moment = next;
            assert!(
                at_this_moment < 2_000,
                "the agent spins at {next}: {:?} {:?}",
                self.log.last(),
                self.agent.deadlines()
            );
            self.advance_to(next);
            let event = if event_at == Some(next) { self.queue.pop_front().map(|(_, e)| e) } else { None };
            if matches!(event, Some(Event::RunDone { .. })) {
                self.finish_run();
            }
            self.step(event.unwrap_or(Event::Tick));
        }
        self.advance_to(end.max(self.now.mono.0));
    }

    fn advance_to(&mut self, mono: u64) {
        let passed = mono - self.now.mono.0;
        self.now = Now { mono: Mono(mono), wall: Wall(self.now.wall.0.saturating_add(passed as i64)) };
    }

    pub fn step(&mut self, event: Event) {
        let mut out = Vec::new();
        self.agent.step(self.now, event, &mut self.rng, &mut out);
        self.obey(out);
    }

    fn obey(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.obey_one(effect);
        }
    }

    fn obey_one(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { link, target } => {
                self.connects.push((self.now.mono.0, target.address.clone()));
                self.hello = None;
                let Some(server) = self.servers.get(&target.address).filter(|server| server.up) else {
                    return self.push(5, Event::ConnectFailed { link, reason: "refused".into() });
                };
                let exporter = sha256(&[&link.0.to_be_bytes(), &self.boots.to_be_bytes()]).0;
                let ca_trusted = server.ca.to_string() == target.ca_pem;
                let presented_ca = Some(PresentedCa { pem: server.ca.to_string(), hash: server.ca });
                self.link = Some((link, target.address, exporter));
                let ip = Some([10, 0, 0, 1].into());
                self.push(5, Event::Connected { link, exporter, ca_trusted, presented_ca, ip });
            }
            Effect::Disconnect { link } => {
                if self.link.as_ref().is_some_and(|(open, ..)| *open == link) {
                    self.link = None;
                    self.watch = None;
                }
                self.queue.retain(|(_, event)| !matches!(event, Event::Reply { .. } | Event::StreamItem { .. }));
            }
            Effect::Call { link, call, method, body, .. } => self.call(link, call, method, &body),
            Effect::Stream { link, call, method, body } => self.stream(link, call, method, &body),
            Effect::Store { ticket, ops } => {
                self.stores += 1;
                let result = match self.commits_fail.clone() {
                    Some(why) => Err(why),
                    None => self.cache.commit(&ops),
                };
                self.push(1, Event::Stored { ticket, result });
            }
            Effect::ReadRecords { ticket, lane, first, max_bytes } => {
                let result = self.cache.read_records(lane, first, max_bytes);
                self.push(1, Event::Records { ticket, result });
            }
            Effect::GatherTraits { ticket } => {
                let tree = |name: &str, value: serde_json::Value, volatile| TraitTree {
                    name: name.into(),
                    value: value.into(),
                    volatile,
                };
                let trees = vec![
                    tree("load", serde_json::json!({"one": self.now.mono.0}), true),
                    tree("os", serde_json::json!({"name": "linux"}), false),
                ];
                self.push(2, Event::Traits { ticket, trees: Arc::new(trees) });
            }
            Effect::StartRun(order) => {
                assert!(self.running.is_none(), "two runs at a time");
                self.running = Some((self.now.mono.0, (*order).clone()));
                let report = self.perform(&order);
                self.push(self.run_ms, Event::RunDone { report: Box::new(report) });
            }
            Effect::Promised { run_id } => self.promised.push(run_id),
            Effect::Confirmed { run_id } => self.confirmed.push(run_id),
            Effect::StopRun { .. } => {
                self.stop_run = true;
                let at = self.now.mono.0 + 10;
                for (time, event) in &mut self.queue {
                    if let Event::RunDone { report } = event {
                        report.interrupted = true;
                        *time = at;
                    }
                }
                self.queue.make_contiguous().sort_by_key(|(time, _)| *time);
            }
            Effect::BlobCheck { ticket, blobs } => {
                let missing = blobs.into_iter().filter(|blob| !self.blobs.contains_key(&blob.sha256));
                let missing = missing.map(|blob| (blob, 0)).collect();
                self.push(1, Event::BlobsChecked { ticket, missing });
            }
            Effect::BlobWrite { hash, offset, data, last } => {
                let blob = self.blobs.entry(hash).or_default();
                blob.truncate(offset as usize);
                blob.extend_from_slice(&data);
                if last {
                    let good = sha256(&[&blob[..]]) == hash;
                    if !good {
                        self.blobs.remove(&hash);
                    }
                    let result = if good { Ok(()) } else { Err("the hash differs".into()) };
                    self.push(1, Event::BlobWritten { hash, result });
                }
            }
            Effect::BlobsKeep(keep) => self.blobs.retain(|hash, _| keep.contains(hash)),
            Effect::SavePins(pins) => {
                let result = if self.pins_fail { Err("read-only".to_string()) } else { Ok(()) };
                if result.is_ok() {
                    self.pins = *pins;
                }
                self.push(1, Event::PinsSaved { result });
            }
            Effect::RenewSealingKey => {
                self.sealing = sha256(&[&self.sealing]).0;
                self.push(1, Event::SealingKey { result: Ok(self.sealing) });
            }
            Effect::ControlReply { id, reply } => self.replies.push((id.0, reply)),
            Effect::Log { level, line } => self.log.push(format!("{level} {line}")),
            Effect::Notify(notice) => self.notices.push(notice),
            Effect::Renew if self.renew_fails => self.push(1, Event::RenewFailed { reason: "no such program".into() }),
            Effect::Renew => {
                self.renewed += 1;
                self.crash();
            }
            Effect::Exit { code } => self.exit = Some(code),
        }
    }

    fn perform(&mut self, order: &RunOrder) -> RunReport {
        let drift = std::mem::take(&mut self.drift);
        let resources = order.bundle.resources.iter().map(|resource| ResourceReport {
            name: resource.name.clone(),
            kind: resource.kind.clone(),
            outcome: if drift.contains(&resource.name) {
                Outcome::Changed
            } else {
                self.outcomes.get(&resource.name).copied().unwrap_or(Outcome::Ok)
            },
            message: String::new(),
            diff: String::new(),
            duration_ms: 1,
            fingerprint: 1,
        });
        let resources = resources.collect();
        RunReport {
            run_id: order.run_id,
            started: self.now,
            duration_ms: self.run_ms,
            resources,
            ..RunReport::default()
        }
    }

    fn finish_run(&mut self) {
        if let Some((_, order)) = self.running.take() {
            self.finished.push((order.run_id, order));
        }
    }

    fn open_server(&mut self, link: LinkId) -> Option<(String, [u8; 32])> {
        let (open, address, exporter) = self.link.clone()?;
        let up = self.servers.get(&address).is_some_and(|server| server.up);
        (open == link && up).then_some((address, exporter))
    }

    /// Cuts every connection to a server and takes it down.
    pub fn take_down(&mut self, address: &str) {
        if let Some(server) = self.servers.get_mut(address) {
            server.up = false;
        }
        self.queue.retain(|(_, event)| !matches!(event, Event::Reply { .. } | Event::StreamItem { .. }));
        if let Some((link, ..)) = self.link.take_if(|(_, open, _)| open == address) {
            self.watch = None;
            self.push(0, Event::Disconnected { link, reason: "reset by peer".into() });
        }
    }

    pub fn push_watch(&mut self, event: &wire::WatchEvent) {
        let call = self.watch.expect("a watch stream");
        self.push(0, Event::StreamItem { call, body: event.encode_to_vec().into() });
    }

    fn call(&mut self, link: LinkId, call: CallId, method: &str, body: &Bytes) {
        let Some((address, exporter)) = self.open_server(link) else { return };
        let wall = self.now.wall.ms();
        let hello = self.hello;
        let Some(server) = self.servers.get_mut(&address) else { return };
        let mut lost = false;
        let answer: Result<Vec<u8>, (Code, String)> = match method {
            method::HELLO => {
                let id = server_id(&server.identity.public());
                let reply = wire::HelloBody {
                    protocol_version: 1,
                    server_id: id.0.0.to_vec(),
                    identity_key: server.identity.public().as_bytes().to_vec(),
                    policy_key: server.policy.public().as_bytes().to_vec(),
                    policy_key_signature: server
                        .identity
                        .sign(Context::PolicyKey, server.policy.public().as_bytes())
                        .to_vec(),
                    ca_hash: server.ca.0.to_vec(),
                    epoch: server.epoch,
                    server_time_ms: wall,
                    recovery: server.recovery.clone(),
                    ..wire::HelloBody::default()
                };
                let reply = reply.encode_to_vec();
                let hash = hello_hash(body, &reply);
                let transcript = auth_transcript(Side::Server, &id, &hash, &exporter);
                let signature = server.identity.sign(Context::Auth, &transcript).to_vec();
                self.hello = Some(hash);
                Ok(wire::HelloReply { body: reply, signature }.encode_to_vec())
            }
            method::AUTHENTICATE => {
                use wire::authenticate_reply::Result as Answer;
                let request = wire::AuthenticateRequest::decode(&body[..]).expect("a request");
                let id = server_id(&server.identity.public());
                let transcript = auth_transcript(Side::Envoy(uuid()), &id, &hello.expect("Hello first"), &exporter);
                let proof = envoy_key().public().verify(Context::Auth, &transcript, &request.signature);
                proof.expect("the envoy proves itself");
                server.receipts_seen += u32::from(request.receipt.is_some());
                server.known |= request.receipt.is_some();
                let result = if !server.known {
                    Answer::UnknownEnvoy
                } else if server.step_down || request.epoch > server.epoch {
                    Answer::SteppedDown
                } else {
                    Answer::Ok
                };
                let reply = wire::AuthenticateReply {
                    recovery_key: server.recovery_key.clone(),
                    recovery_succession: server.succession.clone(),
                    result: result as i32,
                    epoch: server.epoch,
                    revocation: Some(server.revocation),
                    server_time_ms: wall,
                    watermark_urgent: server.watermark(0),
                    watermark_routine: server.watermark(1),
                    link_urgent: server.link(0),
                    link_routine: server.link(1),
                    servers: server.advertised.clone(),
                    hold: server.hold && request.hold,
                    state: "active".into(),
                    receipt: None,
                };
                Ok(reply.encode_to_vec())
            }
            method::CHECK_IN => {
                let request = wire::CheckInRequest::decode(&body[..]).expect("a request");
                Ok(server.check_in(&request, wall).encode_to_vec())
            }
            method::REPORT => {
                let request = wire::ReportRequest::decode(&body[..]).expect("a request");
                server.n_reports += 1;
                if let Some(code) = server.refuse.and_then(|refuse| refuse(&request)) {
                    return self.push(3, Event::Reply { call, result: Err((code, "not like this".into())) });
                }
                request.records.into_iter().for_each(|record| server.store(record));
                let stable = request.traits.iter().any(|tree| !tree.volatile);
                for tree in request.traits {
                    server.traits.insert(tree.path, tree.json);
                }
                let fits = request.trait_base == 0 || request.trait_base == server.trait_hash;
                let after = if fits { request.trait_hash } else { 0 };
                server.trait_hash = if stable { after } else { server.trait_hash };
                lost = server.lose_reports > 0;
                server.lose_reports = server.lose_reports.saturating_sub(1);
                let reply = wire::ReportReply {
                    watermark_urgent: server.watermark(0),
                    watermark_routine: server.watermark(1),
                    epoch: server.epoch,
                    revocation: Some(server.revocation),
                    server_time_ms: wall,
                    retry_after_ms: 0,
                    trait_hash: server.trait_hash,
                };
                Ok(reply.encode_to_vec())
            }
            other => Err((Code::Unimplemented, other.to_string())),
        };
        if lost {
            self.link = None;
            self.watch = None;
            return self.push(3, Event::Disconnected { link, reason: "reset by peer".into() });
        }
        self.push(3, Event::Reply { call, result: answer.map(Bytes::from) });
    }

    fn stream(&mut self, link: LinkId, call: CallId, method: &str, body: &Bytes) {
        let Some((address, _)) = self.open_server(link) else { return };
        if method == method::WATCH {
            self.watch = Some(call);
            return;
        }
        let request = wire::FetchBlobRequest::decode(&body[..]).expect("a request");
        let hash = Hash32::try_from_slice(&request.sha256).expect("a hash");
        self.fetches.push(hash);
        let Some(data) = self.servers[&address].blobs.get(&hash).cloned() else {
            return self.push(3, Event::StreamEnd { call, result: Err((Code::NotFound, "no such file".into())) });
        };
        for (n, chunk) in data.chunks(4).enumerate() {
            let offset = n as u64 * 4;
            let chunk = wire::BlobChunk { offset, data: chunk.to_vec().into(), size: data.len() as u64 };
            self.push(self.fetch_ms, Event::StreamItem { call, body: chunk.encode_to_vec().into() });
        }
        self.push(self.fetch_ms, Event::StreamEnd { call, result: Ok(()) });
    }

    pub fn logged(&self, text: &str) -> usize {
        self.log.iter().filter(|line| line.contains(text)).count()
    }
}

fn boot(
    cache: &mut MemoryCache,
    pins: &Pins,
    sealing: [u8; 32],
    mode: Mode,
    config: AgentConfig,
    boots: u64,
    now: Now,
) -> (Agent, Vec<Effect>) {
    let init = AgentInit {
        mode,
        config,
        uuid: uuid(),
        key: envoy_key(),
        sealing,
        pins: pins.clone(),
        loaded: cache.load().expect("memory loads"),
        boot_id: format!("boot {boots}"),
        machine_id: "machine".into(),
        version: "0.1.0".into(),
        build_ms: 1_600_000_000_000,
    };
    let mut out = Vec::new();
    let agent = Agent::new(init, now, &mut out);
    (agent, out)
}
