//! The agent's loop: it reads the clocks once a turn, feeds the core what happened, and does what the core says. It decides
//! nothing itself.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use common::cli::one_line;
use common::limits;
use common::log::Level;
use common::rng::SystemRng;
use common::sys::logger::Logger;
use common::sys::notify::Notifier;
use common::sys::{Clock, Signals};
use common::time::{Mono, Now};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::agent::{Agent, ControlId, ControlReply, ControlRequest, Effect, Event, Notice, Signal, Ticket};
use crate::cache::{Answer, Owner, Request as StoreRequest};
use crate::control::{Control, Reply, Request, Waiting};
use crate::link::Link;

use super::runner::{Reload, Runner};
use super::verifier::{Verifier, Verify};
use crate::sys::program::Program;

const WAKE: Token = Token(0);
const SIGNALS: Token = Token(1);
const LINK: Token = Token(2);
const CONTROL: usize = 16;
/// Events that threads may have on their way to the loop.
const INBOX_MAX: usize = 256;
/// Effects of one turn that are obeyed before sockets are looked at again.
const ROUNDS_PER_TURN_MAX: usize = 64;

/// Where threads put what happened.
#[derive(Clone)]
pub struct Inbox {
    sender: SyncSender<Event>,
    waker: Arc<Waker>,
}

impl Inbox {
    /// Hands an event to the loop. Blocks only a thread that floods it; the loop itself never sends.
    pub fn put(&self, event: Event) {
        // A loop that has ended takes nothing any more, and nobody waits for it.
        let _ = self.sender.send(event);
        let _ = self.waker.wake();
    }

    /// Makes the loop look around.
    pub fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// Wakes the loop.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

/// The poll and the inbox, made before the threads that use them.
pub struct Ports {
    poll: Poll,
    inbox: Inbox,
    received: Receiver<Event>,
    signals: Signals,
}

impl Ports {
    /// Makes them, and takes over the signals of the process.
    pub fn open() -> io::Result<Ports> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let signals = Signals::install()?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&signals);
        poll.registry().register(&mut SourceFd(&fd), SIGNALS, Interest::READABLE)?;
        let (sender, received) = sync_channel(INBOX_MAX);
        Ok(Ports { poll, inbox: Inbox { sender, waker }, received, signals })
    }

    /// For threads.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }
}

/// Makes another sealing key; the error is a sentence.
pub type RenewSealingKey = Box<dyn FnMut() -> Result<[u8; 32], String>>;
/// Writes the pin file; the error is a sentence.
pub type SavePins = Box<dyn FnMut(&crate::agent::pins::Pins) -> Result<(), String>>;

/// What the loop is made from.
pub struct Parts {
    /// Owner of the store.
    pub owner: Owner,
    /// Runs and traits.
    pub runner: Runner,
    /// TLS of the link.
    pub tls: Arc<rustls::ClientConfig>,
    /// Writes the pin file.
    pub save_pins: SavePins,
    /// Makes another sealing key.
    pub renew_sealing_key: RenewSealingKey,
    /// Reads the configuration again.
    pub reload: Reload,
    /// Answers `verify`.
    pub verify: Verify,
    /// Where the control socket is; none for a one-shot process.
    pub control: Option<PathBuf>,
    /// Clocks.
    pub clock: Clock,
    /// Lines.
    pub logger: Logger,
    /// The service manager.
    pub notifier: Notifier,
    /// What this process was started as.
    pub program: Program,
    /// The store was rebuilt: what the core believes of it is void, and the process starts anew.
    pub restart: Arc<AtomicBool>,
}

/// The loop.
pub struct Reactor {
    ports: Ports,
    parts: Parts,
    link: Link,
    control: Option<Control>,
    verifier: Verifier<Waiting>,
    asked: BTreeMap<u64, Waiting>,
    next_control: u64,
    /// The answer to the one request of a one-shot process.
    own_answer: Option<ControlReply>,
    watchdog_at: Option<Mono>,
    rng: SystemRng,
    exit: Option<u8>,
}

/// The control id under which a one-shot process asks itself.
const OWN: ControlId = ControlId(0);

impl Reactor {
    /// Puts the parts together and binds the control socket.
    pub fn new(ports: Ports, parts: Parts) -> io::Result<Reactor> {
        let registry = ports.poll.registry();
        let control = match &parts.control {
            Some(path) => Some(Control::bind(path, registry, CONTROL)?),
            None => None,
        };
        let inbox = ports.inbox();
        let verifier = Verifier::new(parts.verify.clone(), Arc::new(move || inbox.wake()));
        let link = Link::new(registry.try_clone()?, LINK, parts.tls.clone(), ports.inbox.waker());
        Ok(Reactor {
            ports,
            parts,
            link,
            control,
            verifier,
            asked: BTreeMap::new(),
            next_control: 1,
            own_answer: None,
            watchdog_at: None,
            rng: SystemRng::default(),
            exit: None,
        })
    }

    /// Runs until the core says exit; `first` are the effects of its start.
    pub fn serve(mut self, mut agent: Agent, first: Vec<Effect>) -> u8 {
        if self.parts.notifier.watchdog_interval_ms().is_some() {
            self.watchdog_at = Some(self.parts.clock.now().mono);
        }
        self.turns(&mut agent, first);
        self.exit.unwrap_or(1)
    }

    /// One request of this process to itself, answered; then the core is told to stop.
    pub fn ask_once(
        mut self,
        mut agent: Agent,
        first: Vec<Effect>,
        request: ControlRequest,
    ) -> (Option<ControlReply>, u8) {
        let mut effects = first;
        let now = self.parts.clock.now();
        agent.step(now, Event::Control { id: OWN, request }, &mut self.rng, &mut effects);
        self.turns(&mut agent, effects);
        (self.own_answer.take(), self.exit.unwrap_or(1))
    }

    fn turns(&mut self, agent: &mut Agent, mut effects: Vec<Effect>) {
        let mut events: Vec<Event> = Vec::new();
        let mut ready = Events::with_capacity(64);
        loop {
            let now = self.parts.clock.now();
            for _ in 0..ROUNDS_PER_TURN_MAX {
                for effect in effects.drain(..) {
                    self.obey(now, effect, &mut events);
                }
                if self.exit.is_some() {
                    return;
                }
                if events.is_empty() {
                    break;
                }
                for event in events.drain(..) {
                    agent.step(now, event, &mut self.rng, &mut effects);
                }
            }
            self.hold_back();
            let more = self.link.drive(now.mono, &mut events) || !events.is_empty() || !effects.is_empty();
            if events.is_empty() && effects.is_empty() {
                let timeout = if more { Some(Duration::ZERO) } else { self.timeout(agent, now) };
                if let Err(error) = self.ports.poll.poll(&mut ready, timeout)
                    && error.kind() != ErrorKind::Interrupted
                {
                    self.log(now, Level::Error, &format!("the event loop cannot wait: {error}"));
                    self.exit = Some(1);
                    return;
                }
                for event in &ready {
                    if event.token() == LINK {
                        self.link.on_ready(event);
                    }
                }
            }
            let now = self.parts.clock.now();
            self.collect(now, &mut events);
            if agent.next_deadline().is_some_and(|deadline| deadline <= now.mono) {
                events.push(Event::Tick);
            }
            for event in events.drain(..) {
                agent.step(now, event, &mut self.rng, &mut effects);
            }
        }
    }

    /// Leaves what the server streams unread while the disk is behind with it.
    fn hold_back(&mut self) {
        let (waiting, most) = (self.parts.owner.pieces_waiting(), limits::BLOB_PIECES_WAITING_MAX);
        if waiting >= most || waiting <= most / 2 {
            self.link.pause_streams(waiting >= most);
        }
    }

    /// Time to wait at most: no wake-ups but for timers and the watchdog.
    fn timeout(&self, agent: &Agent, now: Now) -> Option<Duration> {
        let control = self.control.as_ref().and_then(Control::next_deadline);
        let deadlines = [agent.next_deadline(), self.link.next_deadline(), control, self.watchdog_at];
        let next = deadlines.into_iter().flatten().min()?;
        Some(self.parts.clock.real(next.since(now.mono).max(1)))
    }

    /// What threads, signals and the control socket have.
    fn collect(&mut self, now: Now, events: &mut Vec<Event>) {
        if self.parts.restart.load(Ordering::SeqCst) {
            self.exit = Some(1);
            return;
        }
        events.extend(self.ports.received.try_iter().take(INBOX_MAX));
        self.link.drive(now.mono, events);
        let received = self.ports.signals.take();
        if received.terminate {
            events.push(Event::Signal(Signal::Term));
        }
        if received.reload {
            match (self.parts.reload)() {
                Ok(config) => events.push(Event::Signal(Signal::Renew(Box::new(config)))),
                Err(error) => self.log(now, Level::Error, &format!("the configuration stays as it was: {error}")),
            }
        }
        if self.watchdog_at.is_some_and(|at| at <= now.mono) {
            self.parts.notifier.watchdog();
            self.watchdog_at = self.parts.notifier.watchdog_interval_ms().map(|ms| now.mono + ms);
        }
        let Some(control) = &mut self.control else { return };
        for (waiting, request) in control.drive(self.ports.poll.registry(), now.mono) {
            let request = match request {
                Request::Status => ControlRequest::Status,
                Request::Queue => ControlRequest::Queue,
                Request::RunOnce { dry_run, offline, diff, all } => {
                    ControlRequest::RunOnce { dry_run, offline, diff, all }
                }
                Request::Verify => {
                    self.verifier.ask(waiting);
                    continue;
                }
            };
            let id = self.next_control;
            self.next_control += 1;
            self.asked.insert(id, waiting);
            events.push(Event::Control { id: ControlId(id), request });
        }
        for (waiting, document) in self.verifier.take() {
            control.reply(waiting, &Reply::Document(document), now.mono);
        }
        // Answers that were made just now leave now.
        control.flush(self.ports.poll.registry());
    }

    fn obey(&mut self, now: Now, effect: Effect, events: &mut Vec<Event>) {
        match effect {
            Effect::Connect { link, target } => self.link.connect(link, target, now.mono),
            Effect::Disconnect { link } => self.link.disconnect(link),
            Effect::Call { link, call, method, body, timeout_ms } => {
                self.link.call(link, call, method, &body, now.mono + timeout_ms, events);
            }
            Effect::Stream { link, call, method, body } => self.link.stream(link, call, method, &body, events),
            Effect::Store { ticket, ops } => self.ask_store(StoreRequest::Store { ticket: ticket.0, ops }, events),
            Effect::ReadRecords { ticket, lane, first, max_bytes } => {
                self.ask_store(StoreRequest::Read { ticket: ticket.0, lane, first, max_bytes }, events);
            }
            Effect::BlobCheck { ticket, blobs } => {
                self.ask_store(StoreRequest::BlobCheck { ticket: ticket.0, blobs }, events);
            }
            Effect::BlobWrite { hash, offset, data, last } => {
                self.ask_store(StoreRequest::BlobWrite { hash, offset, data, last }, events);
            }
            Effect::BlobsKeep(hashes) => self.ask_store(StoreRequest::BlobsKeep(hashes), events),
            Effect::GatherTraits { ticket } => {
                if !self.parts.runner.gather(ticket) {
                    events.push(Event::Traits { ticket, trees: Arc::default() });
                }
            }
            Effect::StartRun(order) => {
                let run_id = order.run_id;
                if !self.parts.runner.run(order) {
                    let error = "the runner's thread is gone".to_string();
                    let report = crate::report::RunReport { run_id, started: now, error, ..Default::default() };
                    events.push(Event::RunDone { report: Box::new(report) });
                }
            }
            Effect::Promised { run_id } => self.parts.runner.promised(run_id),
            Effect::Confirmed { run_id } => self.parts.runner.confirmed(run_id),
            Effect::StopRun { grace_ms } => self.parts.runner.stop(grace_ms),
            Effect::SavePins(pins) => {
                let result = (self.parts.save_pins)(&pins);
                events.push(Event::PinsSaved { result });
            }
            Effect::RenewSealingKey => {
                let result = (self.parts.renew_sealing_key)();
                events.push(Event::SealingKey { result });
            }
            Effect::ControlReply { id, reply } => self.reply(now, id, reply, events),
            Effect::Log { level, line } => self.log(now, level, &line),
            Effect::Notify(Notice::Ready) => self.parts.notifier.ready("converging"),
            Effect::Notify(Notice::Stopping) => self.parts.notifier.stopping(),
            Effect::Notify(Notice::Status(line)) => self.parts.notifier.ready(&one_line(&line)),
            Effect::Renew => {
                // Not before: a package manager of a run may wait for the end of the reload that it asked for.
                self.parts.notifier.reloading();
                let reason = self.parts.program.execute();
                self.parts.notifier.ready("converging");
                events.push(Event::RenewFailed { reason });
            }
            Effect::Exit { code } => self.exit = Some(code),
        }
    }

    /// A request that the owner does not take fails like one that the disk refuses: the core has rules for that.
    fn ask_store(&mut self, request: StoreRequest, events: &mut Vec<Event>) {
        use crate::cache::CacheError::Io;
        let Err(refused) = self.parts.owner.ask(request) else { return };
        let busy = || "the store's thread does not keep up".to_string();
        match refused {
            StoreRequest::Store { ticket, .. } => {
                events.push(Event::Stored { ticket: Ticket(ticket), result: Err(Io(busy())) });
            }
            StoreRequest::Read { ticket, .. } => {
                events.push(Event::Records { ticket: Ticket(ticket), result: Err(Io(busy())) });
            }
            StoreRequest::BlobCheck { ticket, blobs } => {
                let missing = blobs.into_iter().map(|blob| (blob, 0)).collect();
                events.push(Event::BlobsChecked { ticket: Ticket(ticket), missing });
            }
            StoreRequest::BlobWrite { hash, .. } => events.push(Event::BlobWritten { hash, result: Err(busy()) }),
            StoreRequest::BlobsKeep(_) => {}
        }
    }

    fn reply(&mut self, now: Now, id: ControlId, reply: ControlReply, events: &mut Vec<Event>) {
        if id == OWN && self.control.is_none() {
            self.own_answer = Some(reply);
            return events.push(Event::Signal(Signal::Term));
        }
        let (Some(control), Some(waiting)) = (&mut self.control, self.asked.remove(&id.0)) else { return };
        let document = |value: serde_json::Result<serde_json::Value>| match value {
            Ok(value) => Reply::Document(value),
            Err(error) => Reply::Refused(error.to_string()),
        };
        let reply = match reply {
            ControlReply::Status(status) => document(serde_json::to_value(*status)),
            ControlReply::Queue(queue) => document(serde_json::to_value(*queue)),
            ControlReply::Ran(ran) => document(serde_json::to_value(*ran)),
            ControlReply::Refused(why) => Reply::Refused(why),
        };
        control.reply(waiting, &reply, now.mono);
        control.flush(self.ports.poll.registry());
    }

    fn log(&self, now: Now, level: Level, line: &str) {
        self.parts.logger.line(now.wall, level, line);
    }
}

/// What the owner of the store says, in the core's words; a rebuilt store has none.
pub fn translate(answer: Answer) -> Option<Event> {
    Some(match answer {
        Answer::Stored { ticket, result } => Event::Stored { ticket: Ticket(ticket), result },
        Answer::Records { ticket, result } => Event::Records { ticket: Ticket(ticket), result },
        Answer::BlobsChecked { ticket, missing } => Event::BlobsChecked { ticket: Ticket(ticket), missing },
        Answer::BlobWritten { hash, result } => Event::BlobWritten { hash, result },
        Answer::Room | Answer::Reopened(_) => return None,
    })
}
