use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, text};
use super::suite::{Subject, check};

fn params(more: &[(&'static str, Value)]) -> Params {
    [("target_path", text("/d/x"))].into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn symlink_keeps_the_contract() {
    check(&Subject {
        kind: "symlink",
        params: vec![("to", text("/some/where else"))],
        holds: |x| fs::read_link(x).unwrap() == std::path::Path::new("/some/where else"),
        wrong: vec![
            ("other target", |x| symlink("/elsewhere", x).unwrap()),
            ("longer target", |x| symlink("/some/where else/x", x).unwrap()),
            ("loop", |x| symlink("x", x).unwrap()),
        ],
        refused: vec![
            ("file", |x| fs::write(x, "x").unwrap(), "`force: true` replaces it"),
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
        ],
        absent: vec![],
    });
}

#[test]
fn force_replaces_a_file_but_never_a_directory() {
    let sandbox = Sandbox::new();
    let asked = params(&[("to", text("t")), ("force", Value::Bool(true))]);
    fs::write(sandbox.at("/d/x"), "x").unwrap();
    sandbox.expect("symlink", &asked, Changed);
    sandbox.expect("symlink", &asked, Fine);
    fs::remove_file(sandbox.at("/d/x")).unwrap();
    fs::create_dir(sandbox.at("/d/x")).unwrap();
    sandbox.expect("symlink", &asked, Failed);
    assert!(sandbox.at("/d/x").is_dir());
}

#[test]
fn hard_links_are_another_name_of_one_file() {
    let sandbox = Sandbox::new();
    let asked = params(&[("to", text("/d/origin")), ("link_type", text("hard"))]);
    let report = sandbox.expect("symlink", &asked, Failed);
    assert!(report.message.contains("/d/origin"), "{}", report.message);
    fs::write(sandbox.at("/d/origin"), "x").unwrap();
    sandbox.expect("symlink", &asked, Changed);
    sandbox.expect("symlink", &asked, Fine);
    let inode = |path: &str| sandbox.at(path).metadata().unwrap().ino();
    assert_eq!(inode("/d/x"), inode("/d/origin"));
    fs::remove_file(sandbox.at("/d/x")).unwrap();
    fs::write(sandbox.at("/d/x"), "other").unwrap();
    sandbox.expect("symlink", &asked, Failed);
    let forced: Params = asked.iter().cloned().chain([("force", Value::Bool(true))]).collect();
    sandbox.expect("symlink", &forced, Changed);
    assert_eq!(inode("/d/x"), inode("/d/origin"));
    sandbox.expect("symlink", &params(&[("state", text("absent")), ("link_type", text("hard"))]), Changed);
    assert!(sandbox.at("/d/origin").exists() && !sandbox.at("/d/x").exists());
    let relative = params(&[("to", text("origin")), ("link_type", text("hard"))]);
    assert!(sandbox.expect("symlink", &relative, Failed).message.contains("starts with /"));
}

#[test]
fn absent_does_not_remove_a_file_by_mistake() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("/d/x"), "x").unwrap();
    sandbox.expect("symlink", &params(&[("state", text("absent"))]), Failed);
    assert!(sandbox.at("/d/x").exists());
    sandbox.expect("symlink", &params(&[("state", text("absent")), ("force", Value::Bool(true))]), Changed);
}
