//! The headings of docs/TROUBLESHOOTING.md are messages that the programs really print: a person searches for what is on the screen.

use std::collections::BTreeMap;

use vigo_tidy::{repo, report};

const PAGE: &str = "docs/TROUBLESHOOTING.md";

/// A source with its string literals as they are printed: continued lines joined, quotes unescaped.
fn printed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(next) = rest.strip_prefix('\n') {
            rest = next.trim_start();
        } else if !rest.starts_with('"') {
            out.push('\\');
        }
    }
    out + rest
}

#[test]
fn every_message_of_the_troubleshooting_page_is_one_of_the_programs() {
    let sources: BTreeMap<String, String> = repo::files(&[".rs"])
        .into_iter()
        .filter(|file| ["vigosrv/src/", "envoy/src/", "common/src/"].iter().any(|dir| file.path.starts_with(dir)))
        .map(|file| (file.path.clone(), printed(&file.text)))
        .collect();
    let page = repo::files(&[".md"]).into_iter().find(|file| file.path == PAGE).expect("the page is there");
    let mut violations = Vec::new();
    let mut n = 0;
    for heading in page.text.lines().filter_map(|line| line.strip_prefix("### ")) {
        n += 1;
        let pieces: Vec<&str> = heading.split('…').map(str::trim).filter(|piece| piece.len() > 4).collect();
        let holds = |text: &String| pieces.iter().all(|piece| text.contains(piece));
        if pieces.is_empty() || !sources.values().any(holds) {
            violations.push(format!("{PAGE}: no source prints `{heading}`"));
        }
    }
    assert!(n > 30, "the page has {n} messages");
    report("messages of the troubleshooting page", &violations);
}
