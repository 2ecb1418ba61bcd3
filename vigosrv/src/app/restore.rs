//! Recognising restores and higher epochs: what the server does when an envoy remembers more than it does (docs/PROTOCOL.md,
//! "Epoch" and "The restore contract").

use common::ids::Uuid;
use common::limits::BACKOFF_MAX_MS;
use common::log::Level;
use common::proto::Enrolled;
use common::time::{Mono, Now, Wall};

use super::{Effect, Pending, Server, log};
use crate::store::{EventRow, Write};

/// Newcomers that are remembered.
const NEWCOMERS_MAX: usize = 10_000;

/// What is known of restores.
#[derive(Debug, Default)]
pub(crate) struct Restore {
    /// Until then nobody counts as plainly offline, and higher epochs are outbid instead of obeyed.
    pub until: Mono,
    /// The higher epoch to which this server stepped down.
    pub stepped_down: Option<u64>,
    /// Revocations were lost: newcomers get no secrets.
    pub review: bool,
    /// The newest that the database of this start knew of.
    pub known_until: Wall,
    /// Envoys that enrolled with this process, the first so many.
    pub newcomers: Vec<Uuid>,
    /// An epoch that was asked for but is not committed yet.
    pub raising: u64,
    /// An epoch that the database refused, and why it is needed: to be tried again. Envoys that hold a channel do not show
    /// their memory a second time.
    pub refused: Option<(u64, String)>,
}

/// What an envoy remembers of this server, as shown in `Authenticate`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub epoch: u64,
    pub assignment_epoch: u64,
    pub serial: u64,
    pub acked_epoch: u64,
    pub acked: [u64; 2],
    pub revocation_counter: u64,
    pub revocation_digest: u64,
}

/// The operator restored this database, or the continuity file says so: raise the epoch.
pub(crate) fn begin(server: &mut Server, now: Now, reason: String, out: &mut Vec<Effect>) {
    server.restore.until = now.mono + server.settings.interval_ms + BACKOFF_MAX_MS;
    let epoch = server.state.version.epoch + 1;
    raise(server, now, epoch, reason, out);
}

/// Envoys of a lost server were told that its successor has this epoch.
pub(crate) fn reach(server: &mut Server, now: Now, epoch: u64, out: &mut Vec<Effect>) {
    raise(server, now, epoch, "the recovery statement of this rebuilt server says so".into(), out);
}

fn raise(server: &mut Server, now: Now, epoch: u64, reason: String, out: &mut Vec<Effect>) {
    if epoch <= server.restore.raising.max(server.state.version.epoch) {
        return;
    }
    server.restore.raising = epoch;
    server.restore.refused = Some((epoch, reason.clone()));
    log(Level::Warn, format!("raising the epoch to {epoch}: {reason}"), out);
    // Shown to nobody before it is durable: an envoy must not remember an epoch that a crash takes back.
    server.write(Write::RaiseEpoch { epoch, reason, at: now.wall }, Pending::Epoch, out);
}

/// Compares an envoy's memory with our own. False when this server has stepped down and must answer so.
pub(crate) fn weigh(server: &mut Server, now: Now, uuid: Uuid, memory: Memory, out: &mut Vec<Effect>) -> bool {
    let ours = server.state.version.epoch;
    if memory.epoch > ours {
        if now.mono < server.restore.until {
            let reason = format!("a restored server outbids epoch {} that envoy {uuid} has met", memory.epoch);
            raise(server, now, memory.epoch + 1, reason, out);
        } else {
            if server.restore.stepped_down.is_none_or(|epoch| epoch < memory.epoch) {
                step_down(server, now, uuid, memory.epoch, out);
            }
            return false;
        }
    } else if memory.epoch == ours && server.restore.stepped_down.is_none() {
        // Only what it learnt in this very epoch can tell: after a restore that we know of, older memories are expected.
        let watermark = server.fleet.with(&uuid, |entry| entry.watermark).unwrap_or_default();
        let ahead = (memory.assignment_epoch == ours && memory.serial > server.state.version.serial)
            || (memory.acked_epoch == ours && (0..2).any(|lane| memory.acked[lane] > watermark[lane]))
            || memory.revocation_counter > server.state.revocation_counter;
        if ahead {
            let reason = format!("envoy {uuid} remembers more than this database: it is an older copy");
            server.restore.until = now.mono + server.settings.interval_ms + BACKOFF_MAX_MS;
            raise(server, now, ours + 1, reason, out);
        }
    }
    weigh_revocations(server, now, uuid, memory, out);
    true
}

fn step_down(server: &mut Server, now: Now, uuid: Uuid, epoch: u64, out: &mut Vec<Effect>) {
    let ours = server.state.version.epoch;
    server.restore.stepped_down = Some(epoch);
    server.stats.stepped_down = true;
    let detail = format!(
        "envoy {uuid} has met epoch {epoch}, this server has {ours}: another server was promoted or restored; \
         this one is read-only now"
    );
    log(Level::Error, detail.clone(), out);
    let event = EventRow { at: now.wall, kind: "stepped-down".into(), uuid: Some(uuid), detail };
    server.write(Write::Event(event), Pending::Nobody, out);
}

fn weigh_revocations(server: &mut Server, now: Now, uuid: Uuid, memory: Memory, out: &mut Vec<Effect>) {
    let ours = (server.state.revocation_counter, server.state.revocation_digest);
    let lost = memory.revocation_counter > ours.0
        || (memory.revocation_counter == ours.0 && ours.0 > 0 && memory.revocation_digest != ours.1);
    if !lost || server.restore.review {
        return;
    }
    server.restore.review = true;
    server.stats.review = true;
    let detail = format!(
        "envoy {uuid} has seen {} revocations, this database holds {}: those made between {} and now are \
         lost; revoke again what must stay out. Secrets are withheld from envoys that were first seen since, until they are approved",
        memory.revocation_counter, ours.0, server.restore.known_until
    );
    log(Level::Warn, detail.clone(), out);
    for uuid in std::mem::take(&mut server.restore.newcomers) {
        review(server, now, uuid, out);
    }
    let event = EventRow { at: now.wall, kind: "revocations-lost".into(), uuid: Some(uuid), detail };
    server.write(Write::Event(event), Pending::Nobody, out);
}

/// An envoy has enrolled. Should it show later that revocations were lost, it is one of those that may not have secrets.
pub(crate) fn came(server: &mut Server, now: Now, uuid: Uuid, state: Enrolled, out: &mut Vec<Effect>) {
    if state != Enrolled::Active {
        return;
    }
    if server.restore.review {
        // It was decided before that was known, and committed after.
        review(server, now, uuid, out);
    } else if server.restore.newcomers.len() < NEWCOMERS_MAX {
        server.restore.newcomers.push(uuid);
    }
}

fn review(server: &mut Server, now: Now, uuid: Uuid, out: &mut Vec<Effect>) {
    if server.fleet.with(&uuid, |entry| entry.state) == Some(Enrolled::Active) {
        let (state, at) = (Enrolled::Review, now.wall);
        server.fleet.update(&uuid, |entry| entry.state = state);
        server.write(Write::SetState { uuid, state, new_serial: false, at }, Pending::State { uuid, state }, out);
    }
}

/// An epoch that was refused is tried again; one line when the time after a restore is over.
pub(crate) fn on_tick(server: &mut Server, now: Now, out: &mut Vec<Effect>) {
    if server.restore.raising == 0
        && let Some((epoch, reason)) = server.restore.refused.take()
    {
        raise(server, now, epoch, reason, out);
    }
    if server.restore.until > Mono(0) && now.mono >= server.restore.until {
        server.restore.until = Mono(0);
        let totals = server.fleet.totals(&server.clocks(now.mono));
        let line = format!("{} of {} envoys are back since the restore", totals.back, totals.envoys);
        log(Level::Info, line, out);
    }
}
