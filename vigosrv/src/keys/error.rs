//! Why a server does not start with the keys that it finds.

use std::fmt;
use std::path::PathBuf;

use common::cli::{Exit, Failure};
use common::crypto::BadSeed;
use common::sys::FileError;

/// Why there are no usable keys. Nothing is changed on the disk when one of these is returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A file cannot be read or written, or others may open it.
    File(FileError),
    /// One half of a pair, or one of the keys that belong together, is missing.
    Missing {
        /// What is there.
        present: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// The database is there and no key is: new keys would make a server that no envoy trusts.
    KeysLost {
        /// The database.
        database: PathBuf,
        /// The first key that is missing.
        missing: PathBuf,
    },
    /// A key file of ours that is damaged or for something else.
    Seed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: BadSeed,
    },
    /// A PEM file that does not hold what it should.
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The key does not belong to the certificate.
    Unfit {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A file of the recovery key that is damaged.
    Recovery {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A certificate could not be made.
    Issue(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::File(error) => write!(f, "{error}"),
            KeyError::Missing { present, missing } => write!(
                f,
                "{} is there and {} is missing: they belong together; restore the missing one from a backup: `vigocli backup \
                 restore FILE --only tls`",
                present.display(),
                missing.display()
            ),
            KeyError::KeysLost { database, missing } => write!(
                f,
                "{} is there and {} is missing: with new keys no envoy would trust this server; restore the tls directory \
                 from a backup (`vigocli backup restore FILE --only tls`), or move the database away to begin anew",
                database.display(),
                missing.display()
            ),
            KeyError::Seed { path, reason } => write!(f, "{}: {reason}; restore it from a backup", path.display()),
            KeyError::Pem { path, expected } => write!(f, "{}: expected {expected}", path.display()),
            KeyError::Unfit { cert, key } => {
                write!(f, "the private key {} does not fit the certificate {}", key.display(), cert.display())
            }
            KeyError::Recovery { path, what } => write!(
                f,
                "{}: this is no {what}; restore it from a backup, or remove it (docs/operations/keys.md says what it was for)",
                path.display()
            ),
            KeyError::Issue(reason) => write!(f, "cannot make a certificate: {reason}"),
        }
    }
}

impl std::error::Error for KeyError {}

impl From<FileError> for KeyError {
    fn from(error: FileError) -> KeyError {
        KeyError::File(error)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Failure {
        Failure::new(Exit::BadConfig, error.to_string())
    }
}
