//! Cases of `git`, with the real tool and repositories beside the working copy; without it they are passed over.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::bundle::Value;
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, is_root, text};
use super::suite::{refused, settles};

/// A sandbox with a repository at `/srv/app.git`: `main` with two commits, `v1` and an annotated `v2` on them, `next` ahead.
struct Forge {
    sandbox: Sandbox,
    one: String,
    two: String,
    three: String,
}

fn git(directory: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]);
    command.args(args).current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let done = command.output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_string()
}

impl Forge {
    fn new() -> Option<Forge> {
        Command::new("git").arg("--version").output().ok()?;
        let mut sandbox = Sandbox::new();
        sandbox.search_path = std::env::var("PATH").ok();
        sandbox.write("/srv/app.git/file", "one\n");
        sandbox.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:4242:4242::/:/bin/sh\n");
        let at = sandbox.at("/srv/app.git");
        git(&at, &["init", "-q"]);
        git(&at, &["add", "."]);
        git(&at, &["commit", "-qm", "one"]);
        git(&at, &["tag", "v1"]);
        let one = git(&at, &["rev-parse", "HEAD"]);
        let mut forge = Forge { sandbox, one, two: String::new(), three: String::new() };
        forge.two = forge.commit("two\n");
        git(&at, &["tag", "-am", "second", "v2"]);
        git(&at, &["checkout", "-qb", "next"]);
        forge.three = forge.commit("three\n");
        git(&at, &["checkout", "-q", "main"]);
        Some(forge)
    }

    fn at(&self) -> std::path::PathBuf {
        self.sandbox.at("/srv/app.git")
    }

    /// Another commit on the branch that is checked out.
    fn commit(&self, content: &str) -> String {
        self.sandbox.write("/srv/app.git/file", content);
        git(&self.at(), &["commit", "-qam", content.trim()]);
        git(&self.at(), &["rev-parse", "HEAD"])
    }

    fn asked(&self, more: &[(&'static str, Value)]) -> Params {
        let url = format!("file://{}", self.at().canonicalize().unwrap().display());
        let base = [("target_path", text("/d/app")), ("repository", text(&url))];
        base.into_iter().chain(more.iter().cloned()).collect()
    }

    fn head(&self) -> String {
        self.sandbox.read("/d/app/.git/HEAD").trim().to_string()
    }
}

#[test]
fn a_branch_is_cloned_and_followed() {
    let Some(forge) = Forge::new() else { return };
    let main = forge.asked(&[("revision", text("main"))]);
    settles(&forge.sandbox, "git", &main, &format!("would create: {} (main)", &forge.two[..12]));
    assert_eq!((forge.head(), forge.sandbox.read("/d/app/file").as_str()), (forge.two.clone(), "two\n"));
    assert_eq!(fs::read_dir(forge.sandbox.at("/d")).unwrap().count(), 1, "something was left behind");
    let four = forge.commit("four\n");
    let before = forge.sandbox.picture();
    let report = forge.sandbox.look("git", &main);
    let expected = format!("would change: {} instead of {} (main)", &forge.two[..12], &four[..12]);
    assert_eq!(report.message, expected);
    assert_eq!(forge.sandbox.picture(), before);
    forge.sandbox.expect("git", &main, Changed);
    assert_eq!(forge.sandbox.read("/d/app/file"), "four\n");
    forge.sandbox.expect("git", &main, Fine);
}

#[test]
fn tags_commits_and_the_default_branch_are_revisions() {
    let Some(forge) = Forge::new() else { return };
    for (revision, commit) in [
        (forge.asked(&[]), &forge.two),
        (forge.asked(&[("revision", text("v1"))]), &forge.one),
        (forge.asked(&[("revision", text("v2"))]), &forge.two),
        (forge.asked(&[("revision", text("next"))]), &forge.three),
        (forge.asked(&[("revision", text(&forge.one))]), &forge.one),
        (forge.asked(&[("revision", text("refs/tags/v2"))]), &forge.two),
    ] {
        forge.sandbox.expect("git", &revision, Changed);
        assert_eq!(&forge.head(), commit, "{revision:?}");
        forge.sandbox.expect("git", &revision, Fine);
    }
}

#[test]
fn a_commit_that_is_checked_out_needs_no_process_to_be_seen() {
    let Some(mut forge) = Forge::new() else { return };
    let pinned = forge.asked(&[("revision", text(&forge.one))]);
    forge.sandbox.expect("git", &pinned, Changed);
    forge.sandbox.fake_tool("git", "exit 1");
    forge.sandbox.expect("git", &pinned, Fine);
    assert_eq!(forge.sandbox.calls(), "");
}

#[test]
fn without_updates_a_copy_stays_where_it_is() {
    let Some(forge) = Forge::new() else { return };
    let once = forge.asked(&[("revision", text("main")), ("update", Value::Bool(false))]);
    forge.sandbox.expect("git", &once, Changed);
    forge.commit("four\n");
    forge.sandbox.expect("git", &once, Fine);
    assert_eq!(forge.head(), forge.two);
}

#[test]
fn changes_by_hand_stay_unless_force_undoes_them() {
    let Some(forge) = Forge::new() else { return };
    let main = forge.asked(&[("revision", text("main"))]);
    forge.sandbox.expect("git", &main, Changed);
    forge.sandbox.write("/d/app/file", "by hand\n");
    forge.sandbox.write("/d/app/untracked", "x");
    forge.sandbox.expect("git", &main, Fine);
    forge.commit("four\n");
    let report = forge.sandbox.expect("git", &main, Failed);
    assert!(report.message.contains("would be overwritten"), "{}", report.message);
    assert_eq!(forge.sandbox.read("/d/app/file"), "by hand\n");
    let force = forge.asked(&[("revision", text("main")), ("force", Value::Bool(true))]);
    let report = forge.sandbox.expect("git", &force, Changed);
    assert!(report.message.ends_with("one file was changed by hand"), "{}", report.message);
    assert_eq!(forge.sandbox.read("/d/app/file"), "four\n");
    assert_eq!(forge.sandbox.read("/d/app/untracked"), "x");
    fs::remove_file(forge.sandbox.at("/d/app/file")).unwrap();
    let once = forge.asked(&[("update", Value::Bool(false)), ("force", Value::Bool(true))]);
    settles(&forge.sandbox, "git", &once, "one file was changed by hand");
    assert_eq!(forge.sandbox.read("/d/app/file"), "four\n");
}

#[test]
fn only_as_much_history_as_asked_for_is_fetched() {
    let Some(forge) = Forge::new() else { return };
    let shallow = forge.asked(&[("depth", Value::Int(1))]);
    forge.sandbox.expect("git", &shallow, Changed);
    assert!(forge.sandbox.at("/d/app/.git/shallow").exists());
    forge.commit("four\n");
    forge.sandbox.expect("git", &shallow, Changed);
    forge.sandbox.expect("git", &shallow, Fine);
    let pinned = forge.asked(&[("revision", text(&forge.one)), ("depth", Value::Int(1))]);
    forge.sandbox.expect("git", &pinned, Changed);
    forge.sandbox.expect("git", &pinned, Fine);
}

#[test]
fn what_is_no_working_copy_is_left_as_it_is() {
    let Some(forge) = Forge::new() else { return };
    let sandbox = &forge.sandbox;
    let asked = forge.asked(&[]);
    sandbox.write("/d/app/data", "precious");
    refused(sandbox, "git", &[(asked.clone(), "not empty and not a working copy")]);
    fs::remove_dir_all(sandbox.at("/d/app")).unwrap();
    fs::write(sandbox.at("/d/app"), "x").unwrap();
    refused(sandbox, "git", &[(asked.clone(), "is a regular file, not a directory")]);
    fs::remove_file(sandbox.at("/d/app")).unwrap();
    symlink("/srv/app.git", sandbox.at("/d/app")).unwrap();
    refused(sandbox, "git", &[(asked.clone(), "is a symbolic link, not a directory")]);
    fs::remove_file(sandbox.at("/d/app")).unwrap();
    sandbox.write("/d/app/.git", "gitdir: /srv/app.git/.git\n");
    refused(sandbox, "git", &[(asked.clone(), "is a regular file, not a directory")]);
    fs::remove_dir_all(sandbox.at("/d/app")).unwrap();
    fs::create_dir(sandbox.at("/d/app")).unwrap();
    sandbox.expect("git", &asked, Changed);
    sandbox.expect("git", &asked, Fine);
}

#[test]
fn a_failed_clone_leaves_nothing_and_rests_of_a_killed_one_do_not_matter() {
    let Some(forge) = Forge::new() else { return };
    let sandbox = &forge.sandbox;
    let missing = forge.asked(&[("revision", text("0123456789012345678901234567890123456789"))]);
    sandbox.expect("git", &missing, Failed);
    assert_eq!(fs::read_dir(sandbox.at("/d")).unwrap().count(), 0);
    let report = sandbox.expect("git", &forge.asked(&[("revision", text("nope"))]), Failed);
    assert!(report.message.contains("has no branch or tag `nope`"), "{}", report.message);
    let rest = format!("/d/{}/.git/config", crate::sys::replace::temporary_name("app"));
    sandbox.write(&rest, "rubbish");
    sandbox.expect("git", &forge.asked(&[]), Changed);
    assert_eq!(fs::read_dir(sandbox.at("/d")).unwrap().count(), 1);
    let gone = forge.asked(&[]).into_iter().map(|(name, value)| match name {
        "repository" => (name, text("file:///nowhere/at/all")),
        _ => (name, value),
    });
    sandbox.expect("git", &gone.collect(), Blocked);
    assert_eq!(forge.head(), forge.two);
}

#[test]
fn programs_that_a_repository_names_are_not_run() {
    let Some(forge) = Forge::new() else { return };
    let sandbox = &forge.sandbox;
    sandbox.expect("git", &forge.asked(&[]), Changed);
    let hook = format!("#!/bin/sh\ntouch {}\n", sandbox.at("/d/hooked").display());
    sandbox.write("/d/app/.git/hooks/post-checkout", &hook);
    super::sandbox::set_mode(&sandbox.at("/d/app/.git/hooks/post-checkout"), 0o755);
    forge.commit("four\n");
    let force = forge.asked(&[("force", Value::Bool(true))]);
    sandbox.expect("git", &force, Changed);
    assert!(!sandbox.at("/d/hooked").exists());
}

#[test]
fn the_copy_of_another_user_is_not_entered_and_one_for_another_user_is_theirs() {
    let Some(forge) = Forge::new() else { return };
    if !is_root() {
        return;
    }
    let sandbox = &forge.sandbox;
    sandbox.expect("git", &forge.asked(&[]), Changed);
    std::os::unix::fs::lchown(sandbox.at("/d/app/.git"), Some(4242), Some(4242)).unwrap();
    let report = sandbox.expect("git", &forge.asked(&[]), Failed);
    assert!(report.message.contains("belongs to user 4242"), "{}", report.message);
    fs::remove_dir_all(sandbox.at("/d/app")).unwrap();
    // A repository that its readers may read, in a directory that they may enter.
    super::sandbox::set_mode(sandbox.dir.path(), 0o755);
    git(&forge.at(), &["config", "core.sharedRepository", "all"]);
    let theirs = forge.asked(&[("user", text("app"))]);
    let report = sandbox.apply("git", &theirs);
    // Git itself refuses to read repositories of others where it is told not to trust them.
    if report.outcome == Changed {
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&sandbox.at("/d/app/file").metadata().unwrap()), 4242);
    } else {
        assert!(report.message.contains("dubious ownership"), "{}", report.message);
    }
}

#[test]
fn bad_parameters_are_named_and_the_agent_itself_is_spared() {
    let Some(mut forge) = Forge::new() else { return };
    let with = |name: &'static str, value: &str| -> Params {
        let rest = forge.asked(&[]).into_iter().filter(|(known, _)| *known != name);
        rest.chain([(name, text(value))]).collect()
    };
    let cases = [
        (vec![("repository", text("https://example.com/x"))], "needs the parameter `target_path`"),
        (vec![("target_path", text("/d/app"))], "needs the parameter `repository`"),
        (with("repository", "--upload-pack=/bin/evil"), "where a repository is"),
        (with("repository", "ext::sh -c evil"), "where a repository is"),
        (with("repository", "https://me:secret@example.com/x"), "without a password"),
        (with("repository", "https://example.com/x\ny"), "where a repository is"),
        (with("revision", "--orphan"), "a branch, a tag or a commit"),
        (with("revision", "a..b"), "a branch, a tag or a commit"),
        (with("revision", "a b"), "a branch, a tag or a commit"),
        (with("ssh_key", "key"), "a path that starts with /"),
        (with("user", "nobody-here"), "there is no user `nobody-here`"),
        (with("target_path", "/d/../x"), "a path that starts with /"),
    ];
    refused(&forge.sandbox, "git", &cases);
    let asked = forge.asked(&[]);
    forge.sandbox.protected = vec![forge.sandbox.at("/d/app/agent")];
    let report = forge.sandbox.expect("git", &asked, Failed);
    assert!(report.message.contains("allow_self"), "{}", report.message);
}

#[test]
fn absent_removes_a_working_copy_and_nobody_s_work() {
    let Some(forge) = Forge::new() else { return };
    let sandbox = &forge.sandbox;
    let gone = vec![("target_path", text("/d/app")), ("state", text("absent"))];
    sandbox.expect("git", &gone, Fine);
    sandbox.expect("git", &forge.asked(&[]), Changed);
    sandbox.write("/d/app/file", "by hand\n");
    let report = sandbox.expect("git", &gone, Failed);
    assert!(report.message.contains("changes by hand in 1 of its files"), "{}", report.message);
    let force = gone.iter().cloned().chain([("force", Value::Bool(true))]).collect();
    let before = sandbox.picture();
    assert_eq!(sandbox.look("git", &force).message, format!("would remove: {}", &forge.two[..12]));
    assert_eq!(sandbox.picture(), before);
    sandbox.expect("git", &force, Changed);
    assert!(!sandbox.at("/d/app").exists());
    sandbox.expect("git", &force, Fine);
    sandbox.expect("git", &forge.asked(&[]), Changed);
    sandbox.expect("git", &gone, Changed);
    sandbox.write("/d/app/data", "precious");
    refused(sandbox, "git", &[(force.clone(), "not empty and not a working copy")]);
    fs::remove_dir_all(sandbox.at("/d/app")).unwrap();
    symlink("/srv/app.git", sandbox.at("/d/app")).unwrap();
    refused(sandbox, "git", &[(force, "is a symbolic link, not a directory")]);
    assert!(forge.at().join(".git").exists());
}

#[test]
fn submodules_come_with_it_and_follow_it() {
    let Some(forge) = Forge::new() else { return };
    let sandbox = &forge.sandbox;
    sandbox.write("/srv/lib.git/part", "1\n");
    let lib = sandbox.at("/srv/lib.git");
    git(&lib, &["init", "-q"]);
    git(&lib, &["add", "."]);
    git(&lib, &["commit", "-qm", "lib"]);
    let url = format!("file://{}", lib.canonicalize().unwrap().display());
    git(&forge.at(), &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &url, "vendor"]);
    git(&forge.at(), &["commit", "-qm", "with a part"]);
    let plain = forge.asked(&[]);
    let whole = forge.asked(&[("submodules", Value::Bool(true))]);
    sandbox.expect("git", &plain, Changed);
    assert_eq!(fs::read_dir(sandbox.at("/d/app/vendor")).unwrap().count(), 0);
    let report = sandbox.look("git", &whole);
    assert_eq!(report.message, "would change: one submodule is not at its commit");
    sandbox.expect("git", &whole, Changed);
    assert_eq!(sandbox.read("/d/app/vendor/part"), "1\n");
    sandbox.expect("git", &whole, Fine);
    // The part moves on, and so does what contains it.
    sandbox.write("/srv/lib.git/part", "2\n");
    git(&lib, &["commit", "-qam", "more"]);
    git(&forge.at().join("vendor"), &["-c", "protocol.file.allow=always", "pull", "-q"]);
    git(&forge.at(), &["commit", "-qam", "the newer part"]);
    sandbox.expect("git", &whole, Changed);
    assert_eq!(sandbox.read("/d/app/vendor/part"), "2\n");
    sandbox.expect("git", &whole, Fine);
    fs::remove_dir_all(sandbox.at("/d/app")).unwrap();
    settles(sandbox, "git", &whole, "would create");
    assert_eq!(sandbox.read("/d/app/vendor/part"), "2\n");
}

#[test]
fn a_host_without_git_says_so() {
    let Some(mut forge) = Forge::new() else { return };
    forge.sandbox.search_path = Some("/nowhere".to_string());
    let report = forge.sandbox.expect("git", &forge.asked(&[]), Failed);
    assert!(report.message.contains("`git` is not installed"), "{}", report.message);
    assert_eq!(forge.sandbox.look("git", &forge.asked(&[])).message, "would create: git is not installed yet");
}
