use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, mode, resource, set_mode, text};
use super::suite::{Subject, check};

fn params(more: &[(&'static str, Value)]) -> Params {
    [("target_path", text("/d/x"))].into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn blockinfile_keeps_the_contract() {
    check(&Subject {
        kind: "blockinfile",
        params: vec![("block", text("a\nb\n")), ("marker", text("# {mark} m"))],
        holds: |x| fs::read_to_string(x).unwrap().contains("# BEGIN m\na\nb\n# END m\n"),
        wrong: vec![
            ("empty", |x| fs::write(x, "").unwrap()),
            ("other block", |x| fs::write(x, "x\n# BEGIN m\na\n# END m\n").unwrap()),
            ("only markers", |x| fs::write(x, "# BEGIN m\n# END m\ny").unwrap()),
            ("without newline", |x| fs::write(x, "y").unwrap()),
        ],
        refused: vec![
            ("no end", |x| fs::write(x, "# BEGIN m\na\nb\n").unwrap(), "put it back"),
            ("no beginning", |x| fs::write(x, "# END m\n").unwrap(), "no beginning"),
            ("twice", |x| fs::write(x, "# BEGIN m\n# END m\n# BEGIN m\n# END m\n").unwrap(), "more than once"),
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            ("link", |x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
            ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        ],
        absent: vec![("marker", text("# {mark} m"))],
    });
}

#[test]
fn several_blocks_of_one_file_settle_side_by_side() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("/d/x"), b"\xff\nend").unwrap();
    set_mode(&sandbox.at("/d/x"), 0o600);
    let block = |n: usize| {
        let marker = format!("// {{mark}} {n}");
        let params = params(&[("block", text(&format!("line {n}"))), ("marker", text(&marker))]);
        resource(&format!("b{n}"), "blockinfile", &params)
    };
    assert_eq!(sandbox.run_all((0..9).map(block).collect()).counts().changed, 9);
    assert_eq!(sandbox.run_all((0..9).map(block).collect()).counts().ok, 9);
    assert!(fs::read(sandbox.at("/d/x")).unwrap().starts_with(b"\xff\nend\n// BEGIN 0\nline 0\n// END 0\n"));
    assert_eq!(mode(&sandbox.at("/d/x")), 0o600);
    let gone = params(&[("state", text("absent")), ("marker", text("// {mark} 4"))]);
    sandbox.expect("blockinfile", &gone, Changed);
    sandbox.expect("blockinfile", &gone, Fine);
}

#[test]
fn bad_blocks_and_markers_are_named() {
    let sandbox = Sandbox::new();
    for (more, expected) in [
        (vec![], "needs the parameter `block`"),
        (vec![("block", text("a")), ("marker", text("# mine"))], "`{mark}`"),
        (vec![("block", text("a")), ("marker", text("a {mark}\n"))], "one line"),
        (vec![("block", text("# BEGIN VIGO MANAGED BLOCK"))], "contains its own marker"),
        (vec![("block", text("a")), ("position", text("after:["))], "`position`"),
    ] {
        let report = sandbox.expect("blockinfile", &params(&more), Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}
