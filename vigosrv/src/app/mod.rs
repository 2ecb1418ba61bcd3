//! The server's core: `handle(now, event, effects)`. Deterministic; owns sessions, calls in flight and periodic work.
//!
//! It reads no clock, no file and no socket. What it wants it says in [`Effect`]s, what happens it learns from
//! [`Event`]s. Durable answers wait for the writer's ticket as an entry in a table, never as a blocked thread: a reply
//! that acknowledges something is pushed only from [`Event::Written`].
//!
//! Limits: `common::limits`, and [`Settings`] where operators may move them.

mod admin;
mod admission;
mod events;
mod pending;
mod periodic;
mod restore;
mod served;
mod session;
mod settings;
mod statements;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Verdict};
pub use events::*;
pub use served::Served;
pub use settings::{Hold, Identity, Rebuilt, Settings, Stats, TrustedEntry};

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use common::bundle::Version;
use common::ids::Uuid;
use common::log::Level;
use common::proto::{Code, Message, wire};
use common::rng::Rng;
use common::time::{Mono, Now};

use crate::fleet::{Clocks, Entry, Fleet, OwnKeys};
use crate::policy::Compiled;
use crate::secrets::Vault;
use crate::store::{ServerState, Snapshot, Write};

pub(crate) use pending::{BEHIND_RETRY_MS, Pending, found_duplicate, put_off, receipt};
pub(crate) use restore::{Memory, weigh};
pub(crate) use session::{Session, Stage};
pub(crate) use statements::{Statement, statement_for};

/// What a server is made from.
pub struct ServerInit {
    /// Keys and names.
    pub identity: Identity,
    /// Operator's settings.
    pub settings: Settings,
    /// What the database holds.
    pub snapshot: Snapshot,
    /// What `.live/` holds, if anything was ever published.
    pub compiled: Option<Arc<Compiled>>,
    /// The database was restored (marker, continuity file): raise the epoch, and outbid higher ones for a while.
    pub restored: Option<String>,
    /// An earlier start has raised the epoch after a restore: outbid higher ones for so long, in milliseconds.
    pub outbid_ms: u64,
    /// Entropy.
    pub rng: Box<dyn Rng + Send>,
    /// What it may give to its envoys.
    pub vault: Arc<Vault>,
    /// Secrets that changed while nobody told the envoys that they concern.
    pub changed_secrets: Vec<String>,
    /// The clocks at start.
    pub now: Now,
}

/// The core. One owner, one thread.
pub struct Server {
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) served: Served,
    pub(crate) state: ServerState,
    pub(crate) rng: Box<dyn Rng + Send>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) sessions: OwnKeys<ConnId, Session>,
    /// The connection on which an envoy is authenticated: the newest wins.
    pub(crate) connected: OwnKeys<Uuid, ConnId>,
    /// Held streams.
    pub(crate) watchers: OwnKeys<Uuid, CallId>,
    /// Streams of blobs under way.
    pub(crate) blobs: OwnKeys<CallId, crate::rpc::BlobStream>,
    /// Writes and reads whose answer somebody waits for.
    pub(crate) pending: BTreeMap<u64, Pending>,
    pub(crate) next_ticket: u64,
    pub(crate) admission: Admission,
    pub(crate) periodic: periodic::Periodic,
    pub(crate) restore: restore::Restore,
    /// Statements to hand over at the next contact.
    pub(crate) statements: OwnKeys<Uuid, Statement>,
    /// How many of them were handed over lately.
    pub(crate) handed: statements::Handed,
    /// Envoys that were enrolled to replace another: new -> old.
    pub(crate) replacing: OwnKeys<Uuid, Uuid>,
    pub(crate) stats: Stats,
    pub(crate) draining: bool,
}

impl Server {
    /// Rebuilds everything from the database and the published tree.
    pub fn new(init: ServerInit, out: &mut Vec<Effect>) -> Server {
        let fleet = Fleet::rebuild(&init.snapshot.envoys, init.now.mono);
        let replacing = replacements(&fleet);
        let seen = init.snapshot.envoys.iter().map(|row| row.last_seen.max(row.enrolled_at));
        let known_until = seen.max().unwrap_or_default();
        let mut server = Server {
            admission: Admission::new(init.settings.checkins_per_second),
            identity: init.identity,
            fleet: Arc::new(fleet),
            served: Served::new(init.compiled),
            state: init.snapshot.state,
            rng: init.rng,
            vault: init.vault,
            sessions: OwnKeys::default(),
            connected: OwnKeys::default(),
            watchers: OwnKeys::default(),
            blobs: OwnKeys::default(),
            pending: BTreeMap::new(),
            next_ticket: 1,
            periodic: periodic::Periodic::new(init.now.mono),
            restore: restore::Restore::default(),
            statements: OwnKeys::default(),
            handed: statements::Handed::default(),
            replacing,
            stats: Stats::default(),
            draining: false,
            settings: init.settings,
        };
        if init.outbid_ms > 0 {
            server.restore.until = init.now.mono + init.outbid_ms;
        }
        server.restore.known_until = known_until;
        if let Some(reason) = init.restored {
            restore::begin(&mut server, init.now, reason, out);
        }
        if let Some(epoch) = server.identity.rebuilt.as_ref().map(|rebuilt| rebuilt.epoch) {
            restore::reach(&mut server, init.now, epoch, out);
        }
        statements::load(&mut server, init.now, init.snapshot.statements, out);
        server.settle_interval(init.now, out);
        server.reassign_differing(init.now, out);
        let assign = server.envoys_with(&init.changed_secrets);
        if !assign.is_empty() {
            let write = Write::Assign { assign: assign.clone(), at: init.now.wall };
            server.write(write, Pending::Assigned { assign }, out);
        }
        server
    }

    /// One thing happened; push what shall be done.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Request { call, method, body } => crate::rpc::on_request(self, now, call, method, body, out),
            Event::Written { ticket, result } => pending::on_written(self, now, ticket, result, out),
            Event::BlobRead { ticket, result } => crate::rpc::on_blob_read(self, ticket, result, out),
            Event::StreamReady { call } => crate::rpc::on_stream_ready(self, call, out),
            Event::Connected { conn, peer, exporter } => {
                self.sessions.insert(conn, Session::new(peer, exporter));
            }
            Event::Disconnected { conn } => self.on_disconnected(conn),
            Event::Cancelled { call } => self.on_cancelled(call),
            Event::Admin { ticket, request } => admin::on_request(self, now, ticket, request, out),
            Event::Tick => periodic::on_tick(self, now, out),
            Event::Drain => periodic::on_drain(self, now, out),
        }
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        Some(self.periodic.next_deadline())
    }

    /// The index, for readers.
    pub fn fleet(&self) -> Arc<Fleet> {
        self.fleet.clone()
    }

    /// Epoch and serial as committed.
    pub fn version(&self) -> Version {
        self.state.version
    }

    /// The single values as committed.
    pub fn state(&self) -> &ServerState {
        &self.state
    }

    /// Whether a higher epoch was met: read-only.
    pub fn stepped_down(&self) -> bool {
        self.restore.stepped_down.is_some()
    }

    /// What status rules need.
    pub fn clocks(&self, now: Mono) -> Clocks {
        Clocks { now, restore_until: self.restore.until, interval_ms: self.settings.interval_ms }
    }

    pub(crate) fn write(&mut self, write: Write, pending: Pending, out: &mut Vec<Effect>) {
        let ticket = self.ticket();
        self.pending.insert(ticket, pending);
        out.push(Effect::Write { ticket, write });
    }

    pub(crate) fn ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }

    /// What a bundle compile gives for a host name now.
    pub(crate) fn bundle_for(&self, hostname: &str) -> Option<common::ids::Hash32> {
        self.served.bundle_for(hostname)
    }

    /// Gives the envoys whose recorded bundle is not what the policy gives their new one: they were enrolled while a publish
    /// was under way, or something was published with no server running.
    pub(crate) fn reassign_differing(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut assign = Vec::new();
        if self.served.is_published() {
            self.fleet.for_each(|entry| {
                let bundle = self.served.bundle_for(&entry.hostname);
                if entry.may_connect() && bundle != entry.bundle {
                    assign.push((entry.uuid, bundle));
                }
            });
        }
        if !assign.is_empty() {
            self.write(Write::Assign { assign: assign.clone(), at: now.wall }, Pending::Assigned { assign }, out);
        }
    }

    /// The envoys whose policy refers to one of these secrets, with the bundle that they have.
    pub(crate) fn envoys_with(&self, secrets: &[String]) -> Vec<(Uuid, Option<common::ids::Hash32>)> {
        let mut assign = Vec::new();
        let concerns =
            |bundle: &common::ids::Hash32| self.served.secrets(bundle).iter().any(|path| secrets.contains(path));
        self.fleet.for_each(|entry| {
            if entry.may_connect() && entry.bundle.as_ref().is_some_and(concerns) {
                assign.push((entry.uuid, entry.bundle));
            }
        });
        assign
    }

    /// An interval that differs from the one that assignments were made with: everybody gets a new assignment.
    pub(crate) fn settle_interval(&mut self, now: Now, out: &mut Vec<Effect>) {
        let interval_ms = self.settings.interval_ms;
        if self.state.interval_ms != interval_ms {
            self.write(Write::SetInterval { interval_ms, at: now.wall }, Pending::Interval, out);
        }
    }

    /// Applies new bundles to the index once they are durable, under the serial of the moment.
    pub(crate) fn apply_assignments(&mut self, assign: &[(Uuid, Option<common::ids::Hash32>)]) {
        let serial = self.state.version.serial;
        for (uuid, bundle) in assign {
            self.fleet.update(uuid, |entry| (entry.bundle, entry.assigned_serial) = (*bundle, serial));
        }
    }

    fn on_disconnected(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.remove(&conn)
            && let Stage::Authenticated { uuid, .. } = session.stage
            && self.connected.get(&uuid) == Some(&conn)
        {
            self.connected.remove(&uuid);
        }
        self.watchers.retain(|_, call| call.conn != conn);
        self.blobs.retain(|call, _| call.conn != conn);
    }

    fn on_cancelled(&mut self, call: CallId) {
        self.watchers.retain(|_, held| *held != call);
        self.blobs.remove(&call);
    }
}

/// Two envoys of one name that may both connect: the younger was enrolled to replace the older.
fn replacements(fleet: &Fleet) -> OwnKeys<Uuid, Uuid> {
    let mut map = OwnKeys::default();
    fleet.for_each(|entry| {
        if entry.may_connect()
            && let Some(holder) = fleet.by_name(&entry.hostname)
            && holder != entry.uuid
        {
            map.insert(holder, entry.uuid);
        }
    });
    map
}

pub(crate) fn reply<M: Message>(call: CallId, message: &M, out: &mut Vec<Effect>) {
    out.push(Effect::Reply { call, body: Bytes::from(message.encode_to_vec()) });
}

pub(crate) fn fail(call: CallId, code: Code, message: impl Into<String>, out: &mut Vec<Effect>) {
    out.push(Effect::Fail { call, code, message: message.into() });
}

pub(crate) fn log(level: Level, line: impl Into<String>, out: &mut Vec<Effect>) {
    out.push(Effect::Log { level, line: line.into() });
}

/// The revocation echo that every authenticated answer carries.
pub(crate) fn revocation(state: &ServerState) -> Option<wire::RevocationEcho> {
    Some(wire::RevocationEcho { counter: state.revocation_counter, digest: state.revocation_digest })
}

/// An entry for a row that the store just committed.
pub(crate) fn entry_of(row: &crate::store::EnvoyRow, now: Now) -> Entry {
    let mut entry = Entry::from_row(row, now.mono);
    entry.touch(now.mono, now.wall);
    entry
}
