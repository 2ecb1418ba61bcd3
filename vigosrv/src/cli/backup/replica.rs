//! `vigocli backup restore --from-litestream` and `vigocli backup litestream-env`.

use std::io::Write;
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, ROOT, confirm, print};
use common::sys::{Owner, file};
use common::time::Wall;
use common::units::human_bytes;
use serde_json::json;

use super::restore::Restore;
use super::stamp;
use crate::backup::{BackupError, Marker, marker_path};
use crate::cli::config;
use crate::config::{ServerConfig, lock_root};
use crate::litestream::{ReplicaError, Site, restore_into};
use crate::store::facts_of_copy;
use crate::sys::swap::{Move, old_place, replace};

/// Prints what a person needs to use Litestream by hand, for `eval` of a shell. It holds the secret key of the replica.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "litestream-env", example = "{command_name}")]
pub(super) struct LitestreamEnv {}

pub(super) fn environment(common: &Common) -> Result<Exit, Failure> {
    let text = site(&config(common)?)?.env_text()?;
    // Not by `print`, which takes secrets out: this one was asked for.
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map(|()| Exit::Done).map_err(|error| Failure::failed(format!("cannot write to standard output: {error}")))
}

/// The database out of its replica, checked, in place of the one that is there; that one is kept beside it.
pub(super) fn restore(verb: &Restore, common: &Common) -> Result<Exit, Failure> {
    let timestamp = match verb.timestamp.as_deref().map(Wall::parse) {
        None => None,
        Some(Ok(at)) => Some(at.to_string()),
        Some(Err(why)) => return Err(Failure::usage(format!("`--timestamp`: {why}"))),
    };
    let mut common = common.clone();
    if let Some(target) = &verb.target {
        common.set(&ROOT, target.display().to_string());
    }
    let config = config(&common)?;
    let (root, database, site) = (config.root.clone(), config.database.clone(), site(&config)?);
    let _lock = lock_root(&root, "vigocli backup restore")?;
    if database.exists() {
        let what = format!("replace {} with its replica; the old one is kept", database.display());
        confirm(&common, &what)?;
    }
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let owner = Owner::of(&root).map_err(|error| failed(&error))?;
    let folder = database.parent().unwrap_or(Path::new("/"));
    file::make_dir(folder, 0o700, Some(owner)).map_err(|error| failed(&error))?;
    let (new, mark) = (beside(&database, ".", ".vigo-new"), beside(&database, ".", ".vigo-new-restored"));
    let _ = std::fs::remove_file(&new);
    restore_into(&site, &new, timestamp.as_deref())?;
    let bytes = new.metadata().map_or(0, |meta| meta.len());
    let put = || -> Result<Option<PathBuf>, Failure> {
        let epoch = facts_of_copy(&new).map_err(BackupError::from)?.epoch;
        let when = timestamp.as_deref().map_or(String::new(), |at| format!(" of {at}"));
        let marker = Marker::new(format!("restored from the replica {}{when}", site.replica.url), epoch);
        file::write_atomic(&mark, &marker.encode(), 0o600, Some(owner)).map_err(|error| failed(&error))?;
        let steps = [
            (database.clone(), Some(new.clone())),
            (beside(&database, "", "-wal"), None),
            (beside(&database, "", "-shm"), None),
            (beside(&database, "", ".continuity"), None),
            // What Litestream knew of the one that is gone.
            (beside(&database, ".", "-litestream"), None),
            (marker_path(&database), Some(mark.clone())),
        ];
        let steps = steps.into_iter().enumerate();
        let moves = steps.map(|(n, (place, new))| Move { old: old_place(&root, &place, n), new, place }).collect();
        replace(&root, moves, &format!("replaced-{}", stamp()), owner).map_err(|error| failed(&error))
    };
    let kept = put().inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
        let _ = std::fs::remove_file(&mark);
    })?;
    if common.json() {
        let document = json!({
            "schema": 1, "target": root, "database": database, "bytes": bytes, "from": site.replica.url, "kept": kept,
        });
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let mut text = format!("restored {} ({}) from {}\n", database.display(), human_bytes(bytes), site.replica.url);
    if let Some(kept) = kept {
        text += &format!("the state from before is in {}\n", kept.display());
    }
    print(&(text + "next: start the server\n")).map(|()| Exit::Done)
}

fn site(config: &ServerConfig) -> Result<Site, ReplicaError> {
    Site::of(config.root.clone(), config.database.clone(), config.replica.clone()).ok_or(ReplicaError::NotSet)
}

fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{before}{name}{after}"))
}
