//! The identity directory: who this envoy is and whom it trusts. Apart from the state store, so that it survives any loss of
//! that one.
//!
//! A shell. Files, 0600 in a directory 0700: `identity_key` and `sealing_key` (made before enrollment, so that a repeated
//! enrollment shows the same key), `sealing_key.former` (after a change of that one) and `pins` (written whole when enrolled
//! and at every change of trust). Nothing here is ever made anew in place of something damaged: the error says what to do.

mod pins_file;

use std::fmt;
use std::path::{Path, PathBuf};

use common::cli::{Exit, Failure};
use common::crypto::{
    BadSeed, Context, KEY_FILE_BYTES_MAX, Purpose, SigningKey, parse_seed, sealing_public, seed_text,
};
use common::ids::Uuid;
use common::rng::Rng;
use common::sys::{FileError, file};
use zeroize::Zeroizing;

use crate::agent::pins::Pins;

/// Bytes of the pins: a CA, a receipt, and bounded lists.
const PINS_BYTES_MAX: u64 = 1 << 20;

const SEALING_KEY: &str = "sealing_key";
const FORMER_KEY: &str = "sealing_key.former";

/// The identity directory, checked.
#[derive(Clone, Debug)]
pub struct IdentityDir {
    path: PathBuf,
}

/// The keys of this envoy.
#[derive(Debug)]
pub struct EnvoyKeys {
    /// Proves who it is.
    pub identity: SigningKey,
    /// Opens what is sealed to it.
    pub sealing: SealingKey,
    /// Opens what was sealed to it before that key.
    pub former_sealing: Option<SealingKey>,
    /// By the identity key over the public half of the sealing key ([`Context::Sealing`]).
    pub sealing_signature: [u8; 64],
}

/// An X25519 key pair. Its secret half cannot be printed.
pub struct SealingKey {
    secret: Zeroizing<[u8; 32]>,
    /// Its public half.
    pub public: [u8; 32],
}

/// Who this envoy is since its enrollment.
#[derive(Clone, Debug, PartialEq)]
pub struct Enrollment {
    /// Given by the server.
    pub uuid: Uuid,
    /// Whom it trusts.
    pub pins: Pins,
}

/// Why the identity cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// A file cannot be read or written, or others may open it.
    File(FileError),
    /// A key file is damaged or for something else.
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: BadSeed,
    },
    /// The pins are damaged.
    Pins {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The envoy is enrolled, and a key is missing.
    KeyLost {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CURE: &str = "restore it from a backup of this host, or remove the identity directory and enroll again with \
                            a token of `vigocli envoys invite --replace HOST`";
        match self {
            IdentityError::File(error) => write!(f, "{error}"),
            IdentityError::Key { path, reason } => write!(f, "{}: {reason}; {CURE}", path.display()),
            IdentityError::Pins { path, reason } => write!(f, "{}: {reason}; {CURE}", path.display()),
            IdentityError::KeyLost { path } => {
                write!(f, "{} is missing and this envoy is enrolled; {CURE}", path.display())
            }
        }
    }
}

impl std::error::Error for IdentityError {}

impl From<FileError> for IdentityError {
    fn from(error: FileError) -> IdentityError {
        IdentityError::File(error)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Failure {
        Failure::new(Exit::BadConfig, error.to_string())
    }
}

impl SealingKey {
    /// From its secret half.
    pub fn from_secret(secret: Zeroizing<[u8; 32]>) -> SealingKey {
        SealingKey { public: sealing_public(&secret), secret }
    }

    /// Its secret half, for opening.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", common::ids::hex(&self.public[..6]))
    }
}

impl IdentityDir {
    /// Opens the directory; makes it where it is missing. Refuses one that others may open.
    pub fn open(path: &Path) -> Result<IdentityDir, IdentityError> {
        file::make_dir(path, 0o700, None)?;
        file::check_private(path)?;
        Ok(IdentityDir { path: path.to_path_buf() })
    }

    /// The keys, made where this envoy has none and is not enrolled.
    pub fn keys(&self, rng: &mut dyn Rng) -> Result<EnvoyKeys, IdentityError> {
        let enrolled = self.path.join("pins").exists();
        let identity = SigningKey::from_seed(*self.key("identity_key", Purpose::Envoy, enrolled, rng)?);
        let sealing = SealingKey::from_secret(self.key(SEALING_KEY, Purpose::Sealing, enrolled, rng)?);
        let former = self.path.join(FORMER_KEY).exists();
        let former = former.then(|| self.key(FORMER_KEY, Purpose::Sealing, true, rng)).transpose()?;
        let sealing_signature = identity.sign(Context::Sealing, &sealing.public);
        Ok(EnvoyKeys { identity, sealing, former_sealing: former.map(SealingKey::from_secret), sealing_signature })
    }

    /// Another sealing key, synced, with the present one kept beside it. A crash between the two leaves the present one twice.
    pub fn renew_sealing_key(&self, rng: &mut dyn Rng) -> Result<Zeroizing<[u8; 32]>, IdentityError> {
        let write = |name: &str, seed: &[u8; 32]| {
            let text = Zeroizing::new(seed_text(Purpose::Sealing, seed));
            file::write_atomic(&self.path.join(name), text.as_bytes(), 0o600, None)
        };
        let present = self.key(SEALING_KEY, Purpose::Sealing, true, rng)?;
        write(FORMER_KEY, &present)?;
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(&mut *seed);
        write(SEALING_KEY, &seed)?;
        Ok(seed)
    }

    /// Who this envoy is; `None` while it is not enrolled.
    pub fn enrollment(&self) -> Result<Option<Enrollment>, IdentityError> {
        let path = self.path.join("pins");
        if !path.exists() {
            return Ok(None);
        }
        file::check_private(&path)?;
        let bytes = file::read_bounded(&path, PINS_BYTES_MAX)?;
        let decoded = pins_file::decode(&bytes).map_err(|reason| IdentityError::Pins { path, reason })?;
        Ok(Some(decoded))
    }

    /// Writes who this envoy is, synced: when this returns, a power cut cannot undo it.
    pub fn save(&self, enrollment: &Enrollment) -> Result<(), IdentityError> {
        let bytes = pins_file::encode(enrollment);
        Ok(file::write_atomic(&self.path.join("pins"), &bytes, 0o600, None)?)
    }

    fn key(
        &self,
        name: &str,
        purpose: Purpose,
        enrolled: bool,
        rng: &mut dyn Rng,
    ) -> Result<Zeroizing<[u8; 32]>, IdentityError> {
        let path = self.path.join(name);
        if !path.exists() {
            if enrolled {
                return Err(IdentityError::KeyLost { path });
            }
            let mut seed = Zeroizing::new([0; 32]);
            rng.fill(&mut *seed);
            file::write_new(&path, seed_text(purpose, &seed).as_bytes(), 0o600, None)?;
            return Ok(seed);
        }
        file::check_private(&path)?;
        let text = Zeroizing::new(file::read_bounded(&path, KEY_FILE_BYTES_MAX)?);
        parse_seed(purpose, &text).map_err(|reason| IdentityError::Key { path, reason })
    }
}

#[cfg(test)]
mod tests;
