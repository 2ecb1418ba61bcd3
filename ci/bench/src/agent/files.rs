//! The files that are kept: small ones in directories of twenty, as policy for the agent and as the bare program that is the floor.
//!
//! The floor knows what it wants, keeps nothing open, and does for each file what cannot be left out: look, read, compare; to write:
//! a temporary file, its sync, a rename. Its record is a file that is overwritten and synced as often as the agent syncs for one run.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files of one directory.
const PER_DIR: usize = 20;
/// Bytes of a file.
const FILE_BYTES: usize = 200;
/// Bytes that the floor writes for a record.
const RECORD_BYTES: usize = 4096;

/// So many files, below a root.
#[derive(Clone, Debug)]
pub struct Files {
    /// How many.
    pub n: usize,
}

impl Files {
    fn dirs(&self) -> usize {
        self.n.div_ceil(PER_DIR)
    }

    /// 200 characters, other ones for each file.
    fn content(&self, file: usize) -> String {
        let mut text = format!("f{file:05} ");
        let mut state = file as u64 + 1;
        while text.len() < FILE_BYTES {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let _ = write!(text, "{:08x}", state >> 32);
        }
        text.truncate(FILE_BYTES - 1);
        text + "\n"
    }

    fn path(file: usize) -> String {
        format!("/d{:03}/f{file:05}.conf", file / PER_DIR)
    }

    /// As policy: paths below `stacks/` and their texts.
    pub fn policy(&self) -> [(&'static str, String); 2] {
        let mut crates = String::from("name: files\ndefaults: {mode: \"0644\"}\nresources:\n");
        for dir in 0..self.dirs() {
            let _ = writeln!(crates, "  - {{name: d{dir}, type: directory, target_path: /d{dir:03}, mode: \"0755\"}}");
        }
        for file in 0..self.n {
            let (dir, path, content) = (file / PER_DIR, Files::path(file), self.content(file));
            let _ = writeln!(
                crates,
                "  - {{name: f{file}, type: file, target_path: {path}, depends_on: [d{dir}], content: {content:?}}}"
            );
        }
        let mapping = "envoys:\n  - match: \"*\"\n    configcrates: [files]\n".to_string();
        [("configcrates/files.vgo", crates), ("envoys/all.vgo", mapping)]
    }

    /// The floor of this root.
    pub fn floor(&self, root: &Path) -> Floor {
        let dirs = (0..self.dirs()).map(|dir| root.join(format!("d{dir:03}"))).collect();
        let file = |file| (root.join(Files::path(file).trim_start_matches('/')), self.content(file).into_bytes());
        Floor { dirs, files: (0..self.n).map(file).collect(), record: root.with_extension("record") }
    }
}

/// The bare program.
#[derive(Debug)]
pub struct Floor {
    dirs: Vec<PathBuf>,
    files: Vec<(PathBuf, Vec<u8>)>,
    record: PathBuf,
}

impl Floor {
    /// Checks everything and writes a record with so many syncs. The number of files and directories that are not as they should be.
    pub fn check(&self, n_syncs: u64) -> io::Result<usize> {
        let mut n_wrong = 0;
        for dir in &self.dirs {
            let meta = fs::symlink_metadata(dir);
            n_wrong += usize::from(!meta.is_ok_and(|meta| meta.is_dir() && meta.mode() & 0o7777 == 0o755));
        }
        let mut buffer = [0; FILE_BYTES + 1];
        for (path, wanted) in &self.files {
            n_wrong += usize::from(!same(path, wanted, &mut buffer).unwrap_or(false));
        }
        self.keep_record(n_syncs)?;
        Ok(n_wrong)
    }

    /// Makes everything: each file is written beside, synced, and renamed.
    pub fn write(&self, n_syncs: u64) -> io::Result<()> {
        for dir in &self.dirs {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        }
        for (path, wanted) in &self.files {
            let beside = path.with_extension("new");
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside)?;
            file.write_all(wanted)?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
        }
        self.keep_record(n_syncs)
    }

    /// Removes everything.
    pub fn clear(&self) -> io::Result<()> {
        self.dirs.iter().try_for_each(fs::remove_dir_all)
    }

    fn keep_record(&self, n_syncs: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.record)?;
        for sync in 0..n_syncs {
            file.write_all_at(&[sync as u8; RECORD_BYTES], 0)?;
            file.sync_data()?;
        }
        Ok(())
    }
}

fn same(path: &Path, wanted: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    let n = file.read(buffer)?;
    Ok(meta.mode() & 0o7777 == 0o644 && buffer[..n] == *wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_notices_what_it_did_not_write() {
        let root = std::env::temp_dir().join(format!("vigo-bench-floor-{}", std::process::id()));
        let floor = Files { n: 30 }.floor(&root);
        floor.write(1).unwrap();
        assert_eq!(floor.check(2).unwrap(), 0);
        fs::write(root.join("d001/f00021.conf"), "else").unwrap();
        fs::remove_file(root.join("d000/f00003.conf")).unwrap();
        assert_eq!(floor.check(0).unwrap(), 2);
        floor.clear().unwrap();
        assert_eq!(floor.check(0).unwrap(), 32);
        fs::remove_dir_all(&root).unwrap();
        fs::remove_file(floor.record).unwrap();
    }
}
