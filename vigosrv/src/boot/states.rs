//! What a start finds that it cannot go on with, and the command that cures it on this very host: the newest archive by its name.

use std::sync::Arc;

use common::cli::{Exit, Failure};
use common::log::Level;

use crate::api::BackupTimes;
use crate::backup::{self, Health};
use crate::config::ServerConfig;
use crate::secrets::Vault;
use crate::store::StoreError;

/// A refusal of the database, with what to restore where restoring is the cure.
pub(super) fn refused(error: &StoreError, config: &ServerConfig) -> Failure {
    let failure = Failure::new(Exit::BadConfig, error.to_string());
    let hint = match error {
        StoreError::Newer(_, known) => {
            let copy = format!("{}.schema-{known}.bak", config.database.display());
            let is_there = std::path::Path::new(&copy).is_file();
            is_there
                .then(|| format!("{copy} is the copy from before the newer version changed it"))
                .or_else(|| newest(config))
        }
        StoreError::Corrupt(_) | StoreError::Missing(_) | StoreError::ForeignLog { .. } => newest(config),
        StoreError::Full | StoreError::Behind | StoreError::Io(_) => None,
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn newest(config: &ServerConfig) -> Option<String> {
    let archives = backup::list(&config.snapshots).unwrap_or_default();
    let Some(archive) = archives.iter().max_by_key(|archive| archive.modified_ms) else {
        return Some(format!("no archive is in {}: take one from where you keep them", config.snapshots.display()));
    };
    let path = config.snapshots.join(&archive.name);
    Some(format!(
        "the newest archive here: vigocli backup restore {} --db-only --root {}",
        path.display(),
        config.root.display()
    ))
}

/// The secrets, as far as they open. A server without them serves everything else.
pub(super) fn open_secrets(
    config: &ServerConfig,
    notes: &mut Vec<String>,
    say: &dyn Fn(Level, &str),
) -> (Vault, Vec<String>) {
    let place = config.secrets();
    let opened = place.start().and_then(|opened| Ok((opened, place.pending()?)));
    let (opened, changed) = opened.unwrap_or_else(|error| {
        let note = format!("no secret can be given: {error}; envoys keep the values that they have");
        say(Level::Error, &note);
        notes.push(note);
        Default::default()
    });
    if !opened.bad.is_empty() || !opened.lost.is_empty() {
        let names: Vec<&str> = opened.unusable().collect();
        let note = format!(
            "secrets that no key opens are set aside in secrets/.lost/: {}; bring the key back with `vigocli secrets key import \
             KIT`, or set each again with `vigocli secrets set PATH`",
            names.join(", ")
        );
        say(Level::Error, &note);
        notes.push(note);
    }
    (opened.vault, changed)
}

/// For `/metrics`: when the newest archive was made, and when one was last proved to be good.
pub(super) fn backup_times(config: &ServerConfig) -> BackupTimes {
    let snapshots = config.snapshots.clone();
    Arc::new(move || {
        let health = Health::of(&snapshots);
        let seconds = |ms: i64| u64::try_from(ms / 1_000).unwrap_or(0);
        (health.newest.map(|(_, ms)| seconds(ms)), health.proved.map(|(_, ms)| seconds(ms)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_newest_archive_of_this_host() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.yaml"), "").unwrap();
        let config = ServerConfig::load(dir.path(), None).unwrap();
        let said = |error: StoreError| refused(&error, &config).to_string();
        assert!(said(StoreError::Corrupt("bad".into())).contains("no archive is in"));
        std::fs::create_dir_all(&config.snapshots).unwrap();
        std::fs::write(config.snapshots.join("vigo-backup-2027-01-01T00:00:00Z.tar.gz"), "x").unwrap();
        for error in [StoreError::Corrupt("bad".into()), StoreError::Missing("db".into()), StoreError::Newer(9, 3)] {
            let text = said(error);
            let command = "vigocli backup restore ";
            assert!(
                text.contains(command) && text.contains("vigo-backup-2027-01-01T00:00:00Z.tar.gz --db-only"),
                "{text}"
            );
        }
        std::fs::create_dir_all(config.database.parent().unwrap()).unwrap();
        std::fs::write(format!("{}.schema-3.bak", config.database.display()), "x").unwrap();
        assert!(said(StoreError::Newer(9, 3)).contains("vigo.db.schema-3.bak is the copy"));
        assert!(!said(StoreError::Full).contains("archive"));
    }
}
