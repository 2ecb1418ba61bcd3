//! What one compiled tree changes against another, for people.

use std::collections::BTreeMap;
use std::fmt;

use common::ids::Hash32;

use super::compiled::Compiled;
use super::memory::codec::Keep;
use super::memory::{begin, end, open};

/// Names of what was added, removed and changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Only in the new tree.
    pub added: Vec<String>,
    /// Only in the old tree.
    pub removed: Vec<String>,
    /// In both, with another content.
    pub changed: Vec<String>,
}

/// What a publish changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Configcrates, by name; a changed one has another file.
    pub crates: Difference,
    /// Mappings, by their patterns; a changed one has another bundle.
    pub mappings: Difference,
}

/// Names shown of each kind in the one-line summary.
const SHOWN_MAX: usize = 5;

/// What a tree is compared by: names and hashes. Small beside the tree, and quickly read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Hash of each configcrate's file.
    crates: BTreeMap<String, Hash32>,
    /// Bundle of each mapping. Mappings with the same patterns are told apart by their number.
    mappings: BTreeMap<String, Hash32>,
}

/// Begins every kept outline.
const MAGIC: &[u8] = b"vigo policy outline 1\n";

impl Outline {
    /// As it is kept. `build` is that of [`Memory`](super::Memory).
    pub fn encode(&self, build: &Hash32) -> Vec<u8> {
        let mut out = begin(MAGIC, build);
        self.crates.put(&mut out);
        self.mappings.put(&mut out);
        end(out)
    }

    /// What this build kept; `None` for anything else.
    pub fn decode(build: &Hash32, bytes: &[u8]) -> Option<Outline> {
        let mut from = open(MAGIC, build, bytes)?;
        let outline = Outline { crates: Keep::take(&mut from)?, mappings: Keep::take(&mut from)? };
        from.is_empty().then_some(outline)
    }

    /// What this tree changes against an older one.
    pub fn changes_from(&self, old: &Outline) -> Changes {
        Changes { crates: difference(&old.crates, &self.crates), mappings: difference(&old.mappings, &self.mappings) }
    }
}

impl Compiled {
    /// What it is compared by.
    pub fn outline(&self) -> Outline {
        Outline { crates: self.crates.clone(), mappings: by_patterns(self) }
    }

    /// What this tree changes against an older one.
    pub fn changes_from(&self, old: Option<&Compiled>) -> Changes {
        self.outline().changes_from(&old.map(Compiled::outline).unwrap_or_default())
    }
}

impl Changes {
    /// Whether no configcrate and no mapping is touched: comments, unused files.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

impl fmt::Display for Changes {
    /// One line: `configcrates: 1 added (nginx); mappings: 2 changed (web-*, db-*)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [("configcrates", &self.crates), ("mappings", &self.mappings)]
            .into_iter()
            .filter_map(|(kind, difference)| Some(format!("{kind}: {}", difference.line()?)))
            .collect();
        f.write_str(if parts.is_empty() { "no configcrate and no mapping changes" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

impl Difference {
    fn line(&self) -> Option<String> {
        let part = |names: &[String], word: &str| {
            let shown = names.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if names.len() > SHOWN_MAX { ", ..." } else { "" };
            (!names.is_empty()).then(|| format!("{} {word} ({shown}{more})", names.len()))
        };
        let parts = [part(&self.added, "added"), part(&self.changed, "changed"), part(&self.removed, "removed")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn by_patterns(compiled: &Compiled) -> BTreeMap<String, Hash32> {
    let mut out = BTreeMap::new();
    for mapping in &compiled.mappings {
        let patterns = mapping.patterns.join(" ");
        let hash = compiled.bundles[mapping.bundle as usize].hash;
        let mut name = patterns.clone();
        let mut n = 1;
        while out.contains_key(&name) {
            n += 1;
            name = format!("{patterns} (#{n})");
        }
        out.insert(name, hash);
    }
    out
}

fn difference(old: &BTreeMap<String, Hash32>, new: &BTreeMap<String, Hash32>) -> Difference {
    let missing_in = |other: &BTreeMap<String, Hash32>, of: &BTreeMap<String, Hash32>| {
        of.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
    };
    let changed = new.iter().filter(|(name, hash)| old.get(*name).is_some_and(|old| old != *hash));
    Difference {
        added: missing_in(old, new),
        removed: missing_in(new, old),
        changed: changed.map(|(name, _)| name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Tree, compile};
    use super::*;

    fn tree(command: &str, patterns: &str) -> Compiled {
        let tree: Tree = [
            ("configcrates/a.vgo", format!("name: a\nresources: [{{name: x, type: exec, command: {command}}}]\n")),
            ("envoys/a.vgo", format!("envoys:\n- {{match: [{patterns}], configcrates: [a]}}\n")),
        ]
        .into_iter()
        .collect();
        compile(&tree).unwrap()
    }

    #[test]
    fn changes_are_told_in_one_line() {
        let (old, new) = (tree("one", "web, db"), tree("two", "web, db"));
        assert_eq!(
            new.changes_from(Some(&old)).to_string(),
            "configcrates: 1 changed (a); mappings: 1 changed (web db)"
        );
        assert_eq!(new.changes_from(None).to_string(), "configcrates: 1 added (a); mappings: 1 added (web db)");
        assert!(new.changes_from(Some(&new)).is_empty());
        let (build, kept) = (Hash32([1; 32]), old.outline().encode(&Hash32([1; 32])));
        assert_eq!(Outline::decode(&build, &kept), Some(old.outline()));
        assert_eq!(Outline::decode(&Hash32::ZERO, &kept), None, "of another build");
        assert_eq!(Outline::decode(&build, &kept[1..]), None, "damaged");
        let moved = tree("two", "db");
        assert_eq!(moved.changes_from(Some(&new)).to_string(), "mappings: 1 added (db), 1 removed (web db)");
    }
}
