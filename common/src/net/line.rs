//! A blocking connection: for commands that make a few calls and have nothing else to do meanwhile.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::{Events, Poll, Token};

use super::{CallError, Client, ClientEvent, ClientOptions, Driven, Identity, NetError, Pins, TlsClock, client_config};
use crate::limits;
use crate::time::{Mono, Now, Wall};

const TOKEN: Token = Token(0);

/// Reads the clocks; what they count in real time is the second.
pub struct LineClock {
    /// Both clocks, now.
    pub now: Box<dyn Fn() -> Now>,
    /// How long so many milliseconds of that clock really are.
    pub real: Box<dyn Fn(u64) -> Duration>,
}

/// The connection.
pub struct Line {
    poll: Poll,
    client: Client,
    clock: LineClock,
    /// Who answered.
    pub identity: Identity,
}

impl Line {
    /// Connects to the first address of `host` that answers. Nobody is pinned: the caller judges who answered.
    pub fn open(host: &str, port: u16, trust_time: Wall, clock: LineClock) -> Result<Line, String> {
        let server = format!("{host}:{port}");
        let addresses = (host, port).to_socket_addrs().map_err(|error| format!("{server}: {error}"))?;
        let clock_of_tls = Arc::new(TlsClock::default());
        clock_of_tls.set((clock.now)().wall);
        let tls = client_config(&[b"h2"], 1, clock_of_tls).map_err(|error: NetError| error.to_string())?;
        let mut last = format!("{server} has no address");
        for address in addresses {
            let options = ClientOptions {
                tls: tls.clone(),
                pins: Arc::new(Pins::default()),
                trust_time,
                message_bytes_max: limits::MESSAGE_BYTES_MAX,
            };
            match connect(address, host, options, &clock) {
                Ok((poll, client, identity)) => return Ok(Line { poll, client, clock, identity: *identity }),
                Err(reason) => last = format!("{server} ({address}): {reason}"),
            }
        }
        Err(last)
    }

    /// One call and its answer.
    pub fn call(&mut self, path: &'static str, message: &[u8]) -> Result<Bytes, CallError> {
        let deadline = (self.clock.now)().mono + limits::CALL_TIMEOUT_MS;
        self.client.call(path, message, deadline)?;
        loop {
            for event in turn(&mut self.poll, &mut self.client, &self.clock).map_err(CallError::Lost)? {
                if let ClientEvent::Reply { result, .. } = event {
                    return result;
                }
            }
        }
    }
}

fn connect(
    address: SocketAddr,
    host: &str,
    options: ClientOptions,
    clock: &LineClock,
) -> Result<(Poll, Client, Box<Identity>), String> {
    let mut poll = Poll::new().map_err(|error| error.to_string())?;
    let mut client = Client::connect(address, host, options, (clock.now)().mono, limits::CONNECT_TIMEOUT_MS)
        .map_err(|error| error.to_string())?;
    client.register(poll.registry(), TOKEN).map_err(|error| error.to_string())?;
    loop {
        for event in turn(&mut poll, &mut client, clock)? {
            if let ClientEvent::Connected(identity) = event {
                return Ok((poll, client, identity));
            }
        }
    }
}

/// One wait and one drive.
fn turn(poll: &mut Poll, client: &mut Client, clock: &LineClock) -> Result<Vec<ClientEvent>, String> {
    let mut events = Vec::new();
    let now: Mono = (clock.now)().mono;
    let driven = client.drive(now, &mut events).map_err(|error| error.to_string())?;
    if events.is_empty() {
        let wait = match (driven, client.next_deadline()) {
            (Driven::WantsTurn, _) => Duration::ZERO,
            (Driven::Idle, deadline) => (clock.real)(deadline.map_or(1_000, |at| at.since(now)).max(1)),
        };
        let mut ready = Events::with_capacity(4);
        match poll.poll(&mut ready, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.to_string()),
            _ => ready.iter().for_each(|event| client.on_event(event)),
        }
    }
    Ok(events)
}
