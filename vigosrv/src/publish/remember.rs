//! The parser's memory as a file below `run/`, one for each program, and the outline of a published tree as a hidden file in it. Nothing depends on it: what cannot be read is an empty memory,
//! what cannot be written is left. It is not synced; its checksum tells what a power cut left of it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use common::cli::VERSION;
use common::crypto::sha256;
use common::ids::Hash32;
use common::limits::POLICY_MEMORY_BYTES_MAX;
use common::sys::Owner;
use common::sys::file::{hand_over, make_dir, read_bounded};

use crate::policy::{Memory, Outline};

const OUTLINE: &str = ".outline";

/// A memory and where it is kept.
pub(super) struct Remembered {
    pub(super) memory: Memory,
    path: Option<PathBuf>,
    owner: Option<Owner>,
}

impl Remembered {
    /// Recalls what was kept below a root.
    pub(super) fn recall(root: &Path) -> Remembered {
        let Some((path, build)) = place(root) else {
            return Remembered { memory: Memory::default(), path: None, owner: None };
        };
        let whole = read_bounded(&path, POLICY_MEMORY_BYTES_MAX).unwrap_or_default();
        let owner = Owner::of(root).ok();
        Remembered { memory: Memory::new(build, whole), path: Some(path), owner }
    }

    /// Keeps what was learned.
    pub(super) fn keep(&self) {
        if let (Some(path), Some(learned)) = (&self.path, self.memory.learned()) {
            let _ = write(path, learned, self.owner);
        }
    }
}

/// Keeps the outline of a tree that is about to be published in its directory, so that the next publish need not compile this one to
/// say what it changes. Hidden files are no part of a tree.
pub(super) fn keep_outline(tree: &Path, outline: &Outline, owner: Option<Owner>) {
    if let Some(build) = build() {
        let path = tree.join(OUTLINE);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        // One that is cut short is of no use and does no harm.
        let _ = file.and_then(|mut file| file.write_all(&outline.encode(&build)));
        let _ = hand_over(&path, owner);
    }
}

/// The outline of a published tree, if this program published it.
pub(super) fn outline(tree: &Path) -> Option<Outline> {
    Outline::decode(&build()?, &read_bounded(&tree.join(OUTLINE), POLICY_MEMORY_BYTES_MAX).ok()?)
}

/// Where this program keeps its memory.
fn place(root: &Path) -> Option<(PathBuf, Hash32)> {
    let program = std::env::current_exe().ok()?;
    let name = program.file_name()?.to_str()?;
    Some((root.join("run").join(format!("policy.{name}.memory")), build()?))
}

/// What tells this program apart from any other build: the file that it was started from.
fn build() -> Option<Hash32> {
    let found = fs::metadata(std::env::current_exe().ok()?).ok()?;
    let numbers = [found.len(), found.ino(), found.mtime() as u64, found.mtime_nsec() as u64, found.ctime() as u64];
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    Some(sha256(&[VERSION.as_bytes(), &numbers]))
}

/// Whole or not at all, for whoever reads it meanwhile.
fn write(path: &Path, bytes: &[u8], owner: Option<Owner>) -> Option<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    make_dir(path.parent()?, 0o700, owner).ok()?;
    // Of a process of that number that died. Never written through: the directory is the server's user's, who may have put a
    // link there for root to follow.
    let _ = fs::remove_file(&new);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let written = written.and_then(|mut file| file.write_all(bytes)).ok();
    let given = written.and_then(|()| hand_over(&new, owner).ok());
    if given.and_then(|()| fs::rename(&new, path).ok()).is_none() {
        let _ = fs::remove_file(&new);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_through_a_link_that_somebody_put_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("run/policy.x.memory"), dir.path().join("other"));
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(&other, "kept").unwrap();
        for planted in [path.with_extension(format!("new-{}", std::process::id())), path.clone()] {
            std::os::unix::fs::symlink(&other, &planted).unwrap();
            write(&path, b"memory", None);
            assert_eq!(fs::read(&path).unwrap(), b"memory");
            assert_eq!(fs::read(&other).unwrap(), b"kept");
            fs::remove_file(&path).unwrap();
        }
    }
}
