//! A configcrate after parsing: everything about it that does not depend on which mapping includes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::dag::Plan;
use crate::bundle::{BlobRef, Value};
use crate::yaml::Pos;

/// A name that a file mentions, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mention {
    /// As written.
    pub name: String,
    /// Where.
    pub at: Pos,
}

/// A named set of resources.
#[derive(Clone, Debug)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub at: Pos,
    /// Its file, as errors call it.
    pub path: String,
    /// Default variables, those of `vars_files` beneath.
    pub vars: BTreeMap<String, Value>,
    /// In the order of the file.
    pub resources: Vec<Statement>,
    /// Order and links among its own resources.
    pub plan: Plan,
    /// References to resources of other configcrates.
    pub foreign: Vec<Foreign>,
    /// Variables that must come from somewhere, by name (`vars.port`) and first place; the crate's own defaults may
    /// satisfy them.
    pub required: BTreeMap<String, Site>,
    /// First parts of all variables that any of its templates uses; `None` when one uses `vars` as a whole.
    pub keys: Option<BTreeSet<String>>,
}

/// One resource as written, defaults merged.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its name within the configcrate.
    pub name: String,
    /// Where the name stands.
    pub at: Pos,
    /// Executor.
    pub kind: String,
    /// Parameters, templates not rendered.
    pub params: BTreeMap<String, Value>,
    /// Condition, empty for always.
    pub when: String,
    /// Items to unroll over.
    pub foreach: Option<Value>,
    /// Milliseconds.
    pub timeout_ms: u64,
    /// Further attempts.
    pub retries: u32,
    /// Nothing of it is shown.
    pub sensitive: bool,
    /// Checked, never applied.
    pub noop: bool,
    /// The file that `source` names.
    pub blob: Option<BlobRef>,
    /// First parts of the variables that its templates use; `None` for all.
    pub keys: Option<BTreeSet<String>>,
}

/// A reference to a resource of another configcrate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The resource that refers, by position.
    pub from: u32,
    /// The configcrate.
    pub to_crate: String,
    /// The resource in it.
    pub to: String,
    /// What it means.
    pub relation: Relation,
    /// Where it is written.
    pub at: Pos,
}

/// How one resource speaks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// `depends_on`
    DependsOn,
    /// `before`
    Before,
    /// `notify`
    Notify,
    /// `subscribes`
    Subscribes,
}

/// Where something of a configcrate is written: in its own file or in a template file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The template file; none for the file of the crate.
    pub template: Option<Arc<str>>,
    /// The place.
    pub at: Pos,
}

/// A file that a `source` names, as the loader knows it.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What the bundle says of it.
    pub blob: BlobRef,
    /// For a template: what it uses. The places are places in the file.
    pub uses: Option<Arc<super::names::Uses>>,
}

impl Relation {
    /// All of them.
    pub const ALL: [Relation; 4] = [Relation::DependsOn, Relation::Before, Relation::Notify, Relation::Subscribes];

    /// The key in the file.
    pub fn key(self) -> &'static str {
        match self {
            Relation::DependsOn => "depends_on",
            Relation::Before => "before",
            Relation::Notify => "notify",
            Relation::Subscribes => "subscribes",
        }
    }

    /// The edge that it stands for.
    pub fn edge(self, from: u32, to: u32) -> super::dag::Edge {
        use super::dag::Link;
        match self {
            Relation::DependsOn => (to, from, Link::Depends),
            Relation::Before => (from, to, Link::After),
            Relation::Notify => (from, to, Link::Notify),
            Relation::Subscribes => (to, from, Link::Notify),
        }
    }
}
