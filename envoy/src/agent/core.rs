//! The state of the agent and the one function that changes it.
//!
//! Every event first changes state in the file that owns that part; then [`Agent::settle`] looks at all parts in a fixed
//! order and asks for what is due: store, run, contact, exit. Nothing is asked for twice, because what was asked for is
//! state. So an event never needs to know what else waits for it, and a missing answer is a deadline, not a hang.

use std::sync::Arc;

use common::crypto::SigningKey;
use common::ids::Uuid;
use common::log::Level;
use common::outcome::{Counts, Status};
use common::rng::Rng;
use common::time::{Mono, Now};

use super::adopt::Adoption;
use super::clock::ServerClock;
use super::config::{AgentConfig, AgentInit, Mode};
use super::contact::Contact;
use super::control::{Term, Waiter};
use super::converge::Converge;
use super::endpoint::Endpoints;
use super::events::{CallId, Effect, Event, LinkId, Notice, Signal, Ticket, TraitTree};
use super::gate::Gate;
use super::history::History;
use super::moves::Trial;
use super::notes::Notes;
use super::persist::Persist;
use super::pins::Pins;
use super::refusal::Trees;
use super::renewal::Renewal;
use super::schedule::Schedule;
use super::told::Told;
use crate::report::{Queue, incident};

/// Incidents of one start that are reported one by one.
const INCIDENTS_PER_START_MAX: usize = 32;

/// What a step may use: both clocks, random bits, and where effects go.
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) rng: &'a mut dyn Rng,
    pub(super) out: &'a mut Vec<Effect>,
}

impl Cx<'_> {
    pub(super) fn log(&mut self, level: Level, line: impl Into<String>) {
        self.out.push(Effect::Log { level, line: line.into() });
    }
}

/// The agent. One a process.
#[derive(Debug)]
pub struct Agent {
    pub(super) mode: Mode,
    pub(super) config: AgentConfig,
    pub(super) uuid: Uuid,
    pub(super) key: SigningKey,
    /// Public half of the key that secrets are sealed to; the server hears of it while its receipt names another one.
    pub(super) sealing: [u8; 32],
    pub(super) boot_id: String,
    pub(super) machine_id: String,
    pub(super) version: String,
    /// Whom we trust.
    pub(super) pins: Pins,
    /// Writes of the pins under way: nothing is applied or reported meanwhile.
    pub(super) n_pins_saving: u32,
    /// What may be applied.
    pub(super) gate: Gate,
    /// When to run.
    pub(super) schedule: Schedule,
    /// The run under way.
    pub(super) converge: Converge,
    /// What resources were like.
    pub(super) history: History,
    /// What waits to be delivered.
    pub(super) queue: Queue,
    /// Commits under way.
    pub(super) persist: Persist,
    /// Facts that outlive a restart.
    pub(super) notes: Notes,
    /// What the server's time is.
    pub(super) clock: ServerClock,
    /// Which server is next.
    pub(super) endpoints: Endpoints,
    /// The connection, in whatever state.
    pub(super) contact: Contact,
    /// When the next check-in is due.
    pub(super) next_check: Mono,
    /// Before this no connection is tried: backoff, or a slot that the server reserved.
    pub(super) not_before: Mono,
    /// Before this no report is tried: the server could not store.
    pub(super) report_after: Mono,
    /// Since when the server has been lost.
    pub(super) lost_since: Option<Mono>,
    /// The host's clock was said to be off.
    pub(super) skewed: bool,
    /// A server answered in this process.
    pub(super) met: bool,
    /// When the last check-in was answered, and the server's time then.
    pub(super) checked_in: Option<(Mono, u64)>,
    /// Check-ins answered, and contacts failed, since the start: what waits for one of either compares.
    pub(super) n_checked_in: u64,
    /// See `n_checked_in`.
    pub(super) n_failed: u64,
    /// Why the last contact failed.
    pub(super) last_failure: String,
    /// Trouble with the identity or standing of the server, in words for `status`; logged when it changes.
    pub(super) trust: String,
    /// The policy, and the redirect, that was refused last: each is logged once.
    pub(super) refused_policy: String,
    /// See `refused_policy`.
    pub(super) refused_move: String,
    /// The server's word on this envoy.
    pub(super) standing: String,
    /// The server said to keep what is here.
    pub(super) keep_cached: bool,
    /// New policy on its way to being current.
    pub(super) adoption: Option<Adoption>,
    /// A move to another server on its way to being final.
    pub(super) trial: Option<Trial>,
    /// The newest traits.
    pub(super) traits: Arc<Vec<TraitTree>>,
    /// First 8 bytes of the hash over the stable ones; 0 before the first gathering.
    pub(super) trait_hash: u64,
    /// The server asked for the stable trees.
    pub(super) wants_traits: bool,
    /// Whether the server takes trait trees.
    pub(super) trees: Trees,
    /// Trees that the store has and that no longer exist.
    pub(super) gone_traits: Vec<String>,
    /// Which tree went to a server with what hash.
    pub(super) told: Told,
    /// Routine records are sent with the next report whatever their age.
    pub(super) flush_routine: bool,
    /// When the oldest routine run that waits was taken in.
    pub(super) routine_since: Option<Mono>,
    /// Runs of this process, counts and status of the newest: for heartbeats and `status`.
    pub(super) n_runs: u64,
    pub(super) last_counts: Counts,
    pub(super) last_status: Status,
    pub(super) last_run: Option<super::status::LastRunDocument>,
    /// What the newest run said of itself as a whole: logged when it changes.
    pub(super) run_notes: Vec<String>,
    /// Who waits for a run on the control socket.
    pub(super) waiters: Vec<Waiter>,
    /// TERM was heard.
    pub(super) term: Option<Term>,
    /// HUP was heard.
    pub(super) renewal: Renewal,
    /// Source of links, calls and tickets.
    pub(super) n_ids: u64,
    /// The exit was asked for: nothing more happens.
    pub(super) exited: bool,
}

impl Agent {
    /// The agent as it is when its process starts. `out` takes the first effects; the shell then sends [`Event::Tick`].
    pub fn new(init: AgentInit, now: Now, out: &mut Vec<Effect>) -> Agent {
        let AgentInit { mode, config, uuid, key, sealing, pins, loaded, boot_id, machine_id, version, build_ms } = init;
        let (gate, gate_incidents) = Gate::load(uuid, &loaded, &pins);
        let (queue, queue_incidents) = Queue::load(&loaded, now);
        let notes = Notes::load(&loaded.meta);
        let interval_ms = gate.current().map_or(common::limits::INTERVAL_DEFAULT_MS, |a| a.assignment.interval_ms);
        let history = History::load(&loaded.meta);
        let waiting = queue.waiting();
        let issued_ms = gate.current().map_or(0, |applied| applied.assignment.issued_at_ms);
        let mut agent = Agent {
            mode,
            uuid,
            key,
            sealing,
            boot_id,
            machine_id,
            version,
            n_pins_saving: 0,
            gate,
            schedule: Schedule::new(uuid, interval_ms, now.mono),
            converge: Converge::default(),
            history,
            queue,
            persist: Persist::default(),
            clock: ServerClock::new(notes.server_ms.max(build_ms).max(issued_ms), now.mono),
            endpoints: Endpoints::new(Vec::new(), None),
            contact: Contact::Idle,
            next_check: now.mono,
            not_before: now.mono,
            report_after: now.mono,
            lost_since: None,
            skewed: false,
            met: false,
            checked_in: None,
            n_checked_in: 0,
            n_failed: 0,
            last_failure: String::new(),
            trust: String::new(),
            refused_policy: String::new(),
            refused_move: String::new(),
            standing: String::new(),
            keep_cached: false,
            adoption: None,
            trial: None,
            traits: Arc::default(),
            trait_hash: 0,
            wants_traits: false,
            trees: Trees::default(),
            told: Told::default(),
            gone_traits: loaded.traits.keys().cloned().collect(),
            flush_routine: true,
            routine_since: (waiting[1] > 0).then_some(now.mono),
            n_runs: 0,
            last_counts: Counts::default(),
            last_status: Status::Nodata,
            last_run: None,
            run_notes: Vec::new(),
            waiters: Vec::new(),
            term: None,
            renewal: Renewal::default(),
            n_ids: 0,
            exited: false,
            config,
            pins,
            notes,
        };
        agent.endpoints = Endpoints::new(agent.servers(), Some(&agent.notes.last_good));
        let incidents = loaded.incidents.into_iter().chain(gate_incidents).chain(queue_incidents);
        for text in incidents.take(INCIDENTS_PER_START_MAX) {
            out.push(Effect::Log { level: Level::Warn, line: text.clone() });
            agent.queue.push_incident(&incident("state", &text, now));
        }
        agent.start_contact(now);
        agent.check_current_blobs(out);
        out.push(Effect::Notify(Notice::Ready));
        agent
    }

    /// Takes in one event. Stale ones (a dead link, an old ticket) are ignored.
    pub fn step(&mut self, now: Now, event: Event, rng: &mut dyn Rng, out: &mut Vec<Effect>) {
        if self.exited {
            return;
        }
        let mut cx = Cx { now, rng, out };
        match event {
            Event::Tick => {}
            Event::Connected { link, exporter, ca_trusted, presented_ca, ip } => {
                self.on_connected(link, exporter, ca_trusted, presented_ca, ip, &mut cx);
            }
            Event::ConnectFailed { link, reason } | Event::Disconnected { link, reason } => {
                self.on_link_end(link, &reason, &mut cx);
            }
            Event::Reply { call, result } => self.on_reply(call, result, &mut cx),
            Event::StreamItem { call, body } => self.on_stream_item(call, &body, &mut cx),
            Event::StreamEnd { call, result } => self.on_stream_end(call, result, &mut cx),
            Event::Stored { ticket, result } => self.on_stored(ticket, result, &mut cx),
            Event::Records { ticket, result } => self.on_records(ticket, result, &mut cx),
            Event::Traits { ticket, trees } => self.on_traits(ticket, trees, &mut cx),
            Event::RunDone { report } => self.on_run_done(&report, &mut cx),
            Event::Promise { run_id, targets } => self.on_promise(run_id, targets, &mut cx),
            Event::Confirm { run_id } => self.on_confirm(run_id, &mut cx),
            Event::BlobsChecked { ticket, missing } => self.on_blobs_checked(ticket, missing, &mut cx),
            Event::BlobWritten { hash, result } => self.on_blob_written(hash, result, &mut cx),
            Event::SealingKey { result } => self.on_sealing_key(result, &mut cx),
            Event::PinsSaved { result } => self.on_pins_saved(result, &mut cx),
            Event::Control { id, request } => self.on_control(id, request, &mut cx),
            Event::Signal(Signal::Term) => self.on_term(&mut cx),
            Event::Signal(Signal::Reload(config)) => self.on_reload(*config, &mut cx),
            Event::Signal(Signal::Renew(config)) => self.on_renew(*config, &mut cx),
            Event::RenewFailed { reason } => self.on_renew_failed(&reason, &mut cx),
        }
        self.settle(&mut cx);
    }

    /// When [`Event::Tick`] is wanted at the latest; `None`: not before another event.
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.exited {
            return None;
        }
        self.deadlines().into_iter().flatten().min()
    }

    /// Of each part.
    pub(super) fn deadlines(&self) -> [Option<Mono>; 6] {
        let run = (self.mode == Mode::Daemon && self.term.is_none()).then(|| self.schedule.next());
        [
            run,
            self.contact_deadline(),
            self.converge_deadline(),
            self.persist_deadline(),
            self.control_deadline(),
            self.report_deadline(),
        ]
    }

    /// Asks for everything that is due.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        if self.mode == Mode::Daemon {
            self.schedule.tick(cx.now.mono);
        }
        self.settle_converge(cx);
        self.settle_contact(cx);
        self.settle_adoption(cx);
        self.settle_exchange(cx);
        self.settle_persist(cx);
        self.settle_control(cx);
        self.settle_renewal(cx);
    }

    pub(super) fn on_reload(&mut self, config: AgentConfig, cx: &mut Cx<'_>) {
        self.config = config;
        self.renew_endpoints();
        cx.log(Level::Info, "configuration read again");
    }

    /// Server time now, in milliseconds.
    pub(super) fn server_now(&self, cx: &Cx<'_>) -> u64 {
        self.clock.now_ms(cx.now.mono)
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.n_ids += 1;
        self.n_ids
    }

    pub(super) fn fresh_call(&mut self) -> CallId {
        CallId(self.fresh_id())
    }

    pub(super) fn fresh_link(&mut self) -> LinkId {
        LinkId(self.fresh_id())
    }

    pub(super) fn fresh_ticket(&mut self) -> Ticket {
        Ticket(self.fresh_id())
    }
}
