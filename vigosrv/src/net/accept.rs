//! Accepting connections, and refusing them politely when there are too many or no descriptors are left.
//!
//! A listener is edge-triggered like everything else: it stays ready until `accept` says `WouldBlock`. One descriptor is
//! held in reserve: when none is left, it is given up for the moment it takes to accept and close, because a connection
//! that is neither accepted nor refused would hang its peer and keep the listener busy for ever.

use std::fs::File;
use std::io;
use std::net::SocketAddr;

use common::time::Mono;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use nix::libc::{EMFILE, ENFILE};

use super::Fatal;

/// Connections accepted in one turn, so that a storm of newcomers does not starve those who are in.
const ACCEPTS_PER_TURN_MAX: usize = 256;
/// Pause after a failure that would only repeat.
const RETRY_MS: u64 = 100;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    ready: bool,
    spare: Option<File>,
    retry_at: Option<Mono>,
}

/// What became of one attempt to accept.
pub(super) enum Accepted {
    Peer(TcpStream, SocketAddr),
    /// No descriptor was left: the peer was accepted and closed.
    Refused,
    /// Nobody waits, or the turn's share is used up.
    Nobody,
}

impl Listener {
    /// Binds. Port 0 takes any free one.
    pub fn bind(address: SocketAddr) -> Result<Listener, Fatal> {
        let fatal = |error: io::Error| Fatal::Listen { address: address.to_string(), error: error.kind() };
        let socket = TcpListener::bind(address).map_err(fatal)?;
        Ok(Listener { socket, ready: true, spare: reserve(), retry_at: None })
    }

    /// As bound.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.socket);
    }

    pub(super) fn on_event(&mut self) {
        self.ready = true;
    }

    /// Somebody may wait, and it may be tried now.
    pub(super) fn is_ready(&self) -> bool {
        self.ready && self.retry_at.is_none()
    }

    /// When to try again after a failure.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.retry_at
    }

    /// How often to call [`Listener::accept`] in this turn at most.
    pub(super) fn share(&mut self, now: Mono) -> usize {
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
        }
        if self.is_ready() { ACCEPTS_PER_TURN_MAX } else { 0 }
    }

    pub(super) fn accept(&mut self, now: Mono) -> Accepted {
        match self.socket.accept() {
            Ok((socket, peer)) => Accepted::Peer(socket, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready = false;
                Accepted::Nobody
            }
            // The peer was gone before we came; the next one may not be.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                Accepted::Refused
            }
            Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) && self.spare.take().is_some() => {
                let refused = self.socket.accept().map(drop);
                self.spare = reserve();
                match refused {
                    Ok(()) => Accepted::Refused,
                    Err(_) => self.pause(now),
                }
            }
            Err(_) => self.pause(now),
        }
    }

    fn pause(&mut self, now: Mono) -> Accepted {
        self.spare = self.spare.take().or_else(reserve);
        self.retry_at = Some(now + RETRY_MS);
        Accepted::Nobody
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
