//! Archives of a server: made beside a running one, looked at, verified, and restored as a whole or not at all.
//!
//! A shell: files in, files out; it asks nobody and prints nothing. The form of an archive is in `docs/ARCHIVE.md`. Reading
//! (`read`) trusts nothing; restoring (`restore`) unpacks and checks everything in a scratch directory first and then renames.
//! Continuous replication is another folder and shares no code with this one, on purpose.

mod create;
mod crypt;
mod error;
mod gather;
mod health;
mod keys;
mod layout;
mod list;
mod manifest;
mod marker;
mod preflight;
mod proofs;
mod read;
mod restore;
mod stage;
#[cfg(test)]
mod tests;

pub use create::{Created, Progress, Request, create, key_id};
pub use crypt::is_encrypted;
pub use error::BackupError;
pub use health::Health;
pub use keys::server_id_of;
pub use layout::Layout;
pub use list::{Listed, is_archive_name, list};
pub use manifest::{DATABASE, FORMAT, Manifest, Member, PARTS, Part, parse_parts};
pub use marker::{Marker, Restored, at_start, marker_path};
pub use preflight::{Finding, Host, Weight};
pub use proofs::{Proof, Proofs};
pub use read::{Archive, AskPassword, Sidecar, inspect, sidecar_path};
pub use restore::{Choice, Plan, Restoration, apply, free_root, prepare};
pub use stage::{Looked, Scratch, Staged, free_bytes, look, stage};
