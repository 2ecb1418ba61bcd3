//! Everything that can reach the agent's core, and everything that the core can ask for.
//!
//! Two closed enums are the whole border between the deterministic core and its shells (the link to a server, the thread
//! that owns the store, the runner, the control socket). In production the loop thread feeds and obeys; in the simulator
//! the simulator does. No shell calls another: they meet here.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use common::bundle::{BlobRef, Bundle, SealedSecret};
use common::chain::Lane;
use common::ids::{Hash32, Uuid};
use common::log::Level;
use common::proto::Code;

use super::config::AgentConfig;
use super::pins::Pins;
use super::status::{QueueDocument, RunDocument, StatusDocument};
use crate::cache::{CacheError, QueueRecord, StoreOp};
use crate::report::RunReport;

/// One attempt to connect and the connection that it may become. Never reused within a process, so that what a dead
/// connection still says is recognised and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One call or stream. Never reused within a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One request to the store's owner or to the blob directory; the answer carries it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One request of somebody on the control socket; the answer carries it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlId(pub u64);

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The deadline of [`super::Agent::next_deadline`] may have passed.
    Tick,
    /// TCP and TLS stand.
    Connected {
        /// As in [`Effect::Connect`].
        link: LinkId,
        /// TLS exporter, RFC 9266.
        exporter: [u8; 32],
        /// The server's leaf chains to the CA of the target and has not run out. When false, `Hello` alone may be sent.
        ca_trusted: bool,
        /// The self-signed certificate at the end of the chain that the server presented, when the leaf chains to it.
        presented_ca: Option<PresentedCa>,
        /// Where it really is: kept for the day on which DNS is dead.
        ip: Option<IpAddr>,
    },
    /// No connection came about. The last event of this link.
    ConnectFailed {
        /// As in [`Effect::Connect`].
        link: LinkId,
        /// For people: name resolution, refused, timed out, TLS.
        reason: String,
    },
    /// A connection is gone, and its calls and streams with it (no further event of them). The last event of this link. Not
    /// sent after [`Effect::Disconnect`].
    Disconnected {
        /// As in [`Effect::Connect`].
        link: LinkId,
        /// For people.
        reason: String,
    },
    /// A unary call has its answer.
    Reply {
        /// As in [`Effect::Call`].
        call: CallId,
        /// The encoded message, or the gRPC status; the shell's own timeout is `DeadlineExceeded`.
        result: Result<Bytes, (Code, String)>,
    },
    /// One message of a stream.
    StreamItem {
        /// As in [`Effect::Stream`].
        call: CallId,
        /// The encoded message.
        body: Bytes,
    },
    /// A stream has ended; the connection may go on.
    StreamEnd {
        /// As in [`Effect::Stream`].
        call: CallId,
        /// How.
        result: Result<(), (Code, String)>,
    },
    /// A batch was committed and synced, or refused whole.
    Stored {
        /// As in [`Effect::Store`].
        ticket: Ticket,
        /// The outcome.
        result: Result<(), CacheError>,
    },
    /// Stored records were read.
    Records {
        /// As in [`Effect::ReadRecords`].
        ticket: Ticket,
        /// In order of sequence; may be fewer than asked for.
        result: Result<Vec<QueueRecord>, CacheError>,
    },
    /// Traits were gathered. A collector that failed or was late leaves its tree out.
    Traits {
        /// As in [`Effect::GatherTraits`].
        ticket: Ticket,
        /// In order of name.
        trees: Arc<Vec<TraitTree>>,
    },
    /// A run has ended, one way or another.
    RunDone {
        /// What it did.
        report: Box<RunReport>,
    },
    /// The run is about to change what notifies these resources: [`Effect::Promised`] answers when a kill cannot undo that.
    Promise {
        /// As ordered.
        run_id: Uuid,
        /// Names of resources.
        targets: Vec<String>,
    },
    /// The run has changed what may cut the host off: [`Effect::Confirmed`] answers when a server has answered a check-in on a new
    /// connection. A later question of the run replaces the one before; the end of the run ends it.
    Confirm {
        /// As ordered.
        run_id: Uuid,
    },
    /// Which of the asked blobs are not complete in the blob directory.
    BlobsChecked {
        /// As in [`Effect::BlobCheck`].
        ticket: Ticket,
        /// Each with the bytes that are there already from an interrupted transfer.
        missing: Vec<(BlobRef, u64)>,
    },
    /// The last piece of a blob was written: the hash was compared, the file synced and renamed. Or any piece failed.
    BlobWritten {
        /// Which.
        hash: Hash32,
        /// On an error what was there is gone: the transfer starts at 0.
        result: Result<(), String>,
    },
    /// A new sealing key is on disk and synced, or not.
    SealingKey {
        /// Its public half.
        result: Result<[u8; 32], String>,
    },
    /// The pins are on disk and synced, or not.
    PinsSaved {
        /// The outcome.
        result: Result<(), String>,
    },
    /// Somebody on the control socket wants something.
    Control {
        /// For the answer.
        id: ControlId,
        /// What.
        request: ControlRequest,
    },
    /// The program could not be executed anew: this process goes on.
    RenewFailed {
        /// For people: the program, and why.
        reason: String,
    },
    /// A signal, or what the shell made of one.
    Signal(Signal),
}

/// What the core wants done. Order matters: effects are obeyed in the order in which they were pushed.
#[derive(Debug)]
pub enum Effect {
    /// Connects and shakes hands, within [`common::limits::CONNECT_TIMEOUT_MS`]. At most one link exists at a time.
    Connect {
        /// For every event of it.
        link: LinkId,
        /// Where to, and whom to trust there.
        target: Box<Target>,
    },
    /// Drops a link in whatever state it is, calls and streams included; GOAWAY where it is up. No event answers.
    Disconnect {
        /// Which.
        link: LinkId,
    },
    /// A unary call; [`Event::Reply`] answers, or the end of the link does.
    Call {
        /// Its link.
        link: LinkId,
        /// For the answer.
        call: CallId,
        /// One of [`common::proto::method`].
        method: &'static str,
        /// The encoded message.
        body: Bytes,
        /// After this it has failed.
        timeout_ms: u64,
    },
    /// A server stream; [`Event::StreamItem`] and [`Event::StreamEnd`] answer.
    Stream {
        /// Its link.
        link: LinkId,
        /// For the answers.
        call: CallId,
        /// One of [`common::proto::method`].
        method: &'static str,
        /// The encoded message.
        body: Bytes,
    },
    /// One synced transaction; [`Event::Stored`] answers, in the order of the requests.
    Store {
        /// For the answer.
        ticket: Ticket,
        /// What.
        ops: Vec<StoreOp>,
    },
    /// Reads records; [`Event::Records`] answers. In order with [`Effect::Store`].
    ReadRecords {
        /// For the answer.
        ticket: Ticket,
        /// Lane.
        lane: Lane,
        /// From this first sequence on.
        first: u64,
        /// About this many bytes, at least one record.
        max_bytes: usize,
    },
    /// Gathers all traits; [`Event::Traits`] answers.
    GatherTraits {
        /// For the answer.
        ticket: Ticket,
    },
    /// Starts a run in the runner's thread; [`Event::RunDone`] answers. At most one run exists at a time.
    StartRun(Box<RunOrder>),
    /// Cuts the run short: the current resource gets `grace_ms`, then its group is ended and it counts as interrupted.
    /// [`Event::RunDone`] still answers.
    StopRun {
        /// Time for the current resource.
        grace_ms: u64,
    },
    /// What [`Event::Promise`] named is stored, or cannot be: the runner goes on.
    Promised {
        /// Of the run.
        run_id: Uuid,
    },
    /// What [`Event::Confirm`] asked for has happened.
    Confirmed {
        /// Of the run.
        run_id: Uuid,
    },
    /// Looks which blobs are complete; [`Event::BlobsChecked`] answers.
    BlobCheck {
        /// For the answer.
        ticket: Ticket,
        /// Which.
        blobs: Vec<BlobRef>,
    },
    /// Writes a piece of a blob. [`Event::BlobWritten`] answers the last piece, and any piece that failed.
    BlobWrite {
        /// Which.
        hash: Hash32,
        /// Where in the file. 0 starts it over.
        offset: u64,
        /// The bytes.
        data: Bytes,
        /// Nothing comes after it.
        last: bool,
    },
    /// Removes every blob but these: the ones that the two slots name.
    BlobsKeep(Vec<Hash32>),
    /// Replaces the pin file, synced; [`Event::PinsSaved`] answers.
    SavePins(Box<Pins>),
    /// Makes another sealing key, and keeps the present one beside it; [`Event::SealingKey`] answers.
    RenewSealingKey,
    /// Answers the control socket.
    ControlReply {
        /// As in [`Event::Control`].
        id: ControlId,
        /// The answer.
        reply: ControlReply,
    },
    /// A line for the log.
    Log {
        /// How loud.
        level: Level,
        /// The line; no secret in it.
        line: String,
    },
    /// Tells the service manager.
    Notify(Notice),
    /// Executes the program that is on the disk, in this process. [`Event::RenewFailed`] answers, or nothing does.
    Renew,
    /// Ends the process. The last effect ever.
    Exit {
        /// Exit status.
        code: u8,
    },
}

/// The CA certificate that a server presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedCa {
    /// PEM.
    pub pem: String,
    /// SHA-256 of its DER.
    pub hash: Hash32,
}

/// Where to connect, and whom to trust there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// Where that name was found last, for when DNS is dead.
    pub known_ips: Vec<IpAddr>,
    /// PEM of the CA that the server's leaf must chain to.
    pub ca_pem: String,
    /// `notAfter` of the leaf is compared with this (server time, ms), never with the host's clock; `notBefore` with nothing.
    pub server_time_ms: u64,
}

/// One top-level tree of traits.
#[derive(Clone, Debug, PartialEq)]
pub struct TraitTree {
    /// `os`, `network`.
    pub name: String,
    /// Its content, held once for all that look at it.
    pub value: Arc<serde_json::Value>,
    /// Changes all the time (`load`, `uptime`): not part of the hash that a heartbeat carries.
    pub volatile: bool,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct RunOrder {
    /// `VIGO_RUN_ID` of its children; comes back in the report.
    pub run_id: Uuid,
    /// Verified policy.
    pub bundle: Arc<Bundle>,
    /// What it refers to, sealed to this envoy.
    pub secrets: Arc<Vec<SealedSecret>>,
    /// Values before these: the host still has them somewhere, and no report may quote them. Never applied.
    pub former_secrets: Arc<Vec<SealedSecret>>,
    /// Fresh traits.
    pub traits: Arc<Vec<TraitTree>>,
    /// Name that the server knows this host by.
    pub hostname: String,
    /// Change nothing.
    pub dry_run: bool,
    /// Make diffs.
    pub diff: bool,
    /// [`RunReport::owed`] of the run before.
    pub owed: Vec<String>,
}

/// Signals in the core's words.
#[derive(Clone, Debug)]
pub enum Signal {
    /// Finish and exit within 10 s.
    Term,
    /// The configuration was read again and is valid.
    Reload(Box<AgentConfig>),
    /// HUP: the same, and the program is to be executed anew when nothing is under way.
    Renew(Box<AgentConfig>),
}

/// What a service manager is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Started.
    Ready,
    /// TERM was heard.
    Stopping,
    /// One line for `systemctl status`.
    Status(String),
}

/// What the control socket can ask of the core. (`traits` and `verify` go to their owners without it.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    /// `vigo-envoy status`.
    Status,
    /// `vigo-envoy queue`.
    Queue,
    /// `vigo-envoy run --once`: answered when the run is over and its record is stored.
    RunOnce {
        /// Change nothing, queue nothing.
        dry_run: bool,
        /// Do not ask the server first.
        offline: bool,
        /// Make diffs.
        diff: bool,
        /// Tell of every resource.
        all: bool,
    },
}

/// What it is told.
#[derive(Clone, Debug)]
pub enum ControlReply {
    /// Of [`ControlRequest::Status`].
    Status(Box<StatusDocument>),
    /// Of [`ControlRequest::Queue`].
    Queue(Box<QueueDocument>),
    /// Of [`ControlRequest::RunOnce`].
    Ran(Box<RunDocument>),
    /// It cannot be done: what, and what to do.
    Refused(String),
}
