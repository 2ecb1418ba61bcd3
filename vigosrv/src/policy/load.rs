//! Every file of a tree, parsed once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use common::bundle::{BlobRef, Value};
use common::glob::Glob;
use common::limits;
use common::policy::compile::{template_file, vars_file};
use common::policy::model::{Blob, Crate, Mention};
use common::policy::parse::{Files, checked_name, mentions, parse_crate, vars_of_files};
use common::policy::value::vars;
use common::units::nearest;
use common::yaml::{Doc, Error, Map, Node, Pos};

use super::tree::Tree;

/// Folders of a tree that hold `.vgo` files.
const FOLDERS: [&str; 4] = ["configcrates", "envoys", "roles", "vars"];
/// Folders that `source` names.
const BLOB_FOLDERS: [&str; 2] = ["files", "templates"];
const COMMON_FILE: &str = "common.vgo";
const ENVIRONMENTS_FILE: &str = "environments.vgo";

/// A parsed tree.
#[derive(Default)]
pub(super) struct Loaded {
    /// Files by path, for errors that are found later.
    pub(super) docs: HashMap<String, Doc>,
    /// In path order.
    pub(super) crates: Vec<Crate>,
    pub(super) crate_ids: HashMap<String, usize>,
    pub(super) roles: BTreeMap<String, Group>,
    /// By directory: `envoys`, `envoys/production`.
    pub(super) commons: BTreeMap<String, Group>,
    pub(super) environments: BTreeMap<String, Group>,
    pub(super) has_environments: bool,
    /// In path order, then in the order of the file.
    pub(super) mappings: Vec<MappingDef>,
}

/// What a role, a `common.vgo`, a mapping or an environment adds.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) path: String,
    pub(super) roles: Vec<Mention>,
    pub(super) configcrates: Vec<Mention>,
    pub(super) vars: BTreeMap<String, Value>,
}

/// A mapping as written.
#[derive(Debug)]
pub(super) struct MappingDef {
    pub(super) at: Pos,
    pub(super) patterns: Vec<Glob>,
    pub(super) environment: Option<Mention>,
    pub(super) group: Group,
}

/// Parses everything. Errors of all files are added to `errors`.
pub(super) fn load(tree: &Tree, errors: &mut Vec<Error>) -> Loaded {
    let mut loaded = Loaded::default();
    let mut files = TreeFiles { tree, vars: BTreeMap::new(), blobs: HashMap::new(), errors: Vec::new() };
    let mut docs: Vec<Doc> = Vec::new();
    for (path, file) in tree.files() {
        if !is_policy(path, errors) {
            continue;
        }
        match Doc::load(path, file.bytes.as_deref().unwrap_or_default()) {
            Ok(doc) => docs.push(doc),
            Err(error) => {
                // What the broken file would have defined counts as there, so that nothing else is blamed for its absence.
                if let Some(name) = path.strip_prefix("vars/").and_then(|name| name.strip_suffix(".vgo")) {
                    files.vars.insert(name.to_string(), Arc::default());
                }
                errors.push(error);
            }
        }
    }
    let (vars_docs, docs): (Vec<Doc>, Vec<Doc>) = docs.into_iter().partition(|doc| doc.path().starts_with("vars/"));
    for doc in &vars_docs {
        let name = doc.path().trim_start_matches("vars/").trim_end_matches(".vgo").to_string();
        let vars = vars_file(doc, errors);
        files.vars.insert(name, Arc::new(vars));
    }
    for doc in &docs {
        match doc.path().split('/').next().unwrap_or_default() {
            "configcrates" => loaded.add_crate(doc, &mut files, errors),
            "roles" => loaded.add_role(doc, &mut files, errors),
            "envoys" if doc.path().ends_with("/common.vgo") => loaded.add_common(doc, &mut files, errors),
            "envoys" => loaded.add_mappings(doc, &mut files, errors),
            _ => loaded.add_environments(doc, &mut files, errors),
        }
    }
    errors.append(&mut files.errors);
    loaded.docs = vars_docs.into_iter().chain(docs).map(|doc| (doc.path().to_string(), doc)).collect();
    loaded
}

/// Whether a file is policy to be parsed; complains about files that look as if they should be.
fn is_policy(path: &str, errors: &mut Vec<Error>) -> bool {
    let folder = path.split_once('/').map(|(folder, _)| folder);
    let in_folder = folder.is_some_and(|folder| FOLDERS.contains(&folder));
    if folder.is_some_and(|folder| BLOB_FOLDERS.contains(&folder)) {
        return false;
    }
    if path.ends_with(".yaml") || path.ends_with(".yml") {
        let better = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
        errors.push(Error::whole(path, "policy files end in `.vgo`").cure(format!("rename it to {better}.vgo")));
        return false;
    }
    if !path.ends_with(".vgo") {
        return false;
    }
    if path == ENVIRONMENTS_FILE || in_folder {
        return true;
    }
    let error = Error::whole(path, "nothing reads a policy file here");
    let near = folder.map_or_else(
        || nearest(path, [ENVIRONMENTS_FILE]).map(str::to_string),
        |folder| nearest(folder, FOLDERS).map(|near| format!("{near}/")),
    );
    errors.push(match near {
        Some(near) => error.cure(format!("did you mean `{near}`?")),
        None => error.expected("configcrates/, roles/, envoys/, vars/ or environments.vgo"),
    });
    false
}

impl Loaded {
    fn add_crate(&mut self, doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) {
        let Some(parsed) = parse_crate(doc, None, files, errors) else { return };
        if let Some(&first) = self.crate_ids.get(&parsed.name) {
            let first = &self.crates[first];
            let what = format!("configcrate `{}` is already in {}:{}", parsed.name, first.path, first.at.line);
            errors.push(doc.error(parsed.at, what).cure("rename one of them"));
            return;
        }
        self.crate_ids.insert(parsed.name.clone(), self.crates.len());
        self.crates.push(parsed);
    }

    fn add_role(&mut self, doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) {
        let Some(root) = root(doc, &["name", "configcrates", "vars", "vars_files"], "a role", errors) else { return };
        let Some(node) = root.get("name") else {
            let error = doc.error(doc.root().at, "the role has no `name`");
            errors.push(error.cure("begin the file with `name: NAME`"));
            return;
        };
        let Some(name) = checked_name(doc, node, "a role", errors) else { return };
        if let Some(first) = self.roles.get(&name) {
            let what = format!("role `{name}` is already in {}", first.path);
            errors.push(doc.error(node.at, what).cure("rename one of them"));
            return;
        }
        self.roles.insert(name, group(doc, root, files, errors));
    }

    fn add_common(&mut self, doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) {
        let Some(root) = root(doc, &["roles", "configcrates", "vars", "vars_files"], COMMON_FILE, errors) else {
            return;
        };
        let directory = doc.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        self.commons.insert(directory.to_string(), group(doc, root, files, errors));
    }

    fn add_environments(&mut self, doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) {
        self.has_environments = true;
        let Some(root) = root(doc, &["environments"], ENVIRONMENTS_FILE, errors) else { return };
        let Some(node) = root.get("environments") else { return };
        let environments = match doc.expect_map(node, "environments") {
            Ok(map) => map,
            Err(error) => return errors.push(error),
        };
        for entry in &environments.entries {
            let what = format!("environment `{}`", entry.key);
            let map = match doc.expect_map(&entry.value, &what) {
                Ok(map) => map,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            errors.extend(doc.unknown_keys(map, &["vars", "vars_files", "configcrates"], &what));
            self.environments.insert(entry.key.clone(), group(doc, map, files, errors));
        }
    }

    fn add_mappings(&mut self, doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) {
        let Some(root) = root(doc, &["envoys"], "a file of mappings", errors) else { return };
        let Some(node) = root.get("envoys") else { return };
        let list = match doc.expect_list(node, "envoys") {
            Ok(list) => list,
            Err(error) => return errors.push(error),
        };
        for node in list {
            let Some(map) = node.as_map() else {
                errors.push(doc.wrong_type(node, "envoys", "a mapping with match, roles, configcrates and vars"));
                continue;
            };
            let known = ["match", "environment", "roles", "configcrates", "vars", "vars_files"];
            errors.extend(doc.unknown_keys(map, &known, "an envoy mapping"));
            let patterns = patterns(doc, node, map, errors);
            let environment = map.get("environment").and_then(|node| {
                let name = doc.expect_name(node, "environment").map_err(|error| errors.push(error)).ok()?;
                Some(Mention { name: name.to_string(), at: node.at })
            });
            let group = group(doc, map, files, errors);
            self.mappings.push(MappingDef { at: node.at, patterns, environment, group });
        }
    }
}

/// The mapping that a file is, its keys checked.
fn root<'d>(doc: &'d Doc, keys: &[&str], what: &str, errors: &mut Vec<Error>) -> Option<&'d Map> {
    let root = doc.expect_root(keys).map_err(|error| errors.push(error)).ok()?;
    errors.extend(doc.unknown_keys(root, keys, what));
    Some(root)
}

fn group(doc: &Doc, map: &Map, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) -> Group {
    let mut all = vars_of_files(doc, map, files, errors);
    all.extend(vars(doc, map.get("vars"), errors));
    Group {
        path: doc.path().to_string(),
        roles: mentions(doc, map, "roles", errors),
        configcrates: mentions(doc, map, "configcrates", errors),
        vars: all,
    }
}

fn patterns(doc: &Doc, node: &Node, map: &Map, errors: &mut Vec<Error>) -> Vec<Glob> {
    let Some(written) = map.get("match") else {
        let error = doc.error(node.at, "the mapping has no `match`");
        errors.push(error.cure("add `match: PATTERN`, such as \"web-*.example.com\""));
        return Vec::new();
    };
    let list = match doc.expect_str_list(written, "match") {
        Ok(list) if list.is_empty() => {
            errors.push(doc.error(written.at, "`match` is empty").expected("a pattern, or a list of patterns"));
            return Vec::new();
        }
        Ok(list) => list,
        Err(error) => {
            errors.push(error);
            return Vec::new();
        }
    };
    let mut out = Vec::new();
    for (pattern, at) in list {
        match Glob::try_new(pattern) {
            Ok(glob) => out.push(glob),
            Err(bad) => errors.push(doc.error(at, format!("`{pattern}` is no pattern: {bad}"))),
        }
    }
    out
}

struct TreeFiles<'t> {
    tree: &'t Tree,
    vars: BTreeMap<String, Arc<BTreeMap<String, Value>>>,
    /// What is known of each file that some resource names.
    blobs: HashMap<String, Blob>,
    errors: Vec<Error>,
}

impl Files for TreeFiles<'_> {
    fn blob(&mut self, path: &str) -> Result<Blob, String> {
        if let Some(known) = self.blobs.get(path) {
            return Ok(known.clone());
        }
        let Some(file) = self.tree.file(path) else {
            let folder = path.split('/').next().unwrap_or_default();
            let others = self.tree.files().map(|(other, _)| other).filter(|other| other.starts_with(folder));
            return Err(match nearest(path, others) {
                Some(near) => format!("there is no file `{path}`; did you mean `{near}`?"),
                None => format!("there is no file `{path}` in the tree"),
            });
        };
        if file.size > limits::BLOB_BYTES_MAX {
            return Err(format!("`{path}` has {} bytes; expected at most {}", file.size, limits::BLOB_BYTES_MAX));
        }
        let uses = match (path.starts_with("templates/"), &file.bytes) {
            (true, Some(bytes)) => template_file(path, bytes, &mut self.errors).map(Arc::new),
            _ => None,
        };
        let blob = Blob { blob: BlobRef { sha256: file.sha256, size: file.size, path: path.to_string() }, uses };
        self.blobs.insert(path.to_string(), blob.clone());
        Ok(blob)
    }

    fn vars_file(&mut self, name: &str) -> Result<Arc<BTreeMap<String, Value>>, String> {
        self.vars.get(name).cloned().ok_or_else(|| match nearest(name, self.vars.keys().map(String::as_str)) {
            Some(near) => format!("there is no file `vars/{name}.vgo`; did you mean `{near}`?"),
            None => format!("there is no file `vars/{name}.vgo`"),
        })
    }
}
