//! One HTTP/2 connection on the client's side: connect, handshake, gRPC calls with deadlines, many in flight.
//!
//! Used by the agent's link, by tests and by the load generator. It judges the server's certificate against the pins but
//! says so in an event instead of refusing, because an agent may talk `Hello` to an unknown server (docs/PROTOCOL.md).

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use rustls::pki_types::{CertificateDer, ServerName};

use super::io::{Driven, SharedIo, TlsIo};
use super::{Frames, NetError, Pins, Status, Untrusted, grpc};
use crate::limits;
use crate::proto::Code;
use crate::time::{Mono, Wall};

/// How to connect.
#[derive(Clone)]
pub struct ClientOptions {
    /// From [`super::client_config`].
    pub tls: Arc<rustls::ClientConfig>,
    /// Pinned CA.
    pub pins: Arc<Pins>,
    /// The time at which `notAfter` is judged (docs/THREATS.md, "Channel").
    pub trust_time: Wall,
    /// Bytes of one message that the server may send.
    pub message_bytes_max: usize,
}

/// Who answered, as far as TLS can tell.
#[derive(Clone, Debug)]
pub struct Identity {
    /// RFC 9266 channel binding.
    pub exporter: [u8; 32],
    /// Whether the chain leads to a pinned CA. If not, say `Hello` and nothing else.
    pub trust: Result<(), Untrusted>,
    /// The chain, leaf first, in DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// The handshake resumed an earlier session.
    pub resumed: bool,
}

/// What happened on the connection.
#[derive(Debug)]
pub enum ClientEvent {
    /// The handshake is done.
    Connected(Box<Identity>),
    /// A unary call is over.
    Reply {
        /// As returned by [`Client::call`].
        call: u64,
        /// The message or what went wrong.
        result: Result<Bytes, CallError>,
    },
    /// One message of a streaming call.
    Item {
        /// As returned by [`Client::stream`].
        call: u64,
        /// The message.
        message: Bytes,
    },
    /// A streaming call is over.
    Ended {
        /// As returned by [`Client::stream`].
        call: u64,
        /// Well, or what went wrong.
        result: Result<(), CallError>,
    },
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server refused it.
    Status(Status),
    /// No answer in time.
    Timeout,
    /// The connection or the stream broke; whether the server acted is unknown.
    Lost(String),
    /// More calls at once than [`limits::CALLS_PER_CONNECTION_MAX`].
    TooMany,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Status(status) => write!(f, "the server refused: {status}"),
            CallError::Timeout => f.write_str("no answer in time"),
            CallError::Lost(why) => write!(f, "the connection broke during the call: {why}"),
            CallError::TooMany => f.write_str("too many calls at once on one connection"),
        }
    }
}

impl std::error::Error for CallError {}

/// The connection.
pub struct Client {
    io: SharedIo,
    state: State,
    options: ClientOptions,
    /// For `:authority`.
    authority: String,
    /// For TCP, TLS and HTTP/2 together.
    connect_deadline: Option<Mono>,
    calls: Vec<Call>,
    next_call: u64,
    /// See [`Client::pause_streams`].
    paused: bool,
}

type HandshakeOutput = Result<(SendRequest<Bytes>, Connection<SharedIo, Bytes>), h2::Error>;

enum State {
    Tcp,
    Tls,
    Http2(Pin<Box<dyn Future<Output = HandshakeOutput>>>),
    Open { send: SendRequest<Bytes>, connection: Box<Connection<SharedIo, Bytes>> },
    Dead,
}

struct Call {
    key: u64,
    deadline: Option<Mono>,
    streaming: bool,
    phase: Phase,
}

enum Phase {
    Queued { path: &'static str, body: Bytes },
    Head { response: ResponseFuture, send: SendStream<Bytes> },
    Body { recv: RecvStream, send: SendStream<Bytes>, status: StatusCode, frames: Frames, message: Option<Bytes> },
    Done,
}

impl Client {
    /// Starts to connect. `host` is sent as SNI where it is a name, and as `:authority`.
    pub fn connect(
        address: SocketAddr,
        host: &str,
        options: ClientOptions,
        now: Mono,
        deadline_ms: u64,
    ) -> Result<Client, NetError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| NetError::BadMaterial(format!("{host:?} is neither a host name nor an address")))?;
        let socket = TcpStream::connect(address)?;
        let _ = socket.set_nodelay(true);
        let tls = rustls::ClientConnection::new(options.tls.clone(), name)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Ok(Client {
            io: SharedIo(Rc::new(RefCell::new(TlsIo::new(socket, tls.into())))),
            state: State::Tcp,
            options,
            authority: format!("{host}:{}", address.port()),
            connect_deadline: Some(now + deadline_ms),
            calls: Vec::new(),
            next_call: 0,
            paused: false,
        })
    }

    /// Registers the socket for both directions, edge-triggered.
    pub fn register(&mut self, registry: &Registry, token: Token) -> Result<(), NetError> {
        Ok(self.io.0.borrow_mut().register(registry, token)?)
    }

    /// The socket changed. Call [`Client::drive`] next.
    pub fn on_event(&mut self, event: &Event) {
        self.io.0.borrow_mut().on_event(event);
    }

    /// A unary call. It is sent by the next [`Client::drive`], or as soon as the connection is open and a stream is free.
    pub fn call(&mut self, path: &'static str, message: &[u8], deadline: Mono) -> Result<u64, CallError> {
        self.add(path, message, Some(deadline), false)
    }

    /// A call that is answered by a stream of messages. Without a deadline it lasts as long as the connection.
    pub fn stream(&mut self, path: &'static str, message: &[u8], deadline: Option<Mono>) -> Result<u64, CallError> {
        self.add(path, message, deadline, true)
    }

    /// Whether streams are left unread, for a reader that cannot keep up: their windows fill, and the server waits. Calls
    /// go on.
    pub fn pause_streams(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Gives a call up. No event follows.
    pub fn cancel(&mut self, call: u64) {
        if let Some(at) = self.calls.iter().position(|entry| entry.key == call) {
            self.calls.remove(at).reset();
        }
    }

    /// Calls that have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Reads, writes and checks deadlines as far as possible now. An error ends the connection: call [`Client::close`]
    /// and drop it. Every call in flight has had its last event by then, so look at `out` first.
    pub fn drive(&mut self, now: Mono, out: &mut Vec<ClientEvent>) -> Result<Driven, NetError> {
        self.io.0.borrow_mut().hold();
        let before = out.len();
        let result = self.advance(now, out);
        let events = out.len() > before;
        let mut io = self.io.0.borrow_mut();
        let result = match io.let_go(result.is_ok() && events) {
            Ok(()) => result.map(|()| io.driven()),
            Err(error) => result.and(Err(error.into())),
        };
        drop(io);
        if let Err(error) = &result {
            for call in self.calls.drain(..) {
                call.lose(error, out);
            }
        }
        result
    }

    /// When [`Client::drive`] must be called even if nothing happens.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.calls.iter().filter_map(|call| call.deadline).chain(self.connect_deadline).min()
    }

    /// Says goodbye as far as the socket takes it, and takes the socket out of the poll.
    pub fn close(&mut self, registry: &Registry) {
        self.calls.clear();
        self.state = State::Dead;
        let mut io = self.io.0.borrow_mut();
        io.close();
        io.deregister(registry);
    }

    fn advance(&mut self, now: Mono, out: &mut Vec<ClientEvent>) -> Result<(), NetError> {
        self.io.0.borrow_mut().begin_turn();
        let cx = &mut Context::from_waker(Waker::noop());
        if !self.establish(cx, out)? {
            if self.connect_deadline.is_some_and(|deadline| now >= deadline) {
                return Err(NetError::Timeout("connecting"));
            }
            return Ok(());
        }
        loop {
            let State::Open { send, connection } = &mut self.state else { return Err(NetError::Closed) };
            let polled = Pin::new(&mut **connection).poll(cx);
            let mut again = false;
            // Also after the end: h2 may hold whole answers that came before it.
            for call in &mut self.calls {
                let waits = self.paused && call.streaming && matches!(call.phase, Phase::Body { .. });
                again |= !waits && call.step(cx, send, &self.authority, self.options.message_bytes_max, out);
                if call.deadline.is_some_and(|deadline| now >= deadline) && !matches!(call.phase, Phase::Done) {
                    call.reset();
                    call.finish(Err(CallError::Timeout), out);
                    again = true;
                }
            }
            self.calls.retain(|call| !matches!(call.phase, Phase::Done));
            if let Poll::Ready(result) = polled {
                return Err(result.map_or_else(NetError::from, |()| NetError::Closed));
            }
            if !again {
                return Ok(());
            }
        }
    }

    fn add(
        &mut self,
        path: &'static str,
        message: &[u8],
        deadline: Option<Mono>,
        streaming: bool,
    ) -> Result<u64, CallError> {
        if self.calls.len() >= limits::CALLS_PER_CONNECTION_MAX {
            return Err(CallError::TooMany);
        }
        self.next_call += 1;
        let phase = Phase::Queued { path, body: grpc::frame(message) };
        self.calls.push(Call { key: self.next_call, deadline, streaming, phase });
        Ok(self.next_call)
    }

    /// Goes on until HTTP/2 is open. True: it is.
    fn establish(&mut self, cx: &mut Context<'_>, out: &mut Vec<ClientEvent>) -> Result<bool, NetError> {
        if matches!(self.state, State::Open { .. }) {
            return Ok(true);
        }
        if matches!(self.state, State::Tcp) {
            let io = self.io.0.borrow();
            if let Some(error) = io.take_error() {
                return Err(error.into());
            }
            if !io.is_writable() {
                return Ok(false);
            }
            self.state = State::Tls;
        }
        if matches!(self.state, State::Tls) {
            if !self.io.0.borrow_mut().handshake()? {
                return Ok(false);
            }
            out.push(ClientEvent::Connected(Box::new(self.identity()?)));
            let mut builder = h2::client::Builder::new();
            builder
                .enable_push(false)
                .initial_window_size(WINDOW_BYTES)
                .initial_connection_window_size(2 * WINDOW_BYTES)
                .max_header_list_size(limits::HEADER_BYTES_MAX)
                .initial_max_send_streams(limits::STREAMS_PER_CONNECTION_MAX as usize);
            self.state = State::Http2(Box::pin(handshake(builder, self.io.clone())));
        }
        if let State::Http2(future) = &mut self.state {
            let Poll::Ready(result) = future.as_mut().poll(cx) else { return Ok(false) };
            let (send, connection) = result?;
            self.state = State::Open { send, connection: Box::new(connection) };
            self.connect_deadline = None;
        }
        Ok(matches!(self.state, State::Open { .. }))
    }

    fn identity(&self) -> Result<Identity, NetError> {
        let io = self.io.0.borrow();
        let chain: Vec<_> =
            io.tls().peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
        Ok(Identity {
            exporter: io.exporter()?,
            trust: self.options.pins.check(&chain, self.options.trust_time),
            chain,
            resumed: io.tls().handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        })
    }
}

/// Bytes that the server may send ahead on one stream: a bundle of 1 MiB needs a few round trips, not dozens.
const WINDOW_BYTES: u32 = 256 << 10;

async fn handshake(builder: h2::client::Builder, io: SharedIo) -> HandshakeOutput {
    builder.handshake(io).await
}

impl Call {
    /// Moves on. True: h2 has to be polled again.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        sender: &mut SendRequest<Bytes>,
        authority: &str,
        bytes_max: usize,
        out: &mut Vec<ClientEvent>,
    ) -> bool {
        if let Phase::Queued { path, body } = &self.phase {
            match sender.poll_ready(cx) {
                Poll::Pending => return false,
                Poll::Ready(Err(error)) => return self.finish(Err(lost(&error)), out),
                Poll::Ready(Ok(())) => {}
            }
            let sent = request(authority, path)
                .map_err(|error| CallError::Lost(error.to_string()))
                .and_then(|head| sender.send_request(head, false).map_err(|error| lost(&error)))
                .and_then(|(response, mut send)| {
                    send.send_data(body.clone(), true).map_err(|error| lost(&error))?;
                    Ok(Phase::Head { response, send })
                });
            match sent {
                Ok(phase) => self.phase = phase,
                Err(error) => {
                    self.finish(Err(error), out);
                }
            }
            return true;
        }
        if let Phase::Head { response, .. } = &mut self.phase {
            let response = match Pin::new(response).poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(Err(error)) => return self.finish(Err(lost(&error)), out),
                Poll::Ready(Ok(response)) => response,
            };
            let (head, recv) = response.into_parts();
            if recv.is_end_stream() || head.status != StatusCode::OK {
                // Trailers-only, or no gRPC at all.
                return self.finish(Err(ended(Some(&head.headers), head.status)), out);
            }
            if let Phase::Head { send, .. } = std::mem::replace(&mut self.phase, Phase::Done) {
                self.phase = Phase::Body { recv, send, status: head.status, frames: Frames::default(), message: None };
            }
        }
        self.read_body(cx, bytes_max, out)
    }

    fn read_body(&mut self, cx: &mut Context<'_>, bytes_max: usize, out: &mut Vec<ClientEvent>) -> bool {
        let Phase::Body { recv, frames, message, status, .. } = &mut self.phase else { return false };
        let mut again = false;
        loop {
            match recv.poll_data(cx) {
                Poll::Pending => return again,
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(error))) => return self.finish(Err(lost(&error)), out),
                Poll::Ready(Some(Ok(data))) => {
                    let _ = recv.flow_control().release_capacity(data.len());
                    again = true;
                    frames.push(&data);
                }
            }
            loop {
                match frames.pop(bytes_max) {
                    Ok(None) => break,
                    Ok(Some(item)) if self.streaming => out.push(ClientEvent::Item { call: self.key, message: item }),
                    Ok(Some(item)) if message.is_none() => *message = Some(item),
                    Ok(Some(_)) => {
                        let status = Status::new(Code::Internal, "the server sent two messages to a unary call");
                        return self.finish(Err(CallError::Status(status)), out);
                    }
                    Err(status) => return self.finish(Err(CallError::Status(status)), out),
                }
            }
        }
        let trailers = match recv.poll_trailers(cx) {
            Poll::Pending => return again,
            Poll::Ready(Err(error)) => return self.finish(Err(lost(&error)), out),
            Poll::Ready(Ok(trailers)) => trailers,
        };
        let cut = !frames.is_empty();
        let message = message.take();
        let result = match ended(trailers.as_ref(), *status) {
            CallError::Status(status) if status.code == Code::Ok && !cut => Ok(message),
            CallError::Status(status) if status.code == Code::Ok => {
                Err(CallError::Lost("the answer ends within a message".to_owned()))
            }
            other => Err(other),
        };
        self.finish(result, out)
    }

    /// Emits the last event. True, for the convenience of `return`.
    fn finish(&mut self, result: Result<Option<Bytes>, CallError>, out: &mut Vec<ClientEvent>) -> bool {
        self.phase = Phase::Done;
        out.push(match (self.streaming, result) {
            (true, result) => ClientEvent::Ended { call: self.key, result: result.map(drop) },
            (false, Ok(Some(message))) => ClientEvent::Reply { call: self.key, result: Ok(message) },
            (false, Ok(None)) => {
                let status = Status::new(Code::Internal, "the server ended the call well but sent no message");
                ClientEvent::Reply { call: self.key, result: Err(CallError::Status(status)) }
            }
            (false, Err(error)) => ClientEvent::Reply { call: self.key, result: Err(error) },
        });
        true
    }

    fn lose(mut self, error: &NetError, out: &mut Vec<ClientEvent>) {
        self.finish(Err(CallError::Lost(error.to_string())), out);
    }

    fn reset(&mut self) {
        if let Phase::Head { send, .. } | Phase::Body { send, .. } = &mut self.phase {
            send.send_reset(Reason::CANCEL);
        }
    }
}

fn request(authority: &str, path: &str) -> Result<Request<()>, http::Error> {
    let uri = http::Uri::builder().scheme("https").authority(authority).path_and_query(path).build()?;
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, const { HeaderValue::from_static("application/grpc") });
    headers.insert(http::header::TE, const { HeaderValue::from_static("trailers") });
    Ok(request)
}

fn ended(headers: Option<&HeaderMap>, http: StatusCode) -> CallError {
    match headers {
        Some(headers) => CallError::Status(Status::from_headers(headers, http)),
        None => CallError::Lost("the answer has no trailers".to_owned()),
    }
}

fn lost(error: &h2::Error) -> CallError {
    CallError::Lost(error.to_string())
}
