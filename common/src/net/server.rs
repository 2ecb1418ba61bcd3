//! One HTTP/2 connection on the server's side: handshake, requests in, answers out, limits.
//!
//! Knows no method and no policy: whole requests go out as events, answers come in as calls with the stream's number. An
//! answer to a stream that is gone is dropped silently, because the peer may give a call up at any moment.

mod stream;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};

use super::io::{Driven, SharedIo, TlsIo, TlsStream};
use super::{NetError, Status, grpc};
use crate::limits;
use crate::proto::Code;
use crate::time::Mono;
use stream::{Body, Phase, SLOW_ANSWER, SLOW_REQUEST, Stream, refuse};

/// An answer up to this size is handed over at once; a larger one follows the peer's window, so that its progress can be
/// watched.
const AT_ONCE_BYTES_MAX: usize = 16 << 10;
/// A message up to this size is copied behind its prefix, which saves a frame.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Limits of one connection. All times in milliseconds.
#[derive(Clone, Debug)]
pub struct H2Limits {
    /// From accept to the end of the TLS handshake.
    pub handshake_ms: u64,
    /// From there until the caller must have said [`H2Server::trust`].
    pub untrusted_ms: u64,
    /// From the head of a request to its end.
    pub receive_ms: u64,
    /// From the end of a request to the start of its answer.
    pub answer_ms: u64,
    /// Without progress while an answer is written.
    pub stall_ms: u64,
    /// Without any call in flight, until the connection is told to go away.
    pub idle_ms: u64,
    /// Silence until a ping.
    pub keepalive_ms: u64,
    /// Bytes of the header list of one request.
    pub header_bytes_max: u32,
    /// Bytes of a request body before [`H2Server::trust`],
    pub untrusted_body_bytes_max: usize,
    /// and after it; `body_limit` may lower it for a request.
    pub body_bytes_max: usize,
    /// Limit for one request by its head, none for the connection's.
    pub body_limit: Option<fn(&Parts) -> usize>,
    /// Concurrent streams.
    pub streams_max: u32,
    /// HTTP/1.1 is spoken, too: a client that does not ask for `h2` is not held to it.
    pub http1: bool,
    /// Refusals by the connection itself are gRPC statuses; else HTTP ones.
    pub grpc: bool,
}

impl Default for H2Limits {
    fn default() -> H2Limits {
        H2Limits {
            handshake_ms: limits::HANDSHAKE_TIMEOUT_MS,
            untrusted_ms: limits::AUTHENTICATE_TIMEOUT_MS,
            receive_ms: limits::CALL_TIMEOUT_MS,
            answer_ms: 2 * limits::CALL_TIMEOUT_MS,
            stall_ms: limits::CALL_TIMEOUT_MS,
            idle_ms: limits::IDLE_TIMEOUT_MS,
            keepalive_ms: limits::KEEPALIVE_MS,
            header_bytes_max: limits::HEADER_BYTES_MAX,
            untrusted_body_bytes_max: limits::UNAUTHENTICATED_MESSAGE_BYTES_MAX,
            body_bytes_max: limits::REPORT_BYTES_MAX,
            body_limit: None,
            streams_max: limits::STREAMS_PER_CONNECTION_MAX,
            http1: false,
            grpc: true,
        }
    }
}

/// What happened on a connection.
#[derive(Debug)]
pub enum ServerEvent {
    /// The TLS handshake is done.
    Connected {
        /// RFC 9266 channel binding.
        exporter: [u8; 32],
    },
    /// A whole request within its limits.
    Request {
        /// Its stream.
        stream: u32,
        /// Method, path and headers.
        head: Box<Parts>,
        /// The body as it came, gRPC framing included.
        body: Bytes,
    },
    /// A started answer can take more data.
    StreamReady {
        /// Its stream.
        stream: u32,
    },
    /// The peer gave up a request that was handed out, or it took too long.
    Cancelled {
        /// Its stream.
        stream: u32,
    },
}

/// The connection.
pub struct H2Server {
    io: SharedIo,
    state: State,
    limits: Arc<H2Limits>,
    streams: Vec<Stream>,
    trusted: bool,
    /// Of the present state: handshake, then trust, then the end of a drain.
    deadline: Option<(Mono, &'static str)>,
    /// When the peer last gave a sign of life, and how much it had sent by then.
    alive_at: Mono,
    alive_bytes: u64,
    ping: Option<PingPong>,
    pinged_at: Option<Mono>,
    /// Since when something waits to be written without progress.
    stalled_since: Option<Mono>,
    /// Since when there is no call, once HTTP/2 is open.
    idle_since: Option<Mono>,
    /// Calls given up, less calls finished.
    resets: u32,
}

#[allow(clippy::large_enum_variant, reason = "a handshake lasts one round trip; a box for it would be churn")]
enum State {
    Tls,
    Preface(Handshake<SharedIo, Bytes>),
    Open(Box<Connection<SharedIo, Bytes>>),
    /// Everything is said; the socket is closed when the peer has closed it, so that what was written last is not
    /// destroyed by a reset (RFC 9112 section 9.6).
    Lingering,
    /// After an error.
    Dead,
}

impl H2Server {
    /// An accepted socket, not yet registered.
    pub fn new(
        socket: TcpStream,
        config: Arc<rustls::ServerConfig>,
        limits: Arc<H2Limits>,
        now: Mono,
    ) -> Result<H2Server, NetError> {
        // Answers are one write each; waiting to join them with a later one only adds delay.
        let _ = socket.set_nodelay(true);
        let tls = rustls::ServerConnection::new(config)?;
        Ok(H2Server {
            io: SharedIo(Rc::new(RefCell::new(TlsIo::new(socket, tls.into())))),
            state: State::Tls,
            deadline: Some((now + limits.handshake_ms, "TLS handshake")),
            limits,
            streams: Vec::new(),
            trusted: false,
            alive_at: now,
            alive_bytes: 0,
            ping: None,
            pinged_at: None,
            stalled_since: None,
            idle_since: None,
            resets: 0,
        })
    }

    /// Registers the socket for both directions, edge-triggered.
    pub fn register(&mut self, registry: &Registry, token: Token) -> Result<(), NetError> {
        Ok(self.io.0.borrow_mut().register(registry, token)?)
    }

    /// The socket changed. Call [`H2Server::drive`] next.
    pub fn on_event(&mut self, event: &Event) {
        self.io.0.borrow_mut().on_event(event);
    }

    /// The peer has proved who it is: larger bodies, and no hurry any more.
    pub fn trust(&mut self) {
        self.trusted = true;
        if self.deadline.is_some_and(|(_, what)| what == UNTRUSTED) {
            self.deadline = None;
        }
    }

    /// Said by [`H2Server::trust`].
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The TLS handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.io.0.borrow().tls().handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// TLS agreed on something else than HTTP/2: the caller takes the connection over by [`H2Server::into_stream`].
    pub fn is_http1(&self) -> bool {
        self.limits.http1 && self.io.0.borrow().tls().alpn_protocol() != Some(b"h2")
    }

    /// The connection below, after the handshake.
    pub fn into_stream(self) -> TlsStream {
        TlsStream::new(self.io)
    }

    /// Reads, writes and checks deadlines as far as possible now. An error ends the connection: call
    /// [`H2Server::close`] and drop it.
    pub fn drive(&mut self, now: Mono, out: &mut Vec<ServerEvent>) -> Result<Driven, NetError> {
        self.io.0.borrow_mut().begin_turn();
        self.io.0.borrow_mut().hold();
        let cx = &mut Context::from_waker(Waker::noop());
        let before = out.len();
        let result = self.pump(cx, now, out).and_then(|()| self.check_deadlines(cx, now, out));
        let mut io = self.io.0.borrow_mut();
        io.let_go(result.is_ok() && out.len() > before)?;
        result.map(|()| io.driven())
    }

    /// When [`H2Server::drive`] must be called even if nothing happens.
    pub fn next_deadline(&self) -> Mono {
        let streams = self.streams.iter().filter(|stream| stream.is_timed()).map(|stream| stream.deadline).min();
        let stall = self.stalled_since.map(|since| since + self.limits.stall_ms);
        let life = match self.pinged_at {
            Some(at) => at + limits::KEEPALIVE_TIMEOUT_MS,
            None => self.alive_at + self.limits.keepalive_ms,
        };
        let idle = self.idle_since.map(|since| since + self.limits.idle_ms);
        [self.deadline.map(|(at, _)| at), streams, stall, idle].into_iter().flatten().fold(life, Mono::min)
    }

    /// A whole answer.
    pub fn respond(&mut self, now: Mono, stream: u32, head: Response<()>, body: Bytes, trailers: Option<HeaderMap>) {
        if body.len() <= AT_ONCE_BYTES_MAX {
            let Some(mut respond) = self.take_waiting(stream) else { return };
            let bare = body.is_empty() && trailers.is_none();
            let Ok(mut send) = respond.send_response(head, bare) else { return };
            if !body.is_empty() {
                let _ = send.send_data(body, trailers.is_none());
            }
            if let Some(trailers) = trailers {
                let _ = send.send_trailers(trailers);
            }
            return;
        }
        self.start(now, stream, head, true);
        self.data(now, stream, body);
        self.finish(stream, trailers);
    }

    /// The head of an answer whose data follows. With `quiet` no [`ServerEvent::StreamReady`] asks for data.
    pub fn start(&mut self, now: Mono, stream: u32, head: Response<()>, quiet: bool) {
        let Some(mut respond) = self.take_waiting(stream) else { return };
        let Ok(send) = respond.send_response(head, false) else { return };
        self.streams.push(Stream {
            id: stream,
            deadline: now + self.limits.stall_ms,
            phase: Phase::Sending { send, queue: VecDeque::new(), end: None, told: quiet },
        });
    }

    /// More data of a started answer. [`ServerEvent::StreamReady`] follows when it is on its way.
    pub fn data(&mut self, now: Mono, stream: u32, data: Bytes) {
        let stall_ms = self.limits.stall_ms;
        if let Some(entry) = self.streams.iter_mut().find(|entry| entry.id == stream)
            && let Phase::Sending { queue, end: None, .. } = &mut entry.phase
        {
            if queue.is_empty() {
                entry.deadline = now + stall_ms;
            }
            queue.push_back(data);
        }
    }

    /// Asks for [`ServerEvent::StreamReady`] once what was given has gone.
    pub fn want_ready(&mut self, stream: u32) {
        if let Some(entry) = self.streams.iter_mut().find(|entry| entry.id == stream)
            && let Phase::Sending { told, .. } = &mut entry.phase
        {
            *told = false;
        }
    }

    /// The end of a started answer.
    pub fn finish(&mut self, stream: u32, trailers: Option<HeaderMap>) {
        if let Some(entry) = self.streams.iter_mut().find(|entry| entry.id == stream)
            && let Phase::Sending { end: end @ None, .. } = &mut entry.phase
        {
            *end = Some(trailers);
        }
    }

    /// Breaks a request off.
    pub fn reset(&mut self, stream: u32, reason: Reason) {
        let Some(at) = self.streams.iter().position(|entry| entry.id == stream) else { return };
        match self.streams.swap_remove(at).phase {
            Phase::Receiving { mut respond, .. } | Phase::Waiting { mut respond } => respond.send_reset(reason),
            Phase::Sending { mut send, .. } => send.send_reset(reason),
            Phase::Done => {}
        }
    }

    /// gRPC: answers a unary call.
    pub fn reply(&mut self, now: Mono, stream: u32, message: Bytes) {
        let trailers = grpc::trailers(&Status::new(Code::Ok, String::new()));
        if message.len() <= COPIED_BYTES_MAX {
            return self.respond(now, stream, grpc::head(), grpc::frame(&message), Some(trailers));
        }
        self.start(now, stream, grpc::head(), true);
        self.item(now, stream, message);
        self.finish(stream, Some(trailers));
    }

    /// gRPC: ends a call with a status, whether its answer has started or not.
    pub fn fail(&mut self, now: Mono, stream: u32, status: &Status) {
        if self.streams.iter().any(|entry| entry.id == stream && matches!(entry.phase, Phase::Sending { .. })) {
            return self.finish(stream, Some(grpc::trailers(status)));
        }
        let mut head = grpc::head();
        head.headers_mut().extend(grpc::trailers(status));
        self.respond(now, stream, head, Bytes::new(), None);
    }

    /// gRPC: one item of a started stream.
    pub fn item(&mut self, now: Mono, stream: u32, message: Bytes) {
        if message.len() <= COPIED_BYTES_MAX {
            return self.data(now, stream, grpc::frame(&message));
        }
        self.data(now, stream, Bytes::copy_from_slice(&grpc::prefix(message.len())));
        self.data(now, stream, message);
    }

    /// Tells the peer to go away (GOAWAY): calls in flight may finish for a short while, open-ended answers end with
    /// `UNAVAILABLE`. False: the handshake is not done, close it at once.
    pub fn goaway(&mut self, now: Mono) -> bool {
        let State::Open(connection) = &mut self.state else { return false };
        connection.graceful_shutdown();
        self.deadline = Some((now + limits::GOAWAY_GRACE_MS, "goaway"));
        let status = Status::new(Code::Unavailable, "the server closes this connection; connect again");
        let open: Vec<u32> = self.streams.iter().filter(|stream| stream.is_open_ended()).map(|s| s.id).collect();
        open.into_iter().for_each(|stream| self.finish(stream, self.limits.grpc.then(|| grpc::trailers(&status))));
        true
    }

    /// Says goodbye as far as the socket takes it, and takes the socket out of the poll.
    pub fn close(&mut self, registry: &Registry) {
        self.state = State::Dead;
        let mut io = self.io.0.borrow_mut();
        io.close();
        io.deregister(registry);
    }

    fn take_waiting(&mut self, stream: u32) -> Option<SendResponse<Bytes>> {
        let at = self.streams.iter().position(|entry| entry.id == stream)?;
        match self.streams.swap_remove(at) {
            Stream { phase: Phase::Waiting { respond }, .. } => {
                self.resets = self.resets.saturating_sub(1);
                Some(respond)
            }
            other => {
                self.streams.push(other);
                None
            }
        }
    }

    fn pump(&mut self, cx: &mut Context<'_>, now: Mono, out: &mut Vec<ServerEvent>) -> Result<(), NetError> {
        if matches!(self.state, State::Tls) {
            if !self.io.0.borrow_mut().handshake()? {
                return Ok(());
            }
            out.push(ServerEvent::Connected { exporter: self.io.0.borrow().exporter()? });
            if self.is_http1() {
                // The caller takes the connection over; the session ticket has waited for HTTP/2.
                self.io.0.borrow_mut().flush()?;
                return Ok(());
            }
            self.start_http2(now);
        }
        if let State::Preface(handshake) = &mut self.state {
            match std::pin::Pin::new(handshake).poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(result) => self.state = State::Open(Box::new(result?)),
            }
        }
        if matches!(self.state, State::Lingering) {
            return self.linger();
        }
        loop {
            let State::Open(connection) = &mut self.state else { return Err(NetError::Closed) };
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(now, request, respond),
                Poll::Ready(Some(Err(error))) => return Err(error.into()),
                Poll::Ready(None) => {
                    self.state = State::Lingering;
                    self.deadline = Some((now + limits::LINGER_MS, "goodbye"));
                    self.idle_since = None;
                    return self.linger();
                }
                Poll::Pending => {
                    if !self.step_all(cx, now, out) {
                        break;
                    }
                }
            }
        }
        if self.resets > limits::RESETS_PER_CONNECTION_MAX {
            if let State::Open(connection) = &mut self.state {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let _ = connection.poll_accept(cx);
            }
            return Err(NetError::Http2("too many calls given up by the peer (reset flood)".into()));
        }
        Ok(())
    }

    fn linger(&mut self) -> Result<(), NetError> {
        let mut sink = [0; 512];
        loop {
            match self.io.0.borrow_mut().read_plain(&mut sink)? {
                Some(0) => return Err(NetError::Closed),
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }

    fn start_http2(&mut self, now: Mono) {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(self.limits.streams_max)
            .max_header_list_size(self.limits.header_bytes_max)
            .max_send_buffer_size(limits::SEND_BUFFER_BYTES_MAX)
            .max_concurrent_reset_streams(limits::STREAMS_PER_CONNECTION_MAX as usize)
            .max_pending_accept_reset_streams(limits::STREAMS_PER_CONNECTION_MAX as usize)
            .max_local_error_reset_streams(Some(limits::RESETS_PER_CONNECTION_MAX as usize));
        self.state = State::Preface(builder.handshake(self.io.clone()));
        self.deadline = (!self.trusted).then(|| (now + self.limits.untrusted_ms, UNTRUSTED));
    }

    fn accept(&mut self, now: Mono, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (head, recv) = request.into_parts();
        let mut bytes_max =
            if self.trusted { self.limits.body_bytes_max } else { self.limits.untrusted_body_bytes_max };
        if let Some(limit) = self.limits.body_limit {
            bytes_max = bytes_max.min(limit(&head));
        }
        self.streams.push(Stream {
            id: respond.stream_id().as_u32(),
            deadline: now + self.limits.receive_ms,
            phase: Phase::Receiving { head: Box::new(head), recv, body: Body::Whole(Bytes::new()), bytes_max, respond },
        });
    }

    /// Moves every stream on. True: h2 has to be polled again.
    fn step_all(&mut self, cx: &mut Context<'_>, now: Mono, out: &mut Vec<ServerEvent>) -> bool {
        let mut again = false;
        let mut at = 0;
        while at < self.streams.len() {
            let stream = &mut self.streams[at];
            again |= match stream.phase {
                Phase::Receiving { .. } => stream.receive(cx, now, &self.limits, out, &mut self.resets),
                Phase::Waiting { .. } => stream.watch(cx, out, &mut self.resets),
                Phase::Sending { .. } => stream.send(cx, now, &self.limits, out, &mut self.resets),
                Phase::Done => false,
            };
            if matches!(stream.phase, Phase::Done) {
                self.streams.swap_remove(at);
            } else {
                at += 1;
            }
        }
        again
    }

    fn check_deadlines(&mut self, cx: &mut Context<'_>, now: Mono, out: &mut Vec<ServerEvent>) -> Result<(), NetError> {
        let (received, blocked) = {
            let io = self.io.0.borrow();
            (io.received(), io.wants_write() && !io.is_writable())
        };
        let before = self.alive_bytes;
        if received != before {
            (self.alive_at, self.alive_bytes, self.pinged_at) = (now, received, None);
        }
        if let Some((at, what)) = self.deadline
            && now >= at
        {
            return Err(NetError::Timeout(what));
        }
        let State::Open(connection) = &mut self.state else { return Ok(()) };
        // Answers that we no longer hold but that h2 could not yet write: the peer does not read, or gives no window.
        let unsent = blocked || (self.streams.is_empty() && connection.has_streams());
        self.stalled_since = unsent.then(|| self.stalled_since.unwrap_or(now));
        let idle = self.streams.is_empty() && !unsent && self.deadline.is_none();
        self.idle_since = idle.then(|| if received == before { self.idle_since.unwrap_or(now) } else { now });
        if self.idle_since.is_some_and(|since| now >= since + self.limits.idle_ms) {
            self.idle_since = None;
            self.goaway(now);
            return self.pump(cx, now, out);
        }
        if self.stalled_since.is_some_and(|since| now >= since + self.limits.stall_ms) {
            return Err(NetError::Timeout("writing: the peer does not read"));
        }
        match self.pinged_at {
            Some(at) if now >= at + limits::KEEPALIVE_TIMEOUT_MS => return Err(NetError::Timeout("keepalive")),
            None if now >= self.alive_at + self.limits.keepalive_ms => {
                self.pinged_at = Some(now);
                if self.ping.is_none() {
                    self.ping = connection.ping_pong();
                }
                if let Some(ping) = &mut self.ping {
                    // An unread answer to an earlier ping would block this one.
                    let _ = ping.poll_pong(cx);
                    let _ = ping.send_ping(Ping::opaque());
                }
                return self.pump(cx, now, out);
            }
            _ => {}
        }
        if self.streams.iter().any(|stream| stream.is_timed() && now >= stream.deadline) {
            self.expire(now, out);
            return self.pump(cx, now, out);
        }
        Ok(())
    }

    fn expire(&mut self, now: Mono, out: &mut Vec<ServerEvent>) {
        let due: Vec<u32> =
            self.streams.iter().filter(|stream| stream.is_timed() && now >= stream.deadline).map(|s| s.id).collect();
        for id in due {
            let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { continue };
            match std::mem::replace(&mut stream.phase, Phase::Done) {
                Phase::Receiving { respond, .. } => {
                    refuse(respond, &self.limits, Code::DeadlineExceeded, StatusCode::REQUEST_TIMEOUT, SLOW_REQUEST);
                }
                Phase::Waiting { respond } => {
                    refuse(respond, &self.limits, Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, SLOW_ANSWER);
                    out.push(ServerEvent::Cancelled { stream: id });
                }
                Phase::Sending { mut send, .. } => {
                    send.send_reset(Reason::CANCEL);
                    out.push(ServerEvent::Cancelled { stream: id });
                }
                Phase::Done => {}
            }
        }
        self.streams.retain(|stream| !matches!(stream.phase, Phase::Done));
    }
}

const UNTRUSTED: &str = "authentication";
