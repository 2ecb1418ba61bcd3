//! The loop in a thread of its own, a small core that answers by method, and clients over loopback.

use std::net::Ipv4Addr;
use std::thread::JoinHandle;
use std::time::Duration;

use common::net::{CallError, Client, ClientEvent, ClientOptions, Pins, Tickets, client_config, server_config};
use common::proto::method;

use super::*;
use crate::store::Written;

/// Answers at once, by writer, or never; trusts who asks for it.
struct Core {
    conns: Vec<ConnId>,
    waiting: Vec<(u64, CallId)>,
    log: std::sync::mpsc::SyncSender<String>,
}

impl Handler for Core {
    fn handle(&mut self, _: Now, event: Event, out: &mut Vec<Effect>) {
        let _ = self.log.send(format!("{event:?}").split(' ').next().unwrap_or_default().to_owned());
        match event {
            Event::Connected { conn, .. } => self.conns.push(conn),
            Event::Disconnected { conn } => self.conns.retain(|other| *other != conn),
            Event::Request { call, method, body } => match method {
                Method::Authenticate => {
                    out.push(Effect::Trust { conn: call.conn });
                    out.push(Effect::Reply { call, body });
                }
                Method::Report => {
                    let ticket = self.waiting.len() as u64;
                    self.waiting.push((ticket, call));
                    out.push(Effect::Write { ticket, write: Write::Sightings(Vec::new()) });
                }
                Method::Watch => out.push(Effect::Item { call, body }),
                Method::Enroll => out.push(Effect::Close { conn: call.conn, graceful: false }),
                _ => out.push(Effect::Reply { call, body }),
            },
            Event::Written { ticket, .. } => {
                let (_, call) = self.waiting[ticket as usize];
                out.push(Effect::Reply { call, body: Bytes::from("stored") });
            }
            Event::Drain => {
                out.extend(self.conns.iter().map(|conn| Effect::Close { conn: *conn, graceful: true }));
            }
            _ => {}
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        None
    }
}

/// A writer in a thread of its own.
struct Threads(Mailbox<Mail>);

impl Outside for Threads {
    fn write(&mut self, ticket: u64, _: Write) {
        let mailbox = self.0.clone();
        std::thread::spawn(move || mailbox.send(Mail::Event(Event::Written { ticket, result: Ok(Written::Done) })));
    }
    fn read_blob(&mut self, _: u64, _: Hash32, _: u64, _: usize) {}
    fn admin_reply(&mut self, _: u64, _: Result<AdminReply, AdminError>) {}
    fn log(&mut self, _: Level, _: String) {}
}

struct Running {
    address: SocketAddr,
    mailbox: Mailbox<Mail>,
    counts: Arc<Mutex<NetCounts>>,
    thread: JoinHandle<()>,
    log: std::sync::mpsc::Receiver<String>,
    client_tls: Arc<rustls::ClientConfig>,
}

fn start(change: impl FnOnce(&mut NetOptions)) -> Running {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let clock = Arc::new(TlsClock::default());
    let tickets = Arc::new(Tickets::new(&[([1; 16], [2; 32])]));
    let mut options = NetOptions {
        tls: server_config(&cert.pem(), &key.serialize_pem(), &[b"h2"], tickets, clock.clone()).unwrap(),
        tls_clock: clock,
        limits: Arc::new(H2Limits::default()),
        rule: PeerRule { strangers_max: 1_000, per_second: 10_000 },
        connections_max: 1_000,
        drain_ms: 5_000,
        clock: Clock::system(),
    };
    change(&mut options);
    let (sender, log) = std::sync::mpsc::sync_channel(1 << 16);
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.address().unwrap();
    let (send_parts, parts) = std::sync::mpsc::sync_channel(64);
    // The loop is built where it runs: its connections may not move between threads.
    let thread = std::thread::spawn(move || {
        let core = Core { conns: Vec::new(), waiting: Vec::new(), log: sender };
        let (reactor, mailbox) = Reactor::new(listener, core, options, Threads).unwrap();
        send_parts.send((mailbox, reactor.counts())).unwrap();
        reactor.run().map(drop).unwrap();
    });
    let (mailbox, counts) = parts.recv().unwrap();
    let client_tls = client_config(&[b"h2"], 8, Arc::new(TlsClock::default())).unwrap();
    Running { address, mailbox, counts, thread, log, client_tls }
}

/// A client that waits.
struct Peer {
    poll: Poll,
    client: Client,
    clock: Clock,
    events: Vec<ClientEvent>,
}

impl Running {
    fn peer(&self) -> Peer {
        let clock = Clock::system();
        let options = ClientOptions {
            tls: self.client_tls.clone(),
            pins: Arc::new(Pins::default()),
            trust_time: clock.now().wall,
            message_bytes_max: 1 << 20,
        };
        let poll = Poll::new().unwrap();
        let mut client = Client::connect(self.address, "localhost", options, clock.now().mono, 10_000).unwrap();
        client.register(poll.registry(), Token(0)).unwrap();
        Peer { poll, client, clock, events: Vec::new() }
    }

    fn end(self) {
        self.mailbox.send(Mail::Stop).unwrap();
        self.thread.join().unwrap();
    }

    fn wait_for(&self, event: &str) {
        while self.log.recv_timeout(Duration::from_secs(10)).expect(event) != event {}
    }

    /// The counts, which are told at the end of a turn: after its answers are on the wire.
    fn counts(&self) -> NetCounts {
        *self.counts.lock().unwrap()
    }

    fn wait_for_counts(&self, expected: impl Fn(&NetCounts) -> bool) {
        let clock = Clock::system();
        let deadline = clock.now().mono + 10_000;
        while !expected(&self.counts()) {
            assert!(clock.now().mono < deadline, "{:?}", self.counts());
            std::thread::yield_now();
        }
    }
}

impl Peer {
    fn wait(&mut self) -> Result<ClientEvent, NetError> {
        let mut ready = Events::with_capacity(8);
        loop {
            if !self.events.is_empty() {
                return Ok(self.events.remove(0));
            }
            if self.client.drive(self.clock.now().mono, &mut self.events)? == Driven::Idle && self.events.is_empty() {
                self.poll.poll(&mut ready, Some(Duration::from_secs(10))).unwrap();
                assert!(!ready.is_empty(), "stalled");
                ready.iter().for_each(|event| self.client.on_event(event));
            }
        }
    }

    fn connected(mut self) -> Result<Peer, NetError> {
        loop {
            if matches!(self.wait()?, ClientEvent::Connected(_)) {
                return Ok(self);
            }
        }
    }

    fn call(&mut self, path: &'static str, body: &[u8]) -> Result<Bytes, CallError> {
        let deadline = self.clock.now().mono + 10_000;
        let key = self.client.call(path, body, deadline).unwrap();
        loop {
            match self.wait() {
                Ok(ClientEvent::Reply { call, result }) if call == key => return result,
                Ok(_) => {}
                Err(error) => return Err(CallError::Lost(error.to_string())),
            }
        }
    }
}

#[test]
fn calls_are_answered_at_once_or_after_the_writer() {
    let server = start(|_| {});
    let mut peer = server.peer();
    assert_eq!(peer.call(method::HELLO, b"hello").unwrap(), "hello");
    assert_eq!(peer.call(method::AUTHENTICATE, b"me").unwrap(), "me");
    assert_eq!(peer.call(method::REPORT, &[7; 100_000]).unwrap(), "stored");
    for n in 0..200u32 {
        assert_eq!(peer.call(method::CHECK_IN, &n.to_be_bytes()).unwrap(), n.to_be_bytes()[..]);
    }
    let Err(CallError::Status(status)) = peer.call("/vigo.v1.Agent/Nothing", b"") else { panic!() };
    assert_eq!((status.code, status.message.contains("/vigo.v1.Agent/Nothing")), (Code::Unimplemented, true));
    drop(peer);
    server.wait_for("Disconnected");
    server.wait_for_counts(|counts| (counts.requests, counts.bad_requests, counts.handshakes) == (203, 1, 1));
    server.end();
}

#[test]
fn an_item_that_comes_with_the_request_is_not_lost() {
    let server = start(|_| {});
    let mut peer = server.peer();
    peer.client.stream(method::WATCH, b"first", None).unwrap();
    loop {
        if let ClientEvent::Item { message, .. } = peer.wait().unwrap() {
            assert_eq!(message, "first");
            break;
        }
    }
    server.wait_for("StreamReady");
    server.end();
}

#[test]
fn many_connections_are_served_side_by_side_and_resumed() {
    let server = start(|_| {});
    let mut peers: Vec<Peer> = (0..100).map(|_| server.peer()).collect();
    for round in 0..3u8 {
        for peer in &mut peers {
            assert_eq!(peer.call(method::CHECK_IN, &[round]).unwrap(), [round][..]);
        }
    }
    let mut late = server.peer();
    late.call(method::CHECK_IN, b"").unwrap();
    server.wait_for_counts(|counts| counts.resumed >= 1);
    server.end();
}

#[test]
fn strangers_of_one_address_are_limited_and_friends_are_not() {
    let server = start(|options| options.rule.strangers_max = 2);
    let mut first = server.peer().connected().unwrap();
    let _second = server.peer().connected().unwrap();
    assert!(server.peer().connected().is_err());
    first.call(method::AUTHENTICATE, b"").unwrap();
    let _third = server.peer().connected().unwrap();
    assert!(server.peer().connected().is_err());
    server.wait_for_counts(|counts| counts.refused_peer == 2);
    server.end();
}

#[test]
fn above_the_bound_newcomers_are_closed_at_once() {
    let server = start(|options| options.connections_max = 1);
    let mut first = server.peer();
    first.call(method::HELLO, b"").unwrap();
    assert!(server.peer().connected().is_err());
    first.call(method::HELLO, b"").unwrap();
    drop(first);
    server.wait_for("Disconnected");
    server.peer().call(method::HELLO, b"").unwrap();
    server.end();
}

#[test]
fn an_effect_can_close_the_connection_of_its_own_request() {
    let server = start(|_| {});
    let mut peer = server.peer();
    assert!(matches!(peer.call(method::ENROLL, b""), Err(CallError::Lost(_))));
    server.wait_for("Disconnected");
    server.end();
}

#[test]
fn a_drain_closes_the_door_lets_calls_finish_and_ends_the_loop() {
    let server = start(|_| {});
    let mut peer = server.peer();
    peer.call(method::HELLO, b"").unwrap();
    let _half_open = std::net::TcpStream::connect(server.address).unwrap();
    server.mailbox.send(Mail::Event(Event::Drain)).unwrap();
    server.wait_for("Drain");
    let end = loop {
        if let Err(error) = peer.wait() {
            break error;
        }
    };
    assert_eq!(end, NetError::Closed);
    server.thread.join().unwrap();
    assert!(std::net::TcpStream::connect(server.address).is_err());
}
