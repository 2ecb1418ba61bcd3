//! The API loop in a thread of its own; clients that block, over TLS and over the admin socket.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use common::net::{CallError, Client, ClientEvent, ClientOptions, Pins, Tickets, client_config, server_config};

use super::*;
use crate::api::Body;

/// Answers by path.
struct Routes {
    file: PathBuf,
}

impl ApiHandler for Routes {
    fn handle(&mut self, request: Request, respond: Respond) {
        let text = |text: String| Response::text("text/plain", text);
        match &*request.path {
            "/echo" => respond(Response { body: Body::Bytes(request.body), ..text(String::new()) }),
            "/who" => respond(text(format!("{:?} {}", request.origin, request.host))),
            "/later" => {
                let answer = Response { status: 202, ..text(request.query) };
                std::thread::spawn(move || respond(answer));
            }
            "/drop" => {}
            "/file" => respond(Response { body: Body::File(self.file.clone()), ..text(String::new()) }),
            "/gone" => respond(Response { body: Body::File("/does/not/exist".into()), ..text(String::new()) }),
            _ => respond(Response::error(404, "not_found", "nothing here", "")),
        }
    }

    fn body_bytes_max(&self, _: &str, path: &str, _: Origin) -> usize {
        if path == "/echo" { 200_000 } else { 10 }
    }
}

struct Running {
    address: SocketAddr,
    admin: PathBuf,
    dir: tempfile::TempDir,
    mailbox: Mailbox<ApiMail>,
    thread: JoinHandle<()>,
}

fn start() -> Running {
    let owner = nix::unistd::Uid::current().as_raw();
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let clock = Arc::new(TlsClock::default());
    let tickets = Arc::new(Tickets::new(&[([1; 16], [2; 32])]));
    let protocols: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let options = ApiOptions {
        tls: server_config(&cert.pem(), &key.serialize_pem(), &protocols, tickets, clock.clone()).unwrap(),
        tls_clock: clock,
        rule: PeerRule { strangers_max: 100, per_second: 1_000 },
        connections_max: 50,
        handshake_ms: 10_000,
        clock: Clock::system(),
    };
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.address().unwrap();
    let admin = dir.path().join("admin.sock");
    // A socket that a killed server left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&admin).unwrap());
    let socket = AdminSocket::bind(&admin, owner).unwrap();
    let file = dir.path().join("file");
    let content: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    std::fs::write(&file, content).unwrap();
    let (send, parts) = std::sync::mpsc::sync_channel(1 << 16);
    let thread = std::thread::spawn(move || {
        let (api, mailbox) = ApiLoop::new(listener, Some(socket), Routes { file }, options).unwrap();
        send.send(mailbox).unwrap();
        api.run().map(drop).unwrap();
    });
    Running { address, admin, dir, mailbox: parts.recv().unwrap(), thread }
}

impl Running {
    fn end(self) {
        self.mailbox.send(ApiMail::Stop).unwrap();
        self.thread.join().unwrap();
        drop(self.dir);
    }

    fn admin(&self) -> StdUnixStream {
        let socket = StdUnixStream::connect(&self.admin).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    fn tls(&self) -> rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> {
        self.speaking(b"http/1.1")
    }

    fn speaking(&self, protocol: &[u8]) -> rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> {
        let config = client_config(&[protocol], 8, Arc::new(TlsClock::default())).unwrap();
        let socket = std::net::TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        rustls::StreamOwned::new(rustls::ClientConnection::new(config, name).unwrap(), socket)
    }
}

/// One answer: status and body, by its Content-Length.
fn answer(stream: &mut impl Read) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status: u16 = head[9..12].parse().unwrap();
    if status == 100 {
        return answer(stream);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (status, body)
}

fn get(stream: &mut (impl Read + Write), target: &str) -> (u16, Vec<u8>) {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    answer(stream)
}

#[test]
fn one_connection_serves_request_after_request() {
    let server = start();
    let (mut tls, mut admin) = (server.tls(), server.admin());
    assert_eq!(get(&mut tls, "/later?a=1"), (202, b"a=1".to_vec()));
    assert_eq!(get(&mut tls, "/nothing").0, 404);
    assert_eq!(get(&mut tls, "/drop").0, 503);
    assert_eq!(get(&mut tls, "/gone").0, 404);
    let expected: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    assert_eq!(get(&mut tls, "/file"), (200, expected.clone()));
    assert_eq!(get(&mut admin, "/file"), (200, expected));
    assert_eq!(get(&mut tls, "/later?b"), (202, b"b".to_vec()));
    server.end();
}

#[test]
fn the_origin_is_told_apart() {
    let server = start();
    let uid = nix::unistd::Uid::current().as_raw();
    let text = |stream: &mut dyn FnMut() -> (u16, Vec<u8>)| String::from_utf8(stream().1).unwrap();
    assert_eq!(text(&mut || get(&mut server.admin(), "/who")), format!("Admin {{ uid: {uid} }} x"));
    assert_eq!(text(&mut || get(&mut server.tls(), "/who")), "Https x");
    server.end();
}

#[test]
fn bodies_come_whole_and_requests_sent_ahead_are_answered_in_order() {
    let server = start();
    let mut admin = server.admin();
    let body = vec![b'x'; 150_000];
    let mut bytes = format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(b"GET /later?second HTTP/1.1\r\nHost: x\r\n\r\nGET /who HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut reader = admin.try_clone().unwrap();
    let writer = std::thread::spawn(move || admin.write_all(&bytes));
    assert_eq!(answer(&mut reader), (200, body));
    assert_eq!(answer(&mut reader), (202, b"second".to_vec()));
    assert_eq!(answer(&mut reader).0, 200);
    writer.join().unwrap().unwrap();
    server.end();
}

#[test]
fn a_body_over_the_limit_of_its_route_is_refused_unread() {
    let server = start();
    for mut stream in [Box::new(server.admin()) as Box<dyn ReadWrite>, Box::new(server.tls())] {
        stream.write_all(b"POST /who HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n").unwrap();
        assert_eq!(answer(&mut stream).0, 413);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    server.end();
}

#[test]
fn chunked_bodies_come_whole_within_the_limit_of_their_route() {
    let server = start();
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for mut stream in [Box::new(server.admin()) as Box<dyn ReadWrite>, Box::new(server.tls())] {
        stream.write_all(format!("{head}5\r\nhello\r\n6;x\r\n world\r\n0\r\nT: x\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(answer(&mut stream), (200, b"hello world".to_vec()));
        // The connection goes on, and a request that was sent ahead is answered as well.
        let large = "y".repeat(100_000);
        let text = format!("{head}{:x}\r\n{large}\r\n0\r\n\r\nGET /later?a HTTP/1.1\r\nHost: x\r\n\r\n", large.len());
        stream.write_all(text.as_bytes()).unwrap();
        assert_eq!(answer(&mut stream), (200, large.into_bytes()));
        assert_eq!(answer(&mut stream), (202, b"a".to_vec()));
        stream.write_all(b"POST /who HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n").unwrap();
        assert_eq!(answer(&mut stream).0, 413, "11 bytes where 10 are allowed, refused unread");
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    server.end();
}

#[test]
fn a_request_hidden_in_the_body_of_another_is_never_answered() {
    let server = start();
    let hidden = "GET /later?hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    for lengths in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 0\r\nContent-Length: 44",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding:\x0bchunked",
        "Content-Length: 0\nTransfer-Encoding: chunked",
    ] {
        let mut stream = server.admin();
        let text = format!("POST /echo HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n0\r\n\r\n{hidden}");
        stream.write_all(text.as_bytes()).unwrap();
        assert!((400..=501).contains(&answer(&mut stream).0), "{lengths:?}");
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "{lengths:?}: the connection ends there");
    }
    server.end();
}

#[test]
fn a_client_that_waits_for_continue_gets_it() {
    let server = start();
    let mut admin = server.admin();
    admin.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").unwrap();
    let mut line = [0; 25];
    admin.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    admin.write_all(b"ok").unwrap();
    assert_eq!(answer(&mut admin), (200, b"ok".to_vec()));
    server.end();
}

#[test]
fn garbage_is_refused_and_closed() {
    let server = start();
    for garbage in ["\0\0\0\0", "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut tls = server.tls();
        tls.write_all(garbage.as_bytes()).unwrap();
        assert!(answer(&mut tls).0 >= 400);
        assert_eq!(tls.read(&mut [0; 1]).unwrap(), 0);
    }
    server.end();
}

#[test]
fn root_and_the_owner_are_admins_and_nobody_else() {
    assert!(is_admin(0, 1_000) && is_admin(1_000, 1_000) && is_admin(0, 0));
    assert!(!is_admin(1_001, 1_000) && !is_admin(1_000, 0));
}

#[test]
fn http_2_reaches_the_same_handler() {
    let server = start();
    let clock = Clock::system();
    let options = ClientOptions {
        tls: client_config(&[b"h2"], 8, Arc::new(TlsClock::default())).unwrap(),
        pins: Arc::new(Pins::default()),
        trust_time: clock.now().wall,
        message_bytes_max: 1 << 20,
    };
    let mut poll = Poll::new().unwrap();
    let mut client = Client::connect(server.address, "localhost", options, clock.now().mono, 10_000).unwrap();
    client.register(poll.registry(), Token(0)).unwrap();
    // The client speaks gRPC: its bytes come back whole from the echo, without the trailers that it expects, and files
    // and refusals end as HTTP answers do.
    for (path, size, expected) in [("/echo", 100_000, "no trailers"), ("/file", 0, "no trailers"), ("/who", 11, "413")]
    {
        let call = client.call(path, &vec![0; size], clock.now().mono + 10_000).unwrap();
        let mut out = Vec::new();
        let mut events = Events::with_capacity(8);
        let error = loop {
            client.drive(clock.now().mono, &mut out).unwrap();
            out.retain(|event| !matches!(event, ClientEvent::Connected(_)));
            match out.pop() {
                Some(ClientEvent::Reply { call: answered, result }) if answered == call => break result.unwrap_err(),
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "stalled at {path}");
            events.iter().for_each(|event| client.on_event(event));
        };
        let text = match error {
            CallError::Lost(why) => why,
            CallError::Status(status) => status.message,
            other => panic!("{other:?}"),
        };
        assert!(text.contains(expected) || path == "/file", "{path}: {text}");
    }
    server.end();
}

/// Sends one request over HTTP/2 by hand: bytes of data in its answer.
fn http2(server: &Running, method: &str, path: &str) -> usize {
    let mut stream = server.speaking(b"h2");
    let frame = |kind: u8, flags: u8, id: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, id], payload].concat()
    };
    // HPACK literals with names of the static table: `:method`, `:path`, `:authority`; `:scheme: https` is entry 7.
    let literal = |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
    let head = [literal(2, method), vec![0x87], literal(4, path), literal(1, "x")].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let bytes = [&preface[..], &frame(4, 0, 0, &[]), &frame(4, 1, 0, &[]), &frame(1, 5, 1, &head)].concat();
    stream.write_all(&bytes).unwrap();
    let mut n = 0;
    loop {
        let mut prefix = [0; 9];
        stream.read_exact(&mut prefix).unwrap();
        let length = u32::from_be_bytes([0, prefix[0], prefix[1], prefix[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).unwrap();
        let (kind, flags, id) = (prefix[3], prefix[4], prefix[8]);
        assert!(kind != 3 && kind != 7, "the server broke the stream off");
        if id == 1 {
            n += if kind == 0 { length } else { 0 };
            if flags & 1 == 1 {
                return n;
            }
        }
    }
}

#[test]
fn head_over_http_2_has_no_body_and_get_has() {
    let server = start();
    for (path, bytes) in [("/who", 7), ("/later?a=1", 3), ("/gone", 20), ("/drop", 20)] {
        assert_eq!(http2(&server, "HEAD", path), 0, "{path}");
        assert!(http2(&server, "GET", path) >= bytes, "{path}");
    }
    assert_eq!(http2(&server, "HEAD", "/file"), 0);
    let mut tls = server.tls();
    tls.write_all(b"HEAD /file HTTP/1.1\r\nHost: x\r\n\r\nGET /later?b HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nb") {
        let mut byte = [0];
        tls.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("content-length: 300000") && text.matches("HTTP/1.1").count() == 2, "{text}");
    server.end();
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}
