//! The cases that every executor of a path has to pass. The target is always `/d/x`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Mounted, Params, Sandbox, fifo, foreign_name, is_root, text};

/// A state of the target, made by hand.
pub type Arrange = fn(&Path);

/// What the suite has to know about a type.
pub struct Subject {
    pub kind: &'static str,
    /// Without `target_path`.
    pub params: Params,
    /// Whether `/d/x` is as wanted.
    pub holds: fn(&Path) -> bool,
    /// States that differ in one respect each; the type puts them right.
    pub wrong: Vec<(&'static str, Arrange)>,
    /// States that the type must leave as they are, and a word of its reason.
    pub refused: Vec<(&'static str, Arrange, &'static str)>,
    /// What undoes it, beyond `state: absent`.
    pub absent: Params,
}

impl Subject {
    fn with_target(&self, path: &str) -> Params {
        [("target_path", text(path))].into_iter().chain(self.params.iter().cloned()).collect()
    }

    fn absent(&self) -> Params {
        let base = [("target_path", text("/d/x")), ("state", text("absent"))];
        base.into_iter().chain(self.absent.iter().cloned()).collect()
    }
}

/// All of them.
pub const CASES: [fn(&Subject); 14] = [
    converges_from_absent_in_one_run_and_then_changes_nothing,
    dry_runs_write_nothing,
    every_difference_is_detected_and_removed,
    what_is_in_the_way_is_refused_and_left_as_it_is,
    absent_removes_and_then_changes_nothing,
    a_missing_parent_is_named,
    parents_that_are_links_stay_below_the_root,
    links_of_others_and_loops_are_refused,
    the_agent_itself_is_spared,
    bad_parameters_are_named,
    foreign_names_beside_it_do_not_matter,
    a_read_only_disk_blocks_and_changes_nothing,
    a_full_disk_blocks_and_leaves_the_old_state,
    rests_of_a_killed_agent_do_not_matter,
];

/// Runs all of them.
pub fn check(subject: &Subject) {
    check_all_but_default(subject);
    let report = Sandbox::new().expect(subject.kind, &subject.params, Failed);
    assert!(report.message.contains("needs the parameter `target_path`"), "{}", report.message);
}

/// The same for a type that has a target where none is named.
pub fn check_all_but_default(subject: &Subject) {
    CASES.iter().for_each(|case| case(subject));
}

fn converges_from_absent_in_one_run_and_then_changes_nothing(subject: &Subject) {
    let sandbox = Sandbox::new();
    let params = subject.with_target("/d/x");
    let report = sandbox.expect(subject.kind, &params, Changed);
    assert!((subject.holds)(&sandbox.at("/d/x")), "{}", report.message);
    assert!(report.message.starts_with("created"), "{}", report.message);
    let before = sandbox.picture();
    sandbox.expect(subject.kind, &params, Fine);
    assert_eq!(sandbox.picture(), before);
    assert_eq!(fs::read_dir(sandbox.at("/d")).unwrap().count(), 1, "something was left behind");
}

fn dry_runs_write_nothing(subject: &Subject) {
    let params = subject.with_target("/d/x");
    let mut states: Vec<(&str, Arrange)> = vec![("absent", |_| {})];
    states.extend(subject.wrong.iter().copied());
    for (label, arrange) in states {
        let sandbox = Sandbox::new();
        arrange(&sandbox.at("/d/x"));
        let before = sandbox.picture();
        let report = sandbox.look(subject.kind, &params);
        assert_eq!(report.outcome, Changed, "{label}: {}", report.message);
        assert!(report.message.starts_with("would "), "{label}: {}", report.message);
        assert_eq!(sandbox.picture(), before, "{label}");
    }
    let sandbox = Sandbox::new();
    sandbox.expect(subject.kind, &params, Changed);
    assert_eq!(sandbox.look(subject.kind, &params).outcome, Fine);
    let before = sandbox.picture();
    assert_eq!(sandbox.look(subject.kind, &subject.absent()).outcome, Changed);
    assert_eq!(sandbox.picture(), before);
}

fn every_difference_is_detected_and_removed(subject: &Subject) {
    let params = subject.with_target("/d/x");
    for (label, arrange) in &subject.wrong {
        let sandbox = Sandbox::new();
        arrange(&sandbox.at("/d/x"));
        let report = sandbox.apply(subject.kind, &params);
        assert_eq!(report.outcome, Changed, "{label}: {}", report.message);
        assert!((subject.holds)(&sandbox.at("/d/x")), "{label}: {}", report.message);
        assert_eq!(sandbox.apply(subject.kind, &params).outcome, Fine, "{label}");
    }
}

fn what_is_in_the_way_is_refused_and_left_as_it_is(subject: &Subject) {
    let params = subject.with_target("/d/x");
    let common: [(&str, Arrange, &str); 1] = [("fifo", fifo, "FIFO")];
    for (label, arrange, reason) in common.iter().chain(&subject.refused) {
        let sandbox = Sandbox::new();
        arrange(&sandbox.at("/d/x"));
        let before = sandbox.picture();
        let report = sandbox.apply(subject.kind, &params);
        assert_eq!(report.outcome, Failed, "{label}: {}", report.message);
        assert!(report.message.contains(reason), "{label}: {}", report.message);
        assert_eq!(sandbox.picture(), before, "{label}");
    }
}

fn absent_removes_and_then_changes_nothing(subject: &Subject) {
    let sandbox = Sandbox::new();
    sandbox.expect(subject.kind, &subject.absent(), Fine);
    sandbox.expect(subject.kind, &subject.with_target("/d/x"), Changed);
    sandbox.expect(subject.kind, &subject.absent(), Changed);
    sandbox.expect(subject.kind, &subject.absent(), Fine);
    let no_parent = subject.absent().into_iter().map(|(name, value)| match name {
        "target_path" => (name, text("/none/x")),
        _ => (name, value),
    });
    sandbox.expect(subject.kind, &no_parent.collect(), Fine);
}

fn a_missing_parent_is_named(subject: &Subject) {
    let sandbox = Sandbox::new();
    let before = sandbox.picture();
    let report = sandbox.expect(subject.kind, &subject.with_target("/d/none/x"), Failed);
    assert!(report.message.contains("/d/none does not exist"), "{}", report.message);
    fs::write(sandbox.at("/file"), "").unwrap();
    let report = sandbox.expect(subject.kind, &subject.with_target("/file/x"), Failed);
    assert!(report.message.contains("/file is not a directory"), "{}", report.message);
    fs::remove_file(sandbox.at("/file")).unwrap();
    assert_eq!(before.keys().collect::<Vec<_>>(), sandbox.picture().keys().collect::<Vec<_>>());
}

fn parents_that_are_links_stay_below_the_root(subject: &Subject) {
    let outside = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new();
    symlink(outside.path(), sandbox.at("/absolute")).unwrap();
    symlink("../../../../../../../..".to_string() + outside.path().to_str().unwrap(), sandbox.at("/d/climbing"))
        .unwrap();
    for path in ["/absolute/x", "/d/climbing/x"] {
        let report = sandbox.expect(subject.kind, &subject.with_target(path), Failed);
        assert!(report.message.contains("does not exist"), "{}", report.message);
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    symlink("/d", sandbox.at("/alias")).unwrap();
    sandbox.expect(subject.kind, &subject.with_target("/alias/x"), Changed);
    assert!((subject.holds)(&sandbox.at("/d/x")));
}

fn links_of_others_and_loops_are_refused(subject: &Subject) {
    let sandbox = Sandbox::new();
    symlink("b", sandbox.at("/a")).unwrap();
    symlink("a", sandbox.at("/b")).unwrap();
    let report = sandbox.expect(subject.kind, &subject.with_target("/a/x"), Failed);
    assert!(report.message.contains("loop"), "{}", report.message);
    if is_root() {
        symlink("d", sandbox.at("/theirs")).unwrap();
        std::os::unix::fs::lchown(sandbox.at("/theirs"), Some(65_534), Some(65_534)).unwrap();
        let report = sandbox.expect(subject.kind, &subject.with_target("/theirs/x"), Failed);
        assert!(report.message.contains("symbolic link of user 65534"), "{}", report.message);
        assert_eq!(fs::read_dir(sandbox.at("/d")).unwrap().count(), 0);
    }
}

fn the_agent_itself_is_spared(subject: &Subject) {
    let mut sandbox = Sandbox::new();
    symlink("/d", sandbox.at("/alias")).unwrap();
    for protected in ["/d/x", "/d"] {
        sandbox.protected = vec![sandbox.at(protected)];
        for path in ["/d/x", "/d/../d/x", "/alias/x"].into_iter().filter(|path| !path.contains("..")) {
            let report = sandbox.expect(subject.kind, &subject.with_target(path), Failed);
            assert!(report.message.contains("allow_self"), "{}", report.message);
            assert!(!sandbox.at("/d/x").exists());
        }
    }
    sandbox.allow_self = true;
    sandbox.expect(subject.kind, &subject.with_target("/d/x"), Changed);
    sandbox.allow_self = false;
    sandbox.expect(subject.kind, &subject.with_target("/d/x"), Fine);
    let report = sandbox.expect(subject.kind, &subject.absent(), Failed);
    assert!(report.message.contains("allow_self"), "{}", report.message);
}

fn bad_parameters_are_named(subject: &Subject) {
    let sandbox = Sandbox::new();
    for (name, value, expected) in [
        ("target_paht", text("/d/x"), "did you mean `target_path`?"),
        ("state", text("gone"), "`state` must be `present` or `absent`"),
        ("target_path", text("d/x"), "`target_path` must be a path that starts with /"),
        ("target_path", text("/d/../x"), "`target_path` must be a path"),
    ] {
        let mut params: Params = subject.with_target("/d/x").into_iter().filter(|(known, _)| *known != name).collect();
        params.push((name, value));
        let report = sandbox.expect(subject.kind, &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    assert_eq!(fs::read_dir(sandbox.at("/d")).unwrap().count(), 0);
}

fn foreign_names_beside_it_do_not_matter(subject: &Subject) {
    let sandbox = Sandbox::new();
    let foreign = sandbox.at("/d").join(foreign_name());
    fs::write(&foreign, "x").unwrap();
    sandbox.expect(subject.kind, &subject.with_target("/d/x"), Changed);
    sandbox.expect(subject.kind, &subject.with_target("/d/x"), Fine);
    assert_eq!(fs::read(&foreign).unwrap(), b"x");
    symlink(&foreign, sandbox.at("/odd")).unwrap();
    let report = sandbox.expect(subject.kind, &subject.with_target("/odd/x"), Failed);
    assert!(report.message.contains("/odd"), "{}", report.message);
}

fn a_read_only_disk_blocks_and_changes_nothing(subject: &Subject) {
    let sandbox = Sandbox::new();
    let Some(disk) = Mounted::tmpfs(&sandbox.at("/d"), "size=1m") else { return };
    disk.make_read_only();
    let report = sandbox.expect(subject.kind, &subject.with_target("/d/x"), Blocked);
    assert!(report.message.contains("mount it writable"), "{}", report.message);
    assert_eq!(fs::read_dir(sandbox.at("/d")).unwrap().count(), 0);
}

fn a_full_disk_blocks_and_leaves_the_old_state(subject: &Subject) {
    let sandbox = Sandbox::new();
    // One inode for the directory, one for what is there: nothing can be made.
    for (label, arrange) in &subject.wrong {
        let Some(_disk) = Mounted::tmpfs(&sandbox.at("/d"), "size=1m,nr_inodes=2") else { return };
        arrange(&sandbox.at("/d/x"));
        let before = sandbox.picture();
        let report = sandbox.apply(subject.kind, &subject.with_target("/d/x"));
        // What is only an attribute needs no inode.
        assert!(matches!(report.outcome, Blocked | Changed), "{label}: {}", report.message);
        if report.outcome == Blocked {
            assert!(report.message.contains("free some space"), "{label}: {}", report.message);
            assert_eq!(sandbox.picture(), before, "{label}");
        }
    }
    let Some(_disk) = Mounted::tmpfs(&sandbox.at("/d"), "size=1m,nr_inodes=1") else { return };
    sandbox.expect(subject.kind, &subject.with_target("/d/x"), Blocked);
}

fn rests_of_a_killed_agent_do_not_matter(subject: &Subject) {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("/d").join(crate::sys::replace::temporary_name("x")), "rest").unwrap();
    sandbox.expect(subject.kind, &subject.with_target("/d/x"), Changed);
    assert!((subject.holds)(&sandbox.at("/d/x")));
}

/// Dry run, run, run again: what is said, and that nothing is written when it should not be.
pub fn settles(sandbox: &Sandbox, kind: &str, params: &Params, words: &str) {
    let before = sandbox.picture();
    let report = sandbox.look(kind, params);
    assert!(report.message.starts_with("would ") && report.message.contains(words), "{}", report.message);
    assert_eq!(before.keys().collect::<Vec<_>>(), sandbox.picture().keys().collect::<Vec<_>>());
    sandbox.expect(kind, params, Changed);
    let report = sandbox.expect(kind, params, Fine);
    assert_eq!(report.message, "");
    let settled = sandbox.picture();
    sandbox.expect(kind, params, Fine);
    let own = |picture: &std::collections::BTreeMap<std::path::PathBuf, String>| {
        picture
            .iter()
            .filter(|(path, _)| !path.to_string_lossy().contains("/tools"))
            .map(|(_, text)| text.clone())
            .collect::<Vec<_>>()
    };
    assert!(own(&sandbox.picture()) == own(&settled), "something was written that had settled");
}

/// Each is refused with these words, and nothing is written.
pub fn refused(sandbox: &Sandbox, kind: &str, cases: &[(Params, &str)]) {
    let before = sandbox.picture();
    for (params, expected) in cases {
        let report = sandbox.expect(kind, params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    assert_eq!(sandbox.picture(), before);
}
