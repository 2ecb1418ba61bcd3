//! Laws of resolving policy, on random trees: the result is what a slow and simple model says, byte for byte the same however
//! a tree is written down, and everything in it has a source.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use common::bundle::{Bundle, Value};
use common::rng::{Rng, SplitMix64};
use proptest::prelude::*;
use vigosrv::policy::{Compiled, Trace, Tree, compile, trace};

const VARS: [&str; 5] = ["a", "b", "c", "d", "e"];
const DIRECTORIES: [&str; 4] = ["envoys", "envoys/x", "envoys/x/y", "envoys/z"];
const LINKS: [&str; 4] = ["depends_on", "before", "notify", "subscribes"];

type Vars = BTreeMap<&'static str, i64>;

/// Something that names configcrates and roles and sets variables.
#[derive(Debug, Default)]
struct Group {
    crates: Vec<usize>,
    roles: Vec<usize>,
    vars: Vars,
}

#[derive(Debug)]
struct Resource {
    uses: Vec<&'static str>,
    /// Kind of link, and the resource of the same configcrate that it goes to.
    links: Vec<(&'static str, usize)>,
}

/// A site, before anybody writes it down. Every value is another number: it says where it comes from.
#[derive(Debug)]
struct Site {
    crates: Vec<(Vars, Vec<Resource>)>,
    roles: Vec<Group>,
    /// What a directory gives to everything below, where it gives anything.
    commons: BTreeMap<&'static str, Group>,
    environments: Vec<Group>,
    /// One mapping a directory, and its environment.
    mappings: BTreeMap<&'static str, (Group, Option<usize>)>,
}

struct Maker {
    rng: SplitMix64,
    value: i64,
}

impl Maker {
    fn flip(&mut self) -> bool {
        self.rng.below(2) == 0
    }

    fn some_of<T>(&mut self, all: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut some: Vec<T> = all.into_iter().filter(|_| self.rng.below(3) == 0).collect();
        shuffle(&mut self.rng, &mut some);
        some
    }

    fn vars(&mut self) -> Vars {
        let names = self.some_of(VARS);
        let mut next = || {
            self.value += 1;
            self.value
        };
        names.into_iter().map(|name| (name, next())).collect()
    }

    fn group(&mut self, crates: usize, roles: usize) -> Group {
        Group { crates: self.some_of(0..crates), roles: self.some_of(0..roles), vars: self.vars() }
    }

    /// Links go from what is lower in a random ranking to what is higher: there is never a cycle.
    fn resources(&mut self) -> Vec<Resource> {
        let n = 1 + self.rng.below(6) as usize;
        let mut ranks: Vec<usize> = (0..n).collect();
        shuffle(&mut self.rng, &mut ranks);
        let mut all: Vec<Resource> = (0..n).map(|_| Resource { uses: self.some_of(VARS), links: Vec::new() }).collect();
        for (one, rank) in ranks.iter().enumerate() {
            for other in self.some_of((0..n).filter(|other| ranks[*other] > *rank)) {
                let link = LINKS[self.rng.below(4) as usize];
                let (holder, target) = if is_forward(link) { (one, other) } else { (other, one) };
                all[holder].links.push((link, target));
            }
        }
        all
    }
}

/// Whether the resource that has the key runs before the one that it names.
fn is_forward(link: &str) -> bool {
    matches!(link, "before" | "notify")
}

fn shuffle<T>(rng: &mut SplitMix64, items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, rng.below(at as u64 + 1) as usize);
    }
}

impl Site {
    fn new(seed: u64) -> Site {
        let mut make = Maker { rng: SplitMix64(seed), value: 0 };
        let (n_crates, n_roles) = (2 + make.rng.below(4) as usize, make.rng.below(3) as usize);
        let crates = (0..n_crates).map(|_| (make.vars(), make.resources())).collect();
        let roles = (0..n_roles).map(|_| Group { roles: Vec::new(), ..make.group(n_crates, 0) }).collect();
        let with_common: Vec<&str> = DIRECTORIES.into_iter().filter(|_| make.flip()).collect();
        let commons = with_common.into_iter().map(|path| (path, make.group(n_crates, n_roles))).collect();
        let environments = (0..2).map(|_| make.group(n_crates, 0)).collect();
        let mut mapping = |path| {
            let mut group = make.group(n_crates, n_roles);
            // A mapping that comes to nothing is refused.
            group.crates.push(0);
            let environment = if make.flip() { Some(make.rng.below(2) as usize) } else { None };
            let mut seen = BTreeSet::new();
            group.crates.retain(|id| seen.insert(*id));
            (path, (group, environment))
        };
        let mappings = DIRECTORIES.into_iter().map(&mut mapping).collect();
        Site { crates, roles, commons, environments, mappings }
    }

    /// Writes it down, in one of many ways that mean the same.
    fn written(&self, seed: u64) -> Vec<(String, String)> {
        let mut rng = SplitMix64(seed);
        let mut files = Vec::new();
        for (id, (vars, resources)) in self.crates.iter().enumerate() {
            let mut list = String::new();
            for (at, resource) in resources.iter().enumerate() {
                let mut keys = vec![format!("name: r{at}"), "type: exec".to_string(), command(at, resource)];
                for link in LINKS {
                    let mut to: Vec<String> =
                        resource.links.iter().filter(|(key, _)| *key == link).map(|(_, to)| format!("r{to}")).collect();
                    shuffle(&mut rng, &mut to);
                    keys.extend((!to.is_empty()).then(|| format!("{link}: [{}]", to.join(", "))));
                }
                shuffle(&mut rng, &mut keys);
                let _ = write!(list, "\n  - {}", keys.join("\n    "));
            }
            let mut keys = vec![format!("name: c{id}"), format!("resources:{list}")];
            keys.extend(written_vars(&mut rng, vars));
            let directory = ["", "sub/", "sub/deep/"][rng.below(3) as usize];
            files.push((
                format!("configcrates/{directory}f{}.vgo", rng.below(1_000) * 10 + id as u64),
                joined(&mut rng, keys),
            ));
        }
        for (id, role) in self.roles.iter().enumerate() {
            let mut keys = written_group(&mut rng, role);
            keys.push(format!("name: role{id}"));
            files.push((format!("roles/f{}.vgo", rng.below(1_000) * 10 + id as u64), joined(&mut rng, keys)));
        }
        for (path, group) in &self.commons {
            // An empty file gives nothing, and is refused for it.
            let keys = Some(written_group(&mut rng, group)).filter(|keys| !keys.is_empty());
            files.extend(keys.map(|keys| (format!("{path}/common.vgo"), joined(&mut rng, keys))));
        }
        for (path, (group, environment)) in &self.mappings {
            let mut keys = written_group(&mut rng, group);
            keys.push(format!("match: {}", host_of(path)));
            keys.extend(environment.map(|id| format!("environment: env{id}")));
            shuffle(&mut rng, &mut keys);
            let keys = keys.join("\n").replace("\n", "\n    ");
            files.push((format!("{path}/hosts.vgo"), format!("envoys:\n  - {keys}\n")));
        }
        let mut all: Vec<String> = Vec::new();
        for (id, group) in self.environments.iter().enumerate() {
            let keys = written_group(&mut rng, group);
            let keys = joined(&mut rng, keys);
            let keys = if keys.trim().is_empty() { "{}\n".to_string() } else { keys };
            all.push(format!("env{id}:\n  {}", keys.trim_end().replace('\n', "\n  ")));
        }
        shuffle(&mut rng, &mut all);
        files.push(("environments.vgo".into(), format!("environments:\n  {}\n", all.join("\n").replace('\n', "\n  "))));
        shuffle(&mut rng, &mut files);
        files
    }

    /// What a directory's mapping comes to: configcrates in order, and the variables that stand above theirs.
    fn model(&self, path: &str) -> (Vec<usize>, Vars) {
        let (mapping, environment) = &self.mappings[path];
        let above =
            self.commons.iter().filter(|(common, _)| path == **common || path.starts_with(&format!("{common}/")));
        let groups = above.map(|(_, group)| group).chain([mapping]).chain(environment.map(|id| &self.environments[id]));
        let groups: Vec<&Group> = groups.collect();
        let (mut crates, mut vars) = (Vec::new(), Vars::new());
        for group in &groups {
            let of_roles = group.roles.iter().flat_map(|role| &self.roles[*role].crates);
            for id in of_roles.chain(&group.crates) {
                if !crates.contains(id) {
                    crates.push(*id);
                }
            }
            group.roles.iter().for_each(|role| vars.extend(self.roles[*role].vars.clone()));
        }
        groups.iter().for_each(|group| vars.extend(group.vars.clone()));
        (crates, vars)
    }

    /// Names in the order in which they run: always the first declared of those that wait for nothing any more.
    fn order(&self, crates: &[usize]) -> Vec<String> {
        let mut waiting: Vec<(usize, usize)> =
            crates.iter().flat_map(|&id| (0..self.crates[id].1.len()).map(move |at| (id, at))).collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let first = waiting.iter().position(|&(id, at)| {
                let resources = &self.crates[id].1;
                let before = |one: usize, other: usize| {
                    let link = |from: usize, to: usize, forward: bool| {
                        resources[from].links.iter().any(|(key, target)| *target == to && is_forward(key) == forward)
                    };
                    link(one, other, true) || link(other, one, false)
                };
                !waiting.iter().any(|&(of, other)| of == id && before(other, at))
            });
            let (id, at) = waiting.remove(first.expect("links follow a ranking"));
            order.push(format!("c{id}.r{at}"));
        }
        order
    }
}

fn command(at: usize, resource: &Resource) -> String {
    let uses: Vec<String> = resource.uses.iter().map(|name| format!("{{{{ vars.{name} | default(0) }}}}")).collect();
    format!("command: \"echo {at} {}\"", uses.join(" "))
}

fn written_vars(rng: &mut SplitMix64, vars: &Vars) -> Option<String> {
    let mut all: Vec<String> = vars.iter().map(|(name, value)| format!("  {name}: {value}")).collect();
    shuffle(rng, &mut all);
    (!all.is_empty()).then(|| format!("vars:\n{}", all.join("\n")))
}

fn written_group(rng: &mut SplitMix64, group: &Group) -> Vec<String> {
    let named = |key: &str, prefix: &str, ids: &[usize]| {
        let ids: Vec<String> = ids.iter().map(|id| format!("{prefix}{id}")).collect();
        (!ids.is_empty()).then(|| format!("{key}: [{}]", ids.join(", ")))
    };
    let keys = [
        named("configcrates", "c", &group.crates),
        named("roles", "role", &group.roles),
        written_vars(rng, &group.vars),
    ];
    keys.into_iter().flatten().collect()
}

fn joined(rng: &mut SplitMix64, mut keys: Vec<String>) -> String {
    shuffle(rng, &mut keys);
    keys.into_iter().map(|key| key + ["\n", "\n\n", "\n# a word\n"][rng.below(3) as usize]).collect()
}

fn host_of(path: &str) -> String {
    format!("host-{}", path.replace('/', "-"))
}

fn compiled(files: &[(String, String)]) -> Result<Compiled, TestCaseError> {
    let tree: Tree = files.iter().cloned().collect();
    compile(&tree).map_err(|errors| TestCaseError::fail(common::yaml::render(&errors)))
}

fn bundle(compiled: &Compiled, path: &str) -> Bundle {
    let id = compiled.mapping_for(&host_of(path)).expect("each directory has one");
    Bundle::decode(&compiled.bundle(id).1).expect("what was encoded")
}

/// Without the places, which are the only thing that says how a site was written.
fn meaning(mut bundle: Bundle) -> Vec<u8> {
    bundle.mapping.clear();
    bundle.resources.iter_mut().for_each(|resource| resource.source.clear());
    bundle.encode()
}

/// The text at a place `path:line:column`.
fn text_at<'f>(files: &'f [(String, String)], place: &str) -> &'f str {
    let mut parts = place.rsplitn(3, ':');
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok()).expect("a place has two numbers");
    let (column, line) = (number(), number());
    let path = parts.next().expect("a place has a path");
    let (_, text) = files.iter().find(|(known, _)| known == path).expect("places are in files");
    let at = text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    &text[at + column - 1..]
}

fn value_of(trace: &Trace, name: &str, of_crate: &str) -> Option<(Value, String)> {
    let own = || {
        trace
            .crates
            .iter()
            .find(|one| one.name == of_crate)
            .and_then(|one| one.defaults.iter().find(|var| var.name == name))
    };
    trace.vars.iter().find(|var| var.name == name).or_else(own).map(|var| (var.value.clone(), var.source.clone()))
}

proptest! {
    #[test]
    fn a_tree_comes_to_what_the_model_says_law(seed in any::<u64>(), style in any::<u64>()) {
        let site = Site::new(seed);
        let compiled = compiled(&site.written(style))?;
        for path in DIRECTORIES {
            let (crates, vars) = site.model(path);
            let bundle = bundle(&compiled, path);
            let names: Vec<String> = bundle.resources.iter().map(|one| one.name.clone()).collect();
            prop_assert_eq!(&names, &site.order(&crates), "{}", path);
            for one in &bundle.resources {
                let (id, at) = one.name[1..].split_once(".r").expect("as it was named");
                let (own, resources) = &site.crates[id.parse::<usize>().unwrap()];
                for name in VARS {
                    let is_used = resources[at.parse::<usize>().unwrap()].uses.contains(&name);
                    let expected = vars.get(name).or(own.get(name)).filter(|_| is_used).map(|value| Value::Int(*value));
                    let found = one.vars.get(name).or(bundle.vars.get(name)).filter(|_| is_used).cloned();
                    prop_assert_eq!(found, expected, "{} {} {}", path, &one.name, name);
                }
            }
        }
    }

    #[test]
    fn how_a_tree_is_written_changes_no_byte_law(seed in any::<u64>(), first in any::<u64>(), second in any::<u64>()) {
        let site = Site::new(seed);
        let (one, other) = (compiled(&site.written(first))?, compiled(&site.written(second))?);
        for path in DIRECTORIES {
            prop_assert_eq!(meaning(bundle(&one, path)), meaning(bundle(&other, path)), "{}", path);
        }
        // The same files in any order are the same tree, places and all.
        let (mut files, again) = (site.written(first), compiled(&site.written(first))?);
        files.reverse();
        let backwards = compiled(&files)?;
        prop_assert_eq!(again.tree_hash(), backwards.tree_hash());
        for path in DIRECTORIES {
            prop_assert_eq!(bundle(&again, path).encode(), bundle(&backwards, path).encode());
        }
    }

    #[test]
    fn every_value_has_a_source_law(seed in any::<u64>(), style in any::<u64>()) {
        let site = Site::new(seed);
        let files = site.written(style);
        let compiled = compiled(&files)?;
        let tree: Tree = files.iter().cloned().collect();
        for path in DIRECTORIES {
            let bundle = bundle(&compiled, path);
            let traced = trace(&tree, &host_of(path)).ok().flatten().expect("a tree that compiles is traced");
            prop_assert_eq!(&traced.mapping, &bundle.mapping);
            for one in &bundle.resources {
                let (of_crate, name) = one.name.split_once('.').expect("as it was named");
                let said = text_at(&files, &one.source);
                prop_assert!(said.starts_with(&format!("{name}\n")), "{}: {}", one.source, said);
                for (var, value) in bundle.vars.iter().filter(|(var, _)| !one.vars.contains_key(*var)).chain(&one.vars) {
                    let (said, source) = value_of(&traced, var, of_crate).expect("every value has a source");
                    prop_assert_eq!(&said, value, "{} {}", &one.name, var);
                    let Value::Int(number) = value else { panic!("all are numbers") };
                    let place = source.split(' ').next().unwrap_or_default();
                    prop_assert!(text_at(&files, place).starts_with(&format!("{var}: {number}\n")), "{}", source);
                }
            }
        }
    }

    #[test]
    fn a_resource_at_the_end_moves_no_other_law(seed in any::<u64>(), style in any::<u64>()) {
        let mut site = Site::new(seed);
        let before = compiled(&site.written(style))?;
        site.crates.iter_mut().for_each(|(_, all)| all.push(Resource { uses: vec!["a"], links: Vec::new() }));
        let after = compiled(&site.written(style))?;
        for path in DIRECTORIES {
            let old: Vec<String> = bundle(&before, path).resources.into_iter().map(|one| one.name).collect();
            let new = bundle(&after, path).resources.into_iter().map(|one| one.name);
            prop_assert_eq!(new.filter(|name| old.contains(name)).collect::<Vec<_>>(), old);
        }
    }
}
