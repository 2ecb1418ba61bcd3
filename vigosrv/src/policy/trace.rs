//! Where everything that a host gets comes from: its mapping, its configcrates, every variable with the places that it
//! overrides, its resources. Reads the tree as written; compiles nothing and changes nothing.

use std::collections::BTreeMap;

use common::bundle::Value;
use common::policy::model::Mention;
use common::yaml::{Error, Map, Node, Pos};

use super::load::{Group, Loaded, MappingDef, load};
use super::memory::Memory;
use super::tree::Tree;

/// What one host gets, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// `envoys/production/web.vgo:2`.
    pub mapping: String,
    /// The pattern that matched.
    pub pattern: String,
    /// Environment, or empty.
    pub environment: String,
    /// In the order in which they are joined.
    pub crates: Vec<TracedCrate>,
    /// By name; what a configcrate sets for itself stands there.
    pub vars: Vec<TracedVar>,
}

/// A configcrate of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedCrate {
    /// Name.
    pub name: String,
    /// Where it is defined.
    pub place: String,
    /// Who asks for it, `envoys/common.vgo:1 (role webserver)`: the first, and all others.
    pub asked_by: Vec<String>,
    /// Name, type and place of each resource.
    pub resources: Vec<(String, String, String)>,
    /// Its own variables that nothing stronger sets, with their places.
    pub defaults: Vec<TracedVar>,
}

/// A variable of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedVar {
    /// Name.
    pub name: String,
    /// What holds.
    pub value: Value,
    /// Where that is written, and as what: `envoys/common.vgo:3:5 (inherited)`.
    pub source: String,
    /// Weaker places that it overrides, strongest first.
    pub overrides: Vec<String>,
}

/// A source of variables and configcrates, weakest first in a list of them.
struct Layer<'l> {
    group: &'l Group,
    /// Where its `vars` are.
    map: Option<&'l Map>,
    what: String,
}

/// Traces a host. `None` when no mapping matches. Errors are those of the files, as `validate` shows them.
pub fn trace(tree: &Tree, hostname: &str) -> Result<Option<Trace>, Vec<Error>> {
    trace_with(tree, hostname, &mut Memory::default())
}

/// The same with a memory, which makes it fast and nothing else.
pub fn trace_with(tree: &Tree, hostname: &str, memory: &mut Memory) -> Result<Option<Trace>, Vec<Error>> {
    let mut errors = tree.problems.clone();
    let loaded = load(tree, memory, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let matches = |mapping: &&MappingDef| mapping.patterns.iter().any(|glob| glob.matches(hostname));
    let traced = loaded.mappings.iter().find(matches).map(|mapping| trace_mapping(&loaded, mapping, hostname));
    if memory.is_last() {
        std::mem::forget(loaded);
    }
    Ok(traced)
}

fn trace_mapping(loaded: &Loaded<'_>, mapping: &MappingDef, hostname: &str) -> Trace {
    let pattern = mapping.patterns.iter().find(|glob| glob.matches(hostname));
    let layers = layers(loaded, mapping);
    let vars = vars(loaded, &layers);
    Trace {
        mapping: format!("{}:{}", mapping.group.path, mapping.at.line),
        pattern: pattern.map(|glob| glob.source().to_string()).unwrap_or_default(),
        environment: mapping.environment.as_ref().map(|mention| mention.name.clone()).unwrap_or_default(),
        crates: crates(loaded, &layers, &vars),
        vars,
    }
}

/// Everything that a mapping draws from, in the order in which configcrates are added: directories from the top, the mapping,
/// the environment.
fn layers<'l>(loaded: &'l Loaded<'_>, mapping: &'l MappingDef) -> Vec<Layer<'l>> {
    let root = |path: &str| loaded.docs.get(path).and_then(|doc| doc.root().as_map());
    let directory = mapping.group.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let ends = directory.match_indices('/').map(|(at, _)| at).chain([directory.len()]);
    let commons = ends.filter_map(|end| loaded.commons.get(&directory[..end]));
    let mut all: Vec<Layer<'l>> =
        commons.map(|group| Layer { group, map: root(&group.path), what: "inherited".to_string() }).collect();
    let list = root(&mapping.group.path).and_then(|map| map.get("envoys")).and_then(Node::as_list).unwrap_or_default();
    let map = list.iter().find(|node| node.at == mapping.at).and_then(Node::as_map);
    all.push(Layer { group: &mapping.group, map, what: "mapping".to_string() });
    if let Some(mention) = &mapping.environment
        && let Some(group) = loaded.environments.get(&mention.name)
    {
        let environments = root(&group.path).and_then(|map| map.get("environments")).and_then(Node::as_map);
        let map = environments.and_then(|map| map.get(&mention.name)).and_then(Node::as_map);
        all.push(Layer { group, map, what: format!("environment {}", mention.name) });
    }
    all
}

fn vars(loaded: &Loaded<'_>, layers: &[Layer<'_>]) -> Vec<TracedVar> {
    let mut sources: BTreeMap<&str, Vec<(&Value, String)>> = BTreeMap::new();
    // Weakest first: the variables of all roles stand below everything that is written for directories and mappings.
    let mentions = layers.iter().flat_map(|layer| &layer.group.roles);
    let roles = mentions.filter_map(|mention| {
        let group = loaded.roles.get(&mention.name)?;
        let map = loaded.docs.get(&group.path).and_then(|doc| doc.root().as_map());
        Some((group, map, format!("role {}", mention.name)))
    });
    let others = layers.iter().map(|layer| (layer.group, layer.map, layer.what.clone()));
    for (group, map, what) in roles.chain(others) {
        for (name, value) in &group.vars {
            let source = format!("{} ({what})", place_of(loaded, &group.path, map, name));
            sources.entry(name).or_default().push((value, source));
        }
    }
    let traced = sources.into_iter().filter_map(|(name, mut all)| {
        let (value, source) = all.pop()?;
        let overrides = all.into_iter().rev().map(|(_, source)| source).collect();
        Some(TracedVar { name: name.to_string(), value: value.clone(), source, overrides })
    });
    traced.collect()
}

fn crates(loaded: &Loaded<'_>, layers: &[Layer<'_>], vars: &[TracedVar]) -> Vec<TracedCrate> {
    let mut order: Vec<(usize, Vec<String>)> = Vec::new();
    let mut add = |mentions: &[Mention], asked_by: &dyn Fn(&Mention) -> String| {
        for mention in mentions {
            let Some(&id) = loaded.crate_ids.get(&mention.name) else { continue };
            match order.iter_mut().find(|(known, _)| *known == id) {
                Some((_, all)) => all.push(asked_by(mention)),
                None => order.push((id, vec![asked_by(mention)])),
            }
        }
    };
    for layer in layers {
        for role in &layer.group.roles {
            let Some(group) = loaded.roles.get(&role.name) else { continue };
            let at = place(&layer.group.path, role.at);
            add(&group.configcrates, &|_| format!("{at} (role {}, {})", role.name, layer.what));
        }
        add(&layer.group.configcrates, &|mention| format!("{} ({})", place(&layer.group.path, mention.at), layer.what));
    }
    let traced = order.into_iter().map(|(id, asked_by)| {
        let member = &loaded.crates[id];
        let map = loaded.docs.get(&member.path).and_then(|doc| doc.root().as_map());
        let own = member.vars.iter().filter(|(name, _)| !vars.iter().any(|var| var.name == **name));
        TracedCrate {
            name: member.name.clone(),
            place: place(&member.path, member.at),
            asked_by,
            resources: member
                .resources
                .iter()
                .map(|one| (one.name.clone(), one.kind.clone(), place(&member.path, one.at)))
                .collect(),
            defaults: own
                .map(|(name, value)| TracedVar {
                    name: name.clone(),
                    value: value.clone(),
                    source: format!("{} (default)", place_of(loaded, &member.path, map, name)),
                    overrides: Vec::new(),
                })
                .collect(),
        }
    });
    traced.collect()
}

/// As shown to people.
pub(super) fn place(path: &str, at: Pos) -> String {
    format!("{path}:{}:{}", at.line, at.column)
}

/// Where a variable is written: in `vars` of the mapping itself, or in the last of its `vars_files` that has it.
pub(super) fn place_of(loaded: &Loaded<'_>, path: &str, map: Option<&Map>, name: &str) -> String {
    let vars =
        |map: &Map| map.get("vars").and_then(Node::as_map).and_then(|vars| vars.entry(name)).map(|entry| entry.at);
    if let Some(at) = map.and_then(vars) {
        return place(path, at);
    }
    let files = map.and_then(|map| map.get("vars_files"));
    let one = files.and_then(Node::as_str).into_iter();
    let many = files.and_then(Node::as_list).into_iter().flatten().filter_map(Node::as_str);
    let mut found = one.chain(many).filter_map(|file| {
        let path = format!("vars/{file}.vgo");
        let root = loaded.docs.get(&path)?.root().as_map()?;
        let map = root.get("vars").and_then(Node::as_map).unwrap_or(root);
        Some(place(&path, map.entry(name)?.at))
    });
    found.next_back().unwrap_or_else(|| path.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::policy) fn tree() -> Tree {
        [
            ("configcrates/a.vgo", "name: a\nvars: {port: 1, own: 2}\nresources:\n- name: x\n  type: exec\n  command: echo {{ vars.port }}\n"),
            ("configcrates/b.vgo", "name: b\nresources:\n- {name: y, type: exec, command: echo}\n"),
            ("roles/r.vgo", "name: r\nconfigcrates: [b]\nvars: {port: 3}\n"),
            ("vars/shared.vgo", "vars: {metrics: 9100}\n"),
            ("envoys/common.vgo", "configcrates: [a]\nvars:\n  port: 4\n"),
            ("envoys/web/common.vgo", "vars_files: [shared]\n"),
            ("envoys/web/w.vgo", "envoys:\n- match: \"w*\"\n  environment: prod\n  roles: [r]\n  configcrates: [b]\n"),
            ("environments.vgo", "environments:\n  prod:\n    vars: {port: 5}\n"),
        ]
        .into_iter()
        .map(|(path, text)| (path, text.to_string()))
        .collect()
    }

    #[test]
    fn every_value_has_its_place_and_what_it_overrides() {
        let trace = trace(&tree(), "web1").unwrap().unwrap();
        assert_eq!((trace.mapping.as_str(), trace.pattern.as_str()), ("envoys/web/w.vgo:2", "w*"));
        let port = trace.vars.iter().find(|var| var.name == "port").unwrap();
        assert_eq!((&port.value, port.source.as_str()), (&Value::Int(5), "environments.vgo:3:12 (environment prod)"));
        assert_eq!(port.overrides, ["envoys/common.vgo:3:3 (inherited)", "roles/r.vgo:3:8 (role r)"]);
        let metrics = trace.vars.iter().find(|var| var.name == "metrics").unwrap();
        assert_eq!(metrics.source, "vars/shared.vgo:1:8 (inherited)");
        let names: Vec<&str> = trace.crates.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(trace.crates[0].defaults[0].name, "own");
        assert_eq!(
            trace.crates[1].asked_by,
            ["envoys/web/w.vgo:4:11 (role r, mapping)", "envoys/web/w.vgo:5:18 (mapping)"]
        );
        assert_eq!(super::trace(&tree(), "db1").unwrap(), None);
    }

    #[test]
    fn what_a_trace_says_is_what_is_compiled() {
        let compiled = super::super::compile(&tree()).unwrap();
        let id = compiled.mapping_for("web1").unwrap();
        let bundle = common::bundle::Bundle::decode(&compiled.bundle(id).1).unwrap();
        let trace = trace(&tree(), "web1").unwrap().unwrap();
        for (name, value) in &bundle.vars {
            assert_eq!(&trace.vars.iter().find(|var| var.name == *name).unwrap().value, value, "{name}");
        }
        assert_eq!(bundle.resources.len(), trace.crates.iter().map(|one| one.resources.len()).sum::<usize>());
    }
}
