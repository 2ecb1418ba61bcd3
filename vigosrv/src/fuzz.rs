//! Fuzz bodies for what people write: `server.yaml` and policy. `ci/fuzz` calls them.
//!
//! A body takes arbitrary bytes and panics when a property breaks: nothing panics, whatever is refused is complained about in words that
//! name the file, and what is accepted holds together.

use std::path::Path;

use common::bundle::Bundle;
use common::policy::compile_file;
use common::yaml::{self, Doc};

use crate::config::ServerConfig;
use crate::policy::{Tree, compile};

/// `server.yaml`.
pub fn fuzz_server_yaml(data: &[u8]) {
    let doc = match Doc::load("server.yaml", data) {
        Ok(doc) => doc,
        Err(error) => return complained(&[error], "server.yaml"),
    };
    if let Err(errors) = ServerConfig::from_docs(Path::new("/srv/vigo"), &[doc], &|_| Err(Default::default())) {
        complained(&errors, "server.yaml");
    }
}

/// One configcrate, as `vigo-envoy apply` takes it. Every file that it names exists and says the same.
pub fn fuzz_vgo(data: &[u8]) {
    let mut load = |path: &str| match path.starts_with("files/") || path.starts_with("templates/") {
        true => Ok(b"{{ vars.name | default('x') }}\n".to_vec()),
        false => Err("no such file".to_string()),
    };
    match compile_file("site.vgo", data, &mut load) {
        Ok(bundle) => round_trips(&bundle.encode()),
        Err(errors) => complained(&errors, ""),
    }
}

/// A whole policy: files one after another, each behind a line `==> PATH`.
pub fn fuzz_policy_tree(data: &[u8]) {
    const MARK: &[u8] = b"==> ";
    let mut tree = Tree::default();
    let mut path = None;
    let mut content: Vec<u8> = Vec::new();
    for line in data.split_inclusive(|byte| *byte == b'\n').chain([MARK]) {
        if let Some(name) = line.strip_prefix(MARK) {
            if let Some(path) = path.take() {
                tree.insert(path, std::mem::take(&mut content));
            }
            path = Some(String::from_utf8_lossy(name).trim().to_string());
        } else {
            content.extend_from_slice(line);
        }
    }
    match compile(&tree) {
        Ok(compiled) => {
            for mapping in compiled.mappings() {
                for host in mapping.patterns.iter().map(|pattern| pattern.replace(['*', '?'], "a")) {
                    let payload = compiled.bundle_for(&host).and_then(|bundle| compiled.payload(&bundle));
                    payload.iter().for_each(|payload| round_trips(payload));
                }
            }
        }
        Err(errors) => complained(&errors, ""),
    }
}

/// What the server signs must be what an agent accepts.
fn round_trips(payload: &[u8]) {
    let again = Bundle::decode(payload).map(|bundle| bundle.encode());
    assert_eq!(again.as_deref(), Ok(payload), "a compiled bundle is not what an agent decodes");
}

fn complained(errors: &[yaml::Error], file: &str) {
    assert!(!errors.is_empty(), "refused without a reason");
    let text = yaml::render(errors);
    assert!(!text.trim().is_empty() && text.contains(file), "a complaint that does not name the file: {text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_files_are_told_apart_without_a_panic() {
        for text in ["", "server:\n  grpc_listen: \":0\"\n", "server: [", "\u{0}", "a: *b", "name: x\nresources: []\n"]
        {
            fuzz_server_yaml(text.as_bytes());
            fuzz_vgo(text.as_bytes());
            fuzz_policy_tree(text.as_bytes());
            fuzz_policy_tree(format!("==> configcrates/x.vgo\n{text}").as_bytes());
        }
    }
}
