//! The pages of `docs/reference` are what the parameter tables say. `UPDATE_DOCS=1 cargo test -p vigo-common --test
//! reference_pages` writes them anew.

use std::path::{Path, PathBuf};

use common::policy::trait_keys;
use common::policy::types::{GROUPS, reference};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference")
}

#[test]
fn committed_pages_match_the_tables() {
    let mut pages: Vec<(String, String)> = GROUPS.iter().map(reference::page).collect();
    pages.push(("README.md".to_string(), reference::index()));
    pages.push(("traits.md".to_string(), trait_keys::page()));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        pages.iter().for_each(|(name, text)| std::fs::write(folder().join(name), text).unwrap());
    }
    for (name, text) in &pages {
        let committed = std::fs::read_to_string(folder().join(name)).unwrap_or_default();
        assert!(
            committed == *text,
            "docs/reference/{name} is stale: run UPDATE_DOCS=1 cargo test -p vigo-common --test reference_pages"
        );
    }
    let mut found: Vec<String> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut names: Vec<String> = pages.into_iter().map(|(name, _)| name).collect();
    found.sort();
    names.sort();
    assert_eq!(found, names);
}
