use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Mounted, Params, Sandbox, fifo, foreign_name, is_root, mode, set_mode, text};
use super::suite::{Arrange, Subject, check};

fn params(more: &[(&'static str, Value)]) -> Params {
    [("target_path", text("/d/x"))].into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn directory_keeps_the_contract() {
    let mut wrong: Vec<(&'static str, Arrange)> = vec![
        ("mode", |x| {
            fs::create_dir(x).unwrap();
            set_mode(x, 0o777);
        }),
        ("sticky", |x| {
            fs::create_dir(x).unwrap();
            set_mode(x, 0o1750);
        }),
    ];
    let mut wanted = vec![("mode", text("0750"))];
    if is_root() {
        wanted.push(("owner", text("root")));
        wrong.push(("owner", |x| {
            fs::create_dir(x).unwrap();
            set_mode(x, 0o750);
            std::os::unix::fs::chown(x, Some(1), None).unwrap();
        }));
    }
    check(&Subject {
        kind: "directory",
        params: wanted,
        holds: |x| x.symlink_metadata().unwrap().is_dir() && mode(x) == 0o750,
        wrong,
        refused: vec![
            ("file", |x| fs::write(x, "x").unwrap(), "a regular file"),
            ("link to a directory", |x| symlink("/", x).unwrap(), "a symbolic link"),
            ("dangling link", |x| symlink("nowhere", x).unwrap(), "a symbolic link"),
        ],
        absent: vec![],
    });
}

#[test]
fn only_recurse_removes_content() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.at("/d/x/a/b")).unwrap();
    fs::write(sandbox.at("/d/x/a/b/f"), "x").unwrap();
    fs::write(sandbox.at("/d/x").join(foreign_name()), "x").unwrap();
    fs::create_dir(sandbox.at("/d/kept")).unwrap();
    fs::write(sandbox.at("/d/kept/f"), "x").unwrap();
    symlink("../kept", sandbox.at("/d/x/link")).unwrap();
    fifo(&sandbox.at("/d/x/fifo"));
    let absent = params(&[("state", text("absent"))]);
    let report = sandbox.expect("directory", &absent, Failed);
    assert!(report.message.contains("is not empty"), "{}", report.message);
    let tree = params(&[("state", text("absent")), ("recurse", Value::Bool(true))]);
    sandbox.expect("directory", &tree, Changed);
    sandbox.expect("directory", &tree, Fine);
    assert!(!sandbox.at("/d/x").exists() && sandbox.at("/d/kept/f").exists());
}

#[test]
fn recurse_sets_modes_below_and_follows_no_link() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.at("/d/x/a")).unwrap();
    for (name, bits) in [("/d/x/a/script", 0o777), ("/d/x/a/plain", 0o666)] {
        fs::write(sandbox.at(name), "x").unwrap();
        set_mode(&sandbox.at(name), bits);
    }
    fs::write(sandbox.at("/d/outside"), "x").unwrap();
    set_mode(&sandbox.at("/d/outside"), 0o666);
    symlink("../outside", sandbox.at("/d/x/link")).unwrap();
    let asked = params(&[("mode", text("0750")), ("recurse", Value::Bool(true))]);
    let report = sandbox.expect("directory", &asked, Changed);
    assert!(report.message.contains("/d/x/a/plain: mode 0666 instead of 0640"), "{}", report.message);
    let modes = ["/d/x", "/d/x/a", "/d/x/a/script", "/d/x/a/plain", "/d/outside"].map(|path| mode(&sandbox.at(path)));
    assert_eq!(modes, [0o750, 0o750, 0o751, 0o640, 0o666]);
    sandbox.expect("directory", &asked, Fine);
}

#[test]
fn recurse_reaches_owners_of_links_and_special_files() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.at("/d/x")).unwrap();
    symlink("../outside", sandbox.at("/d/x/link")).unwrap();
    fifo(&sandbox.at("/d/x/fifo"));
    fs::write(sandbox.at("/d/outside"), "x").unwrap();
    let asked = params(&[("owner", text("77")), ("recurse", Value::Bool(true))]);
    sandbox.expect("directory", &asked, Changed);
    sandbox.expect("directory", &asked, Fine);
    let uids =
        ["/d/x", "/d/x/link", "/d/x/fifo", "/d/outside"].map(|p| sandbox.at(p).symlink_metadata().unwrap().uid());
    assert_eq!(uids, [77, 77, 77, 0]);
}

#[test]
fn a_mounted_file_system_below_is_left_alone() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.at("/d/x")).unwrap();
    let Some(_disk) = Mounted::tmpfs(&sandbox.at("/d/x/disk"), "size=1m") else { return };
    fs::write(sandbox.at("/d/x/disk/f"), "x").unwrap();
    let tree = params(&[("state", text("absent")), ("recurse", Value::Bool(true))]);
    let report = sandbox.expect("directory", &tree, Failed);
    assert!(report.message.contains("a file system is mounted"), "{}", report.message);
    assert!(sandbox.at("/d/x/disk/f").exists());
}

#[test]
fn a_directory_that_contains_the_agent_may_be_managed_but_not_removed() {
    let mut sandbox = Sandbox::new();
    fs::create_dir(sandbox.at("/d/x")).unwrap();
    fs::write(sandbox.at("/d/x/agent"), "x").unwrap();
    sandbox.protected = vec![sandbox.at("/d/x/agent")];
    sandbox.expect("directory", &params(&[("mode", text("0700"))]), Changed);
    let tree = params(&[("state", text("absent")), ("recurse", Value::Bool(true))]);
    let report = sandbox.expect("directory", &tree, Failed);
    assert!(report.message.contains("allow_self"), "{}", report.message);
    assert!(sandbox.at("/d/x/agent").exists());
}
