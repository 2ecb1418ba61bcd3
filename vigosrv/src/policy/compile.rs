//! Compiles a tree: loads, resolves, checks, encodes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use common::bundle::{Value, bundle_hash};
use common::ids::Hash32;
use common::limits;
use common::policy::compile::{Discord, Required, error_in_text, join, missing_vars, open_vars, uses_var};
use common::policy::model::{Crate, Site};
use common::policy::parse::cycle_error;
use common::policy::secrets;
use common::yaml::Error;

use super::MappingId;
use super::compiled::{Compiled, Content};
use super::encode::{self, Pieces, Recipe, Sequence};
use super::hosts::HostIndex;
use super::load::{Loaded, MappingDef, load};
use super::memory::Memory;
use super::resolve::Resolver;

use super::tree::Tree;
use crate::sys::shared::each;

/// Compiles a tree, or says everything that is wrong with it, ordered by place.
pub fn compile(tree: &Tree) -> Result<Compiled, Vec<Error>> {
    compile_with(tree, &mut Memory::default())
}

/// The same with a memory, which makes it fast and nothing else.
pub fn compile_with(tree: &Tree, memory: &mut Memory) -> Result<Compiled, Vec<Error>> {
    resolve_all(tree, memory, |compiler, errors| compiler.finish(errors))
}

/// Says everything that is wrong with a tree, as [`compile`] does, and makes no bundle. The number of its mappings.
pub fn check(tree: &Tree, memory: &mut Memory) -> Result<usize, Vec<Error>> {
    resolve_all(tree, memory, |compiler, errors| {
        let n = compiler.ready.len();
        // Nearly every bundle is far below its limits, which is seen without making it.
        let mut bounds = HashMap::new();
        let mut bytes = |id: usize, loaded: &Loaded<'_>| {
            *bounds.entry(id).or_insert_with(|| encode::bytes_at_most(&loaded.crates[id]))
        };
        let loaded = compiler.loaded;
        compiler.ready.retain(|ready| {
            let vars: usize =
                ready.vars.iter().map(|(name, value)| name.len() + encode::value_bytes_at_most(value)).sum();
            let crates: usize = ready.crates.iter().map(|&id| bytes(id, loaded)).sum();
            let n_resources: usize = ready.crates.iter().map(|&id| loaded.crates[id].resources.len()).sum();
            n_resources > limits::RESOURCES_PER_BUNDLE_MAX || vars + crates + HEAD_BYTES > limits::BUNDLE_BYTES_MAX
        });
        let recipes = compiler.recipes();
        let sizes: Vec<usize> = recipes.iter().map(|recipe| recipe.payload().len()).collect();
        compiler.refuse_too_large(&recipes, &sizes, errors);
        n
    })
}

fn resolve_all<T>(
    tree: &Tree,
    memory: &mut Memory,
    finish: impl FnOnce(&mut Compiler<'_>, &mut Vec<Error>) -> T,
) -> Result<T, Vec<Error>> {
    let mut errors = tree.problems.clone();
    let loaded = load(tree, memory, &mut errors);
    if loaded.docs.is_empty() && errors.is_empty() {
        let error = Error::whole("stacks", "there is no policy file (`*.vgo`) in the tree");
        errors.push(error.cure("check the root, and write configcrates/ and envoys/"));
    }
    // Errors inside configcrates stand in the way of everything that follows from them.
    let sound = errors.is_empty();
    let mut compiler = Compiler {
        tree,
        loaded: &loaded,
        joined: HashMap::new(),
        missing: BTreeMap::new(),
        pieces: HashMap::new(),
        open: HashMap::new(),
        ready: Vec::new(),
        sound,
    };
    compiler.mappings(&mut errors);
    let done = finish(&mut compiler, &mut errors);
    compiler.report_missing(&mut errors);
    let is_there = |path: &str| tree.knows_secret(path);
    errors.extend(loaded.docs.with_secrets().flat_map(|doc| secrets::missing(doc, &is_there)));
    if errors.is_empty() {
        return Ok(done);
    }
    errors.sort();
    errors.dedup();
    Err(errors)
}

/// More bytes than a bundle has besides variables and resources: its place and its environment.
const HEAD_BYTES: usize = 64 << 10;

struct Compiler<'l> {
    tree: &'l Tree,
    loaded: &'l Loaded<'l>,
    /// Order of each set of configcrates that some mapping has; none where they do not fit together.
    joined: HashMap<Vec<usize>, Option<Sequence>>,
    /// Undefined variables: (file of the crate, place, sentence) to who has the first mapping, and the number of mappings.
    missing: BTreeMap<(String, Site, String), (String, usize)>,
    /// Encoded configcrates, made when a mapping first needs them.
    pieces: HashMap<usize, Arc<Pieces>>,
    /// What each configcrate needs of others.
    open: HashMap<usize, Vec<Required<'l>>>,
    /// What to make of each mapping, as long as there is no error.
    ready: Vec<Ready<'l>>,
    sound: bool,
}

/// A mapping that nothing is wrong with.
struct Ready<'l> {
    mapping: &'l MappingDef,
    crates: Vec<usize>,
    vars: BTreeMap<&'l str, &'l Value>,
    sequence: Sequence,
}

impl<'l> Compiler<'l> {
    /// Resolves every mapping.
    fn mappings(&mut self, errors: &mut Vec<Error>) {
        let mut resolver = Resolver::new(self.loaded, errors);
        for mapping in &self.loaded.mappings {
            let n_errors = errors.len();
            let resolved = resolver.resolve(mapping, errors);
            // Without what it failed to name, the rest of a mapping says little.
            if errors.len() > n_errors {
                continue;
            }
            let crates: Vec<&Crate> = resolved.crates.iter().map(|&id| &self.loaded.crates[id]).collect();
            if self.sound && crates.iter().all(|member| member.resources.is_empty()) {
                errors.push(self.empty(mapping));
                continue;
            }
            let Some(sequence) = self.sequence(&resolved.crates, mapping, errors) else { continue };
            self.note_missing(&resolved.crates, &resolved.vars, mapping);
            if self.sound && errors.is_empty() {
                self.ready.push(Ready { mapping, crates: resolved.crates, vars: resolved.vars, sequence });
            }
        }
    }

    /// How to make each bundle.
    fn recipes(&mut self) -> Vec<Recipe> {
        let ready = std::mem::take(&mut self.ready);
        let recipe = |one: &Ready<'l>| {
            let crates: Vec<&Crate> = one.crates.iter().map(|&id| &self.loaded.crates[id]).collect();
            let environment = one.mapping.environment.as_ref().map_or("", |mention| mention.name.as_str());
            let used = one.vars.iter().filter(|(name, _)| uses_var(&crates, name));
            let used: Vec<(&str, &Value)> = used.map(|(name, value)| (*name, *value)).collect();
            let pieces = one.crates.iter().map(|&id| self.pieces(id)).collect();
            Recipe::new((&place_of(one.mapping), environment), &used, pieces, one.sequence.clone())
        };
        let recipes = ready.iter().map(recipe).collect();
        self.ready = ready;
        recipes
    }

    /// Makes what is served of what is ready. Nobody gets it if there are errors.
    fn finish(&mut self, errors: &mut Vec<Error>) -> Compiled {
        let mut compiled = Compiled::empty(self.tree.hash());
        let recipes = self.recipes();
        let (hashes, sizes): (Vec<Hash32>, Vec<usize>) = hashes(&recipes).into_iter().unzip();
        self.refuse_too_large(&recipes, &sizes, errors);
        let mut globs = Vec::new();
        for ((Ready { mapping, .. }, recipe), hash) in self.ready.iter().zip(recipes).zip(hashes) {
            let id = MappingId(compiled.mappings.len() as u32);
            globs.extend(mapping.patterns.iter().map(|glob| (id, glob.clone())));
            let patterns = mapping.patterns.iter().map(|glob| glob.source().to_string()).collect();
            compiled.add(place_of(mapping), patterns, hash, Content::Recipe(recipe));
        }
        compiled.hosts = HostIndex::new(globs);
        let named = self.pieces.values().flat_map(|pieces| pieces.blobs());
        compiled.blobs = named.map(|blob| (blob.sha256, blob.path.clone())).collect();
        let file_hash = |member: &Crate| self.tree.file(&member.path).map(|file| (member.name.clone(), file.sha256));
        compiled.crates = self.loaded.crates.iter().filter_map(file_hash).collect();
        compiled
    }

    fn refuse_too_large(&self, recipes: &[Recipe], sizes: &[usize], errors: &mut Vec<Error>) {
        for ((ready, recipe), &n_bytes) in self.ready.iter().zip(recipes).zip(sizes) {
            let n_resources = recipe.n_resources();
            if n_resources > limits::RESOURCES_PER_BUNDLE_MAX || n_bytes > limits::BUNDLE_BYTES_MAX {
                errors.push(self.too_large(ready.mapping, n_resources, n_bytes));
            }
        }
    }

    fn pieces(&mut self, id: usize) -> Arc<Pieces> {
        let member = &self.loaded.crates[id];
        Arc::clone(self.pieces.entry(id).or_insert_with(|| Arc::new(Pieces::new(member))))
    }

    /// The order of a set of configcrates; what does not fit is said once, with the first mapping that has it.
    fn sequence(&mut self, ids: &[usize], mapping: &MappingDef, errors: &mut Vec<Error>) -> Option<Sequence> {
        if ids.iter().all(|&id| self.loaded.crates[id].foreign.is_empty()) {
            return Some(Sequence::Chained);
        }
        if let Some(known) = self.joined.get(ids) {
            return known.clone();
        }
        let crates: Vec<&Crate> = ids.iter().map(|&id| &self.loaded.crates[id]).collect();
        let sequence = match join(&crates) {
            Ok(plan) => Some(Sequence::Joined(Arc::new(plan))),
            Err(Discord::Dangling(all)) => {
                let who = who_has(mapping);
                for wrong in all {
                    // The target may be one of the resources that have errors.
                    if let (Some(doc), true) = (self.loaded.docs.get(&crates[wrong.of].path), self.sound) {
                        errors.push(doc.error(wrong.at, format!("{} ({who})", wrong.what)).cure(wrong.cure));
                    }
                }
                None
            }
            Err(Discord::Cycle(path)) => {
                let (of, at) = path[0];
                let names: Vec<String> = path.iter().map(|&(of, at)| qualified(crates[of], at)).collect();
                if let Some(doc) = self.loaded.docs.get(&crates[of].path) {
                    let place = crates[of].resources[at as usize].at;
                    errors.push(cycle_error(doc, place, names.iter().map(String::as_str)));
                }
                None
            }
        };
        self.joined.insert(ids.to_vec(), sequence.clone());
        sequence
    }

    fn note_missing(&mut self, crates: &[usize], vars: &BTreeMap<&str, &Value>, mapping: &MappingDef) {
        let loaded = self.loaded;
        for &id in crates {
            let member = &loaded.crates[id];
            let open = self.open.entry(id).or_insert_with(|| open_vars(member));
            for (site, what) in missing_vars(member, open, vars) {
                let noted = self.missing.entry((member.path.clone(), site, what));
                noted.or_insert_with(|| (who_has(mapping), 0)).1 += 1;
            }
        }
    }

    fn report_missing(&self, errors: &mut Vec<Error>) {
        for ((path, site, what), (who, n)) in &self.missing {
            let others = match n {
                1 => String::new(),
                2 => ", and one more mapping".to_string(),
                n => format!(", and {} more mappings", n - 1),
            };
            let what = format!("{what} ({who}{others})");
            let error = match (&site.template, self.loaded.docs.get(path)) {
                (None, Some(doc)) => doc.error(site.at, what),
                (Some(template), _) => {
                    let bytes = self.tree.file(template).and_then(|file| file.bytes.as_deref()).unwrap_or_default();
                    error_in_text(template, &String::from_utf8_lossy(bytes), site.at, what)
                }
                (None, None) => Error::whole(path, what),
            };
            let cure =
                "set it in `vars` of the configcrate, a role or the mapping, or write `| default(...)` behind it";
            errors.push(if error.what.contains("did you mean") { error } else { error.cure(cure) });
        }
    }

    fn empty(&self, mapping: &MappingDef) -> Error {
        let error =
            self.at(mapping, "no resource comes from this mapping, and an empty policy is never published".into());
        error.cure("add configcrates or roles, or remove the mapping")
    }

    fn too_large(&self, mapping: &MappingDef, n_resources: usize, n_bytes: usize) -> Error {
        let error = self.at(mapping, format!("the bundle has {n_resources} resources and {n_bytes} bytes"));
        let (resources, bytes) = (limits::RESOURCES_PER_BUNDLE_MAX, limits::BUNDLE_BYTES_MAX);
        error.expected(format!("at most {resources} resources and {bytes} bytes"))
    }

    fn at(&self, mapping: &MappingDef, what: String) -> Error {
        match self.loaded.docs.get(&mapping.group.path) {
            Some(doc) => doc.error(mapping.at, what),
            None => Error::whole(&mapping.group.path, what),
        }
    }
}

/// Hash and size of every payload. That is a hundred and more megabytes for a large tree, which are made piece by piece in a buffer
/// a thread and never kept.
fn hashes(recipes: &[Recipe]) -> Vec<(Hash32, usize)> {
    each(recipes, || {
        let mut payload = Vec::new();
        move |recipe: &Recipe| {
            recipe.write(&mut payload);
            (bundle_hash(&payload), payload.len())
        }
    })
}

/// `envoys/production/web.vgo:2`.
fn place_of(mapping: &MappingDef) -> String {
    format!("{}:{}", mapping.group.path, mapping.at.line)
}

/// A mapping and its hosts, for messages.
fn who_has(mapping: &MappingDef) -> String {
    let mut patterns = mapping.patterns.iter().map(|glob| glob.source());
    let (first, rest) = (patterns.next().unwrap_or_default(), patterns.count());
    let others = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("mapping {}, hosts {first}{others}", place_of(mapping))
}

fn qualified(member: &Crate, at: u32) -> String {
    format!("{}.{}", member.name, member.resources[at as usize].name)
}

#[cfg(test)]
mod tests;
