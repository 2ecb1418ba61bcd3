//! From "a check-in is due" to an authenticated channel, and what follows when that fails.
//!
//! One link at a time: connect, `Hello`, judge, `Authenticate` (once more with the receipt where the server does not know
//! us), first words about the queue. Every stage has a deadline. A failure takes the next server of the list at once, and
//! after a whole round waits: 5, 10, 20 ... 300 s, counted in the store, reset by the first answered check-in; a slot that
//! the server reserves wins. Nothing here delays a run.

use std::net::IpAddr;

use bytes::Bytes;
use common::bundle::Receipt;
use common::chain::Lane;
use common::crypto::{Context, PublicKey};
use common::ids::Hash32;
use common::limits;
use common::log::Level;
use common::proto::wire::authenticate_reply::Result as Answer;
use common::proto::{Code, Message, method, wire};
use common::time::Mono;
use common::units::human_duration;
use common::{backoff, splay};

use super::config::Mode;
use super::core::{Agent, Cx};
use super::endpoint::{EndpointAction, EndpointEvent};
use super::events::{CallId, Effect, LinkId, PresentedCa, Target};
use super::exchange::Up;
use super::notes::ATTEMPT_MAX;
use super::pins::PinnedServer;
use super::session::{Hello, Trust, hello_request, judge, open_hello, prove};
use crate::report::Standing;

/// Beyond the shell's own timeouts, after which a stage counts as failed, in milliseconds.
const GUARD_MS: u64 = 5_000;
/// The first check-in of a process lies within this of its start, spread by UUID, in milliseconds.
const START_SPREAD_MS: u64 = 10_000;

/// The connection, in whatever state.
#[derive(Debug, Default)]
pub(super) enum Contact {
    /// There is none.
    #[default]
    Idle,
    /// TCP and TLS.
    Connecting { link: LinkId, address: String, deadline: Mono },
    /// `Hello` is out.
    Greeting { channel: Channel, call: CallId, request: Vec<u8>, deadline: Mono },
    /// `Authenticate` is out.
    Authenticating { channel: Channel, call: CallId, hello: Box<Hello>, with_receipt: bool, deadline: Mono },
    /// Authenticated.
    Up(Box<Up>),
}

/// A TLS channel.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub(super) link: LinkId,
    pub(super) address: String,
    exporter: [u8; 32],
    ca_trusted: bool,
    presented_ca: Option<PresentedCa>,
    ip: Option<IpAddr>,
}

/// How hard a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Try the next, then pause by the number of failures.
    Plain,
    /// Nothing will be better soon: the slowest pause.
    Slow,
    /// The server said when.
    Until(Mono),
}

impl Agent {
    /// Sets the first check-in of this process: soon, or after the pause that the last process would have made.
    pub(super) fn start_contact(&mut self, now: common::time::Now) {
        let interval = self.schedule.interval_ms();
        let spread = splay::offset_ms(&self.uuid, START_SPREAD_MS.min(interval));
        // The whole pause, without jitter: what is left of it is not known after a restart.
        let pause = self.notes.attempt.checked_sub(1).map_or(spread, backoff::nominal_ms);
        self.next_check = now.mono + pause;
        self.not_before = self.next_check;
    }

    /// Every address that may be tried, most preferred first.
    pub(super) fn servers(&self) -> Vec<String> {
        let lists = [&self.pins.server.servers, &self.config.servers, &self.notes.advertised];
        lists.into_iter().flatten().cloned().collect()
    }

    pub(super) fn renew_endpoints(&mut self) {
        let (next, _) = self.endpoints.decide(EndpointEvent::List(self.servers()));
        self.endpoints = next;
    }

    /// The server that is meant: the pinned one, or the one on trial.
    pub(super) fn peer(&self) -> &PinnedServer {
        self.trial.as_ref().map_or(&self.pins.server, |trial| &trial.to.server)
    }

    /// Whether a contact is wanted by now.
    fn wants_contact(&self, now: Mono) -> bool {
        if self.term.is_some() || self.n_pins_saving > 0 {
            return false;
        }
        if self.trial.is_some() {
            return true;
        }
        let asked = self.waiters_want_contact() || self.is_confirming();
        let urgent = self.queue.waiting()[Lane::Urgent.index()] > 0 && now >= self.report_after;
        let due = self.mode == Mode::Daemon && (now >= self.next_check || urgent || self.adoption_needs_contact());
        (asked || due) && (now >= self.not_before || self.waiters_hurry())
    }

    pub(super) fn settle_contact(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        match &self.contact {
            Contact::Connecting { deadline, .. }
            | Contact::Greeting { deadline, .. }
            | Contact::Authenticating { deadline, .. }
                if now >= *deadline =>
            {
                self.fail_contact("no answer in time", Failure::Plain, cx);
            }
            _ => {}
        }
        if !matches!(self.contact, Contact::Idle) || !self.wants_contact(now) {
            return;
        }
        let address = match &self.trial {
            Some(trial) => trial.to.server.servers.first().cloned(),
            None => self.endpoints.current().map(str::to_owned),
        };
        let Some(address) = address else {
            return self.fail_contact("there is no server address: set servers: in envoy.yaml", Failure::Slow, cx);
        };
        self.waiters_hurried();
        let link = self.fresh_link();
        let target = Target {
            known_ips: self.notes.ips.get(&address).copied().into_iter().collect(),
            ca_pem: self.peer().ca_pem.clone(),
            server_time_ms: self.server_now(cx),
            address: address.clone(),
        };
        let deadline = now + limits::CONNECT_TIMEOUT_MS + GUARD_MS;
        self.contact = Contact::Connecting { link, address, deadline };
        cx.out.push(Effect::Connect { link, target: Box::new(target) });
    }

    pub(super) fn on_connected(
        &mut self,
        link: LinkId,
        exporter: [u8; 32],
        ca_trusted: bool,
        presented_ca: Option<PresentedCa>,
        ip: Option<IpAddr>,
        cx: &mut Cx<'_>,
    ) {
        let address = match &self.contact {
            Contact::Connecting { link: expected, address, .. } if *expected == link => address.clone(),
            _ => return,
        };
        let channel = Channel { link, address, exporter, ca_trusted, presented_ca, ip };
        let (call, request) = (self.fresh_call(), hello_request(&self.version));
        let deadline = cx.now.mono + limits::CALL_TIMEOUT_MS + GUARD_MS;
        cx.out.push(unary(link, call, method::HELLO, request.clone()));
        self.contact = Contact::Greeting { channel, call, request, deadline };
    }

    pub(super) fn on_reply(&mut self, call: CallId, result: Result<Bytes, (Code, String)>, cx: &mut Cx<'_>) {
        match &self.contact {
            Contact::Greeting { call: expected, .. } | Contact::Authenticating { call: expected, .. }
                if *expected == call => {}
            Contact::Up(_) => return self.on_answer(call, result, cx),
            _ => return,
        }
        let body = match result {
            Ok(body) => body,
            Err((code, text)) => return self.fail_contact(&format!("{code:?}: {text}"), Failure::Plain, cx),
        };
        match std::mem::take(&mut self.contact) {
            Contact::Greeting { channel, request, .. } => self.on_hello(channel, &request, &body, cx),
            Contact::Authenticating { channel, hello, with_receipt, .. } => {
                self.on_authenticated(channel, *hello, with_receipt, &body, cx);
            }
            other => self.contact = other,
        }
    }

    fn on_hello(&mut self, channel: Channel, request: &[u8], body: &Bytes, cx: &mut Cx<'_>) {
        let link = channel.link;
        let hello = match open_hello(request, body, &channel.exporter, self.peer()) {
            Ok(hello) => hello,
            Err(why) => return self.abandon(link, &why.to_string(), Failure::Plain, cx),
        };
        let trust = judge(&hello, self.peer(), channel.ca_trusted, channel.presented_ca.as_ref(), self.server_now(cx));
        match trust {
            // Said only when it has let us in: one that stepped down proves its identity too.
            Trust::Pinned => {}
            Trust::NewPolicyKey(key) if self.trial.is_none() => {
                cx.log(Level::Warn, "the server has a new policy key, signed by its identity key: pinned");
                self.pins.replace_policy_key(key);
                self.save_pins(cx);
            }
            Trust::NewPolicyKey(_) => {
                return self.abandon(link, "its policy key is not the stated one", Failure::Plain, cx);
            }
            Trust::Recovered(server) if self.trial.is_none() => {
                let id = server.id();
                cx.log(
                    Level::Warn,
                    format!("the server was rebuilt as {id:.16}, vouched for by its recovery key: pinned"),
                );
                self.pins.replace_server(*server);
                self.forget_server();
                self.save_pins(cx);
                // The new CA is trusted from the next handshake on.
                cx.out.push(Effect::Disconnect { link });
                (self.next_check, self.not_before) = (cx.now.mono, cx.now.mono);
                return;
            }
            Trust::OtherCa => {
                self.note_trust("trust: the server's certificate is not under the pinned CA, or has run out", cx);
                return self.abandon(link, "its certificate is not under the pinned CA", Failure::Slow, cx);
            }
            Trust::Recovered(_) | Trust::Changed(_) if self.trial.is_some() => {
                return self.abandon(link, "it is not the server that was stated", Failure::Plain, cx);
            }
            Trust::Recovered(_) => {}
            Trust::Changed(fingerprint) => {
                self.note_trust(&format!("trust: server changed {fingerprint}"), cx);
                return self.abandon(link, "it is another server", Failure::Slow, cx);
            }
        }
        self.authenticate(channel, hello, false, cx);
    }

    fn authenticate(&mut self, channel: Channel, hello: Hello, with_receipt: bool, cx: &mut Cx<'_>) {
        let current = self.gate.current().filter(|applied| applied.assignment.server == hello.server);
        let version = current.map(|applied| applied.assignment.version).unwrap_or_default();
        let [acked_urgent, acked_routine] = if self.trial.is_some() { [0, 0] } else { self.queue.acked() };
        let tails = self.queue.tails().map(|link| if link == Hash32::ZERO { Vec::new() } else { link.0.to_vec() });
        let [tail_urgent, tail_routine] = tails;
        let request = wire::AuthenticateRequest {
            uuid: self.uuid.as_bytes().to_vec(),
            signature: prove(&self.key, self.uuid, &hello, &channel.exporter),
            boot_id: self.boot_id.clone(),
            machine_id: self.machine_id.clone(),
            epoch: self.peer().epoch,
            serial: version.serial,
            assignment_epoch: version.epoch,
            acked_epoch: if self.trial.is_some() { 0 } else { self.queue.acked_epoch() },
            revocation: Some(self.revocation()),
            acked_urgent,
            acked_routine,
            receipt: if with_receipt { self.pins.server.receipt.clone() } else { None },
            agent_version: self.version.clone(),
            tail_urgent,
            tail_routine,
            hold: self.mode == Mode::Daemon,
        };
        let call = self.fresh_call();
        let deadline = cx.now.mono + limits::CALL_TIMEOUT_MS + GUARD_MS;
        cx.out.push(unary(channel.link, call, method::AUTHENTICATE, request.encode_to_vec()));
        self.contact = Contact::Authenticating { channel, call, hello: Box::new(hello), with_receipt, deadline };
    }

    fn on_authenticated(&mut self, channel: Channel, hello: Hello, with_receipt: bool, body: &Bytes, cx: &mut Cx<'_>) {
        let link = channel.link;
        let Ok(reply) = wire::AuthenticateReply::decode(&body[..]) else {
            return self.abandon(link, "its answer to Authenticate is no message", Failure::Plain, cx);
        };
        match Answer::try_from(reply.result) {
            Ok(Answer::Ok) => {}
            Ok(Answer::UnknownEnvoy) if !with_receipt && self.pins.server.receipt.is_some() => {
                return self.authenticate(channel, hello, true, cx);
            }
            Ok(Answer::UnknownEnvoy) => {
                self.note_trust("trust: the server does not know this envoy; enroll it again", cx);
                return self.abandon(link, "it does not know this envoy", Failure::Slow, cx);
            }
            Ok(Answer::Revoked) => {
                self.standing = "revoked".into();
                self.note_trust("trust: this envoy was revoked", cx);
                return self.abandon(link, "this envoy was revoked", Failure::Slow, cx);
            }
            Ok(Answer::BadSignature) => {
                self.note_trust("trust: the server knows another key for this envoy", cx);
                return self.abandon(link, "it knows another key for this envoy", Failure::Slow, cx);
            }
            Ok(Answer::SteppedDown) => {
                self.note_fence(reply.epoch, cx);
                return self.abandon(link, "it stepped down", Failure::Plain, cx);
            }
            Ok(Answer::Unspecified) | Err(_) => {
                return self.abandon(link, "its answer to Authenticate is not understood", Failure::Plain, cx);
            }
        }
        if reply.epoch < self.peer().epoch {
            self.note_fence(reply.epoch, cx);
            return self.abandon(link, "its epoch is lower than one that was met", Failure::Plain, cx);
        }
        self.note_trust("", cx);
        self.learn_epoch(reply.epoch, cx);
        self.clock.learn(reply.server_time_ms, cx.now);
        self.standing.clone_from(&reply.state);
        self.take_receipt(reply.receipt, cx);
        self.take_recovery_key(&reply.recovery_key, &reply.recovery_succession, cx);
        if self.trial.is_none() {
            self.learn_revocation(reply.revocation);
            self.notes.found(&channel.address, channel.ip, self.endpoints.list());
            self.notes.advertise(reply.servers);
            self.endpoints = self.endpoints.decide(EndpointEvent::Worked).0;
            self.renew_endpoints();
        }
        let link_of = |bytes: &[u8]| Hash32::try_from_slice(bytes).unwrap_or(Hash32::ZERO);
        let standing = Standing {
            watermarks: [reply.watermark_urgent, reply.watermark_routine],
            links: [link_of(&reply.link_urgent), link_of(&reply.link_routine)],
        };
        let hold = reply.hold && self.mode == Mode::Daemon;
        self.contact = Contact::Up(Box::new(Up::new(link, channel.address, hold, standing, cx.now.mono)));
    }

    pub(super) fn take_receipt(&mut self, receipt: Option<wire::Signed>, cx: &mut Cx<'_>) {
        let Some(signed) = receipt else { return };
        let own = self.key.public();
        let fits = |receipt: &Receipt| receipt.uuid == self.uuid && receipt.public_key == own;
        if Receipt::open(&self.peer().identity_key, &signed).is_ok_and(|receipt| fits(&receipt)) {
            match self.trial.as_mut() {
                Some(trial) => trial.to.server.receipt = Some(signed),
                None => {
                    self.pins.server.receipt = Some(signed);
                    self.save_pins(cx);
                }
            }
        }
    }

    /// The server has a recovery key, or another one. One that is pinned gives way only to what it signed itself: it is there for
    /// the day on which somebody else holds the server's other keys.
    fn take_recovery_key(&mut self, bytes: &[u8], succession: &[wire::Signed], cx: &mut Cx<'_>) {
        let Ok(key) = PublicKey::try_from_slice(bytes) else { return };
        let follows = self.pins.server.recovery_key.is_none_or(|pinned| succeeds(pinned, &key, succession));
        match self.trial.as_mut() {
            Some(trial) => trial.to.server.recovery_key = trial.to.server.recovery_key.or(Some(key)),
            None if self.pins.server.recovery_key != Some(key) && follows => {
                cx.log(Level::Info, format!("the server has the recovery key {key:?}: pinned"));
                self.pins.server.recovery_key = Some(key);
                self.save_pins(cx);
            }
            None => {}
        }
    }

    /// An authenticated answer stated its epoch. Whether what it says may be used.
    pub(super) fn learn_epoch(&mut self, epoch: u64, cx: &mut Cx<'_>) -> bool {
        let known = self.peer().epoch;
        if epoch > known {
            match self.trial.as_mut() {
                Some(trial) => trial.to.server.epoch = epoch,
                None => {
                    self.pins.server.epoch = epoch;
                    self.save_pins(cx);
                }
            }
        }
        epoch >= known
    }

    pub(super) fn note_fence(&mut self, epoch: u64, cx: &mut Cx<'_>) {
        let known = self.peer().epoch;
        let text = format!("trust: the server has epoch {epoch}, lower than {known}; nothing is applied or reported");
        self.note_trust(&text, cx);
    }

    pub(super) fn learn_revocation(&mut self, echo: Option<wire::RevocationEcho>) {
        if let Some(echo) = echo.filter(|echo| echo.counter >= self.notes.revocation_counter) {
            (self.notes.revocation_counter, self.notes.revocation_digest) = (echo.counter, echo.digest);
        }
    }

    pub(super) fn revocation(&self) -> wire::RevocationEcho {
        if self.trial.is_some() {
            return wire::RevocationEcho::default();
        }
        wire::RevocationEcho { counter: self.notes.revocation_counter, digest: self.notes.revocation_digest }
    }

    /// What was learned of the old server's counters means nothing to the new one.
    pub(super) fn forget_server(&mut self) {
        (self.notes.revocation_counter, self.notes.revocation_digest) = (0, 0);
        self.renew_endpoints();
    }

    /// Logs trouble with the server's identity or standing once, when it changes.
    pub(super) fn note_trust(&mut self, text: &str, cx: &mut Cx<'_>) {
        if self.trust == text {
            return;
        }
        if text.is_empty() {
            cx.log(Level::Info, "the server is trusted again");
        } else {
            cx.log(Level::Error, format!("{text}; going on with the policy at hand"));
        }
        self.trust = text.to_owned();
    }

    pub(super) fn save_pins(&mut self, cx: &mut Cx<'_>) {
        self.n_pins_saving += 1;
        cx.out.push(Effect::SavePins(Box::new(self.pins.clone())));
    }

    pub(super) fn on_link_end(&mut self, link: LinkId, reason: &str, cx: &mut Cx<'_>) {
        if self.link() == Some(link) {
            self.lose(reason, cx);
        }
    }

    /// The link is gone by itself.
    fn lose(&mut self, reason: &str, cx: &mut Cx<'_>) {
        let until = match std::mem::take(&mut self.contact) {
            Contact::Up(up) if up.was_done() => {
                self.interrupt_adoption();
                return;
            }
            Contact::Up(up) => up.go_away,
            _ => None,
        };
        self.after_failure(reason, until.map_or(Failure::Plain, Failure::Until), cx);
    }

    /// The link, in whatever state.
    pub(super) fn link(&self) -> Option<LinkId> {
        match &self.contact {
            Contact::Idle => None,
            Contact::Connecting { link, .. } => Some(*link),
            Contact::Greeting { channel, .. } | Contact::Authenticating { channel, .. } => Some(channel.link),
            Contact::Up(up) => Some(up.link),
        }
    }

    /// Drops the link because of a failure.
    pub(super) fn fail_contact(&mut self, reason: &str, failure: Failure, cx: &mut Cx<'_>) {
        if let Some(link) = self.link() {
            cx.out.push(Effect::Disconnect { link });
        }
        self.contact = Contact::Idle;
        self.after_failure(reason, failure, cx);
    }

    /// Drops the link, which is no failure, and makes a new one at once.
    pub(super) fn reconnect(&mut self, cx: &mut Cx<'_>) {
        if let Some(link) = self.link() {
            cx.out.push(Effect::Disconnect { link });
            self.queue.on_lost();
            self.interrupt_adoption();
        }
        self.contact = Contact::Idle;
        (self.next_check, self.not_before) = (cx.now.mono, cx.now.mono);
    }

    fn abandon(&mut self, link: LinkId, reason: &str, failure: Failure, cx: &mut Cx<'_>) {
        cx.out.push(Effect::Disconnect { link });
        self.contact = Contact::Idle;
        self.after_failure(reason, failure, cx);
    }

    /// What follows when a contact did not come about or broke.
    fn after_failure(&mut self, reason: &str, failure: Failure, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        self.queue.on_lost();
        self.interrupt_adoption();
        self.n_failed += 1;
        if let Some(trial) = self.trial.take() {
            let address = trial.to.server.servers.first().cloned().unwrap_or_default();
            cx.log(Level::Warn, format!("the move to {address} failed: {reason}; staying with the old server"));
            self.drop_adoption();
            (self.next_check, self.not_before) = (now + self.schedule.interval_ms(), now);
            return;
        }
        let address = self.endpoints.current().unwrap_or("no server").to_owned();
        self.last_failure = format!("{address}: {reason}");
        if let Failure::Until(at) = failure {
            (self.next_check, self.not_before) = (at, at);
            return;
        }
        let (next, action) = self.endpoints.decide(EndpointEvent::Failed);
        self.endpoints = next;
        if action != EndpointAction::Pause {
            (self.next_check, self.not_before) = (now, now);
            return;
        }
        let attempt = if failure == Failure::Slow { ATTEMPT_MAX } else { self.notes.attempt };
        self.not_before = now + backoff::wait_ms(attempt, cx.rng.next_u64());
        self.next_check = self.not_before;
        if self.notes.attempt < ATTEMPT_MAX {
            self.notes.attempt += 1;
            self.persist.flush();
        }
        if self.lost_since.is_none() {
            self.lost_since = Some(now);
            if self.trust.is_empty() {
                let wait = human_duration(self.not_before.since(now));
                cx.log(
                    Level::Warn,
                    format!("server lost: {}; going on from the cache, next attempt in {wait}", self.last_failure),
                );
            }
        }
    }

    /// A check-in was answered: all is well with the server.
    pub(super) fn on_server_works(&mut self, server_ms: u64, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        self.n_checked_in += 1;
        self.checked_in = Some((now, server_ms));
        self.confirm(cx);
        if self.notes.attempt > 0 {
            self.notes.attempt = 0;
            self.persist.flush();
        }
        let (address, first) = (self.address(), !std::mem::replace(&mut self.met, true));
        if let Some(since) = self.lost_since.take() {
            self.flush_routine = true;
            cx.log(Level::Info, format!("server {address} is back after {}", human_duration(now.since(since))));
        } else if first {
            cx.log(Level::Info, format!("checked in with {address}"));
        }
    }

    fn address(&self) -> String {
        match &self.contact {
            Contact::Up(up) => up.address.clone(),
            _ => String::new(),
        }
    }

    pub(super) fn contact_deadline(&self) -> Option<Mono> {
        match &self.contact {
            Contact::Idle => {
                let daemon = self.mode == Mode::Daemon && self.term.is_none() && self.n_pins_saving == 0;
                let urgent = self.queue.waiting()[Lane::Urgent.index()] > 0;
                let soon = self.adoption_needs_contact() || self.waiters_want_contact();
                let urgent = urgent.then(|| self.report_after.max(self.not_before));
                let at = if soon { self.not_before } else { self.next_check.max(self.not_before) };
                let asked = (self.waiters_want_contact() || self.is_confirming()).then_some(self.not_before);
                let due = daemon.then(|| urgent.map_or(at, |urgent| at.min(urgent)));
                due.or(asked)
            }
            Contact::Connecting { deadline, .. }
            | Contact::Greeting { deadline, .. }
            | Contact::Authenticating { deadline, .. } => Some(*deadline),
            Contact::Up(up) => {
                let free = self.n_pins_saving == 0 && self.trial.is_none();
                up.deadline(free.then_some(self.next_check))
            }
        }
    }
}

/// Whether a chain of statements leads from one recovery key to another.
fn succeeds(pinned: PublicKey, key: &PublicKey, succession: &[wire::Signed]) -> bool {
    let step = |at: PublicKey, signed: &wire::Signed| {
        let signs = at.verify(Context::RecoveryKey, &signed.payload, &signed.signature).is_ok();
        PublicKey::try_from_slice(&signed.payload).ok().filter(|_| signs).unwrap_or(at)
    };
    succession.iter().take(limits::RECOVERY_KEYS_MAX).fold(pinned, step) == *key
}

/// A unary call.
pub(super) fn unary(link: LinkId, call: CallId, method: &'static str, body: Vec<u8>) -> Effect {
    Effect::Call { link, call, method, body: body.into(), timeout_ms: limits::CALL_TIMEOUT_MS }
}
