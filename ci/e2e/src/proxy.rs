//! A TCP proxy between agents and their server that can catch a request in flight: TLS hides what it carries, so a report is
//! told by its size and by the silence of the server after it. What the server answers to a caught request is held back.
//!
//! Two threads a connection, blocking reads; every wait ends with the connection or with the proxy.
#![allow(clippy::disallowed_methods, reason = "real sockets live in real time; every wait here is bounded")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::trace::ANSWER_BYTES;

/// A client waits this long for a server that is away, then is turned away.
const AWAY: Duration = Duration::from_secs(20);
/// Bytes moved at once.
const BUFFER: usize = 64 << 10;

/// A request that went to the server whose answer has not reached the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// The agent's end of the connection.
    pub agent: SocketAddr,
    /// Bytes of the request.
    pub request_bytes: usize,
    /// Bytes of the answer that the proxy holds back so far.
    pub answer_bytes: usize,
}

/// The proxy. Its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Connections go to the server; otherwise new ones wait.
    up: bool,
    closing: bool,
    /// Requests of at least this many bytes on a settled connection are caught.
    trap: Option<usize>,
    caught: Option<(u64, Caught)>,
    /// The server's host has what was caught.
    forwarded: bool,
    next: u64,
    links: BTreeMap<u64, Link>,
    /// Bytes that the server sent.
    answered: u64,
    /// Every connection is cut when the server has sent so many.
    cut_at: Option<u64>,
}

impl State {
    fn cut(&self) {
        self.links.values().for_each(Link::end);
    }
}

/// One connection.
#[derive(Debug)]
struct Link {
    agent: SocketAddr,
    client: TcpStream,
    server: TcpStream,
    /// Bytes from the agent since the server last spoke.
    unanswered: usize,
    /// How often the server spoke.
    answers: usize,
}

/// Answers before a connection is settled: handshake, `Hello`, `Authenticate`, the check-in. A large request after them is a report.
const SETTLED: usize = 4;

impl Proxy {
    /// Listens on `address` for agents of the server at `upstream`.
    pub fn start(address: SocketAddr, upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(address).expect("the proxy's address is free");
        let address = listener.local_addr().expect("a bound address");
        let state = Mutex::new(State { up: true, ..State::default() });
        let shared = Arc::new(Shared { upstream, state, changed: Condvar::new() });
        let accepting = shared.clone();
        std::thread::spawn(move || accept(&listener, &accepting));
        Proxy { shared, address }
    }

    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether new connections go to the server, or wait for it.
    pub fn set_up(&self, up: bool) {
        self.shared.lock().up = up;
        self.shared.changed.notify_all();
    }

    /// From now on the next request of at least `bytes` on a settled connection is caught: nothing of the server reaches that
    /// agent after it.
    pub fn arm(&self, bytes: usize) {
        let mut state = self.shared.lock();
        (state.trap, state.caught) = (Some(bytes), None);
    }

    /// Waits until a request is caught and on its way to the server. None when there was none so far; the trap stays.
    pub fn caught(&self, patience: Duration) -> Option<Caught> {
        let until = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            if let Some((_, caught)) = state.caught.as_ref().filter(|_| state.forwarded) {
                return Some(caught.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.shared.wait(state, left);
        }
    }

    /// Waits until the server has answered what was caught, with the answer held back; false when it did not.
    pub fn answered(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match &state.caught {
                Some((_, caught)) if caught.answer_bytes >= ANSWER_BYTES => return true,
                Some(_) if !left.is_zero() => state = self.shared.wait(state, left),
                _ => return false,
            }
        }
    }

    /// What was caught, with the bytes of its answer by now; what the server still says is passed on again.
    pub fn release(&self) -> Option<Caught> {
        let caught = self.shared.lock().caught.take();
        self.shared.changed.notify_all();
        caught.map(|(_, caught)| caught)
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.shared.lock().links.len()
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.lock().cut();
    }

    /// Cuts every connection once the server has sent so many bytes more.
    pub fn cut_after(&self, bytes: u64) {
        let mut state = self.shared.lock();
        state.cut_at = Some(state.answered + bytes);
    }

    /// Whether such a cut is still to come.
    pub fn will_cut(&self) -> bool {
        self.shared.lock().cut_at.is_some()
    }

    /// Bytes that the server sent so far, over all connections.
    pub fn answered_bytes(&self) -> u64 {
        self.shared.lock().answered
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.cut();
        self.shared.changed.notify_all();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }

    /// Waits for the server, and registers the connection to it.
    fn join(&self, client: &TcpStream, agent: SocketAddr) -> Option<(u64, TcpStream)> {
        let until = Instant::now() + AWAY;
        let mut state = self.lock();
        while !state.up && !state.closing && Instant::now() < until {
            state = self.wait(state, until.saturating_duration_since(Instant::now()));
        }
        if !state.up || state.closing {
            return None;
        }
        let server = TcpStream::connect(self.upstream).ok()?;
        let _ = (server.set_nodelay(true), client.set_nodelay(true));
        let link = Link {
            agent,
            client: client.try_clone().ok()?,
            server: server.try_clone().ok()?,
            unanswered: 0,
            answers: 0,
        };
        state.next += 1;
        let id = state.next;
        state.links.insert(id, link);
        Some((id, server))
    }

    /// The agent sent this much: a step towards being caught.
    fn on_request(&self, id: u64, bytes: usize) {
        let mut state = self.lock();
        let State { links, caught, trap, forwarded, .. } = &mut *state;
        let Some(link) = links.get_mut(&id) else { return };
        link.unanswered += bytes;
        let request_bytes = link.unanswered;
        let settled = link.answers >= SETTLED;
        match caught {
            Some((owner, caught)) if *owner == id => caught.request_bytes = request_bytes,
            Some(_) => {}
            None if settled && trap.is_some_and(|least| request_bytes >= least) => {
                (*trap, *forwarded) = (None, false);
                *caught = Some((id, Caught { agent: link.agent, request_bytes, answer_bytes: 0 }));
            }
            None => {}
        }
    }

    /// The server sent this much. Whether it may be passed on.
    fn on_answer(&self, id: u64, bytes: usize) -> bool {
        let mut state = self.lock();
        state.answered += bytes as u64;
        if state.cut_at.is_some_and(|at| state.answered >= at) {
            state.cut_at = None;
            state.cut();
            return false;
        }
        if let Some((owner, caught)) = &mut state.caught
            && *owner == id
        {
            caught.answer_bytes += bytes;
            self.changed.notify_all();
            return false;
        }
        if let Some(link) = state.links.get_mut(&id) {
            (link.unanswered, link.answers) = (0, link.answers + 1);
        }
        true
    }

    /// One end is gone: so is the other, but not before what was caught on it is released.
    fn end(&self, id: u64) {
        let until = Instant::now() + AWAY;
        let mut state = self.lock();
        while state.caught.as_ref().is_some_and(|(owner, _)| *owner == id) && !state.closing && Instant::now() < until {
            state = self.wait(state, until.saturating_duration_since(Instant::now()));
        }
        if let Some(link) = state.links.get(&id) {
            link.end();
        }
    }

    /// The request is with the server's host.
    fn on_forwarded(&self, id: u64) {
        let mut state = self.lock();
        if state.caught.as_ref().is_some_and(|(owner, _)| *owner == id) {
            state.forwarded = true;
            self.changed.notify_all();
        }
    }
}

impl Link {
    fn end(&self) {
        let _ = (self.client.shutdown(Shutdown::Both), self.server.shutdown(Shutdown::Both));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, agent)) = listener.accept() {
        if shared.lock().closing {
            return;
        }
        let shared = shared.clone();
        std::thread::spawn(move || serve(client, agent, &shared));
    }
}

/// One connection, until one of its ends is gone.
fn serve(mut client: TcpStream, agent: SocketAddr, shared: &Arc<Shared>) {
    let Some((id, mut server)) = shared.join(&client, agent) else { return };
    let (mut from_server, mut to_client) = match (server.try_clone(), client.try_clone()) {
        (Ok(server), Ok(client)) => (server, client),
        _ => return,
    };
    let answers = shared.clone();
    let back = std::thread::spawn(move || {
        pump(&mut from_server, &mut to_client, |bytes| answers.on_answer(id, bytes), || {});
        answers.end(id);
    });
    let request = |bytes| {
        shared.on_request(id, bytes);
        true
    };
    pump(&mut client, &mut server, request, || shared.on_forwarded(id));
    shared.end(id);
    let _ = back.join();
    shared.lock().links.remove(&id);
}

/// Moves bytes one way until an end.
fn pump(from: &mut TcpStream, to: &mut TcpStream, mut passes: impl FnMut(usize) -> bool, forwarded: impl Fn()) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        if passes(bytes) && to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
        forwarded();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// A server that answers every read.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            while matches!(peer.read(&mut buffer), Ok(1..)) && peer.write_all(&[b'x'; ANSWER_BYTES]).is_ok() {}
        });
        address
    }

    #[test]
    fn a_large_request_is_caught_and_its_answer_held_back() {
        let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), echo());
        let mut agent = TcpStream::connect(proxy.address()).unwrap();
        agent.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = [0; ANSWER_BYTES];
        for _ in 0..SETTLED {
            agent.write_all(&[1; 100]).unwrap();
            agent.read_exact(&mut answer).unwrap();
        }
        agent.write_all(&[1; 99]).unwrap();
        agent.read_exact(&mut answer).unwrap();
        proxy.arm(100);
        assert_eq!(proxy.caught(Duration::ZERO), None);
        agent.write_all(&[1; 100]).unwrap();
        let caught = proxy.caught(SOON).unwrap();
        assert_eq!((caught.agent, caught.request_bytes), (agent.local_addr().unwrap(), 100));
        assert!(proxy.answered(SOON));
        agent.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(agent.read(&mut answer).is_err());
        assert!(proxy.release().is_some_and(|caught| caught.answer_bytes > 0));
    }

    #[test]
    fn agents_wait_for_a_server_that_is_away() {
        let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), echo());
        proxy.set_up(false);
        let mut agent = TcpStream::connect(proxy.address()).unwrap();
        agent.write_all(b"?").unwrap();
        agent.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert!(agent.read(&mut [0; 1]).is_err());
        proxy.set_up(true);
        agent.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(agent.read(&mut [0; 1]).unwrap(), 1);
    }
}
