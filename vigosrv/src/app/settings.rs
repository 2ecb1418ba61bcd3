//! What the core is told by the operator and by the key files.

use std::net::IpAddr;

use common::crypto::{PublicKey, SigningKey};
use common::glob::Glob;
use common::ids::{Hash32, ServerId};
use common::proto::wire;
use common::time::Wall;

/// Keys and names of this server.
#[derive(Debug)]
pub struct Identity {
    /// Hash of the identity key.
    pub server_id: ServerId,
    /// Long-lived trust anchor.
    pub identity: SigningKey,
    /// Signs bundles and assignments.
    pub policy: SigningKey,
    /// By the identity key over the policy key.
    pub policy_key_signature: Vec<u8>,
    /// CA certificate, for envoys.
    pub ca_pem: String,
    /// SHA-256 of its DER.
    pub ca_hash: Hash32,
    /// Public recovery key, if one was made.
    pub recovery: Option<PublicKey>,
    /// How it followed the ones before it: each signed by its predecessor, oldest first.
    pub recovery_succession: Vec<wire::Signed>,
    /// On a rebuilt server: what makes the envoys of the one before it trust it.
    pub rebuilt: Option<Rebuilt>,
}

/// What a rebuilt server shows to the envoys of the server that was lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebuilt {
    /// The recovery statement, for `Hello`.
    pub statement: wire::Signed,
    /// Identity key of the lost server: its receipts are believed.
    pub old_identity: PublicKey,
    /// What the statement says; envoys refuse a lower one.
    pub epoch: u64,
}

/// Settings of the core; see `server.yaml`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `checkin.interval`, milliseconds.
    pub interval_ms: u64,
    /// `checkin.bundle_max_age`, milliseconds; 0 = for ever.
    pub bundle_max_age_ms: u64,
    /// `checkin.hold`.
    pub hold: Hold,
    /// `limits.held_connections`.
    pub held_connections_max: usize,
    /// `limits.checkins_per_second`: above it, callers get a reserved slot.
    pub checkins_per_second: u32,
    /// `limits.pending_writes`: results beyond it are put off.
    pub pending_writes_max: usize,
    /// `enrollment.trusted`.
    pub trusted: Vec<TrustedEntry>,
    /// What envoys are told to dial, most preferred first.
    pub servers: Vec<String>,
    /// Product version.
    pub version: String,
}

/// `checkin.hold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Hold up to the bound, ask the rest to poll.
    Auto,
    /// Hold everybody.
    Always,
    /// Everybody polls.
    Never,
}

/// An entry of `enrollment.trusted`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedEntry {
    /// Host names.
    pub pattern: Glob,
    /// Peer addresses, as (network, prefix length); any when absent.
    pub cidr: Option<(IpAddr, u8)>,
    /// Not after this.
    pub until: Option<Wall>,
    /// At most this many envoys.
    pub max: Option<u32>,
    /// Full standing at once.
    pub secrets: bool,
}

impl TrustedEntry {
    /// Whether a host may enroll by this entry.
    pub fn admits(&self, hostname: &str, peer: IpAddr, at: Wall) -> bool {
        self.pattern.matches(hostname)
            && self.until.is_none_or(|until| at <= until)
            && self.cidr.is_none_or(|(network, bits)| in_network(peer, network, bits))
    }

    /// Names the entry in the database, so that `max` survives a restart.
    pub fn key(&self) -> String {
        let cidr = self.cidr.map_or(String::new(), |(network, bits)| format!(" {network}/{bits}"));
        format!("{}{cidr}", self.pattern.source())
    }
}

/// Whether an address lies in a network. An IPv4 address in IPv6 clothes counts as IPv4.
fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let number = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((address, width), (network, network_width)) = (number(address), number(network));
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - u32::from(bits.min(128))) };
    width == network_width && address & mask == network & mask
}

/// Numbers of the core, for `/metrics` and `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that are open.
    pub connections: u64,
    /// Envoys with a held stream.
    pub held: u64,
    /// Check-ins answered since start, by kind: no change.
    pub checkins_no_change: u64,
    /// Check-ins answered with an assignment.
    pub checkins_sent: u64,
    /// Check-ins answered "keep what you have".
    pub checkins_keep_cached: u64,
    /// Check-ins put off by overload control.
    pub checkins_later: u64,
    /// Records acknowledged since start.
    pub records_stored: u64,
    /// Reports refused because the disk was full or the writer behind.
    pub reports_later: u64,
    /// Enrollments since start.
    pub enrolled: u64,
    /// Authentications refused since start.
    pub refused: u64,
    /// Writes that the core waits for.
    pub pending_writes: u64,
    /// Epoch.
    pub epoch: u64,
    /// Serial.
    pub serial: u64,
    /// A higher epoch was met: read-only.
    pub stepped_down: bool,
    /// Revocations may have been lost in a restore: secrets withheld from newcomers.
    pub review: bool,
    /// The last write failed because the disk is full.
    pub disk_full: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_entries_check_name_address_and_time() {
        let entry = TrustedEntry {
            pattern: Glob::try_new("web-*").unwrap(),
            cidr: Some(("10.1.0.0".parse().unwrap(), 16)),
            until: Some(Wall(100)),
            max: None,
            secrets: false,
        };
        let admits = |name: &str, ip: &str, at| entry.admits(name, ip.parse().unwrap(), Wall(at));
        assert!(admits("web-1", "10.1.2.3", 100));
        assert!(admits("web-1", "::ffff:10.1.2.3", 1));
        assert!(!admits("db-1", "10.1.2.3", 1));
        assert!(!admits("web-1", "10.2.2.3", 1));
        assert!(!admits("web-1", "10.1.2.3", 101));
        assert!(!admits("web-1", "fe80::1", 1));
    }
}
