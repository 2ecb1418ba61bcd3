//! Every file of a tree, parsed once, or recalled from when it was parsed before.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use common::bundle::{BlobRef, Value};
use common::glob::Glob;
use common::limits;
use common::policy::compile::{template_file, vars_file};
use common::policy::model::{Blob, Crate, Mention};
use common::policy::parse::{Files, checked_name, mentions, parse_crate, vars_of_files};
use common::policy::secrets;
use common::policy::value::vars;
use common::units::nearest;
use common::yaml::{Doc, Error, Map, Node, Pos};

use super::memory::{Fresh, Known, Memory};

use super::tree::Tree;
use crate::sys::shared::each;

/// Folders of a tree that hold `.vgo` files.
const FOLDERS: [&str; 4] = ["configcrates", "envoys", "roles", "vars"];
/// Folders that `source` names.
const BLOB_FOLDERS: [&str; 2] = ["files", "templates"];
const COMMON_FILE: &str = "common.vgo";
const ENVIRONMENTS_FILE: &str = "environments.vgo";

/// A parsed tree.
pub(super) struct Loaded<'t> {
    /// Files by path, for errors that are found later.
    pub(super) docs: Docs<'t>,
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

/// What one file came to.
pub(super) enum Parsed {
    Crate(Box<Crate>),
    Role { name: String, at: Pos, group: Group },
    Common(Group),
    Environments(Vec<(String, Group)>),
    Mappings(Vec<MappingDef>),
    Vars(Arc<BTreeMap<String, Value>>),
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

/// The policy files of a tree as YAML. What was recalled and not parsed is parsed when somebody asks for it.
pub(super) struct Docs<'t> {
    tree: &'t Tree,
    all: BTreeMap<&'t str, OnceCell<Option<Doc>>>,
    /// Files that were recalled and refer to secrets.
    with_secrets: Vec<&'t str>,
}

impl<'t> Docs<'t> {
    /// Whether the tree has no policy file.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A file. One that does not parse is not there.
    pub(super) fn get(&self, path: &str) -> Option<&Doc> {
        let (path, cell) = self.all.get_key_value(path)?;
        let load = || Doc::load(path, self.tree.file(path)?.bytes.as_deref().unwrap_or_default()).ok();
        cell.get_or_init(load).as_ref()
    }

    /// All of them in path order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'t str, &Doc)> {
        self.all.keys().filter_map(|path| Some((*path, self.get(path)?)))
    }

    /// Those that may refer to secrets.
    pub(super) fn with_secrets(&self) -> impl Iterator<Item = &Doc> {
        let parsed = self.all.values().filter_map(|cell| cell.get()?.as_ref());
        let recalled =
            self.with_secrets.iter().filter(|path| self.all.get(*path).is_some_and(|cell| cell.get().is_none()));
        // The first list is made before the second parses anything.
        parsed.collect::<Vec<_>>().into_iter().chain(recalled.filter_map(|path| self.get(path)).collect::<Vec<_>>())
    }
}

/// Parses everything, or recalls what was parsed before. Errors of all files are added to `errors`.
pub(super) fn load<'t>(tree: &'t Tree, memory: &mut Memory, errors: &mut Vec<Error>) -> Loaded<'t> {
    let mut loaded = Loaded::new(tree);
    let mut files = TreeFiles::new(tree);
    let (mut recalled, mut fresh) = (Vec::new(), Fresh::default());
    let policy: Vec<&str> = tree.files().map(|(path, _)| path).filter(|path| is_policy(path, errors)).collect();
    // Variables first: others name their files.
    let (vars, others): (Vec<&str>, Vec<&str>) = policy.into_iter().partition(|path| path.starts_with("vars/"));
    let known: &Memory = memory;
    let mut read = |path| match recall(known, path, tree) {
        one if one.known.is_some() => one,
        _ => parse_file(path, &mut files),
    };
    let vars: Vec<Read<'_>> = vars.into_iter().map(&mut read).collect();
    for one in &vars {
        files.add_vars(one);
    }
    // Recalling is quick, and quickest on one thread, which need not return memory to another.
    let mut others: Vec<Read<'_>> = others.into_iter().map(|path| recall(known, path, tree)).collect();
    let unknown: Vec<&str> = others.iter().filter(|one| one.known.is_none()).map(|one| one.path).collect();
    let parsed = each(&unknown, || {
        let mut files = files.clone();
        move |path: &&'t str| parse_file(path, &mut files)
    });
    for (one, parsed) in others.iter_mut().filter(|one| one.known.is_none()).zip(parsed) {
        *one = parsed;
    }
    for mut one in vars.into_iter().chain(others) {
        errors.append(&mut one.errors);
        match (&one.doc, &one.known) {
            (None, Some(known)) => {
                recalled.push(one.path);
                loaded.docs.all.insert(one.path, OnceCell::new());
                if known.has_secrets {
                    loaded.docs.with_secrets.push(one.path);
                }
            }
            (Some(_), Some(known)) => fresh.add(tree, one.path, one.used.iter(), known),
            (_, None) => {}
        }
        if let Some(doc) = one.doc {
            loaded.docs.all.insert(one.path, OnceCell::from(Some(doc)));
        }
        if let Some(known) = one.known {
            loaded.add(one.path, known.parsed, errors);
        }
    }
    if errors.is_empty() {
        memory.learn(&recalled, &fresh);
    }
    loaded
}

/// A file that was read: recalled, or parsed as far as it goes.
struct Read<'t> {
    path: &'t str,
    /// Unless it was recalled.
    doc: Option<Doc>,
    known: Option<Known>,
    /// Files that it was parsed with.
    used: BTreeSet<String>,
    errors: Vec<Error>,
}

fn recall<'t>(memory: &Memory, path: &'t str, tree: &Tree) -> Read<'t> {
    Read { path, doc: None, known: memory.recall(tree, path), used: BTreeSet::new(), errors: Vec::new() }
}

fn parse_file<'t>(path: &'t str, files: &mut TreeFiles<'t>) -> Read<'t> {
    let mut one = Read { path, doc: None, known: None, used: BTreeSet::new(), errors: Vec::new() };
    let bytes = files.tree.file(path).and_then(|file| file.bytes.as_deref()).unwrap_or_default();
    let doc = match Doc::load(path, bytes) {
        Ok(doc) => doc,
        Err(error) => {
            one.errors.push(error);
            return one;
        }
    };
    files.used.clear();
    if let Some(parsed) = parse(&doc, files, &mut one.errors) {
        let has_secrets = !secrets::missing(&doc, &|_| false).is_empty();
        one.known = Some(Known { parsed, has_secrets });
    }
    one.used = std::mem::take(&mut files.used);
    one.errors.append(&mut files.errors);
    Read { doc: Some(doc), ..one }
}

fn parse(doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) -> Option<Parsed> {
    match doc.path().split('/').next().unwrap_or_default() {
        "vars" => Some(Parsed::Vars(Arc::new(vars_file(doc, errors)))),
        "configcrates" => parse_crate(doc, None, files, errors).map(|parsed| Parsed::Crate(Box::new(parsed))),
        "roles" => role(doc, files, errors),
        "envoys" if doc.path().ends_with("/common.vgo") => common_file(doc, files, errors),
        "envoys" => mappings(doc, files, errors).map(Parsed::Mappings),
        _ => environments(doc, files, errors).map(Parsed::Environments),
    }
}

fn vars_name(path: &str) -> Option<&str> {
    path.strip_prefix("vars/")?.strip_suffix(".vgo")
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

impl<'t> Loaded<'t> {
    fn new(tree: &'t Tree) -> Loaded<'t> {
        Loaded {
            docs: Docs { tree, all: BTreeMap::new(), with_secrets: Vec::new() },
            crates: Vec::new(),
            crate_ids: HashMap::new(),
            roles: BTreeMap::new(),
            commons: BTreeMap::new(),
            environments: BTreeMap::new(),
            has_environments: false,
            mappings: Vec::new(),
        }
    }

    /// Adds what a file came to; what two files define is an error of the second.
    fn add(&mut self, path: &str, parsed: Parsed, errors: &mut Vec<Error>) {
        match parsed {
            Parsed::Crate(parsed) => self.add_crate(*parsed, errors),
            Parsed::Role { name, at, group } => self.add_role(name, at, group, errors),
            Parsed::Common(group) => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                self.commons.insert(directory.to_string(), group);
            }
            Parsed::Environments(all) => {
                self.has_environments = true;
                self.environments.extend(all);
            }
            Parsed::Mappings(all) => self.mappings.extend(all),
            // Those who name it have them.
            Parsed::Vars(_) => {}
        }
    }

    fn add_crate(&mut self, parsed: Crate, errors: &mut Vec<Error>) {
        if let Some(&first) = self.crate_ids.get(&parsed.name) {
            let first = &self.crates[first];
            let what = format!("configcrate `{}` is already in {}:{}", parsed.name, first.path, first.at.line);
            errors.extend(self.docs.get(&parsed.path).map(|doc| doc.error(parsed.at, what).cure("rename one of them")));
            return;
        }
        self.crate_ids.insert(parsed.name.clone(), self.crates.len());
        self.crates.push(parsed);
    }

    fn add_role(&mut self, name: String, at: Pos, group: Group, errors: &mut Vec<Error>) {
        if let Some(first) = self.roles.get(&name) {
            let what = format!("role `{name}` is already in {}", first.path);
            errors.extend(self.docs.get(&group.path).map(|doc| doc.error(at, what).cure("rename one of them")));
            return;
        }
        self.roles.insert(name, group);
    }
}

fn role(doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) -> Option<Parsed> {
    let root = root(doc, &["name", "configcrates", "vars", "vars_files"], "a role", errors)?;
    let Some(node) = root.get("name") else {
        let error = doc.error(doc.root().at, "the role has no `name`");
        errors.push(error.cure("begin the file with `name: NAME`"));
        return None;
    };
    let name = checked_name(doc, node, "a role", errors)?;
    Some(Parsed::Role { name, at: node.at, group: group(doc, root, files, errors) })
}

fn common_file(doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) -> Option<Parsed> {
    let root = root(doc, &["roles", "configcrates", "vars", "vars_files"], COMMON_FILE, errors)?;
    Some(Parsed::Common(group(doc, root, files, errors)))
}

fn environments(doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) -> Option<Vec<(String, Group)>> {
    let mut all = Vec::new();
    // The file is there, whatever it holds: environments that it lacks are errors.
    let Some(root) = root(doc, &["environments"], ENVIRONMENTS_FILE, errors) else { return Some(all) };
    let Some(node) = root.get("environments") else { return Some(all) };
    let environments = match doc.expect_map(node, "environments") {
        Ok(map) => map,
        Err(error) => {
            errors.push(error);
            return Some(all);
        }
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
        all.push((entry.key.clone(), group(doc, map, files, errors)));
    }
    Some(all)
}

fn mappings(doc: &Doc, files: &mut TreeFiles<'_>, errors: &mut Vec<Error>) -> Option<Vec<MappingDef>> {
    let mut all = Vec::new();
    let node = root(doc, &["envoys"], "a file of mappings", errors)?.get("envoys")?;
    let list = doc.expect_list(node, "envoys").map_err(|error| errors.push(error)).ok()?;
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
        all.push(MappingDef { at: node.at, patterns, environment, group });
    }
    Some(all)
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

#[derive(Clone)]
struct TreeFiles<'t> {
    tree: &'t Tree,
    /// Files that the one that is parsed now was parsed with.
    used: BTreeSet<String>,
    vars: BTreeMap<String, Arc<BTreeMap<String, Value>>>,
    /// What is known of each file that some resource names.
    blobs: HashMap<String, Blob>,
    errors: Vec<Error>,
}

impl<'t> TreeFiles<'t> {
    fn new(tree: &'t Tree) -> TreeFiles<'t> {
        let (used, vars, blobs) = (BTreeSet::new(), BTreeMap::new(), HashMap::new());
        TreeFiles { tree, used, vars, blobs, errors: Vec::new() }
    }

    /// Adds a file of variables. What a broken one would have defined counts as there, so that nothing else is blamed for its
    /// absence.
    fn add_vars(&mut self, file: &Read<'_>) {
        let vars = match &file.known {
            Some(Known { parsed: Parsed::Vars(vars), .. }) => Arc::clone(vars),
            _ => Arc::default(),
        };
        self.vars.insert(vars_name(file.path).unwrap_or_default().to_string(), vars);
    }
}

impl Files for TreeFiles<'_> {
    fn blob(&mut self, path: &str) -> Result<Blob, String> {
        self.used.insert(path.to_string());
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
        self.used.insert(format!("vars/{name}.vgo"));
        self.vars.get(name).cloned().ok_or_else(|| match nearest(name, self.vars.keys().map(String::as_str)) {
            Some(near) => format!("there is no file `vars/{name}.vgo`; did you mean `{near}`?"),
            None => format!("there is no file `vars/{name}.vgo`"),
        })
    }
}
