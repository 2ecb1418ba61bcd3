//! The cases that every executor which keeps a file in a place of its own has to pass: whatever a host has done to that file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Mounted, Params, Sandbox, fifo, text};

/// What the cases have to know about a type.
pub struct Placed {
    pub kind: &'static str,
    /// A host on which nothing was done yet.
    pub host: fn() -> Sandbox,
    pub params: Params,
    /// What undoes it, where anything does.
    pub absent: Option<Params>,
    /// The file that it keeps.
    pub file: &'static str,
    /// A content that is not as wanted.
    pub stale: &'static str,
    /// Whether it makes the file where there is none.
    pub makes: bool,
    /// Whether the file is as wanted.
    pub holds: fn(&Sandbox) -> bool,
}

/// All of them.
pub const CASES: [fn(&Placed); 17] = [
    comes_in_one_run_and_then_nothing_changes,
    a_dry_run_writes_nothing,
    a_file_that_somebody_removed_comes_back,
    what_somebody_else_wrote_is_put_right,
    an_empty_file_is_put_right,
    bytes_that_are_no_text_are_put_right_or_refused,
    a_link_in_its_place_is_not_followed,
    a_link_that_goes_round_in_circles_does_not_hang,
    a_directory_in_its_place_is_refused_and_stays,
    a_fifo_in_its_place_does_not_hang,
    a_huge_sparse_file_in_its_place_is_not_read,
    a_read_only_disk_blocks_and_changes_nothing,
    a_full_disk_blocks_and_leaves_the_old_state,
    the_agent_itself_is_spared,
    rests_of_a_killed_agent_do_not_matter,
    a_link_that_comes_and_goes_meanwhile_leads_nowhere,
    absent_removes_it_once_and_a_misspelt_parameter_is_named,
];

/// Runs all of them.
pub fn check(placed: &Placed) {
    CASES.iter().for_each(|case| case(placed));
}

impl Placed {
    fn stale(&self) -> Sandbox {
        let sandbox = (self.host)();
        sandbox.write(self.file, self.stale);
        sandbox
    }

    /// Whatever was in the way: put right, or refused with the path and left.
    fn settles_or_refuses(&self, sandbox: &Sandbox, label: &str) {
        let before = sandbox.at(self.file).symlink_metadata().unwrap();
        let report = sandbox.apply(self.kind, &self.params);
        let name = self.file.rsplit('/').next().unwrap();
        match report.outcome {
            Changed | Fine => {
                assert!((self.holds)(sandbox), "{} {label}: {}", self.kind, report.message);
                sandbox.expect(self.kind, &self.params, Fine);
            }
            _ => {
                assert!(report.message.contains(name), "{} {label}: {}", self.kind, report.message);
                let after = sandbox.at(self.file).symlink_metadata().unwrap();
                assert_eq!((before.file_type(), before.len()), (after.file_type(), after.len()), "{label}");
            }
        }
    }
}

fn comes_in_one_run_and_then_nothing_changes(placed: &Placed) {
    let sandbox = if placed.makes { (placed.host)() } else { placed.stale() };
    sandbox.expect(placed.kind, &placed.params, Changed);
    assert!((placed.holds)(&sandbox), "{}: {}", placed.kind, placed.file);
    let settled = sandbox.picture();
    sandbox.expect(placed.kind, &placed.params, Fine);
    let own = |path: &Path| !path.starts_with(sandbox.at("/tools"));
    let changed: Vec<_> =
        sandbox.picture().into_iter().filter(|(path, it)| own(path) && settled.get(path) != Some(it)).collect();
    assert!(changed.is_empty(), "{}: {changed:?}", placed.kind);
}

fn a_dry_run_writes_nothing(placed: &Placed) {
    let sandbox = placed.stale();
    let before = sandbox.picture();
    let report = sandbox.look(placed.kind, &placed.params);
    assert_eq!(report.outcome, Changed, "{}", report.message);
    assert!(report.message.starts_with("would "), "{}", report.message);
    let own = |path: &Path| !path.starts_with(sandbox.at("/tools"));
    assert!(sandbox.picture().iter().all(|(path, it)| !own(path) || before.get(path) == Some(it)), "{}", placed.kind);
}

fn a_file_that_somebody_removed_comes_back(placed: &Placed) {
    let sandbox = placed.stale();
    sandbox.expect(placed.kind, &placed.params, Changed);
    fs::remove_file(sandbox.at(placed.file)).unwrap();
    let report = sandbox.expect(placed.kind, &placed.params, if placed.makes { Changed } else { Failed });
    assert_eq!((placed.holds)(&sandbox), placed.makes, "{}: {}", placed.kind, report.message);
}

fn what_somebody_else_wrote_is_put_right(placed: &Placed) {
    let sandbox = placed.stale();
    sandbox.expect(placed.kind, &placed.params, Changed);
    fs::remove_file(sandbox.at(placed.file)).unwrap();
    sandbox.write(placed.file, placed.stale);
    sandbox.expect(placed.kind, &placed.params, Changed);
    assert!((placed.holds)(&sandbox), "{}", placed.kind);
    sandbox.expect(placed.kind, &placed.params, Fine);
}

fn an_empty_file_is_put_right(placed: &Placed) {
    let sandbox = placed.stale();
    sandbox.write(placed.file, "");
    if placed.makes {
        sandbox.expect(placed.kind, &placed.params, Changed);
        assert!((placed.holds)(&sandbox), "{}", placed.kind);
    } else {
        sandbox.apply(placed.kind, &placed.params);
    }
}

fn bytes_that_are_no_text_are_put_right_or_refused(placed: &Placed) {
    for bytes in [&b"\xff\xfe\n"[..], b"\0\0\0", b"\xc3", b"\r\n\r\n", b"\xef\xbb\xbf# with a mark\n"] {
        let sandbox = placed.stale();
        fs::write(sandbox.at(placed.file), bytes).unwrap();
        if placed.makes {
            placed.settles_or_refuses(&sandbox, &format!("{bytes:?}"));
        } else {
            sandbox.apply(placed.kind, &placed.params);
        }
    }
}

fn a_link_in_its_place_is_not_followed(placed: &Placed) {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, placed.stale).unwrap();
    for inside in [false, true] {
        let sandbox = placed.stale();
        fs::remove_file(sandbox.at(placed.file)).unwrap();
        sandbox.write("/d/victim", placed.stale);
        let to = if inside { Path::new("/d/victim") } else { victim.as_path() };
        symlink(to, sandbox.at(placed.file)).unwrap();
        placed.settles_or_refuses(&sandbox, "a link");
        assert_eq!(sandbox.read("/d/victim"), placed.stale, "{}", placed.kind);
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), placed.stale, "{}", placed.kind);
}

fn a_link_that_goes_round_in_circles_does_not_hang(placed: &Placed) {
    let sandbox = placed.stale();
    fs::remove_file(sandbox.at(placed.file)).unwrap();
    symlink(sandbox.at(placed.file).file_name().unwrap(), sandbox.at(placed.file)).unwrap();
    placed.settles_or_refuses(&sandbox, "a loop");
}

fn a_directory_in_its_place_is_refused_and_stays(placed: &Placed) {
    let sandbox = placed.stale();
    fs::remove_file(sandbox.at(placed.file)).unwrap();
    sandbox.write(&format!("{}/precious", placed.file), "x");
    let report = sandbox.expect(placed.kind, &placed.params, Failed);
    assert!(report.message.contains("a directory"), "{}: {}", placed.kind, report.message);
    assert_eq!(sandbox.read(&format!("{}/precious", placed.file)), "x");
}

fn a_fifo_in_its_place_does_not_hang(placed: &Placed) {
    let sandbox = placed.stale();
    fs::remove_file(sandbox.at(placed.file)).unwrap();
    fifo(&sandbox.at(placed.file));
    placed.settles_or_refuses(&sandbox, "a FIFO");
}

fn a_huge_sparse_file_in_its_place_is_not_read(placed: &Placed) {
    let sandbox = placed.stale();
    fs::File::create(sandbox.at(placed.file)).unwrap().set_len(1 << 30).unwrap();
    placed.settles_or_refuses(&sandbox, "1 GiB of nothing");
}

/// A disk of its own below the file, with the stale content on it.
fn on_disk(placed: &Placed, options: &str) -> Option<(Sandbox, Mounted)> {
    let sandbox = (placed.host)();
    let parent = sandbox.at(placed.file).parent().unwrap().to_path_buf();
    let disk = Mounted::tmpfs(&parent, options)?;
    fs::write(sandbox.at(placed.file), placed.stale).unwrap();
    Some((sandbox, disk))
}

fn a_read_only_disk_blocks_and_changes_nothing(placed: &Placed) {
    let Some((sandbox, disk)) = on_disk(placed, "size=1m") else { return };
    disk.make_read_only();
    let report = sandbox.expect(placed.kind, &placed.params, Blocked);
    assert!(report.message.contains("mount it writable"), "{}: {}", placed.kind, report.message);
    assert_eq!(sandbox.read(placed.file), placed.stale);
}

fn a_full_disk_blocks_and_leaves_the_old_state(placed: &Placed) {
    // One inode for the directory, one for the file: none for a new one.
    let Some((sandbox, _disk)) = on_disk(placed, "size=1m,nr_inodes=2") else { return };
    let report = sandbox.expect(placed.kind, &placed.params, Blocked);
    assert!(report.message.contains("free some space"), "{}: {}", placed.kind, report.message);
    assert_eq!(sandbox.read(placed.file), placed.stale);
}

fn the_agent_itself_is_spared(placed: &Placed) {
    let mut sandbox = placed.stale();
    sandbox.protected = vec![sandbox.at(placed.file)];
    let report = sandbox.expect(placed.kind, &placed.params, Failed);
    assert!(report.message.contains("allow_self"), "{}: {}", placed.kind, report.message);
    assert_eq!(sandbox.read(placed.file), placed.stale);
}

fn rests_of_a_killed_agent_do_not_matter(placed: &Placed) {
    let sandbox = placed.stale();
    let path = sandbox.at(placed.file);
    let rest = crate::sys::replace::temporary_name(path.file_name().unwrap().to_str().unwrap());
    fs::write(path.parent().unwrap().join(rest), "half of it").unwrap();
    sandbox.expect(placed.kind, &placed.params, Changed);
    assert!((placed.holds)(&sandbox), "{}", placed.kind);
}

fn a_link_that_comes_and_goes_meanwhile_leads_nowhere(placed: &Placed) {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, placed.stale).unwrap();
    let sandbox = placed.stale();
    let (path, spare, done) = (sandbox.at(placed.file), sandbox.at("/d/spare"), Arc::new(AtomicBool::new(false)));
    let (until, to, stale) = (done.clone(), victim.clone(), placed.stale);
    let other = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            let _ = fs::remove_file(&spare);
            symlink(&to, &spare).unwrap();
            let _ = fs::rename(&spare, &path);
            fs::write(&spare, stale).unwrap();
            let _ = fs::rename(&spare, &path);
        }
    });
    for _ in 0..25 {
        // Whatever comes of it: nothing outside is written, and nothing panics.
        sandbox.apply(placed.kind, &placed.params);
    }
    done.store(true, Ordering::Relaxed);
    other.join().unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), placed.stale, "{}", placed.kind);
}

fn absent_removes_it_once_and_a_misspelt_parameter_is_named(placed: &Placed) {
    let sandbox = placed.stale();
    if let Some(absent) = &placed.absent {
        sandbox.expect(placed.kind, &placed.params, Changed);
        sandbox.expect(placed.kind, absent, Changed);
        assert!(!(placed.holds)(&sandbox), "{}", placed.kind);
        sandbox.expect(placed.kind, absent, Fine);
    }
    let (first, rest) = placed.params.split_first().unwrap();
    let wrong = Vec::from([(leak(&format!("{}x", first.0)), first.1.clone())]);
    let report = sandbox.expect(placed.kind, &wrong.into_iter().chain(rest.iter().cloned()).collect(), Failed);
    assert!(report.message.contains("did you mean"), "{}: {}", placed.kind, report.message);
    let more = placed.params.iter().cloned().chain([("ensure", text("present"))]).collect();
    let report = sandbox.expect(placed.kind, &more, Failed);
    assert!(report.message.contains("has no parameter `ensure`"), "{}: {}", placed.kind, report.message);
}

/// Parameters are named by constants everywhere else.
fn leak(name: &str) -> &'static str {
    Box::leak(name.to_string().into_boxed_str())
}
