//! `backup`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, FileTimes};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::bundle::Value;
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Mounted, Params, Sandbox, fifo, foreign_name, is_root, mode, set_mode, text};
use super::suite::refused;
use crate::report::ResourceReport;

const KIND: &str = "backup";
/// A Saturday.
const DAY_1: &str = "2026-11-21T03:00:30Z";
const FIRST: &str = "2026.325.03.00";

fn params(more: &[(&'static str, Value)]) -> Params {
    let base = [("source_dir", text("/src")), ("target_path", text("/d/keep")), ("min_free_space", text("0"))];
    let base = base.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
    base.chain(more.iter().cloned()).collect()
}

/// A host with something to keep.
fn host() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.set_wall(DAY_1);
    sandbox.write("/src/a", "alpha");
    sandbox.write("/src/sub/deep/b", "beta");
    sandbox.write("/src/sub/c", "");
    symlink("../nowhere", sandbox.at("/src/link")).unwrap();
    sandbox
}

fn snapshots(sandbox: &Sandbox) -> Vec<String> {
    names(&sandbox.at("/d/keep"))
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .map(|all| all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Everything below, with what a snapshot keeps of it.
fn tree(path: &Path) -> BTreeMap<OsString, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(at) = open.pop() {
        let meta = at.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let inside = match kind {
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&at).unwrap()),
            kind if kind.is_file() => format!("{:?}", common::crypto::sha256(&[&fs::read(&at).unwrap()])),
            _ => String::new(),
        };
        let stamp = (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        all.insert(at.strip_prefix(path).unwrap().as_os_str().to_owned(), format!("{stamp:?} {inside}"));
        if kind.is_dir() {
            open.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all
}

fn make(sandbox: &Sandbox, more: &[(&'static str, Value)]) -> ResourceReport {
    sandbox.expect(KIND, &params(more), Changed)
}

#[test]
fn a_snapshot_is_whole_and_the_second_run_changes_nothing() {
    let sandbox = host();
    set_mode(&sandbox.at("/src/a"), 0o640);
    set_mode(&sandbox.at("/src/sub"), 0o2751);
    if is_root() {
        std::os::unix::fs::chown(sandbox.at("/src/sub/c"), Some(4_001), Some(4_002)).unwrap();
        std::os::unix::fs::lchown(sandbox.at("/src/link"), Some(4_001), Some(4_002)).unwrap();
    }
    let before = sandbox.picture();
    let look = sandbox.look(KIND, &params(&[]));
    assert!(look.message.contains(&format!("would create: {FIRST}")), "{}", look.message);
    assert_eq!(sandbox.picture(), before);
    let report = make(&sandbox, &[]);
    assert!(report.message.contains(&format!("created: {FIRST}; 4 files, 9 B")), "{}", report.message);
    assert_eq!(snapshots(&sandbox), [FIRST]);
    assert_eq!(tree(&sandbox.at("/src")), tree(&sandbox.at("/d/keep").join(FIRST)));
    assert_eq!(mode(&sandbox.at("/d/keep")), 0o700);
    let settled = sandbox.picture();
    assert_eq!(sandbox.expect(KIND, &params(&[]), Fine).message, "");
    assert_eq!(sandbox.picture(), settled);
}

#[test]
fn what_did_not_change_is_another_name_of_the_same_file() {
    let mut sandbox = host();
    make(&sandbox, &[]);
    sandbox.set_wall("2026-11-22T03:00:00Z");
    sandbox.write("/src/sub/c", "now longer");
    sandbox.write("/src/new", "n");
    fs::remove_file(sandbox.at("/src/a")).unwrap();
    let report = make(&sandbox, &[]);
    assert!(report.message.contains("4 files, 2 of them new or changed, 11 B"), "{}", report.message);
    let (one, two) = (sandbox.at("/d/keep").join(FIRST), sandbox.at("/d/keep/2026.326.03.00"));
    let inode = |path: &Path| path.symlink_metadata().unwrap().ino();
    assert_eq!(inode(&one.join("sub/deep/b")), inode(&two.join("sub/deep/b")));
    assert_eq!(inode(&one.join("link")), inode(&two.join("link")));
    assert_ne!(inode(&one.join("sub/c")), inode(&two.join("sub/c")));
    assert_ne!(inode(&sandbox.at("/src/sub/deep/b")), inode(&two.join("sub/deep/b")));
    assert_eq!(tree(&sandbox.at("/src")), tree(&two));
    assert!(one.join("a").exists() && !one.join("new").exists());
}

#[test]
fn every_difference_makes_a_new_copy() {
    type Change = fn(&Path);
    let cases: [(&str, Change); 5] = [
        ("content", |path| fs::write(path, "ALPHA").unwrap()),
        ("mode", |path| set_mode(path, 0o600)),
        ("time", |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::new(5, 7))).unwrap();
        }),
        ("owner", |path| {
            if is_root() {
                std::os::unix::fs::chown(path, Some(4_001), None).unwrap();
            } else {
                fs::write(path, "x").unwrap();
            }
        }),
        ("kind", |path| {
            fs::remove_file(path).unwrap();
            symlink("alpha", path).unwrap();
        }),
    ];
    for (label, change) in cases {
        let mut sandbox = host();
        make(&sandbox, &[]);
        change(&sandbox.at("/src/a"));
        sandbox.set_wall("2026-11-22T03:00:00Z");
        let report = make(&sandbox, &[]);
        assert!(report.message.contains("1 of them new"), "{label}: {}", report.message);
        assert_eq!(tree(&sandbox.at("/src")), tree(&sandbox.at("/d/keep/2026.326.03.00")), "{label}");
    }
}

#[test]
fn content_whose_time_was_put_back_is_found_and_a_mere_touch_is_not_copied() {
    let mut sandbox = host();
    make(&sandbox, &[]);
    let file = fs::File::options().write(true).open(sandbox.at("/src/a")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"gamma", 0).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    // Another name for a moment: nothing of it changed but the time that nobody can set.
    fs::hard_link(sandbox.at("/src/sub/deep/b"), sandbox.at("/src/other")).unwrap();
    fs::remove_file(sandbox.at("/src/other")).unwrap();
    sandbox.set_wall("2026-11-22T03:00:00Z");
    let report = make(&sandbox, &[]);
    assert!(report.message.contains("1 of them new or changed, 5 B"), "{}", report.message);
    assert_eq!(sandbox.read("/d/keep/2026.326.03.00/a"), "gamma");
    assert_eq!(sandbox.read(&format!("/d/keep/{FIRST}/a")), "alpha");
}

#[test]
fn hourly_and_weekly_windows_take_one_each() {
    for (schedule, same, next) in [
        ("hourly", "2026-11-21T03:59:59Z", "2026-11-21T04:00:00Z"),
        ("daily", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("weekly", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
    ] {
        let mut sandbox = host();
        let params = params(&[("schedule", text(schedule))]);
        sandbox.expect(KIND, &params, Changed);
        sandbox.set_wall(same);
        sandbox.expect(KIND, &params, Fine);
        sandbox.set_wall(next);
        sandbox.expect(KIND, &params, Changed);
        assert_eq!(snapshots(&sandbox).len(), 2);
    }
}

#[test]
fn old_snapshots_go_and_nothing_else_does() {
    let mut sandbox = host();
    let days = [("retain", text("3"))];
    for name in ["notes", "2026.001", "2026.366.00.00", ".partial-mine", "x2026.001.00.00"] {
        fs::create_dir_all(sandbox.at("/d/keep").join(name)).unwrap();
    }
    fs::write(sandbox.at("/d/keep/2020.001.00.00"), "a file of that name").unwrap();
    let others = snapshots(&sandbox);
    for day in 1..=9 {
        sandbox.set_wall(&format!("2026-03-{day:02}T01:00:00Z"));
        make(&sandbox, &days);
        sandbox.expect(KIND, &params(&days), Fine);
    }
    let left: Vec<String> = snapshots(&sandbox).into_iter().filter(|name| !others.contains(name)).collect();
    assert_eq!(left, ["2026.065.01.00", "2026.066.01.00", "2026.067.01.00", "2026.068.01.00"]);
    assert!(others.iter().all(|name| sandbox.at("/d/keep").join(name).exists()));
    // After years nothing of it is young, and the new one is the only one.
    sandbox.set_wall("2027-03-09T01:00:00Z");
    let report = make(&sandbox, &days);
    assert!(report.message.contains("4 removed"), "{}", report.message);
    // Fewer days, in a window that has one already.
    sandbox.set_wall("2027-03-10T01:00:00Z");
    make(&sandbox, &days);
    sandbox.set_wall("2027-03-10T02:00:00Z");
    sandbox.expect(KIND, &params(&[("retain", Value::Int(1))]), Changed);
}

#[test]
fn a_clock_that_jumps_neither_stops_it_nor_empties_the_series() {
    let mut sandbox = host();
    make(&sandbox, &[]);
    for (now, n) in [("1970-01-01T00:00:00Z", 2), ("2100-01-01T00:00:00Z", 3), ("2026-11-22T00:00:00Z", 4)] {
        sandbox.set_wall(now);
        make(&sandbox, &[]);
        sandbox.expect(KIND, &params(&[]), Fine);
        assert_eq!(snapshots(&sandbox).len(), n, "{now}");
    }
}

#[test]
fn patterns_leave_out_what_they_name() {
    let sandbox = host();
    sandbox.write("/src/db/vigo.db", "x");
    sandbox.write("/src/db/vigo.db-wal", "x");
    sandbox.write("/src/db/other", "x");
    sandbox.write("/src/run/socket", "x");
    sandbox.write("/src/sub/run", "x");
    sandbox.write("/src/sub/x.tmp", "x");
    make(&sandbox, &[("exclude", text("db/vigo.db*, run/, *.tmp"))]);
    let kept = tree(&sandbox.at("/d/keep").join(FIRST));
    let kept: Vec<&str> = kept.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(kept, ["", "a", "db", "db/other", "link", "sub", "sub/c", "sub/deep", "sub/deep/b", "sub/run"]);
}

#[test]
fn a_target_inside_of_the_source_does_not_copy_itself() {
    let mut sandbox = host();
    let inside = [("target_path", text("/src/sub/keep"))];
    make(&sandbox, &inside);
    sandbox.set_wall("2026-11-22T03:00:00Z");
    make(&sandbox, &inside);
    let kept = names(&sandbox.at("/src/sub/keep/2026.326.03.00/sub"));
    assert_eq!(kept, ["c", "deep"]);
    refused(&sandbox, KIND, &[(params(&[("target_path", text("/src"))]), "the same directory")]);
    sandbox.set_wall("2026-11-22T05:00:00Z");
    let own =
        [("source_dir", text(&format!("/src/sub/keep/{FIRST}/sub"))), inside[0].clone(), ("schedule", text("hourly"))];
    let report = sandbox.expect(KIND, &params(&own), Failed);
    assert!(report.message.contains("its own snapshots"), "{}", report.message);
}

#[test]
fn special_files_are_left_out_and_said() {
    let sandbox = host();
    fifo(&sandbox.at("/src/fifo"));
    let _socket = std::os::unix::net::UnixListener::bind(sandbox.at("/src/sub/socket")).unwrap();
    let report = make(&sandbox, &[]);
    assert!(report.message.contains("2 sockets, FIFOs or devices left out"), "{}", report.message);
    assert!(!sandbox.at("/d/keep").join(FIRST).join("fifo").exists());
}

#[test]
fn foreign_names_holes_and_large_files_are_kept() {
    let sandbox = host();
    fs::write(sandbox.at("/src").join(foreign_name()), "odd").unwrap();
    let sparse = fs::File::create(sandbox.at("/src/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 20 << 20).unwrap();
    fs::write(sandbox.at("/src/large"), vec![7; 20 << 20]).unwrap();
    make(&sandbox, &[]);
    let kept = sandbox.at("/d/keep").join(FIRST);
    assert_eq!(tree(&sandbox.at("/src")), tree(&kept));
    let blocks = |path: &Path| path.metadata().unwrap().blocks();
    assert!(blocks(&kept.join("sparse")) <= blocks(&sandbox.at("/src/sparse")) + 64);
}

#[test]
fn links_of_others_are_kept_and_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let sandbox = host();
    symlink(outside.path(), sandbox.at("/src/out")).unwrap();
    make(&sandbox, &[]);
    let kept = sandbox.at("/d/keep").join(FIRST).join("out");
    assert_eq!(fs::read_link(kept).unwrap(), outside.path());
}

#[test]
fn commands_run_around_it() {
    let mut sandbox = host();
    let root = sandbox.dir.path().display().to_string();
    let log = |word: &str| format!("echo {word} >> {root}/log; ls {root}/d/keep | grep -c 2026 >> {root}/log; true");
    let both = [("pre_command", text(&log("pre"))), ("post_command", text(&log("post")))];
    make(&sandbox, &both);
    sandbox.expect(KIND, &params(&both), Fine);
    assert_eq!(sandbox.read("/log"), "pre\n0\npost\n0\n");
    // Without a snapshot none of them is left behind, and the second is run only where the first did.
    sandbox.set_wall("2026-11-22T03:00:00Z");
    let failing = [("pre_command", text("echo no >&2; exit 3")), both[1].clone()];
    let report = sandbox.expect(KIND, &params(&failing), Failed);
    assert!(report.message.contains("`pre_command` exited with 3") && report.message.contains("no"));
    assert_eq!((snapshots(&sandbox), sandbox.read("/log").lines().count()), (vec![FIRST.to_string()], 6));
    let report = sandbox.expect(KIND, &params(&[both[0].clone(), ("post_command", text("exit 4"))]), Failed);
    assert!(report.message.contains("`post_command` exited with 4"), "{}", report.message);
    assert_eq!(snapshots(&sandbox), [FIRST, "2026.326.03.00"]);
    sandbox.expect(KIND, &params(&both), Fine);
}

#[test]
fn what_is_missing_or_wrong_is_named_and_leaves_nothing_behind() {
    let sandbox = host();
    refused(
        &sandbox,
        KIND,
        &[
            (params(&[("retain", text("0"))]), "`retain` must be a whole number from 1"),
            (params(&[("retain", text("many"))]), "`retain` must be a whole number"),
            (params(&[("schedule", text("monthly"))]), "`schedule` must be `hourly` or `daily` or `weekly`"),
            (params(&[("exclude", text("[a"))]), "`exclude` must be patterns"),
            (params(&[("min_free_space", text("lots"))]), "`min_free_space` must be a size"),
            (params(&[("source_dir", text("src"))]), "must be a path that starts with /"),
            (params(&[("target_pth", text("/d"))]), "did you mean `target_path`?"),
        ],
    );
    for (source, expected) in [("/none", "/none does not exist"), ("/src/a", "/src/a is not a directory")] {
        let report = sandbox.expect(KIND, &params(&[("source_dir", text(source))]), Failed);
        assert!(report.message.contains(expected), "{}", report.message);
        assert_eq!(snapshots(&sandbox), [""; 0]);
    }
}

#[test]
fn rests_of_a_killed_run_go_with_the_next() {
    let sandbox = host();
    for path in ["/d/keep/.partial-2026.300.00.00/deep/x", "/d/keep/.partial-2026.325.03.00/y"] {
        sandbox.write(path, "half");
    }
    make(&sandbox, &[]);
    assert_eq!(snapshots(&sandbox), [FIRST]);
    sandbox.write("/d/keep/.partial-2026.301.00.00/z", "half");
    let report = make(&sandbox, &[]);
    assert!(report.message.contains("what a run that was killed left"), "{}", report.message);
    assert_eq!(snapshots(&sandbox), [FIRST]);
}

#[test]
fn a_disk_without_room_blocks_and_leaves_the_old_state() {
    let mut sandbox = host();
    let report = sandbox.expect(KIND, &params(&[("min_free_space", text("900000G"))]), Blocked);
    assert!(report.message.contains("less than the") && report.message.contains("free some space"));
    assert_eq!(snapshots(&sandbox), [""; 0]);
    let Some(disk) = Mounted::tmpfs(&sandbox.at("/d"), "size=1m") else { return };
    let warn = [("cross_fs", text("warn"))];
    let report = make(&sandbox, &warn);
    assert!(report.message.contains("on another file system"), "{}", report.message);
    let before = tree(&sandbox.at("/d/keep"));
    sandbox.set_wall("2026-11-22T03:00:00Z");
    fs::write(sandbox.at("/src/large"), vec![1; 2 << 20]).unwrap();
    let report = sandbox.expect(KIND, &params(&warn), Blocked);
    assert!(report.message.contains("/src/large") && report.message.contains("free some space"), "{}", report.message);
    assert_eq!(snapshots(&sandbox), [FIRST]);
    assert_eq!(tree(&sandbox.at("/d/keep").join(FIRST)), tree(&sandbox.at("/d/keep").join(FIRST)));
    assert_eq!(before.len(), tree(&sandbox.at("/d/keep")).len());
    disk.make_read_only();
    let report = sandbox.expect(KIND, &params(&warn), Blocked);
    assert!(report.message.contains("mount it writable"), "{}", report.message);
}

#[test]
fn another_file_system_is_refused_copied_or_said() {
    let mut sandbox = host();
    let Some(_disk) = Mounted::tmpfs(&sandbox.at("/d"), "size=8m") else { return };
    let report = sandbox.expect(KIND, &params(&[]), Failed);
    assert!(report.message.contains("cross_fs: warn"), "{}", report.message);
    let inode = |name: &str| sandbox.at("/d/keep").join(name).join("a").metadata().unwrap().ino();
    make(&sandbox, &[("cross_fs", text("warn"))]);
    for (day, word, shared) in [(22, "warn", true), (23, "copy", false)] {
        let clock = common::sys::TestClock::parse(&format!("wall=2026-11-{day}T03:00:00Z")).unwrap();
        let input = crate::exec::RunInput {
            clock: common::sys::Clock::test(clock),
            ..sandbox.input(vec![super::sandbox::resource("r", KIND, &params(&[("cross_fs", text(word))]))], false)
        };
        assert_eq!(crate::exec::run(&input).resources[0].outcome, Changed);
        assert_eq!(inode(FIRST) == inode(&format!("2026.{}.03.00", day + 304)), shared, "{word}");
    }
    sandbox.set_wall("2026-11-24T03:00:00Z");
    // What is mounted below the source is not part of it.
    let Some(_other) = Mounted::tmpfs(&sandbox.at("/src/mounted"), "size=1m") else { return };
    sandbox.write("/src/mounted/x", "x");
    let report = make(&sandbox, &[("cross_fs", text("warn"))]);
    assert!(report.message.contains("1 directories with other file systems left out"), "{}", report.message);
    assert_eq!(names(&sandbox.at("/d/keep/2026.328.03.00/mounted")), [""; 0]);
}

#[test]
fn the_agent_itself_is_spared_and_a_writer_keeps_others_out() {
    let mut sandbox = host();
    sandbox.protected = vec![sandbox.at("/d")];
    let report = sandbox.expect(KIND, &params(&[]), Failed);
    assert!(report.message.contains("allow_self"), "{}", report.message);
    sandbox.protected = Vec::new();
    make(&sandbox, &[]);
    sandbox.set_wall("2026-11-22T03:00:00Z");
    let dir = fs::File::open(sandbox.at("/d/keep")).unwrap();
    let lock = nix::fcntl::Flock::lock(dir, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let report = sandbox.expect(KIND, &params(&[]), Blocked);
    assert!(report.message.contains("another run makes a snapshot"), "{}", report.message);
    drop(lock);
    make(&sandbox, &[]);
}

#[test]
fn a_notification_takes_one_at_once() {
    let mut sandbox = host();
    make(&sandbox, &[]);
    sandbox.set_wall("2026-11-21T04:00:00Z");
    let touch = super::sandbox::resource("t", "exec", &vec![("command", text("true"))]);
    let touch = common::bundle::Resource { notify: vec![1], ..touch };
    let report = sandbox.run_all(vec![touch, super::sandbox::resource("r", KIND, &params(&[]))]);
    assert_eq!(report.resources[1].outcome, Changed, "{:?}", report.resources);
    assert_eq!(snapshots(&sandbox), [FIRST, "2026.325.04.00"]);
}

#[test]
fn a_run_that_has_to_stop_leaves_no_name() {
    let sandbox = host();
    for n in 0..200 {
        sandbox.write(&format!("/src/many/{n}"), "x");
    }
    let slow = common::bundle::Resource { timeout_ms: 1, ..super::sandbox::resource("r", KIND, &params(&[])) };
    let report = sandbox.run_all(vec![slow]);
    assert_eq!(report.resources[0].outcome, Failed);
    assert!(report.resources[0].message.contains("timeout"), "{}", report.resources[0].message);
    assert_eq!(snapshots(&sandbox), [""; 0]);
}

#[test]
fn two_resources_cannot_share_a_target() {
    let sandbox = host();
    let one = super::sandbox::resource("one", KIND, &params(&[]));
    let two = super::sandbox::resource("two", KIND, &params(&[("source_dir", text("/src/sub"))]));
    let report = sandbox.run_all(vec![one, two]);
    assert_eq!([report.resources[0].outcome, report.resources[1].outcome], [Changed, Failed]);
    assert!(report.resources[1].message.contains("the snapshots of `one`"), "{}", report.resources[1].message);
}

#[test]
fn a_file_with_as_many_names_as_it_can_have_is_copied_anew() {
    let mut sandbox = host();
    make(&sandbox, &[]);
    let (kept, names) = (sandbox.at("/d/keep").join(FIRST).join("a"), sandbox.at("/names"));
    fs::create_dir(&names).unwrap();
    // 65,000 on ext4; a file system that allows more is not tried.
    let full = (0..66_000).any(|n| fs::hard_link(&kept, names.join(n.to_string())).is_err());
    if !full {
        eprintln!("skipped: a file may have more names here");
        return;
    }
    sandbox.set_wall("2026-11-22T03:00:00Z");
    let report = make(&sandbox, &[]);
    assert!(report.message.contains("1 of them new or changed"), "{}", report.message);
    assert_eq!(tree(&sandbox.at("/src")), tree(&sandbox.at("/d/keep/2026.326.03.00")));
}
