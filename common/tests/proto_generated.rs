//! The committed `src/proto/vigo.v1.rs` is what the `.proto` says. `UPDATE_PROTO=1 cargo test -p vigo-common --test
//! proto_generated` writes it anew.

use std::path::Path;

#[test]
fn committed_code_matches_the_proto() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let files = protox::compile(["vigo/v1/agent.proto"], [here.join("proto")]).unwrap();
    prost_build::Config::new()
        .btree_map(["."])
        .bytes([".vigo.v1.Signed.payload", ".vigo.v1.BlobChunk.data"])
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    let fresh = std::fs::read_to_string(out.path().join("vigo.v1.rs")).unwrap();
    let committed = here.join("src/proto/vigo.v1.rs");
    if std::env::var_os("UPDATE_PROTO").is_some() {
        std::fs::write(&committed, &fresh).unwrap();
    }
    assert!(
        std::fs::read_to_string(&committed).unwrap_or_default() == fresh,
        "src/proto/vigo.v1.rs is stale: run UPDATE_PROTO=1 cargo test -p vigo-common --test proto_generated"
    );
}
