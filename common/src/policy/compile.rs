//! From configcrates to a bundle: joined, ordered, with the variables that something in it uses.
//!
//! A bundle carries no variable that none of its templates uses, so that an edit of an unrelated variable changes nobody's
//! policy.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::dag::{self, Cycle, Edge, Links, Plan};
use super::model::{Blob, Crate, Site, Statement};
use super::names::{self, Flaw, Looker, Uses};
use super::parse::{Files, cycle_error, parse_crate};
use super::secrets;
use super::template::has_markers;
use super::value::vars;
use crate::bundle::{BlobRef, Bundle, Resource, Value};
use crate::crypto::sha256;
use crate::limits;
use crate::units::nearest;
use crate::yaml::{Doc, Error, Pos};

/// A reference between configcrates that does not hold in this company.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dangling {
    /// The configcrate that refers, by position.
    pub of: usize,
    /// Where.
    pub at: Pos,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub cure: String,
}

/// What is wrong with a set of configcrates together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discord {
    /// References to resources that are not there.
    Dangling(Vec<Dangling>),
    /// Resources wait for each other: (configcrate, resource) by position.
    Cycle(Vec<(usize, u32)>),
}

/// Orders the resources of several configcrates. Positions are those of all resources, crate after crate.
pub fn join(crates: &[&Crate]) -> Result<Plan, Discord> {
    let mut starts = Vec::with_capacity(crates.len());
    let mut n = 0u32;
    for member in crates {
        starts.push(n);
        n += member.resources.len() as u32;
    }
    if crates.iter().all(|member| member.foreign.is_empty()) {
        return Ok(concatenated(crates, &starts));
    }
    let mut edges: Vec<Edge> = Vec::new();
    let mut dangling = Vec::new();
    let by_name: HashMap<&str, usize> = crates.iter().zip(0..).map(|(member, n)| (member.name.as_str(), n)).collect();
    for (of, member) in crates.iter().enumerate() {
        own_edges(member, starts[of], &mut edges);
        for foreign in &member.foreign {
            let blame = |what: String, cure: String| Dangling { of, at: foreign.at, what, cure };
            let (key, name) = (foreign.relation.key(), format!("{}.{}", foreign.to_crate, foreign.to));
            let Some(&target) = by_name.get(foreign.to_crate.as_str()) else {
                let what =
                    format!("`{key}` names `{name}`, but configcrate `{}` is not included here", foreign.to_crate);
                dangling.push(blame(
                    what,
                    format!("add `{}` to the configcrates, or drop the reference", foreign.to_crate),
                ));
                continue;
            };
            let resources = &crates[target].resources;
            match resources.iter().position(|resource| resource.name == foreign.to) {
                Some(to) => edges.push(foreign.relation.edge(starts[of] + foreign.from, starts[target] + to as u32)),
                None => {
                    let near = nearest(&foreign.to, resources.iter().map(|resource| resource.name.as_str()));
                    let cure =
                        near.map_or(String::new(), |near| format!("did you mean `{}.{near}`?", foreign.to_crate));
                    dangling.push(blame(format!("`{key}` names no resource `{name}`"), cure));
                }
            }
        }
    }
    if !dangling.is_empty() {
        return Err(Discord::Dangling(dangling));
    }
    dag::plan(n, &edges).map_err(|Cycle(path)| Discord::Cycle(path.into_iter().map(|at| locate(&starts, at)).collect()))
}

/// Builds the bundle. `plan` is the one of [`join`]; `vars` are those of the mapping, before which the crates' own give way.
pub fn assemble(head: Head<'_>, vars: &BTreeMap<&str, &Value>, crates: &[&Crate], plan: &Plan) -> Bundle {
    let statements: Vec<(&Crate, &Statement)> =
        crates.iter().flat_map(|member| member.resources.iter().map(|statement| (*member, statement))).collect();
    let ordered = plan.order.iter().zip(&plan.links);
    let resources = ordered.map(|(&at, links)| {
        let (member, statement) = statements[at as usize];
        resource(member, statement, links, vars)
    });
    let mut blobs: BTreeMap<&str, &BlobRef> = BTreeMap::new();
    for blob in statements.iter().filter_map(|(_, statement)| statement.blob.as_ref()) {
        blobs.insert(&blob.path, blob);
    }
    let used = vars.iter().filter(|(name, _)| uses_var(crates, name));
    let mut bundle = Bundle {
        mapping: head.mapping.to_string(),
        environment: head.environment.to_string(),
        vars: used.map(|(name, value)| (name.to_string(), (*value).clone())).collect(),
        resources: resources.collect(),
        blobs: blobs.into_values().cloned().collect(),
        secrets: Vec::new(),
    };
    bundle.secrets = secrets::of_bundle(&bundle);
    bundle
}

/// What a bundle says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head<'a> {
    /// Where the mapping is written.
    pub mapping: &'a str,
    /// Its environment, or empty.
    pub environment: &'a str,
}

/// Whether any of the crates uses a variable.
pub fn uses_var(crates: &[&Crate], name: &str) -> bool {
    crates.iter().any(|member| member.keys.as_ref().is_none_or(|keys| keys.contains(name)))
}

/// The crate's own variables that a resource sees: those it uses and the mapping does not set.
pub fn own_vars<'c>(
    member: &'c Crate,
    statement: &'c Statement,
) -> impl Iterator<Item = (&'c String, &'c Value)> + use<'c> {
    member.vars.iter().filter(|(name, _)| statement.keys.as_ref().is_none_or(|keys| keys.contains(*name)))
}

/// A resource as the bundle has it.
pub fn resource(member: &Crate, statement: &Statement, links: &Links, vars: &BTreeMap<&str, &Value>) -> Resource {
    let own = own_vars(member, statement).filter(|(name, _)| !vars.contains_key(name.as_str()));
    Resource {
        name: format!("{}.{}", member.name, statement.name),
        kind: statement.kind.clone(),
        params: statement.params.clone(),
        when: statement.when.clone(),
        foreach: statement.foreach.clone(),
        depends_on: links.depends_on.clone(),
        after: links.after.clone(),
        notify: links.notify.clone(),
        timeout_ms: statement.timeout_ms,
        retries: statement.retries,
        sensitive: statement.sensitive,
        noop: statement.noop,
        source: format!("{}:{}:{}", member.path, statement.at.line, statement.at.column),
        vars: own.map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

/// A variable that a crate needs, and where.
pub type Required<'c> = (&'c String, &'c Site);

/// The variables that a crate needs and that whoever includes it decides about: all but those that it gives itself, whole.
pub fn open_vars(member: &Crate) -> Vec<Required<'_>> {
    let given = |name: &str| match name.split_once('.') {
        Some((_, first)) => !first.contains('.') && member.vars.contains_key(first),
        None => false,
    };
    member.required.iter().filter(|(name, _)| !given(name)).collect()
}

/// Those of the [`open_vars`] of a crate that nobody gives: (place, sentence).
pub fn missing_vars(member: &Crate, open: &[Required<'_>], vars: &BTreeMap<&str, &Value>) -> Vec<(Site, String)> {
    let lookup = |name: &str| vars.get(name).copied().or_else(|| member.vars.get(name));
    let known = || vars.keys().copied().chain(member.vars.keys().map(String::as_str)).collect::<Vec<_>>();
    let wrong = |(name, site): &Required<'_>| {
        let found = names::follow(name, lookup, &[]);
        found.err().map(|_| ((*site).clone(), names::follow(name, lookup, &known()).err().unwrap_or_default()))
    };
    open.iter().filter_map(wrong).collect()
}

/// Looks into a template file: what it uses, or what is wrong with it.
pub fn template_file(path: &str, bytes: &[u8], errors: &mut Vec<Error>) -> Option<Uses> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        errors.push(Error::whole(path, "the template is not UTF-8 text").cure("move it to files/ to copy it as it is"));
        return None;
    };
    if !has_markers(text) {
        return Some(Uses::default());
    }
    let mut uses = Looker::default().text(text, true);
    for Flaw { spot, what, cure } in std::mem::take(&mut uses.flaws) {
        let at = Pos { line: spot.line, column: spot.column };
        errors.push(error_in_text(path, text, at, what).cure(cure));
    }
    Some(uses)
}

/// An error at a place in a file that is no YAML.
pub fn error_in_text(path: &str, text: &str, at: Pos, what: String) -> Error {
    let line = text.lines().nth(at.line.saturating_sub(1) as usize).map(str::to_string);
    Error { at: Some(at), line, ..Error::whole(path, what) }
}

/// Compiles one `.vgo` file by itself: a configcrate without server, mapping or roles. `load` reads files that it names, by
/// their path in the policy (`files/motd`, `vars/ports.vgo`); its error is a sentence.
pub fn compile_file(
    path: &str,
    bytes: &[u8],
    load: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
) -> Result<Bundle, Vec<Error>> {
    let doc = Doc::load(path, bytes).map_err(|error| vec![error])?;
    let mut errors = Vec::new();
    let mut files = LocalFiles { load, texts: BTreeMap::new(), errors: Vec::new() };
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".vgo");
    let parsed = parse_crate(&doc, Some(stem), &mut files, &mut errors);
    errors.append(&mut files.errors);
    let none = BTreeMap::new();
    errors.extend(secrets::refused(&doc));
    let sound = errors.is_empty();
    if let Some(parsed) = &parsed {
        for (site, what) in missing_vars(parsed, &open_vars(parsed), &none) {
            let error = match &site.template {
                None => doc.error(site.at, what),
                Some(template) => {
                    let text = files.texts.get(&**template).map_or("", String::as_str);
                    error_in_text(template, text, site.at, what)
                }
            };
            errors.push(error.cure("set it in `vars` of this file, or write `| default(...)` behind it"));
        }
        match join(&[parsed]) {
            // The target may be one of the resources that have errors.
            _ if !sound => {}
            Ok(plan) if errors.is_empty() => {
                let bundle = assemble(Head { mapping: path, environment: "" }, &none, &[parsed], &plan);
                return checked_size(bundle).map_err(|what| vec![Error::whole(path, what)]);
            }
            Ok(_) => {}
            Err(Discord::Dangling(all)) => {
                errors.extend(all.into_iter().map(|wrong| doc.error(wrong.at, wrong.what).cure(wrong.cure)));
            }
            // A crate with a cycle of its own has an error already; one alone has no other kind.
            Err(Discord::Cycle(path)) => {
                let resource = |(_, at): &(usize, u32)| &parsed.resources[*at as usize];
                errors.push(cycle_error(&doc, resource(&path[0]).at, path.iter().map(|at| resource(at).name.as_str())));
            }
        }
    }
    errors.sort();
    errors.dedup();
    Err(errors)
}

fn checked_size(bundle: Bundle) -> Result<Bundle, String> {
    if bundle.resources.len() > limits::RESOURCES_PER_BUNDLE_MAX {
        return Err(format!(
            "{} resources; expected at most {}",
            bundle.resources.len(),
            limits::RESOURCES_PER_BUNDLE_MAX
        ));
    }
    Ok(bundle)
}

/// A reference to a file's bytes.
pub fn blob_ref(path: &str, bytes: &[u8]) -> BlobRef {
    BlobRef { sha256: sha256(&[bytes]), size: bytes.len() as u64, path: path.to_string() }
}

struct LocalFiles<'l> {
    load: &'l mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
    /// Template files, for errors that are found later.
    texts: BTreeMap<String, String>,
    errors: Vec<Error>,
}

impl Files for LocalFiles<'_> {
    fn blob(&mut self, path: &str) -> Result<Blob, String> {
        let bytes = (self.load)(path)?;
        if bytes.len() as u64 > limits::BLOB_BYTES_MAX {
            return Err(format!("{path} has {} bytes; expected at most {}", bytes.len(), limits::BLOB_BYTES_MAX));
        }
        let uses = if path.starts_with("templates/") {
            let uses = template_file(path, &bytes, &mut self.errors);
            self.texts.insert(path.to_string(), String::from_utf8_lossy(&bytes).into_owned());
            uses
        } else {
            None
        };
        Ok(Blob { blob: blob_ref(path, &bytes), uses: uses.map(Arc::new) })
    }

    fn vars_file(&mut self, name: &str) -> Result<Arc<BTreeMap<String, Value>>, String> {
        let path = format!("vars/{name}.vgo");
        let bytes = (self.load)(&path)?;
        let doc = Doc::load(&path, &bytes);
        match doc {
            Ok(doc) => Ok(Arc::new(vars_file(&doc, &mut self.errors))),
            Err(error) => {
                self.errors.push(error);
                Ok(Arc::default())
            }
        }
    }
}

/// The variables of a file below `vars/`.
pub fn vars_file(doc: &Doc, errors: &mut Vec<Error>) -> BTreeMap<String, Value> {
    match doc.expect_root(&["vars"]) {
        Ok(root) => {
            errors.extend(doc.unknown_keys(root, &["vars"], "a file of variables"));
            vars(doc, root.get("vars"), errors)
        }
        Err(error) => {
            errors.push(error);
            BTreeMap::new()
        }
    }
}

fn concatenated(crates: &[&Crate], starts: &[u32]) -> Plan {
    let mut plan = Plan::default();
    for (member, &start) in crates.iter().zip(starts) {
        let shift = |list: &[u32]| list.iter().map(|at| at + start).collect();
        plan.order.extend(member.plan.order.iter().map(|at| at + start));
        plan.links.extend(member.plan.links.iter().map(|links| Links {
            depends_on: shift(&links.depends_on),
            after: shift(&links.after),
            notify: shift(&links.notify),
        }));
    }
    plan
}

/// The edges within a crate, from its plan.
fn own_edges(member: &Crate, start: u32, edges: &mut Vec<Edge>) {
    let declared = |place: u32| start + member.plan.order[place as usize];
    for (place, links) in (0..).zip(&member.plan.links) {
        let own = declared(place);
        edges.extend(links.depends_on.iter().map(|&first| (declared(first), own, dag::Link::Depends)));
        edges.extend(links.after.iter().map(|&first| (declared(first), own, dag::Link::After)));
        edges.extend(links.notify.iter().map(|&later| (own, declared(later), dag::Link::Notify)));
    }
}

fn locate(starts: &[u32], at: u32) -> (usize, u32) {
    let of = starts.partition_point(|&start| start <= at) - 1;
    (of, at - starts[of])
}

#[cfg(test)]
mod tests;
