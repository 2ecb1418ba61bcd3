//! Wrong policies: each is refused with exactly the messages of `wrong_policy.txt`, and the table in `docs/BAD_INPUT.md` shows
//! them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use common::yaml::Error;
use vigosrv::policy::{Tree, compile};

/// Files of every case, unless it has its own.
const GOOD: [(&str, &str); 2] = [
    (
        "configcrates/ok.vgo",
        "name: ok\nresources:\n  - {name: one, type: exec, command: ls}\n  - {name: two, type: exec, command: ls}\n",
    ),
    ("envoys/z.vgo", "envoys:\n  - {match: \"*\", configcrates: [ok]}\n"),
];
const CASES_MIN: usize = 120;
const BEGIN: &str = "<!-- policy: begin, generated from vigosrv/tests/wrong_policy.txt -->\n";
const END: &str = "<!-- policy: end -->\n";

#[derive(Default)]
struct Case {
    title: String,
    files: Vec<(String, String)>,
    expected: Vec<String>,
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            cases.push(Case { title: title.to_string(), ..Case::default() });
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        if let Some(path) = line.strip_prefix("-- ") {
            case.files.push((path.to_string(), String::new()));
        } else if let Some(message) = line.strip_prefix("> ") {
            case.expected.push(message.to_string());
        } else if let Some((_, content)) = case.files.last_mut() {
            *content += line;
            *content += "\n";
        }
    }
    for case in &mut cases {
        // The empty line before the next case, or before the messages, is no content.
        case.files.iter_mut().for_each(|(_, content)| *content = format!("{}\n", content.trim_end_matches('\n')));
    }
    cases
}

fn messages(case: &Case) -> Vec<Error> {
    let good = GOOD.map(|(path, text)| (path.to_string(), text.to_string()));
    let tree: Tree = good.into_iter().chain(case.files.clone()).collect();
    compile(&tree.with_secrets(BTreeSet::new())).err().unwrap_or_default()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong_policy.txt")
}

#[test]
fn wrong_policies_are_refused_with_place_expectation_and_cure() {
    let text = std::fs::read_to_string(golden()).unwrap();
    let cases = cases(&text);
    assert!(cases.len() >= CASES_MIN, "{} cases", cases.len());
    let found: Vec<Vec<String>> =
        cases.iter().map(|case| messages(case).iter().map(Error::summary).collect()).collect();
    if std::env::var_os("VIGO_BLESS").is_some() {
        let mut out = text[..text.find("== ").unwrap()].to_string();
        for (case, found) in cases.iter().zip(&found) {
            writeln!(out, "== {}", case.title).unwrap();
            case.files.iter().for_each(|(path, content)| write!(out, "-- {path}\n{content}").unwrap());
            found.iter().for_each(|message| writeln!(out, "> {message}").unwrap());
            out += "\n";
        }
        std::fs::write(golden(), out.trim_end().to_string() + "\n").unwrap();
        return;
    }
    for (case, found) in cases.iter().zip(&found) {
        assert!(!found.is_empty(), "{}: was accepted", case.title);
        assert_eq!(*found, case.expected, "{}", case.title);
    }
}

#[test]
fn every_message_shows_its_line() {
    let text = std::fs::read_to_string(golden()).unwrap();
    for case in cases(&text) {
        for error in messages(&case) {
            let is_whole_file = error.at.is_none();
            assert!(is_whole_file || error.line.is_some(), "{}: {error}", case.title);
            assert!(is_whole_file || error.to_string().lines().count() == 3, "{}: {error}", case.title);
        }
    }
}

#[test]
fn the_good_tree_is_good() {
    assert_eq!(messages(&Case::default()), []);
}

#[test]
fn the_table_in_the_documentation_is_that_of_the_cases() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/BAD_INPUT.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let mut table = String::from("| input | what the user sees |\n|---|---|\n");
    for case in cases(&std::fs::read_to_string(golden()).unwrap()) {
        let messages: Vec<String> = messages(&case).iter().map(Error::summary).collect();
        let message = messages.join("<br>").replace('|', "\\|");
        writeln!(table, "| {} | {message} |", case.title).unwrap();
    }
    let (before, rest) = document.split_once(BEGIN).expect("the begin marker");
    let (found, after) = rest.split_once(END).expect("the end marker");
    if std::env::var_os("VIGO_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert!(found == table, "run VIGO_BLESS=1 cargo test -p vigosrv --test wrong_policy and read the difference");
    }
}
