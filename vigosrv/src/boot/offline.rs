//! Publishing with no server running: the same steps, under the lock of the root.

use common::cli::{Exit, Failure};
use common::rng::SystemRng;
use common::sys::Clock;
use serde_json::{Value, json};

use crate::config::{ServerConfig, lock_root};
use crate::keys::{Keys, Surroundings};
use crate::publish::{self, PublishError};
use crate::store::{OpenOptions, PublishWrite, SqliteStore, Store, Write};

/// A refused publish as a failure: 78 when the policy is wrong.
pub fn publish_failure(error: &PublishError) -> Failure {
    let exit = match error {
        PublishError::Invalid(_) => Exit::BadConfig,
        PublishError::Busy(_) => Exit::TryAgain,
        PublishError::NoStacks(_) | PublishError::NotKept(_) | PublishError::File(_) | PublishError::Damaged { .. } => {
            Exit::Failed
        }
    };
    Failure::new(exit, error.to_string())
}

/// Publishes a tree of a root without a server. The answer is the document that a server would give.
pub fn publish_offline(config: &ServerConfig, source: publish::Source, message: &str) -> Result<Value, Failure> {
    let _lock = lock_root(&config.root, "vigocli config publish")?;
    let now = Clock::system().now();
    let keys = Keys::prepare(config, &Surroundings::of_host(config, now.wall), &mut SystemRng::default())?;
    let known = config.secrets().names().map_err(|error| Failure::failed(error.to_string()))?;
    let site = publish::Site::with_secrets(&config.root, known);
    let published = publish::publish(site, source, None).map_err(|error| publish_failure(&error))?;
    let (tree, summary) = (published.tree, published.changes.to_string());
    let failed = |error: crate::store::StoreError| Failure::failed(error.to_string());
    let opened = SqliteStore::open(&OpenOptions::new(&config.database, keys.server_id)).map_err(failed)?;
    let mut store = opened.store;
    let snapshot = store.load().map_err(failed)?;
    // The tree may be live and not recorded: a crash between the two is cured by publishing again.
    if published.unchanged && snapshot.state.published == Some(tree) {
        store.close().map_err(failed)?;
        return Ok(json!({"schema": 1, "changed": false, "tree": tree.to_string(), "summary": summary}));
    }
    let compiled = published.compiled;
    let standing = snapshot.envoys.iter().filter(|row| row.state != common::proto::Enrolled::Revoked);
    let changes = standing.map(|row| (row.uuid, row.bundle, compiled.bundle_for(&row.hostname)));
    let assign: Vec<_> = changes.filter(|(_, old, new)| old != new).map(|(uuid, _, new)| (uuid, new)).collect();
    let envoys = assign.len();
    let author = format!("uid {}", nix::unistd::geteuid());
    let write = PublishWrite { tree, author, message: message.into(), summary: summary.clone(), at: now.wall, assign };
    store.apply(&[Write::Publish(Box::new(write))]).map_err(failed)?;
    let serial = store.load().map_err(failed)?.state.version.serial;
    store.close().map_err(failed)?;
    Ok(json!({
        "schema": 1, "changed": true, "tree": tree.to_string(), "serial": serial, "envoys": envoys, "summary": summary,
    }))
}

/// Tells nobody that secrets have changed, but gives the envoys that they concern a new serial, for when the server is back.
pub fn settle_secrets_offline(config: &ServerConfig) -> Result<Value, Failure> {
    let _lock = lock_root(&config.root, "vigocli secrets")?;
    let refused = |error: crate::secrets::SecretError| Failure::failed(error.to_string());
    let (place, failed) = (config.secrets(), |error: crate::store::StoreError| Failure::failed(error.to_string()));
    let changed = place.pending().map_err(refused)?;
    // Before the first start there is nobody to tell.
    if !config.database.exists() {
        place.settle(&changed).map_err(refused)?;
        return Ok(json!({"schema": 1, "changed": changed, "serial": 0, "envoys": 0}));
    }
    let compiled = publish::load_live(&config.root).map_err(|error| publish_failure(&error))?;
    let now = Clock::system().now();
    let keys = Keys::prepare(config, &Surroundings::of_host(config, now.wall), &mut SystemRng::default())?;
    let mut store = SqliteStore::open(&OpenOptions::new(&config.database, keys.server_id)).map_err(failed)?.store;
    let snapshot = store.load().map_err(failed)?;
    let concerned = |bundle: &common::ids::Hash32| {
        let paths = compiled.as_ref().map_or(&[][..], |compiled| compiled.secrets(bundle));
        paths.iter().any(|path| changed.contains(path))
    };
    let standing = snapshot.envoys.iter().filter(|row| row.state != common::proto::Enrolled::Revoked);
    let assign: Vec<_> =
        standing.filter(|row| row.bundle.as_ref().is_some_and(concerned)).map(|row| (row.uuid, row.bundle)).collect();
    let envoys = assign.len();
    if envoys > 0 {
        store.apply(&[Write::Assign { assign, at: now.wall }]).map_err(failed)?;
    }
    let serial = store.load().map_err(failed)?.state.version.serial;
    store.close().map_err(failed)?;
    place.settle(&changed).map_err(refused)?;
    Ok(json!({"schema": 1, "changed": changed, "serial": serial, "envoys": envoys}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_is_live_and_not_recorded_is_recorded_by_publishing_again() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("server.yaml", "server:\n  grpc_listen: \"127.0.0.1:0\"\n");
        let resource = "{name: x, type: file, target_path: /x, content: x}";
        write("stacks/configcrates/a.vgo", &format!("name: a\nresources:\n  - {resource}\n"));
        write("stacks/envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [a]}\n");
        let config = ServerConfig::load(dir.path(), None).unwrap();
        // Killed between the link and the record.
        publish::publish(&config.root, publish::Source::Stacks, None).unwrap();
        let answer = publish_offline(&config, publish::Source::Stacks, "again").unwrap();
        assert_eq!((&answer["changed"], &answer["serial"]), (&true.into(), &1.into()), "{answer}");
        assert_eq!(publish_offline(&config, publish::Source::Stacks, "once more").unwrap()["changed"], false);
    }
}
