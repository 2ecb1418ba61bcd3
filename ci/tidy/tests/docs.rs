//! Documents that do not rot.

use vigo_tidy::repo::{self, File};
use vigo_tidy::{limits, report};

/// Markdown outside code fences.
fn prose(file: &File) -> Vec<&str> {
    let mut fenced = false;
    let mut out = Vec::new();
    for line in file.text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            out.push(line);
        }
    }
    out
}

/// Words in backticks that look like a path of this repository: first component exists at the top, or a file there.
fn paths_in(line: &str) -> Vec<String> {
    let top: Vec<String> = repo::paths().iter().map(|path| path.split('/').next().unwrap_or_default().into()).collect();
    let spans = line.split('`').skip(1).step_by(2);
    let words = spans.flat_map(|span| span.split_whitespace()).map(|word| word.trim_end_matches([',', ':', ';', ')']));
    let in_repo = |word: &&str| {
        let first = word.split('/').next().unwrap_or_default();
        word.contains('/') && !first.is_empty() && top.iter().any(|name| name == first)
    };
    let pattern = |word: &&str| !word.contains(['*', '<', '{', '$', '…']) && !word.contains("...");
    words.filter(in_repo).filter(pattern).map(String::from).collect()
}

/// Targets of Markdown links that are no URL, anchors cut off.
fn links_in(line: &str) -> Vec<String> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.map(|target| target.split('#').next().unwrap_or_default());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).map(String::from).collect()
}

#[test]
fn paths_that_documents_name_exist() {
    let mut violations = Vec::new();
    for file in repo::files(&[".md"]) {
        for line in prose(&file) {
            for path in paths_in(line) {
                if !repo::root().join(&path).exists() {
                    violations.push(format!("{}: `{path}` does not exist", file.path));
                }
            }
            for target in links_in(line) {
                if !repo::root().join(file.folder()).join(&target).exists() {
                    violations.push(format!("{}: link to {target}, which does not exist", file.path));
                }
            }
        }
    }
    report("paths that documents name exist", &violations);
}

#[test]
fn documents_have_one_title() {
    let mut violations = Vec::new();
    for file in repo::files(&[".md"]) {
        let titles = prose(&file).iter().filter(|line| line.starts_with("# ")).count();
        if titles != 1 {
            violations.push(format!("{}: {titles} titles (# ...), expected one", file.path));
        }
    }
    report("a document has one title", &violations);
}

#[test]
fn documents_name_no_line_numbers() {
    let mut violations = Vec::new();
    for file in repo::files(&[".md"]) {
        for line in prose(&file) {
            for end in [".rs:", ".proto:", ".toml:", ".py:"] {
                let numbered = line.split(end).skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                if numbered {
                    violations.push(format!("{}: {}", file.path, line.trim()));
                }
            }
        }
    }
    report("documents name files, not lines of source: lines move", &violations);
}

#[test]
fn the_table_of_limits_is_generated() {
    let limits = limits::parse(&repo::read("common/src/limits.rs")).unwrap_or_else(|error| panic!("{error}"));
    let fresh = limits::markdown(&limits);
    update("docs/LIMITS.md", &fresh);
    let silent: Vec<String> = limits.into_iter().filter(|l| l.reason.is_empty()).map(|l| l.name).collect();
    report("every limit has its reason", &silent);
}

#[test]
fn the_documents_that_the_project_promises_are_there() {
    let missing: Vec<String> = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "docs/ARCHITECTURE.md",
        "docs/PROTOCOL.md",
        "docs/STATE.md",
        "docs/LIMITS.md",
        "docs/THREATS.md",
        "docs/BAD_INPUT.md",
        "docs/adr/README.md",
    ]
    .into_iter()
    .filter(|path| repo::read(path).len() < 200)
    .map(String::from)
    .collect();
    report("documents that must be there, with content", &missing);
    assert!(repo::read("CHANGELOG.md").contains("## [Unreleased]"), "CHANGELOG.md has no Unreleased section");
}

fn is_record(file: &File) -> bool {
    file.folder() == "docs/adr" && file.name() != "README.md"
}

/// Compares a generated document with what is there, or writes it.
fn update(path: &str, fresh: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(repo::root().join(path), fresh).unwrap();
    }
    assert!(repo::read(path) == fresh, "{path} is stale: run UPDATE_DOCS=1 cargo test -p vigo-tidy --test docs");
}

#[test]
fn every_decision_is_in_the_index() {
    let path = "docs/adr/README.md";
    let index = repo::read(path);
    let records: Vec<File> = repo::files(&[".md"]).into_iter().filter(is_record).collect();
    let head = index.split("| record |").next().unwrap_or_default();
    let mut fresh = format!("{head}| record | decision |\n|---|---|\n");
    for record in &records {
        let title = record.text.lines().next().unwrap_or_default().trim_start_matches("# ");
        let (number, decision) = title.split_once(": ").unwrap_or(("", title));
        fresh.push_str(&format!("| [{number}]({}) | {decision} |\n", record.name()));
    }
    update(path, &fresh);
    let mut violations = Vec::new();
    for record in &records {
        let numbered = record.name().split('-').next().is_some_and(|n| n.len() == 4 && n.parse::<u16>().is_ok());
        if !numbered {
            violations.push(format!("{}: named otherwise than NNNN-title.md", record.path));
        }
    }
    report("decision records are numbered and listed", &violations);
}
