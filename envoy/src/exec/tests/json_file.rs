use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, text};
use super::suite::{Subject, check};

fn params(more: &[(&'static str, Value)]) -> Params {
    [("target_path", text("/d/x"))].into_iter().chain(more.iter().cloned()).collect()
}

fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Map(pairs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect())
}

#[test]
fn json_file_keeps_the_contract() {
    check(&Subject {
        kind: "json_file",
        params: vec![("pointer", text("/a/b")), ("value", Value::Int(5))],
        holds: |x| serde_json::from_slice::<serde_json::Value>(&fs::read(x).unwrap()).unwrap()["a"]["b"] == 5,
        wrong: vec![
            ("empty", |x| fs::write(x, "").unwrap()),
            ("no key", |x| fs::write(x, "{\"z\": 1, \"a\": {}}").unwrap()),
            ("other value", |x| fs::write(x, "{\"a\": {\"b\": 6}}\n").unwrap()),
            ("other type", |x| fs::write(x, "{\n\t\"a\": {\n\t\t\"b\": \"5\"\n\t}\n}\n").unwrap()),
        ],
        refused: vec![
            ("not json", |x| fs::write(x, "{\"a\": }").unwrap(), "it is not JSON"),
            ("comment", |x| fs::write(x, "// c\n{}").unwrap(), "line 1 column 1"),
            ("scalar in the way", |x| fs::write(x, "{\"a\": 1}").unwrap(), "/a is neither"),
            ("twice", |x| fs::write(x, "{\"a\": {}, \"a\": {}}").unwrap(), "twice"),
            ("not text", |x| fs::write(x, b"\"\xff\"").unwrap(), "not UTF-8"),
            ("deep", |x| fs::write(x, "[".repeat(1 << 20)).unwrap(), "recursion limit"),
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            ("link", |x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
            ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        ],
        absent: vec![("pointer", text("/a/b"))],
    });
}

#[test]
fn a_merge_reaches_every_depth_and_keeps_the_rest() {
    let sandbox = Sandbox::new();
    let old = "{\n    \"log\": {\n        \"level\": \"info\", \"file\": null\n    },\n    \"keep\": [1,2]\n}\n";
    fs::write(sandbox.at("/d/x"), old).unwrap();
    let log = map(&[("level", text("warn")), ("size", Value::Int(3))]);
    let asked = params(&[(
        "merge",
        map(&[("log", log), ("new", map(&[])), ("keep", Value::List(vec![Value::Int(1), Value::Int(2)]))]),
    )]);
    let report = sandbox.look("json_file", &asked);
    assert!(report.diff.contains("\"level\": \"warn\""), "{}", report.diff);
    sandbox.expect("json_file", &asked, Changed);
    let new = "{\n    \"log\": {\n        \"level\": \"warn\", \"file\": null, \"size\": 3\n    },\n    \"keep\": [1,2],\n    \"new\": {}\n}\n";
    assert_eq!(sandbox.read("/d/x"), new);
    sandbox.expect("json_file", &asked, Fine);
}

#[test]
fn whole_documents_and_keys_with_slashes() {
    let sandbox = Sandbox::new();
    let asked = params(&[("value", Value::List(vec![map(&[("a", Value::Float(0.25))])]))]);
    sandbox.expect("json_file", &asked, Changed);
    sandbox.expect("json_file", &asked, Fine);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&sandbox.read("/d/x")).unwrap(),
        serde_json::json!([{"a": 0.25}])
    );
    fs::write(sandbox.at("/d/x"), "{}").unwrap();
    sandbox.expect("json_file", &params(&[("pointer", text("/a~1b")), ("value", Value::Bool(true))]), Changed);
    assert_eq!(sandbox.read("/d/x"), "{\n  \"a/b\": true\n}");
}

#[test]
fn bad_places_and_values_are_named() {
    let sandbox = Sandbox::new();
    let many: BTreeMap<String, Value> = (0..1_001).map(|n| (format!("k{n}"), Value::Int(n))).collect();
    for (more, expected) in [
        (vec![("pointer", text("/a"))], "needs the parameter `value or merge`"),
        (vec![("pointer", text("a")), ("value", Value::Int(1))], "a JSON pointer"),
        (vec![("pointer", text("/~")), ("value", Value::Int(1))], "a JSON pointer"),
        (vec![("value", Value::Int(1)), ("merge", map(&[("a", Value::Int(1))]))], "only one of `value` and `merge`"),
        (vec![("merge", text("a"))], "a mapping that is not empty"),
        (vec![("merge", Value::Map(many))], "more than 1000 values"),
        (vec![("value", Value::Float(f64::INFINITY))], "no infinite numbers"),
        (vec![("state", text("absent"))], "needs `pointer`"),
    ] {
        let report = sandbox.expect("json_file", &params(&more), Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    assert!(!sandbox.at("/d/x").exists());
}
