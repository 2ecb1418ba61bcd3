//! What the server serves: every mapping of a tree, resolved and encoded.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use common::bundle::{BlobRef, Bundle, bundle_hash};
use common::glob::{BadGlob, Glob};
use common::ids::Hash32;

use super::MappingId;
use super::encode::Recipe;
use super::hosts::HostIndex;

/// A compiled tree. Immutable; shared between threads behind an `Arc`.
#[derive(Debug)]
pub struct Compiled {
    pub(super) tree: Hash32,
    pub(super) mappings: Vec<Mapping>,
    pub(super) bundles: Vec<Encoded>,
    /// Bundles by hash: those of equal content are one entry.
    pub(super) by_hash: HashMap<Hash32, u32>,
    pub(super) hosts: HostIndex,
    /// Path below `stacks/` of each file that a bundle names.
    pub(super) blobs: BTreeMap<Hash32, String>,
    /// Hash of each configcrate's file, by name of the configcrate, for summaries.
    pub(super) crates: BTreeMap<String, Hash32>,
}

/// One envoy mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// `envoys/production/web.vgo:2`.
    pub place: String,
    /// Its patterns as written.
    pub patterns: Vec<String>,
    /// Index of its bundle.
    pub(super) bundle: u32,
}

/// One encoded bundle.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) hash: Hash32,
    pub(super) content: Content,
}

/// Where the payload of a bundle comes from. Compiled ones are made when they are asked for: ten thousand payloads would be
/// hundreds of megabytes, and each takes microseconds.
#[derive(Debug)]
pub(super) enum Content {
    /// At hand.
    Whole(Bytes, Vec<BlobRef>, Vec<String>),
    /// To be made.
    Recipe(Recipe),
}

impl Content {
    fn payload(&self) -> Bytes {
        match self {
            Content::Whole(payload, ..) => payload.clone(),
            Content::Recipe(recipe) => recipe.payload(),
        }
    }

    fn secrets(&self) -> &[String] {
        match self {
            Content::Whole(_, _, secrets) => secrets,
            Content::Recipe(recipe) => recipe.secrets(),
        }
    }

    fn blob(&self, hash: &Hash32) -> Option<&BlobRef> {
        match self {
            Content::Whole(_, blobs, _) => blobs.iter().find(|blob| blob.sha256 == *hash),
            Content::Recipe(recipe) => recipe.blobs().find(|blob| blob.sha256 == *hash),
        }
    }
}

impl Compiled {
    /// From bundles that are at hand: mappings as (patterns, bundle) in order. For tests and the simulator; a tree is
    /// compiled by [`super::compile`].
    pub fn from_bundles(tree: Hash32, mappings: Vec<(Vec<String>, Bundle)>) -> Result<Compiled, BadGlob> {
        let mut compiled = Compiled::empty(tree);
        let mut globs = Vec::new();
        for (patterns, bundle) in mappings {
            let id = MappingId(compiled.mappings.len() as u32);
            for pattern in &patterns {
                globs.push((id, Glob::try_new(pattern)?));
            }
            compiled.blobs.extend(bundle.blobs.iter().map(|blob| (blob.sha256, blob.path.clone())));
            let payload = Bytes::from(bundle.encode());
            compiled.add(
                bundle.mapping,
                patterns,
                bundle_hash(&payload),
                Content::Whole(payload, bundle.blobs, bundle.secrets),
            );
        }
        compiled.hosts = HostIndex::new(globs);
        Ok(compiled)
    }

    /// Without any mapping.
    pub(super) fn empty(tree: Hash32) -> Compiled {
        Compiled {
            tree,
            mappings: Vec::new(),
            bundles: Vec::new(),
            by_hash: HashMap::new(),
            hosts: HostIndex::default(),
            blobs: BTreeMap::new(),
            crates: BTreeMap::new(),
        }
    }

    /// Adds a mapping with its bundle.
    pub(super) fn add(&mut self, place: String, patterns: Vec<String>, hash: Hash32, content: Content) {
        let next = self.bundles.len() as u32;
        let bundle = *self.by_hash.entry(hash).or_insert(next);
        if bundle == next {
            self.bundles.push(Encoded { hash, content });
        }
        self.mappings.push(Mapping { place, patterns, bundle });
    }

    /// Hash over the tree.
    pub fn tree_hash(&self) -> Hash32 {
        self.tree
    }

    /// All mappings in order; the position is the [`MappingId`].
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The mapping of a host: the first in path order with a pattern that matches.
    pub fn mapping_for(&self, hostname: &str) -> Option<MappingId> {
        self.hosts.find(hostname)
    }

    /// Hash and payload of a mapping's bundle; making the payload takes microseconds. The id must be of this tree.
    pub fn bundle(&self, id: MappingId) -> (Hash32, Bytes) {
        let bundle = &self.bundles[self.mappings[id.0 as usize].bundle as usize];
        (bundle.hash, bundle.content.payload())
    }

    /// Hash of a host's bundle.
    pub fn bundle_for(&self, hostname: &str) -> Option<Hash32> {
        let mapping = &self.mappings[self.mapping_for(hostname)?.0 as usize];
        Some(self.bundles[mapping.bundle as usize].hash)
    }

    /// Secrets that a bundle refers to, sorted.
    pub fn secrets(&self, bundle: &Hash32) -> &[String] {
        self.encoded(bundle).map_or(&[], |encoded| encoded.content.secrets())
    }

    /// Whether some mapping has that bundle.
    pub fn has_bundle(&self, bundle: &Hash32) -> bool {
        self.by_hash.contains_key(bundle)
    }

    /// Payload of a bundle, made anew.
    pub fn payload(&self, bundle: &Hash32) -> Option<Bytes> {
        self.encoded(bundle).map(|encoded| encoded.content.payload())
    }

    /// Size of a file, if that bundle names it: nobody fetches what his bundle does not name.
    pub fn blob_size(&self, bundle: &Hash32, blob: &Hash32) -> Option<u64> {
        self.encoded(bundle)?.content.blob(blob).map(|known| known.size)
    }

    /// Path below the published tree of a file that some bundle names.
    pub fn blob_path(&self, blob: &Hash32) -> Option<&str> {
        self.blobs.get(blob).map(String::as_str)
    }

    fn encoded(&self, bundle: &Hash32) -> Option<&Encoded> {
        self.by_hash.get(bundle).map(|&index| &self.bundles[index as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_of_equal_content_are_one_entry() {
        let bundle = |environment: &str| Bundle { environment: environment.into(), ..Bundle::default() };
        let mappings = vec![
            (vec!["a*".into()], bundle("x")),
            (vec!["b".into(), "c".into()], bundle("x")),
            (vec!["*".into()], bundle("y")),
        ];
        let compiled = Compiled::from_bundles(Hash32::ZERO, mappings).unwrap();
        assert_eq!(compiled.bundle_for("a1"), compiled.bundle_for("c"));
        assert_ne!(compiled.bundle_for("a1"), compiled.bundle_for("d"));
        let (hash, payload) = compiled.bundle(compiled.mapping_for("d").unwrap());
        assert_eq!(compiled.payload(&hash), Some(payload));
        assert_eq!(compiled.payload(&Hash32::ZERO), None);
    }
}
