//! When an archive was last proved to be good: `.proofs.json` beside the archives, written by `verify` and `drill`, read by
//! metrics and `doctor`.

use std::path::Path;

use common::sys::file::{make_dir, read_bounded, write_atomic};
use common::sys::{FileError, Owner};
use serde::{Deserialize, Serialize};

const FILE: &str = ".proofs.json";
const BYTES_MAX: u64 = 1 << 20;
/// Proofs that are kept, the newest.
const KEPT_MAX: usize = 200;

/// One proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// File name of the archive.
    pub archive: String,
    /// Its SHA-256.
    pub sha256: String,
    /// `verify` or `drill`.
    pub kind: String,
    /// When, RFC 3339.
    pub at: String,
    /// Names the master key in it, see [`super::key_id`]; empty where there is none.
    #[serde(default)]
    pub master_key_id: String,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proofs {
    /// Version of this form: 1.
    pub schema: u32,
    /// Oldest first.
    pub proofs: Vec<Proof>,
}

impl Proofs {
    /// Of a directory of archives; none where the file is missing or damaged: a proof that cannot be read proves nothing.
    pub fn read(snapshots: &Path) -> Proofs {
        let bytes = read_bounded(&snapshots.join(FILE), BYTES_MAX).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Adds one.
    pub fn add(snapshots: &Path, proof: Proof) -> Result<(), FileError> {
        let owner = snapshots.ancestors().find(|dir| dir.is_dir()).map(Owner::of).transpose()?;
        make_dir(snapshots, 0o700, owner)?;
        let mut all = Proofs::read(snapshots);
        all.schema = 1;
        all.proofs.push(proof);
        let extra = all.proofs.len().saturating_sub(KEPT_MAX);
        all.proofs.drain(..extra);
        // Plain values in a fixed struct always serialise.
        let text = serde_json::to_vec_pretty(&all).unwrap_or_default();
        write_atomic(&snapshots.join(FILE), &text, 0o600, owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("snapshots");
        for n in 0..KEPT_MAX + 3 {
            let proof = Proof {
                archive: format!("{n}"),
                sha256: String::new(),
                kind: "verify".into(),
                at: String::new(),
                master_key_id: String::new(),
            };
            Proofs::add(&at, proof).unwrap();
        }
        let all = Proofs::read(&at).proofs;
        assert_eq!((all.len(), all[0].archive.as_str()), (KEPT_MAX, "3"));
        std::fs::write(at.join(FILE), "{").unwrap();
        assert_eq!(Proofs::read(&at), Proofs::default());
    }
}
