//! Reads a tree of policy files from the disk, and copies it on the way where a copy is wanted: what is compiled is then,
//! byte for byte, what is kept, even while somebody edits.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use common::crypto::Sha256;
use common::limits;
use common::sys::file::{hand_over, make_dir};
use common::sys::{FileError, Owner};
use common::yaml::Error;

use crate::policy::Tree;

/// Where a copy goes.
pub(super) struct Copy<'a> {
    pub(super) to: &'a Path,
    pub(super) owner: Option<Owner>,
}

/// Reads the tree below `from`. What is no policy (hidden files, notes, backups of editors) is neither read nor copied.
/// What cannot be part of a policy is noted in the tree. The error is about the copy.
pub(super) fn read_tree(from: &Path, copy: Option<Copy<'_>>) -> Result<Tree, FileError> {
    let piece = vec![0; PIECE_BYTES].into_boxed_slice();
    let mut reader = Reader { from, copy, tree: Tree::default(), n_files: 0, n_bytes: 0, piece };
    reader.directory(&PathBuf::new(), 0)?;
    Ok(reader.tree)
}

/// Bytes read at a time.
const PIECE_BYTES: usize = 64 << 10;

struct Reader<'a> {
    from: &'a Path,
    copy: Option<Copy<'a>>,
    tree: Tree,
    n_files: usize,
    n_bytes: u64,
    /// What is read at a time.
    piece: Box<[u8]>,
}

impl Reader<'_> {
    fn directory(&mut self, below: &Path, depth: usize) -> Result<(), FileError> {
        let shown = if below.as_os_str().is_empty() { "stacks".into() } else { below.display().to_string() };
        if depth > limits::TREE_DEPTH_MAX {
            let error = Error::whole(&shown, "directories are nested too deep");
            self.tree.refuse(error.expected(format!("at most {} levels", limits::TREE_DEPTH_MAX)));
            return Ok(());
        }
        let path = self.from.join(below);
        let entries = match std::fs::read_dir(&path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()) {
            Ok(entries) => entries,
            Err(error) => {
                self.unreadable(&shown, &path, &error);
                return Ok(());
            }
        };
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let inner = below.join(&name);
            let Some(text) = name.to_str() else {
                let error = Error::whole(&inner.display().to_string(), "the name of the file is not UTF-8");
                self.tree.refuse(error.cure("rename it"));
                continue;
            };
            if text.starts_with('.') || text.ends_with('~') {
                continue;
            }
            let shown = inner.display().to_string();
            match std::fs::symlink_metadata(self.from.join(&inner)) {
                Ok(found) if found.is_dir() => self.directory(&inner, depth + 1)?,
                Ok(found) if !is_wanted(&shown) && (!found.is_symlink() || !is_in_folder(&shown)) => {}
                Ok(found) if found.is_file() => self.file(&inner, &shown, &found)?,
                Ok(found) => {
                    let kind = if found.is_symlink() { "a symbolic link" } else { "no regular file" };
                    let error = Error::whole(&shown, format!("this is {kind}, which a policy cannot contain"));
                    self.tree.refuse(error.cure("put the file itself here"));
                }
                Err(error) => self.unreadable(&shown, &self.from.join(&inner), &error),
            }
        }
        Ok(())
    }

    fn file(&mut self, below: &Path, shown: &str, found: &Metadata) -> Result<(), FileError> {
        self.n_files += 1;
        if self.n_files == limits::TREE_FILES_MAX + 1 {
            let error = Error::whole("stacks", "the tree has too many files");
            self.tree.refuse(error.expected(format!("at most {}", limits::TREE_FILES_MAX)));
        }
        let keep = !shown.starts_with("files/");
        let max = if keep { limits::YAML_BYTES_MAX as u64 } else { limits::BLOB_BYTES_MAX };
        self.n_bytes += if keep { found.len() } else { 0 };
        if self.n_bytes > limits::TREE_BYTES_MAX && self.n_bytes - found.len() <= limits::TREE_BYTES_MAX {
            let error = Error::whole("stacks", "the policy files together are too large");
            self.tree.refuse(error.expected(format!("at most {} bytes", limits::TREE_BYTES_MAX)));
        }
        if self.n_files > limits::TREE_FILES_MAX || self.n_bytes > limits::TREE_BYTES_MAX {
            return Ok(());
        }
        if found.len() > max {
            let error = Error::whole(shown, format!("the file has {} bytes", found.len()));
            self.tree.refuse(error.expected(format!("at most {max}")).cure("split it, or fetch it with `exec`"));
            return Ok(());
        }
        let path = self.from.join(below);
        match File::open(&path) {
            Ok(file) => self.content(file, below, shown, keep, max),
            Err(error) => {
                self.unreadable(shown, &path, &error);
                Ok(())
            }
        }
    }

    /// Reads in pieces, hashing and copying each; only what the compiler looks into stays in memory.
    fn content(&mut self, file: File, below: &Path, shown: &str, keep: bool, max: u64) -> Result<(), FileError> {
        let mut out = self.copy.as_ref().map(|copy| copy.open(below)).transpose()?;
        let (mut digest, mut kept, mut size) = (Sha256::new(), Vec::new(), 0u64);
        // A file that grows while it is read ends at its bound and is refused like one that was too large before.
        let mut file = file.take(max + 1);
        loop {
            let n = match file.read(&mut self.piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => {
                    self.unreadable(shown, &self.from.join(below), &error);
                    return Ok(());
                }
            };
            size += n as u64;
            digest.update(&self.piece[..n]);
            if keep {
                kept.extend_from_slice(&self.piece[..n]);
            }
            if let Some((file, path)) = &mut out {
                file.write_all(&self.piece[..n]).map_err(|error| FileError::new("write", path, &error))?;
            }
        }
        if size > max {
            self.tree.refuse(Error::whole(shown, "the file grew while it was read").cure("publish again"));
        } else if keep {
            self.tree.insert_whole(shown, digest.finish(), kept);
        } else {
            self.tree.insert_hashed(shown, digest.finish(), size);
        }
        Ok(())
    }

    fn unreadable(&mut self, shown: &str, path: &Path, error: &std::io::Error) {
        let error = FileError::new("read", path, error);
        self.tree.refuse(Error::whole(shown, format!("cannot be read: {}", error.reason)));
    }
}

impl Copy<'_> {
    fn open(&self, below: &Path) -> Result<(File, PathBuf), FileError> {
        let path = self.to.join(below);
        if let Some(parent) = path.parent() {
            make_dir(parent, 0o700, self.owner)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| FileError::new("write", &path, &error))?;
        hand_over(&path, self.owner)?;
        Ok((file, path))
    }
}

/// Whether a path is one of the folders of a policy, or below one: a link there is meant to be policy.
fn is_in_folder(path: &str) -> bool {
    let folder = path.split('/').next().unwrap_or_default();
    ["configcrates", "envoys", "files", "roles", "templates", "vars"].contains(&folder)
}

/// Whether a file is part of a policy, or looks as if somebody meant it to be.
fn is_wanted(path: &str) -> bool {
    path.starts_with("files/")
        || path.starts_with("templates/")
        || [".vgo", ".yaml", ".yml"].iter().any(|suffix| path.ends_with(suffix))
}
