//! One HTTP/1.1 connection: a request at a time, over TLS or a Unix socket.
//!
//! What a client sends ahead (pipelining) waits in its socket until the answer before it is written. Knows no route.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use common::limits;
use common::net::{Driven, NetError, TlsStream};
use common::time::Mono;
use http::{Method, StatusCode};
use mio::Registry;
use mio::event::Event;
use mio::net::UnixStream;

use super::download::{Answer, Payload};
use crate::api::chunked::Chunked;
use crate::api::http::{BadRequest, Head, answer_head, parse_head};

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// The bytes below.
pub(super) enum Stream {
    Tls(TlsStream),
    Unix(UnixStream),
}

/// The connection.
pub(super) struct Http1 {
    stream: Stream,
    input: BytesMut,
    output: VecDeque<Bytes>,
    phase: Phase,
    /// Counts requests, so that a late answer cannot reach a later request.
    sequence: u32,
    deadline: Mono,
    keep_alive: bool,
    /// The present request wants no body in its answer.
    head_only: bool,
    /// A piece was asked for and has not come.
    asked: bool,
}

enum Phase {
    /// Between requests, or within a head.
    Head,
    Body(Box<Head>),
    /// A body whose length is not known before its end.
    Chunks(Box<(Head, Chunked)>),
    /// A handler has the request.
    Busy,
    /// The answer is being written; `more`: a file's pieces follow.
    Writing {
        more: bool,
    },
    /// The answer is out; the peer closes.
    Lingering,
}

/// What happened.
pub(super) enum Http1Event {
    /// A whole request.
    Request { sequence: u32, head: Box<Head>, body: Bytes },
    /// The next piece of the file can be taken.
    WantsPiece,
}

impl Http1 {
    pub(super) fn new(stream: Stream, now: Mono) -> Http1 {
        Http1 {
            stream,
            input: BytesMut::new(),
            output: VecDeque::new(),
            phase: Phase::Head,
            sequence: 0,
            deadline: now + limits::IDLE_TIMEOUT_MS,
            keep_alive: true,
            head_only: false,
            asked: false,
        }
    }

    pub(super) fn on_event(&mut self, event: &Event) {
        if let Stream::Tls(stream) = &mut self.stream {
            stream.on_event(event);
        }
    }

    pub(super) fn next_deadline(&self) -> Mono {
        self.deadline
    }

    /// Reads and writes as far as possible. `body_max` says how large the body of a request may be.
    pub(super) fn drive(
        &mut self,
        now: Mono,
        body_max: &dyn Fn(&Method, &str) -> usize,
        out: &mut Vec<Http1Event>,
    ) -> Result<Driven, NetError> {
        self.stream.begin_turn();
        loop {
            self.write_out(now)?;
            match self.phase {
                Phase::Writing { more: true } if self.output.is_empty() && !self.asked => {
                    self.asked = true;
                    out.push(Http1Event::WantsPiece);
                    break;
                }
                Phase::Busy | Phase::Writing { .. } => break,
                Phase::Head | Phase::Body(_) | Phase::Chunks(_) | Phase::Lingering => {}
            }
            match self.advance(now, body_max, out) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(refused) => {
                    self.keep_alive = false;
                    self.begin_answer(now, Answer::refusal(refused));
                    continue;
                }
            }
            let mut chunk = [0; READ_BYTES];
            match self.stream.read(&mut chunk)? {
                None => break,
                Some(0) => return Err(NetError::Closed),
                Some(_) if matches!(self.phase, Phase::Lingering) => {}
                Some(n) => {
                    if self.input.is_empty() && matches!(self.phase, Phase::Head) {
                        self.deadline = now + limits::CALL_TIMEOUT_MS;
                    }
                    self.input.extend_from_slice(&chunk[..n]);
                }
            }
        }
        if now >= self.deadline {
            return self.expire(now);
        }
        Ok(self.stream.driven())
    }

    /// The answer to the request with that number.
    pub(super) fn respond(&mut self, now: Mono, sequence: u32, answer: Answer) {
        if sequence == self.sequence && matches!(self.phase, Phase::Busy) {
            self.begin_answer(now, answer);
        }
    }

    /// A piece of the file; empty at its end.
    pub(super) fn piece(&mut self, now: Mono, piece: Bytes) {
        if matches!(self.phase, Phase::Writing { more: true }) {
            self.deadline = now + limits::CALL_TIMEOUT_MS;
            self.asked = false;
            if piece.is_empty() {
                self.phase = Phase::Writing { more: false };
            } else {
                self.output.push_back(piece);
            }
        }
    }

    pub(super) fn close(&mut self, registry: &Registry) {
        match &mut self.stream {
            Stream::Tls(stream) => stream.close(registry),
            Stream::Unix(socket) => {
                let _ = registry.deregister(socket);
            }
        }
    }

    /// Takes a head or a body from the input. True: something moved.
    fn advance(
        &mut self,
        now: Mono,
        body_max: &dyn Fn(&Method, &str) -> usize,
        out: &mut Vec<Http1Event>,
    ) -> Result<bool, BadRequest> {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Head => {
                self.head_only = false;
                let Some((head, taken)) = parse_head(&self.input)? else { return Ok(false) };
                self.input.advance(taken);
                self.head_only = head.method == Method::HEAD;
                let max = body_max(&head.method, &head.path);
                if head.body_bytes > max {
                    let why = "the body is larger than allowed here";
                    return Err(BadRequest { status: StatusCode::PAYLOAD_TOO_LARGE, why });
                }
                if head.expects_continue && self.input.is_empty() && (head.body_bytes > 0 || head.chunked) {
                    self.output.push_back(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
                }
                self.phase = match head.chunked {
                    true => Phase::Chunks(Box::new((head, Chunked::new(max)))),
                    false => Phase::Body(Box::new(head)),
                };
                Ok(true)
            }
            Phase::Body(head) if self.input.len() >= head.body_bytes => {
                let body = self.input.split_to(head.body_bytes).freeze();
                self.hand_over(now, head, body, out);
                Ok(true)
            }
            Phase::Chunks(mut parts) => match parts.1.take(&mut self.input)? {
                Some(body) => {
                    self.hand_over(now, Box::new(parts.0), body, out);
                    Ok(true)
                }
                None => {
                    self.phase = Phase::Chunks(parts);
                    Ok(false)
                }
            },
            other => {
                self.phase = other;
                Ok(false)
            }
        }
    }

    fn hand_over(&mut self, now: Mono, head: Box<Head>, body: Bytes, out: &mut Vec<Http1Event>) {
        if self.input.is_empty() {
            // Gives the memory back between requests.
            self.input = BytesMut::new();
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.keep_alive = head.keep_alive;
        self.phase = Phase::Busy;
        self.deadline = now + limits::API_ANSWER_MS;
        out.push(Http1Event::Request { sequence: self.sequence, head, body });
    }

    fn begin_answer(&mut self, now: Mono, answer: Answer) {
        self.deadline = now + limits::CALL_TIMEOUT_MS;
        let head = answer_head(answer.status, answer.content_type, answer.payload.len(), self.keep_alive);
        self.output.push_back(head.into());
        let mut more = false;
        self.asked = false;
        if !self.head_only {
            match answer.payload {
                Payload::Bytes(body) => self.output.push_back(body),
                Payload::Pieces(_) => more = true,
            }
        }
        self.phase = Phase::Writing { more };
    }

    fn write_out(&mut self, now: Mono) -> Result<(), NetError> {
        while let Some(front) = self.output.front_mut() {
            if front.is_empty() {
                self.output.pop_front();
                continue;
            }
            let Some(n) = self.stream.write(front)? else { break };
            front.advance(n);
            self.deadline = self.deadline.max(now + limits::CALL_TIMEOUT_MS);
        }
        let flushed = self.stream.flush()?;
        if flushed && self.output.is_empty() && matches!(self.phase, Phase::Writing { more: false }) {
            if self.keep_alive {
                (self.phase, self.deadline) = (Phase::Head, now + limits::IDLE_TIMEOUT_MS);
            } else {
                (self.phase, self.deadline) = (Phase::Lingering, now + limits::LINGER_MS);
                self.stream.finish();
            }
        }
        Ok(())
    }

    fn expire(&mut self, now: Mono) -> Result<Driven, NetError> {
        let (status, why) = match self.phase {
            Phase::Head if self.input.is_empty() => return Err(NetError::Closed),
            Phase::Head | Phase::Body(_) | Phase::Chunks(_) => {
                (StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time")
            }
            Phase::Busy => (StatusCode::SERVICE_UNAVAILABLE, "the server was too busy to answer; try again later"),
            Phase::Writing { .. } => return Err(NetError::Timeout("writing: the peer does not read")),
            Phase::Lingering => return Err(NetError::Closed),
        };
        self.keep_alive = false;
        self.begin_answer(now, Answer::refusal(BadRequest { status, why }));
        self.write_out(now)?;
        Ok(self.stream.driven())
    }
}

impl Stream {
    fn begin_turn(&mut self) {
        if let Stream::Tls(stream) = self {
            stream.begin_turn();
        }
    }

    fn driven(&self) -> Driven {
        match self {
            Stream::Tls(stream) => stream.driven(),
            Stream::Unix(_) => Driven::Idle,
        }
    }

    fn read(&mut self, out: &mut [u8]) -> Result<Option<usize>, NetError> {
        match self {
            Stream::Tls(stream) => stream.read(out),
            Stream::Unix(socket) => blocking(|| socket.read(out)),
        }
    }

    fn write(&mut self, data: &[u8]) -> Result<Option<usize>, NetError> {
        match self {
            Stream::Tls(stream) => stream.write(data),
            Stream::Unix(socket) => blocking(|| socket.write(data)),
        }
    }

    fn flush(&mut self) -> Result<bool, NetError> {
        match self {
            Stream::Tls(stream) => stream.flush(),
            Stream::Unix(_) => Ok(true),
        }
    }

    fn finish(&mut self) {
        match self {
            Stream::Tls(stream) => stream.finish(),
            Stream::Unix(socket) => drop(socket.shutdown(std::net::Shutdown::Write)),
        }
    }
}

fn blocking(mut attempt: impl FnMut() -> io::Result<usize>) -> Result<Option<usize>, NetError> {
    loop {
        match attempt() {
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
