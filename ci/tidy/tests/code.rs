//! Rules for every Rust file.

use vigo_tidy::repo::{self, File};
use vigo_tidy::report;
use vigo_tidy::rust::{Source, tokens};

/// Code lines at which a file is too long.
const CODE_LINES_MAX: usize = 700;
/// Code lines from which it is named.
const CODE_LINES_SMELL: usize = 500;
/// Lines at which a test module moves to a file of its own.
const TEST_LINES_MAX: usize = 150;

/// Applies a rule to every file; `rule` is told whether it is test code as a whole.
fn each(rule: impl Fn(&File, &Source, bool, &mut Vec<String>)) -> Vec<String> {
    let mut out = Vec::new();
    let files = repo::rust_files();
    let tests = repo::test_prefixes(&files);
    for file in &files {
        rule(file, &Source::new(&file.text), repo::is_test(file, &tests), &mut out);
    }
    out
}

#[test]
fn a_file_is_one_idea() {
    let violations = each(|file, source, is_test, out| {
        let lines = source.code_lines();
        if is_test {
            return;
        }
        if lines > CODE_LINES_MAX {
            out.push(format!("{}: {lines} lines of code, at most {CODE_LINES_MAX}: split it", file.path));
        } else if lines > CODE_LINES_SMELL {
            println!("smell: {} has {lines} lines of code", file.path);
        }
        let tests = source.test_lines();
        if tests > TEST_LINES_MAX {
            out.push(format!("{}: a test module of {tests} lines moves to tests.rs below it", file.path));
        }
    });
    report("files have at most 700 lines of code, inline test modules 150 lines", &violations);
}

#[test]
fn every_file_says_what_it_is_for() {
    let violations = each(|file, _, is_test, out| {
        // Tests of one file, beside it: what they are for is in its name.
        if is_test && file.path.contains("/src/") {
            return;
        }
        let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//!")) {
            out.push(format!("{}: starts without a module doc (//!)", file.path));
        }
    });
    report("every file starts with its job, what it must not do, and which limits rule it", &violations);
}

#[test]
fn unsafe_lives_in_sys_and_the_opening_of_the_store_only() {
    let violations = each(|file, source, _, out| {
        let allowed = file.path.contains("/src/sys/") || file.path == "envoy/src/cache/env.rs";
        if !allowed && tokens(&source.code).contains(&"unsafe") {
            out.push(format!("{}: unsafe outside sys/", file.path));
        }
    });
    report("unsafe lives in sys/ and envoy/src/cache/env.rs only", &violations);
}

#[test]
fn global_state_lives_in_sys_only() {
    let cells = ["Mutex", "RwLock", "Cell", "RefCell", "UnsafeCell", "OnceCell"];
    let violations = each(|file, source, is_test, out| {
        if file.path.contains("/src/sys/") || is_test {
            return;
        }
        let code = source.production();
        let tokens = tokens(&code);
        for at in 0..tokens.len() {
            // `&'static` is a lifetime: its quote is the token in front.
            if tokens[at] == "thread_local" || (tokens[at] == "static" && (at == 0 || tokens[at - 1] != "'")) {
                let declaration = tokens[at..].iter().take_while(|token| !matches!(**token, "=" | ";" | "}"));
                let mutable = |token: &&str| cells.contains(token) || token.starts_with("Atomic") || *token == "mut";
                if tokens[at] == "thread_local" || declaration.clone().any(mutable) {
                    out.push(format!("{}: `{}`", file.path, declaration.copied().collect::<Vec<_>>().join(" ")));
                }
            }
        }
    });
    report("a static with interior mutability lives in sys/ only", &violations);
}

#[test]
fn an_unwrap_is_proved_by_a_comment() {
    let violations = each(|file, source, is_test, out| {
        let tool = ["ci/", "arch-tests/"].iter().any(|folder| file.path.starts_with(folder));
        if is_test || tool {
            return;
        }
        let code = source.production();
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in code.lines().enumerate() {
            let panics = [".unwrap()", ".expect(", "unreachable!(", "panic!("].iter().any(|call| line.contains(call));
            let near = &lines[at.saturating_sub(4)..=at.min(lines.len() - 1)];
            if panics && !near.iter().any(|line| line.contains("//")) {
                out.push(format!("{}: `{}` without a comment that proves it", file.path, line.trim()));
            }
        }
    });
    report("unwrap, expect, unreachable! and panic! have a comment that proves them, within four lines", &violations);
}

#[test]
fn test_files_hold_tests() {
    let violations = each(|file, _, _, out| {
        // Below tests/, a folder holds helpers.
        let integration = file.folder().ends_with("/tests") && !file.folder().contains("/src/");
        let holds = ["#[test]", "proptest!", "contract_tests!"].iter().any(|mark| file.text.contains(mark));
        if (file.name() == "tests.rs" || integration) && !holds {
            out.push(format!("{}: no #[test]", file.path));
        }
    });
    report("a test file holds at least one test", &violations);
}
