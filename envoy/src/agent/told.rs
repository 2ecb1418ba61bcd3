//! Which trait trees a server has: only what changed is sent, and what does not fit into one report goes with the next.
//!
//! A core, in memory alone. The hash of all stable trees is made of one hash a tree, so that the hash of what a server has
//! after a part of them is known too: a part names the hash before it and the hash after it. A server that is not where the
//! part begins says 0, and everything is sent again.

use std::collections::BTreeMap;

use common::crypto::sha256;
use common::limits;
use common::proto::wire;
use prost::Message;

use super::events::TraitTree;

/// Bytes of a report that trees may take; records take the others.
const ROOM: usize = limits::REPORT_BYTES_MAX / 2;

/// Hashes of trees by name.
type Hashes = BTreeMap<String, u64>;

/// What is known of the trees here and at the server.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The stable trees here.
    here: Hashes,
    /// Those that the server acknowledged; `None` where that is not known.
    there: Option<Hashes>,
    /// The last letter, until it is answered.
    flight: Option<Flight>,
}

/// What is true once a letter has arrived.
#[derive(Debug)]
struct Flight {
    base: u64,
    after: Hashes,
    removed: Vec<String>,
}

/// The part of a report that is about traits.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Letter {
    pub(super) updates: Vec<wire::TraitUpdate>,
    pub(super) removed: Vec<String>,
    pub(super) base: u64,
    pub(super) hash: u64,
}

impl Told {
    /// A stable tree is as its JSON says.
    pub(super) fn note(&mut self, name: &str, json: &str) {
        self.here.insert(name.to_string(), sha256(&[b"vigo-trait-v1\0", json.as_bytes()]).short());
    }

    /// A stable tree is gone, or not to be sent.
    pub(super) fn forget(&mut self, name: &str) {
        self.here.remove(name);
    }

    /// Over the stable trees here, never 0, which means "none yet".
    pub(super) fn hash(&self) -> u64 {
        hash(&self.here)
    }

    /// A server wants the trees although it acknowledged just these: it has lost them.
    pub(super) fn doubt(&mut self, hash_here: u64) {
        self.there = self.there.take().filter(|there| hash(there) != hash_here);
    }

    /// What to send: of the stable trees those that the server has not, as many as fit, then the volatile ones.
    pub(super) fn letter(&mut self, trees: &[TraitTree], gone: &[String], stable: bool, volatile: bool) -> Letter {
        let mut letter = Letter { hash: self.hash(), ..Letter::default() };
        let mut room = ROOM;
        if stable {
            // A server of which nothing is known may have what this envoy once had.
            let unknown = || gone.iter().map(|name| (name.clone(), 0)).collect();
            let mut after = self.there.clone().unwrap_or_else(unknown);
            letter.base = self.there.as_ref().map_or(0, hash);
            let is_gone = |name: &&String| !self.here.contains_key(*name);
            letter.removed = after.keys().filter(is_gone).take(limits::REPORT_TREES_MAX / 2).cloned().collect();
            after.retain(|name, _| !letter.removed.contains(name));
            for tree in trees.iter().filter(|tree| !tree.volatile) {
                let Some(here) = self.here.get(&tree.name).filter(|here| after.get(&tree.name) != Some(here)) else {
                    continue;
                };
                if put(&mut letter, tree, &mut room) {
                    after.insert(tree.name.clone(), *here);
                }
            }
            letter.hash = hash(&after);
            self.flight = Some(Flight { base: letter.base, after, removed: letter.removed.clone() });
        }
        for tree in trees.iter().filter(|tree| volatile && tree.volatile) {
            put(&mut letter, tree, &mut room);
        }
        letter
    }

    /// A letter with stable trees was answered with the hash of what the server has now. Says whether more is to be sent.
    pub(super) fn on_answer(&mut self, hash_there: u64, hash_here: u64, gone: &mut Vec<String>) -> bool {
        let Some(flight) = self.flight.take() else { return false };
        if hash(&flight.after) != hash_there {
            self.there = None;
            // After a whole letter that was not taken the next check-in says what the server wants.
            return flight.base != 0;
        }
        gone.retain(|name| !flight.removed.contains(name));
        self.there = Some(flight.after);
        hash_there != hash_here
    }
}

/// Adds a tree that fits.
fn put(letter: &mut Letter, tree: &TraitTree, room: &mut usize) -> bool {
    let update = wire::TraitUpdate { path: tree.name.clone(), json: tree.value.to_string(), volatile: tree.volatile };
    // Tag and length of the field in the report.
    let bytes = update.encoded_len() + 6;
    let n_trees = letter.updates.len() + letter.removed.len();
    let fits =
        update.json.len() <= limits::TRAIT_TREE_BYTES_MAX && bytes <= *room && n_trees < limits::REPORT_TREES_MAX;
    if fits {
        *room -= bytes;
        letter.updates.push(update);
    }
    fits
}

/// First 8 bytes of the hash over names and hashes of trees.
fn hash(trees: &Hashes) -> u64 {
    let mut bytes = Vec::new();
    for (name, hash) in trees {
        bytes.extend_from_slice(&(name.len() as u64).to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&hash.to_be_bytes());
    }
    sha256(&[b"vigo-traits-v2\0", &bytes]).short().max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn tree(name: &str, text: &str) -> TraitTree {
        TraitTree { name: name.into(), value: Arc::new(text.into()), volatile: false }
    }

    fn noted(trees: &[TraitTree]) -> Told {
        let mut told = Told::default();
        trees.iter().for_each(|tree| told.note(&tree.name, &tree.value.to_string()));
        told
    }

    fn names(letter: &Letter) -> Vec<&str> {
        letter.updates.iter().map(|update| update.path.as_str()).collect()
    }

    #[test]
    fn only_what_changed_is_sent_after_the_first_time() {
        let mut trees = vec![tree("os", "a"), tree("packages", "b")];
        let mut told = noted(&trees);
        let first = told.letter(&trees, &[], true, false);
        assert_eq!((names(&first), first.base, first.hash), (vec!["os", "packages"], 0, told.hash()));
        assert!(!told.on_answer(first.hash, told.hash(), &mut Vec::new()));
        trees[1] = tree("packages", "c");
        told.note("packages", "\"c\"");
        told.forget("os");
        let second = told.letter(&trees[1..], &[], true, false);
        assert_eq!((names(&second), second.base, second.hash), (vec!["packages"], first.hash, told.hash()));
        assert_eq!(second.removed, ["os"]);
    }

    #[test]
    fn a_server_that_lost_the_trees_gets_them_all() {
        let trees = [tree("os", "a"), tree("users", "b")];
        let mut told = noted(&trees);
        let first = told.letter(&trees, &[], true, false);
        assert!(!told.on_answer(first.hash, told.hash(), &mut Vec::new()));
        // It asks for what it was told: it was restored.
        told.doubt(told.hash());
        assert_eq!(told.letter(&trees, &[], true, false), first);
        // It was somewhere else than a part begins.
        told.on_answer(first.hash, told.hash(), &mut Vec::new());
        told.note("os", "\"c\"");
        assert_eq!(names(&told.letter(&trees, &[], true, false)), ["os"]);
        assert!(told.on_answer(0, told.hash(), &mut Vec::new()));
        assert_eq!(names(&told.letter(&trees, &[], true, false)), ["os", "users"]);
        // A server that takes nothing is not asked again and again.
        assert!(!told.on_answer(0, told.hash(), &mut Vec::new()));
    }

    #[test]
    fn what_does_not_fit_goes_with_the_next_report() {
        let big = "x".repeat(limits::TRAIT_TREE_BYTES_MAX - 2);
        let trees: Vec<TraitTree> = ["a", "b", "c"].map(|name| tree(name, &big)).to_vec();
        let mut told = noted(&trees);
        let mut gone = vec!["old".to_string()];
        let mut seen = Vec::new();
        for (n, more) in [(0, true), (1, true), (2, false)] {
            let letter = told.letter(&trees, &gone, true, true);
            assert_eq!(letter.removed.len(), usize::from(n == 0));
            seen.extend(letter.updates.iter().map(|update| update.path.clone()));
            assert_eq!(told.on_answer(letter.hash, told.hash(), &mut gone), more);
        }
        assert_eq!(seen, ["a", "b", "c"]);
        assert!(gone.is_empty());
    }

    #[test]
    fn no_report_has_more_trees_than_a_server_takes() {
        let trees: Vec<TraitTree> = (0..50).map(|n| tree(&format!("t{n:02}"), "x")).collect();
        let mut told = noted(&trees);
        let mut gone: Vec<String> = (0..50).map(|n| format!("gone{n:02}")).collect();
        let (mut seen, mut removed, mut more) = (0, 0, true);
        while more {
            let letter = told.letter(&trees, &gone, true, true);
            assert!(letter.updates.len() + letter.removed.len() <= limits::REPORT_TREES_MAX);
            (seen, removed) = (seen + letter.updates.len(), removed + letter.removed.len());
            more = told.on_answer(letter.hash, told.hash(), &mut gone);
        }
        assert_eq!((seen, removed, gone.len()), (50, 50, 0));
    }
}
