use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use common::bundle::Value;
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, is_root, mode, set_mode, text};
use super::suite::{Subject, check};
use crate::exec::Blob;

const TARGET: &str = "/d/x";

fn params(more: &[(&'static str, Value)]) -> Params {
    [("target_path", text(TARGET))].into_iter().chain(more.iter().cloned()).collect()
}

fn subject() -> Subject {
    let mut wrong: Vec<(&'static str, super::suite::Arrange)> = vec![
        ("content", |x| {
            fs::write(x, "old\n").unwrap();
            set_mode(x, 0o640);
        }),
        ("same length, other content", |x| {
            fs::write(x, "nEw\n").unwrap();
            set_mode(x, 0o640);
        }),
        ("empty", |x| fs::write(x, "").unwrap()),
        ("longer", |x| fs::write(x, "new\nnew\n").unwrap()),
        ("mode", |x| {
            fs::write(x, "new\n").unwrap();
            set_mode(x, 0o666);
        }),
        ("set-user-id", |x| {
            fs::write(x, "new\n").unwrap();
            set_mode(x, 0o4640);
        }),
        ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap()),
    ];
    let mut params = vec![("content", text("new\n")), ("mode", text("0640"))];
    let mut holds: fn(&std::path::Path) -> bool = |x| fs::read(x).unwrap() == b"new\n" && mode(x) == 0o640;
    if is_root() {
        params.extend([("owner", text("4711")), ("group", text("4712"))]);
        holds = |x| {
            let meta = x.metadata().unwrap();
            fs::read(x).unwrap() == b"new\n" && mode(x) == 0o640 && (meta.uid(), meta.gid()) == (4711, 4712)
        };
        wrong.push(("owner", |x| {
            fs::write(x, "new\n").unwrap();
            set_mode(x, 0o640);
            std::os::unix::fs::chown(x, Some(1), Some(4712)).unwrap();
        }));
        wrong.push(("group", |x| {
            fs::write(x, "new\n").unwrap();
            set_mode(x, 0o640);
            std::os::unix::fs::chown(x, Some(4711), Some(1)).unwrap();
        }));
    }
    Subject {
        kind: "file",
        params,
        holds,
        wrong,
        refused: vec![
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            (
                "link to a file",
                |x| {
                    fs::write(x.with_file_name("other"), "new\n").unwrap();
                    symlink("other", x).unwrap();
                },
                "a symbolic link",
            ),
            ("dangling link", |x| symlink("nowhere", x).unwrap(), "a symbolic link"),
            ("loop", |x| symlink("x", x).unwrap(), "a symbolic link"),
            ("socket", |x| drop(std::os::unix::net::UnixListener::bind(x).unwrap()), "a socket"),
        ],
        absent: vec![],
    }
}

#[test]
fn file_keeps_the_contract() {
    check(&subject());
}

#[test]
fn what_is_not_asked_for_is_kept() {
    let sandbox = Sandbox::new();
    let x = sandbox.at(TARGET);
    fs::write(&x, "old").unwrap();
    set_mode(&x, 0o751);
    if is_root() {
        std::os::unix::fs::chown(&x, Some(33), Some(44)).unwrap();
    }
    let before = x.metadata().unwrap();
    let name = c"user.vigo";
    let has_attributes = std::process::Command::new("sh")
        .args(["-c", "command -v setfattr >/dev/null && setfattr -n user.vigo -v kept \"$1\"", "sh"])
        .arg(&x)
        .status()
        .unwrap()
        .success();
    sandbox.expect("file", &params(&[("content", text("new"))]), Changed);
    let after = x.metadata().unwrap();
    assert_eq!((mode(&x), after.uid(), after.gid()), (0o751, before.uid(), before.gid()));
    if has_attributes {
        let shown = std::process::Command::new("getfattr")
            .args(["--only-values", "-n", name.to_str().unwrap()])
            .arg(&x)
            .output();
        assert_eq!(shown.unwrap().stdout, b"kept");
    }
    assert_ne!(after.ino(), before.ino(), "content is replaced whole");
    fs::write(&x, "").unwrap();
    sandbox.expect("file", &params(&[]), Fine);
}

#[test]
fn attributes_alone_are_changed_in_place() {
    let sandbox = Sandbox::new();
    let x = sandbox.at(TARGET);
    fs::write(&x, "same").unwrap();
    set_mode(&x, 0o600);
    let before = x.metadata().unwrap().ino();
    let report = sandbox.expect("file", &params(&[("content", text("same")), ("mode", text("0644"))]), Changed);
    assert_eq!(x.metadata().unwrap().ino(), before);
    assert_eq!(report.message, "changed: mode 0600 instead of 0644");
}

#[test]
fn a_file_without_content_is_created_empty_with_the_usual_mode() {
    let sandbox = Sandbox::new();
    sandbox.expect("file", &params(&[]), Changed);
    assert_eq!((fs::read(sandbox.at(TARGET)).unwrap().len(), mode(&sandbox.at(TARGET))), (0, 0o644));
    sandbox.expect("file", &params(&[]), Fine);
}

#[test]
fn diffs_show_what_changes() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at(TARGET), "a\nb\n").unwrap();
    let report = sandbox.look("file", &params(&[("content", text("a\nc\n"))]));
    assert!(report.diff.contains("-b\n+c\n"), "{}", report.diff);
    assert_eq!(report.message, "would change: content");
    fs::write(sandbox.at(TARGET), b"\xff").unwrap();
    assert!(sandbox.look("file", &params(&[("content", text("a"))])).diff.contains("not text"));
}

#[test]
fn sources_come_from_the_bundle_and_are_compared_by_hash() {
    let mut sandbox = Sandbox::new();
    let big = vec![b'z'; 300_000];
    let hash = sandbox.blob("files/big", &big);
    let asked = params(&[("source", text("files/big"))]);
    sandbox.expect("file", &asked, Changed);
    assert_eq!(fs::read(sandbox.at(TARGET)).unwrap(), big);
    // An unchanged file does not need the blob any more.
    sandbox.store.0.lock().unwrap().clear();
    sandbox.expect("file", &asked, Fine);
    let mut other = big.clone();
    other[200_000] = b'y';
    fs::write(sandbox.at(TARGET), &other).unwrap();
    let report = sandbox.expect("file", &asked, Blocked);
    assert!(report.message.contains("waiting for the server"), "{}", report.message);
    // A damaged blob is never applied.
    let path = sandbox.dir.path().join("blob");
    fs::write(&path, &other).unwrap();
    sandbox.store.0.lock().unwrap().insert(hash, Blob::File(path.clone()));
    let report = sandbox.expect("file", &asked, Blocked);
    assert!(report.message.contains("damaged"), "{}", report.message);
    assert_eq!(fs::read(sandbox.at(TARGET)).unwrap(), other);
    fs::write(&path, &big).unwrap();
    sandbox.expect("file", &asked, Changed);
    assert_eq!(fs::read(sandbox.at(TARGET)).unwrap(), big);
    let report = sandbox.expect("file", &params(&[("source", text("files/none"))]), Failed);
    assert!(report.message.contains("does not carry `files/none`"), "{}", report.message);
}

#[test]
fn template_sources_are_rendered() {
    let mut sandbox = Sandbox::new();
    sandbox.blob("templates/t", b"port {{ vars.port }} on {{ envoy.hostname }} ({{ traits.os.arch }})\n");
    sandbox.expect("file", &params(&[("source", text("templates/t"))]), Changed);
    assert_eq!(fs::read(sandbox.at(TARGET)).unwrap(), b"port 80 on web-1 (x)\n");
    sandbox.expect("file", &params(&[("source", text("templates/t"))]), Fine);
    sandbox.blob("templates/broken", b"{{ vars.prot }}");
    let report = sandbox.expect("file", &params(&[("source", text("templates/broken"))]), Failed);
    assert_eq!(report.message, "templates/broken: `vars.prot` is not defined; did you mean `vars.port`?");
}

#[test]
fn a_validator_that_refuses_leaves_the_old_content() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at(TARGET), "old").unwrap();
    let asked = |content: &str| {
        params(&[
            ("content", text(content)),
            ("validate", text("grep -q good %s || { echo bad content >&2; exit 1; }")),
        ])
    };
    let before = sandbox.picture();
    let report = sandbox.expect("file", &asked("evil"), Failed);
    assert!(report.message.contains("bad content"), "{}", report.message);
    assert_eq!(fs::read(sandbox.at(TARGET)).unwrap(), b"old");
    assert_eq!(sandbox.picture().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    sandbox.expect("file", &asked("good"), Changed);
    assert_eq!(fs::read(sandbox.at(TARGET)).unwrap(), b"good");
}

#[test]
fn a_backup_keeps_what_was_there() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at(TARGET), "one").unwrap();
    let asked = |content: &str| params(&[("content", text(content)), ("backup", Value::Bool(true))]);
    sandbox.expect("file", &asked("two"), Changed);
    sandbox.expect("file", &asked("three"), Changed);
    sandbox.expect("file", &asked("three"), Fine);
    assert_eq!(fs::read(sandbox.at("/d/x.vigo-backup")).unwrap(), b"two");
    sandbox.expect("file", &params(&[("state", text("absent")), ("backup", Value::Bool(true))]), Changed);
    assert_eq!(fs::read(sandbox.at("/d/x.vigo-backup")).unwrap(), b"three");
}

#[test]
fn absent_removes_a_link_and_not_what_it_points_to() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("/d/other"), "kept").unwrap();
    symlink("other", sandbox.at(TARGET)).unwrap();
    sandbox.expect("file", &params(&[("state", text("absent"))]), Changed);
    assert_eq!(fs::read(sandbox.at("/d/other")).unwrap(), b"kept");
    fs::create_dir(sandbox.at(TARGET)).unwrap();
    sandbox.expect("file", &params(&[("state", text("absent"))]), Failed);
}

#[test]
fn unknown_accounts_are_named() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let report = sandbox.expect("file", &params(&[("owner", text("nobody-here"))]), Failed);
    assert_eq!(report.message, "there is no user `nobody-here` in /etc/passwd");
    fs::create_dir(sandbox.at("/etc")).unwrap();
    fs::write(sandbox.at("/etc/passwd"), "ada:x:1234:55::/home/ada:/bin/sh\n").unwrap();
    sandbox.expect("file", &params(&[("owner", text("ada"))]), Changed);
    assert_eq!(sandbox.at(TARGET).metadata().unwrap().uid(), 1234);
}

#[test]
fn a_disk_that_fills_up_half_way_leaves_the_old_file_and_no_rest() {
    let mut sandbox = Sandbox::new();
    let Some(_disk) = super::sandbox::Mounted::tmpfs(&sandbox.at("/d"), "size=128k") else { return };
    fs::write(sandbox.at(TARGET), "old").unwrap();
    let before = sandbox.picture().keys().cloned().collect::<Vec<_>>();
    sandbox.blob("files/big", &vec![b'z'; 1 << 20]);
    for asked in [("content", text(&"y".repeat(1 << 20))), ("source", text("files/big"))] {
        let report = sandbox.expect("file", &params(&[asked]), Blocked);
        assert!(report.message.contains("free some space"), "{}", report.message);
        assert_eq!(fs::read(sandbox.at(TARGET)).unwrap(), b"old");
        assert_eq!(sandbox.picture().keys().cloned().collect::<Vec<_>>(), before);
    }
}
