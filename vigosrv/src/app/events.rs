//! Everything that can reach the server's core, and everything that the core can ask for.
//!
//! Two closed enums are the whole border between the deterministic core and the shells (network loop, writer thread,
//! job pool, admin API). In production the gRPC loop thread feeds and obeys; in the simulator the simulator does.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use common::ids::{Hash32, Uuid};
use common::log::Level;
use common::proto::Code;

use crate::policy::Compiled;
use crate::secrets::Vault;
use crate::store::{StoreError, Write, Written};

/// One connection. Never reused while the server runs, so that a stale one is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One call on one connection; `stream` is the HTTP/2 stream id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// Its connection.
    pub conn: ConnId,
    /// Its HTTP/2 stream.
    pub stream: u32,
}

/// Methods of `vigo.v1.Agent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are those of the .proto")]
pub enum Method {
    Hello,
    Enroll,
    Authenticate,
    CheckIn,
    Report,
    FetchBlob,
    Watch,
}

impl Method {
    /// From the `:path` of a request.
    pub fn from_path(path: &str) -> Option<Method> {
        use common::proto::method;
        Some(match path {
            method::CHECK_IN => Method::CheckIn,
            method::REPORT => Method::Report,
            method::HELLO => Method::Hello,
            method::AUTHENTICATE => Method::Authenticate,
            method::ENROLL => Method::Enroll,
            method::FETCH_BLOB => Method::FetchBlob,
            method::WATCH => Method::Watch,
            _ => return None,
        })
    }
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A TLS handshake is done.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Peer address, for limits and trusted entries.
        peer: IpAddr,
        /// TLS exporter, RFC 9266.
        exporter: [u8; 32],
    },
    /// A connection is gone; its calls are gone with it.
    Disconnected {
        /// The connection.
        conn: ConnId,
    },
    /// A complete request message, gRPC framing removed and size limited.
    Request {
        /// Where the answer goes.
        call: CallId,
        /// What is asked.
        method: Method,
        /// The encoded message.
        body: Bytes,
    },
    /// A streaming answer can take another item (sent once after the stream opened and after each item was written out).
    StreamReady {
        /// The stream.
        call: CallId,
    },
    /// The peer gave up one call.
    Cancelled {
        /// The call.
        call: CallId,
    },
    /// The writer is done with a write.
    Written {
        /// As in [`Effect::Write`].
        ticket: u64,
        /// What became of it.
        result: Result<Written, StoreError>,
    },
    /// A piece of a blob was read.
    BlobRead {
        /// As in [`Effect::ReadBlob`].
        ticket: u64,
        /// The bytes, or why not.
        result: Result<Bytes, String>,
    },
    /// An operator wants something.
    Admin {
        /// For the answer.
        ticket: u64,
        /// What.
        request: AdminRequest,
    },
    /// The deadline of [`super::Server::next_deadline`] may have passed.
    Tick,
    /// Shut down: no new work, tell held connections to go away in slices.
    Drain,
}

/// What the core wants done. Order matters: effects are obeyed in the order in which they were pushed.
#[derive(Debug)]
pub enum Effect {
    /// Answers a unary call.
    Reply {
        /// The call.
        call: CallId,
        /// The encoded message.
        body: Bytes,
    },
    /// Ends a call (unary or streaming) with an error status.
    Fail {
        /// The call.
        call: CallId,
        /// gRPC status.
        code: Code,
        /// For people.
        message: String,
    },
    /// One item of a streaming answer.
    Item {
        /// The call.
        call: CallId,
        /// The encoded message.
        body: Bytes,
    },
    /// Ends a streaming answer well.
    End {
        /// The call.
        call: CallId,
    },
    /// The peer has proved who it is: the shell lifts the limits that it sets for strangers.
    Trust {
        /// The connection.
        conn: ConnId,
    },
    /// Closes a connection: `graceful` by GOAWAY, else at once.
    Close {
        /// The connection.
        conn: ConnId,
        /// Let calls in flight finish.
        graceful: bool,
    },
    /// Something durable; [`Event::Written`] answers with the same ticket, in order of the writes.
    Write {
        /// For the answer.
        ticket: u64,
        /// What.
        write: Write,
    },
    /// Reads a piece of a published file; [`Event::BlobRead`] answers.
    ReadBlob {
        /// For the answer.
        ticket: u64,
        /// Which.
        hash: Hash32,
        /// From where.
        offset: u64,
        /// How much at most.
        len: usize,
    },
    /// Answers an operator.
    AdminReply {
        /// As in [`Event::Admin`].
        ticket: u64,
        /// The outcome.
        result: Result<AdminReply, AdminError>,
    },
    /// A line for the log.
    Log {
        /// How loud.
        level: Level,
        /// The line; no secret in it.
        line: String,
    },
}

/// What operators ask of the core through REST; reads go to the FleetIndex and the read-only database instead.
#[derive(Clone, Debug)]
pub enum AdminRequest {
    /// Makes a one-time token valid. The token itself was made by the shell (entropy), which shows it once.
    Invite {
        /// SHA-256 of the token text.
        token: Hash32,
        /// Bound to this name.
        hostname: Option<String>,
        /// The envoy with that name is replaced.
        replace: bool,
        /// Milliseconds from now.
        ttl_ms: u64,
        /// Who asks.
        actor: String,
    },
    /// Bars an envoy.
    Revoke {
        /// Which.
        uuid: Uuid,
        /// Why.
        reason: String,
        /// Who asks.
        actor: String,
    },
    /// Gives a pending or reviewed envoy its full standing.
    Approve {
        /// Which.
        uuid: Uuid,
        /// Who asks.
        actor: String,
    },
    /// A new host name.
    Rename {
        /// Which.
        uuid: Uuid,
        /// To what.
        hostname: String,
        /// Who asks.
        actor: String,
    },
    /// Wants another sealing key of an envoy.
    Rekey {
        /// Which.
        uuid: Uuid,
        /// Who asks.
        actor: String,
    },
    /// Tells a held envoy to check in now.
    Push {
        /// Which; empty for all.
        uuids: Vec<Uuid>,
        /// Who asks.
        actor: String,
    },
    /// Sends a signed re-bootstrap statement at the next contact.
    Rebootstrap {
        /// Which; empty for all.
        uuids: Vec<Uuid>,
        /// Where to.
        target: RebootstrapTarget,
        /// Who asks.
        actor: String,
    },
    /// A tree was validated, compiled and swapped into `.live/`: make it current.
    Published {
        /// The result.
        compiled: Arc<Compiled>,
        /// Who published.
        actor: String,
        /// Why.
        message: String,
        /// What changed, for history.
        summary: String,
    },
    /// Secrets were set or removed on disk: the envoys that they concern get a new serial.
    Secrets {
        /// All of them, as they are now.
        vault: Arc<Vault>,
        /// Paths that changed.
        changed: Vec<String>,
        /// Who asks.
        actor: String,
    },
    /// Numbers for `/metrics` and `status` that only the core has.
    Stats,
}

/// The server that a re-bootstrapped envoy shall trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebootstrapTarget {
    /// `host:port`.
    pub address: String,
    /// PEM of its CA.
    pub ca_pem: String,
    /// Its identity key.
    pub identity_key: common::crypto::PublicKey,
    /// Its policy key.
    pub policy_key: common::crypto::PublicKey,
}

/// What operators get.
#[derive(Clone, Debug, PartialEq)]
pub enum AdminReply {
    /// Done.
    Done,
    /// Done for this many envoys; the rest will see it at their next contact.
    Reached {
        /// Envoys with a held stream.
        now: usize,
        /// Others.
        later: usize,
    },
    /// Published under this serial; so many envoys get something new.
    Published {
        /// New serial.
        serial: u64,
        /// Envoys whose bundle changes.
        envoys: usize,
    },
    /// Numbers.
    Stats(Box<super::Stats>),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    /// No such envoy.
    UnknownEnvoy,
    /// The name belongs to another envoy.
    NameTaken,
    /// The request does not fit the envoy's state: the text says how.
    Conflict(String),
    /// The database could not store it.
    Store(StoreError),
    /// This server has a lower epoch than one that its envoys met, and is read-only.
    ReadOnly,
}
