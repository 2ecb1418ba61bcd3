//! Many simulated envoys on one thread: sockets, readiness, and the jobs that a measurement gives them.
//!
//! A job counts what was done until its time is over or its work is done; connections stay between jobs, so that two servers
//! can take turns under the same connections.

use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use common::limits;
use common::net::{Client, ClientEvent, ClientOptions, Driven, NetError, Pins, TlsClock, client_config};
use common::sys::Clock;
use common::time::{Mono, Now, Wall};
use mio::{Events, Poll, Token};

use super::envoy::{Depth, Envoy, Step};

/// Connections that are being made at a time.
const CONNECTING_MAX: usize = 48;
/// Addresses of loopback that connections go to in turn, so that the ports of one pair of addresses do not run out.
const ADDRESSES: usize = 16;
/// Longest wait in `poll`, milliseconds.
const WAIT_MS: u64 = 20;
/// A job in which nothing is done for this long has failed, milliseconds.
const STALL_MS: u64 = 60_000;
/// Tickets for which rustls keeps room under each name that it remembers.
const TICKETS_PER_NAME: usize = 8;
/// Time for one connection, milliseconds.
const CONNECT_MS: u64 = 30_000;

/// What a job did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Things done, as the job counts.
    pub done: u64,
    /// Of the connections made, those that resumed an earlier session.
    pub resumed: u64,
    /// Milliseconds from its start to the last thing done.
    pub ms: u64,
    /// Reports that the server put off, because the disk had enough to do.
    pub put_off: u64,
    /// Bytes of one answer to a check-in, with the prefix of gRPC.
    pub answer_bytes: u64,
    /// Things that went wrong,
    pub wrong: u64,
    /// and the first of them.
    pub why: String,
}

/// What the envoys do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Connect, once.
    Connect(Depth),
    /// Check in again and again for so many milliseconds.
    Busy(u64),
    /// Check in so often, each.
    Rounds(u64),
    /// Connect, close and begin anew for so many milliseconds; with `fresh` under a new name, which has no ticket.
    Again {
        /// How far to go on each connection.
        depth: Depth,
        /// Never resume.
        fresh: bool,
        /// For so long.
        ms: u64,
    },
    /// Report so many results each, so many at a time.
    Drain {
        /// In all.
        each: u64,
        /// In one report.
        batch: u64,
    },
}

/// The envoys of one process.
pub struct Engine {
    poll: Poll,
    clock: Clock,
    tls_clock: Arc<TlsClock>,
    options: ClientOptions,
    /// For connections that must not resume: their names would drive the others out.
    forgetful: ClientOptions,
    port: u16,
    envoys: Vec<Envoy>,
    work: Vec<Work>,
    /// To be driven in the next turn without an edge.
    again: Vec<usize>,
    /// Names used for connections that must not resume.
    fresh_names: u64,
    buffer: Vec<ClientEvent>,
    job: Job,
    /// Envoys that have not begun the job yet,
    waiting: VecDeque<usize>,
    /// those that were put off,
    later: BTreeSet<(Mono, usize)>,
    /// and those that are at it, put off or not.
    active: usize,
    started: Mono,
    tally: Tally,
}

/// The part of one envoy in the job.
#[derive(Clone, Copy, Default)]
struct Work {
    active: bool,
    left: u64,
}

impl Engine {
    /// These envoys, for a server at this port of loopback.
    pub fn new(port: u16, envoys: impl Iterator<Item = u32>) -> Result<Engine, NetError> {
        let envoys: Vec<Envoy> = envoys.map(Envoy::new).collect();
        let tls_clock = Arc::new(TlsClock::default());
        let clock = Clock::system();
        let now = clock.now();
        tls_clock.set(now.wall);
        // Every envoy dials a name of its own, and has its own ticket.
        let tls = |names: usize| client_config(&[b"h2"], TICKETS_PER_NAME * names, tls_clock.clone());
        let options = ClientOptions {
            tls: tls(envoys.len())?,
            pins: Arc::new(Pins::default()),
            trust_time: Wall(0),
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
        };
        Ok(Engine {
            poll: Poll::new()?,
            clock,
            forgetful: ClientOptions { tls: tls(1)?, ..options.clone() },
            tls_clock,
            options,
            port,
            work: vec![Work::default(); envoys.len()],
            envoys,
            again: Vec::new(),
            fresh_names: 0,
            buffer: Vec::new(),
            job: Job::Busy(0),
            waiting: VecDeque::new(),
            later: BTreeSet::new(),
            active: 0,
            started: now.mono,
            tally: Tally::default(),
        })
    }

    /// Lets the first `n` envoys do a job to its end.
    pub fn run(&mut self, job: Job, n: usize) -> Result<Tally, NetError> {
        let mut events = Events::with_capacity(1024);
        self.job = job;
        self.started = self.clock.now().mono;
        self.tally = Tally::default();
        self.waiting = (0..n.min(self.envoys.len())).collect();
        let width = if matches!(job, Job::Connect(_)) { CONNECTING_MAX } else { usize::MAX };
        let mut progress = (0, self.started);
        loop {
            let now = self.clock.now();
            while self.active < width
                && let Some(index) = self.waiting.pop_front()
            {
                self.active += 1;
                self.work[index] = Work { active: true, left: self.share() };
                self.begin(index, now);
                self.drive(index, now);
            }
            if self.active == 0 && self.waiting.is_empty() {
                return Ok(std::mem::take(&mut self.tally));
            }
            self.turn(&mut events)?;
            if self.tally.done != progress.0 {
                progress = (self.tally.done, now.mono);
            } else if now.mono.since(progress.1) > STALL_MS {
                return Err(NetError::Timeout("a job of the load generator"));
            }
        }
    }

    /// Hangs up everywhere.
    pub fn close(&mut self) {
        (0..self.envoys.len()).for_each(|index| self.hang_up(index));
    }

    /// How much one envoy has to do.
    fn share(&self) -> u64 {
        match self.job {
            Job::Rounds(n) => n,
            Job::Drain { each, .. } => each,
            Job::Connect(_) | Job::Busy(_) | Job::Again { .. } => 1,
        }
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), NetError> {
        let wait = if self.again.is_empty() { WAIT_MS } else { 0 };
        match self.poll.poll(events, Some(Duration::from_millis(wait))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let now = self.clock.now();
        self.tls_clock.set(now.wall);
        let mut ready = std::mem::take(&mut self.again);
        for event in events.iter() {
            let Token(index) = event.token();
            if let Some(client) = &mut self.envoys[index].client {
                client.on_event(event);
                ready.push(index);
            }
        }
        while let Some((at, index)) = self.later.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.later.remove(&(at, index));
            if let Err(error) = self.envoys[index].report_again(now.mono) {
                self.wrong(index, error.to_string());
            }
            ready.push(index);
        }
        ready.into_iter().for_each(|index| self.drive(index, now));
        Ok(())
    }

    fn drive(&mut self, index: usize, now: Now) {
        loop {
            let Some(client) = &mut self.envoys[index].client else { return };
            let mut events = std::mem::take(&mut self.buffer);
            let driven = client.drive(now.mono, &mut events);
            let quiet = events.is_empty();
            for event in events.drain(..) {
                let step = self.envoys[index].on_event(event, now.mono);
                self.on_step(index, step, now);
            }
            self.buffer = events;
            match driven {
                Err(error) => {
                    self.hang_up(index);
                    return self.on_step(index, Step::Wrong(error.to_string()), now);
                }
                Ok(Driven::WantsTurn) if quiet => return self.again.push(index),
                Ok(Driven::Idle) if quiet => return,
                Ok(_) => {}
            }
        }
    }

    /// The envoy does its next piece of the job.
    fn begin(&mut self, index: usize, now: Now) {
        let envoy = &mut self.envoys[index];
        let done = match self.job {
            Job::Connect(depth) => self.dial(index, depth, false, now),
            Job::Again { depth, fresh, .. } => self.dial(index, depth, fresh, now),
            Job::Busy(_) | Job::Rounds(_) => envoy.check_in(now.mono).map_err(|error| error.to_string()),
            Job::Drain { batch, .. } => {
                envoy.report(batch.min(self.work[index].left), now.mono).map_err(|error| error.to_string())
            }
        };
        if let Err(why) = done {
            self.wrong(index, why);
        }
    }

    fn dial(&mut self, index: usize, depth: Depth, fresh: bool, now: Now) -> Result<(), String> {
        let (host, options) = if fresh {
            self.fresh_names += 1;
            (format!("f{}.bench", self.fresh_names), &self.forgetful)
        } else {
            (format!("e{index}.bench"), &self.options)
        };
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + (index % ADDRESSES) as u8), self.port));
        let client = Client::connect(address, &host, options.clone(), now.mono, CONNECT_MS);
        let client = client.and_then(|mut client| {
            client.register(self.poll.registry(), Token(index))?;
            Ok(client)
        });
        self.envoys[index].begin(client.map_err(|error| error.to_string())?, depth);
        Ok(())
    }

    fn hang_up(&mut self, index: usize) {
        if let Some(mut client) = self.envoys[index].client.take() {
            client.close(self.poll.registry());
        }
    }

    fn on_step(&mut self, index: usize, step: Step, now: Now) {
        match step {
            Step::Quiet => {}
            Step::Wrong(why) => self.wrong(index, why),
            Step::Later(ms) => {
                self.tally.put_off += 1;
                self.later.insert((now.mono + ms, index));
            }
            Step::Ready { resumed } => {
                self.tally.resumed += u64::from(resumed);
                if matches!(self.job, Job::Again { .. }) {
                    self.hang_up(index);
                }
                self.did(index, 1, now);
            }
            Step::NoChange(bytes) => {
                self.tally.answer_bytes = bytes;
                self.did(index, 1, now);
            }
            Step::Acknowledged => {
                let Job::Drain { batch, .. } = self.job else { return };
                let n = batch.min(self.work[index].left);
                self.did(index, n, now);
            }
        }
    }

    /// The envoy has done so much of its job: the next piece, or its end.
    fn did(&mut self, index: usize, n: u64, now: Now) {
        self.tally.done += n;
        self.tally.ms = now.mono.since(self.started);
        let work = &mut self.work[index];
        let goes_on = match self.job {
            Job::Busy(ms) | Job::Again { ms, .. } => self.tally.ms < ms,
            Job::Connect(_) | Job::Rounds(_) | Job::Drain { .. } => {
                work.left = work.left.saturating_sub(n);
                work.left > 0
            }
        };
        if goes_on { self.begin(index, now) } else { self.end(index) }
    }

    fn wrong(&mut self, index: usize, why: String) {
        self.tally.wrong += 1;
        if self.tally.why.is_empty() {
            self.tally.why = why;
        }
        self.end(index);
    }

    fn end(&mut self, index: usize) {
        if std::mem::take(&mut self.work[index].active) {
            self.active -= 1;
        }
    }
}
