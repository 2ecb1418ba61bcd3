//! The connection to a server: name resolution, TCP, TLS, HTTP/2, calls with deadlines. At most one at a time.
//!
//! It knows nothing of the protocol above: the core says what to send, and hears what came back.

mod resolve;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use common::crypto::sha256;
use common::ids::Hash32;
use common::limits;
use common::net::{CallError, Client, ClientEvent, ClientOptions, Driven, Identity, NetError, Pins};
use common::proto::Code;
use common::time::{Mono, Wall};
use mio::{Registry, Token, Waker};

use crate::agent::{CallId, Event, LinkId, PresentedCa, Target};
use resolve::Resolver;
pub use resolve::split;

/// The link of an agent.
pub struct Link {
    registry: Registry,
    token: Token,
    tls: Arc<rustls::ClientConfig>,
    resolver: Resolver,
    attempt: Option<Attempt>,
}

/// One attempt, and the connection that it may become.
struct Attempt {
    id: LinkId,
    target: Box<Target>,
    deadline: Mono,
    state: State,
    /// The client's keys of calls to the core's.
    calls: HashMap<u64, CallId>,
    /// Where it was resolved to and not yet tried.
    addresses: VecDeque<SocketAddr>,
    /// Why the address before failed.
    last_error: String,
}

enum State {
    Resolving,
    Connecting { client: Box<Client>, ip: IpAddr },
    Up { client: Box<Client> },
}

impl Link {
    /// A link that is down. `waker` wakes the loop when a name was resolved.
    pub fn new(registry: Registry, token: Token, tls: Arc<rustls::ClientConfig>, waker: Arc<Waker>) -> Link {
        Link { registry, token, tls, resolver: Resolver::new(waker), attempt: None }
    }

    /// Starts to connect; an earlier attempt is dropped.
    pub fn connect(&mut self, id: LinkId, target: Box<Target>, now: Mono) {
        self.drop_attempt();
        self.resolver.ask(id, &target.address, &target.known_ips);
        self.attempt = Some(Attempt {
            id,
            target,
            deadline: now + limits::CONNECT_TIMEOUT_MS,
            state: State::Resolving,
            calls: HashMap::new(),
            addresses: VecDeque::new(),
            last_error: String::new(),
        });
    }

    /// Drops a link, whatever its state.
    pub fn disconnect(&mut self, id: LinkId) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.id == id) {
            self.drop_attempt();
        }
    }

    /// A unary call.
    pub fn call(
        &mut self,
        id: LinkId,
        call: CallId,
        method: &'static str,
        body: &Bytes,
        deadline: Mono,
        out: &mut Vec<Event>,
    ) {
        let Some((client, calls)) = self.up(id) else { return };
        match client.call(method, body, deadline) {
            Ok(key) => drop(calls.insert(key, call)),
            Err(error) => out.push(Event::Reply { call, result: Err(refusal(error)) }),
        }
    }

    /// A server stream.
    pub fn stream(&mut self, id: LinkId, call: CallId, method: &'static str, body: &Bytes, out: &mut Vec<Event>) {
        let Some((client, calls)) = self.up(id) else { return };
        match client.stream(method, body, None) {
            Ok(key) => drop(calls.insert(key, call)),
            Err(error) => out.push(Event::StreamEnd { call, result: Err(refusal(error)) }),
        }
    }

    /// See [`Client::pause_streams`].
    pub fn pause_streams(&mut self, paused: bool) {
        if let Some(Attempt { state: State::Up { client }, .. }) = &mut self.attempt {
            client.pause_streams(paused);
        }
    }

    /// The socket changed.
    pub fn on_ready(&mut self, event: &mio::event::Event) {
        if let Some(Attempt { state: State::Connecting { client, .. } | State::Up { client }, .. }) = &mut self.attempt
        {
            client.on_event(event);
        }
    }

    /// Goes as far as possible now. True when it wants another turn without waiting.
    pub fn drive(&mut self, now: Mono, out: &mut Vec<Event>) -> bool {
        self.take_addresses(now, out);
        let Some(attempt) = &mut self.attempt else { return false };
        let client = match &mut attempt.state {
            State::Resolving if now >= attempt.deadline => {
                self.fail("the name was not resolved in time".into(), out);
                return false;
            }
            State::Resolving => return false,
            State::Connecting { client, .. } | State::Up { client } => client,
        };
        let mut events = Vec::new();
        let driven = client.drive(now, &mut events);
        if driven.is_err() {
            events.retain(|event| !ended_with_connection(event));
        }
        for event in events {
            self.on_client_event(event, out);
        }
        match driven {
            Ok(driven) => driven == Driven::WantsTurn,
            Err(error) => {
                self.on_broken(&error, now, out);
                // The next address, if there is one, starts at once.
                self.attempt.is_some()
            }
        }
    }

    /// When [`Link::drive`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        let attempt = self.attempt.as_ref()?;
        match &attempt.state {
            State::Resolving => Some(attempt.deadline),
            State::Connecting { client, .. } | State::Up { client } => client.next_deadline(),
        }
    }

    fn up(&mut self, id: LinkId) -> Option<(&mut Client, &mut HashMap<u64, CallId>)> {
        match &mut self.attempt {
            Some(Attempt { id: known, state: State::Up { client }, calls, .. }) if *known == id => {
                Some((client, calls))
            }
            _ => None,
        }
    }

    fn take_addresses(&mut self, now: Mono, out: &mut Vec<Event>) {
        let Some((id, result)) = self.resolver.take() else { return };
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.id == id) else { return };
        match result {
            Ok(addresses) => {
                attempt.addresses = addresses.into();
                attempt.last_error = "the name has no address".into();
                self.next_address(now, out);
            }
            Err(reason) => self.fail(reason, out),
        }
    }

    /// Tries the next address, or gives the attempt up.
    fn next_address(&mut self, now: Mono, out: &mut Vec<Event>) {
        loop {
            let Some(attempt) = &mut self.attempt else { return };
            let Some(address) = attempt.addresses.pop_front() else {
                let reason = std::mem::take(&mut attempt.last_error);
                return self.fail(reason, out);
            };
            let left = attempt.deadline.since(now);
            if left == 0 {
                return self.fail("no connection in time".into(), out);
            }
            // Every address gets its share of the time, so that one that swallows packets does not hide the next.
            let share = left / (attempt.addresses.len() as u64 + 1);
            match open(&attempt.target, address, self.tls.clone(), now, share, &self.registry, self.token) {
                Ok(client) => {
                    attempt.state = State::Connecting { client: Box::new(client), ip: address.ip() };
                    return;
                }
                Err(error) => attempt.last_error = format!("{address}: {error}"),
            }
        }
    }

    fn on_client_event(&mut self, event: ClientEvent, out: &mut Vec<Event>) {
        let Some(attempt) = &mut self.attempt else { return };
        match event {
            ClientEvent::Connected(identity) => {
                let state = std::mem::replace(&mut attempt.state, State::Resolving);
                if let State::Connecting { client, ip } = state {
                    attempt.state = State::Up { client };
                    out.push(connected(attempt.id, &identity, ip));
                }
            }
            ClientEvent::Reply { call, result } => {
                if let Some(call) = attempt.calls.remove(&call) {
                    out.push(Event::Reply { call, result: result.map_err(refusal) });
                }
            }
            ClientEvent::Item { call, message } => {
                if let Some(call) = attempt.calls.get(&call) {
                    out.push(Event::StreamItem { call: *call, body: message });
                }
            }
            ClientEvent::Ended { call, result } => {
                if let Some(call) = attempt.calls.remove(&call) {
                    out.push(Event::StreamEnd { call, result: result.map_err(refusal) });
                }
            }
        }
    }

    fn on_broken(&mut self, error: &NetError, now: Mono, out: &mut Vec<Event>) {
        let Some(attempt) = &mut self.attempt else { return };
        match std::mem::replace(&mut attempt.state, State::Resolving) {
            State::Up { mut client } => {
                client.close(&self.registry);
                out.push(Event::Disconnected { link: attempt.id, reason: error.to_string() });
                self.attempt = None;
            }
            State::Connecting { mut client, ip } => {
                client.close(&self.registry);
                attempt.last_error = format!("{ip}: {error}");
                self.next_address(now, out);
            }
            State::Resolving => {}
        }
    }

    fn fail(&mut self, reason: String, out: &mut Vec<Event>) {
        if let Some(attempt) = self.attempt.take() {
            let reason = format!("{}: {reason}", attempt.target.address);
            out.push(Event::ConnectFailed { link: attempt.id, reason });
        }
    }

    fn drop_attempt(&mut self) {
        if let Some(Attempt { state: State::Connecting { mut client, .. } | State::Up { mut client }, .. }) =
            self.attempt.take()
        {
            client.close(&self.registry);
        }
    }
}

fn open(
    target: &Target,
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    now: Mono,
    within_ms: u64,
    registry: &Registry,
    token: Token,
) -> Result<Client, NetError> {
    let (host, _) = resolve::split(&target.address).unwrap_or((&target.address, 0));
    let options = ClientOptions {
        tls,
        pins: Arc::new(Pins::from_pem(&target.ca_pem)?),
        trust_time: Wall(i64::try_from(target.server_time_ms).unwrap_or(i64::MAX)),
        message_bytes_max: limits::MESSAGE_BYTES_MAX,
    };
    let mut client = Client::connect(address, host, options, now, within_ms)?;
    client.register(registry, token)?;
    Ok(client)
}

fn connected(link: LinkId, identity: &Identity, ip: IpAddr) -> Event {
    Event::Connected {
        link,
        exporter: identity.exporter,
        ca_trusted: identity.trust.is_ok(),
        presented_ca: presented_ca(identity),
        ip: Some(ip),
    }
}

/// The CA at the end of the chain, when the leaf really chains to it.
fn presented_ca(identity: &Identity) -> Option<PresentedCa> {
    let last = identity.chain.last().filter(|_| identity.chain.len() > 1)?;
    let pem = pem(last.as_ref());
    // At the end of time nothing is valid; at its beginning everything that is not yet valid is waited for.
    Pins::from_pem(&pem).ok()?.check(&identity.chain, Wall(0)).ok()?;
    let hash: Hash32 = sha256(&[last.as_ref()]);
    Some(PresentedCa { pem, hash })
}

/// RFC 7468 text of a certificate.
fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut column = 0;
    for chunk in der.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = char::from(ALPHABET[(word >> (18 - 6 * index) & 63) as usize]);
            text.push(if index <= chunk.len() { digit } else { '=' });
        }
        column += 4;
        if column == 64 {
            text.push('\n');
            column = 0;
        }
    }
    if column > 0 {
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// What the end of the connection does to its calls is said once, by [`Event::Disconnected`]. A held stream that ended
/// before it, by itself, would be the server's wish to be polled.
fn ended_with_connection(event: &ClientEvent) -> bool {
    matches!(
        event,
        ClientEvent::Reply { result: Err(CallError::Lost(_)), .. }
            | ClientEvent::Ended { result: Err(CallError::Lost(_)), .. }
    )
}

fn refusal(error: CallError) -> (Code, String) {
    match error {
        CallError::Status(status) => (status.code, status.message),
        CallError::Timeout => (Code::DeadlineExceeded, "no answer in time".into()),
        CallError::Lost(why) => (Code::Unavailable, why),
        CallError::TooMany => (Code::ResourceExhausted, "too many calls at once".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_with_the_connection_is_left_to_its_end() {
        let lost = || CallError::Lost("broken pipe".into());
        assert!(ended_with_connection(&ClientEvent::Ended { call: 1, result: Err(lost()) }));
        assert!(ended_with_connection(&ClientEvent::Reply { call: 1, result: Err(lost()) }));
        for result in [Ok(()), Err(CallError::Timeout), Err(CallError::TooMany)] {
            assert!(!ended_with_connection(&ClientEvent::Ended { call: 1, result }));
        }
        assert!(!ended_with_connection(&ClientEvent::Item { call: 1, message: Bytes::new() }));
    }

    #[test]
    fn pem_text_is_the_standard_one() {
        let text = pem(&[0xff; 50]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].len(), 64);
        assert_eq!(lines[2], "//8=");
        assert!(pem(b"M").contains("TQ==") && pem(b"Ma").contains("TWE="));
    }
}
