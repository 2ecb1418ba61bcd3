//! Programs that behave, and many that do not.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::*;

struct Place {
    dir: tempfile::TempDir,
    programs: Programs,
    warnings: Vec<String>,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let programs = Programs::new(dir.path(), &Clock::system());
    Place { dir, programs, warnings: Vec::new() }
}

impl Place {
    fn write(&self, name: &str, script: &str, mode: u32) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn gather(&mut self, which: Which) -> BTreeMap<String, Value> {
        self.warnings.clear();
        self.programs.gather(which, &StopFlag::default(), &mut self.warnings);
        self.programs.trees().map(|tree| (tree.name, (*tree.value).clone())).collect()
    }

    /// The one warning, without the directory.
    fn warning(&self) -> String {
        assert_eq!(self.warnings.len(), 1, "{:?}", self.warnings);
        self.warnings[0].replace(&format!("{}/", self.dir.path().display()), "")
    }
}

/// The warning about one bad program, which leaves the good one alone.
fn refusal(name: &str, script: &str, mode: u32) -> String {
    let mut place = place();
    place.write("rack.sh", "echo '{\"row\": 7}'", 0o755);
    place.write(name, script, mode);
    assert_eq!(place.gather(Which::All), BTreeMap::from([("rack".into(), json!({"row": 7}))]));
    place.warning()
}

#[test]
fn what_programs_print_are_trees() {
    let mut place = place();
    place.write("rack.sh", "echo '{\"row\": 7, \"site\": \"höchst\"}'", 0o755);
    place.write("queue.volatile.sh", "echo \"[$PPID, \\\"$VIGO_TRAITS\\\", \\\"$(pwd)\\\"]\"", 0o700);
    place.write(".rack.sh.swp", "echo 1", 0o755);
    let trees = place.gather(Which::All);
    assert!(place.warnings.is_empty(), "{:?}", place.warnings);
    assert_eq!(trees["rack"], json!({"row": 7, "site": "höchst"}));
    assert_eq!(trees["queue"], json!([std::process::id(), "1", "/"]));
    let volatile: Vec<bool> = place.programs.trees().map(|tree| tree.volatile).collect();
    assert_eq!(volatile, [true, false]);
}

#[test]
fn only_volatile_programs_run_every_time() {
    let mut place = place();
    let count = |name: &str| format!("echo x >> {0}; wc -l < {0}", place.dir.path().join(name).display());
    let (stable, volatile) = (count(".a"), count(".b"));
    place.write("a.sh", &stable, 0o755);
    place.write("b.volatile.sh", &volatile, 0o755);
    for (which, a, b) in [(Which::All, 1, 1), (Which::Volatile, 1, 2), (Which::Volatile, 1, 3), (Which::All, 2, 4)] {
        assert_eq!(place.gather(which), BTreeMap::from([("a".into(), json!(a)), ("b".into(), json!(b))]));
    }
    let tree = |place: &Place| place.programs.trees().find(|tree| tree.name == "a").unwrap().value;
    let before = tree(&place);
    place.gather(Which::Volatile);
    assert!(Arc::ptr_eq(&before, &tree(&place)), "a tree that was not gathered is not made anew");
    std::fs::remove_file(place.dir.path().join("a.sh")).unwrap();
    assert_eq!(place.gather(Which::All).keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn programs_that_others_may_write_to_are_not_run() {
    let mark = "touch /tmp/never; echo 1";
    assert_eq!(
        refusal("bad", mark, 0o775),
        "trait program bad may be written by group or others: `chmod go-w` it; it is not run"
    );
    assert!(refusal("bad", mark, 0o757).contains("chmod go-w"));
    let mut place = place();
    place.write("rack", "echo 1", 0o755);
    std::fs::set_permissions(place.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(place.gather(Which::All).len(), 0);
    assert!(
        place.warning().ends_with("may be written by group or others: `chmod go-w` it; none of its programs is run")
    );
    if nix::unistd::geteuid().is_root() {
        std::fs::set_permissions(place.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(place.dir.path().join("rack"), Some(1234), None).unwrap();
        assert_eq!(place.gather(Which::All).len(), 0);
        assert_eq!(
            place.warning(),
            "trait program rack belongs to the user with the number 1234: `chown root` it; it is not run"
        );
    }
}

#[test]
fn files_that_are_no_programs_are_named() {
    assert_eq!(
        refusal("README", "", 0o644),
        "trait program README names no trait: small letters, digits and `_` up to the first dot, a letter first; rename it"
    );
    assert_eq!(refusal("bad", "echo 1", 0o644), "trait program bad is not executable: `chmod +x` it, or remove it");
    assert_eq!(
        refusal("os.sh", "echo 1", 0o755),
        "trait program os.sh is not run: `os` is a tree of the agent itself, `os`; rename it"
    );
    assert!(refusal("pakages", "echo 1", 0o755).contains("`pakages` is only a letter away from a tree of the agent"));
    assert!(refusal("rack.zz", "echo 1", 0o755).contains("rack.sh gives `rack` already; rename one"));
    let mut place = place();
    symlink("/bin/true", place.dir.path().join("link")).unwrap();
    assert_eq!(place.gather(Which::All).len(), 0);
    assert_eq!(place.warning(), "trait program link is no file: links and directories are not followed");
}

#[test]
fn programs_that_fail_are_warnings_with_their_names() {
    let document = include_str!("../../../../docs/BAD_INPUT.md");
    for (script, expected) in [
        ("echo no >&2; exit 3", "ended with 3: no"),
        ("kill -9 $$", "was killed by signal 9"),
        ("echo nonsense", "printed no JSON: expected ident at line 1 column 2"),
        ("echo '{\"a\": 1} x'", "printed no JSON: trailing characters at line 1 column 10"),
        ("true", "printed no JSON: EOF while parsing a value at line 1 column 0"),
        ("printf '\"\\377\"'", "printed what is not UTF-8"),
        ("printf '[%.0s' $(seq 100); printf ']%.0s' $(seq 100)", "printed what is nested more than 16 deep"),
        ("printf '[%.0s' $(seq 5000)", "printed no JSON: recursion limit exceeded at line 1 column 128"),
        ("echo \"[$(seq -s, 20000 | head -c 60000)0]\"", "printed more than 10000 values"),
        ("echo \"{\\\"$(printf x%.0s $(seq 300))\\\": 1}\"", "printed a key that is empty or over 256 bytes"),
        ("head -c 70000 /dev/zero | tr '\\0' ' '; echo 1", "printed more than 64 KiB"),
    ] {
        assert_eq!(refusal("bad.sh", script, 0o755), format!("trait program bad.sh {expected}"), "{script}");
        assert!(document.contains(&format!("| trait program … {expected} |")), "not in docs/BAD_INPUT.md: {expected}");
    }
}

#[test]
fn a_file_that_the_kernel_does_not_run_is_a_warning() {
    let mut place = place();
    let path = place.dir.path().join("bad");
    std::fs::write(&path, "#!/nonexistent/interpreter\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(place.gather(Which::All).len(), 0);
    assert!(place.warning().starts_with("trait program bad cannot be run: "), "{}", place.warning());
}

#[test]
fn one_that_hangs_or_prints_a_gigabyte_is_ended_and_keeps_its_last_tree() {
    let mut place = place();
    place.write("slow.volatile.sh", "echo 7", 0o755);
    place.write("vast.sh", "exec head -c 1000000000 /dev/zero", 0o755);
    assert_eq!(place.gather(Which::All), BTreeMap::from([("slow".into(), json!(7))]));
    assert_eq!(place.warning(), "trait program vast.sh printed more than 64 KiB");
    std::fs::remove_file(place.dir.path().join("vast.sh")).unwrap();
    place.write("slow.volatile.sh", "trap '' TERM; while :; do sleep 1; done", 0o755);
    place.programs.timeout_ms = 50;
    assert_eq!(place.gather(Which::Volatile), BTreeMap::from([("slow".into(), json!(7))]));
    assert_eq!(place.warnings.len(), 1, "{:?}", place.warnings);
    assert!(place.warning().ends_with("slow.volatile.sh took more than 50ms and was ended"));
    // It holds up no further run until it is the turn of the stable ones.
    place.gather(Which::Volatile);
    assert!(place.warnings.is_empty(), "{:?}", place.warnings);
}

#[test]
fn all_programs_together_are_bounded() {
    let mut place = place();
    for n in 0..6 {
        place.write(&format!("p{n}"), "echo \"\\\"$(head -c 60000 /dev/zero | tr '\\0' x)\\\"\"", 0o755);
    }
    assert_eq!(place.gather(Which::All).len(), 4);
    assert_eq!(place.warnings.len(), 2);
    assert!(place.warnings[0].ends_with("p4 is left out: all together print more than 256 KiB; print less"));
    // The bound does not move from one gathering to the next.
    assert_eq!(place.gather(Which::All).len(), 4);
}

#[test]
fn no_directory_is_no_programs() {
    let mut programs = Programs::new(Path::new("/nonexistent"), &Clock::system());
    let mut warnings = Vec::new();
    programs.gather(Which::All, &StopFlag::default(), &mut warnings);
    assert!(warnings.is_empty() && programs.trees().next().is_none());
}
