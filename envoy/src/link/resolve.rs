//! Names to addresses, in a thread of its own: the resolver of the C library may block for a minute when DNS is dead.
//!
//! Where a name gives nothing, the addresses under which it was last reached are tried: DNS may be dead too.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mio::Waker;

use crate::agent::LinkId;

/// Addresses that are tried for one name.
const ADDRESSES_MAX: usize = 8;
/// Default port of a server.
const PORT: u16 = 1530;

type Answer = (LinkId, Result<Vec<SocketAddr>, String>);

/// Asks and collects answers.
pub(super) struct Resolver {
    sender: SyncSender<Answer>,
    receiver: Receiver<Answer>,
    waker: Arc<Waker>,
}

impl Resolver {
    pub fn new(waker: Arc<Waker>) -> Resolver {
        // A resolver that hangs holds one slot; its late answer is for a link that is gone.
        let (sender, receiver) = sync_channel(4);
        Resolver { sender, receiver, waker }
    }

    /// Resolves; [`Resolver::take`] has the answer later.
    pub fn ask(&self, link: LinkId, address: &str, known: &[IpAddr]) {
        let (sender, waker) = (self.sender.clone(), self.waker.clone());
        let (address, known) = (address.to_string(), known.to_vec());
        let spawned = std::thread::Builder::new().name("resolve".into()).spawn({
            let (sender, waker) = (sender.clone(), waker.clone());
            move || {
                let _ = sender.try_send((link, resolve(&address, &known)));
                let _ = waker.wake();
            }
        });
        if let Err(error) = spawned {
            let _ = sender.try_send((link, Err(format!("no thread to resolve the name: {error}"))));
            let _ = waker.wake();
        }
    }

    pub fn take(&self) -> Option<Answer> {
        self.receiver.try_recv().ok()
    }
}

fn resolve(address: &str, known: &[IpAddr]) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = split(address).ok_or(format!("`{address}` is not host:port"))?;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let mut addresses: Vec<SocketAddr> = match (host, port).to_socket_addrs() {
        Ok(found) => found.take(ADDRESSES_MAX).collect(),
        Err(error) if known.is_empty() => return Err(format!("the name was not resolved: {error}")),
        Err(_) => Vec::new(),
    };
    let cached = known.iter().map(|ip| SocketAddr::new(*ip, port));
    addresses.extend(cached.filter(|cached| !addresses.contains(cached)).collect::<Vec<_>>());
    addresses.truncate(ADDRESSES_MAX);
    Ok(addresses)
}

/// `host:port`, `[v6]:port`, or either without a port.
pub fn split(address: &str) -> Option<(&str, u16)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        return match tail.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None if tail.is_empty() => Some((host, PORT)),
            None => None,
        };
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && !host.is_empty() => Some((host, port.parse().ok()?)),
        Some(("", _)) => None,
        // More than one colon and no brackets: a bare IPv6 address.
        Some(_) => Some((address, PORT)),
        None if address.is_empty() => None,
        None => Some((address, PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_split_into_host_and_port() {
        for (text, expected) in [
            ("a.example:99", Some(("a.example", 99))),
            ("a.example", Some(("a.example", 1530))),
            ("127.0.0.1:7", Some(("127.0.0.1", 7))),
            ("[::1]:7", Some(("::1", 7))),
            ("[::1]", Some(("::1", 1530))),
            ("::1", Some(("::1", 1530))),
            ("a:b", None),
            (":7", None),
            ("[::1", None),
            ("", None),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn dead_dns_falls_back_to_the_last_good_address() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let found = resolve("no-such-host.invalid:9", &[ip]);
        assert_eq!(found, Ok(vec![SocketAddr::new(ip, 9)]));
        assert!(resolve("no-such-host.invalid:9", &[]).is_err());
    }
}
