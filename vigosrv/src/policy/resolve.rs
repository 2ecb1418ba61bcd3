//! From what a mapping names to its configcrates and variables, by the order of precedence.

use std::collections::{BTreeMap, HashMap};

use common::bundle::Value;
use common::policy::model::Mention;
use common::units::nearest;
use common::yaml::Error;

use super::load::{Group, Loaded, MappingDef};

/// Variables by name. Later insertions are stronger.
pub(super) type Vars<'l> = BTreeMap<&'l str, &'l Value>;

/// What a mapping comes to.
#[derive(Debug)]
pub(super) struct Resolved<'l> {
    /// Positions in [`Loaded::crates`], each once, in order.
    pub(super) crates: Vec<usize>,
    /// After precedence, without the configcrates' own.
    pub(super) vars: Vars<'l>,
}

/// What everything in a directory inherits.
#[derive(Clone, Debug, Default)]
struct Inherited<'l> {
    crates: Vec<usize>,
    role_vars: Vars<'l>,
    vars: Vars<'l>,
}

/// Resolves mappings of one tree; each directory is looked at once.
pub(super) struct Resolver<'l> {
    loaded: &'l Loaded<'l>,
    directories: HashMap<String, Inherited<'l>>,
}

impl<'l> Resolver<'l> {
    /// Checks what roles, `common.vgo` files and environments name, so that errors there are said once.
    pub(super) fn new(loaded: &'l Loaded<'l>, errors: &mut Vec<Error>) -> Resolver<'l> {
        let resolver = Resolver { loaded, directories: HashMap::new() };
        let groups = loaded.roles.values().chain(loaded.commons.values()).chain(loaded.environments.values());
        groups.for_each(|group| resolver.check(group, errors));
        resolver
    }

    /// Resolves a mapping. Names that do not exist are errors, and left out.
    pub(super) fn resolve(&mut self, mapping: &'l MappingDef, errors: &mut Vec<Error>) -> Resolved<'l> {
        let loaded = self.loaded;
        self.check(&mapping.group, errors);
        let directory = mapping.group.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut level = self.inherited(directory).clone();
        let Inherited { crates, role_vars, vars } = &mut level;
        add_group(loaded, &mapping.group, crates, role_vars);
        vars.extend(borrowed(&mapping.group));
        if let Some(mention) = &mapping.environment {
            match loaded.environments.get(&mention.name) {
                Some(environment) => {
                    add_group(loaded, environment, crates, role_vars);
                    vars.extend(borrowed(environment));
                }
                // Without the file an environment is a name and nothing more.
                None if !loaded.has_environments => {}
                None => {
                    let what = format!("there is no environment `{}` in environments.vgo", mention.name);
                    errors.push(self.unknown(&mapping.group, mention, what, loaded.environments.keys()));
                }
            }
        }
        role_vars.append(vars);
        Resolved { crates: level.crates, vars: level.role_vars }
    }

    fn inherited(&mut self, directory: &str) -> &Inherited<'l> {
        if !self.directories.contains_key(directory) {
            let mut level = match directory.rsplit_once('/') {
                Some((parent, _)) => self.inherited(parent).clone(),
                None => Inherited::default(),
            };
            if let Some(group) = self.loaded.commons.get(directory) {
                add_group(self.loaded, group, &mut level.crates, &mut level.role_vars);
                level.vars.extend(borrowed(group));
            }
            self.directories.insert(directory.to_string(), level);
        }
        &self.directories[directory]
    }

    fn check(&self, group: &Group, errors: &mut Vec<Error>) {
        for mention in &group.roles {
            if !self.loaded.roles.contains_key(&mention.name) {
                let what = format!("there is no role `{}`", mention.name);
                errors.push(self.unknown(group, mention, what, self.loaded.roles.keys()));
            }
        }
        for mention in &group.configcrates {
            if !self.loaded.crate_ids.contains_key(&mention.name) {
                let what = format!("there is no configcrate `{}`", mention.name);
                errors.push(self.unknown(group, mention, what, self.loaded.crate_ids.keys()));
            }
        }
    }

    fn unknown<'n>(
        &self,
        group: &Group,
        mention: &Mention,
        what: String,
        known: impl Iterator<Item = &'n String>,
    ) -> Error {
        let error = match self.loaded.docs.get(&group.path) {
            Some(doc) => doc.error(mention.at, what),
            None => Error::whole(&group.path, what),
        };
        match nearest(&mention.name, known.map(String::as_str)) {
            Some(near) => error.cure(format!("did you mean `{near}`?")),
            None => error.cure("check the name, or add the file that defines it"),
        }
    }
}

/// Adds the crates of a group's roles, then its own, and the variables of its roles.
fn add_group<'l>(loaded: &'l Loaded<'_>, group: &'l Group, crates: &mut Vec<usize>, role_vars: &mut Vars<'l>) {
    for role in group.roles.iter().filter_map(|mention| loaded.roles.get(&mention.name)) {
        add_crates(loaded, &role.configcrates, crates);
        role_vars.extend(borrowed(role));
    }
    add_crates(loaded, &group.configcrates, crates);
}

fn add_crates(loaded: &Loaded<'_>, mentions: &[Mention], crates: &mut Vec<usize>) {
    for id in mentions.iter().filter_map(|mention| loaded.crate_ids.get(&mention.name)) {
        if !crates.contains(id) {
            crates.push(*id);
        }
    }
}

fn borrowed(group: &Group) -> impl Iterator<Item = (&str, &Value)> {
    group.vars.iter().map(|(name, value)| (name.as_str(), value))
}
