//! The examples are valid policies.

use std::path::Path;

use common::bundle::Bundle;
use vigosrv::publish::validate;

#[test]
fn the_quickstart_policy_is_valid_and_gives_every_host_everything() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    let compiled = validate(&root).unwrap_or_else(|error| panic!("{error}"));
    let (_, payload) = compiled.bundle(compiled.mapping_for("any.host").unwrap());
    let bundle = Bundle::decode(&payload).unwrap();
    let kinds: std::collections::BTreeSet<&str> =
        bundle.resources.iter().map(|resource| resource.kind.as_str()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["directory", "exec", "file", "file_line", "symlink"]);
    assert_eq!(bundle.resources.len(), 14);
    assert_eq!(bundle.blobs.len(), 2);
    assert!(bundle.resources.iter().any(|resource| !resource.notify.is_empty()));
}

#[test]
fn the_policies_that_keep_a_server_are_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/backups");
    let compiled = validate(&example).unwrap_or_else(|error| panic!("{error}"));
    let names = |compiled: &vigosrv::policy::Compiled| -> Vec<String> {
        let (_, payload) = compiled.bundle(compiled.mapping_for("vigo-1").unwrap());
        Bundle::decode(&payload).unwrap().resources.into_iter().map(|resource| resource.name).collect()
    };
    assert_eq!(names(&compiled), ["backups.srv-vigo-backup", "backups.vigo-db-backup"]);
    // The other one as its first lines say, below a copy.
    let root = tempfile::tempdir().unwrap();
    let crates = root.path().join("stacks/configcrates");
    std::fs::create_dir_all(&crates).unwrap();
    std::fs::create_dir_all(root.path().join("stacks/envoys")).unwrap();
    let source = example.join("stacks/configcrates/system/vigo-server-backup.vgo.example");
    std::fs::copy(source, crates.join("vigo-server-backup.vgo")).unwrap();
    let mapping = "envoys:\n  - {match: \"*\", configcrates: [vigo-server-backup], vars: {backup_retain: \"30\"}}\n";
    std::fs::write(root.path().join("stacks/envoys/all.vgo"), mapping).unwrap();
    let compiled = validate(root.path()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(names(&compiled), ["vigo-server-backup.files", "vigo-server-backup.database"]);
}
