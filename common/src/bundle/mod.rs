//! Signed objects: bundle, assignment, receipt, redirect. A payload is verified as the bytes that arrived, and only then
//! decoded into a checked type.

mod assignment;
mod model;
mod sealed;

pub use assignment::{Assignment, Receipt, SecretRef, Version};
pub use model::{BUNDLE_FORMAT, BlobRef, Bundle, Resource, Value};

pub use sealed::{SECRET_PREFIX, SealedSecret, is_secret_path, secret_path};

use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::crypto::{self, Context, PublicKey, SigningKey};
use crate::ids::Hash32;
use crate::proto::{BadMessage, wire};

/// Why a signed object was refused. Nothing of a refused object is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The signature is not by the expected key over these bytes.
    Signature,
    /// The bytes are no such message.
    Undecodable,
    /// The message says something it must not.
    Content(BadMessage),
    /// Larger than its limit.
    TooLarge,
    /// A format version that this build does not know.
    Format(u32),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Signature => f.write_str("the signature is not by the pinned key"),
            Refused::Undecodable => f.write_str("it is not a well-formed message"),
            Refused::Content(bad) => write!(f, "{bad}"),
            Refused::TooLarge => f.write_str("it is larger than its limit"),
            Refused::Format(n) => write!(f, "it has format {n}, which this version does not know: upgrade the agent"),
        }
    }
}

impl std::error::Error for Refused {}

impl From<BadMessage> for Refused {
    fn from(bad: BadMessage) -> Refused {
        Refused::Content(bad)
    }
}

/// Signs an encoded payload.
pub fn sign(key: &SigningKey, context: Context, payload: Vec<u8>) -> wire::Signed {
    let signature = key.sign(context, &payload).to_vec();
    wire::Signed { payload: Bytes::from(payload), signature, sealed: Vec::new() }
}

/// Checks the signature, then decodes the raw message.
pub fn open<M: Message + Default>(key: &PublicKey, context: Context, signed: &wire::Signed) -> Result<M, Refused> {
    key.verify(context, &signed.payload, &signed.signature).map_err(|_| Refused::Signature)?;
    // Fields of bytes are slices of the payload then, not copies.
    M::decode(signed.payload.clone()).map_err(|_| Refused::Undecodable)
}

/// Hash that names a bundle: over the payload as signed.
pub fn bundle_hash(payload: &[u8]) -> Hash32 {
    crypto::sha256(&[payload])
}
