//! Fuzz bodies for what people write: `server.yaml`. `ci/fuzz` calls them.
//!
//! A body takes arbitrary bytes and panics when a property breaks: nothing panics, and whatever is refused is complained about in words.

use std::path::Path;

use common::yaml::{self, Doc};

use crate::config::ServerConfig;

/// `server.yaml`.
pub fn fuzz_server_yaml(data: &[u8]) {
    let doc = match Doc::load("server.yaml", data) {
        Ok(doc) => doc,
        Err(error) => return complained(&[error]),
    };
    if let Err(errors) = ServerConfig::from_docs(Path::new("/srv/vigo"), &[doc]) {
        complained(&errors);
    }
}

fn complained(errors: &[yaml::Error]) {
    assert!(!errors.is_empty(), "refused without a reason");
    let text = yaml::render(errors);
    assert!(text.contains("server.yaml"), "a complaint that does not name the file: {text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_files_are_told_apart_without_a_panic() {
        for text in ["", "server:\n  grpc_listen: \":0\"\n", "server: [", "\u{0}", "a: *b"] {
            fuzz_server_yaml(text.as_bytes());
        }
    }
}
