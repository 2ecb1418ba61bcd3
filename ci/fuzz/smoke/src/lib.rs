//! Every fuzz body of the workspace, and a mutator that needs no coverage feedback and no nightly compiler.
//!
//! A body is an ordinary function in the crate that it tests: it takes bytes and panics when a property breaks. The same
//! bodies are targets of `cargo fuzz` in `ci/fuzz/targets`.

mod mutate;

pub use mutate::Mutator;

use std::path::PathBuf;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of its corpus folder and of its file in `ci/fuzz/targets/fuzz_targets`.
    pub name: &'static str,
    /// What it does with an input.
    pub body: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target { name: "assignment", body: common::fuzz::fuzz_assignment },
    Target { name: "bundle", body: common::fuzz::fuzz_bundle },
    Target { name: "frames", body: common::net::fuzz_frames },
    Target { name: "message", body: common::fuzz::fuzz_message },
    Target { name: "policy_tree", body: vigosrv::fuzz::fuzz_policy_tree },
    Target { name: "queue_record", body: envoy::cache::codec::fuzz_queue_record },
    Target { name: "record", body: common::fuzz::fuzz_record },
    Target { name: "server_yaml", body: vigosrv::fuzz::fuzz_server_yaml },
    Target { name: "vgo", body: vigosrv::fuzz::fuzz_vgo },
];

impl Target {
    /// Its corpus folder.
    pub fn folder(&self) -> PathBuf {
        corpus_root().join(self.name)
    }

    /// Its corpus: (file name, content), in order of name.
    ///
    /// # Panics
    ///
    /// When the folder cannot be read.
    pub fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.folder()).unwrap_or_else(|error| panic!("{:?}: {error}", self.folder()));
        let mut out: Vec<(String, Vec<u8>)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, std::fs::read(entry.path()).ok()?)))
            .collect();
        out.sort();
        out
    }
}

/// Folder of all corpora.
pub fn corpus_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// Runs a body on an input; an error says what broke.
///
/// # Errors
///
/// The message of the panic.
pub fn run(target: &Target, input: &[u8]) -> Result<(), String> {
    std::panic::catch_unwind(|| (target.body)(input)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_string()
    })
}
