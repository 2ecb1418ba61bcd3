//! Connections between agents and the server: ordered and reliable until they break, as TCP is. Time on the wire and in
//! queues is drawn for every message; a message never overtakes another of its direction.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::proto::Code;
use common::time::Mono;
use envoy::agent::{CallId as AgentCall, LinkId};
use vigosrv::app::{CallId, ConnId, Method};

/// A message on its way to an agent.
#[derive(Debug)]
pub(crate) enum ToAgent {
    Connected { link: LinkId, exporter: [u8; 32], ca_trusted: bool },
    ConnectFailed { link: LinkId },
    Disconnected { link: LinkId },
    Reply { conn: ConnId, call: AgentCall, result: Result<Bytes, (Code, String)> },
    Timeout { call: AgentCall },
    Item { conn: ConnId, call: AgentCall, body: Bytes },
    End { conn: ConnId, call: AgentCall, result: Result<(), (Code, String)> },
}

/// A message on its way to the server.
#[derive(Debug)]
pub(crate) enum ToServer {
    Connected {
        conn: ConnId,
    },
    Disconnected {
        conn: ConnId,
    },
    Request {
        call: CallId,
        method: Method,
        body: Bytes,
    },
    /// A streamed item left the socket buffer.
    StreamReady {
        call: CallId,
    },
}

/// Who is at the client end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// An agent, with its incarnation.
    Agent { host: usize, incarnation: u32, link: LinkId },
    /// The `enroll` verb on a host.
    Enroller { host: usize },
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub peer: Peer,
    pub exporter: [u8; 32],
    /// Server boot in which it was made.
    pub boot: u32,
    /// Ready for the next message towards the server, and towards the agent.
    pub busy_up: Mono,
    pub busy_down: Mono,
    /// Calls in flight: HTTP/2 stream to the agent's call.
    pub calls: BTreeMap<u32, (AgentCall, Method)>,
    pub next_stream: u32,
}

/// All connections that are up.
#[derive(Debug, Default)]
pub(crate) struct Net {
    pub conns: BTreeMap<ConnId, Conn>,
    next: u64,
}

impl Net {
    /// A new connection.
    pub fn open(&mut self, peer: Peer, boot: u32, exporter: [u8; 32], now: Mono) -> ConnId {
        self.next += 1;
        let id = ConnId(self.next);
        let conn = Conn { peer, exporter, boot, busy_up: now, busy_down: now, calls: BTreeMap::new(), next_stream: 1 };
        self.conns.insert(id, conn);
        id
    }

    /// The connection of an agent's link.
    pub fn of_link(&self, host: usize, incarnation: u32, link: LinkId) -> Option<ConnId> {
        let peer = Peer::Agent { host, incarnation, link };
        self.conns.iter().find(|(_, conn)| conn.peer == peer).map(|(id, _)| *id)
    }

    /// Connections of a host.
    pub fn of_host(&self, wanted: usize) -> Vec<ConnId> {
        let fits = |peer: &Peer| match peer {
            Peer::Agent { host, .. } | Peer::Enroller { host } => *host == wanted,
        };
        self.conns.iter().filter(|(_, conn)| fits(&conn.peer)).map(|(id, _)| *id).collect()
    }
}
