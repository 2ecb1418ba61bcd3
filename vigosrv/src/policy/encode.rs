//! Encodes bundles from pieces that are made once a configcrate.
//!
//! Ten thousand mappings share a thousand configcrates: what does not depend on the mapping is encoded once and copied. The
//! bytes are those of [`common::bundle::Bundle::encode`]; a test holds the two together. Fields are written in the order of
//! their numbers, as prost does.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use common::bundle::{BlobRef, Resource, Value};
use common::policy::compile::{own_vars, resource};
use common::policy::dag::{Links, Plan};
use common::policy::model::Crate;
use common::policy::secrets::collect;
use common::proto::{Message, wire};
use prost::encoding::{WireType, encode_key, encode_varint, uint32};

/// Field numbers of `vigo.v1.Bundle` and `vigo.v1.Resource`.
const BUNDLE_RESOURCES: u32 = 4;
const RESOURCE_DEPENDS_ON: u32 = 6;
const RESOURCE_NOTIFY: u32 = 7;
const RESOURCE_AFTER: u32 = 14;

/// The encoded resources of one configcrate, in the order of its file.
#[derive(Debug)]
pub(super) struct Pieces(Vec<Piece>);

#[derive(Debug)]
struct Piece {
    /// Name to `foreach`.
    before_links: Vec<u8>,
    /// Timeout to source.
    after_links: Vec<u8>,
    /// Each variable of the configcrate that it uses, as one encoded entry, in order of name.
    vars: Vec<(String, Vec<u8>)>,
    blob: Option<BlobRef>,
    /// Secrets that parameters and items refer to.
    secrets: BTreeSet<String>,
    /// Secrets that a variable of the configcrate refers to, by its name.
    var_secrets: Vec<(String, BTreeSet<String>)>,
}

/// How to make the payload of a bundle. Small: what is large is shared.
#[derive(Debug)]
pub(super) struct Recipe {
    /// Format, mapping and variables.
    head: Vec<u8>,
    /// In the order of the mapping.
    crates: Vec<Arc<Pieces>>,
    plan: Arc<Plan>,
    /// Names of the mapping's variables, sorted: before them the configcrates' own give way.
    hidden: Arc<[String]>,
    blobs: Vec<BlobRef>,
    /// Paths of secrets, sorted.
    secrets: Vec<String>,
    environment: String,
}

impl Pieces {
    /// Encodes a configcrate.
    pub(super) fn new(member: &Crate) -> Pieces {
        let none = std::collections::BTreeMap::new();
        let piece = |statement| {
            let whole = resource(member, statement, &Links::default(), &none);
            let vars = own_vars(member, statement).map(|(name, value)| (name.clone(), encode_var(name, value)));
            let after = Resource {
                timeout_ms: whole.timeout_ms,
                retries: whole.retries,
                sensitive: whole.sensitive,
                noop: whole.noop,
                source: whole.source.clone(),
                ..Resource::default()
            };
            let vars = vars.collect();
            let before = Resource {
                vars: Default::default(),
                timeout_ms: 0,
                retries: 0,
                sensitive: false,
                noop: false,
                source: String::new(),
                ..whole
            };
            let blob = statement.blob.clone();
            let of = |values: &mut dyn Iterator<Item = &Value>| {
                let mut found = BTreeSet::new();
                values.for_each(|value| collect(value, &mut found));
                found
            };
            let secrets = of(&mut before.params.values().chain(before.foreach.iter()));
            let own = own_vars(member, statement).map(|(name, value)| (name.clone(), of(&mut std::iter::once(value))));
            let var_secrets = own.filter(|(_, found)| !found.is_empty()).collect();
            Piece {
                before_links: before.to_wire().encode_to_vec(),
                after_links: after.to_wire().encode_to_vec(),
                vars,
                blob,
                secrets,
                var_secrets,
            }
        };
        Pieces(member.resources.iter().map(piece).collect())
    }
}

impl Recipe {
    /// For a mapping. `vars` are those that the bundle carries.
    pub(super) fn new(
        (mapping, environment): (&str, &str),
        vars: &[(&str, &Value)],
        crates: Vec<Arc<Pieces>>,
        plan: Arc<Plan>,
    ) -> Recipe {
        let head = wire::Bundle {
            format: common::bundle::BUNDLE_FORMAT,
            mapping: mapping.to_string(),
            vars: vars.iter().map(|(name, value)| (name.to_string(), value.to_wire())).collect(),
            ..wire::Bundle::default()
        };
        let mut blobs: Vec<BlobRef> =
            crates.iter().flat_map(|pieces| pieces.0.iter()).filter_map(|piece| piece.blob.clone()).collect();
        blobs.sort_by(|a, b| a.path.cmp(&b.path));
        blobs.dedup();
        let hidden: Arc<[String]> = vars.iter().map(|(name, _)| name.to_string()).collect();
        let mut secrets = BTreeSet::new();
        vars.iter().for_each(|(_, value)| collect(value, &mut secrets));
        for piece in crates.iter().flat_map(|pieces| pieces.0.iter()) {
            secrets.extend(piece.secrets.iter().cloned());
            let shown = piece.var_secrets.iter().filter(|(name, _)| hidden.binary_search(name).is_err());
            secrets.extend(shown.flat_map(|(_, found)| found.iter().cloned()));
        }
        let secrets = secrets.into_iter().collect();
        let environment = environment.to_string();
        Recipe { head: head.encode_to_vec(), crates, plan, hidden, blobs, secrets, environment }
    }

    /// Secrets that the bundle refers to, sorted.
    pub(super) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// Files that the bundle names.
    pub(super) fn blobs(&self) -> &[BlobRef] {
        &self.blobs
    }

    /// Resources in the bundle.
    pub(super) fn n_resources(&self) -> usize {
        self.plan.order.len()
    }

    /// Makes the payload.
    pub(super) fn payload(&self) -> Bytes {
        let pieces: Vec<&Piece> = self.crates.iter().flat_map(|pieces| pieces.0.iter()).collect();
        let mut out = Vec::with_capacity(self.head.len() + pieces.len() * 256);
        out.extend_from_slice(&self.head);
        let mut one = Vec::with_capacity(1024);
        for (&at, links) in self.plan.order.iter().zip(&self.plan.links) {
            let piece = pieces[at as usize];
            one.clear();
            one.extend_from_slice(&piece.before_links);
            uint32::encode_packed(RESOURCE_DEPENDS_ON, &links.depends_on, &mut one);
            uint32::encode_packed(RESOURCE_NOTIFY, &links.notify, &mut one);
            one.extend_from_slice(&piece.after_links);
            for (name, entry) in &piece.vars {
                if self.hidden.binary_search(name).is_err() {
                    one.extend_from_slice(entry);
                }
            }
            uint32::encode_packed(RESOURCE_AFTER, &links.after, &mut one);
            encode_key(BUNDLE_RESOURCES, WireType::LengthDelimited, &mut out);
            encode_varint(one.len() as u64, &mut out);
            out.extend_from_slice(&one);
        }
        let tail = wire::Bundle {
            blobs: self.blobs.iter().map(BlobRef::to_wire).collect(),
            secrets: self.secrets.clone(),
            environment: self.environment.clone(),
            ..wire::Bundle::default()
        };
        out.extend_from_slice(&tail.encode_to_vec());
        Bytes::from(out)
    }
}

fn encode_var(name: &str, value: &Value) -> Vec<u8> {
    let vars = [(name.to_string(), value.to_wire())].into();
    wire::Resource { vars, ..wire::Resource::default() }.encode_to_vec()
}
