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
