//! What the core knows of one connection: how far its authentication is.

use std::net::IpAddr;

use common::ids::{Hash32, Uuid};

/// How far a connection has come. One signature each way authenticates everything after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was said.
    New,
    /// `Hello` was answered: both sides can sign its hash.
    Greeted {
        /// Hash of the exchange.
        hello: Hash32,
    },
    /// The envoy proved itself.
    Authenticated {
        /// Who it is.
        uuid: Uuid,
        /// It has shown an epoch that is not above ours: results and policy may flow.
        current: bool,
        /// Hash of the `Hello` exchange.
        hello: Hash32,
    },
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Peer address.
    pub peer: IpAddr,
    /// TLS exporter.
    pub exporter: [u8; 32],
    /// Progress.
    pub stage: Stage,
    /// A `Report` waits for the writer: one at a time.
    pub reporting: bool,
}

impl Session {
    pub fn new(peer: IpAddr, exporter: [u8; 32]) -> Session {
        Session { peer, exporter, stage: Stage::New, reporting: false }
    }

    /// Hash of the `Hello` exchange, once there was one.
    pub fn hello(&self) -> Option<Hash32> {
        match self.stage {
            Stage::New => None,
            Stage::Greeted { hello } | Stage::Authenticated { hello, .. } => Some(hello),
        }
    }

    /// Who is at the other end.
    pub fn uuid(&self) -> Option<Uuid> {
        match self.stage {
            Stage::Authenticated { uuid, .. } => Some(uuid),
            _ => None,
        }
    }
}
