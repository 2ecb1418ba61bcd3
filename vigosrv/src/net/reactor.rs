//! The loop thread of port 1530: sockets on one side, the core on the other.
//!
//! One turn: wait, read the clocks once, accept, take letters of other threads, drive the connections that are ready or due,
//! hand what they bring to the core, obey the effects in order, write out. It never blocks but in `poll`.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::deadline::{Alarm, Deadlines};
use common::ids::Hash32;
use common::limits;
use common::log::Level;
use common::net::{Driven, H2Limits, H2Server, NetError, ServerEvent, Status, TlsClock, check_request, head, unframe};
use common::proto::Code;
use common::sys::Clock;
use common::time::{Mono, Now};
use mio::net::TcpStream;
use mio::{Events, Poll, Token, Waker};

use super::accept::Accepted;
use super::mailbox::Letters;
use super::slab::Slab;
use super::{Fatal, Listener, Mailbox, PeerLimits, PeerRule};
use crate::app::{AdminError, AdminReply, CallId, ConnId, Effect, Event, Method};
use crate::store::Write;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST: usize = 2;

/// Readiness events taken in one turn.
const EVENTS_PER_TURN: usize = 1024;
/// Letters taken in one turn.
const LETTERS_PER_TURN: usize = 1024;

/// The core, as the loop sees it.
pub trait Handler {
    /// One thing happened.
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>);
    /// When [`Event::Tick`] is due at the latest.
    fn next_deadline(&self) -> Option<Mono>;
}

impl Handler for crate::app::Server {
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.handle(now, event, out);
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.next_deadline()
    }
}

/// The threads behind the loop. Nothing here may block; answers come back through the [`Mailbox`].
pub trait Outside {
    /// For the writer thread.
    fn write(&mut self, ticket: u64, write: Write);
    /// For the job pool.
    fn read_blob(&mut self, ticket: u64, hash: Hash32, offset: u64, len: usize);
    /// For the operator who asked.
    fn admin_reply(&mut self, ticket: u64, result: Result<AdminReply, AdminError>);
    /// For the log.
    fn log(&mut self, level: Level, line: String);
    /// All effects of a turn have been handed over.
    fn end_turn(&mut self) {}
}

/// A letter to the loop.
#[derive(Debug)]
pub enum Mail {
    /// For the core. [`Event::Drain`] also stops accepting and ends the loop when all connections are gone.
    Event(Event),
    /// New connections get this certificate from now on.
    Tls(Arc<rustls::ServerConfig>),
    /// End at once, without goodbyes.
    Stop,
}

/// How the loop behaves.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// TLS of new connections.
    pub tls: Arc<rustls::ServerConfig>,
    /// The clock that `tls` reads.
    pub tls_clock: Arc<TlsClock>,
    /// Limits of each connection.
    pub limits: Arc<H2Limits>,
    /// Limits of each address.
    pub rule: PeerRule,
    /// Connections in all; leave room below the descriptor limit for files and the database.
    pub connections_max: usize,
    /// How long a drain may take.
    pub drain_ms: u64,
    /// Time.
    pub clock: Clock,
}

/// Counters for `/metrics`, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Open now.
    pub open: u64,
    /// Accepted.
    pub accepted: u64,
    /// Refused: too many in all, or no descriptor left.
    pub refused_full: u64,
    /// Refused by the rule for one address.
    pub refused_peer: u64,
    /// Handshakes done,
    pub handshakes: u64,
    /// of these resumed,
    pub resumed: u64,
    /// and failed.
    pub handshakes_failed: u64,
    /// Whole requests.
    pub requests: u64,
    /// Requests that were no proper gRPC.
    pub bad_requests: u64,
}

/// The loop.
pub struct Reactor<H, O> {
    poll: Poll,
    listener: Option<Listener>,
    letters: Letters<Mail>,
    handler: H,
    outside: O,
    options: NetOptions,
    peers: PeerLimits,
    conns: Slab<Conn>,
    deadlines: Deadlines<usize>,
    /// Connections to be driven in this turn,
    ready: VecDeque<usize>,
    /// after effects have changed them,
    dirty: Vec<usize>,
    /// and in the next turn.
    again: Vec<usize>,
    more_letters: bool,
    draining_until: Option<Mono>,
    stop: bool,
    counts: NetCounts,
    published: Arc<Mutex<NetCounts>>,
    /// Events for the core that wait for the effects of an earlier one.
    events: VecDeque<Event>,
    feeding: bool,
    events_buffer: Vec<ServerEvent>,
    effects_buffer: Vec<Effect>,
}

struct Conn {
    http: H2Server,
    peer: IpAddr,
    alarm: Alarm,
    /// In `ready` or `again`.
    queued: bool,
    dirty: bool,
    /// The core knows it.
    connected: bool,
}

impl<H: Handler, O: Outside> Reactor<H, O> {
    /// Takes the listener over. The mailbox is for other threads; `outside` gets it before the loop starts.
    pub fn new(
        mut listener: Listener,
        handler: H,
        options: NetOptions,
        outside: impl FnOnce(Mailbox<Mail>) -> O,
    ) -> Result<(Reactor<H, O>, Mailbox<Mail>), Fatal> {
        let fatal = |error: io::Error| Fatal::Poll(error.kind());
        let poll = Poll::new().map_err(fatal)?;
        listener.register(poll.registry(), LISTENER).map_err(fatal)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(fatal)?;
        let (mailbox, letters) = Mailbox::new(limits::MAILBOX_LETTERS_MAX, Arc::new(waker));
        let reactor = Reactor {
            poll,
            listener: Some(listener),
            letters,
            handler,
            outside: outside(mailbox.clone()),
            peers: PeerLimits::new(options.rule),
            options,
            conns: Slab::new(),
            deadlines: Deadlines::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            again: Vec::new(),
            more_letters: false,
            draining_until: None,
            stop: false,
            counts: NetCounts::default(),
            published: Arc::default(),
            events: VecDeque::new(),
            feeding: false,
            events_buffer: Vec::new(),
            effects_buffer: Vec::new(),
        };
        Ok((reactor, mailbox))
    }

    /// Counters, updated once a turn.
    pub fn counts(&self) -> Arc<Mutex<NetCounts>> {
        self.published.clone()
    }

    /// Effects that the core asked for before the loop ran.
    pub fn obey_first(&mut self, effects: Vec<Effect>) {
        let now = self.options.clock.now();
        effects.into_iter().for_each(|effect| self.obey(now, effect));
        self.outside.end_turn();
    }

    /// Runs until told to stop or drained. Gives the core and the outside back.
    pub fn run(mut self) -> Result<(H, O), Fatal> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_over() {
            self.turn(&mut events)?;
        }
        let now = self.options.clock.now();
        for index in self.conns.indices() {
            self.close(now, index, &NetError::Closed);
        }
        self.outside.end_turn();
        Ok((self.handler, self.outside))
    }

    fn is_over(&self) -> bool {
        self.stop || (self.draining_until.is_some() && self.conns.len() == 0)
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), Fatal> {
        let wait = self.wait();
        match self.poll.poll(events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(error) => return Err(Fatal::Poll(error.kind())),
        }
        let now = self.options.clock.now();
        self.options.tls_clock.set(now.wall);
        for index in std::mem::take(&mut self.again) {
            self.ready.push_back(index);
        }
        for event in events.iter() {
            match event.token() {
                LISTENER => self.listener.iter_mut().for_each(Listener::on_event),
                WAKER => self.more_letters = true,
                Token(token) => {
                    if let Some(conn) = self.conns.at(token - FIRST) {
                        conn.http.on_event(event);
                        if !std::mem::replace(&mut conn.queued, true) {
                            self.ready.push_back(token - FIRST);
                        }
                    }
                }
            }
        }
        self.take_letters(now);
        self.accept(now.mono);
        while let Some(index) = self.deadlines.pop_due(now.mono) {
            let Some(conn) = self.conns.at(index) else { continue };
            conn.alarm.rang();
            if !std::mem::replace(&mut conn.queued, true) {
                self.ready.push_back(index);
            }
        }
        while let Some(index) = self.ready.pop_front() {
            if let Some(conn) = self.conns.at(index) {
                conn.queued = false;
                self.drive(now, index);
            }
        }
        if self.handler.next_deadline().is_some_and(|at| at <= now.mono) {
            self.feed(now, Event::Tick);
        }
        // Writes the answers out, and what HTTP/2 had to say beside them. What a connection brings on this occasion is answered
        // in the next turn.
        for index in std::mem::take(&mut self.dirty) {
            if let Some(conn) = self.conns.at(index) {
                conn.dirty = false;
                self.drive(now, index);
            }
        }
        for index in std::mem::take(&mut self.dirty) {
            if let Some(conn) = self.conns.at(index) {
                conn.dirty = false;
                if !std::mem::replace(&mut conn.queued, true) {
                    self.again.push(index);
                }
            }
        }
        if self.draining_until.is_some_and(|until| now.mono >= until) {
            self.stop = true;
        }
        self.conns.end_turn();
        self.outside.end_turn();
        self.counts.open = self.conns.len() as u64;
        *self.published.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = self.counts;
        Ok(())
    }

    fn wait(&self) -> Option<std::time::Duration> {
        let listening = self.listener.as_ref();
        if !self.again.is_empty() || self.more_letters || listening.is_some_and(Listener::is_ready) {
            return Some(std::time::Duration::ZERO);
        }
        let deadlines = [
            self.deadlines.next(),
            self.handler.next_deadline(),
            listening.and_then(Listener::next_deadline),
            self.draining_until,
        ];
        let next = deadlines.into_iter().flatten().min()?;
        let now = self.options.clock.now().mono;
        Some(self.options.clock.real(next.since(now)))
    }

    fn take_letters(&mut self, now: Now) {
        if !self.more_letters {
            return;
        }
        self.letters.open();
        for _ in 0..LETTERS_PER_TURN {
            let Some(letter) = self.letters.next() else {
                self.more_letters = false;
                return;
            };
            match letter {
                Mail::Event(event) => {
                    if matches!(event, Event::Drain) {
                        self.begin_drain(now.mono);
                    }
                    self.feed(now, event);
                }
                Mail::Tls(tls) => self.options.tls = tls,
                Mail::Stop => self.stop = true,
            }
        }
    }

    fn begin_drain(&mut self, now: Mono) {
        // Closed at once, so that a successor can bind the address while we say goodbye.
        if let Some(mut listener) = self.listener.take() {
            listener.deregister(self.poll.registry());
        }
        self.draining_until.get_or_insert(now + self.options.drain_ms);
        for index in self.conns.indices() {
            // A half-done handshake has nothing to finish.
            if self.conns.at(index).is_some_and(|conn| !conn.connected) {
                self.drop_conn(index);
            }
        }
    }

    fn accept(&mut self, now: Mono) {
        let share = self.listener.as_mut().map_or(0, |listener| listener.share(now));
        for _ in 0..share {
            let Some(listener) = &mut self.listener else { return };
            match listener.accept(now) {
                Accepted::Nobody => return,
                Accepted::Refused => self.counts.refused_full += 1,
                Accepted::Peer(socket, address) => self.admit(now, socket, address),
            }
        }
    }

    /// Takes a newcomer in, or closes it by dropping it.
    fn admit(&mut self, now: Mono, socket: TcpStream, address: SocketAddr) {
        let index = self.conns.next_index().filter(|_| self.conns.len() < self.options.connections_max);
        let Some(index) = index else {
            self.counts.refused_full += 1;
            return;
        };
        let peer = address.ip();
        if !self.peers.admit(peer, now) {
            self.counts.refused_peer += 1;
            return;
        }
        let made = H2Server::new(socket, self.options.tls.clone(), self.options.limits.clone(), now);
        let registered = made.and_then(|mut http| {
            http.register(self.poll.registry(), Token(index + FIRST))?;
            Ok(http)
        });
        match registered {
            Ok(http) => {
                self.counts.accepted += 1;
                let mut alarm = Alarm::default();
                self.deadlines.arm(index, http.next_deadline(), &mut alarm);
                self.conns.insert(Conn { http, peer, alarm, queued: false, dirty: false, connected: false });
            }
            Err(_) => {
                self.counts.refused_full += 1;
                self.peers.release(peer);
            }
        }
    }

    /// Lets one connection do what it can, and hands what it brings to the core.
    fn drive(&mut self, now: Now, index: usize) {
        let Some(conn) = self.conns.at(index) else { return };
        let mut events = std::mem::take(&mut self.events_buffer);
        let driven = conn.http.drive(now.mono, &mut events);
        self.deadlines.arm(index, conn.http.next_deadline(), &mut conn.alarm);
        if let Some(id) = self.conns.id(index) {
            for event in events.drain(..) {
                self.on_event(now, index, ConnId(id), event);
            }
        }
        self.events_buffer = events;
        match driven {
            Ok(Driven::Idle) => {}
            // At the end of this turn with the answers, or else in the next.
            Ok(Driven::WantsTurn) => self.touch(index),
            Err(error) => self.close(now, index, &error),
        }
    }

    fn on_event(&mut self, now: Now, index: usize, id: ConnId, event: ServerEvent) {
        match event {
            ServerEvent::Connected { exporter } => {
                let Some(conn) = self.conns.at(index) else { return };
                conn.connected = true;
                let (peer, resumed) = (conn.peer, conn.http.is_resumed());
                self.counts.handshakes += 1;
                self.counts.resumed += u64::from(resumed);
                self.feed(now, Event::Connected { conn: id, peer, exporter });
            }
            ServerEvent::Request { stream, head, body } => self.on_request(now, index, id, stream, &head, body),
            ServerEvent::StreamReady { stream } => {
                self.feed(now, Event::StreamReady { call: CallId { conn: id, stream } });
            }
            ServerEvent::Cancelled { stream } => {
                self.feed(now, Event::Cancelled { call: CallId { conn: id, stream } });
            }
        }
    }

    fn on_request(
        &mut self,
        now: Now,
        index: usize,
        id: ConnId,
        stream: u32,
        head: &http::request::Parts,
        body: Bytes,
    ) {
        let Some(conn) = self.conns.at(index) else { return };
        let checked = match check_request(head) {
            Err(http) => {
                let mut response = http::Response::new(());
                *response.status_mut() = http;
                conn.http.respond(now.mono, stream, response, Bytes::new(), None);
                None
            }
            Ok(()) => {
                let method = Method::from_path(head.uri.path()).ok_or_else(|| {
                    Status::new(Code::Unimplemented, format!("this server has no method {}", head.uri.path()))
                });
                let limits = &self.options.limits;
                let bytes_max =
                    if conn.http.is_trusted() { limits.body_bytes_max } else { limits.untrusted_body_bytes_max };
                match method.and_then(|method| Ok((method, unframe(body, bytes_max)?))) {
                    Ok(found) => Some(found),
                    Err(status) => {
                        conn.http.fail(now.mono, stream, &status);
                        None
                    }
                }
            }
        };
        let Some((method, body)) = checked else {
            self.counts.bad_requests += 1;
            return self.touch(index);
        };
        self.counts.requests += 1;
        if matches!(method, Method::FetchBlob | Method::Watch) {
            // Before the core sees it, so that it may send the first item at once.
            conn.http.start(now.mono, stream, self::head(), false);
            self.touch(index);
        }
        self.feed(now, Event::Request { call: CallId { conn: id, stream }, method, body });
    }

    /// Gives the core an event and does what it wants. An event that comes up meanwhile (a connection that an effect
    /// closed) waits until all effects are obeyed, so that their order is kept.
    fn feed(&mut self, now: Now, event: Event) {
        self.events.push_back(event);
        if self.feeding {
            return;
        }
        self.feeding = true;
        let mut effects = std::mem::take(&mut self.effects_buffer);
        while let Some(event) = self.events.pop_front() {
            self.handler.handle(now, event, &mut effects);
            effects.drain(..).for_each(|effect| self.obey(now, effect));
        }
        self.effects_buffer = effects;
        self.feeding = false;
    }

    fn obey(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Reply { call, body } => self.with_call(call, |http, stream| http.reply(now.mono, stream, body)),
            Effect::Fail { call, code, message } => {
                self.with_call(call, |http, stream| http.fail(now.mono, stream, &Status::new(code, message)));
            }
            Effect::Item { call, body } => self.with_call(call, |http, stream| {
                http.item(now.mono, stream, body);
                http.want_ready(stream);
            }),
            Effect::End { call } => {
                let status = Status::new(Code::Ok, String::new());
                self.with_call(call, |http, stream| http.fail(now.mono, stream, &status));
            }
            Effect::Trust { conn } => {
                let Some(index) = self.conns.find(conn.0) else { return };
                if let Some(conn) = self.conns.at(index)
                    && !conn.http.is_trusted()
                {
                    conn.http.trust();
                    self.peers.release(conn.peer);
                }
            }
            Effect::Close { conn, graceful } => {
                let Some(index) = self.conns.find(conn.0) else { return };
                let leaves = graceful && self.conns.at(index).is_some_and(|conn| conn.http.goaway(now.mono));
                if leaves {
                    self.touch(index);
                } else {
                    self.close(now, index, &NetError::Closed);
                }
            }
            Effect::Write { ticket, write } => self.outside.write(ticket, write),
            Effect::ReadBlob { ticket, hash, offset, len } => self.outside.read_blob(ticket, hash, offset, len),
            Effect::AdminReply { ticket, result } => self.outside.admin_reply(ticket, result),
            Effect::Log { level, line } => self.outside.log(level, line),
        }
    }

    fn with_call(&mut self, call: CallId, then: impl FnOnce(&mut H2Server, u32)) {
        let Some(index) = self.conns.find(call.conn.0) else { return };
        if let Some(conn) = self.conns.at(index) {
            then(&mut conn.http, call.stream);
            self.touch(index);
        }
    }

    /// The connection has something to write.
    fn touch(&mut self, index: usize) {
        if let Some(conn) = self.conns.at(index)
            && !std::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    /// Ends one connection and tells the core, if it knew.
    fn close(&mut self, now: Now, index: usize, why: &NetError) {
        let Some((id, peer, connected)) = self.drop_conn(index) else { return };
        if connected {
            self.feed(now, Event::Disconnected { conn: ConnId(id) });
        } else {
            self.counts.handshakes_failed += 1;
        }
        if !matches!(why, NetError::Closed | NetError::Io(_)) {
            self.outside.log(Level::Debug, format!("connection of {peer} ended: {why}"));
        }
    }

    fn drop_conn(&mut self, index: usize) -> Option<(u64, IpAddr, bool)> {
        let (id, mut conn) = self.conns.remove(index)?;
        self.deadlines.disarm(index, &mut conn.alarm);
        if !conn.http.is_trusted() {
            self.peers.release(conn.peer);
        }
        conn.http.close(self.poll.registry());
        Some((id, conn.peer, conn.connected))
    }
}

#[cfg(test)]
mod tests;
