//! Work that is due by time: flushing sightings, pushing to held streams in slices, draining.

use bytes::Bytes;
use common::proto::{Message, wire};
use common::time::{Mono, Now};
use std::collections::VecDeque;

use common::ids::Uuid;

use super::{CallId, Effect, Pending, Server};
use crate::store::Write;

/// `last_seen` and counters go to the database this often, in milliseconds.
const FLUSH_MS: u64 = 10_000;
/// Sightings in one write.
const FLUSH_ENVOYS: usize = 2_000;
/// Pushes and farewells go out in slices of this many,
const SLICE: usize = 500;
/// this far apart, in milliseconds.
const SLICE_MS: u64 = 100;

/// Deadlines of the core.
#[derive(Debug)]
pub(crate) struct Periodic {
    flush_at: Mono,
    slice_at: Option<Mono>,
    pushes: VecDeque<Uuid>,
    farewells: VecDeque<super::ConnId>,
    /// Assignments could not be stored: to be tried again.
    pub reassign: bool,
}

impl Periodic {
    pub fn new(now: Mono) -> Periodic {
        Periodic {
            flush_at: now + FLUSH_MS,
            slice_at: None,
            pushes: VecDeque::new(),
            farewells: VecDeque::new(),
            reassign: false,
        }
    }

    pub fn next_deadline(&self) -> Mono {
        self.slice_at.map_or(self.flush_at, |slice| slice.min(self.flush_at))
    }

    /// Tells every held envoy to check in, a slice at a time.
    pub fn push_all(&mut self, watchers: &crate::fleet::OwnKeys<Uuid, CallId>, now: Mono) {
        self.pushes = watchers.keys().copied().collect();
        self.slice_at = Some(now);
    }
}

/// A deadline may have passed.
pub(crate) fn on_tick(server: &mut Server, now: Now, out: &mut Vec<Effect>) {
    if server.periodic.slice_at.is_some_and(|at| at <= now.mono) {
        slice(server, now, out);
    }
    if server.periodic.flush_at <= now.mono {
        server.periodic.flush_at = now.mono + FLUSH_MS;
        if std::mem::take(&mut server.periodic.reassign) {
            server.settle_interval(now, out);
            server.reassign_differing(now, out);
        }
        flush(server, out);
        super::restore::on_tick(server, now, out);
    }
}

/// Writes what was seen since the last flush. Losing it loses sighting times, never an acknowledged result.
pub(crate) fn flush(server: &mut Server, out: &mut Vec<Effect>) {
    if server.stats.disk_full {
        return;
    }
    let mut batch = Vec::new();
    server.fleet.for_each_mut(|entry| {
        if std::mem::take(&mut entry.dirty) {
            batch.push(entry.sighting());
        }
    });
    let mut rest = batch.into_iter().peekable();
    while rest.peek().is_some() {
        let some = rest.by_ref().take(FLUSH_ENVOYS).collect();
        server.write(Write::Sightings(some), Pending::Nobody, out);
    }
}

fn slice(server: &mut Server, now: Now, out: &mut Vec<Effect>) {
    for _ in 0..SLICE {
        let Some(uuid) = server.periodic.pushes.pop_front() else { break };
        push(server, &uuid, out);
    }
    for _ in 0..SLICE {
        let Some(conn) = server.periodic.farewells.pop_front() else { break };
        out.push(Effect::Close { conn, graceful: true });
    }
    let more = !server.periodic.pushes.is_empty() || !server.periodic.farewells.is_empty();
    server.periodic.slice_at = more.then_some(now.mono + SLICE_MS);
}

/// Tells one held envoy to check in. False when it holds no stream.
pub(crate) fn push(server: &Server, uuid: &Uuid, out: &mut Vec<Effect>) -> bool {
    let Some(call) = server.watchers.get(uuid) else { return false };
    let event = wire::WatchEvent { kind: wire::watch_event::Kind::CheckInNow as i32, ..wire::WatchEvent::default() };
    out.push(Effect::Item { call: *call, body: Bytes::from(event.encode_to_vec()) });
    true
}

/// Shutting down: sightings are flushed, held envoys are sent away in slices with a spread delay.
pub(crate) fn on_drain(server: &mut Server, now: Now, out: &mut Vec<Effect>) {
    server.draining = true;
    flush(server, out);
    let n = server.watchers.len().max(1) as u64;
    for (index, call) in server.watchers.values().enumerate() {
        // As wide as the fleet is large: a thousand a second come back.
        let delay_ms = 1_000 + index as u64 * n.min(60_000) / n;
        let kind = wire::watch_event::Kind::GoAway as i32;
        let event = wire::WatchEvent { kind, delay_ms, statement: None };
        out.push(Effect::Item { call: *call, body: Bytes::from(event.encode_to_vec()) });
    }
    server.periodic.farewells = server.sessions.keys().copied().collect();
    server.periodic.slice_at = Some(now.mono);
}
