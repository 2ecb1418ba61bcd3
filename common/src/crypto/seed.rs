//! Private keys on disk: one line of text that says what the key is for, so that two files cannot be confused.
//!
//! `vigo-key-v1 PURPOSE HEX`, where HEX is the 32 bytes of an Ed25519 seed, an X25519 secret or a symmetric key.

use zeroize::Zeroizing;

use crate::ids::{hex, unhex};

/// Bytes that a key file may have.
pub const KEY_FILE_BYTES_MAX: u64 = 256;

/// What a key is for: the second word of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Identity key of a server (Ed25519).
    Identity,
    /// Policy key of a server (Ed25519).
    Policy,
    /// Identity of an envoy (Ed25519).
    Envoy,
    /// Sealing key of an envoy (X25519).
    Sealing,
    /// Master key of the local secrets backend (AES-256).
    Master,
    /// Recovery key of a server (Ed25519), in recovery kits only.
    Recovery,
}

/// Why a text is no such key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadSeed {
    /// Not of the form at all: cut, altered, or another file.
    Form,
    /// A key for something else.
    Purpose {
        /// What it is for.
        found: String,
    },
}

impl std::fmt::Display for BadSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadSeed::Form => {
                f.write_str("it is not a key file (one line: `vigo-key-v1 PURPOSE` and 64 hexadecimal digits)")
            }
            BadSeed::Purpose { found } => write!(f, "it holds a key for `{found}`"),
        }
    }
}

impl std::error::Error for BadSeed {}

impl Purpose {
    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Identity => "identity",
            Purpose::Policy => "policy",
            Purpose::Envoy => "envoy",
            Purpose::Sealing => "sealing",
            Purpose::Master => "master",
            Purpose::Recovery => "recovery",
        }
    }
}

/// The text of a key file.
pub fn seed_text(purpose: Purpose, seed: &[u8; 32]) -> Zeroizing<String> {
    let digits = Zeroizing::new(hex(seed));
    Zeroizing::new(format!("vigo-key-v1 {} {}\n", purpose.name(), digits.as_str()))
}

/// The key of a file that was written by [`seed_text`].
pub fn parse_seed(purpose: Purpose, text: &[u8]) -> Result<Zeroizing<[u8; 32]>, BadSeed> {
    let text = std::str::from_utf8(text).map_err(|_| BadSeed::Form)?;
    let mut words = text.split_ascii_whitespace();
    let (Some("vigo-key-v1"), Some(found), Some(digits), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BadSeed::Form);
    };
    let bytes = Zeroizing::new(unhex(digits).ok_or(BadSeed::Form)?);
    let seed: [u8; 32] = bytes.as_slice().try_into().map_err(|_| BadSeed::Form)?;
    if found != purpose.name() {
        return Err(BadSeed::Purpose { found: found.to_string() });
    }
    Ok(Zeroizing::new(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_round_trips_for_its_purpose_only() {
        let text = seed_text(Purpose::Policy, &[0xab; 32]);
        assert!(text.len() as u64 <= KEY_FILE_BYTES_MAX);
        assert_eq!(*parse_seed(Purpose::Policy, text.as_bytes()).unwrap(), [0xab; 32]);
        let error = parse_seed(Purpose::Identity, text.as_bytes()).unwrap_err();
        assert_eq!(error, BadSeed::Purpose { found: "policy".into() });
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let text = seed_text(Purpose::Policy, &[7; 32]);
        for end in 0..text.len() - 1 {
            assert_eq!(parse_seed(Purpose::Policy, &text.as_bytes()[..end]), Err(BadSeed::Form), "{end}");
        }
        for bad in ["vigo-key-v2 policy 00", "vigo-key-v1 policy zz", "\u{1f600}"] {
            assert_eq!(parse_seed(Purpose::Policy, bad.as_bytes()), Err(BadSeed::Form));
        }
    }
}
