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
use common::policy::model::{Crate, Statement};
use common::policy::secrets::collect;
use common::proto::{Message, wire};
use prost::encoding::{WireType, encode_key, encode_varint, uint32};

/// Field numbers of `vigo.v1.Bundle` and `vigo.v1.Resource`.
const BUNDLE_RESOURCES: u32 = 4;
const RESOURCE_DEPENDS_ON: u32 = 6;
const RESOURCE_NOTIFY: u32 = 7;
const RESOURCE_AFTER: u32 = 14;

/// More than a link takes: a number of at most 5 bytes at both its ends.
const LINK_BYTES: usize = 16;
/// More than surrounds one value: four headers of at most 6 bytes, a number or a hash.
const NODE_BYTES: usize = 80;
/// More than the numbers and headers of one resource: 16 fields of at most 16 bytes.
const RESOURCE_BYTES: usize = 256;

/// The encoded resources of one configcrate, in the order of its file, and the order in which they run where nothing of another
/// configcrate comes between them.
#[derive(Debug)]
pub(super) struct Pieces {
    all: Vec<Piece>,
    plan: Plan,
    /// Whether any of them refers to a secret.
    has_secrets: bool,
}

/// How the resources of several configcrates are ordered.
#[derive(Clone, Debug)]
pub(super) enum Sequence {
    /// One configcrate after the other: none names a resource of another. Nearly all, so nothing is kept for each mapping.
    Chained,
    /// By this plan over all of them.
    Joined(Arc<Plan>),
}

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
    sequence: Sequence,
    /// Names of the mapping's variables, sorted: before them the configcrates' own give way.
    hidden: Box<[String]>,
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
        let all: Vec<Piece> = member.resources.iter().map(piece).collect();
        let has_secrets = all.iter().any(|piece| !piece.secrets.is_empty() || !piece.var_secrets.is_empty());
        Pieces { all, plan: member.plan.clone(), has_secrets }
    }

    /// Files that its resources name.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.all.iter().filter_map(|piece| piece.blob.as_ref())
    }
}

impl Recipe {
    /// For a mapping. `vars` are those that the bundle carries.
    pub(super) fn new(
        (mapping, environment): (&str, &str),
        vars: &[(&str, &Value)],
        crates: Vec<Arc<Pieces>>,
        sequence: Sequence,
    ) -> Recipe {
        let head = wire::Bundle {
            format: common::bundle::BUNDLE_FORMAT,
            mapping: mapping.to_string(),
            vars: vars.iter().map(|(name, value)| (name.to_string(), value.to_wire())).collect(),
            ..wire::Bundle::default()
        };
        let hidden: Box<[String]> = vars.iter().map(|(name, _)| name.to_string()).collect();
        let mut secrets = BTreeSet::new();
        vars.iter().for_each(|(_, value)| collect(value, &mut secrets));
        for piece in crates.iter().filter(|pieces| pieces.has_secrets).flat_map(|pieces| &pieces.all) {
            secrets.extend(piece.secrets.iter().cloned());
            let shown = piece.var_secrets.iter().filter(|(name, _)| hidden.binary_search(name).is_err());
            secrets.extend(shown.flat_map(|(_, found)| found.iter().cloned()));
        }
        let secrets = secrets.into_iter().collect();
        let environment = environment.to_string();
        Recipe { head: head.encode_to_vec(), crates, sequence, hidden, secrets, environment }
    }

    /// Secrets that the bundle refers to, sorted.
    pub(super) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// Files that the bundle names, some of them more than once.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.crates.iter().flat_map(|pieces| pieces.blobs())
    }

    /// Resources in the bundle.
    pub(super) fn n_resources(&self) -> usize {
        self.crates.iter().map(|pieces| pieces.all.len()).sum()
    }

    /// Makes the payload.
    pub(super) fn payload(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.head.len() + self.n_resources() * 256);
        self.write(&mut out);
        Bytes::from(out)
    }

    /// Writes the payload to a buffer that may have been used before.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.head);
        let (mut one, mut shifted) = (Vec::with_capacity(1024), Vec::new());
        let mut resource = |piece: &Piece, links: &Links, start: u32| {
            one.clear();
            one.extend_from_slice(&piece.before_links);
            let mut encode = |field, list: &[u32], one: &mut Vec<u8>| {
                shifted.clear();
                shifted.extend(list.iter().map(|at| at + start));
                uint32::encode_packed(field, &shifted, one);
            };
            encode(RESOURCE_DEPENDS_ON, &links.depends_on, &mut one);
            encode(RESOURCE_NOTIFY, &links.notify, &mut one);
            one.extend_from_slice(&piece.after_links);
            for (name, entry) in &piece.vars {
                if self.hidden.binary_search(name).is_err() {
                    one.extend_from_slice(entry);
                }
            }
            encode(RESOURCE_AFTER, &links.after, &mut one);
            encode_key(BUNDLE_RESOURCES, WireType::LengthDelimited, out);
            encode_varint(one.len() as u64, out);
            out.extend_from_slice(&one);
        };
        match &self.sequence {
            Sequence::Chained => {
                let mut start = 0;
                for pieces in &self.crates {
                    for (&at, links) in pieces.plan.order.iter().zip(&pieces.plan.links) {
                        resource(&pieces.all[at as usize], links, start);
                    }
                    start += pieces.all.len() as u32;
                }
            }
            Sequence::Joined(plan) => {
                let pieces: Vec<&Piece> = self.crates.iter().flat_map(|pieces| &pieces.all).collect();
                for (&at, links) in plan.order.iter().zip(&plan.links) {
                    resource(pieces[at as usize], links, 0);
                }
            }
        }
        let mut blobs: Vec<&BlobRef> = self.blobs().collect();
        blobs.sort_by(|a, b| a.path.cmp(&b.path));
        blobs.dedup();
        let tail = wire::Bundle {
            blobs: blobs.into_iter().map(BlobRef::to_wire).collect(),
            secrets: self.secrets.clone(),
            environment: self.environment.clone(),
            ..wire::Bundle::default()
        };
        // Writing to memory does not fail.
        let _ = tail.encode(out);
    }
}

/// Bytes that the resources of a configcrate cannot exceed in a bundle.
pub(super) fn bytes_at_most(member: &Crate) -> usize {
    let links = |links: &Links| LINK_BYTES * (links.depends_on.len() + links.notify.len() + links.after.len());
    let linked: usize = member.plan.links.iter().map(links).sum::<usize>() + LINK_BYTES * member.foreign.len();
    let blob = |blob: &BlobRef| blob.path.len() + NODE_BYTES;
    let resource = |one: &Statement| {
        let texts = member.name.len() + one.name.len() + one.kind.len() + one.when.len() + member.path.len();
        let values = one.params.iter().chain(own_vars(member, one));
        let values: usize = values.map(|(name, value)| name.len() + value_bytes_at_most(value)).sum();
        let items = one.foreach.as_ref().map_or(0, value_bytes_at_most);
        texts + values + items + one.blob.as_ref().map_or(0, blob) + RESOURCE_BYTES
    };
    linked + member.resources.iter().map(resource).sum::<usize>()
}

/// Bytes that a value and the entry of its name cannot exceed, without the name.
pub(super) fn value_bytes_at_most(value: &Value) -> usize {
    NODE_BYTES
        + match value {
            // A reference to a secret is listed once more.
            Value::Str(text) => 2 * text.len(),
            Value::List(items) => items.iter().map(value_bytes_at_most).sum(),
            Value::Map(map) => map.iter().map(|(key, value)| key.len() + value_bytes_at_most(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        }
}

fn encode_var(name: &str, value: &Value) -> Vec<u8> {
    let vars = [(name.to_string(), value.to_wire())].into();
    wire::Resource { vars, ..wire::Resource::default() }.encode_to_vec()
}
