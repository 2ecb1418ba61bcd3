//! The loop thread of port 8443 and of `run/admin.sock`: HTTP/1.1 and HTTP/2 in, whole requests to a handler, answers out.
//!
//! No page view can delay a check-in, because this loop shares nothing with the one of port 1530. The admin socket speaks
//! HTTP/1.1 without TLS; who may use it is decided by the kernel's word about the peer's uid (docs/THREATS.md).

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::deadline::{Alarm, Deadlines};
use common::limits;
use common::net::{Driven, H2Limits, H2Server, NetError, ServerEvent, TlsClock};
use common::sys::Clock;
use common::time::Now;
use http::{Method, StatusCode};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::accept::Accepted;
use super::download::{Answer, Download, Downloads, Payload};
use super::http1::{Http1, Http1Event, Stream};
use super::mailbox::Letters;
use super::slab::Slab;
use super::{Fatal, Listener, Mailbox, PeerLimits, PeerRule};
use crate::api::http::{ApiHandler, answer_head};
use crate::api::{Origin, Request, Respond, Response};

const LISTENER: Token = Token(0);
const ADMIN: Token = Token(1);
const WAKER: Token = Token(2);
const FIRST: usize = 3;
const EVENTS_PER_TURN: usize = 256;
/// Admin connections taken in one turn.
const ADMINS_PER_TURN: usize = 16;

/// The admin socket, bound.
#[derive(Debug)]
pub struct AdminSocket {
    socket: UnixListener,
    owner: u32,
    ready: bool,
}

/// How the loop behaves.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// TLS of new connections; offers `h2` and `http/1.1`.
    pub tls: Arc<rustls::ServerConfig>,
    /// The clock that `tls` reads.
    pub tls_clock: Arc<TlsClock>,
    /// Limits of each address.
    pub rule: PeerRule,
    /// Connections in all.
    pub connections_max: usize,
    /// Time for the TLS handshake.
    pub handshake_ms: u64,
    /// Time.
    pub clock: Clock,
}

/// A letter to the loop.
#[derive(Debug)]
pub enum ApiMail {
    /// New connections get this certificate from now on.
    Tls(Arc<rustls::ServerConfig>),
    /// End: answers under way are cut.
    Stop,
    /// There are results.
    #[doc(hidden)]
    Results,
}

/// A request in work: connection, and stream or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    conn: u64,
    stream: u32,
}

/// What came for a call.
enum Outcome {
    Answer(Response),
    /// The handler let go of the request.
    Abandoned,
    /// The file of an answer was opened, or could not be.
    Opened(Response, Option<Download>),
    Piece(Option<Bytes>),
}

/// Results from other threads and from handlers that answer at once. Bounded by the requests in flight, because each has at
/// most one result under way; so adding one never waits, not even on the loop's own thread.
#[derive(Clone)]
struct Results {
    list: Arc<Mutex<Vec<(Call, Outcome)>>>,
    mailbox: Mailbox<ApiMail>,
}

/// Adds exactly one result for its call, whatever the handler does.
struct Slot {
    call: Call,
    results: Results,
    done: bool,
}

/// The loop.
pub struct ApiLoop<H> {
    poll: Poll,
    listener: Listener,
    admin: Option<AdminSocket>,
    letters: Letters<ApiMail>,
    results: Results,
    handler: H,
    options: ApiOptions,
    h2_limits: Arc<H2Limits>,
    peers: PeerLimits,
    conns: Slab<Conn>,
    deadlines: Deadlines<usize>,
    downloads: Downloads,
    ready: Vec<usize>,
    more_letters: bool,
    stop: bool,
}

struct Conn {
    wire: Wire,
    origin: Origin,
    /// For the limits of its address; none for the admin socket.
    peer: Option<IpAddr>,
    alarm: Alarm,
    queued: bool,
    files: Vec<(u32, Download)>,
    /// HTTP/2 streams whose answer has no body, because HEAD was asked.
    bare: Vec<u32>,
}

enum Wire {
    Http1(Http1),
    Http2(Box<H2Server>),
    /// Between the two, and after the end.
    None,
}

enum Happened {
    Http1(Http1Event),
    Http2(ServerEvent),
}

impl AdminSocket {
    /// Binds `path`, replacing what an earlier server left. `owner` and root may connect; the caller holds the lock of the
    /// root, so no other server can be listening there.
    pub fn bind(path: &Path, owner: u32) -> Result<AdminSocket, Fatal> {
        use std::os::unix::fs::PermissionsExt;
        let fatal = |error: io::Error| Fatal::Listen { address: path.display().to_string(), error: error.kind() };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fatal(error)),
            _ => {}
        }
        let socket = UnixListener::bind(path).map_err(fatal)?;
        // 0666 on purpose: the kernel's word about the peer decides, and a refusal says why. The folder is 0700 anyway.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(fatal)?;
        Ok(AdminSocket { socket, owner, ready: true })
    }
}

impl<H: ApiHandler> ApiLoop<H> {
    /// Takes the sockets over. The mailbox is for other threads.
    pub fn new(
        mut listener: Listener,
        mut admin: Option<AdminSocket>,
        handler: H,
        options: ApiOptions,
    ) -> Result<(ApiLoop<H>, Mailbox<ApiMail>), Fatal> {
        let fatal = |error: io::Error| Fatal::Poll(error.kind());
        let poll = Poll::new().map_err(fatal)?;
        listener.register(poll.registry(), LISTENER).map_err(fatal)?;
        if let Some(admin) = &mut admin {
            poll.registry().register(&mut admin.socket, ADMIN, Interest::READABLE).map_err(fatal)?;
        }
        let waker = Waker::new(poll.registry(), WAKER).map_err(fatal)?;
        let (mailbox, letters) = Mailbox::new(limits::MAILBOX_LETTERS_MAX, Arc::new(waker));
        let h2_limits = H2Limits {
            handshake_ms: options.handshake_ms,
            answer_ms: limits::API_ANSWER_MS,
            body_bytes_max: limits::API_NETWORK_BODY_BYTES_MAX,
            http1: true,
            grpc: false,
            ..H2Limits::default()
        };
        let api = ApiLoop {
            poll,
            listener,
            admin,
            letters,
            results: Results { list: Arc::default(), mailbox: mailbox.clone() },
            handler,
            peers: PeerLimits::new(options.rule),
            options,
            h2_limits: Arc::new(h2_limits),
            conns: Slab::new(),
            deadlines: Deadlines::new(),
            downloads: Downloads::start().map_err(fatal)?,
            ready: Vec::new(),
            more_letters: false,
            stop: false,
        };
        Ok((api, mailbox))
    }

    /// Runs until told to stop. Gives the handler back.
    pub fn run(mut self) -> Result<H, Fatal> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.stop {
            self.turn(&mut events)?;
        }
        self.conns.indices().into_iter().for_each(|index| self.close(index));
        Ok(self.handler)
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), Fatal> {
        match self.poll.poll(events, self.wait()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(error) => return Err(Fatal::Poll(error.kind())),
        }
        let now = self.options.clock.now();
        self.options.tls_clock.set(now.wall);
        for event in events.iter() {
            match event.token() {
                LISTENER => self.listener.on_event(),
                ADMIN => self.admin.iter_mut().for_each(|admin| admin.ready = true),
                WAKER => self.more_letters = true,
                Token(token) => {
                    let index = token - FIRST;
                    match self.conns.at(index).map(|conn| &mut conn.wire) {
                        Some(Wire::Http1(http)) => http.on_event(event),
                        Some(Wire::Http2(http)) => http.on_event(event),
                        Some(Wire::None) | None => {}
                    }
                    self.queue(index);
                }
            }
        }
        self.take_letters();
        self.accept(now);
        while let Some(index) = self.deadlines.pop_due(now.mono) {
            self.conns.at(index).into_iter().for_each(|conn| conn.alarm.rang());
            self.queue(index);
        }
        for index in std::mem::take(&mut self.ready) {
            if let Some(conn) = self.conns.at(index) {
                conn.queued = false;
                self.drive(now, index);
            }
        }
        self.take_results(now);
        self.conns.end_turn();
        Ok(())
    }

    fn take_results(&mut self, now: Now) {
        let list = std::mem::take(&mut *self.results.list());
        for (call, outcome) in list {
            match outcome {
                Outcome::Answer(response) => self.answer(now, call, response),
                Outcome::Abandoned => self.answer(now, call, abandoned()),
                Outcome::Opened(response, Some(download)) => {
                    let payload = Payload::Pieces(download.len);
                    let answer = Answer { status: response.status, content_type: response.content_type, payload };
                    self.send(now, call, answer, Some(download));
                }
                Outcome::Opened(_, None) => {
                    let response = Response::error(404, "not_found", "this file is not there", "");
                    self.answer(now, call, response);
                }
                Outcome::Piece(piece) => self.piece(now, call, piece),
            }
        }
    }

    fn wait(&self) -> Option<std::time::Duration> {
        let admin = self.admin.as_ref().is_some_and(|admin| admin.ready);
        if !self.ready.is_empty() || self.more_letters || admin || self.listener.is_ready() {
            return Some(std::time::Duration::ZERO);
        }
        let next = [self.deadlines.next(), self.listener.next_deadline()].into_iter().flatten().min()?;
        Some(self.options.clock.real(next.since(self.options.clock.now().mono)))
    }

    fn queue(&mut self, index: usize) {
        if let Some(conn) = self.conns.at(index)
            && !std::mem::replace(&mut conn.queued, true)
        {
            self.ready.push(index);
        }
    }

    fn take_letters(&mut self) {
        if !self.more_letters {
            return;
        }
        self.letters.open();
        for _ in 0..limits::MAILBOX_LETTERS_MAX {
            let Some(letter) = self.letters.next() else {
                self.more_letters = false;
                return;
            };
            match letter {
                ApiMail::Tls(tls) => self.options.tls = tls,
                ApiMail::Stop => self.stop = true,
                // Only the wake-up matters: results are taken below in every turn.
                ApiMail::Results => {}
            }
        }
    }

    fn accept(&mut self, now: Now) {
        for _ in 0..self.listener.share(now.mono) {
            let (socket, address) = match self.listener.accept(now.mono) {
                Accepted::Nobody => break,
                Accepted::Refused => continue,
                Accepted::Peer(socket, address) => (socket, address),
            };
            let peer = address.ip();
            let Some(index) = self.vacancy() else { continue };
            if !self.peers.admit(peer, now.mono) {
                continue;
            }
            let made = H2Server::new(socket, self.options.tls.clone(), self.h2_limits.clone(), now.mono);
            let registered = made.and_then(|mut http| {
                http.register(self.poll.registry(), Token(index + FIRST))?;
                Ok(http)
            });
            match registered {
                Ok(mut http) => {
                    // Who it is matters to each request, not to the connection.
                    http.trust();
                    self.insert(Wire::Http2(Box::new(http)), Origin::Https, Some(peer));
                }
                Err(_) => self.peers.release(peer),
            }
        }
        for _ in 0..ADMINS_PER_TURN {
            let Some(admin) = self.admin.as_mut().filter(|admin| admin.ready) else { return };
            let owner = admin.owner;
            match admin.socket.accept() {
                Ok((socket, _)) => self.admit_admin(now, socket, owner),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Also when descriptors are short: the peer stays in the queue, and the next edge brings it back.
                Err(_) => admin.ready = false,
            }
        }
    }

    fn vacancy(&self) -> Option<usize> {
        self.conns.next_index().filter(|_| self.conns.len() < self.options.connections_max)
    }

    fn admit_admin(&mut self, now: Now, mut socket: UnixStream, owner: u32) {
        let uid = match getsockopt(&socket, PeerCredentials) {
            Ok(peer) => peer.uid(),
            Err(_) => return,
        };
        let refusal = if !is_admin(uid, owner) {
            let hint = "run the command as root or as the owner of the server root";
            Some(Response::error(403, "not_admin", &format!("uid {uid} may not use this socket"), hint))
        } else {
            None
        };
        // One more than the network may use, so that a crowd there does not lock the operator out.
        let index = self.conns.next_index().filter(|_| self.conns.len() < 2 * self.options.connections_max);
        let (None, Some(index)) = (&refusal, index) else {
            let answer = Answer::memory(refusal.unwrap_or_else(abandoned));
            let mut bytes = answer_head(answer.status, answer.content_type, answer.payload.len(), false);
            if let Payload::Bytes(body) = &answer.payload {
                bytes.extend_from_slice(body);
            }
            // A few hundred bytes always fit into the buffer of a fresh socket.
            let _ = socket.write_all(&bytes);
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut socket, Token(index + FIRST), interest).is_ok() {
            self.insert(Wire::Http1(Http1::new(Stream::Unix(socket), now.mono)), Origin::Admin { uid }, None);
        }
    }

    fn insert(&mut self, wire: Wire, origin: Origin, peer: Option<IpAddr>) {
        let conn =
            Conn { wire, origin, peer, alarm: Alarm::default(), queued: false, files: Vec::new(), bare: Vec::new() };
        let id = self.conns.insert(conn);
        // Driven once without an edge: bytes may be there already, and its deadline must be armed.
        if let Some(index) = self.conns.find(id) {
            self.queue(index);
        }
    }

    fn drive(&mut self, now: Now, index: usize) {
        let mut happened = Vec::new();
        let driven = self.drive_wire(now, index, &mut happened);
        let Some(id) = self.conns.id(index) else { return };
        for event in happened {
            self.on_happened(now, index, id, event);
        }
        let Some(conn) = self.conns.at(index) else { return };
        match driven {
            Err(_) => self.close(index),
            Ok(Driven::WantsTurn) => self.queue(index),
            Ok(Driven::Idle) => {
                let at = match &conn.wire {
                    Wire::Http1(http) => http.next_deadline(),
                    Wire::Http2(http) => http.next_deadline(),
                    Wire::None => now.mono,
                };
                self.deadlines.arm(index, at, &mut conn.alarm);
            }
        }
    }

    fn drive_wire(&mut self, now: Now, index: usize, out: &mut Vec<Happened>) -> Result<Driven, NetError> {
        let handler = &self.handler;
        let Some(conn) = self.conns.at(index) else { return Ok(Driven::Idle) };
        let origin = conn.origin;
        let body_max = |method: &Method, path: &str| handler.body_bytes_max(method.as_str(), path, origin);
        if let Wire::Http2(http) = &mut conn.wire {
            let mut events = Vec::new();
            let driven = http.drive(now.mono, &mut events)?;
            let connected = events.iter().any(|event| matches!(event, ServerEvent::Connected { .. }));
            if !(connected && http.is_http1()) {
                out.extend(events.into_iter().map(Happened::Http2));
                return Ok(driven);
            }
            if let Wire::Http2(http) = std::mem::replace(&mut conn.wire, Wire::None) {
                conn.wire = Wire::Http1(Http1::new(Stream::Tls(http.into_stream()), now.mono));
            }
        }
        let Wire::Http1(http) = &mut conn.wire else { return Err(NetError::Closed) };
        let mut events = Vec::new();
        let driven = http.drive(now.mono, &body_max, &mut events);
        out.extend(events.into_iter().map(Happened::Http1));
        driven
    }

    fn on_happened(&mut self, now: Now, index: usize, id: u64, event: Happened) {
        let Some(conn) = self.conns.at(index) else { return };
        let origin = conn.origin;
        match event {
            Happened::Http1(Http1Event::Request { sequence, head, body }) => {
                self.request(Call { conn: id, stream: sequence }, head.into_request(body, origin));
            }
            Happened::Http2(ServerEvent::Request { stream, head, body }) => {
                let call = Call { conn: id, stream };
                let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or("").to_owned());
                let method = head.method.as_str().to_owned();
                if head.method == Method::HEAD {
                    // Every request is answered exactly once, even if its stream is gone by then.
                    conn.bare.push(stream);
                }
                if body.len() > self.handler.body_bytes_max(&method, &path, origin) {
                    let response = Response::error(413, "bad_request", "the body is larger than allowed here", "");
                    return self.answer(now, call, response);
                }
                let host = head.uri.authority().map_or("", |authority| authority.as_str()).to_owned();
                self.request(call, Request { method, path, query, host, body, origin });
            }
            Happened::Http1(Http1Event::WantsPiece) => self.read_piece(now, Call { conn: id, stream: 0 }),
            Happened::Http2(ServerEvent::StreamReady { stream }) => self.read_piece(now, Call { conn: id, stream }),
            Happened::Http2(ServerEvent::Cancelled { stream }) => conn.files.retain(|(other, _)| *other != stream),
            Happened::Http2(ServerEvent::Connected { .. }) => {}
        }
    }

    fn request(&mut self, call: Call, request: Request) {
        let slot = Slot { call, results: self.results.clone(), done: false };
        let respond: Respond = Box::new(move |response| slot.fill(response));
        self.handler.handle(request, respond);
    }

    fn answer(&mut self, now: Now, call: Call, response: Response) {
        match Answer::try_new(response) {
            Ok(answer) => self.send(now, call, answer, None),
            Err((response, path)) => {
                let results = self.results.clone();
                let deliver = move |download| results.add(call, Outcome::Opened(response, download));
                if !self.downloads.open(path, deliver) {
                    self.send(now, call, Answer::memory(abandoned()), None);
                }
            }
        }
    }

    /// Starts an answer whose length is known.
    fn send(&mut self, now: Now, call: Call, answer: Answer, download: Option<Download>) {
        let Some(index) = self.conns.find(call.conn) else { return };
        let Some(conn) = self.conns.at(index) else { return };
        match &mut conn.wire {
            Wire::Http1(http) => {
                if let Some(download) = download {
                    conn.files = vec![(0, download)];
                }
                http.respond(now.mono, call.stream, answer);
            }
            Wire::Http2(http) => {
                let mut head = http::Response::new(());
                *head.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let headers = head.headers_mut();
                headers.insert(http::header::CONTENT_LENGTH, answer.payload.len().into());
                headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(answer.content_type));
                let bare = conn.bare.iter().position(|stream| *stream == call.stream);
                let payload = match bare.map(|at| conn.bare.swap_remove(at)) {
                    Some(_) => Payload::Bytes(Bytes::new()),
                    None => answer.payload,
                };
                match payload {
                    Payload::Bytes(body) => http.respond(now.mono, call.stream, head, body, None),
                    Payload::Pieces(_) => {
                        conn.files.extend(download.map(|download| (call.stream, download)));
                        http.start(now.mono, call.stream, head, false);
                    }
                }
            }
            Wire::None => {}
        }
        self.queue(index);
    }

    /// Has the next piece of a download read, or ends it.
    fn read_piece(&mut self, now: Now, call: Call) {
        let Some(index) = self.conns.find(call.conn) else { return };
        let Some(conn) = self.conns.at(index) else { return };
        let Some(at) = conn.files.iter().position(|(stream, _)| *stream == call.stream) else { return };
        let download = &mut conn.files[at].1;
        if download.at < download.len {
            let results = self.results.clone();
            let deliver = move |piece| results.add(call, Outcome::Piece(piece));
            if !self.downloads.read(download, deliver) {
                self.close(index);
            }
            return;
        }
        conn.files.swap_remove(at);
        match &mut conn.wire {
            Wire::Http1(http) => http.piece(now.mono, Bytes::new()),
            Wire::Http2(http) => http.finish(call.stream, None),
            Wire::None => {}
        }
        self.queue(index);
    }

    fn piece(&mut self, now: Now, call: Call, piece: Option<Bytes>) {
        let Some(index) = self.conns.find(call.conn) else { return };
        // Less than was promised: the only honest end is a broken connection.
        let Some(piece) = piece else { return self.close(index) };
        match self.conns.at(index).map(|conn| &mut conn.wire) {
            Some(Wire::Http1(http)) => http.piece(now.mono, piece),
            Some(Wire::Http2(http)) => {
                http.data(now.mono, call.stream, piece);
                http.want_ready(call.stream);
            }
            Some(Wire::None) | None => {}
        }
        self.queue(index);
    }

    fn close(&mut self, index: usize) {
        let Some((_, mut conn)) = self.conns.remove(index) else { return };
        self.deadlines.disarm(index, &mut conn.alarm);
        match &mut conn.wire {
            Wire::Http1(http) => http.close(self.poll.registry()),
            Wire::Http2(http) => http.close(self.poll.registry()),
            Wire::None => {}
        }
        if let Some(peer) = conn.peer {
            self.peers.release(peer);
        }
    }
}

fn is_admin(uid: u32, owner: u32) -> bool {
    uid == 0 || uid == owner
}

fn abandoned() -> Response {
    Response::error(503, "unavailable", "the server could not answer", "look at the server's log and try again")
}

impl Results {
    fn add(&self, call: Call, outcome: Outcome) {
        self.list().push((call, outcome));
        // When the queue is full, a wake-up is under way anyway.
        let _ = self.mailbox.try_send(ApiMail::Results);
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<(Call, Outcome)>> {
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Slot {
    fn fill(mut self, response: Response) {
        self.done = true;
        self.results.add(self.call, Outcome::Answer(response));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.done {
            self.results.add(self.call, Outcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests;
