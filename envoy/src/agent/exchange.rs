//! What is said on an authenticated channel: first words about the queue, check-in, reports, pushes.
//!
//! One unary call at a time, in order of need; a held channel also carries the watch stream, and a blob stream runs beside.
//! A report holds only committed records, and the queue forgets nothing before its answer. A channel that the server does
//! not want held ends when there is nothing left to say.

use bytes::Bytes;
use common::chain::Lane;
use common::limits;
use common::log::Level;
use common::proto::wire::check_in_reply::Result as Answer;
use common::proto::wire::watch_event::Kind;
use common::proto::{Code, Message, counts_to_wire, method, wire};
use common::splay;
use common::time::Mono;
use common::units::human_duration;

use super::adopt::Fetch;
use super::config::Mode;
use super::contact::{Contact, Failure, unary};
use super::converge::Phase;
use super::core::{Agent, Cx};
use super::events::{CallId, Effect, LinkId, Ticket};
use super::refusal;
use crate::cache::{CacheError, QueueRecord};
use crate::report::{Next, Standing, incident};

/// A call is given up this long after its own timeout, in milliseconds.
const GUARD_MS: u64 = 5_000;
/// A channel that is not held waits this long for the run that goes on beside it, in milliseconds.
const LINGER_MS: u64 = 10_000;
/// Routine records wait at most this long, or this many intervals, for company.
const ROUTINE_WAIT_MS: u64 = 600_000;
const ROUTINE_WAIT_INTERVALS: u64 = 10;
/// Difference between the clocks that is worth a warning, in milliseconds.
const SKEW_MS: u64 = 60_000;
/// Volatile trees ride along with a report at most this often, in milliseconds.
const VOLATILE_MS: u64 = 300_000;

/// An authenticated channel.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) link: LinkId,
    pub(super) address: String,
    /// The server wants it held.
    hold: bool,
    since: Mono,
    /// It has waited for the run beside it long enough.
    lingered: bool,
    /// What the server said of the queue, until the queue was brought in line with it.
    standing: Option<Standing>,
    /// Records are being read.
    reading: Option<(Ticket, Lane, u64)>,
    /// The unary call under way.
    call: Option<(CallId, Kindof, Mono)>,
    /// The blob under way.
    pub(super) fetch: Option<Fetch>,
    /// The watch stream.
    watch: Option<CallId>,
    /// A check-in was answered on this channel.
    checked: bool,
    /// Somebody asked for a check-in now.
    pub(super) check_now: bool,
    /// The server drains: when to come back.
    pub(super) go_away: Option<Mono>,
    /// Volatile trees went out with a report then.
    volatile_at: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kindof {
    CheckIn,
    Report(Sent),
}

/// What a report held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Stable trait trees that the server had not.
    pub(super) stable: bool,
    /// Any trait trees.
    pub(super) trees: bool,
    pub(super) n_records: usize,
}

impl Up {
    pub(super) fn new(link: LinkId, address: String, hold: bool, standing: Standing, now: Mono) -> Up {
        Up {
            link,
            address,
            hold,
            since: now,
            lingered: false,
            standing: Some(standing),
            reading: None,
            call: None,
            fetch: None,
            watch: None,
            checked: false,
            check_now: false,
            go_away: None,
            volatile_at: None,
        }
    }

    /// When it must be looked at again. `next_check` is absent where something else comes first, whose end is an event.
    pub(super) fn deadline(&self, next_check: Option<Mono>) -> Option<Mono> {
        let fetch = self.fetch.as_ref().map(|fetch| fetch.deadline);
        if let Some((_, _, deadline)) = self.call {
            return Some(fetch.map_or(deadline, |fetch| fetch.min(deadline)));
        }
        let next_check = next_check.filter(|_| self.reading.is_none());
        let linger = (!self.hold && !self.lingered).then(|| self.since + LINGER_MS);
        [fetch, next_check, linger].into_iter().flatten().min()
    }

    /// It ended where it would have been ended: not held, nothing asked.
    pub(super) fn was_done(&self) -> bool {
        !self.hold && self.checked && self.call.is_none() && self.fetch.is_none()
    }

    /// The server on trial answered a check-in: the next one is asked for.
    pub(super) fn checked_on_trial(&mut self) {
        self.checked = true;
    }

    pub(super) fn held(&self) -> bool {
        self.hold
    }
}

impl Agent {
    pub(super) fn settle_exchange(&mut self, cx: &mut Cx<'_>) {
        let Contact::Up(up) = &mut self.contact else { return };
        let now = cx.now.mono;
        let late = up.call.is_some_and(|(_, _, deadline)| now >= deadline);
        if late || up.fetch.as_ref().is_some_and(|fetch| now >= fetch.deadline) {
            return self.fail_contact("no answer in time", Failure::Plain, cx);
        }
        if self.n_pins_saving > 0 || up.call.is_some() {
            return;
        }
        if let Some(at) = up.go_away {
            return self.hang_up(Some(at), cx);
        }
        if self.trial.is_none() && !self.first_words(cx) {
            return;
        }
        let Contact::Up(up) = &mut self.contact else { return };
        if !up.checked || up.check_now || now >= self.next_check && self.trial.is_none() {
            return self.check_in(cx);
        }
        if self.trial.is_some() {
            return;
        }
        if up.hold && up.watch.is_none() {
            let (link, call) = (up.link, CallId(self.n_ids + 1));
            self.n_ids += 1;
            up.watch = Some(call);
            let body = wire::WatchRequest {}.encode_to_vec().into();
            cx.out.push(Effect::Stream { link, call, method: method::WATCH, body });
        }
        self.report(cx);
        self.end_if_done(cx);
    }

    /// Brings the queue in line with the server. Whether that is done.
    fn first_words(&mut self, cx: &mut Cx<'_>) -> bool {
        let Contact::Up(up) = &mut self.contact else { return false };
        let Some(standing) = up.standing else { return true };
        if up.reading.is_some() {
            return false;
        }
        if let Some((lane, first)) = self.queue.bodies_for(&standing) {
            self.read(lane, first, cx);
            return false;
        }
        up.standing = None;
        let server_ms = self.clock.now_ms(cx.now.mono);
        for note in self.queue.reconcile(&standing, server_ms, cx.now.wall.0) {
            cx.log(Level::Warn, format!("queue: {note}"));
        }
        true
    }

    fn read(&mut self, lane: Lane, first: u64, cx: &mut Cx<'_>) {
        let ticket = self.fresh_ticket();
        if let Contact::Up(up) = &mut self.contact {
            up.reading = Some((ticket, lane, first));
        }
        let max_bytes = limits::REPORT_BYTES_MAX;
        cx.out.push(Effect::ReadRecords { ticket, lane, first, max_bytes });
    }

    pub(super) fn on_records(&mut self, ticket: Ticket, result: Result<Vec<QueueRecord>, CacheError>, cx: &mut Cx<'_>) {
        let Contact::Up(up) = &mut self.contact else { return };
        let Some((_, lane, first)) = up.reading.take_if(|(expected, ..)| *expected == ticket) else { return };
        match result {
            Ok(records) => self.queue.on_read(lane, first, records, cx.now),
            Err(CacheError::Corrupt(_)) => self.queue.on_read(lane, first, Vec::new(), cx.now),
            Err(why) => {
                cx.log(Level::Error, format!("state store: {why}; delivery waits"));
                self.report_after = cx.now.mono + limits::BACKOFF_MAX_MS;
            }
        }
    }

    fn check_in(&mut self, cx: &mut Cx<'_>) {
        let server = self.peer().id();
        let candidate = self.candidate();
        let held = candidate.or(self.gate.current()).filter(|applied| applied.assignment.server == server);
        let (version, hash) = held.map(|held| (held.assignment.version, held.assignment_hash)).unwrap_or_default();
        // What runs from the previous slot is not named: the server sends what belongs into the current one.
        let bundle = held.filter(|held| !held.fallback).map(|held| held.assignment.bundle.0.to_vec());
        let (sealing_key, sealing_signature) = self.sealing_to_show();
        let waiting = self.queue.waiting().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let request = wire::CheckInRequest {
            epoch: version.epoch,
            serial: version.serial,
            bundle_hash: bundle.unwrap_or_default(),
            trait_hash: self.trait_hash,
            revocation: Some(self.revocation()),
            queue_urgent: waiting[0],
            queue_routine: waiting[1],
            runs: self.n_runs,
            last_run: (self.n_runs > 0).then(|| counts_to_wire(&self.last_counts)),
            assignment_hash: hash,
            status: self.last_status as u32,
            sealing_key,
            sealing_signature,
        };
        let call = self.fresh_call();
        let deadline = cx.now.mono + limits::CALL_TIMEOUT_MS + GUARD_MS;
        let Contact::Up(up) = &mut self.contact else { return };
        up.check_now = false;
        up.call = Some((call, Kindof::CheckIn, deadline));
        cx.out.push(unary(up.link, call, method::CHECK_IN, request.encode_to_vec()));
    }

    pub(super) fn on_answer(&mut self, call: CallId, result: Result<Bytes, (Code, String)>, cx: &mut Cx<'_>) {
        let Contact::Up(up) = &mut self.contact else { return };
        let Some((_, kind, _)) = up.call.take_if(|(expected, ..)| *expected == call) else { return };
        let body = match result {
            Ok(body) => body,
            Err((code, text)) => match kind {
                Kindof::Report(sent) if refusal::is_about_content(code) => {
                    return self.on_report_refused(sent, code, &text, cx);
                }
                _ => return self.fail_contact(&format!("{code:?}: {text}"), Failure::Plain, cx),
            },
        };
        match kind {
            Kindof::CheckIn => match wire::CheckInReply::decode(&body[..]) {
                Ok(reply) => self.on_checked_in(reply, cx),
                Err(_) => self.fail_contact("its answer to CheckIn is no message", Failure::Plain, cx),
            },
            Kindof::Report(sent) => match wire::ReportReply::decode(&body[..]) {
                Ok(reply) => self.on_reported(&reply, sent, cx),
                Err(_) => self.fail_contact("its answer to Report is no message", Failure::Plain, cx),
            },
        }
    }

    fn on_checked_in(&mut self, reply: wire::CheckInReply, cx: &mut Cx<'_>) {
        let answer = Answer::try_from(reply.result).unwrap_or(Answer::Unspecified);
        if answer == Answer::SteppedDown || !self.learn_epoch(reply.epoch, cx) {
            self.note_fence(reply.epoch, cx);
            return self.fail_contact("it stepped down", Failure::Plain, cx);
        }
        if answer == Answer::Unspecified {
            return self.fail_contact("its answer to CheckIn is not understood", Failure::Plain, cx);
        }
        let now = cx.now.mono;
        self.clock.learn(reply.server_time_ms, cx.now);
        if self.trial.is_some() {
            return self.on_trial_answer(answer, reply, cx);
        }
        self.note_skew(cx);
        self.learn_revocation(reply.revocation);
        self.wants_traits |= reply.want_traits;
        self.take_receipt(reply.receipt.clone(), cx);
        if reply.want_sealing_key {
            self.renew_sealing_key(cx);
        }
        if reply.want_traits {
            self.told.doubt(self.trait_hash);
        }
        let interval = self.schedule.interval_ms();
        self.next_check = splay::next_due(now, &self.uuid, interval, interval / 2);
        self.not_before = now;
        if let Contact::Up(up) = &mut self.contact {
            up.checked = true;
        }
        self.on_server_works(reply.server_time_ms, cx);
        match answer {
            Answer::NoChange | Answer::KeepCached => {
                self.keep_cached = answer == Answer::KeepCached;
                self.notes.confirmed_ms = self.notes.confirmed_ms.max(reply.server_time_ms);
            }
            Answer::Send => self.offered(reply.assignment, reply.bundle, cx),
            Answer::Later => {
                let at = now + u64::from(reply.retry_after_ms);
                (self.next_check, self.not_before, self.report_after) = (at, at, at);
            }
            Answer::Redirect => self.start_move(reply.redirect.as_ref(), cx),
            Answer::SteppedDown | Answer::Unspecified => {}
        }
    }

    /// A host clock that is far off is worth one line, and one when it is right again; it stops nothing.
    fn note_skew(&mut self, cx: &mut Cx<'_>) {
        let skew = self.clock.skew_ms().unwrap_or(0);
        let off = skew.unsigned_abs() >= SKEW_MS;
        if off && !self.skewed {
            let by = human_duration(skew.unsigned_abs());
            let way = if skew < 0 { "behind" } else { "ahead of" };
            cx.log(Level::Warn, format!("the clock of this host is {by} {way} the server's; nothing depends on it"));
        } else if self.skewed && !off {
            cx.log(Level::Info, "the clock of this host agrees with the server's again");
        }
        self.skewed = off;
    }

    /// Policy came: the gate decides.
    pub(super) fn offered(&mut self, assignment: Option<wire::Signed>, bundle: Option<wire::Signed>, cx: &mut Cx<'_>) {
        match self.gate.check(self.peer(), assignment, bundle) {
            Ok(offer) => {
                self.refused_policy.clear();
                self.adopt(offer, cx);
            }
            Err(why) => {
                let text = why.to_string();
                if self.refused_policy != text {
                    cx.log(Level::Error, &text[..]);
                    self.queue.push_incident(&incident("policy", &text, cx.now));
                    self.refused_policy = text;
                }
            }
        }
    }

    fn routine_due(&self, now: Mono) -> bool {
        let wait = ROUTINE_WAIT_MS.min(ROUTINE_WAIT_INTERVALS * self.schedule.interval_ms());
        self.flush_routine
            || self.mode == Mode::OneShot
            || self.queue.waiting()[Lane::Urgent.index()] > 0
            || self.routine_since.is_some_and(|since| now.since(since) >= wait)
    }

    /// When routine records are old enough to go alone over a channel that is up.
    pub(super) fn report_deadline(&self) -> Option<Mono> {
        let Contact::Up(up) = &self.contact else { return None };
        // What comes first ends with an event, not with a moment.
        let busy = up.call.is_some() || up.reading.is_some() || up.standing.is_some() || !up.checked;
        let unsettled = self.n_pins_saving > 0 || self.persist.busy() || self.queue.wants_store();
        if busy || unsettled || self.trial.is_some() {
            return None;
        }
        let wait = ROUTINE_WAIT_MS.min(ROUTINE_WAIT_INTERVALS * self.schedule.interval_ms());
        let waiting = self.queue.waiting();
        let urgent = (waiting[0] > 0 || self.flush_routine && waiting[1] > 0).then_some(self.report_after);
        let routine = self.routine_since.filter(|_| waiting[1] > 0);
        let routine = routine.map(|since| (since + wait).max(self.report_after));
        [urgent, routine].into_iter().flatten().min()
    }

    fn report(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let routine = self.routine_due(now);
        let Contact::Up(up) = &self.contact else { return };
        if now < self.report_after || up.call.is_some() || up.reading.is_some() {
            return;
        }
        let welcome = self.trees_are_welcome();
        let stable = welcome && self.wants_traits && self.trait_hash != 0;
        let volatile = welcome && up.volatile_at.is_none_or(|at| now.since(at) >= VOLATILE_MS);
        let letter = self.told.letter(&self.traits, &self.gone_traits, stable, volatile);
        let tree_bytes: usize = letter.updates.iter().map(Message::encoded_len).sum();
        let refuses = self.persist.refuses();
        let records = match self.queue.next(routine, refuses, limits::REPORT_BYTES_MAX - tree_bytes) {
            Next::Read { lane, first } => return self.read(lane, first, cx),
            Next::Send(records) => records,
            Next::Nothing if stable => Vec::new(),
            Next::Nothing => {
                self.flush_routine &= self.queue.waiting() != [0, 0];
                return;
            }
        };
        let sent = Sent { stable, trees: !letter.updates.is_empty(), n_records: records.len() };
        let request = wire::ReportRequest {
            records,
            traits: letter.updates,
            trait_hash: letter.hash,
            removed_traits: letter.removed,
            trait_base: letter.base,
        };
        let call = self.fresh_call();
        let Contact::Up(up) = &mut self.contact else { return };
        up.volatile_at = if volatile { Some(now) } else { up.volatile_at };
        up.call = Some((call, Kindof::Report(sent), now + limits::CALL_TIMEOUT_MS + GUARD_MS));
        cx.out.push(unary(up.link, call, method::REPORT, request.encode_to_vec()));
    }

    fn on_reported(&mut self, reply: &wire::ReportReply, sent: Sent, cx: &mut Cx<'_>) {
        if !self.learn_epoch(reply.epoch, cx) {
            self.note_fence(reply.epoch, cx);
            return self.fail_contact("its epoch is lower than one that was met", Failure::Plain, cx);
        }
        self.clock.learn(reply.server_time_ms, cx.now);
        self.learn_revocation(reply.revocation);
        if reply.retry_after_ms > 0 {
            self.queue.on_lost();
            self.report_after = cx.now.mono + u64::from(reply.retry_after_ms);
            return;
        }
        self.note_trees_taken(sent, cx);
        if sent.stable {
            self.wants_traits = self.told.on_answer(reply.trait_hash, self.trait_hash, &mut self.gone_traits);
        }
        let watermarks = [reply.watermark_urgent, reply.watermark_routine];
        let server_ms = self.clock.now_ms(cx.now.mono);
        let progress = self.queue.on_answer(watermarks, reply.epoch, server_ms);
        if sent.n_records > 0 && !progress {
            // It answered without taking anything: something is missing before it. The first words will show what.
            return self.fail_contact("it did not take the records", Failure::Plain, cx);
        }
        if self.queue.waiting()[Lane::Routine.index()] == 0 {
            self.routine_since = None;
        }
    }

    pub(super) fn on_stream_item(&mut self, call: CallId, body: &Bytes, cx: &mut Cx<'_>) {
        let Contact::Up(up) = &mut self.contact else { return };
        if up.fetch.as_ref().is_some_and(|fetch| fetch.call == call) {
            return self.on_blob_chunk(body, cx);
        }
        if up.watch != Some(call) {
            return;
        }
        let Ok(event) = wire::WatchEvent::decode(&body[..]) else {
            return self.fail_contact("its push is no message", Failure::Plain, cx);
        };
        match Kind::try_from(event.kind) {
            Ok(Kind::CheckInNow) => up.check_now = true,
            Ok(Kind::GoAway) => up.go_away = Some(cx.now.mono + event.delay_ms),
            Ok(Kind::Rebootstrap | Kind::Redirect) => self.start_move(event.statement.as_ref(), cx),
            // A newer server may push what this agent does not know.
            Ok(Kind::Unspecified) | Err(_) => {}
        }
    }

    pub(super) fn on_stream_end(&mut self, call: CallId, result: Result<(), (Code, String)>, cx: &mut Cx<'_>) {
        let Contact::Up(up) = &mut self.contact else { return };
        if up.fetch.as_ref().is_some_and(|fetch| fetch.call == call) {
            return self.on_blob_end(result, cx);
        }
        if up.watch == Some(call) {
            // Losing it costs nothing: the channel is polled from now on.
            (up.watch, up.hold) = (None, false);
        }
    }

    /// A channel that is not held ends when there is nothing left to say.
    fn end_if_done(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let Contact::Up(up) = &mut self.contact else { return };
        let lingers = now.since(up.since) < LINGER_MS;
        up.lingered = !lingers;
        let Contact::Up(up) = &self.contact else { return };
        let running = !matches!(self.converge.phase, Phase::Idle) || self.persist.busy() || self.schedule.due();
        let wants = self.adoption_needs_contact() || self.waiters_want_contact();
        let urgent = self.queue.waiting()[Lane::Urgent.index()] > 0 && now >= self.report_after && lingers;
        if up.hold || !up.was_done() || up.reading.is_some() || wants || urgent || running && lingers {
            return;
        }
        self.hang_up(None, cx);
    }

    /// Ends the channel in good order.
    pub(super) fn hang_up(&mut self, back_at: Option<Mono>, cx: &mut Cx<'_>) {
        if let Some(link) = self.link() {
            cx.out.push(Effect::Disconnect { link });
        }
        self.contact = Contact::Idle;
        self.queue.on_lost();
        self.interrupt_adoption();
        if let Some(at) = back_at {
            (self.next_check, self.not_before) = (at, at);
        }
    }
}
