//! The small facts that outlive a restart, as meta values: backoff, server time, revocation echo, last good addresses.
//! All of them may be lost without harm to what is applied or reported; so, but for the backoff, they are only written
//! along with something that must be.

use std::collections::BTreeMap;
use std::net::IpAddr;

use common::limits::{HOSTNAME_BYTES_MAX, META_VALUE_BYTES_MAX, SERVERS_MAX};

use crate::report::{Reader, Writer};

const NOTES_META: &str = "agent.notes";
const SERVERS_META: &str = "agent.servers";
/// Name of the meta value with the owed notifications.
pub(super) const OWED_META: &str = "agent.owed";
const META_VERSION: u8 = 1;

/// The facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Failed rounds in a row.
    pub attempt: u32,
    /// Highest server time known, ms.
    pub server_ms: u64,
    /// Server time when a server last named what is applied.
    pub confirmed_ms: u64,
    /// Highest revocation counter that was met,
    pub revocation_counter: u64,
    /// and its digest.
    pub revocation_digest: u64,
    /// The address that worked last.
    pub last_good: String,
    /// What the server advertised, most preferred first.
    pub advertised: Vec<String>,
    /// Where each address was found last.
    pub ips: BTreeMap<String, IpAddr>,
    /// Resources that were notified and are not settled.
    pub owed: Vec<String>,
}

impl Notes {
    /// From meta values.
    pub fn load(meta: &BTreeMap<String, Vec<u8>>) -> Notes {
        let mut notes = Notes::default();
        if let Some(mut reader) = meta.get(NOTES_META).and_then(|bytes| Reader::open(bytes, META_VERSION)) {
            let mut next = || reader.u64().unwrap_or(0);
            notes.attempt = next().min(ATTEMPT_MAX.into()) as u32;
            (notes.server_ms, notes.confirmed_ms) = (next(), next());
            (notes.revocation_counter, notes.revocation_digest) = (next(), next());
        }
        if let Some(mut reader) = meta.get(SERVERS_META).and_then(|bytes| Reader::open(bytes, META_VERSION)) {
            notes.last_good = reader.text().unwrap_or_default();
            let n = reader.u64().unwrap_or(0).min(SERVERS_MAX as u64);
            notes.advertised = (0..n).map_while(|_| reader.text()).collect();
            while let (Some(name), Some(ip)) = (reader.text(), reader.text()) {
                if let Ok(ip) = ip.parse() {
                    notes.ips.insert(name, ip);
                }
            }
        }
        if let Some(mut reader) = meta.get(OWED_META).and_then(|bytes| Reader::open(bytes, META_VERSION)) {
            notes.owed = std::iter::from_fn(|| reader.text()).collect();
        }
        notes
    }

    /// The owed notifications as a meta value; those that do not fit are left out.
    pub fn store_owed(&self) -> (String, Vec<u8>) {
        let mut left = META_VALUE_BYTES_MAX / 2;
        let fitting = self.owed.iter().take_while(|name| {
            // A name and its length.
            left = left.saturating_sub(name.len() + 8);
            left > 0
        });
        let names = fitting.fold(Writer::new(META_VERSION), |names, name| names.text(name));
        (OWED_META.into(), names.finish())
    }

    /// As meta values.
    pub fn store(&self) -> [(String, Vec<u8>); 2] {
        let numbers = Writer::new(META_VERSION).u64(self.attempt.into()).u64(self.server_ms).u64(self.confirmed_ms);
        let numbers = numbers.u64(self.revocation_counter).u64(self.revocation_digest);
        let names = Writer::new(META_VERSION).text(&self.last_good).u64(self.advertised.len() as u64);
        let names = self.advertised.iter().fold(names, |names, server| names.text(server));
        let names = self.ips.iter().fold(names, |names, (name, ip)| names.text(name).text(&ip.to_string()));
        [(NOTES_META.into(), numbers.finish()), (SERVERS_META.into(), names.finish())]
    }

    /// Takes what a server advertises, as far as it can be an address.
    pub fn advertise(&mut self, servers: Vec<String>) {
        // A host name, a colon, a port, and brackets around an IPv6 address.
        let fits = |server: &String| (3..=HOSTNAME_BYTES_MAX + 8).contains(&server.len()) && server.contains(':');
        self.advertised = servers.into_iter().filter(fits).take(SERVERS_MAX).collect();
    }

    /// Notes where an address was found; forgets addresses that are in no list any more.
    pub fn found(&mut self, address: &str, ip: Option<IpAddr>, list: &[String]) {
        if let Some(ip) = ip {
            self.ips.insert(address.to_owned(), ip);
        }
        if self.ips.len() > SERVERS_MAX {
            self.ips.retain(|name, _| list.contains(name));
        }
        self.last_good = address.to_owned();
    }
}

/// Failed rounds are counted up to here: the wait does not grow any more, and nothing needs to be written.
pub const ATTEMPT_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip() {
        let notes = Notes {
            attempt: 3,
            server_ms: 4,
            confirmed_ms: 5,
            revocation_counter: 6,
            revocation_digest: 7,
            last_good: "a:1".into(),
            advertised: vec!["a:1".into(), "b:2".into()],
            ips: BTreeMap::from([("a:1".to_string(), IpAddr::from([10, 0, 0, 1]))]),
            owed: vec!["web.restart".into(), "web.reload".into()],
        };
        let stored = notes.store().into_iter().chain([notes.store_owed()]).collect();
        assert_eq!(Notes::load(&stored), notes);
        let many = Notes { owed: vec!["x".repeat(100); 10_000], ..Notes::default() };
        assert!(many.store_owed().1.len() <= META_VALUE_BYTES_MAX);
        assert_eq!(Notes::load(&BTreeMap::new()), Notes::default());
    }
}
