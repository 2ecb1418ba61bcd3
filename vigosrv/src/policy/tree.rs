//! The files of a policy, as the shell read them: the input of everything here.

use std::collections::{BTreeMap, BTreeSet};

use common::crypto::sha256;
use common::ids::Hash32;
use common::yaml::Error;

/// A tree of policy files by path below `stacks/`.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, File>,
    /// What could not be read; such a tree does not compile.
    pub(super) problems: Vec<Error>,
    /// Secrets that there are, where references to others are errors. Not part of the hash.
    secrets: Option<BTreeSet<String>>,
}

/// One file.
#[derive(Clone, Debug)]
pub struct File {
    /// Of its content.
    pub sha256: Hash32,
    /// Bytes.
    pub size: u64,
    /// Its content, except below `files/`, of which only the hash matters.
    pub bytes: Option<Vec<u8>>,
}

impl Tree {
    /// Adds a file with its content.
    pub fn insert(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.insert_whole(path, sha256(&[&bytes]), bytes);
    }

    /// The same, where the hash is known.
    pub fn insert_whole(&mut self, path: impl Into<String>, sha256: Hash32, bytes: Vec<u8>) {
        self.files.insert(path.into(), File { sha256, size: bytes.len() as u64, bytes: Some(bytes) });
    }

    /// Adds a file of which only the hash is known.
    pub fn insert_hashed(&mut self, path: impl Into<String>, sha256: Hash32, size: u64) {
        self.files.insert(path.into(), File { sha256, size, bytes: None });
    }

    /// Notes that something in the tree could not be read.
    pub fn refuse(&mut self, error: Error) {
        self.problems.push(error);
    }

    /// Only these secrets may be referred to.
    pub fn with_secrets(mut self, secrets: BTreeSet<String>) -> Tree {
        self.secrets = Some(secrets);
        self
    }

    /// Whether a secret may be referred to.
    pub fn knows_secret(&self, path: &str) -> bool {
        self.secrets.as_ref().is_none_or(|known| known.contains(path))
    }

    /// The files in path order.
    pub fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// A file.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    /// Hash over all paths and contents. It names a publish.
    pub fn hash(&self) -> Hash32 {
        let mut bytes = b"vigo-tree-v1\0".to_vec();
        for (path, file) in &self.files {
            bytes.extend_from_slice(&(path.len() as u64).to_be_bytes());
            bytes.extend_from_slice(path.as_bytes());
            bytes.extend_from_slice(&file.sha256.0);
        }
        sha256(&[&bytes])
    }
}

impl<P: Into<String>, B: Into<Vec<u8>>> FromIterator<(P, B)> for Tree {
    fn from_iter<I: IntoIterator<Item = (P, B)>>(files: I) -> Tree {
        let mut tree = Tree::default();
        files.into_iter().for_each(|(path, bytes)| tree.insert(path, bytes));
        tree
    }
}
