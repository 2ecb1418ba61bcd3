//! The daemon's end of the control socket, inside its event loop.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use common::time::Mono;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use super::{REQUEST_BYTES_MAX, Reply, Request};

/// Connections at once; people and scripts, not fleets.
const CONNECTIONS_MAX: usize = 16;
/// Time to say what is wanted, and to read what is there, in milliseconds.
const PATIENCE_MS: u64 = 10_000;

/// A connection that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting(u64);

/// The socket and its connections. Tokens from `base` on are its own.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    base: usize,
    connections: BTreeMap<u64, Connection>,
    next: u64,
}

struct Connection {
    stream: UnixStream,
    token: Token,
    input: Vec<u8>,
    output: Vec<u8>,
    asked: bool,
    answered: bool,
    /// For input, and for output once there is some; while an answer is being made there is none.
    deadline: Option<Mono>,
}

impl Control {
    /// Binds the socket; one that a dead daemon left behind is replaced (the caller holds the lock of the directory).
    pub fn bind(path: &Path, registry: &Registry, base: usize) -> io::Result<Control> {
        use std::os::unix::fs::PermissionsExt;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        registry.register(&mut listener, Token(base), Interest::READABLE)?;
        Ok(Control { listener, path: path.to_owned(), base, connections: BTreeMap::new(), next: 1 })
    }

    /// Whether a token is one of this socket's.
    pub fn owns(&self, token: Token) -> bool {
        (self.base..=self.base + CONNECTIONS_MAX).contains(&token.0)
    }

    /// Accepts, reads and writes; returns what was asked.
    #[must_use = "a request that is dropped is never answered"]
    pub fn drive(&mut self, registry: &Registry, now: Mono) -> Vec<(Waiting, Request)> {
        self.accept(registry, now);
        let (mut asked, mut gone) = (Vec::new(), Vec::new());
        for (&id, connection) in &mut self.connections {
            match connection.turn(now) {
                Turn::Asked(request) => asked.push((Waiting(id), request)),
                Turn::Wait => {}
                Turn::Over => gone.push(id),
            }
        }
        self.forget(&gone, registry);
        asked
    }

    /// Writes what was answered, and asks nobody: for a moment at which new requests cannot be taken.
    pub fn flush(&mut self, registry: &Registry) {
        let over = |(&id, connection): (&u64, &mut Connection)| matches!(connection.write(), Turn::Over).then_some(id);
        let gone: Vec<u64> = self.connections.iter_mut().filter_map(over).collect();
        self.forget(&gone, registry);
    }

    fn forget(&mut self, gone: &[u64], registry: &Registry) {
        for id in gone {
            if let Some(mut connection) = self.connections.remove(id) {
                let _ = registry.deregister(&mut connection.stream);
            }
        }
    }

    /// Answers; the bytes leave with the next [`Control::drive`] or [`Control::flush`]. Somebody who has gone meanwhile is
    /// no error.
    pub fn reply(&mut self, to: Waiting, reply: &Reply, now: Mono) {
        if let Some(connection) = self.connections.get_mut(&to.0) {
            connection.answer(reply, now);
        }
    }

    /// When somebody's patience ends.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.connections.values().filter_map(|connection| connection.deadline).min()
    }

    fn accept(&mut self, registry: &Registry, now: Mono) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let taken = |token| self.connections.values().any(|connection| connection.token == token);
            let free = (1..=CONNECTIONS_MAX).map(|slot| Token(self.base + slot)).find(|token| !taken(*token));
            // Too many: the connection is closed, which a client reports as "busy".
            let Some(token) = free else { continue };
            if registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_err() {
                continue;
            }
            let connection = Connection {
                stream,
                token,
                input: Vec::new(),
                output: Vec::new(),
                asked: false,
                answered: false,
                deadline: Some(now + PATIENCE_MS),
            };
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Left behind it would only make clients say "refused" instead of "not running".
        let _ = std::fs::remove_file(&self.path);
    }
}

enum Turn {
    Asked(Request),
    Wait,
    Over,
}

impl Connection {
    fn turn(&mut self, now: Mono) -> Turn {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Turn::Over;
        }
        let closed = self.read().is_err();
        if !self.asked {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                self.asked = true;
                self.deadline = None;
                match serde_json::from_slice(&self.input[..end]) {
                    Ok(request) => return Turn::Asked(request),
                    Err(error) => self.answer(&Reply::Refused(format!("not a request: {error}")), now),
                }
            } else if closed || self.input.len() > REQUEST_BYTES_MAX {
                return Turn::Over;
            }
        }
        self.write()
    }

    /// Writes what there is to write.
    fn write(&mut self) -> Turn {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Turn::Over,
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Over,
            }
        }
        if self.answered { Turn::Over } else { Turn::Wait }
    }

    /// Reads what is there; an error means that the other end is gone.
    fn read(&mut self) -> Result<(), ()> {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(()),
                Ok(n) if self.input.len() <= REQUEST_BYTES_MAX => self.input.extend_from_slice(&buffer[..n]),
                Ok(_) => return Err(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(()),
            }
        }
    }

    fn answer(&mut self, reply: &Reply, now: Mono) {
        let text = serde_json::to_string(reply).unwrap_or_else(|error| format!("{{\"refused\":\"{error}\"}}"));
        self.output.extend_from_slice(text.as_bytes());
        self.output.push(b'\n');
        self.answered = true;
        self.deadline = Some(now + PATIENCE_MS);
    }
}
