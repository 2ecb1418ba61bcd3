use std::fs;

use common::bundle::{Resource, Value};
use common::outcome::Outcome;

use super::sandbox::{Sandbox, resource, text};
use crate::exec::run;

fn file(path: &str, content: &str) -> Resource {
    resource(&format!("f{path}"), "file", &vec![("target_path", text(path)), ("content", text(content))])
}

#[test]
fn an_unknown_type_fails_alone_and_says_what_to_do() {
    let sandbox = Sandbox::new();
    let report = sandbox.run_all(vec![resource("a", "flie", &vec![]), file("/d/x", "x")]);
    assert_eq!(report.counts().failed, 1);
    assert!(report.resources[0].message.contains("did you mean `file`?"), "{}", report.resources[0].message);
    assert!(report.resources[0].message.contains("upgrade"));
    assert!(sandbox.at("/d/x").exists());
}

#[test]
fn a_root_that_is_not_there_is_an_error_of_the_run() {
    let sandbox = Sandbox::new();
    let mut input = sandbox.input(vec![file("/d/x", "x")], false);
    input.sysroot = Some(sandbox.at("/none"));
    let report = run(&input);
    assert!(report.resources.is_empty() && report.error.contains("could not start"), "{}", report.error);
}

#[test]
fn a_directory_made_in_the_run_is_seen_by_the_next_resource() {
    let sandbox = Sandbox::new();
    let report = sandbox.run_all(
        vec![
            resource("d", "directory", &vec![("target_path", text("/d/new"))]),
            file("/d/new/x", "1"),
            resource("swap", "exec", &vec![("command", text("mv d/new d/old; mkdir d/new"))]),
            file("/d/new/x", "2"),
        ]
        .into_iter()
        .enumerate()
        .map(|(i, r)| Resource { name: format!("{i}"), ..r })
        .collect(),
    );
    assert_eq!(report.counts().changed, 4, "{:?}", report.resources);
    assert_eq!(fs::read(sandbox.at("/d/new/x")).unwrap(), b"2");
    assert_eq!(fs::read(sandbox.at("/d/old/x")).unwrap(), b"1");
}

#[test]
fn hundreds_of_files_converge_and_then_settle() {
    let sandbox = Sandbox::new();
    let files = || (0..300).map(|n| file(&format!("/d/f{n}"), &format!("{n}"))).collect::<Vec<_>>();
    assert_eq!(sandbox.run_all(files()).counts().changed, 300);
    let report = sandbox.run_all(files());
    assert_eq!((report.counts().ok, report.counts().total()), (300, 300));
}

#[test]
fn fingerprints_follow_the_content_of_sources() {
    let mut sandbox = Sandbox::new();
    sandbox.blob("files/a", b"one");
    let asked = || vec![resource("a", "file", &vec![("target_path", text("/d/x")), ("source", text("files/a"))])];
    let first = sandbox.run_all(asked()).resources[0].fingerprint;
    assert_eq!(sandbox.run_all(asked()).resources[0].fingerprint, first);
    sandbox.blobs.clear();
    sandbox.blob("files/a", b"two");
    assert_ne!(sandbox.run_all(asked()).resources[0].fingerprint, first);
}

#[test]
fn owners_are_left_alone_without_root_and_that_is_said_once() {
    if super::sandbox::is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let owned = |path: &str| resource(path, "file", &vec![("target_path", text(path)), ("owner", text("root"))]);
    let report = sandbox.run_all(vec![owned("/d/a"), owned("/d/b")]);
    assert_eq!((report.counts().changed, report.notes.len()), (2, 1));
    assert!(report.notes[0].contains("left alone"));
}

#[test]
fn a_resource_that_settles_is_silent_and_one_that_changes_is_not() {
    let sandbox = Sandbox::new();
    let sensitive = Resource { sensitive: true, ..file("/d/x", "secret") };
    let report = sandbox.run_all(vec![sensitive]);
    let all = format!("{:?}", report.resources);
    assert!(!all.contains("\"secret\"") && !all.contains("+secret"), "{all}");
    let report = sandbox.run_all(vec![file("/d/x", "secret")]);
    assert_eq!((report.resources[0].outcome, report.resources[0].message.as_str()), (Outcome::Ok, ""));
}

const ODD: [&str; 22] = [
    "",
    "/",
    "//",
    "/d",
    "/d/",
    "/d/.",
    "/d/x/y",
    "/d/\u{0}",
    ".",
    "..",
    "/..",
    "{{ vars.port }}",
    "{{ item",
    "0644",
    "9999",
    "after:(",
    "%s",
    "'",
    "nobody",
    "\n",
    "files/a",
    "templates/../a",
];

fn odd_value(seed: usize) -> Value {
    match seed % 31 {
        at @ 0..22 => text(ODD[at]),
        22 => Value::Null,
        23 => Value::Bool(true),
        24 => Value::Int(i64::MIN),
        25 => Value::Float(f64::NAN),
        26 => Value::List(vec![]),
        27 => Value::List(vec![text("true"), Value::Null]),
        28 => Value::Map(Default::default()),
        29 => text(&"/x".repeat(3_000)),
        _ => text(&format!("/d/{}", "n".repeat(300))),
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
    #[test]
    fn no_parameters_panic_and_every_resource_has_an_entry_law(
        shapes in proptest::collection::vec((0usize..40, proptest::collection::vec((0usize..12, 0usize..31), 0..6)), 1..12)
    ) {
        let sandbox = Sandbox::new();
        let types: Vec<_> = common::policy::types::all().collect();
        let resources: Vec<Resource> = shapes.iter().enumerate().map(|(n, (kind, params))| {
            let kind = types.get(*kind);
            let named = |at: usize| kind.map_or("x", |kind| kind.params[at % kind.params.len()].name);
            let params = params.iter().map(|(at, seed)| (named(*at), odd_value(*seed))).collect();
            resource(&format!("r{n}"), kind.map_or("none", |kind| kind.name), &params)
        }).collect();
        let before = sandbox.picture();
        let report = run(&sandbox.input(resources.clone(), true));
        assert_eq!(report.resources.len(), resources.len());
        assert_eq!(sandbox.picture(), before);
    }
}
