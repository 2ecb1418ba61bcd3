//! Finding things in a tree: everything that has a name, and every line of policy with a text in it.

use common::yaml::{Error, Map, Node, Pos};

use super::load::{Group, Loaded, load};
use super::memory::Memory;
use super::trace::{place, place_of};
use super::tree::Tree;

/// Something in a tree that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// `configcrates/web/nginx.vgo:12:5`.
    pub place: String,
    /// `configcrate`, `resource`, `role`, `inherited`, `mapping`, `variable`, `environment`, `line`.
    pub kind: &'static str,
    /// The name, or the line.
    pub name: String,
}

/// Everything whose name contains the text, and every other line of policy that does. Case does not matter.
pub fn search(tree: &Tree, text: &str) -> Result<Vec<Found>, Vec<Error>> {
    let mut errors = tree.problems.clone();
    let loaded = load(tree, &mut Memory::default(), &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let wanted = text.to_lowercase();
    let mut found = names(&loaded);
    found.retain(|one| one.name.to_lowercase().contains(&wanted));
    for (path, doc) in loaded.docs.iter() {
        for (at, line) in doc.text().lines().enumerate() {
            let start = format!("{path}:{}:", at + 1);
            if line.to_lowercase().contains(&wanted) && !found.iter().any(|one| one.place.starts_with(&start)) {
                found.push(Found { place: format!("{start}1"), kind: "line", name: line.trim().to_string() });
            }
        }
    }
    found.sort_by_key(|one| natural(&one.place));
    Ok(found)
}

/// Everything that is defined, in order of place.
pub fn outline(tree: &Tree) -> Result<Vec<Found>, Vec<Error>> {
    let mut errors = tree.problems.clone();
    let loaded = load(tree, &mut Memory::default(), &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut found = names(&loaded);
    found.retain(|one| one.kind != "variable");
    found.sort_by_key(|one| natural(&one.place));
    Ok(found)
}

/// Path, line and column as what sorts them.
fn natural(place: &str) -> (String, u32, u32) {
    let mut parts = place.rsplitn(3, ':');
    let (column, line) = (parts.next(), parts.next());
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    (parts.next().unwrap_or_default().to_string(), number(line), number(column))
}

fn names(loaded: &Loaded<'_>) -> Vec<Found> {
    let mut all = Vec::new();
    for member in &loaded.crates {
        let map = loaded.docs.get(&member.path).and_then(|doc| doc.root().as_map());
        all.push(Found { place: place(&member.path, member.at), kind: "configcrate", name: member.name.clone() });
        for one in &member.resources {
            let name = format!("{}.{} ({})", member.name, one.name, one.kind);
            all.push(Found { place: place(&member.path, one.at), kind: "resource", name });
        }
        variables(loaded, &member.path, map, member.vars.keys(), &mut all);
    }
    for (name, group) in &loaded.roles {
        let map = loaded.docs.get(&group.path).and_then(|doc| doc.root().as_map());
        let at = map.and_then(|map| map.get("name")).map_or(Pos { line: 1, column: 1 }, |node| node.at);
        all.push(Found { place: place(&group.path, at), kind: "role", name: name.clone() });
        variables(loaded, &group.path, map, group.vars.keys(), &mut all);
    }
    for group in loaded.commons.values() {
        let map = loaded.docs.get(&group.path).and_then(|doc| doc.root().as_map());
        let name = uses(group);
        all.push(Found { place: place(&group.path, Pos { line: 1, column: 1 }), kind: "inherited", name });
        variables(loaded, &group.path, map, group.vars.keys(), &mut all);
    }
    for (name, group) in &loaded.environments {
        let root = loaded.docs.get(&group.path).and_then(|doc| doc.root().as_map());
        let entries = root.and_then(|map| map.get("environments")).and_then(Node::as_map);
        let entry = entries.and_then(|map| map.entry(name));
        let at = entry.map_or(Pos { line: 1, column: 1 }, |entry| entry.at);
        all.push(Found { place: place(&group.path, at), kind: "environment", name: name.clone() });
        variables(loaded, &group.path, entry.and_then(|entry| entry.value.as_map()), group.vars.keys(), &mut all);
    }
    for mapping in &loaded.mappings {
        let root = loaded.docs.get(&mapping.group.path).and_then(|doc| doc.root().as_map());
        let list = root.and_then(|map| map.get("envoys")).and_then(Node::as_list).unwrap_or_default();
        let map = list.iter().find(|node| node.at == mapping.at).and_then(Node::as_map);
        let patterns: Vec<&str> = mapping.patterns.iter().map(|glob| glob.source()).collect();
        let name = format!("{}: {}", patterns.join(" "), uses(&mapping.group));
        all.push(Found { place: place(&mapping.group.path, mapping.at), kind: "mapping", name });
        variables(loaded, &mapping.group.path, map, mapping.group.vars.keys(), &mut all);
    }
    all
}

fn uses(group: &Group) -> String {
    let roles = group.roles.iter().map(|mention| format!("role {}", mention.name));
    roles.chain(group.configcrates.iter().map(|mention| mention.name.clone())).collect::<Vec<_>>().join(", ")
}

fn variables<'n>(
    loaded: &Loaded<'_>,
    path: &str,
    map: Option<&Map>,
    names: impl Iterator<Item = &'n String>,
    all: &mut Vec<Found>,
) {
    let found =
        names.map(|name| Found { place: place_of(loaded, path, map, name), kind: "variable", name: name.clone() });
    all.extend(found);
}

#[cfg(test)]
mod tests {
    use super::super::trace::tests::tree;
    use super::*;

    #[test]
    fn searches_find_names_and_lines_once_each() {
        let found = search(&tree(), "PORT").unwrap();
        let places: Vec<&str> = found.iter().map(|one| one.place.as_str()).collect();
        assert_eq!(
            places,
            [
                "configcrates/a.vgo:2:8",
                "configcrates/a.vgo:6:1",
                "environments.vgo:3:12",
                "envoys/common.vgo:3:3",
                "roles/r.vgo:3:8"
            ]
        );
        assert!(outline(&tree()).unwrap().iter().any(|one| one.name == "w*: role r, b"));
    }
}
