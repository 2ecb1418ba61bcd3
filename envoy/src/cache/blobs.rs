//! Files that bundles name, by SHA-256, in `blobs/` beside the store: so that `source:` files are repaired offline too.
//!
//! A blob arrives in pieces under a temporary name, is compared with its hash, synced and renamed: under its own name it is
//! whole. An interrupted transfer goes on where it stopped. Ruled by `BLOB_BYTES_MAX` and the bound of the directory.
//! Which blobs are wanted is the core's business.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use common::bundle::BlobRef;
use common::ids::Hash32;
use common::limits;
use common::sys::file::{make_dir, sync_dir};

/// What an unfinished transfer has behind its hash.
const PART: &str = ".part";

/// The blob directory.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    bytes_max: u64,
    /// Compared with their hash by this process: once is enough.
    verified: BTreeSet<Hash32>,
}

impl Blobs {
    /// The directory at `dir`, which need not be there yet, for up to `bytes_max` bytes.
    pub fn new(dir: &Path, bytes_max: u64) -> Blobs {
        Blobs { dir: dir.to_path_buf(), bytes_max, verified: BTreeSet::new() }
    }

    /// Where a blob lies once it is whole.
    pub fn path(&self, hash: &Hash32) -> PathBuf {
        self.dir.join(hash.to_string())
    }

    /// Which of these are not here whole, each with the bytes that are here of an interrupted transfer. A file that does not
    /// have its hash any more is removed and missing.
    pub fn missing(&mut self, blobs: &[BlobRef]) -> Vec<(BlobRef, u64)> {
        let wanted = blobs.iter().filter(|blob| !self.is_whole(blob));
        wanted
            .cloned()
            .collect::<Vec<_>>()
            .into_iter()
            .map(|blob| (self.resume_at(&blob), blob))
            .map(|(at, blob)| (blob, at))
            .collect()
    }

    /// Writes a piece. The last one compares the whole with the hash, syncs and names it. After an error what was there of
    /// this blob is gone, and the transfer starts over.
    pub fn write(&mut self, hash: &Hash32, offset: u64, data: &[u8], last: bool) -> Result<(), String> {
        let written = self.try_write(hash, offset, data, last);
        if written.is_err() {
            let _ = fs::remove_file(self.part(hash));
        }
        written
    }

    /// Removes every blob and unfinished transfer but these.
    pub fn keep(&mut self, hashes: &[Hash32]) {
        let names: BTreeSet<String> = hashes.iter().map(Hash32::to_string).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let stem = name.strip_suffix(PART).unwrap_or(&name);
            if !names.contains(stem) && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                // What stays for now is tried again with the next assignment.
                let _ = fs::remove_file(entry.path());
            }
        }
        self.verified.retain(|hash| hashes.contains(hash));
    }

    fn part(&self, hash: &Hash32) -> PathBuf {
        self.dir.join(format!("{hash}{PART}"))
    }

    fn is_whole(&mut self, blob: &BlobRef) -> bool {
        let path = self.path(&blob.sha256);
        let is_file = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == blob.size);
        if is_file && self.verified.contains(&blob.sha256) {
            return true;
        }
        if is_file && File::open(&path).and_then(hash_of).is_ok_and(|hash| hash == blob.sha256) {
            self.verified.insert(blob.sha256);
            return true;
        }
        self.verified.remove(&blob.sha256);
        let _ = fs::remove_file(&path);
        false
    }

    fn resume_at(&self, blob: &BlobRef) -> u64 {
        let part = self.part(&blob.sha256);
        match fs::symlink_metadata(&part) {
            Ok(meta) if meta.is_file() && meta.len() < blob.size => meta.len(),
            Ok(_) => {
                let _ = fs::remove_file(&part);
                0
            }
            Err(_) => 0,
        }
    }

    fn try_write(&mut self, hash: &Hash32, offset: u64, data: &[u8], last: bool) -> Result<(), String> {
        make_dir(&self.dir, 0o700, None).map_err(|error| error.to_string())?;
        let (part, path) = (self.part(hash), self.path(hash));
        let at = |error: std::io::Error| format!("{}: {error}", part.display());
        let end = offset.saturating_add(data.len() as u64);
        if end > limits::BLOB_BYTES_MAX {
            return Err(format!("blob {hash} is larger than {} bytes", limits::BLOB_BYTES_MAX));
        }
        if self.bytes_without(&part) + end > self.bytes_max {
            let dir = self.dir.display();
            return Err(format!("{dir}: blob {hash} does not fit into the {} bytes for blobs", self.bytes_max));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(offset == 0).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&part).map_err(at)?;
        let have = file.metadata().map_err(at)?.len();
        if have != offset {
            return Err(format!("{}: a piece for byte {offset} came, but {have} bytes are there", part.display()));
        }
        file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(data)).map_err(at)?;
        if !last {
            return Ok(());
        }
        file.sync_all().map_err(at)?;
        let found = file.rewind().and_then(|()| hash_of(file)).map_err(at)?;
        if found != *hash {
            return Err(format!("{}: what arrived has the hash {found}", part.display()));
        }
        fs::rename(&part, &path).map_err(at)?;
        sync_dir(&self.dir).map_err(|error| error.to_string())?;
        self.verified.insert(*hash);
        Ok(())
    }

    /// Bytes of all files but one.
    fn bytes_without(&self, part: &Path) -> u64 {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten().filter(|entry| entry.path() != part);
        entries.filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file()).map(|meta| meta.len()).sum()
    }
}

fn hash_of(mut file: File) -> std::io::Result<Hash32> {
    let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; limits::BLOB_CHUNK_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => context.update(&buffer[..n]),
        }
    }
    let mut hash = Hash32::ZERO;
    hash.0.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::crypto::sha256;

    struct Fixture {
        _scratch: tempfile::TempDir,
        blobs: Blobs,
        data: Vec<u8>,
        hash: Hash32,
    }

    fn fixture(bytes: usize) -> Fixture {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let data: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
        let hash = sha256(&[&data]);
        Fixture { blobs: Blobs::new(&scratch.path().join("blobs"), 1 << 20), _scratch: scratch, data, hash }
    }

    fn blob(f: &Fixture) -> BlobRef {
        BlobRef { sha256: f.hash, size: f.data.len() as u64, path: "files/a".into() }
    }

    #[test]
    fn pieces_become_a_blob_and_an_interrupted_transfer_goes_on() {
        let mut f = fixture(1_000);
        let wanted = [blob(&f)];
        assert_eq!(f.blobs.missing(&wanted), [(blob(&f), 0)]);
        f.blobs.write(&f.hash, 0, &f.data[..400], false).expect("it is written");
        let mut again = Blobs::new(&f.blobs.dir, 1 << 20);
        assert_eq!(again.missing(&wanted), [(blob(&f), 400)]);
        again.write(&f.hash, 400, &f.data[400..], true).expect("it is whole");
        assert_eq!(again.missing(&wanted), []);
        assert_eq!(fs::read(again.path(&f.hash)).expect("it reads"), f.data);
        assert!(!again.part(&f.hash).exists());
    }

    #[test]
    fn a_wrong_hash_and_a_wrong_offset_start_over() {
        let mut f = fixture(1_000);
        f.blobs.write(&f.hash, 0, &f.data[..400], false).expect("it is written");
        assert!(f.blobs.write(&f.hash, 300, &f.data[300..], true).is_err_and(|e| e.contains("400 bytes are there")));
        assert_eq!(f.blobs.missing(&[blob(&f)]), [(blob(&f), 0)]);
        f.data[7] ^= 1;
        let wrong = f.blobs.write(&f.hash, 0, &f.data, true).expect_err("it is another");
        assert!(wrong.contains("what arrived has the hash"), "{wrong}");
        assert!(!f.blobs.path(&f.hash).exists() && !f.blobs.part(&f.hash).exists());
    }

    #[test]
    fn a_blob_that_changed_on_disk_is_missing() {
        let mut f = fixture(1_000);
        f.blobs.write(&f.hash, 0, &f.data, true).expect("it is whole");
        f.data[0] ^= 1;
        fs::write(f.blobs.path(&f.hash), &f.data).expect("it is written");
        let mut after_restart = Blobs::new(&f.blobs.dir, 1 << 20);
        assert_eq!(after_restart.missing(&[blob(&f)]), [(blob(&f), 0)]);
        assert!(!f.blobs.path(&f.hash).exists());
    }

    #[test]
    fn the_bound_holds_and_what_no_slot_names_is_removed() {
        let mut f = fixture(700_000);
        f.blobs.write(&f.hash, 0, &f.data, true).expect("it is whole");
        let other = sha256(&[b"other"]);
        assert!(f.blobs.write(&other, 0, &f.data, false).is_err_and(|e| e.contains("does not fit")));
        f.blobs.write(&other, 0, b"oth", false).expect("it fits");
        f.blobs.keep(&[other]);
        assert_eq!(f.blobs.missing(&[blob(&f)]), [(blob(&f), 0)]);
        f.blobs.write(&other, 3, b"er", true).expect("the unfinished transfer was kept");
        f.blobs.keep(&[]);
        assert_eq!(fs::read_dir(&f.blobs.dir).expect("it lists").count(), 0);
    }
}
