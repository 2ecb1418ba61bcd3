//! Changes that are put back unless they are confirmed.

use std::fs;
use std::sync::{Arc, Mutex};

use common::bundle::Resource;
use common::ids::Uuid;
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};
use common::sys::Clock;

use super::sandbox::{Params, Sandbox, mode, resource, set_mode, text};
use crate::exec::{Confirmations, Undo, run};
use crate::sys::child::StopFlag;

/// Answers before a change, and afterwards as it is told; notes how long it had.
struct Server {
    answers: bool,
    online: bool,
    asked: Mutex<Vec<u64>>,
    /// What is kept while it is asked after a change: names, modes and contents.
    kept: Mutex<Vec<(String, u32, String)>>,
    dir: std::path::PathBuf,
    /// What is wrong with the configuration, by a word in it; and what it was each time that it was read.
    config: std::path::PathBuf,
    read: Mutex<Vec<String>>,
}

impl Server {
    fn new(sandbox: &Sandbox, answers: bool) -> Server {
        let (dir, config) = (sandbox.at("/state/undo"), sandbox.at("/etc/vigo/envoy.yaml"));
        let (asked, kept, read) = Default::default();
        Server { answers, online: true, asked, kept, dir, config, read }
    }
}

impl Confirmations for Server {
    fn confirm(&self, _run_id: Uuid, within_ms: u64) -> bool {
        let mut asked = self.asked.lock().unwrap();
        asked.push(within_ms);
        let runs = fs::read_dir(&self.dir).into_iter().flatten().flatten().filter(|one| one.file_name() != "refused");
        let mut kept = self.kept.lock().unwrap();
        for run in runs {
            kept.push(("dir".to_string(), mode(&run.path()), String::new()));
            for file in fs::read_dir(run.path()).unwrap().flatten() {
                let name = file.file_name().into_string().unwrap();
                kept.push((name, mode(&file.path()), fs::read_to_string(file.path()).unwrap()));
            }
        }
        self.online && (self.answers || asked.len() % 2 == 1)
    }

    fn reread(&self) -> Result<(), String> {
        let text = fs::read_to_string(&self.config).unwrap();
        self.read.lock().unwrap().push(text.clone());
        if text.contains("broken") { Err("line 1: unknown key `broken`".to_string()) } else { Ok(()) }
    }
}

fn sandbox(answers: bool) -> (Sandbox, Arc<Server>) {
    let mut sandbox = Sandbox::new();
    let server = Arc::new(Server::new(&sandbox, answers));
    sandbox.undo = Some(Undo { dir: sandbox.at("/state/undo"), confirmations: server.clone(), own_config: None });
    (sandbox, server)
}

fn conf(content: &str, confirm: &str) -> Params {
    vec![("target_path", text("/d/conf")), ("content", text(content)), ("confirm", text(confirm))]
}

fn left(sandbox: &Sandbox) -> Vec<String> {
    let Ok(all) = fs::read_dir(sandbox.at("/state/undo")) else { return Vec::new() };
    all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != "refused").collect()
}

#[test]
fn what_is_confirmed_stays_and_nothing_is_kept() {
    let (sandbox, server) = sandbox(true);
    sandbox.write("/d/conf", "old\n");
    let report = sandbox.expect("file", &conf("new\n", "60s"), Changed);
    assert_eq!(report.message, "changed: content");
    assert_eq!(sandbox.read("/d/conf"), "new\n");
    assert_eq!(*server.asked.lock().unwrap(), [15_000, 60_000]);
    assert!(left(&sandbox).is_empty(), "{:?}", left(&sandbox));
    sandbox.expect("file", &conf("new\n", "60s"), Fine);
    assert_eq!(server.asked.lock().unwrap().len(), 2, "nothing changed, nothing to ask");
}

#[test]
fn what_is_not_confirmed_is_put_back_and_not_tried_again_until_it_changes() {
    let (sandbox, server) = sandbox(false);
    sandbox.write("/d/conf", "old\n");
    set_mode(&sandbox.at("/d/conf"), 0o640);
    let report = sandbox.expect("file", &conf("new\n", "30s"), Failed);
    assert!(report.message.starts_with("rolled back: no check-in was answered within 30s"), "{}", report.message);
    assert_eq!((sandbox.read("/d/conf").as_str(), mode(&sandbox.at("/d/conf"))), ("old\n", 0o640));
    assert!(left(&sandbox).is_empty());
    let report = sandbox.expect("file", &conf("new\n", "30s"), Failed);
    assert!(report.message.contains("it was rolled back before"), "{}", report.message);
    assert_eq!(sandbox.read("/d/conf"), "old\n");
    assert_eq!(server.asked.lock().unwrap().len(), 2);
    sandbox.expect("file", &conf("newer\n", "30s"), Failed);
    assert_eq!(server.asked.lock().unwrap().len(), 4);
    sandbox.expect("file", &conf("old\n", "30s"), Fine);
}

#[test]
fn what_was_not_there_is_gone_again() {
    let (sandbox, _) = sandbox(false);
    for (kind, more) in [
        ("file", ("content", text("x"))),
        ("file_line", ("line", text("x"))),
        ("ini", ("key", text("x"))),
        ("blockinfile", ("block", text("x"))),
    ] {
        let params = vec![("target_path", text("/d/it's here")), more, ("confirm", text("30s"))];
        let report = sandbox.expect(kind, &params, Failed);
        assert!(report.message.starts_with("rolled back"), "{}", report.message);
        assert!(!sandbox.at("/d/it's here").exists(), "{kind}");
    }
    sandbox.write("/d/it's here", "a\n");
    let absent = vec![("target_path", text("/d/it's here")), ("state", text("absent")), ("confirm", text("30s"))];
    sandbox.expect("file", &absent, Failed);
    assert_eq!(sandbox.read("/d/it's here"), "a\n");
}

#[test]
fn what_is_kept_is_for_nobody_else_to_read_and_keeps_its_owner() {
    let (sandbox, server) = sandbox(false);
    sandbox.write("/d/conf", "old secret\n");
    set_mode(&sandbox.at("/d/conf"), 0o644);
    if super::sandbox::is_root() {
        std::os::unix::fs::chown(sandbox.at("/d/conf"), Some(4_242), Some(4_243)).unwrap();
    }
    sandbox.expect("file", &conf("new\n", "30s"), Failed);
    let kept = std::mem::take(&mut *server.kept.lock().unwrap());
    assert!(kept.iter().any(|(name, _, text)| name == "saved-0" && text == "old secret\n"), "{kept:?}");
    for (name, mode, _) in &kept {
        assert_eq!(*mode, if name == "dir" { 0o700 } else { 0o600 }, "{name}");
    }
    use std::os::unix::fs::MetadataExt;
    let meta = sandbox.at("/d/conf").metadata().unwrap();
    assert_eq!(sandbox.read("/d/conf"), "old secret\n");
    assert_eq!(meta.mode() & 0o7777, 0o644);
    if super::sandbox::is_root() {
        assert_eq!((meta.uid(), meta.gid()), (4_242, 4_243));
    }
    assert_eq!(fs::read_dir(sandbox.at("/d")).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn the_configuration_of_the_agent_is_read_again_and_put_back_where_it_cannot_be() {
    for (content, answers, expected, read) in [
        ("broken: 1\n", true, "the agent cannot read its new configuration: line 1: unknown key `broken`", 2),
        ("servers: [gone]\n", false, "no check-in was answered", 2),
        ("servers: [two]\n", true, "", 1),
    ] {
        let (mut sandbox, server) = sandbox(answers);
        sandbox.write("/etc/vigo/envoy.yaml", "servers: [one]\n");
        let undo = sandbox.undo.take().unwrap();
        sandbox.undo = Some(Undo { own_config: Some(sandbox.at("/etc/vigo/envoy.yaml")), ..undo });
        sandbox.protected = vec![sandbox.at("/etc/vigo/envoy.yaml")];
        let own =
            vec![("target_path", text("/etc/vigo/envoy.yaml")), ("content", text(content)), ("confirm", text("20s"))];
        let report = sandbox.expect("file", &own, Failed);
        assert!(report.message.contains("allow_self"), "{}", report.message);
        sandbox.allow_self = true;
        let report = sandbox.apply("file", &own);
        assert!(report.message.contains(expected), "{}", report.message);
        let back = if expected.is_empty() { content } else { "servers: [one]\n" };
        assert_eq!(sandbox.read("/etc/vigo/envoy.yaml"), back);
        let seen = server.read.lock().unwrap().clone();
        assert_eq!(seen.len(), read, "{seen:?}");
        assert_eq!((seen[0].as_str(), seen[read - 1].as_str()), (content, back));
        assert!(left(&sandbox).is_empty());
        // Another file is none of its business.
        sandbox.write("/d/conf", "old\n");
        sandbox.apply("file", &conf("new\n", "20s"));
        assert_eq!(server.read.lock().unwrap().len(), read);
    }
}

#[test]
fn a_setting_of_the_kernel_is_put_back_now_and_for_the_next_start() {
    let (mut sandbox, _) = sandbox(false);
    sandbox.live = true;
    std::fs::create_dir_all(sandbox.at("/etc")).unwrap();
    sandbox.write("/proc/sys/net/ipv4/ip_forward", "1\n");
    let asked =
        |value: &str| vec![("key", text("net.ipv4.ip_forward")), ("value", text(value)), ("confirm", text("20s"))];
    let report = sandbox.expect("sysctl", &asked("0"), Failed);
    assert!(report.message.starts_with("rolled back: no check-in"), "{}", report.message);
    assert_eq!(sandbox.read("/proc/sys/net/ipv4/ip_forward"), "1\n");
    assert!(!sandbox.at("/etc/sysctl.d/99-vigo.conf").exists());
    sandbox.write("/etc/sysctl.d/99-vigo.conf", "net.ipv4.ip_forward = 1\n");
    sandbox.expect("sysctl", &asked("2"), Failed);
    assert_eq!(sandbox.read("/etc/sysctl.d/99-vigo.conf"), "net.ipv4.ip_forward = 1\n");
    assert_eq!(sandbox.read("/proc/sys/net/ipv4/ip_forward"), "1\n");
    sandbox.expect("sysctl", &asked("1"), Fine);
}

#[test]
fn one_that_cannot_be_put_back_does_not_keep_the_others() {
    let (sandbox, _) = sandbox(false);
    sandbox.write("/d/conf", "old\n");
    let failing = vec![
        ("target_path", text("/d/other")),
        ("content", text("x")),
        ("confirm", text("20s")),
        ("confirm_undo", text("echo it is not to be had >&2; exit 3")),
    ];
    let report =
        sandbox.run_all(vec![resource("one", "file", &conf("new\n", "20s")), resource("two", "file", &failing)]);
    assert!(report.resources.iter().all(|one| one.outcome == Failed));
    let said = &report.resources[0].message;
    assert!(said.contains("not everything could be put back") && said.contains("it is not to be had"), "{said}");
    assert_eq!(sandbox.read("/d/conf"), "old\n");
    assert!(!sandbox.at("/d/other").exists());
    // It is told until somebody has looked, and nothing of it is lost meanwhile.
    for _ in 0..2 {
        let notes = sandbox.run_all(vec![]).notes;
        assert!(notes.len() == 1 && notes[0].contains("could be put back: see"), "{notes:?}");
    }
    assert_eq!(sandbox.read(&format!("/state/undo/{}/saved-0", Uuid::from_bytes([7; 16]))), "old\n");
    fs::remove_dir_all(sandbox.at("/state/undo")).unwrap();
    assert!(sandbox.run_all(vec![]).notes.is_empty());
}

#[test]
fn all_changes_of_a_run_are_put_back_in_the_opposite_order_after_what_they_notified() {
    let (sandbox, server) = sandbox(false);
    sandbox.write("/d/conf", "old\n");
    let line = |line: &str, confirm: &str| {
        let undo = format!("cat {} >> {}", sandbox.at("/d/conf").display(), sandbox.at("/d/log").display());
        vec![
            ("target_path", text("/d/conf")),
            ("line", text(line)),
            ("confirm", text(confirm)),
            ("confirm_undo", text(&undo)),
        ]
    };
    let restart = vec![("command", text("cat d/conf >> d/log")), ("onlyif", text("false"))];
    let report = sandbox.run_all(vec![
        Resource { notify: vec![2], ..resource("one", "file_line", &line("1", "50s")) },
        resource("two", "file_line", &line("2", "20s")),
        resource("restart", "exec", &restart),
        resource("other", "file", &vec![("target_path", text("/d/other")), ("content", text("x"))]),
    ]);
    let outcomes: Vec<_> = report.resources.iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, [Failed, Failed, Changed, Changed], "{:?}", report.resources);
    assert_eq!(*server.asked.lock().unwrap(), [15_000, 20_000], "once each, within the shortest");
    assert_eq!(sandbox.read("/d/conf"), "old\n");
    assert_eq!(sandbox.read("/d/log"), "old\n1\n2\nold\n", "the command runs once, when all is back");
    assert!(sandbox.at("/d/other").exists(), "what does not ask stays");
}

#[test]
fn dry_runs_keep_nothing_and_nothing_works_without_a_server() {
    let (mut sandbox, server) = sandbox(false);
    sandbox.write("/d/conf", "old\n");
    assert_eq!(sandbox.look("file", &conf("new\n", "30s")).outcome, Changed);
    assert!(!sandbox.at("/state").exists() && server.asked.lock().unwrap().is_empty());
    sandbox.undo = None;
    let report = sandbox.expect("file", &conf("new\n", "30s"), Failed);
    assert!(report.message.contains("`confirm` needs a server"), "{}", report.message);
    assert_eq!(sandbox.read("/d/conf"), "old\n");
    for (kind, params, expected) in [
        ("file", conf("x", "soon"), "`confirm` must be a length of time"),
        (
            "symlink",
            vec![("target_path", text("/d/l")), ("to", text("x")), ("confirm", text("9s"))],
            "no parameter `confirm`",
        ),
    ] {
        let report = sandbox.expect(kind, &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}

#[test]
fn where_no_server_answers_before_the_change_it_is_not_begun() {
    let mut sandbox = Sandbox::new();
    let server = Arc::new(Server { online: false, ..Server::new(&sandbox, true) });
    sandbox.undo = Some(Undo { dir: sandbox.at("/state/undo"), confirmations: server.clone(), own_config: None });
    sandbox.write("/d/conf", "old\n");
    let other = vec![("target_path", text("/d/other")), ("content", text("x")), ("confirm", text("5s"))];
    let report = sandbox.run_all(vec![
        resource("one", "file", &conf("new\n", "30s")),
        resource("two", "file", &other),
        resource("three", "file", &vec![("target_path", text("/d/three")), ("content", text("x"))]),
    ]);
    let outcomes: Vec<_> = report.resources.iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, [Blocked, Blocked, Changed], "{:?}", report.resources);
    assert!(report.resources[0].message.contains("no server answers"), "{}", report.resources[0].message);
    assert_eq!(*server.asked.lock().unwrap(), [15_000], "asked once a run");
    assert_eq!(sandbox.read("/d/conf"), "old\n");
    assert!(left(&sandbox).is_empty() && !sandbox.at("/d/other").exists());
}

#[test]
fn a_state_that_cannot_be_kept_is_not_changed() {
    let (sandbox, _) = sandbox(true);
    sandbox.write("/d/conf", "old\n");
    sandbox.write("/state", "a file where the directory should be");
    let report = sandbox.expect("file", &conf("new\n", "30s"), Failed);
    assert!(report.message.contains("cannot keep what was there"), "{}", report.message);
    assert_eq!(sandbox.read("/d/conf"), "old\n");
}

/// A run that was ended between the change and the answer.
fn interrupted(sandbox: &Sandbox, confirm: &str) {
    let stopper = vec![("command", text("sleep 60"))];
    let mut input =
        sandbox.input(vec![resource("r", "file", &conf("new\n", confirm)), resource("s", "exec", &stopper)], false);
    let stop = Arc::new(StopFlag::default());
    input.stop = stop.clone();
    let path = sandbox.at("/d/conf");
    let raiser = std::thread::spawn(move || {
        let clock = Clock::system();
        let until = clock.now().mono + 20_000;
        while fs::read_to_string(&path).unwrap() != "new\n" && clock.now().mono < until {
            clock.pause(5);
        }
        stop.raise(0);
    });
    let report = run(&input);
    raiser.join().unwrap();
    assert!(report.interrupted);
    assert_eq!(sandbox.read("/d/conf"), "new\n", "not settled yet");
}

#[test]
fn a_run_finds_what_the_one_before_left_unsettled() {
    let (sandbox, _) = sandbox(true);
    sandbox.write("/d/conf", "old\n");
    interrupted(&sandbox, "1h");
    let report = sandbox.run_all(vec![]);
    assert_eq!(report.notes, ["an unconfirmed change of a run that did not end was rolled back"]);
    assert_eq!(sandbox.read("/d/conf"), "old\n");
    assert!(left(&sandbox).is_empty() && sandbox.run_all(vec![]).notes.is_empty());
}

#[test]
fn the_timer_puts_back_what_nobody_settles() {
    let (sandbox, _) = sandbox(true);
    sandbox.write("/d/conf", "old\n");
    interrupted(&sandbox, "1s");
    let clock = Clock::system();
    let until = clock.now().mono + 30_000;
    while sandbox.read("/d/conf") != "old\n" && clock.now().mono < until {
        clock.pause(50);
    }
    assert_eq!(sandbox.read("/d/conf"), "old\n");
}
