//! Counts the cases of each type: its tests, and those of the suites that it is put through. A new type without them fails here.

use std::collections::BTreeMap;
use std::fs;

use super::{placed, suite, tooled};

/// What each type has at least.
const CASES_MIN: usize = 12;
/// Files whose every test is about one type, where that is not the name of the file.
const FILES: [(&str, &str); 3] = [("command", "exec"), ("packages", "package"), ("services", "service")];

/// Tests, and cases of suites, by type.
fn count() -> BTreeMap<&'static str, usize> {
    let kinds: Vec<&str> = common::policy::types::all().map(|kind| kind.name).collect();
    let mut cases: BTreeMap<&str, usize> = kinds.iter().map(|kind| (*kind, 0)).collect();
    let suites =
        [("Subject {", suite::CASES.len()), ("Placed {", placed::CASES.len()), ("Tooled {", tooled::CASES.len())];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/exec/tests");
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let own = FILES.iter().find(|(file, _)| *file == stem).map_or(stem, |(_, kind)| kind);
        let source = fs::read_to_string(&path).unwrap();
        for test in source.split("#[test]").skip(1) {
            for kind in kinds.iter().filter(|kind| own == **kind || test.contains(&format!("\"{kind}\""))) {
                let named = test.contains(&format!("kind: \"{kind}\""));
                let n = suites.iter().find(|(name, _)| named && test.contains(name)).map_or(1, |(_, n)| *n);
                *cases.entry(kind).or_default() += n;
            }
        }
    }
    cases
}

#[test]
fn every_type_has_a_dozen_cases_or_more() {
    let cases = count();
    for (kind, n) in &cases {
        println!("{kind}: {n}");
    }
    let thin: Vec<_> = cases.iter().filter(|(_, n)| **n < CASES_MIN).collect();
    assert!(thin.is_empty(), "fewer than {CASES_MIN} cases: {thin:?}");
}
