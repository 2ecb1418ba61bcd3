//! The policy of the simulated fleet, in versions: what the operator publishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::bundle::{Bundle, Resource, Value};
use common::crypto::sha256;
use vigosrv::policy::Compiled;

/// Resources of every host.
const RESOURCES: u32 = 6;

/// A version of the tree: two mappings, six resources, of which some change with the version.
pub(crate) fn version(n: u32) -> Arc<Compiled> {
    let mappings = [("n*[02468].sim.example", "even"), ("*", "rest")].map(|(pattern, name)| {
        let resources = (0..RESOURCES).map(|index| resource(index, n)).collect();
        let bundle = Bundle { mapping: format!("envoys/{name}.vgo:1"), resources, ..Bundle::default() };
        (vec![pattern.to_string()], bundle)
    });
    let tree = sha256(&[b"tree", &n.to_be_bytes()]);
    match Compiled::from_bundles(tree, mappings.into()) {
        Ok(compiled) => Arc::new(compiled),
        Err(bad) => unreachable!("the simulator's own patterns are well-formed: {bad}"),
    }
}

fn resource(index: u32, version: u32) -> Resource {
    // Resource 0 never changes, resource k changes with every k-th version.
    let content = version.checked_div(index).unwrap_or(0);
    Resource {
        name: format!("base.r{index}"),
        kind: "file".into(),
        params: BTreeMap::from([
            ("target_path".to_string(), Value::Str(format!("/r{index}"))),
            ("content".to_string(), Value::Int(i64::from(content))),
        ]),
        timeout_ms: 1_000,
        ..Resource::default()
    }
}
