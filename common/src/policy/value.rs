//! Values of policy from YAML: what a variable or a parameter may hold.

use std::collections::BTreeMap;

use super::names::Looker;
use super::secrets;
use super::template::{NAMESPACES, has_markers};
use crate::bundle::Value;
use crate::limits;
use crate::yaml::{Doc, Error, Kind, Map, Node};

/// Converts a node. `field` names it in errors (`vars.db_password`).
pub fn value(doc: &Doc, node: &Node, field: &str, errors: &mut Vec<Error>) -> Value {
    convert(doc, node, field, 0, errors)
}

/// The `vars` of a file. Each name must be one that a template can write after `vars.`.
pub fn vars(doc: &Doc, node: Option<&Node>, errors: &mut Vec<Error>) -> BTreeMap<String, Value> {
    let Some(node) = node else { return BTreeMap::new() };
    let map = match doc.expect_map(node, "vars") {
        Ok(map) => map,
        Err(error) => {
            errors.push(error);
            return BTreeMap::new();
        }
    };
    for entry in &map.entries {
        if !is_variable_name(&entry.key) {
            let error = doc.error(entry.at, format!("`{}` cannot be the name of a variable", entry.key));
            errors.push(error.expected("letters, digits and `_`, not beginning with a digit").cure(rename(&entry.key)));
        }
        refuse_templates(doc, &entry.value, &format!("vars.{}", entry.key), errors);
    }
    entries(doc, map, "vars", 0, errors)
}

/// As JSON, for documents. A number that JSON cannot say is null.
pub fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::Int(n) => (*n).into(),
        Value::Float(n) => (*n).into(),
        Value::Str(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => map.iter().map(|(name, value)| (name.clone(), to_json(value))).collect(),
    }
}

/// Whether a template can say `vars.NAME`.
pub fn is_variable_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn rename(name: &str) -> String {
    let better: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if is_variable_name(&better) { format!("write `{better}`") } else { format!("write `_{better}`") }
}

fn convert(doc: &Doc, node: &Node, field: &str, depth: usize, errors: &mut Vec<Error>) -> Value {
    if depth > limits::VALUE_DEPTH_MAX {
        let error = doc.error(node.at, format!("`{field}` is too deeply nested"));
        errors.push(error.expected(format!("at most {} levels", limits::VALUE_DEPTH_MAX)));
        return Value::Null;
    }
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(b) => Value::Bool(*b),
        Kind::Int(n) => Value::Int(*n),
        Kind::Float(n) => Value::Float(*n),
        Kind::Str(text) => {
            errors.extend(secrets::check(doc, node, field, text));
            Value::Str(text.clone())
        }
        Kind::List(items) => {
            Value::List(items.iter().map(|item| convert(doc, item, field, depth + 1, errors)).collect())
        }
        Kind::Map(map) => Value::Map(entries(doc, map, field, depth + 1, errors)),
    }
}

fn entries(doc: &Doc, map: &Map, field: &str, depth: usize, errors: &mut Vec<Error>) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    for entry in &map.entries {
        let value = convert(doc, &entry.value, &format!("{field}.{}", entry.key), depth, errors);
        out.insert(entry.key.clone(), value);
    }
    out
}

/// A variable is not rendered: a template in it would arrive on the host as it is written, which nobody means. Markers
/// that start from no name of ours (an alert template for another program, say) are left alone.
fn refuse_templates(doc: &Doc, node: &Node, field: &str, errors: &mut Vec<Error>) {
    match &node.kind {
        Kind::Str(text) if has_markers(text) => {
            let uses = Looker::default().text(text, true);
            let ours = uses.all_vars || !uses.keys.is_empty();
            if ours || NAMESPACES.iter().any(|name| text.contains(&format!("{name}.")) && uses.flaws.is_empty()) {
                let error = doc.error(node.at, format!("`{field}` holds a template, and variables are not rendered"));
                errors.push(error.cure("write the template where the variable is used"));
            }
        }
        Kind::List(items) => items.iter().for_each(|item| refuse_templates(doc, item, field, errors)),
        Kind::Map(map) => map.entries.iter().for_each(|entry| refuse_templates(doc, &entry.value, field, errors)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (BTreeMap<String, Value>, Vec<String>) {
        let doc = Doc::load("t.vgo", text.as_bytes()).unwrap();
        let mut errors = Vec::new();
        let vars = vars(&doc, Some(doc.root()), &mut errors);
        (vars, errors.iter().map(Error::summary).collect())
    }

    #[test]
    fn variables_keep_their_types() {
        let (vars, errors) = check("a: 1\nb: [x, {c: null}]\nother: '{{ $labels.instance }}'\n");
        assert_eq!(errors, [""; 0]);
        let inner = Value::Map([("c".to_string(), Value::Null)].into());
        assert_eq!(vars["b"], Value::List(vec![Value::Str("x".into()), inner]));
    }

    #[test]
    fn wrong_variables_are_refused_with_a_cure() {
        for (text, expected) in [
            (
                "http-port: 1\n",
                "t.vgo:1:1: `http-port` cannot be the name of a variable; expected letters, digits and `_`, not beginning with a digit; write `http_port`",
            ),
            (
                "2nd: 1\n",
                "t.vgo:1:1: `2nd` cannot be the name of a variable; expected letters, digits and `_`, not beginning with a digit; write `_2nd`",
            ),
            (
                "a: '{{ vars.b }}'\n",
                "t.vgo:1:4: `vars.a` holds a template, and variables are not rendered; write the template where the variable is used",
            ),
            (
                "a: {b: ['{{ traits.os.arch }}']}\n",
                "t.vgo:1:9: `vars.a` holds a template, and variables are not rendered; write the template where the variable is used",
            ),
            (
                "pw: 'secret:db x'\n",
                "t.vgo:1:5: `vars.pw` refers to no secret; expected `secret:` and a path of letters, digits, `_`, `-`, `.` and `/`, such as secret:prod/db/password",
            ),
        ] {
            assert_eq!(check(text).1, [expected], "{text}");
        }
        let deep = format!("a: {}1{}\n", "[".repeat(34), "]".repeat(34));
        assert!(check(&deep).1[0].contains("too deeply nested"));
    }
}
