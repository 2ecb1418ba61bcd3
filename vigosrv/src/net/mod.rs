//! Sockets of the server: one loop thread for agents, one for operators.
//!
//! A loop owns its `mio::Poll`, its connections and their TLS and HTTP/2 state, and blocks nowhere but in `poll`. It decides
//! nothing about agents: what arrives becomes an `Event` for the core, what the core wants is an `Effect`. An error ends
//! exactly one connection or is a [`Fatal`].

mod accept;
mod api;
mod download;
mod http1;
mod limits;
mod mailbox;
mod reactor;
mod slab;

use std::fmt;
use std::io;

pub use accept::Listener;
pub use api::{AdminSocket, ApiLoop, ApiMail, ApiOptions};
pub use limits::{PeerLimits, PeerRule};
pub use mailbox::{Gone, Mailbox};
pub use reactor::{Handler, Mail, NetCounts, NetOptions, Outside, Reactor};

/// A loop cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Fatal {
    /// An address could not be listened on.
    Listen {
        /// Which.
        address: String,
        /// Why.
        error: io::ErrorKind,
    },
    /// The operating system's readiness queue failed.
    Poll(io::ErrorKind),
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Listen { address, error } => write!(
                f,
                "cannot listen on {address}: {error}; is another server running, or does the port need a privilege?"
            ),
            Fatal::Poll(error) => write!(f, "the readiness queue of the operating system failed: {error}"),
        }
    }
}

impl std::error::Error for Fatal {}
