//! Notifications that outlive the process.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::bundle::Resource;
use common::ids::Uuid;

use super::sandbox::{Sandbox, resource, text};
use crate::exec::{Promises, run};

/// Notes what is promised, and what the file was like then.
#[derive(Default)]
struct Notary {
    file: PathBuf,
    kept: Mutex<Vec<(Vec<String>, bool)>>,
}

impl Promises for Notary {
    fn keep(&self, run_id: Uuid, targets: Vec<String>) {
        assert_eq!(run_id, Uuid::from_bytes([7; 16]));
        self.kept.lock().unwrap().push((targets, self.file.exists()));
    }
}

fn sandbox() -> (Sandbox, Arc<Notary>) {
    let mut sandbox = Sandbox::new();
    let notary = Arc::new(Notary { file: sandbox.at("/d/conf"), ..Notary::default() });
    sandbox.promises = Some(notary.clone());
    (sandbox, notary)
}

/// Two files that notify two commands.
fn resources(content: &str) -> Vec<Resource> {
    let conf = |name: &str| {
        let params = vec![("target_path", text(&format!("/d/{name}"))), ("content", text(content))];
        resource(name, "file", &params)
    };
    let refresh = |name| resource(name, "exec", &vec![("command", text("true")), ("onlyif", text("false"))]);
    vec![
        Resource { notify: vec![2], ..conf("conf") },
        Resource { notify: vec![2, 3], ..conf("more") },
        refresh("first"),
        refresh("second"),
        conf("silent"),
    ]
}

#[test]
fn what_a_change_notifies_is_promised_before_the_change_and_once() {
    let (sandbox, notary) = sandbox();
    let report = sandbox.run_all(resources("1"));
    assert_eq!(report.counts().changed, 5, "{:?}", report.resources);
    let kept = std::mem::take(&mut *notary.kept.lock().unwrap());
    assert_eq!(kept, [(vec!["first".to_string()], false), (vec!["second".to_string()], true)]);
    assert!(report.owed.is_empty());
}

#[test]
fn a_run_that_changes_nothing_promises_nothing_nor_does_one_that_only_looks() {
    let (sandbox, notary) = sandbox();
    run(&sandbox.input(resources("1"), true));
    assert!(notary.kept.lock().unwrap().is_empty(), "a dry run");
    sandbox.run_all(resources("1"));
    notary.kept.lock().unwrap().clear();
    assert_eq!(sandbox.run_all(resources("1")).counts().ok, 5);
    assert!(notary.kept.lock().unwrap().is_empty(), "nothing differs");
}

#[test]
fn what_is_owed_already_is_not_promised_again_and_is_done() {
    let (sandbox, notary) = sandbox();
    let mut input = sandbox.input(resources("1"), false);
    input.order.owed = vec!["first".into(), "second".into()];
    assert_eq!(run(&input).counts().changed, 5);
    assert!(notary.kept.lock().unwrap().is_empty());
    // Killed after the change: the next run finds no difference and acts all the same.
    fs::write(sandbox.at("/d/silent"), "1").unwrap();
    let report = run(&input);
    assert_eq!((report.counts().changed, report.counts().ok), (2, 3), "{:?}", report.resources);
}

#[test]
fn a_run_that_cannot_start_goes_on_owing() {
    let (sandbox, _) = sandbox();
    let mut input = sandbox.input(resources("1"), false);
    input.order.owed = vec!["first".into()];
    input.sysroot = Some(sandbox.at("/none"));
    assert_eq!(run(&input).owed, ["first"]);
}
