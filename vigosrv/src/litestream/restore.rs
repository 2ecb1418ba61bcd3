//! The way back: a database out of the replica, checked before it is called good.

use std::fs::File;
use std::path::{Path, PathBuf};

use common::sys::{Clock, Owner, file};

use super::program::{Patience, Program};
use super::text::Job;
use super::{ReplicaError, Site};
use crate::store::check_copy;

/// How long a restore may take, milliseconds: a hundred gigabytes over a slow line.
const PATIENCE_MS: u64 = 24 * 3_600_000;
/// The configuration that a restore uses, below `run/`: that of the child may be in use.
const YML: &str = "litestream-restore.yml";
/// How Litestream says that there is nothing to restore.
const NOTHING: [&str; 3] =
    ["no matching backup files available", "no snapshots available", "transaction not available"];

/// Restores the database of a replica into `target`, which must not exist: the newest state, or that of a moment (RFC 3339). It is under
/// its name only when it is whole, by `integrity_check` and `foreign_key_check`, and durable.
pub fn restore_into(site: &Site, target: &Path, timestamp: Option<&str>) -> Result<(), ReplicaError> {
    let owner = Owner::of(&site.root)?;
    let program = Program::find(&site.replica).ok_or(ReplicaError::Missing)?.acting_for(owner);
    let owner = Some(owner);
    file::make_dir(&site.run_dir(), 0o700, owner)?;
    let yml = site.run_dir().join(YML);
    site.write_yml(&yml, &Job { database: site.database.clone(), below: "", socket: None })?;
    let part = beside(target, ".part");
    let cleared = || {
        for end in ["", "-wal", "-shm", ".tmp"] {
            let _ = std::fs::remove_file(beside(&part, end));
        }
    };
    cleared();
    let result = fetch(site, &program, &yml, &part, timestamp).and_then(|()| {
        check_copy(&part).map_err(|error| ReplicaError::Damaged(error.to_string()))?;
        let wrap = |error: std::io::Error| ReplicaError::File(file_error("sync", &part, &error));
        File::open(&part).and_then(|file| file.sync_all()).map_err(wrap)?;
        file::hand_over(&part, owner)?;
        std::fs::rename(&part, target).map_err(wrap)?;
        Ok(file::sync_dir(target.parent().unwrap_or(Path::new(".")))?)
    });
    cleared();
    let _ = std::fs::remove_file(yml);
    result
}

fn fetch(site: &Site, program: &Program, yml: &Path, part: &Path, timestamp: Option<&str>) -> Result<(), ReplicaError> {
    let (yml, to, database) =
        (yml.display().to_string(), part.display().to_string(), site.database.display().to_string());
    let mut words = vec!["restore", "-config", &yml, "-no-expand-env", "-o", &to];
    if let Some(timestamp) = timestamp {
        words.extend(["-timestamp", timestamp]);
    }
    words.push(&database);
    let patience = Patience { clock: &Clock::system(), ms: PATIENCE_MS, stop: &|| false };
    match program.run(&words, &patience) {
        Ok(_) => Ok(()),
        Err(ReplicaError::Failed { said, .. }) if NOTHING.iter().any(|nothing| said.contains(nothing)) => {
            Err(ReplicaError::Nothing { url: site.replica.url.clone(), timestamp: timestamp.unwrap_or("").into() })
        }
        Err(error) => Err(error),
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(end);
    path.with_file_name(name)
}

fn file_error(action: &'static str, path: &Path, error: &std::io::Error) -> common::sys::FileError {
    common::sys::FileError::new(action, path, error)
}
