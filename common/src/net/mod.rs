//! TLS 1.3 and HTTP/2 over non-blocking sockets, for both sides. The one shell folder of this crate.
//!
//! Nothing here owns a loop, a clock or a thread: the caller owns its `mio::Poll`, says what time it is, tells a
//! connection that its socket is ready ([`server::H2Server`], [`client::Client`]), calls `drive`, and reads events from a
//! vector. Readiness is edge-triggered: a connection that stopped before the socket was drained says so
//! (`wants_turn`), and the caller must drive it again without waiting for another edge.

mod client;
mod grpc;
mod io;
mod line;
mod pin;
mod server;
mod ticket;
mod tls;

use std::fmt;
use std::io::ErrorKind;

pub use client::{CallError, Client, ClientEvent, ClientOptions, Identity};
pub use grpc::{Frames, Status, check_request, frame, fuzz_frames, head, trailers, unframe};
pub use io::{Driven, TURN_BYTES_MAX, TlsStream};
pub use line::{Line, LineClock};
pub use pin::{Pins, Untrusted};
pub use server::{H2Limits, H2Server, ServerEvent};
pub use ticket::Tickets;
pub use tls::{TlsClock, client_config, server_config};

/// Why a connection ended, or could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetError {
    /// The peer closed it, or all that was agreed is done.
    Closed,
    /// The operating system says so.
    Io(ErrorKind),
    /// TLS: who is to blame is in the text (an alert received, a bad record).
    Tls(String),
    /// The peer spoke plain HTTP where TLS was expected.
    PlainHttp,
    /// The peer broke HTTP/2 or one of our limits on it.
    Http2(String),
    /// Nothing happened for too long; the field says during what.
    Timeout(&'static str),
    /// Certificates or keys that cannot be used.
    BadMaterial(String),
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetError::Closed => f.write_str("connection closed"),
            NetError::Io(kind) => write!(f, "network: {kind}"),
            NetError::Tls(what) => write!(f, "TLS: {what}"),
            NetError::PlainHttp => f.write_str("the peer spoke plain HTTP on a TLS port; use https"),
            NetError::Http2(what) => write!(f, "HTTP/2: {what}"),
            NetError::Timeout(during) => write!(f, "timeout during {during}"),
            NetError::BadMaterial(what) => write!(f, "certificate or key: {what}"),
        }
    }
}

impl std::error::Error for NetError {}

impl From<std::io::Error> for NetError {
    fn from(error: std::io::Error) -> NetError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => NetError::Tls(tls.to_string()),
            // However a peer hangs up, it has hung up.
            None => match error.kind() {
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => NetError::Closed,
                kind => NetError::Io(kind),
            },
        }
    }
}

impl From<rustls::Error> for NetError {
    fn from(error: rustls::Error) -> NetError {
        NetError::Tls(error.to_string())
    }
}

impl From<h2::Error> for NetError {
    fn from(error: h2::Error) -> NetError {
        if error.is_io() {
            return error.into_io().map_or(NetError::Closed, NetError::from);
        }
        NetError::Http2(error.to_string())
    }
}

#[cfg(test)]
mod tests;
