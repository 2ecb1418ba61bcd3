//! What the agent finds out about its host: one collector a file, each reading below a [`Root`], so that a directory of
//! fixtures replaces a host. No forks, but for `rpm` where packages are its, and for the programs of an operator.
//!
//! A shell. Every key of `common::policy::trait_keys` is always there, null where it is not known. A collector that fails
//! or takes too long costs a warning with its name: the last known tree stands in, or one of nulls.

mod entries;
mod gather;
mod hardware;
mod load;
mod memory;
mod mounts;
mod network;
mod os;
mod packages;
mod programs;
mod root;
mod services;
mod time;
mod uptime;
mod users;
mod vigo;

use std::collections::BTreeMap;

use common::policy::trait_keys::{TREES, Tree};
use common::time::Now;
use serde_json::{Map, Value};

pub use gather::{Gathered, Gatherer};
pub use root::Root;

/// What collectors cannot read below the root.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Both clocks.
    pub now: Now,
    /// Serial of the policy in force, if there is one.
    pub serial: Option<u64>,
    /// `--sysroot`, where it is not `/`.
    pub sysroot: Option<String>,
}

/// Which trees to gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that change all the time.
    Volatile,
}

/// Trees by name, and what went wrong, one line a collector.
pub type Trees = BTreeMap<String, Value>;

/// A collector.
#[derive(Clone, Copy)]
struct Collector {
    tree: &'static Tree,
    collect: fn(&Root, &Facts) -> Result<Value, String>,
}

/// Gathers in this thread, without a time limit; see [`Gatherer`] for one.
pub fn gather(root: &Root, which: Which, facts: &Facts) -> (Trees, Vec<String>) {
    let (mut trees, mut warnings) = (Trees::new(), Vec::new());
    for collector in collectors(which) {
        let (tree, warning) = collector.run(root, facts);
        warnings.extend(warning);
        trees.insert(collector.tree.name.to_string(), tree.unwrap_or_else(|| nulls(collector.tree)));
    }
    (trees, warnings)
}

fn collectors(which: Which) -> impl Iterator<Item = Collector> {
    let all = TREES.iter().filter_map(|tree| Some(Collector { tree, collect: collect_of(tree.name)? }));
    all.filter(move |collector| which == Which::All || collector.tree.volatile)
}

/// What a collector is.
type Collect = fn(&Root, &Facts) -> Result<Value, String>;

fn collect_of(name: &str) -> Option<Collect> {
    Some(match name {
        "os" => os::collect,
        "hardware" => hardware::collect,
        "network" => network::collect,
        "mounts" => mounts::collect,
        "packages" => packages::collect,
        "services" => services::collect,
        "users" => users::collect,
        "memory" => memory::collect,
        "load" => load::collect,
        "uptime" => uptime::collect,
        "time" => time::collect,
        "vigo" => vigo::collect,
        _ => return None,
    })
}

impl Collector {
    /// The tree with all its keys, or why there is none.
    fn run(&self, root: &Root, facts: &Facts) -> (Option<Value>, Option<String>) {
        match (self.collect)(root, facts) {
            Ok(mut tree) => {
                self.tree.keys.iter().for_each(|path| fill(&mut tree, path));
                (Some(tree), None)
            }
            Err(reason) => (None, Some(format!("trait collector `{}` failed: {reason}", self.tree.name))),
        }
    }
}

/// A tree whose every key is null.
fn nulls(tree: &Tree) -> Value {
    let mut value = Value::Object(Map::new());
    tree.keys.iter().for_each(|path| fill(&mut value, path));
    value
}

/// Puts null where the path leads to nothing.
fn fill(tree: &mut Value, path: &str) {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let Value::Object(map) = tree else { return };
    if name == "*" {
        return;
    }
    let inner = map.entry(name).or_insert(Value::Null);
    // A list or mapping whose keys only the host knows stays null: there is nothing to fill.
    if !rest.is_empty() && rest != "*" {
        if inner.is_null() {
            *inner = Value::Object(Map::new());
        }
        fill(inner, rest);
    }
}

#[cfg(test)]
mod tests;
