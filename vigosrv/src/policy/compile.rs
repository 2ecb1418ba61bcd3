//! Compiles a tree: loads, resolves, checks, encodes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use common::bundle::{Value, bundle_hash};
use common::limits;
use common::policy::compile::{Discord, error_in_text, join, missing_vars, uses_var};
use common::policy::dag::Plan;
use common::policy::model::{Crate, Site};
use common::policy::parse::cycle_error;
use common::policy::secrets;
use common::yaml::Error;

use super::MappingId;
use super::compiled::{Compiled, Content};
use super::encode::{Pieces, Recipe};
use super::hosts::HostIndex;
use super::load::{Loaded, MappingDef, load};
use super::resolve::Resolver;
use super::tree::Tree;

/// Compiles a tree, or says everything that is wrong with it, ordered by place.
pub fn compile(tree: &Tree) -> Result<Compiled, Vec<Error>> {
    let mut errors = tree.problems.clone();
    let loaded = load(tree, &mut errors);
    if loaded.docs.is_empty() && errors.is_empty() {
        let error = Error::whole("stacks", "there is no policy file (`*.vgo`) in the tree");
        errors.push(error.cure("check the root, and write configcrates/ and envoys/"));
    }
    // Errors inside configcrates stand in the way of everything that follows from them.
    let sound = errors.is_empty();
    let (joined, missing, pieces) = (HashMap::new(), BTreeMap::new(), HashMap::new());
    let mut compiler = Compiler { tree, loaded: &loaded, joined, missing, pieces, sound };
    let compiled = compiler.mappings(&mut errors);
    compiler.report_missing(&mut errors);
    let is_there = |path: &str| tree.knows_secret(path);
    errors.extend(loaded.docs.values().flat_map(|doc| secrets::missing(doc, &is_there)));
    if errors.is_empty() {
        return Ok(compiled);
    }
    errors.sort();
    errors.dedup();
    Err(errors)
}

struct Compiler<'l> {
    tree: &'l Tree,
    loaded: &'l Loaded,
    /// Order of each set of configcrates that some mapping has; none where they do not fit together.
    joined: HashMap<Vec<usize>, Option<Arc<Plan>>>,
    /// Undefined variables: (file of the crate, place, sentence) to the first mapping and the number of mappings.
    missing: BTreeMap<(String, Site, String), (String, usize)>,
    /// Encoded configcrates, made when a mapping first needs them.
    pieces: HashMap<usize, Arc<Pieces>>,
    sound: bool,
}

impl<'l> Compiler<'l> {
    fn mappings(&mut self, errors: &mut Vec<Error>) -> Compiled {
        let mut compiled = Compiled::empty(self.tree.hash());
        let mut resolver = Resolver::new(self.loaded, errors);
        let mut globs = Vec::new();
        for mapping in &self.loaded.mappings {
            let n_errors = errors.len();
            let resolved = resolver.resolve(mapping, errors);
            // Without what it failed to name, the rest of a mapping says little.
            if errors.len() > n_errors {
                continue;
            }
            let place = format!("{}:{}", mapping.group.path, mapping.at.line);
            let crates: Vec<&Crate> = resolved.crates.iter().map(|&id| &self.loaded.crates[id]).collect();
            if self.sound && crates.iter().all(|member| member.resources.is_empty()) {
                errors.push(self.empty(mapping));
                continue;
            }
            let Some(plan) = self.plan(&resolved.crates, &place, errors) else { continue };
            self.note_missing(&crates, &resolved.vars, &place);
            let environment = mapping.environment.as_ref().map_or("", |mention| mention.name.as_str());
            if !self.sound || !errors.is_empty() {
                continue;
            }
            let used = resolved.vars.iter().filter(|(name, _)| uses_var(&crates, name));
            let used: Vec<(&str, &Value)> = used.map(|(name, value)| (*name, *value)).collect();
            let pieces = resolved.crates.iter().map(|&id| self.pieces(id)).collect();
            let recipe = Recipe::new((&place, environment), &used, pieces, plan);
            let payload = recipe.payload();
            if recipe.n_resources() > limits::RESOURCES_PER_BUNDLE_MAX || payload.len() > limits::BUNDLE_BYTES_MAX {
                errors.push(self.too_large(mapping, recipe.n_resources(), payload.len()));
            }
            let id = MappingId(compiled.mappings.len() as u32);
            globs.extend(mapping.patterns.iter().map(|glob| (id, glob.clone())));
            compiled.blobs.extend(recipe.blobs().iter().map(|blob| (blob.sha256, blob.path.clone())));
            let patterns = mapping.patterns.iter().map(|glob| glob.source().to_string()).collect();
            compiled.add(place, patterns, bundle_hash(&payload), Content::Recipe(recipe));
        }
        compiled.hosts = HostIndex::new(globs);
        let file_hash = |member: &Crate| self.tree.file(&member.path).map(|file| (member.name.clone(), file.sha256));
        compiled.crates = self.loaded.crates.iter().filter_map(file_hash).collect();
        compiled
    }

    fn pieces(&mut self, id: usize) -> Arc<Pieces> {
        let member = &self.loaded.crates[id];
        Arc::clone(self.pieces.entry(id).or_insert_with(|| Arc::new(Pieces::new(member))))
    }

    /// The order of a set of configcrates; what does not fit is said once, with the first mapping that has it.
    fn plan(&mut self, ids: &[usize], place: &str, errors: &mut Vec<Error>) -> Option<Arc<Plan>> {
        if let Some(known) = self.joined.get(ids) {
            return known.clone();
        }
        let crates: Vec<&Crate> = ids.iter().map(|&id| &self.loaded.crates[id]).collect();
        let plan = match join(&crates) {
            Ok(plan) => Some(Arc::new(plan)),
            Err(Discord::Dangling(all)) => {
                for wrong in all {
                    // The target may be one of the resources that have errors.
                    if let (Some(doc), true) = (self.loaded.docs.get(&crates[wrong.of].path), self.sound) {
                        errors.push(doc.error(wrong.at, format!("{} (mapping {place})", wrong.what)).cure(wrong.cure));
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
        self.joined.insert(ids.to_vec(), plan.clone());
        plan
    }

    fn note_missing(&mut self, crates: &[&Crate], vars: &BTreeMap<&str, &Value>, place: &str) {
        for member in crates {
            for (site, what) in missing_vars(member, vars) {
                let noted = self.missing.entry((member.path.clone(), site, what));
                noted.or_insert_with(|| (place.to_string(), 0)).1 += 1;
            }
        }
    }

    fn report_missing(&self, errors: &mut Vec<Error>) {
        for ((path, site, what), (mapping, n)) in &self.missing {
            let others = if *n > 1 { format!(" and {} more", n - 1) } else { String::new() };
            let what = format!("{what} (mapping {mapping}{others})");
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

fn qualified(member: &Crate, at: u32) -> String {
    format!("{}.{}", member.name, member.resources[at as usize].name)
}

#[cfg(test)]
mod tests;
