//! Words that do not belong into any file.

use vigo_tidy::{repo, report};

const TEXT: [&str; 14] = [
    ".rs", ".md", ".toml", ".proto", ".py", ".sh", ".yml", ".yaml", ".vgo", ".txt", ".service", "/run", ".j2", ".html",
];

/// Put together from halves, so that this file does not hold them.
fn banned() -> Vec<(String, &'static str)> {
    let word = |a: &str, b: &str| format!("{a}{b}");
    vec![
        (word("to", "do!("), "unfinished"),
        (word("unimple", "mented!("), "unfinished"),
        (word("FIX", "ME"), "make it an issue, or fix it"),
        (word("XX", "X:"), "make it an issue, or fix it"),
        (word("db", "g!("), "left over from debugging"),
        (word("/wo", "rk/"), "a path of one machine"),
        (word("anth", "ropic"), "not a matter of this project"),
        (word("cla", "ude"), "not a matter of this project"),
        (word("steering ", "repo"), "not a matter of this project"),
        (word("shared/", "spec"), "not in this repository"),
        (word("shared/", "design"), "not in this repository"),
        (word("DESIGN", ".md"), "not in this repository: docs/ARCHITECTURE.md"),
        (word("STYLE", ".md"), "not in this repository: CONTRIBUTING.md"),
        (word("trust", ".md"), "not in this repository: docs/PROTOCOL.md or docs/THREATS.md"),
        (word("agent", ".md"), "not in this repository"),
        (word("server", ".md"), "not in this repository"),
        (word("product", ".md"), "not in this repository"),
        (word("policy", ".md"), "not in this repository"),
    ]
}

#[test]
fn no_banned_words() {
    let banned = banned();
    let mut violations = Vec::new();
    for file in repo::files(&TEXT) {
        // Fuzz corpora and lock files hold what they hold.
        if file.path.contains("/corpus/") || file.path.ends_with(".lock") {
            continue;
        }
        let lower = file.text.to_lowercase();
        for (word, why) in &banned {
            let upper = word.chars().any(char::is_uppercase);
            let text = if upper { &file.text } else { &lower };
            // `a-file-about-the-agent` and its ending are another name, and four crosses are a template of mktemp.
            let whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "-_/".contains(c));
            let partly = word.contains(['(', '/']);
            if text.match_indices(word.as_str()).any(|(at, _)| partly || whole(at)) {
                violations.push(format!("{}: `{word}`: {why}", file.path));
            }
        }
    }
    report("words that do not belong into the project", &violations);
}

#[test]
fn a_todo_names_its_issue() {
    let mark = format!("{}{}", "TO", "DO");
    let mut violations = Vec::new();
    for file in repo::files(&TEXT) {
        for line in file.text.lines().filter(|line| line.contains(&mark)) {
            if !line.contains(&format!("{mark}(#")) {
                violations.push(format!("{}: {}", file.path, line.trim()));
            }
        }
    }
    report("what is left to do is written with the number of its issue", &violations);
}

#[test]
fn no_leftovers_of_tools() {
    let leftover = |path: &String| {
        let ends = [".orig", ".rej", ".swp", ".swo", ".bak", ".pyc", ".tmp", "~", ".DS_Store", ".profraw", ".log"];
        ends.iter().any(|end| path.ends_with(end)) || path.contains("__pycache__/") || path.starts_with("target/")
    };
    let violations: Vec<String> = repo::paths().into_iter().filter(leftover).collect();
    report("files that tools left behind", &violations);
}

#[test]
fn scripts_say_what_they_are_for() {
    let mut violations = Vec::new();
    for file in repo::files(&[".py", ".sh", "/run"]) {
        let mut lines = file.text.lines().filter(|line| !line.starts_with("#!"));
        let first = lines.next().unwrap_or_default();
        if !first.starts_with("# ") && !first.starts_with("\"\"\"") {
            violations.push(format!("{}: starts without a comment", file.path));
        }
    }
    report("a script starts with a comment that says what it is for", &violations);
}
