//! What parsing the files of a tree came to, kept between commands: an operator edits one file of two thousand and asks again.
//!
//! A file is remembered by its path, the hash of its content and the hashes of all files that it was parsed with. Only trees without
//! an error are learned, so a file that is remembered is a good one, and a tree that is wrong is parsed where it is wrong, every time.
//! The memory is worth nothing: one of another build, or a damaged one, is an empty one. A core: the shell reads and writes the bytes.

pub(super) mod codec;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use common::crypto::sha256;
use common::ids::Hash32;

use super::load::Parsed;
use super::tree::Tree;
use codec::{Keep, bytes};

/// Begins every memory; the number is that of the framing around what is kept.
const MAGIC: &[u8] = b"vigo policy memory 1\n";

/// The memory of one tree.
#[derive(Debug, Default)]
pub struct Memory {
    build: Hash32,
    whole: Vec<u8>,
    /// By path: where the entry is.
    entries: HashMap<String, Entry>,
    /// What is to be kept from now on, where that is something else.
    learned: Option<Vec<u8>>,
    /// Never learns.
    closed: bool,
    /// The process ends after one answer.
    once: bool,
}

#[derive(Debug)]
struct Entry {
    /// All of it, in `whole`.
    from: usize,
    to: usize,
    /// Where what was parsed begins.
    parsed: usize,
    head: Head,
}

/// What an entry is valid for.
#[derive(Debug)]
struct Head {
    path: String,
    sha256: Hash32,
    /// Files that were read with it, and their hashes.
    with: Vec<(String, Hash32)>,
    has_secrets: bool,
}

/// A file that was remembered, or is to be.
pub(super) struct Known {
    pub(super) parsed: Parsed,
    /// Whether it refers to secrets.
    pub(super) has_secrets: bool,
}

impl Memory {
    /// From what was kept last. `build` tells programs apart: they may parse differently.
    pub fn new(build: Hash32, whole: Vec<u8>) -> Memory {
        let entries = read(&build, &whole).unwrap_or_default();
        Memory { build, whole, entries, learned: None, closed: false, once: false }
    }

    /// The same, for questions about another tree than the one to be remembered.
    pub fn closed(mut self) -> Memory {
        self.closed = true;
        self
    }

    /// For a process that ends with its answer: freeing what was loaded, piece by piece, would take as long as finding the answer.
    pub fn once(mut self) -> Memory {
        self.once = true;
        self
    }

    /// Whether what was loaded may be left to the kernel.
    pub(super) fn is_last(&self) -> bool {
        self.once
    }

    /// What is to be kept, if that has changed.
    pub fn learned(&self) -> Option<&[u8]> {
        self.learned.as_deref()
    }

    /// What is known of a file of this tree.
    pub(super) fn recall(&self, tree: &Tree, path: &str) -> Option<Known> {
        let entry = self.entries.get(path)?;
        let has = |path: &str, hash: &Hash32| tree.file(path).is_some_and(|file| file.sha256 == *hash);
        if !has(path, &entry.head.sha256) || !entry.head.with.iter().all(|(path, hash)| has(path, hash)) {
            return None;
        }
        let mut from = self.whole.get(entry.parsed..entry.to)?;
        let parsed = Parsed::take(&mut from)?;
        from.is_empty().then_some(Known { parsed, has_secrets: entry.head.has_secrets })
    }

    /// Takes in a tree without errors: the files that were recalled, and those that were parsed.
    pub(super) fn learn(&mut self, recalled: &[&str], fresh: &Fresh) {
        if self.closed || (fresh.n == 0 && recalled.len() == self.entries.len()) {
            return;
        }
        let mut out = begin(MAGIC, &self.build);
        ((recalled.len() + fresh.n) as u64).put(&mut out);
        for entry in recalled.iter().filter_map(|path| self.entries.get(*path)) {
            out.extend_from_slice(&self.whole[entry.from..entry.to]);
        }
        out.extend_from_slice(&fresh.entries);
        self.learned = Some(end(out));
    }

    /// The files that it knows, for tests.
    #[cfg(test)]
    fn paths(&self) -> std::collections::BTreeSet<&str> {
        self.entries.keys().map(String::as_str).collect()
    }
}

/// Files that were parsed, not yet part of a memory.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    n: usize,
    entries: Vec<u8>,
}

impl Fresh {
    /// Adds one, with the files that it was parsed with.
    pub(super) fn add<'p>(&mut self, tree: &Tree, path: &str, with: impl Iterator<Item = &'p String>, known: &Known) {
        let hash = |path: &str| tree.file(path).map(|file| file.sha256);
        let with: Option<Vec<(String, Hash32)>> = with.map(|path| Some((path.clone(), hash(path)?))).collect();
        // What names a file that is not there is wrong, and its tree will not be learned.
        let (Some(sha256), Some(with)) = (hash(path), with) else { return };
        let mut parsed = Vec::new();
        known.parsed.put(&mut parsed);
        let out = &mut self.entries;
        path.to_string().put(out);
        sha256.put(out);
        with.put(out);
        known.has_secrets.put(out);
        (parsed.len() as u64).put(out);
        out.extend_from_slice(&parsed);
        self.n += 1;
    }
}

/// Where each entry is; `None` for what this build did not write as it is.
fn read(build: &Hash32, whole: &[u8]) -> Option<HashMap<String, Entry>> {
    let mut from = open(MAGIC, build, whole)?;
    let at = |from: &[u8]| whole.len() - HASH_BYTES - from.len();
    let n = u64::take(&mut from)?;
    let mut entries = HashMap::new();
    for _ in 0..n {
        let start = at(from);
        let head = Head {
            path: Keep::take(&mut from)?,
            sha256: Keep::take(&mut from)?,
            with: Keep::take(&mut from)?,
            has_secrets: Keep::take(&mut from)?,
        };
        let n_bytes = usize::try_from(u64::take(&mut from)?).ok()?;
        let parsed = at(from);
        bytes(&mut from, n_bytes)?;
        entries.insert(head.path.clone(), Entry { from: start, to: at(from), parsed, head });
    }
    from.is_empty().then_some(entries)
}

/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;

/// Begins something that only this build reads.
pub(super) fn begin(magic: &[u8], build: &Hash32) -> Vec<u8> {
    let mut out = magic.to_vec();
    build.put(&mut out);
    out
}

/// Ends it.
pub(super) fn end(mut out: Vec<u8>) -> Vec<u8> {
    sha256(&[&out]).put(&mut out);
    out
}

/// What is between, if it is whole and of this build.
pub(super) fn open<'w>(magic: &[u8], build: &Hash32, whole: &'w [u8]) -> Option<&'w [u8]> {
    let (body, hash) = whole.split_at_checked(whole.len().checked_sub(HASH_BYTES)?)?;
    let mut from = body.strip_prefix(magic)?;
    (Hash32::take(&mut from)? == *build && sha256(&[body]).0 == hash).then_some(from)
}
