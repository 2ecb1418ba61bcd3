//! Identifiers as checked types: a value of these types has the right length and form, wherever it came from.

use std::fmt;
use std::str::FromStr;

use crate::rng::Rng;

/// 16 bytes that name an envoy or a run; printed in the form of RFC 9562.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid([u8; 16]);

/// 32 bytes of SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash32(pub [u8; 32]);

/// A server: SHA-256 of its identity public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServerId(pub Hash32);

/// What was wrong with the text or bytes of an identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadId {
    /// What it should have been.
    pub expected: &'static str,
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for BadId {}

/// Bytes at the front of a run's id that are its envoy's.
const RUN_PREFIX_BYTES: usize = 4;

impl Uuid {
    /// A random (version 4) UUID.
    pub fn random(rng: &mut dyn Rng) -> Uuid {
        let mut bytes = [0; 16];
        rng.fill(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Uuid(bytes)
    }

    /// A random UUID for a run of this envoy. It begins as the envoy's does, so that whoever has a run's id knows where to look:
    /// an index over random ids would cost the server a random page for every stored run.
    pub fn random_run(envoy: &Uuid, rng: &mut dyn Rng) -> Uuid {
        let mut run = Uuid::random(rng);
        run.0[..RUN_PREFIX_BYTES].copy_from_slice(&envoy.0[..RUN_PREFIX_BYTES]);
        run
    }

    /// Whether a run with this id may be one of this envoy. Certainly not, if not; by chance one in four thousand million, if so.
    pub fn may_be_of(&self, envoy: &Uuid) -> bool {
        self.0[..RUN_PREFIX_BYTES] == envoy.0[..RUN_PREFIX_BYTES]
    }

    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Uuid {
        Uuid(bytes)
    }

    /// From bytes off the wire.
    pub fn try_from_slice(bytes: &[u8]) -> Result<Uuid, BadId> {
        bytes.try_into().map(Uuid).map_err(|_| BadId { expected: "a UUID of 16 bytes" })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = hex(&self.0);
        let text = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        f.pad(&text)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Uuid, BadId> {
        let bad = BadId { expected: "a UUID such as 6f1c2a34-0b5d-4e6f-8a9b-0c1d2e3f4a5b" };
        let dashes_fit = text.len() == 36 && [8, 13, 18, 23].iter().all(|&at| text.as_bytes()[at] == b'-');
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        match (dashes_fit, unhex(&digits)) {
            (true, Some(bytes)) => bytes.try_into().map(Uuid).map_err(|_| bad),
            _ => Err(bad),
        }
    }
}

impl Hash32 {
    /// From bytes off the wire.
    pub fn try_from_slice(bytes: &[u8]) -> Result<Hash32, BadId> {
        bytes.try_into().map(Hash32).map_err(|_| BadId { expected: "a SHA-256 of 32 bytes" })
    }

    /// The first 8 bytes as a number: what heartbeats carry instead of the whole.
    pub fn short(&self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|i| self.0[i]))
    }

    /// All zero: "none".
    pub const ZERO: Hash32 = Hash32([0; 32]);
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..6]))
    }
}

impl FromStr for Hash32 {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Hash32, BadId> {
        let bad = BadId { expected: "64 hexadecimal digits" };
        unhex(text).and_then(|bytes| bytes.try_into().ok()).map(Hash32).ok_or(bad)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

/// Bytes of a hexadecimal text of even length; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Whether a text is a host name in the sense of RFC 1123: labels of letters, digits and hyphens, joined by dots.
pub fn is_hostname(text: &str) -> bool {
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= crate::limits::HOSTNAME_BYTES_MAX && text.split('.').all(label_fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_run_leads_to_its_envoy_and_is_random_behind_that() {
        let rng = &mut crate::rng::SplitMix64(1);
        let (a, b) = (Uuid::random(rng), Uuid::random(rng));
        let runs: Vec<Uuid> = (0..100).map(|_| Uuid::random_run(&a, rng)).collect();
        assert!(runs.iter().all(|run| run.may_be_of(&a) && !run.may_be_of(&b)));
        assert!(runs.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(runs.iter().all(|run| run.0[6] >> 4 == 4 && run.0[8] >> 6 == 2), "a version 4 UUID all the same");
    }

    #[test]
    fn uuids_round_trip() {
        let uuid = Uuid::random(&mut crate::rng::SplitMix64(1));
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        assert_eq!(uuid.to_string().as_bytes()[14], b'4');
        for bad in ["", "6f1c2a34", "6f1c2a340b5d-4e6f-8a9b-0c1d2e3f4a5b-", "zf1c2a34-0b5d-4e6f-8a9b-0c1d2e3f4a5b"] {
            assert!(bad.parse::<Uuid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_are_checked() {
        assert!(is_hostname("web-1.prod.example.com"));
        let long = "a".repeat(64);
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "ä", long.as_str()] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }
}
