//! Dependencies earn their place.

use vigo_tidy::repo::{self, File};
use vigo_tidy::report;

/// Lines of the sections whose name ends in `dependencies`, each with the line before it.
fn dependency_lines(manifest: &File) -> Vec<(String, String)> {
    let mut inside = false;
    let mut before = String::new();
    let mut out = Vec::new();
    for line in manifest.text.lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && line.contains('=') && !line.starts_with('#') {
            out.push((before.clone(), line.to_string()));
        }
        before = line.to_string();
    }
    out
}

#[test]
fn every_dependency_says_why_it_is_here() {
    let root = File { path: "Cargo.toml".into(), text: repo::read("Cargo.toml") };
    let mut violations = Vec::new();
    for (before, line) in dependency_lines(&root) {
        if !line.contains("path = ") && !before.starts_with("# ") {
            violations.push(format!("Cargo.toml: `{line}` has no comment in front of it"));
        }
    }
    report("a dependency has its reason in the line before it", &violations);
}

#[test]
fn members_take_their_dependencies_from_the_workspace() {
    let mut violations = Vec::new();
    for manifest in repo::files(&["/Cargo.toml"]) {
        // Workspaces of their own: for cargo-fuzz, and for the async runtime of the floor that the product must not have.
        if ["ci/bench/floor/Cargo.toml", "ci/fuzz/targets/Cargo.toml"].contains(&manifest.path.as_str()) {
            continue;
        }
        for (_, line) in dependency_lines(&manifest) {
            if !line.contains("workspace = true") {
                violations.push(format!("{}: `{line}`", manifest.path));
            }
        }
        for needed in ["license.workspace = true", "[lints]\nworkspace = true"] {
            if !manifest.text.contains(needed) {
                violations.push(format!("{}: lacks `{}`", manifest.path, needed.replace('\n', " ")));
            }
        }
    }
    report("versions, licence and lints come from the workspace", &violations);
}

#[test]
fn no_package_has_a_clippy_toml_of_its_own() {
    let own: Vec<String> = repo::paths().into_iter().filter(|path| path.ends_with("/clippy.toml")).collect();
    report("a clippy.toml in a package replaces the root one, it does not add to it", &own);
}

#[test]
fn the_lock_file_is_committed() {
    assert!(repo::paths().iter().any(|path| path == "Cargo.lock"), "Cargo.lock is not in the repository");
}
