//! What one peer address may do: strangers at a time, and new connections a second.
//!
//! Pure. An IPv6 peer counts by its /64, because that is what one customer gets. Memory is bounded by the connections
//! that are open and the addresses seen in the last few seconds: an entry that says nothing any more is swept.

use std::collections::HashMap;
use std::net::IpAddr;

use common::time::Mono;

/// Entries below which no sweep is worth its time.
const SWEEP_MIN: usize = 1024;

/// The rule for every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRule {
    /// `limits.unauthenticated_per_address`.
    pub strangers_max: u32,
    /// `limits.rate_per_address`; twice as many may come at once after a pause.
    pub per_second: u32,
}

/// Counters by address.
#[derive(Debug)]
pub struct PeerLimits {
    rule: PeerRule,
    peers: HashMap<IpAddr, Peer>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Peer {
    strangers: u32,
    /// Thousandths of a connection that may come now.
    credit: u64,
    at: Mono,
}

impl PeerLimits {
    /// Nobody has come yet.
    pub fn new(rule: PeerRule) -> PeerLimits {
        PeerLimits { rule, peers: HashMap::new(), sweep_at: SWEEP_MIN }
    }

    /// A new connection; true when it may stay. Then [`PeerLimits::release`] must follow once.
    pub fn admit(&mut self, address: IpAddr, now: Mono) -> bool {
        if self.peers.len() >= self.sweep_at {
            let rule = self.rule;
            self.peers.retain(|_, peer| peer.strangers > 0 || peer.refilled(rule, now) < rule.burst());
            self.sweep_at = SWEEP_MIN.max(2 * self.peers.len());
        }
        let rule = self.rule;
        let peer = self.peers.entry(network(address)).or_insert(Peer { strangers: 0, credit: rule.burst(), at: now });
        peer.credit = peer.refilled(rule, now);
        peer.at = now;
        if peer.strangers >= rule.strangers_max || peer.credit < 1000 {
            return false;
        }
        peer.credit -= 1000;
        peer.strangers += 1;
        true
    }

    /// An admitted connection has authenticated, or ended as a stranger.
    pub fn release(&mut self, address: IpAddr) {
        if let Some(peer) = self.peers.get_mut(&network(address)) {
            peer.strangers = peer.strangers.saturating_sub(1);
        }
    }
}

impl PeerRule {
    fn burst(self) -> u64 {
        u64::from(self.per_second) * 2_000
    }
}

impl Peer {
    fn refilled(&self, rule: PeerRule, now: Mono) -> u64 {
        // A connection a second is a thousandth a millisecond.
        let gained = now.since(self.at).saturating_mul(u64::from(rule.per_second));
        self.credit.saturating_add(gained).min(rule.burst())
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits(strangers_max: u32, per_second: u32) -> PeerLimits {
        PeerLimits::new(PeerRule { strangers_max, per_second })
    }

    #[test]
    fn strangers_of_one_address_are_counted_and_released() {
        let mut limits = limits(2, 1_000);
        let now = Mono(0);
        assert!(limits.admit(ip("10.0.0.1"), now) && limits.admit(ip("::ffff:10.0.0.1"), now));
        assert!(!limits.admit(ip("10.0.0.1"), now) && limits.admit(ip("10.0.0.2"), now));
        limits.release(ip("10.0.0.1"));
        assert!(limits.admit(ip("10.0.0.1"), now));
    }

    #[test]
    fn the_rate_refills_with_time() {
        let mut limits = limits(1_000, 10);
        let admitted =
            |limits: &mut PeerLimits, at| (0..100).filter(|_| limits.admit(ip("10.0.0.1"), Mono(at))).count();
        assert_eq!(admitted(&mut limits, 0), 20);
        assert_eq!(admitted(&mut limits, 99), 0);
        assert_eq!(admitted(&mut limits, 500), 5);
        assert_eq!(admitted(&mut limits, 1_000_000), 20);
    }

    #[test]
    fn a_whole_network_of_ipv6_counts_as_one() {
        let mut limits = limits(1, 1_000);
        assert!(limits.admit(ip("2001:db8::1"), Mono(0)) && !limits.admit(ip("2001:db8::2"), Mono(0)));
        assert!(limits.admit(ip("2001:db8:0:1::1"), Mono(0)));
    }

    #[test]
    fn memory_is_bounded_by_recent_addresses() {
        let mut limits = limits(1, 1);
        for n in 0..100_000u32 {
            let address = IpAddr::V4(n.into());
            assert!(limits.admit(address, Mono(u64::from(n))));
            limits.release(address);
        }
        assert!(limits.peers.len() <= 4 * SWEEP_MIN, "{}", limits.peers.len());
    }
}
