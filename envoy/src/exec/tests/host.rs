use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, text};
use super::suite::{Subject, check_all_but_default};

fn names(names: &[&str]) -> (&'static str, Value) {
    ("names", Value::List(names.iter().map(|name| text(name)).collect()))
}

#[test]
fn host_keeps_the_contract() {
    check_all_but_default(&Subject {
        kind: "host",
        params: vec![("ip", text("10.0.0.1")), names(&["a.example", "a"])],
        holds: |x| fs::read_to_string(x).unwrap().lines().filter(|line| line.contains("a.example")).count() == 1,
        wrong: vec![
            ("empty", |x| fs::write(x, "").unwrap()),
            ("other address", |x| fs::write(x, "10.0.0.2 a.example a\n").unwrap()),
            ("name missing", |x| fs::write(x, "10.0.0.1 a.example # c").unwrap()),
            ("also elsewhere", |x| fs::write(x, "10.0.0.9 b a\n10.0.0.1 a.example a\n").unwrap()),
        ],
        refused: vec![
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            ("link", |x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
            ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        ],
        absent: vec![names(&["a.example", "a"])],
    });
}

#[test]
fn the_file_of_the_host_is_meant_where_none_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("/etc/hosts", "127.0.0.1\tlocalhost\n# by hand\n");
    let asked: Params = vec![("ip", text("::1")), ("names", text("localhost"))];
    let report = sandbox.expect("host", &asked, Changed);
    assert!(report.diff.contains("+::1\tlocalhost"), "{}", report.diff);
    sandbox.expect("host", &asked, Fine);
    assert_eq!(sandbox.read("/etc/hosts"), "127.0.0.1\tlocalhost\n# by hand\n::1\tlocalhost\n");
}

#[test]
fn bad_addresses_and_names_are_named() {
    let sandbox = Sandbox::new();
    for (params, expected) in [
        (vec![names(&["a"])], "needs the parameter `ip`"),
        (vec![("ip", text("10.0.0.1"))], "needs the parameter `names`"),
        (vec![("ip", text("10.0.0.256")), names(&["a"])], "IPv4 or IPv6 address"),
        (vec![("ip", text("10.0.0.1")), names(&["a b"])], "the name of a host"),
        (vec![("ip", text("10.0.0.1")), names(&["a\n10.0.0.1 bank.example"])], "the name of a host"),
        (vec![("ip", text("10.0.0.1")), names(&[])], "the name of a host"),
    ] {
        let report = sandbox.expect("host", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    assert!(!sandbox.at("/etc").exists());
}
