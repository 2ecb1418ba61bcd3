use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, mode, set_mode, text};
use super::suite::{Subject, check};

fn params(more: &[(&'static str, Value)]) -> Params {
    [("target_path", text("/d/x"))].into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn file_line_keeps_the_contract() {
    check(&Subject {
        kind: "file_line",
        params: vec![("line", text("a=1")), ("match_pattern", text("^a="))],
        holds: |x| fs::read_to_string(x).unwrap().lines().filter(|line| line.starts_with("a=")).eq(["a=1"]),
        wrong: vec![
            ("empty", |x| fs::write(x, "").unwrap()),
            ("other value", |x| fs::write(x, "# c\na=2\nb=3\n").unwrap()),
            ("without newline", |x| fs::write(x, "b=3").unwrap()),
            ("both", |x| fs::write(x, "a=2\na=1\n").unwrap()),
        ],
        refused: vec![
            ("ambiguous", |x| fs::write(x, "a=2\na=3\n").unwrap(), "2 lines match"),
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            ("link", |x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
            ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        ],
        absent: vec![("match_pattern", text("^a="))],
    });
}

#[test]
fn the_rest_of_the_file_and_its_mode_stay() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("/d/x"), b"one\n\xff\xfe\n\ntwo").unwrap();
    set_mode(&sandbox.at("/d/x"), 0o600);
    let report =
        sandbox.expect("file_line", &params(&[("line", text("new")), ("position", text("after:^one$"))]), Changed);
    assert_eq!(fs::read(sandbox.at("/d/x")).unwrap(), b"one\nnew\n\xff\xfe\n\ntwo");
    assert_eq!(mode(&sandbox.at("/d/x")), 0o600);
    assert_eq!(report.outcome, Changed);
}

#[test]
fn bad_lines_and_patterns_are_named() {
    let sandbox = Sandbox::new();
    for (more, expected) in [
        (vec![("line", text("a\nb"))], "one line"),
        (vec![("line", text("a")), ("match_pattern", text("("))], "`match_pattern`"),
        (vec![("line", text("a")), ("position", text("after:["))], "`position`"),
        (vec![("state", text("absent"))], "state absent needs `line` or `match_pattern`"),
        (vec![], "needs the parameter `line`"),
    ] {
        let report = sandbox.expect("file_line", &params(&more), Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}

#[test]
fn many_lines_of_one_file_settle_side_by_side() {
    let sandbox = Sandbox::new();
    let line = |n: usize| params(&[("line", text(&format!("k{n}=v"))), ("match_pattern", text(&format!("^k{n}=")))]);
    let all = || (0..20).map(|n| super::sandbox::resource(&format!("l{n}"), "file_line", &line(n))).collect();
    assert_eq!(sandbox.run_all(all()).counts().changed, 20);
    assert_eq!(sandbox.run_all(all()).counts().ok, 20);
    assert_eq!(fs::read_to_string(sandbox.at("/d/x")).unwrap().lines().count(), 20);
    sandbox.expect("file_line", &line(3), Fine);
}
