//! What is in `packaging/manual` is what the command lines say, real shells complete with it, and `mandoc` finds no error.
//! `UPDATE_DOCS=1 cargo test -p vigo-manual` writes it anew.

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/manual")
}

/// What a command prints; panics where it fails or says anything else.
fn output(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{program} {words:?}: {}{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn committed_files_match_the_command_lines() {
    let files = vigo_manual::files();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        for (path, text) in &files {
            let path = folder().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }
    for (path, text) in &files {
        let committed = std::fs::read_to_string(folder().join(path)).unwrap_or_default();
        assert!(committed == *text, "packaging/manual/{path} is stale: run UPDATE_DOCS=1 cargo test -p vigo-manual");
    }
}

#[test]
fn manual_pages_are_clean() {
    for (path, text) in vigo_manual::files().into_iter().filter(|(path, _)| path.ends_with(".8")) {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("page.8");
        std::fs::write(&page, text).unwrap();
        let page = page.to_str().unwrap();
        assert_eq!(output("mandoc", &["-T", "lint", "-W", "error", page]), "", "{path}");
        let read = output("mandoc", &["-T", "html", page]);
        assert!(read.contains("EXIT_STATUS") && read.contains("Prints version, commit and target."), "{path}: {read}");
    }
}

/// The words before the cursor, and the one under it; answers that must be there, and one that must not.
type Case = (&'static [&'static str], &'static str, &'static [&'static str], &'static str);

const CASES: [(&str, Case); 9] = [
    ("vigocli", (&[], "", &["nodes", "envoys", "completions"], "list")),
    ("vigocli", (&[], "no", &["nodes"], "envoys")),
    ("vigocli", (&["envoys"], "", &["list", "invite", "revoke"], "nodes")),
    ("vigocli", (&["--root", "envoys", "envoys"], "", &["list"], "nodes")),
    ("vigocli", (&["envoys", "--json"], "l", &["list"], "nodes")),
    ("vigocli", (&["backup", "restore"], "--fr", &["--from-litestream"], "--root")),
    ("vigosrv", (&[], "", &["serve", "quickstart"], "nodes")),
    ("vigo-envoy", (&[], "e", &["enroll"], "daemon")),
    ("vigo-envoy", (&["run"], "--o", &["--once", "--offline"], "--json")),
];

fn check(shell: &str, file: impl Fn(&str) -> String, complete: impl Fn(&str, &str, &[&str]) -> String) {
    for (program, (before, word, wanted, unwanted)) in CASES {
        let script = folder().join("completions").join(shell).join(file(program));
        let words: Vec<&str> = [program].into_iter().chain(before.iter().copied()).chain([word]).collect();
        let said = complete(script.to_str().unwrap(), program, &words);
        let answers: Vec<&str> = said.split_whitespace().collect();
        for one in wanted {
            assert!(answers.contains(one), "{shell} {words:?}: no `{one}` in {answers:?}");
        }
        assert!(!answers.contains(&unwanted), "{shell} {words:?}: `{unwanted}` in {answers:?}");
    }
}

#[test]
fn bash_completes() {
    check(
        "bash",
        |program| program.to_string(),
        |script, program, words| {
            let body = format!(
                "source '{script}'; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _{}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                program.replace('-', "_")
            );
            output("bash", &[&["--norc", "-uc", &body, "bash"], words].concat())
        },
    );
}

#[test]
fn zsh_completes() {
    check(
        "zsh",
        |program| format!("_{program}"),
        |script, program, words| {
            // The two functions of its completion system that are called, as far as the answer is concerned.
            let body = format!(
                "compdef() {{}}; _files() {{ print FILES }}
                _describe() {{ local each; for each in \"${{(@P)@[-1]}}\"; do
                    [[ $each == $words[CURRENT]* ]] && print -r -- ${{each%%:*}}; done; true }}
                source '{script}'; words=(\"$@\"); CURRENT=$#; _{}",
                program.replace('-', "_")
            );
            output("zsh", &[&["-fc", &body, "zsh"], words].concat())
        },
    );
}

#[test]
fn fish_completes() {
    check(
        "fish",
        |program| format!("{program}.fish"),
        |script, _, words| {
            let body = format!("source '{script}'; complete -C '{}'", words.join(" "));
            let home = tempfile::tempdir().unwrap();
            let said = Command::new("fish").args(["--no-config", "-c", &body]).env("HOME", home.path()).output();
            let said = String::from_utf8(said.expect("fish").stdout).unwrap();
            said.lines().map(|line| line.split('\t').next().unwrap_or_default().to_string() + "\n").collect()
        },
    );
}
