//! What changes for one host between two bundles, as a person wants to read it: resource by resource, with the values that
//! this host's traits give. What cannot be rendered here (an item of a `foreach`, a trait that is not known) stays as written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use common::bundle::{Bundle, Resource, Value};
use common::crypto::sha256;
use common::policy::params::text_of;
use common::policy::template::{Engine, Scope, is_templated};
use similar::TextDiff;

/// What is known of a host.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Stored traits, by group.
    pub traits: serde_json::Value,
    /// Host name.
    pub hostname: String,
    /// UUID as text.
    pub uuid: String,
}

/// Lines around a change.
const CONTEXT: usize = 2;
/// Characters of a hash that are shown.
const HASH_SHOWN: usize = 12;

/// The difference between two bundles for a host; empty where it would see none (the order of resources aside). A bundle that is missing has no resources.
pub fn difference(old: Option<&Bundle>, new: Option<&Bundle>, facts: &Facts) -> String {
    let (before, after) = (old.map(|old| pages(old, facts)), new.map(|new| pages(new, facts)));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut out = String::new();
    for name in names {
        let (was, is) = (before.get(name), after.get(name));
        if was == is {
            continue;
        }
        let (sign, was, is) = match (was, is) {
            (None, Some(is)) => ('+', "", is.as_str()),
            (Some(was), None) => ('-', was.as_str(), ""),
            (was, is) => ('~', was.map_or("", String::as_str), is.map_or("", String::as_str)),
        };
        let _ = writeln!(out, "{sign} {name}");
        let diff = TextDiff::from_lines(was, is);
        let text = diff.unified_diff().context_radius(CONTEXT).to_string();
        for line in text.lines().filter(|line| !line.starts_with("@@")) {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

/// Whether the host's traits matter to what changes: without that, one difference holds for every host with these bundles.
pub fn needs_facts(old: Option<&Bundle>, new: Option<&Bundle>) -> bool {
    let templated = |one: &Resource| !one.when.is_empty() || one.params.values().any(is_templated);
    [old, new].into_iter().flatten().flat_map(|bundle| &bundle.resources).any(templated)
}

/// Every resource as text, by name.
fn pages(bundle: &Bundle, facts: &Facts) -> BTreeMap<String, String> {
    let text = |text: &str| Value::Str(text.to_string());
    let envoy = BTreeMap::from([
        ("environment".to_string(), text(&bundle.environment)),
        ("hostname".to_string(), text(&facts.hostname)),
        ("uuid".to_string(), text(&facts.uuid)),
    ]);
    let scope = Scope::new(&bundle.vars, &facts.traits, &envoy);
    let blob = |path: &str| bundle.blobs.iter().find(|blob| blob.path == path).map(|blob| blob.sha256.to_string());
    let targets = |ids: &[u32]| {
        ids.iter()
            .filter_map(|&id| Some(bundle.resources.get(id as usize)?.name.clone()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let one = |resource: &Resource| {
        let scope = scope.with_vars(&resource.vars);
        let mut page = format!("type: {}\n", resource.kind);
        let mut line = |name: &str, value: String| {
            let _ = match value.contains('\n') {
                true => writeln!(page, "{name}:\n{}", indented(&value)),
                false => writeln!(page, "{name}: {value}"),
            };
        };
        for (name, links) in [("depends_on", &resource.depends_on), ("notify", &resource.notify)] {
            if !links.is_empty() {
                line(name, targets(links));
            }
        }
        if !resource.when.is_empty() {
            line("when", resource.when.clone());
        }
        if let Some(items) = &resource.foreach {
            line("foreach", shown(&rendered(items, &scope)));
        }
        if resource.sensitive {
            // A change must show, its content must not.
            let params = format!("{:?}{:?}", resource.params, bundle.vars);
            line("sensitive", format!("parameters with the hash {}", short(&sha256(&[params.as_bytes()]).to_string())));
            return (resource.name.clone(), page);
        }
        for (name, value) in &resource.params {
            let value = rendered(value, &scope);
            let hash = text_of(&value).filter(|_| name == "source").and_then(|path| blob(&path));
            match hash {
                Some(hash) => line(name, format!("{} ({})", shown(&value), short(&hash))),
                None => line(name, shown(&value)),
            }
        }
        for (name, value) in [("timeout", resource.timeout_ms), ("retries", u64::from(resource.retries))] {
            let usual = if name == "timeout" { common::limits::RESOURCE_TIMEOUT_DEFAULT_MS } else { 0 };
            if value != usual {
                line(name, value.to_string());
            }
        }
        if resource.noop {
            line("noop", "true".to_string());
        }
        (resource.name.clone(), page)
    };
    bundle.resources.iter().filter(|resource| !is_skipped(resource, &scope)).map(one).collect()
}

/// Whether this host skips it, as far as that can be known here.
fn is_skipped(resource: &Resource, scope: &Scope) -> bool {
    if resource.when.is_empty() || resource.foreach.is_some() {
        return false;
    }
    let engine = Engine::new();
    let holds = engine.compile_condition(&resource.when).and_then(|when| when.holds(&scope.with_vars(&resource.vars)));
    holds == Ok(false)
}

fn rendered(value: &Value, scope: &Scope) -> Value {
    if !is_templated(value) {
        return value.clone();
    }
    let engine = Engine::new();
    let found = engine.compile(value).and_then(|compiled| compiled.render(scope).map(|found| found.into_owned()));
    found.unwrap_or_else(|_| value.clone())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_string(),
        Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let pairs = map.iter().map(|(name, value)| format!("{name}: {}", shown(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => text_of(other).unwrap_or_default().into_owned(),
    }
}

fn short(hash: &str) -> &str {
    hash.get(..HASH_SHOWN).unwrap_or(hash)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::{Tree, compile};
    use super::*;

    fn bundle(content: &str, more: &str) -> Bundle {
        let tree: Tree = [
            (
                "configcrates/a.vgo",
                format!(
                    "name: a\nresources:\n- {{name: x, type: file, target_path: /x, content: \"{content}\"}}\n{more}\n"
                ),
            ),
            ("envoys/a.vgo", "envoys:\n- {match: \"*\", configcrates: [a]}\n".to_string()),
        ]
        .into_iter()
        .collect();
        let compiled = compile(&tree).unwrap();
        Bundle::decode(&compiled.bundle(compiled.mapping_for("h").unwrap()).1).unwrap()
    }

    fn facts(arch: &str) -> Facts {
        Facts { traits: serde_json::json!({"os": {"arch": arch}}), hostname: "h".into(), uuid: String::new() }
    }

    #[test]
    fn differences_are_rendered_with_the_hosts_traits() {
        let (old, new) = (bundle("a {{ traits.os.arch }}", ""), bundle("b {{ traits.os.arch }}", ""));
        let text = difference(Some(&old), Some(&new), &facts("s390x"));
        assert_eq!(
            text,
            "~ a.x\n     type: file\n    -content: a s390x\n    +content: b s390x\n     target_path: /x\n"
        );
        assert_eq!(difference(Some(&new), Some(&new), &facts("x")), "");
        let guarded = bundle("a", "- {name: y, type: exec, command: x, when: \"traits.os.arch == 's390x'\"}");
        assert_eq!(difference(Some(&bundle("a", "")), Some(&guarded), &facts("x86_64")), "");
        assert!(difference(Some(&bundle("a", "")), Some(&guarded), &facts("s390x")).starts_with("+ a.y\n"));
        assert!(needs_facts(Some(&old), None) && !needs_facts(Some(&bundle("a", "")), None));
    }

    #[test]
    fn what_comes_and_goes_is_shown_and_secrets_are_not() {
        let more = "- {name: y, type: exec, command: hunter2, sensitive: true}";
        let text = difference(Some(&bundle("a", "")), Some(&bundle("a", more)), &facts("x"));
        assert!(text.starts_with("+ a.y\n    +type: exec\n") && !text.contains("hunter2"), "{text}");
        let text = difference(Some(&bundle("a", more)), None, &facts("x"));
        assert!(text.starts_with("- a.x\n") && text.contains("- a.y\n"), "{text}");
    }
}
