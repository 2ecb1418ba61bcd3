//! The files of the repository, as git sees them: committed ones and new ones that are not ignored.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rust::{Source, test_only_modules};

/// One text file.
#[derive(Clone, Debug)]
pub struct File {
    /// Path from the root of the repository, with `/`.
    pub path: String,
    /// Content; empty for what is not UTF-8.
    pub text: String,
}

impl File {
    /// Last component of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Folder of the path, without a slash at the end.
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// Root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Paths of all files, sorted.
///
/// # Panics
///
/// Without git, or outside a checkout: no rule can be checked then.
pub fn paths() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("git ls-files: {error}"));
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8_lossy(&output.stdout);
    let mut paths: Vec<String> = listed.split('\0').filter(|p| !p.is_empty()).map(String::from).collect();
    // A file that was deleted and not yet committed is still listed.
    paths.retain(|path| root().join(path).is_file());
    paths.sort();
    paths.dedup();
    paths
}

/// Content of a file, empty where it is missing or not UTF-8.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// All files whose path ends in one of the suffixes.
pub fn files(suffixes: &[&str]) -> Vec<File> {
    let wanted = |path: &String| suffixes.iter().any(|suffix| path.ends_with(suffix));
    paths().into_iter().filter(wanted).map(|path| File { text: read(&path), path }).collect()
}

/// Rust sources that people write.
pub fn rust_files() -> Vec<File> {
    let generated = |file: &File| file.path == "common/src/proto/vigo.v1.rs";
    files(&[".rs"]).into_iter().filter(|file| !generated(file)).collect()
}

/// Beginnings of the paths of modules that are declared for tests only.
pub fn test_prefixes(files: &[File]) -> Vec<String> {
    let mut out = Vec::new();
    for file in files {
        let own = file.path.trim_end_matches(".rs");
        let folder = if matches!(file.name(), "mod.rs" | "lib.rs" | "main.rs") { file.folder() } else { own };
        for module in test_only_modules(&Source::new(&file.text)) {
            out.push(format!("{folder}/{module}.rs"));
            out.push(format!("{folder}/{module}/"));
        }
    }
    out
}

/// Whether a file is test code as a whole: an integration test, a bench, an example, or below one of the prefixes.
pub fn is_test(file: &File, prefixes: &[String]) -> bool {
    let placed =
        ["/tests/", "/benches/", "/examples/"].iter().any(|part| file.path.contains(part)) || file.name() == "tests.rs";
    placed || prefixes.iter().any(|prefix| file.path.starts_with(prefix))
}
