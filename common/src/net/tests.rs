//! Both sides over real sockets on loopback, in one thread, with one poll and a clock that the test moves.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use super::*;
use crate::proto::{Code, method};
use crate::time::{Mono, Wall};

const LISTENER: Token = Token(0);
const SERVER: Token = Token(1);
const CLIENT: Token = Token(2);
/// 2026-11-21.
const TODAY: Wall = Wall(1_795_219_200_000);
const KEYS: [([u8; 16], [u8; 32]); 1] = [([1; 16], [2; 32])];
const YEAR: i64 = 365 * 86_400_000;

/// A CA and a leaf with a validity.
struct Made {
    ca_pem: String,
    chain_pem: String,
    key_pem: String,
}

fn made(not_before: i32, not_after: i32) -> Made {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(not_before, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(not_after, 1, 1);
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    Made { ca_pem: ca.pem(), chain_pem: leaf.pem(), key_pem: key.serialize_pem() }
}

/// Listener, one server connection, one client.
struct Net {
    poll: Poll,
    listener: TcpListener,
    address: SocketAddr,
    made: Made,
    server_tls: Arc<rustls::ServerConfig>,
    client_tls: Arc<rustls::ClientConfig>,
    limits: H2Limits,
    now: Mono,
    server: Option<H2Server>,
    server_events: Vec<ServerEvent>,
    server_end: Option<NetError>,
    client: Option<Client>,
    client_events: Vec<ClientEvent>,
    client_end: Option<NetError>,
    /// Turns that the last `run` took.
    turns: usize,
}

fn net() -> Net {
    net_with(made(2020, 2040), Tickets::new(&KEYS))
}

fn net_with(made: Made, tickets: Tickets) -> Net {
    let poll = Poll::new().unwrap();
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    let clock = Arc::new(TlsClock::default());
    clock.set(TODAY);
    Net {
        poll,
        address: listener.local_addr().unwrap(),
        listener,
        server_tls: server_config(&made.chain_pem, &made.key_pem, &[b"h2"], Arc::new(tickets), clock.clone()).unwrap(),
        client_tls: client_config(&[b"h2"], 8, clock).unwrap(),
        made,
        limits: H2Limits::default(),
        now: Mono(1_000),
        server: None,
        server_events: Vec::new(),
        server_end: None,
        client: None,
        client_events: Vec::new(),
        client_end: None,
        turns: 0,
    }
}

impl Net {
    fn options(&self) -> ClientOptions {
        ClientOptions {
            tls: self.client_tls.clone(),
            pins: Arc::new(Pins::from_pem(&self.made.ca_pem).unwrap()),
            trust_time: TODAY,
            message_bytes_max: 8 << 20,
        }
    }

    fn connect(&mut self) {
        self.connect_with(self.options());
    }

    fn connect_with(&mut self, options: ClientOptions) {
        let mut client = Client::connect(self.address, "localhost", options, self.now, 15_000).unwrap();
        client.register(self.poll.registry(), CLIENT).unwrap();
        self.client = Some(client);
        self.client_end = None;
    }

    fn connected() -> Net {
        let mut net = net();
        net.connect();
        net.run("connected", |net| net.server_events.len() + net.client_events.len() == 2);
        net.server_events.clear();
        net.client_events.clear();
        net.server.as_mut().unwrap().trust();
        net
    }

    /// Turns until `done`. Waiting without anything to wait for is a stall and fails.
    fn run(&mut self, what: &str, mut done: impl FnMut(&mut Net) -> bool) {
        let mut events = Events::with_capacity(16);
        self.turns = 0;
        loop {
            let more = self.drive();
            if done(self) {
                return;
            }
            self.turns += 1;
            let wait = if more { Duration::ZERO } else { Duration::from_secs(5) };
            self.poll.poll(&mut events, Some(wait)).unwrap();
            assert!(
                more || !events.is_empty(),
                "stalled before: {what}: {:?} {:?} {:?}",
                self.server_end,
                self.client_end,
                self.client_events
            );
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    SERVER => self.server.iter_mut().for_each(|server| server.on_event(event)),
                    _ => self.client.iter_mut().for_each(|client| client.on_event(event)),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let limits = Arc::new(self.limits.clone());
            let mut server = H2Server::new(socket, self.server_tls.clone(), limits, self.now).unwrap();
            server.register(self.poll.registry(), SERVER).unwrap();
            (self.server, self.server_end) = (Some(server), None);
        }
    }

    /// One turn of both sides. True: somebody wants another.
    fn drive(&mut self) -> bool {
        let mut more = false;
        if let Some(server) = &mut self.server {
            match server.drive(self.now, &mut self.server_events) {
                Ok(driven) => more |= driven == Driven::WantsTurn,
                Err(error) => {
                    server.close(self.poll.registry());
                    (self.server, self.server_end) = (None, Some(error));
                }
            }
        }
        if let Some(client) = &mut self.client {
            match client.drive(self.now, &mut self.client_events) {
                Ok(driven) => more |= driven == Driven::WantsTurn,
                Err(error) => {
                    client.close(self.poll.registry());
                    (self.client, self.client_end) = (None, Some(error));
                }
            }
        }
        more
    }

    fn client(&mut self) -> &mut Client {
        self.client.as_mut().unwrap()
    }

    fn call(&mut self, message: &[u8]) -> u64 {
        let deadline = self.now + 30_000;
        self.client().call(method::CHECK_IN, message, deadline).unwrap()
    }

    /// Until a whole request is there.
    fn request(&mut self) -> (u32, Bytes) {
        self.run("a request", |net| net.server_events.iter().any(|e| matches!(e, ServerEvent::Request { .. })));
        self.server_events
            .retain(|event| !matches!(event, ServerEvent::Connected { .. } | ServerEvent::StreamReady { .. }));
        match self.server_events.remove(0) {
            ServerEvent::Request { stream, head, body } => {
                assert_eq!(check_request(&head), Ok(()));
                (stream, body)
            }
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self) -> Result<Bytes, CallError> {
        self.run("an answer", |net| !net.client_events.is_empty());
        match self.client_events.remove(0) {
            ClientEvent::Reply { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn identity(&mut self) -> Identity {
        self.run("an identity", |net| !net.client_events.is_empty());
        match self.client_events.remove(0) {
            ClientEvent::Connected(identity) => *identity,
            other => panic!("{other:?}"),
        }
    }

    /// Until the server has ended the connection.
    fn server_end(&mut self) -> NetError {
        self.run("the end", |net| net.server_end.is_some());
        self.server_end.clone().unwrap()
    }

    /// A plain socket that sends `bytes`; what it got back until the server closed.
    fn raw(&mut self, bytes: &[u8]) -> (NetError, Vec<u8>) {
        // What the one before it came to is not its end.
        self.server_end = None;
        let mut socket = std::net::TcpStream::connect(self.address).unwrap();
        socket.write_all(bytes).unwrap();
        let end = self.server_end();
        let mut got = Vec::new();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = socket.read_to_end(&mut got);
        (end, got)
    }
}

#[test]
fn a_call_travels_both_ways() {
    let mut net = Net::connected();
    for size in [0, 40, 5_000, 100_000, 700_000] {
        let (question, answer) = (vec![1; size], Bytes::from(vec![2; size]));
        net.call(&question);
        let (stream, body) = net.request();
        assert_eq!(unframe(body, size).unwrap(), question);
        let now = net.now;
        net.server.as_mut().unwrap().reply(now, stream, answer.clone());
        assert_eq!(net.answer().unwrap(), answer);
    }
}

#[test]
fn exporters_are_equal_on_both_sides_and_fresh_on_each_connection() {
    let mut net = net();
    let mut seen = Vec::new();
    for resumed in [false, true] {
        net.connect();
        let identity = net.identity();
        net.run("server connected", |net| !net.server_events.is_empty());
        let ServerEvent::Connected { exporter } = net.server_events.remove(0) else { panic!() };
        assert_eq!((identity.exporter, identity.resumed), (exporter, resumed));
        assert_eq!(net.server.as_ref().unwrap().is_resumed(), resumed);
        assert!(!seen.contains(&exporter) && identity.trust.is_ok());
        seen.push(exporter);
        net.call(b"so that the ticket arrives");
        net.request();
        net.server = None;
        net.run("client ended", |net| net.client_end.is_some());
        net.client_events.clear();
    }
}

#[test]
fn a_session_is_resumed_by_another_server_with_the_saved_ticket_keys() {
    let mut net = net();
    net.connect();
    assert!(!net.identity().resumed);
    net.call(b"so that the ticket arrives");
    let (stream, _) = net.request();
    let now = net.now;
    net.server.as_mut().unwrap().reply(now, stream, Bytes::new());
    net.answer().unwrap();
    let again = Tickets::new(&KEYS);
    let made = Made {
        ca_pem: net.made.ca_pem.clone(),
        chain_pem: net.made.chain_pem.clone(),
        key_pem: net.made.key_pem.clone(),
    };
    let mut restarted = net_with(made, again);
    restarted.client_tls = net.client_tls.clone();
    restarted.connect();
    assert!(restarted.identity().resumed);
}

#[test]
fn the_pin_decides_and_the_clock_only_at_the_end() {
    let check = |made: Made, ca: Option<&Made>, time: Wall| {
        let mut net = net_with(made, Tickets::new(&KEYS));
        let mut options = net.options();
        options.trust_time = time;
        options.pins = Arc::new(Pins::from_pem(&ca.unwrap_or(&net.made).ca_pem).unwrap());
        net.connect_with(options);
        net.identity().trust
    };
    let after = |years: i64| Wall(TODAY.0 + years * YEAR);
    assert_eq!(check(made(2020, 2040), None, TODAY), Ok(()));
    let other = made(2020, 2040);
    assert!(matches!(check(made(2020, 2040), Some(&other), TODAY), Err(Untrusted::UnknownCa(_))));
    assert!(matches!(check(made(2020, 2024), None, TODAY), Err(Untrusted::Expired { .. })));
    assert!(matches!(check(made(2020, 2040), None, after(20)), Err(Untrusted::Expired { .. })));
    // A board that believes in 1970, or a certificate of tomorrow.
    assert_eq!(check(made(2020, 2040), None, Wall(0)), Ok(()));
    assert_eq!(check(made(2030, 2040), None, TODAY), Ok(()));
    let none = Pins::default();
    assert!(matches!(none.check(&[], TODAY), Err(Untrusted::UnknownCa(_))));
}

#[test]
fn a_refusal_reaches_the_caller_with_its_text() {
    let mut net = Net::connected();
    net.call(b"x");
    let (stream, _) = net.request();
    let status = Status::new(Code::PermissionDenied, "revoked: stolen ünit");
    let now = net.now;
    net.server.as_mut().unwrap().fail(now, stream, &status);
    assert_eq!(net.answer(), Err(CallError::Status(status)));
}

#[test]
fn a_stream_asks_for_items_one_by_one_and_ends() {
    let mut net = Net::connected();
    let now = net.now;
    net.client().stream(method::FETCH_BLOB, b"which", None).unwrap();
    let (stream, _) = net.request();
    net.server.as_mut().unwrap().start(now, stream, head(), false);
    for n in 0..5u8 {
        net.run("ready", |net| matches!(net.server_events[..], [ServerEvent::StreamReady { .. }]));
        net.server_events.clear();
        let server = net.server.as_mut().unwrap();
        server.item(now, stream, Bytes::from(vec![n; 300_000]));
        server.want_ready(stream);
    }
    net.run("ready", |net| !net.server_events.is_empty());
    net.server.as_mut().unwrap().fail(now, stream, &Status::new(Code::Ok, ""));
    net.run("the end", |net| matches!(net.client_events.last(), Some(ClientEvent::Ended { result: Ok(()), .. })));
    let sizes: Vec<(u8, usize)> = net
        .client_events
        .iter()
        .filter_map(|event| match event {
            ClientEvent::Item { message, .. } => Some((message[0], message.len())),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, (0..5).map(|n| (n, 300_000)).collect::<Vec<_>>());
}

#[test]
fn a_paused_stream_waits_while_calls_go_on() {
    let mut net = Net::connected();
    let now = net.now;
    net.client().stream(method::FETCH_BLOB, b"which", None).unwrap();
    let (stream, _) = net.request();
    net.server.as_mut().unwrap().start(now, stream, head(), false);
    net.server.as_mut().unwrap().item(now, stream, Bytes::from(vec![1; 10]));
    let items = |net: &Net| net.client_events.iter().filter(|e| matches!(e, ClientEvent::Item { .. })).count();
    net.run("the first item", |net| items(net) == 1);
    net.client().pause_streams(true);
    for _ in 0..20 {
        net.server.as_mut().unwrap().item(now, stream, Bytes::from(vec![2; 100_000]));
    }
    net.call(b"x");
    let (other, _) = net.request();
    net.server.as_mut().unwrap().reply(now, other, Bytes::from_static(b"y"));
    net.run("the reply", |net| net.client_events.iter().any(|e| matches!(e, ClientEvent::Reply { .. })));
    assert_eq!(items(&net), 1);
    net.client().pause_streams(false);
    net.run("the others", |net| items(net) == 21);
}

#[test]
fn more_calls_than_streams_wait_their_turn() {
    let mut net = Net::connected();
    let keys: Vec<u64> = (0..50u8).map(|n| net.call(&[n])).collect();
    let mut answered = Vec::new();
    while answered.len() < keys.len() {
        net.run("anything", |net| net.server_events.len() + net.client_events.len() > 0);
        for event in std::mem::take(&mut net.server_events) {
            let ServerEvent::Request { stream, body, .. } = event else { panic!() };
            let now = net.now;
            net.server.as_mut().unwrap().reply(now, stream, unframe(body, 10).unwrap());
        }
        for event in std::mem::take(&mut net.client_events) {
            let ClientEvent::Reply { call, result } = event else { panic!() };
            assert_eq!(u64::from(result.unwrap()[0]) + keys[0], call);
            answered.push(call);
        }
    }
    answered.sort();
    assert_eq!(answered, keys);
}

#[test]
fn a_large_body_spreads_over_turns_and_never_stalls() {
    let mut net = Net::connected();
    net.limits.body_bytes_max = 8 << 20;
    net.connect();
    net.run("connected", |net| net.server_events.len() == 1);
    net.server_events.clear();
    net.server.as_mut().unwrap().trust();
    net.client_events.clear();
    net.call(&vec![3; 6 << 20]);
    let (_, body) = net.request();
    assert_eq!(body.len(), (6 << 20) + 5);
    // The window of HTTP/2 is smaller than a turn's budget, so that turns are many; the budget is tested in io.rs.
    assert!(net.turns > 10);
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_connection_lives() {
    let mut net = Net::connected();
    net.call(&vec![0; crate::limits::REPORT_BYTES_MAX + 1]);
    let Err(CallError::Status(status)) = net.answer() else { panic!() };
    assert_eq!(status.code, Code::ResourceExhausted);
    net.call(b"small");
    net.request();
}

#[test]
fn a_stranger_may_send_little() {
    let mut net = net();
    net.connect();
    net.identity();
    net.call(&vec![0; crate::limits::UNAUTHENTICATED_MESSAGE_BYTES_MAX]);
    let Err(CallError::Status(status)) = net.answer() else { panic!() };
    assert_eq!(status.code, Code::ResourceExhausted);
}

#[test]
fn an_unanswered_call_times_out_on_both_sides() {
    let mut net = Net::connected();
    net.call(b"x");
    net.request();
    net.now = net.client().next_deadline().unwrap();
    assert_eq!(net.answer(), Err(CallError::Timeout));
    net.run("cancelled", |net| matches!(net.server_events[..], [ServerEvent::Cancelled { .. }]));
}

#[test]
fn the_server_answers_for_a_core_that_does_not() {
    let mut net = Net::connected();
    let deadline = net.now + 10_000_000;
    net.client().call(method::REPORT, b"x", deadline).unwrap();
    net.request();
    net.now = net.server.as_ref().unwrap().next_deadline();
    let Err(CallError::Status(status)) = net.answer() else { panic!() };
    assert_eq!(status.code, Code::Unavailable);
    assert!(matches!(net.server_events[..], [ServerEvent::Cancelled { .. }]));
}

#[test]
fn a_half_open_handshake_is_cut_at_its_deadline() {
    let mut net = net();
    let _socket = std::net::TcpStream::connect(net.address).unwrap();
    net.run("accepted", |net| net.server.is_some());
    let deadline = net.server.as_ref().unwrap().next_deadline();
    assert_eq!(deadline, net.now + crate::limits::HANDSHAKE_TIMEOUT_MS);
    net.now = deadline;
    assert_eq!(net.server_end(), NetError::Timeout("TLS handshake"));
}

#[test]
fn a_connection_that_never_authenticates_is_cut() {
    let mut net = net();
    net.connect();
    net.run("connected", |net| !net.server_events.is_empty());
    net.now = net.server.as_ref().unwrap().next_deadline();
    assert_eq!(net.server_end(), NetError::Timeout("authentication"));
}

#[test]
fn a_connection_without_calls_is_told_to_go_away() {
    let mut net = Net::connected();
    net.call(b"x");
    let (stream, _) = net.request();
    let now = net.now;
    net.server.as_mut().unwrap().reply(now, stream, Bytes::new());
    net.answer().unwrap();
    net.drive();
    net.now = net.server.as_ref().unwrap().next_deadline();
    assert_eq!(net.now, now + crate::limits::IDLE_TIMEOUT_MS);
    assert_eq!(net.server_end(), NetError::Closed);
}

#[test]
fn a_silent_connection_is_pinged_and_lives_if_it_answers() {
    let mut net = Net::connected();
    let now = net.now;
    net.client().stream(method::WATCH, b"x", None).unwrap();
    let (stream, _) = net.request();
    net.server.as_mut().unwrap().start(now, stream, head(), true);
    net.drive();
    for _ in 0..3 {
        net.now = net.server.as_ref().unwrap().next_deadline();
        let deadline = net.now + crate::limits::KEEPALIVE_MS;
        net.run("alive", |net| net.server.as_ref().unwrap().next_deadline() == deadline);
    }
    // Without a client that reads there is no answer.
    net.now = net.server.as_ref().unwrap().next_deadline();
    let client = net.client.take();
    net.drive();
    net.now = net.server.as_ref().unwrap().next_deadline();
    assert_eq!(net.server_end(), NetError::Timeout("keepalive"));
    drop(client);
}

#[test]
fn plain_http_is_told_what_is_wrong() {
    let mut net = net();
    let (end, got) = net.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let text = String::from_utf8(got).unwrap();
    assert_eq!(end, NetError::PlainHttp);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("Content-Length: {}", body.len())), "{text}");
}

#[test]
fn tls_1_2_gets_the_alert_and_garbage_gets_closed() {
    // A TLS 1.2 client hello: record, handshake header, version, random, no session, one suite, no compression,
    // extensions for groups and signature algorithms.
    let mut hello = vec![0x16, 3, 1, 0, 63, 1, 0, 0, 59, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 16]);
    hello.extend([0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 4, 0, 2, 4, 3]);
    let mut net = net();
    let (end, got) = net.raw(&hello);
    assert!(matches!(end, NetError::Tls(_)), "{end:?}");
    // Alert record: fatal, protocol_version (RFC 8446 section 6).
    assert_eq!((got[0], &got[5..7]), (21, &[2, 70][..]));
    for garbage in [&[0u8; 64][..], &[0x16, 3, 1, 0xff, 0xff, 1], b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00"] {
        let (end, _) = net.raw(garbage);
        assert!(matches!(end, NetError::Tls(_)), "{garbage:?}: {end:?}");
    }
}

#[test]
fn calls_given_up_again_and_again_end_the_connection() {
    let mut net = Net::connected();
    for _ in 0..=crate::limits::RESETS_PER_CONNECTION_MAX {
        let call = net.call(b"x");
        net.run("handed out or ended", |net| net.server_end.is_some() || !net.server_events.is_empty());
        net.client().cancel(call);
        net.run("cancelled or ended", |net| {
            let cancelled = matches!(net.server_events[..], [.., ServerEvent::Cancelled { .. }]);
            net.server_end.is_some() || cancelled
        });
        net.server_events.clear();
    }
    assert!(matches!(net.server_end(), NetError::Http2(why) if why.contains("reset flood")));
    net.run("client told", |net| net.client_end.is_some());
    assert!(matches!(net.client_end, Some(NetError::Http2(_))), "{:?}", net.client_end);
}

#[test]
fn goaway_lets_calls_in_flight_finish() {
    let mut net = Net::connected();
    let now = net.now;
    net.client().stream(method::WATCH, b"", None).unwrap();
    let (watch, _) = net.request();
    net.server.as_mut().unwrap().start(now, watch, head(), true);
    net.call(b"x");
    let (stream, _) = net.request();
    assert!(net.server.as_mut().unwrap().goaway(now));
    net.run("watch ended", |net| !net.client_events.is_empty());
    let ClientEvent::Ended { result: Err(CallError::Status(status)), .. } = net.client_events.remove(0) else {
        panic!()
    };
    assert_eq!(status.code, Code::Unavailable);
    net.server.as_mut().unwrap().reply(now, stream, Bytes::from("last"));
    assert_eq!(net.answer().unwrap(), "last");
    assert_eq!(net.server_end(), NetError::Closed);
    net.run("client ended", |net| net.client_end.is_some());
}

#[test]
fn a_peer_that_does_not_read_is_cut() {
    let mut net = Net::connected();
    net.call(b"x");
    let (stream, _) = net.request();
    let now = net.now;
    net.server.as_mut().unwrap().reply(now, stream, Bytes::from(vec![0; 8 << 20]));
    // The client is not driven: its window and the socket's buffers fill up.
    let client = net.client.take();
    net.run("stuck", |net| net.turns > 0 && net.server.as_ref().unwrap().next_deadline() < now + 100_000);
    net.drive();
    net.now = net.server.as_ref().unwrap().next_deadline();
    net.run("cut", |net| {
        net.now = net.now + 31_000;
        net.drive();
        net.server_end.is_some() || matches!(net.server_events[..], [ServerEvent::Cancelled { .. }])
    });
    drop(client);
}
