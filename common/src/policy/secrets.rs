//! Where policy refers to secrets: `secret:PATH` as a whole value, at any depth of variables, parameters and items. The path
//! is literal: what a template makes on a host is never a reference.

use std::collections::{BTreeMap, BTreeSet};

use crate::bundle::{Bundle, SECRET_PREFIX, Value, is_secret_path, secret_path};
use crate::yaml::{Doc, Error, Kind, Node};

/// Collects the paths that a value refers to.
pub fn collect(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Str(text) => {
            if let Some(path) = secret_path(text).filter(|path| is_secret_path(path)) {
                out.insert(path.to_string());
            }
        }
        Value::List(items) => items.iter().for_each(|item| collect(item, out)),
        Value::Map(map) => map.values().for_each(|item| collect(item, out)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

/// Everything that a bundle refers to, sorted.
pub fn of_bundle(bundle: &Bundle) -> Vec<String> {
    let mut out = BTreeSet::new();
    bundle.vars.values().for_each(|value| collect(value, &mut out));
    for resource in &bundle.resources {
        resource.vars.values().chain(resource.params.values()).for_each(|value| collect(value, &mut out));
        resource.foreach.iter().for_each(|value| collect(value, &mut out));
    }
    out.into_iter().collect()
}

/// A copy in which every reference is what `by` makes of it.
pub fn replaced(value: &Value, by: &mut dyn FnMut(&str) -> Value) -> Value {
    match value {
        Value::Str(text) => match secret_path(text).filter(|path| is_secret_path(path)) {
            Some(path) => by(path),
            None => value.clone(),
        },
        Value::List(items) => Value::List(items.iter().map(|item| replaced(item, by)).collect()),
        Value::Map(map) => {
            let entries = map.iter().map(|(name, item)| (name.clone(), replaced(item, by)));
            Value::Map(entries.collect::<BTreeMap<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.clone(),
    }
}

/// Errors for every reference of a file whose secret `is_there` does not know.
pub fn missing(doc: &Doc, is_there: &dyn Fn(&str) -> bool) -> Vec<Error> {
    let mut errors = Vec::new();
    visit(doc.root(), &mut |node, path| {
        if is_secret_path(path) && !is_there(path) {
            let error = doc.error(node.at, format!("there is no secret `{path}`"));
            errors.push(error.cure(format!("set it with `vigocli secrets set {path}`")));
        }
    });
    errors
}

/// Errors for every reference of a file that is applied without a server.
pub fn refused(doc: &Doc) -> Vec<Error> {
    let mut errors = Vec::new();
    visit(doc.root(), &mut |node, path| {
        let error = doc.error(
            node.at,
            format!("`{SECRET_PREFIX}{path}` comes from a server, and this file is applied without one"),
        );
        errors.push(error.cure("write the value here, or publish the policy"));
    });
    errors
}

/// What is wrong with a text that begins as a reference.
pub fn check(doc: &Doc, node: &Node, field: &str, text: &str) -> Option<Error> {
    let path = secret_path(text)?;
    if is_secret_path(path) {
        return None;
    }
    let what = if super::template::has_markers(path) { "computes the path of a secret" } else { "refers to no secret" };
    let error = doc.error(node.at, format!("`{field}` {what}"));
    Some(
        error.expected(
            "`secret:` and a path of letters, digits, `_`, `-`, `.` and `/`, such as secret:prod/db/password",
        ),
    )
}

fn visit(node: &Node, found: &mut dyn FnMut(&Node, &str)) {
    match &node.kind {
        Kind::Str(text) => {
            if let Some(path) = secret_path(text) {
                found(node, path);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| visit(item, found)),
        Kind::Map(map) => map.entries.iter().for_each(|entry| visit(&entry.value, found)),
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_at_any_depth_and_replaced() {
        let text = |text: &str| Value::Str(text.into());
        let value = Value::List(vec![
            text("secret:a/b"),
            Value::Map([("x".to_string(), text(" secret:c")), ("y".to_string(), text("no secret:d"))].into()),
            text("secret:../e"),
        ]);
        let mut found = BTreeSet::new();
        collect(&value, &mut found);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a/b", "c"]);
        let new = replaced(&value, &mut |path| text(&path.to_uppercase()));
        let Value::List(items) = new else { panic!("a list stays one") };
        assert_eq!(items[0], text("A/B"));
        assert_eq!(items[2], text("secret:../e"));
    }

    #[test]
    fn a_missing_secret_has_its_place() {
        let doc = Doc::load("t.vgo", b"vars:\n  a: secret:there\n  b: [x, \"secret:not/there\"]\n").unwrap();
        let errors = missing(&doc, &|path| path == "there");
        let lines: Vec<String> = errors.iter().map(Error::summary).collect();
        assert_eq!(lines, ["t.vgo:3:10: there is no secret `not/there`; set it with `vigocli secrets set not/there`"]);
        assert_eq!(refused(&doc).len(), 2);
    }
}
