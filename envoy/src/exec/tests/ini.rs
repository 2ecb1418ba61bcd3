use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed};

use super::sandbox::{Params, Sandbox, mode, set_mode, text};
use super::suite::{Subject, check};

fn params(more: &[(&'static str, Value)]) -> Params {
    [("target_path", text("/d/x"))].into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn ini_keeps_the_contract() {
    check(&Subject {
        kind: "ini",
        params: vec![("section", text("s")), ("key", text("k")), ("value", Value::Int(5))],
        holds: |x| fs::read_to_string(x).unwrap().replace(' ', "").contains("[s]\nk=5"),
        wrong: vec![
            ("empty", |x| fs::write(x, "").unwrap()),
            ("other value", |x| fs::write(x, "[s]\nk = 6\n[t]\n").unwrap()),
            ("other section", |x| fs::write(x, "[t]\nk=5").unwrap()),
            ("commented out", |x| {
                fs::write(x, "[s]\n;k=5\nk=4\n").map(|()| fs::write(x, "[s]\nk=4\n").unwrap()).unwrap()
            }),
            ("no value", |x| fs::write(x, "[s]\nk\n").unwrap()),
        ],
        refused: vec![
            ("twice", |x| fs::write(x, "[s]\nk=1\nk=2\n").unwrap(), "in lines 2 and 3"),
            ("several lines", |x| fs::write(x, "[s]\nk=1\n 2\n").unwrap(), "several lines"),
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            ("link", |x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
            ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        ],
        absent: vec![("section", text("s")), ("key", text("k"))],
    });
}

#[test]
fn comments_order_and_mode_stay() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("/d/x"), b"; \xff\n[s]\n# about k\nk   =  1\nz = 2\n\n[t]\n").unwrap();
    set_mode(&sandbox.at("/d/x"), 0o640);
    let asked = params(&[("section", text("s")), ("key", text("k")), ("value", text("two words"))]);
    sandbox.expect("ini", &asked, Changed);
    assert_eq!(fs::read(sandbox.at("/d/x")).unwrap(), b"; \xff\n[s]\n# about k\nk   =  two words\nz = 2\n\n[t]\n");
    assert_eq!(mode(&sandbox.at("/d/x")), 0o640);
    sandbox.expect("ini", &params(&[("section", text("s")), ("state", text("absent"))]), Changed);
    assert_eq!(fs::read(sandbox.at("/d/x")).unwrap(), b"; \xff\n[t]\n");
}

#[test]
fn bad_keys_and_sections_are_named() {
    let sandbox = Sandbox::new();
    for (more, expected) in [
        (vec![("section", text("s"))], "needs the parameter `key`"),
        (vec![("state", text("absent"))], "needs `key` or `section`"),
        (vec![("key", text("a=b"))], "`key` must be a key"),
        (vec![("key", text("[a]"))], "`key` must be a key"),
        (vec![("key", text("a")), ("section", text("[s]"))], "without its brackets"),
        (vec![("key", text("a")), ("value", text("1\nadmin = true"))], "one line of text"),
    ] {
        let report = sandbox.expect("ini", &params(&more), Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}
