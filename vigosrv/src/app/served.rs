//! The policy that is served now: compiled bundles, signed once each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use common::bundle;
use common::crypto::{Context, SigningKey};
use common::ids::Hash32;
use common::proto::wire;

use crate::policy::Compiled;

/// The compiled tree, and the signatures made so far.
#[derive(Debug, Default)]
pub struct Served {
    compiled: Option<Arc<Compiled>>,
    /// Signed on first use. Bundles of one content share one entry, and the payload is shared with the compiled tree.
    signed: RefCell<HashMap<Hash32, wire::Signed>>,
}

impl Served {
    pub(crate) fn new(compiled: Option<Arc<Compiled>>) -> Served {
        Served { compiled, signed: RefCell::default() }
    }

    /// Serves another tree. Signatures of bundles that both trees have are kept.
    pub(crate) fn replace(&mut self, compiled: Arc<Compiled>) {
        self.signed.get_mut().retain(|hash, _| compiled.has_bundle(hash));
        self.compiled = Some(compiled);
    }

    /// Whether anything was ever published.
    pub fn is_published(&self) -> bool {
        self.compiled.is_some()
    }

    /// Hash of the served tree.
    pub fn tree(&self) -> Option<Hash32> {
        self.compiled.as_ref().map(|compiled| compiled.tree_hash())
    }

    /// The bundle of a host, by the first mapping that matches.
    pub fn bundle_for(&self, hostname: &str) -> Option<Hash32> {
        self.compiled.as_ref()?.bundle_for(hostname)
    }

    /// A bundle as it travels.
    pub(crate) fn signed(&self, hash: &Hash32, key: &SigningKey) -> Option<wire::Signed> {
        if let Some(signed) = self.signed.borrow().get(hash) {
            return Some(signed.clone());
        }
        let payload = self.compiled.as_ref()?.payload(hash)?;
        let signature = key.sign(Context::Bundle, &payload).to_vec();
        let signed = wire::Signed { payload, signature, sealed: Vec::new() };
        debug_assert_eq!(bundle::bundle_hash(&signed.payload), *hash);
        self.signed.borrow_mut().insert(*hash, signed.clone());
        Some(signed)
    }

    /// Secrets that a bundle refers to.
    pub(crate) fn secrets(&self, bundle: &Hash32) -> &[String] {
        self.compiled.as_ref().map_or(&[], |compiled| compiled.secrets(bundle))
    }

    /// Size of a file that a bundle names; `None` when it names no such file.
    pub(crate) fn blob_size(&self, bundle: &Hash32, blob: &Hash32) -> Option<u64> {
        self.compiled.as_ref()?.blob_size(bundle, blob)
    }
}
