//! A configcrate from its file. Everything that can be wrong within one file is found here, all of it at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::dag::{self, Cycle};
use super::model::{Blob, Crate, Foreign, Mention, Relation, Site, Statement};
use super::names::{Flaw, Looker, Spot, Uses};
use super::params::Type;
use super::template::has_markers;
use super::types;
use super::value::{value, vars};
use crate::bundle::Value;
use crate::limits;
use crate::units::nearest;
use crate::yaml::{Doc, Entry, Error, Kind, Map, Node, Pos};

/// Keys of a configcrate.
const CRATE_KEYS: [&str; 5] = ["name", "vars", "vars_files", "defaults", "resources"];
/// Keys that every resource takes.
pub const COMMON_KEYS: [&str; 12] = [
    "name",
    "type",
    "when",
    "foreach",
    "depends_on",
    "before",
    "notify",
    "subscribes",
    "timeout",
    "retries",
    "sensitive",
    "noop",
];

/// What a configcrate needs from beside its file.
pub trait Files {
    /// A file below `files/` or `templates/`; the error is a sentence.
    fn blob(&mut self, path: &str) -> Result<Blob, String>;

    /// Variables of `vars/NAME.vgo`; the error is a sentence. What is wrong inside that file is reported by its loader.
    fn vars_file(&mut self, name: &str) -> Result<Arc<BTreeMap<String, Value>>, String>;
}

/// Parses a configcrate. `fallback` is its name where the file need not give one. The crate is there also when there are
/// errors, so that others may still refer to it; it must not be compiled then.
pub fn parse_crate(doc: &Doc, fallback: Option<&str>, files: &mut dyn Files, errors: &mut Vec<Error>) -> Option<Crate> {
    let root = doc.expect_root(&CRATE_KEYS).map_err(|error| errors.push(error)).ok()?;
    errors.extend(doc.unknown_keys(root, &CRATE_KEYS, "a configcrate"));
    let (name, at) = crate_name(doc, root, fallback, errors)?;
    let mut defaults_of = vars_of_files(doc, root, files, errors);
    defaults_of.extend(vars(doc, root.get("vars"), errors));
    let defaults = defaults(doc, root, errors);
    let (required, lost) = (BTreeMap::new(), BTreeSet::new());
    let mut parser = Parser { doc, looker: Looker::default(), files, errors, defaults, required, lost };
    let (resources, mentions) = parser.resources(root);
    let (required, lost) = (parser.required, parser.lost);
    let keys = resources.iter().try_fold(BTreeSet::new(), |mut all, resource| {
        all.extend(resource.keys.as_ref()?.iter().cloned());
        Some(all)
    });
    let path = doc.path().to_string();
    let mut parsed = Crate {
        name,
        at,
        path,
        vars: defaults_of,
        resources,
        plan: dag::Plan::default(),
        foreign: Vec::new(),
        required,
        keys,
    };
    link(doc, &mut parsed, &mentions, &lost, errors);
    Some(parsed)
}

/// The variables of `vars_files`, a later file over an earlier one.
pub fn vars_of_files(doc: &Doc, root: &Map, files: &mut dyn Files, errors: &mut Vec<Error>) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    for mention in mentions(doc, root, "vars_files", errors) {
        match files.vars_file(&mention.name) {
            Ok(vars) => out.extend(vars.iter().map(|(name, value)| (name.clone(), value.clone()))),
            Err(what) => errors.push(doc.error(mention.at, what)),
        }
    }
    out
}

/// A list of names under a key; nothing where the key is not there.
pub fn mentions(doc: &Doc, map: &Map, key: &str, errors: &mut Vec<Error>) -> Vec<Mention> {
    let list = map.get(key).map_or(Ok(Vec::new()), |node| doc.expect_str_list(node, key));
    let mut out: Vec<Mention> = Vec::new();
    match list {
        Ok(list) => {
            for (name, at) in list {
                if out.iter().any(|known| known.name == name) {
                    errors.push(doc.error(at, format!("`{name}` is in `{key}` twice")).cure("remove one of them"));
                } else {
                    out.push(Mention { name: name.to_string(), at });
                }
            }
        }
        Err(error) => errors.push(error),
    }
    out
}

/// Checks the name of a configcrate, role or environment.
pub fn checked_name(doc: &Doc, node: &Node, what: &str, errors: &mut Vec<Error>) -> Option<String> {
    let name = match doc.expect_name(node, "name") {
        Ok(name) => name,
        Err(error) => {
            errors.push(error);
            return None;
        }
    };
    if !name.chars().all(is_name_char) {
        let error = doc.error(node.at, format!("`{name}` cannot be the name of {what}"));
        errors.push(error.expected("letters, digits, `_` and `-`"));
        return None;
    }
    Some(name.to_string())
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn crate_name(doc: &Doc, root: &Map, fallback: Option<&str>, errors: &mut Vec<Error>) -> Option<(String, Pos)> {
    match (root.get("name"), fallback) {
        (Some(node), _) => Some((checked_name(doc, node, "a configcrate", errors)?, node.at)),
        (None, Some(name)) => Some((name.to_string(), doc.root().at)),
        (None, None) => {
            let error = doc.error(doc.root().at, "the configcrate has no `name`");
            errors.push(error.cure("begin the file with `name: NAME`"));
            None
        }
    }
}

/// The `defaults`: each must be a parameter of some type.
fn defaults<'d>(doc: &Doc, root: &'d Map, errors: &mut Vec<Error>) -> &'d [Entry] {
    let Some(node) = root.get("defaults") else { return &[] };
    let map = match doc.expect_map(node, "defaults") {
        Ok(map) => map,
        Err(error) => {
            errors.push(error);
            return &[];
        }
    };
    let known: BTreeSet<&str> = types::all().flat_map(|kind| kind.params).map(|param| param.name).collect();
    let known: Vec<&str> = known.into_iter().collect();
    errors.extend(doc.unknown_keys(map, &known, "`defaults`"));
    &map.entries
}

/// Resolves what resources say of each other, and orders those of this crate.
fn link(
    doc: &Doc,
    parsed: &mut Crate,
    mentions: &[(u32, Relation, Mention)],
    lost: &BTreeSet<String>,
    errors: &mut Vec<Error>,
) {
    let own: HashMap<&str, u32> =
        parsed.resources.iter().zip(0..).map(|(resource, n)| (resource.name.as_str(), n)).collect();
    let (mut edges, mut foreign) = (Vec::new(), Vec::new());
    for (from, relation, mention) in mentions {
        let name = mention.name.strip_prefix(&format!("{}.", parsed.name)).unwrap_or(&mention.name);
        if let Some(&to) = own.get(name) {
            edges.push(relation.edge(*from, to));
            continue;
        }
        if lost.contains(name) {
            continue;
        }
        match mention.name.split_once('.') {
            Some((to_crate, to)) if to_crate != parsed.name && to_crate.chars().all(is_name_char) && !to.is_empty() => {
                let (to_crate, to) = (to_crate.to_string(), to.to_string());
                foreign.push(Foreign { from: *from, to_crate, to, relation: *relation, at: mention.at });
            }
            _ => {
                let error = doc.error(mention.at, format!("`{}` names no resource `{name}`", relation.key()));
                errors.push(match nearest(name, own.keys().copied()) {
                    Some(near) => error.cure(format!("did you mean `{near}`?")),
                    None => error.expected("a resource of this configcrate, or `configcrate.resource` of another"),
                });
            }
        }
    }
    match dag::plan(parsed.resources.len() as u32, &edges) {
        Ok(plan) => parsed.plan = plan,
        Err(Cycle(path)) => {
            let name = |&at: &u32| parsed.resources[at as usize].name.as_str();
            let first = &parsed.resources[path[0] as usize];
            errors.push(cycle_error(doc, first.at, path.iter().map(name)));
        }
    }
    parsed.foreign = foreign;
}

/// The error about a cycle, shown as a path.
pub fn cycle_error<'n>(doc: &Doc, at: Pos, names: impl Iterator<Item = &'n str>) -> Error {
    let names: Vec<&str> = names.collect();
    let path = format!("{} -> {}", names.join(" -> "), names[0]);
    let error = doc.error(at, format!("resources wait for each other in a cycle: {path} (each runs before the next)"));
    error.cure("remove one of depends_on, before, notify or subscribes")
}

struct Parser<'d, 'f> {
    doc: &'d Doc,
    looker: Looker<'d>,
    files: &'f mut dyn Files,
    errors: &'f mut Vec<Error>,
    defaults: &'d [Entry],
    required: BTreeMap<String, Site>,
    /// Names of resources with errors: a reference to one is no further error.
    lost: BTreeSet<String>,
}

/// What the templates of one resource use.
#[derive(Default)]
struct Seen {
    keys: BTreeSet<String>,
    all_vars: bool,
    has_item: bool,
}

impl<'d> Parser<'d, '_> {
    fn resources(&mut self, root: &'d Map) -> (Vec<Statement>, Vec<(u32, Relation, Mention)>) {
        let (mut out, mut mentions) = (Vec::new(), Vec::new());
        let mut places: HashMap<String, Pos> = HashMap::new();
        let list = root.get("resources").map_or(Ok(&[][..]), |node| self.doc.expect_list(node, "resources"));
        for node in self.take(list).unwrap_or_default() {
            let Some(map) = node.as_map() else {
                self.errors.push(self.doc.wrong_type(node, "resources", "a mapping with name, type and parameters"));
                continue;
            };
            let own = out.len() as u32;
            let Some(statement) = self.statement(node, map) else {
                self.lost.extend(map.get("name").and_then(Node::as_str).map(str::to_string));
                continue;
            };
            if let Some(first) = places.get(&statement.name) {
                let what = format!("two resources are named `{}`, the first in line {}", statement.name, first.line);
                self.errors.push(self.doc.error(statement.at, what).cure("rename one of them"));
                continue;
            }
            places.insert(statement.name.clone(), statement.at);
            for relation in Relation::ALL {
                let found = self::mentions(self.doc, map, relation.key(), self.errors);
                mentions.extend(found.into_iter().map(|mention| (own, relation, mention)));
            }
            out.push(statement);
        }
        (out, mentions)
    }

    fn statement(&mut self, node: &Node, map: &'d Map) -> Option<Statement> {
        let mut seen = Seen { has_item: map.get("foreach").is_some_and(|node| !node.is_null()), ..Seen::default() };
        // Look at everything before giving up, so that one pass shows all errors.
        let name = self.name(node, map, &mut seen);
        let kind = self.kind(node, map);
        let when = self.when(map, &mut seen);
        let foreach = self.foreach(map, &mut seen);
        let timeout_ms = match map.get("timeout") {
            Some(node) => self.doc.expect_duration_ms(node, "timeout", 1_000, limits::INTERVAL_MAX_MS),
            None => Ok(limits::RESOURCE_TIMEOUT_DEFAULT_MS),
        };
        let timeout_ms = self.take(timeout_ms);
        let retries =
            map.get("retries").map_or(Ok(0), |node| self.doc.expect_int(node, "retries", 0, limits::RETRIES_MAX));
        let retries = self.take(retries);
        let (sensitive, noop) = (self.flag(map, "sensitive"), self.flag(map, "noop"));
        let (params, blob) = kind.map(|kind| self.params(node, map, kind, &mut seen))?;
        let (name, at) = name?;
        Some(Statement {
            name,
            at,
            kind: kind?.name.to_string(),
            params,
            when,
            foreach,
            timeout_ms: timeout_ms?,
            retries: retries? as u32,
            sensitive,
            noop,
            blob,
            keys: (!seen.all_vars).then_some(seen.keys),
        })
    }

    fn name(&mut self, node: &Node, map: &'d Map, seen: &mut Seen) -> Option<(String, Pos)> {
        let Some(written) = map.get("name") else {
            let error = self.doc.error(node.at, "the resource has no `name`");
            self.errors.push(error.cure("add `name: NAME`, unique in this configcrate"));
            return None;
        };
        let name = self.take(self.doc.expect_name(written, "name"))?;
        if has_markers(name) {
            if !seen.has_item {
                let error = self.doc.error(written.at, "a name can hold a template only with `foreach`");
                self.errors.push(error.cure("write a plain name, or add `foreach`"));
                return None;
            }
            self.look(written, name, seen);
        } else if !name.chars().all(is_name_char) {
            let error = self.doc.error(written.at, format!("`{name}` cannot be the name of a resource"));
            self.errors.push(error.expected("letters, digits, `_` and `-`"));
            return None;
        } else if seen.has_item {
            // Every item would get the same name.
            let error = self.doc.error(written.at, format!("with `foreach`, every item would be named `{name}`"));
            self.errors
                .push(error.cure(format!("put something of the item into it, such as \"{name}-{{{{ item }}}}\"")));
            return None;
        }
        Some((name.to_string(), written.at))
    }

    fn kind(&mut self, node: &Node, map: &Map) -> Option<&'static Type> {
        let Some(written) = map.get("type") else {
            let similar = map.keys().filter(|key| nearest(key, ["type"]).is_some());
            let cure = match similar.min() {
                Some(key) => format!("did you mean `type` where it says `{key}`?"),
                None => "add `type: TYPE`; `vigo-envoy doc` lists the types".to_string(),
            };
            self.errors.push(self.doc.error(node.at, "the resource has no `type`").cure(cure));
            return None;
        };
        let name = self.take(self.doc.expect_name(written, "type"))?;
        let known = types::find(name);
        if known.is_none() {
            self.errors.push(self.doc.error(written.at, types::unknown_type(name)));
        }
        known
    }

    fn when(&mut self, map: &'d Map, seen: &mut Seen) -> String {
        let Some(node) = map.get("when") else { return String::new() };
        match &node.kind {
            Kind::Null => String::new(),
            Kind::Bool(b) => b.to_string(),
            Kind::Str(text) if !text.trim().is_empty() => {
                let uses = self.looker.condition(text, seen.has_item);
                self.note(node, uses, seen);
                text.clone()
            }
            _ => {
                let expected = "a condition in quotes, such as \"traits.os.arch == 'aarch64'\"";
                self.errors.push(self.doc.wrong_type(node, "when", expected));
                String::new()
            }
        }
    }

    fn foreach(&mut self, map: &'d Map, seen: &mut Seen) -> Option<Value> {
        let node = map.get("foreach").filter(|node| !node.is_null())?;
        let mut outside = Seen::default();
        match &node.kind {
            Kind::List(items) if items.len() > limits::FOREACH_ITEMS_MAX => {
                let error = self.doc.error(node.at, format!("`foreach` has {} items", items.len()));
                self.errors.push(error.expected(format!("at most {}", limits::FOREACH_ITEMS_MAX)));
            }
            Kind::List(_) => self.look_into(node, &mut outside),
            Kind::Str(text) if text.trim().starts_with("{{") && text.trim().ends_with("}}") => {
                self.look(node, text, &mut outside);
            }
            _ => {
                let expected = "a list, or one template that gives a list, such as \"{{ vars.people }}\"";
                self.errors.push(self.doc.wrong_type(node, "foreach", expected));
            }
        }
        seen.keys.append(&mut outside.keys);
        seen.all_vars |= outside.all_vars;
        let items = value(self.doc, node, "foreach", self.errors);
        Some(if let Value::Str(text) = items { Value::Str(text.trim().to_string()) } else { items })
    }

    fn flag(&mut self, map: &Map, key: &str) -> bool {
        let flag = map.get(key).map_or(Ok(false), |node| self.doc.expect_bool(node, key));
        self.take(flag).unwrap_or_default()
    }

    fn params(
        &mut self,
        node: &Node,
        map: &'d Map,
        kind: &'static Type,
        seen: &mut Seen,
    ) -> (BTreeMap<String, Value>, Option<crate::bundle::BlobRef>) {
        let own = map.entries.iter().filter(|entry| !COMMON_KEYS.contains(&entry.key.as_str()));
        let given = |name: &str| map.get(name).is_some();
        let inherited = self.defaults.iter().filter(|entry| kind.inherits(&entry.key) && !given(&entry.key));
        let (mut params, mut places) = (BTreeMap::new(), HashMap::new());
        let (mut blob, mut misspelt) = (None, Vec::new());
        for entry in own.chain(inherited) {
            let Some(param) = kind.param(&entry.key) else {
                misspelt.extend(self.unknown_param(entry, kind));
                continue;
            };
            self.look_into(&entry.value, seen);
            places.insert(entry.key.as_str(), &entry.value);
            // What is mounted has a `source` as well, which is no file of the policy.
            if param.kind == crate::policy::params::Kind::Source {
                blob = self.source(&entry.value, seen).or(blob);
            }
            params.insert(entry.key.clone(), value(self.doc, &entry.value, &entry.key, self.errors));
        }
        for problem in kind.check(&params) {
            // A misspelt parameter is not missing too.
            if misspelt.iter().any(|name| problem.message == kind.missing(name)) {
                continue;
            }
            let place = problem.param.as_deref().and_then(|name| Some((name, places.get(name)?)));
            self.errors.push(match place {
                Some((name, written)) => match problem.message.strip_prefix(&format!("`{name}` must be ")) {
                    Some(expected) => self.doc.wrong_type(written, name, expected),
                    None => self.doc.error(written.at, problem.message),
                },
                None => self.doc.error(node.at, problem.message),
            });
        }
        params.retain(|_, value| *value != Value::Null);
        (params, blob)
    }

    /// Complains about a parameter that the type does not have; returns the one that was probably meant.
    fn unknown_param(&mut self, entry: &Entry, kind: &'static Type) -> Option<&'static str> {
        let params = kind.params.iter().map(|param| param.name);
        let error = self.doc.error(entry.at, format!("`{}` has no parameter `{}`", kind.name, entry.key));
        let near = nearest(&entry.key, params.clone().chain(COMMON_KEYS));
        self.errors.push(match near {
            Some(near) => error.cure(format!("did you mean `{near}`?")),
            None => error.expected(format!("one of {}", params.collect::<Vec<_>>().join(", "))),
        });
        near
    }

    /// The file that `source` names; its path is literal, because its content is part of what is published.
    fn source(&mut self, node: &'d Node, seen: &mut Seen) -> Option<crate::bundle::BlobRef> {
        let path = node.as_str()?;
        if has_markers(path) {
            let error = self.doc.error(node.at, "`source` cannot be a template: its file is published with the policy");
            self.errors.push(error.cure("write one resource a file, each with a `when`"));
            return None;
        }
        // What is no path of this kind is refused by the parameter table.
        if !path.starts_with("files/") && !path.starts_with("templates/") {
            return None;
        }
        match self.files.blob(path) {
            Ok(found) => {
                if let Some(uses) = &found.uses {
                    self.note_file(path, uses, seen, node);
                }
                Some(found.blob)
            }
            Err(what) => {
                self.errors.push(self.doc.error(node.at, what));
                None
            }
        }
    }

    /// Looks into every text below a node.
    fn look_into(&mut self, node: &'d Node, seen: &mut Seen) {
        match &node.kind {
            Kind::Str(text) if has_markers(text) => self.look(node, text, seen),
            Kind::List(items) => items.iter().for_each(|item| self.look_into(item, seen)),
            Kind::Map(map) => map.entries.iter().for_each(|entry| self.look_into(&entry.value, seen)),
            _ => {}
        }
    }

    fn look(&mut self, node: &Node, text: &'d str, seen: &mut Seen) {
        let uses = self.looker.text(text, seen.has_item);
        self.note(node, uses, seen);
    }

    fn note(&mut self, node: &Node, uses: Uses, seen: &mut Seen) {
        for Flaw { spot, what, cure } in uses.flaws {
            let at = self.doc.pos_in(node, spot.line, spot.column);
            self.errors.push(self.doc.error(at, what).cure(cure));
        }
        for (name, spot) in uses.required {
            let site = || Site { template: None, at: self.doc.pos_in(node, spot.line, spot.column) };
            self.required.entry(name).or_insert_with(site);
        }
        seen.keys.extend(uses.keys);
        seen.all_vars |= uses.all_vars;
    }

    /// The same for a template file, whose own flaws its loader reports.
    fn note_file(&mut self, path: &str, uses: &Uses, seen: &mut Seen, node: &Node) {
        for (name, Spot { line, column }) in &uses.required {
            let at = Pos { line: *line, column: *column };
            self.required.entry(name.clone()).or_insert_with(|| Site { template: Some(path.into()), at });
        }
        if uses.item && !seen.has_item {
            let error = self.doc.error(node.at, format!("{path} uses `item`, which exists only with `foreach`"));
            self.errors.push(error.cure("add `foreach` to the resource, or use `vars` in the template"));
        }
        seen.keys.extend(uses.keys.iter().cloned());
        seen.all_vars |= uses.all_vars;
    }

    fn take<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }
}
