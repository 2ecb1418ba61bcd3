//! The core on virtual time, with the store in memory and a client that speaks the protocol. Small on purpose: the fleet
//! simulator drives it with many agents; this reaches what no agent of ours does.

mod blobs;
mod reports;
mod restored;
mod statements;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use common::bundle::{BlobRef, Bundle};
use common::crypto::{Context, Side, SigningKey, auth_transcript, hello_hash, server_id, sha256};
use common::ids::{Hash32, Uuid};
use common::outcome::{Counts, Status};
use common::proto::{Code, Enrolled, Message, wire};
use common::rng::SplitMix64;
use common::time::{Mono, Now, Wall};

use super::*;
use crate::policy::Compiled;
use crate::store::{EnrollWrite, EnvoyRow, MemoryStore, Store, Write};

/// A server, its disk, and what it answered.
struct Bench {
    server: Server,
    store: MemoryStore,
    compiled: Arc<Compiled>,
    /// Published files; what is missing cannot be read.
    files: BTreeMap<Hash32, Vec<u8>>,
    now: Now,
    n_conns: u64,
    n_streams: u32,
    log: Vec<String>,
}

/// What came for one call.
#[derive(Debug, Default)]
struct Heard {
    reply: Option<Bytes>,
    items: Vec<Bytes>,
    ended: bool,
    failed: Option<(Code, String)>,
}

fn identity() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

fn envoy_key(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

fn envoy(n: u8) -> Uuid {
    Uuid::from_bytes([n; 16])
}

fn start(store: &mut MemoryStore, compiled: &Arc<Compiled>, now: Now, log: &mut Vec<String>) -> Server {
    let policy = SigningKey::from_seed([2; 32]);
    let init = ServerInit {
        identity: Identity {
            server_id: server_id(&identity().public()),
            identity: identity(),
            policy_key_signature: identity().sign(Context::PolicyKey, policy.public().as_bytes()).to_vec(),
            policy,
            ca_pem: "ca".into(),
            ca_hash: Hash32([7; 32]),
            recovery: None,
            recovery_succession: Vec::new(),
            rebuilt: None,
        },
        settings: Settings {
            interval_ms: common::limits::INTERVAL_DEFAULT_MS,
            bundle_max_age_ms: 0,
            hold: Hold::Always,
            held_connections_max: 10,
            checkins_per_second: 1_000,
            pending_writes_max: 100,
            trusted: vec![TrustedEntry {
                pattern: common::glob::Glob::try_new("new-*").unwrap(),
                cidr: None,
                until: None,
                max: None,
                secrets: true,
            }],
            servers: Vec::new(),
            version: "0.1.0".into(),
        },
        snapshot: store.load().unwrap(),
        compiled: Some(compiled.clone()),
        restored: None,
        outbid_ms: 0,
        rng: Box::new(SplitMix64(1)),
        vault: Arc::default(),
        changed_secrets: Vec::new(),
        now,
    };
    let mut out = Vec::new();
    let mut server = Server::new(init, &mut out);
    let mut heard = BTreeMap::new();
    settle(&mut server, store, &BTreeMap::new(), now, out, &mut heard, log);
    server
}

/// Does what the core wants until it wants nothing more.
fn settle(
    server: &mut Server,
    store: &mut MemoryStore,
    files: &BTreeMap<Hash32, Vec<u8>>,
    now: Now,
    effects: Vec<Effect>,
    heard: &mut BTreeMap<CallId, Heard>,
    log: &mut Vec<String>,
) {
    let mut left: VecDeque<Effect> = effects.into();
    let mut out = Vec::new();
    while let Some(effect) = left.pop_front() {
        match effect {
            Effect::Write { ticket, write } => {
                let result = store.apply(&[write]).map(|mut written| written.remove(0));
                server.handle(now, Event::Written { ticket, result }, &mut out);
            }
            Effect::ReadBlob { ticket, hash, offset, len } => {
                let file = files.get(&hash).ok_or("it is gone".to_string());
                let piece = |file: &Vec<u8>| {
                    let from = file.len().min(offset as usize);
                    Bytes::copy_from_slice(&file[from..file.len().min(from + len)])
                };
                server.handle(now, Event::BlobRead { ticket, result: file.map(piece) }, &mut out);
            }
            Effect::Item { call, body } => {
                heard.entry(call).or_default().items.push(body);
                server.handle(now, Event::StreamReady { call }, &mut out);
            }
            Effect::Reply { call, body } => heard.entry(call).or_default().reply = Some(body),
            Effect::Fail { call, code, message } => heard.entry(call).or_default().failed = Some((code, message)),
            Effect::End { call } => heard.entry(call).or_default().ended = true,
            Effect::Log { line, .. } => log.push(line),
            Effect::AdminReply { result, .. } => log.push(format!("operator: {result:?}")),
            Effect::Trust { .. } | Effect::Close { .. } => {}
        }
        left.extend(out.drain(..));
    }
}

impl Bench {
    /// Two envoys, and one bundle for both that names `files`.
    fn new(files: &[&[u8]]) -> Bench {
        let files: BTreeMap<Hash32, Vec<u8>> = files.iter().map(|data| (sha256(&[data]), data.to_vec())).collect();
        let blob = |(hash, data): (&Hash32, &Vec<u8>)| BlobRef {
            sha256: *hash,
            size: data.len() as u64,
            path: format!("files/{hash}"),
        };
        let bundle =
            Bundle { mapping: "envoys/all.vgo:1".into(), blobs: files.iter().map(blob).collect(), ..Bundle::default() };
        let compiled = Compiled::from_bundles(Hash32([5; 32]), vec![(vec!["*".into()], bundle)]).unwrap();
        let compiled = Arc::new(compiled);
        let now = Now { mono: Mono(1_000_000), wall: Wall(1_700_000_000_000) };
        let mut store = MemoryStore::new(server_id(&identity().public()));
        for n in [10, 11] {
            let row = EnvoyRow {
                uuid: envoy(n),
                hostname: format!("node-{n}"),
                public_key: envoy_key(n).public(),
                sealing_key: [n; 32],
                state: Enrolled::Active,
                machine_id: String::new(),
                agent_version: String::new(),
                os: String::new(),
                arch: String::new(),
                enrolled_at: now.wall,
                enrolled_serial: 0,
                assigned_serial: 0,
                bundle: compiled.bundle_for("node"),
                last_seen: now.wall,
                status: Status::Nodata,
                counts: Counts::default(),
                watermark: [0; 2],
                link: [Hash32::ZERO; 2],
                trait_hash: 0,
                boot_id: String::new(),
            };
            let enroll = EnrollWrite { row, token: None, trusted: None, at: now.wall };
            store.apply(&[Write::Enroll(Box::new(enroll))]).unwrap();
        }
        let mut log = Vec::new();
        let server = start(&mut store, &compiled, now, &mut log);
        Bench { server, store, compiled, files, now, n_conns: 0, n_streams: 0, log }
    }

    /// `kill -9` and a new process on the same disk.
    fn restart(&mut self) {
        self.server = start(&mut self.store, &self.compiled, self.now, &mut self.log);
    }

    fn pass(&mut self, ms: u64) {
        self.now = Now { mono: self.now.mono + ms, wall: Wall(self.now.wall.0 + ms as i64) };
    }

    fn handle(&mut self, event: Event) -> BTreeMap<CallId, Heard> {
        let (mut out, mut heard) = (Vec::new(), BTreeMap::new());
        self.server.handle(self.now, event, &mut out);
        settle(&mut self.server, &mut self.store, &self.files, self.now, out, &mut heard, &mut self.log);
        heard
    }

    fn order(&mut self, request: AdminRequest) {
        self.handle(Event::Admin { ticket: 1, request });
    }

    fn call(&mut self, conn: ConnId, method: Method, message: &impl Message) -> Heard {
        self.n_streams += 2;
        let call = CallId { conn, stream: self.n_streams };
        let body = message.encode_to_vec().into();
        self.handle(Event::Request { call, method, body }).remove(&call).unwrap_or_default()
    }

    /// A connection on which this envoy is authenticated.
    fn connect(&mut self, n: u8) -> ConnId {
        self.connect_with(n, wire::RevocationEcho::default())
    }

    /// The same for an envoy that has seen these revocations.
    fn connect_with(&mut self, n: u8, revocation: wire::RevocationEcho) -> ConnId {
        let (conn, exporter, hash) = self.greet();
        let id = server_id(&identity().public());
        let transcript = auth_transcript(Side::Envoy(envoy(n)), &id, &hash, &exporter);
        let request = wire::AuthenticateRequest {
            uuid: envoy(n).as_bytes().to_vec(),
            signature: envoy_key(n).sign(Context::Auth, &transcript).to_vec(),
            boot_id: "boot".into(),
            epoch: 1,
            revocation: Some(revocation),
            ..Default::default()
        };
        let heard = self.call(conn, Method::Authenticate, &request);
        let reply = wire::AuthenticateReply::decode(heard.reply.unwrap()).unwrap();
        assert_eq!(reply.result, wire::authenticate_reply::Result::Ok as i32, "{:#?}", self.log);
        conn
    }

    /// A connection on which Hello was said: its exporter, and the hash of the exchange.
    fn greet(&mut self) -> (ConnId, [u8; 32], Hash32) {
        self.n_conns += 1;
        let (conn, exporter) = (ConnId(self.n_conns), [self.n_conns as u8; 32]);
        self.handle(Event::Connected { conn, peer: [127, 0, 0, 1].into(), exporter });
        let hello = wire::HelloRequest { protocol_versions: vec![1], ..Default::default() };
        let heard = self.call(conn, Method::Hello, &hello);
        let reply = wire::HelloReply::decode(heard.reply.unwrap()).unwrap();
        (conn, exporter, hello_hash(&hello.encode_to_vec(), &reply.body))
    }

    fn check_in(&mut self, n: u8) -> wire::CheckInReply {
        let conn = self.connect(n);
        let heard = self.call(conn, Method::CheckIn, &wire::CheckInRequest { epoch: 1, ..Default::default() });
        wire::CheckInReply::decode(heard.reply.unwrap_or_else(|| panic!("{:?}", heard.failed))).unwrap()
    }

    fn logged(&self, text: &str) -> usize {
        self.log.iter().filter(|line| line.contains(text)).count()
    }
}
