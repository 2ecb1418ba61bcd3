use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, fifo, is_root, mode, set_mode, text};

fn params(more: &[(&'static str, Value)]) -> Params {
    [("target_path", text("/d/x"))].into_iter().chain(more.iter().cloned()).collect()
}

pub fn one_to_two() -> Params {
    params(&[("pattern", text("^port=1$")), ("replacement", text("port=2"))])
}

#[test]
fn every_match_changes_once_and_the_rest_stays() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("/d/x"), "port=1\nport=10\n\u{e9}\nport=1\n").unwrap();
    set_mode(&sandbox.at("/d/x"), 0o600);
    let before = sandbox.picture();
    let report = sandbox.look("replace", &one_to_two());
    assert!(report.message.starts_with("would change") && report.diff.contains("+port=2"), "{report:?}");
    assert_eq!(sandbox.picture(), before);
    sandbox.expect("replace", &one_to_two(), Changed);
    assert_eq!(sandbox.read("/d/x"), "port=2\nport=10\n\u{e9}\nport=2\n");
    assert_eq!(mode(&sandbox.at("/d/x")), 0o600);
    let settled = sandbox.picture();
    sandbox.expect("replace", &one_to_two(), Fine);
    assert_eq!(sandbox.picture(), settled);
}

#[test]
fn what_is_in_the_way_is_refused_and_left_as_it_is() {
    type Arrange = fn(&std::path::Path);
    let cases: [(Arrange, &str); 8] = [
        (|_| {}, "does not exist"),
        (fifo, "FIFO"),
        (|x| fs::create_dir(x).unwrap(), "a directory"),
        (|x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
        (|x| fs::write(x, b"port=1\n\xff").unwrap(), "byte 8 is not UTF-8"),
        (|x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        (|x| symlink("x", x).unwrap(), "a symbolic link"),
        (|x| fs::hard_link("/proc/self/status", x).unwrap_or(()), "does not exist"),
    ];
    for (arrange, reason) in cases {
        let sandbox = Sandbox::new();
        arrange(&sandbox.at("/d/x"));
        let before = sandbox.picture();
        let report = sandbox.expect("replace", &one_to_two(), Failed);
        assert!(report.message.contains(reason), "{}", report.message);
        assert_eq!(sandbox.picture(), before);
    }
}

#[test]
fn the_agent_itself_is_spared_and_foreign_links_are_refused() {
    let mut sandbox = Sandbox::new();
    fs::write(sandbox.at("/d/x"), "port=1\n").unwrap();
    sandbox.protected = vec![sandbox.at("/d")];
    assert!(sandbox.expect("replace", &one_to_two(), Failed).message.contains("allow_self"));
    sandbox.protected.clear();
    if is_root() {
        symlink("d", sandbox.at("/theirs")).unwrap();
        std::os::unix::fs::lchown(sandbox.at("/theirs"), Some(65_534), Some(65_534)).unwrap();
        let asked = vec![("target_path", text("/theirs/x")), ("pattern", text("1"))];
        assert!(sandbox.expect("replace", &asked, Failed).message.contains("symbolic link of user"));
    }
    assert_eq!(sandbox.read("/d/x"), "port=1\n");
}

#[test]
fn what_would_change_at_every_run_is_refused() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("/d/x"), "a\n").unwrap();
    let report = sandbox.expect("replace", &params(&[("pattern", text("a")), ("replacement", text("ab"))]), Failed);
    assert!(report.message.starts_with("/d/x: ") && report.message.contains("at every run"), "{}", report.message);
    assert_eq!(sandbox.read("/d/x"), "a\n");
}

#[test]
fn bad_patterns_and_groups_are_named() {
    let sandbox = Sandbox::new();
    for (more, expected) in [
        (vec![], "needs the parameter `pattern`"),
        (vec![("pattern", text("("))], "`pattern`: "),
        (vec![("pattern", text("(a){1000}{1000}"))], "`pattern`: "),
        (vec![("pattern", text("(a)")), ("replacement", text("$1x"))], "no group `1x`"),
        (vec![("pattern", text("a")), ("regexp", text("a"))], "no parameter `regexp`"),
    ] {
        let report = sandbox.expect("replace", &params(&more), Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}
