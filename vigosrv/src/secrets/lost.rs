//! `secrets/.lost/`: files that no key opens, kept under names that say what they were. Nothing there is ever overwritten, and
//! a path stays known until it is set again, removed, or taken back with its key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use common::bundle::is_secret_path;
use common::limits;
use common::sys::FileError;
use common::sys::file::{make_dir, read_bounded, sync_dir};

use super::file::{FILE_BYTES_MAX, decode};
use super::{Place, SUFFIX, SecretError};

const LOST: &str = ".lost";

impl Place {
    /// Paths of which there is nothing but what was set aside.
    pub(super) fn lost(&self) -> Result<BTreeSet<String>, SecretError> {
        let files = self.lost_files()?.into_iter();
        Ok(files.map(|(name, _)| name).filter(|name| !self.file(name).is_file()).collect())
    }

    /// What is set aside: the path that it was, and the file.
    pub(super) fn lost_files(&self) -> Result<Vec<(String, PathBuf)>, SecretError> {
        let dir = self.dir.join(LOST);
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(|error| FileError::new("read", &dir, &error))? {
            let entry = entry.map_err(|error| FileError::new("read", &dir, &error))?;
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
            // A path has no `%`: behind the last one is a number, or what stands for a slash.
            let path = stem.replace("%2F", "/");
            let path = path.split_once('%').map_or(path.as_str(), |(path, _)| path);
            if is_secret_path(path) && found.len() < limits::SECRETS_MAX {
                found.push((path.to_string(), entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Moves to their places what opens again and was not set anew; of several forms the newest. The lock is held.
    pub(super) fn take_back(&self) -> Result<Vec<String>, SecretError> {
        let keys = self.keys()?;
        let mut best: BTreeMap<String, (u64, PathBuf)> = BTreeMap::new();
        for (path, file) in self.lost_files()? {
            let Ok(text) = String::from_utf8(read_bounded(&file, FILE_BYTES_MAX)?) else { continue };
            if let Ok((secret, _)) = decode(&keys, &path, &text)
                && !self.file(&path).exists()
                && best.get(&path).is_none_or(|(version, _)| *version < secret.version)
            {
                best.insert(path, (secret.version, file));
            }
        }
        for (path, (_, from)) in &best {
            self.note(path)?;
            let to = self.file(path);
            self.make_parents(path)?;
            std::fs::rename(from, &to).map_err(|error| FileError::new("rename", from, &error))?;
            to.parent().map_or(Ok(()), sync_dir)?;
        }
        Ok(best.into_keys().collect())
    }

    pub(super) fn set_aside(&self, path: &str) -> Result<(), SecretError> {
        let (from, owner) = (self.file(path), self.owner()?);
        let lost = self.dir.join(LOST);
        make_dir(&lost, 0o700, Some(owner))?;
        let name = path.replace('/', "%2F");
        let to =
            (0..).map(|n| lost.join(if n == 0 { format!("{name}{SUFFIX}") } else { format!("{name}%{n}{SUFFIX}") }));
        // Ends: every file that is there was put there by one call.
        let to = to.into_iter().find(|to| !to.exists()).unwrap_or_default();
        std::fs::rename(&from, &to).map_err(|error| FileError::new("rename", &from, &error))?;
        Ok(sync_dir(&lost)?)
    }
}
