//! The resolved policy of one envoy mapping: what the server compiles and the agent plans from.
//!
//! A [`Bundle`] that exists is well-formed: resource names are unique, every edge points to an earlier (or, for
//! `notify`, later) resource, and no value is nested deeper than its limit.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;

use super::{Refused, open, sign};
use crate::crypto::{Context, PublicKey, SigningKey};
use crate::ids::Hash32;
use crate::limits;
use crate::proto::{BadMessage, wire};

/// The one bundle format of this version.
pub const BUNDLE_FORMAT: u32 = 1;

/// A value of policy: what YAML can say. Strings may be templates.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// Truth.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Other number.
    Float(f64),
    /// Text, possibly a template.
    Str(String),
    /// Sequence.
    List(Vec<Value>),
    /// Mapping, ordered by key so that encoding is deterministic.
    Map(BTreeMap<String, Value>),
}

/// One idempotent statement.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Resource {
    /// `crate.name`, unique in the bundle.
    pub name: String,
    /// Executor: `file`, `exec`.
    pub kind: String,
    /// Parameters of the executor, templates not rendered.
    pub params: BTreeMap<String, Value>,
    /// Condition, empty for always.
    pub when: String,
    /// Items to unroll over: a list, or a text that is one template.
    pub foreach: Option<Value>,
    /// Resources that must not have failed. Each index is lower than this resource's own.
    pub depends_on: Vec<u32>,
    /// Resources that only come first. Each index is lower than this resource's own.
    pub after: Vec<u32>,
    /// Resources to run again when this one changed. Each index is higher than this resource's own.
    pub notify: Vec<u32>,
    /// Time for check and apply together, milliseconds.
    pub timeout_ms: u64,
    /// Further attempts after a failure.
    pub retries: u32,
    /// Nothing of it is logged or diffed.
    pub sensitive: bool,
    /// Checked, never applied.
    pub noop: bool,
    /// `configcrates/web/nginx.vgo:12:5`.
    pub source: String,
    /// Defaults of its configcrate that differ from [`Bundle::vars`]: looked up first.
    pub vars: BTreeMap<String, Value>,
}

/// A file that the policy names with `source:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobRef {
    /// Content.
    pub sha256: Hash32,
    /// Bytes.
    pub size: u64,
    /// As written in the policy: `files/motd`.
    pub path: String,
}

/// The whole policy of one mapping.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Bundle {
    /// Where the mapping is written: `envoys/production/web.vgo:2`.
    pub mapping: String,
    /// Environment of the mapping, or empty.
    pub environment: String,
    /// Variables after precedence.
    pub vars: BTreeMap<String, Value>,
    /// In a stable topological order.
    pub resources: Vec<Resource>,
    /// Files that `source:` parameters name.
    pub blobs: Vec<BlobRef>,
    /// Literal secret paths, sorted.
    pub secrets: Vec<String>,
}

impl Bundle {
    /// Encodes (the same bundle gives the same bytes on every architecture) and signs with the policy key.
    pub fn sign(&self, key: &SigningKey) -> wire::Signed {
        sign(key, Context::Bundle, self.encode())
    }

    /// The payload bytes.
    pub fn encode(&self) -> Vec<u8> {
        let raw = wire::Bundle {
            format: BUNDLE_FORMAT,
            mapping: self.mapping.clone(),
            environment: self.environment.clone(),
            vars: map_to_wire(&self.vars),
            resources: self.resources.iter().map(Resource::to_wire).collect(),
            blobs: self.blobs.iter().map(BlobRef::to_wire).collect(),
            secrets: self.secrets.clone(),
        };
        raw.encode_to_vec()
    }

    /// Verifies with the pinned policy key, then checks.
    pub fn open(key: &PublicKey, signed: &wire::Signed) -> Result<Bundle, Refused> {
        if signed.payload.len() > limits::BUNDLE_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        Bundle::from_outer(open(key, Context::Bundle, signed)?)
    }

    /// Checks payload bytes whose signature is known to be good.
    pub fn decode(payload: &[u8]) -> Result<Bundle, Refused> {
        Bundle::from_outer(Outer::decode(Bytes::copy_from_slice(payload)).map_err(|_| Refused::Undecodable)?)
    }

    fn from_outer(raw: Outer) -> Result<Bundle, Refused> {
        if raw.format != BUNDLE_FORMAT {
            return Err(Refused::Format(raw.format));
        }
        if raw.resources.len() > limits::RESOURCES_PER_BUNDLE_MAX {
            return Err(BadMessage::new("resources", "at most 20,000 resources").into());
        }
        let n = raw.resources.len() as u32;
        let mut names = BTreeSet::new();
        let mut resources = Vec::with_capacity(raw.resources.len());
        for (index, raw) in raw.resources.into_iter().enumerate() {
            let raw = wire::Resource::decode(raw).map_err(|_| Refused::Undecodable)?;
            let field = |part: &str| format!("resources[{index}].{part}");
            let own = index as u32;
            if raw.name.is_empty() || !names.insert(raw.name.clone()) {
                return Err(BadMessage::new(field("name"), "a unique name").into());
            }
            if raw.depends_on.iter().chain(&raw.after).any(|&to| to >= own) {
                return Err(BadMessage::new(field("depends_on"), "indexes of earlier resources").into());
            }
            if raw.notify.iter().any(|&to| to <= own || to >= n) {
                return Err(BadMessage::new(field("notify"), "indexes of later resources").into());
            }
            resources.push(resource_from_wire(raw, &field)?);
        }
        let blob = |(i, raw): (usize, wire::BlobRef)| match Hash32::try_from_slice(&raw.sha256) {
            Ok(sha256) if raw.size <= limits::BLOB_BYTES_MAX => Ok(BlobRef { sha256, size: raw.size, path: raw.path }),
            _ => Err(BadMessage::new(format!("blobs[{i}]"), "a SHA-256 and a size of at most 64 MiB")),
        };
        Ok(Bundle {
            mapping: raw.mapping,
            environment: raw.environment,
            vars: map_from_wire(raw.vars, "vars", 0)?,
            resources,
            blobs: raw.blobs.into_iter().enumerate().map(blob).collect::<Result<_, _>>()?,
            secrets: raw.secrets,
        })
    }
}

/// [`wire::Bundle`] with its resources not yet decoded: as messages, all of them together, they would take as much memory as the
/// bundle that is made of them.
#[derive(Clone, PartialEq, prost::Message)]
struct Outer {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    mapping: String,
    #[prost(btree_map = "string, message", tag = "3")]
    vars: BTreeMap<String, wire::Value>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    resources: Vec<Bytes>,
    #[prost(message, repeated, tag = "5")]
    blobs: Vec<wire::BlobRef>,
    #[prost(string, repeated, tag = "6")]
    secrets: Vec<String>,
    #[prost(string, tag = "7")]
    environment: String,
}

impl BlobRef {
    /// The message, as it stands in a bundle.
    pub fn to_wire(&self) -> wire::BlobRef {
        wire::BlobRef { sha256: self.sha256.0.to_vec(), size: self.size, path: self.path.clone() }
    }
}

impl Resource {
    /// The message, as it stands in a bundle.
    pub fn to_wire(&self) -> wire::Resource {
        wire::Resource {
            name: self.name.clone(),
            r#type: self.kind.clone(),
            params: map_to_wire(&self.params),
            when: self.when.clone(),
            foreach: self.foreach.as_ref().map(Value::to_wire),
            depends_on: self.depends_on.clone(),
            notify: self.notify.clone(),
            timeout_ms: self.timeout_ms,
            retries: self.retries,
            sensitive: self.sensitive,
            noop: self.noop,
            source: self.source.clone(),
            vars: map_to_wire(&self.vars),
            after: self.after.clone(),
        }
    }
}

impl Value {
    /// The message, as it stands in a bundle.
    pub fn to_wire(&self) -> wire::Value {
        use wire::value::Kind;
        let kind = match self {
            Value::Null => Kind::Null(true),
            Value::Bool(b) => Kind::Boolean(*b),
            Value::Int(n) => Kind::Integer(*n),
            Value::Float(n) => Kind::Real(*n),
            Value::Str(text) => Kind::Text(text.clone()),
            Value::List(items) => Kind::List(wire::ValueList { items: items.iter().map(Value::to_wire).collect() }),
            Value::Map(map) => Kind::Map(wire::ValueMap { entries: map_to_wire(map) }),
        };
        wire::Value { kind: Some(kind) }
    }
}

fn resource_from_wire(raw: wire::Resource, field: &dyn Fn(&str) -> String) -> Result<Resource, BadMessage> {
    if raw.timeout_ms == 0 {
        return Err(BadMessage::new(field("timeout_ms"), "a timeout above 0"));
    }
    Ok(Resource {
        name: raw.name,
        kind: raw.r#type,
        params: map_from_wire(raw.params, &field("params"), 0)?,
        when: raw.when,
        foreach: raw.foreach.map(|value| value_from_wire(value, &field("foreach"), 0)).transpose()?,
        depends_on: raw.depends_on,
        after: raw.after,
        notify: raw.notify,
        timeout_ms: raw.timeout_ms,
        retries: raw.retries,
        sensitive: raw.sensitive,
        noop: raw.noop,
        source: raw.source,
        vars: map_from_wire(raw.vars, &field("vars"), 0)?,
    })
}

fn map_to_wire(map: &BTreeMap<String, Value>) -> BTreeMap<String, wire::Value> {
    map.iter().map(|(key, value)| (key.clone(), value.to_wire())).collect()
}

fn map_from_wire(
    map: BTreeMap<String, wire::Value>,
    field: &str,
    depth: usize,
) -> Result<BTreeMap<String, Value>, BadMessage> {
    map.into_iter().map(|(key, value)| value_from_wire(value, field, depth).map(|value| (key, value))).collect()
}

fn value_from_wire(raw: wire::Value, field: &str, depth: usize) -> Result<Value, BadMessage> {
    use wire::value::Kind;
    if depth > limits::VALUE_DEPTH_MAX {
        return Err(BadMessage::new(field, "values nested at most 32 deep"));
    }
    Ok(match raw.kind {
        None | Some(Kind::Null(_)) => Value::Null,
        Some(Kind::Boolean(b)) => Value::Bool(b),
        Some(Kind::Integer(n)) => Value::Int(n),
        Some(Kind::Real(n)) => Value::Float(n),
        Some(Kind::Text(text)) => Value::Str(text),
        Some(Kind::List(list)) => {
            let items = list.items.into_iter().map(|value| value_from_wire(value, field, depth + 1));
            Value::List(items.collect::<Result<_, _>>()?)
        }
        Some(Kind::Map(map)) => Value::Map(map_from_wire(map.entries, field, depth + 1)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    fn resource(name: &str) -> Resource {
        Resource { name: name.into(), kind: "file".into(), timeout_ms: 1, ..Resource::default() }
    }

    fn bundle() -> Bundle {
        let value = Value::List(vec![Value::Null, Value::Bool(true), Value::Int(-3), Value::Float(0.5)]);
        let map = BTreeMap::from([("k".to_string(), value), ("s".to_string(), Value::Str("{{ x }}".into()))]);
        Bundle {
            mapping: "envoys/a.vgo:1".into(),
            vars: BTreeMap::from([("m".to_string(), Value::Map(map))]),
            resources: vec![
                Resource { notify: vec![1], ..resource("a.x") },
                Resource { depends_on: vec![0], ..resource("a.y") },
            ],
            blobs: vec![BlobRef { sha256: Hash32([1; 32]), size: 9, path: "files/a".into() }],
            ..Bundle::default()
        }
    }

    #[test]
    fn a_bundle_round_trips_and_encodes_the_same_twice() {
        let key = SigningKey::generate(&mut SplitMix64(1));
        let signed = bundle().sign(&key);
        assert_eq!(Bundle::open(&key.public(), &signed), Ok(bundle()));
        assert_eq!(bundle().encode(), bundle().encode());
    }

    #[test]
    fn edges_that_point_the_wrong_way_are_refused() {
        let refused = |bundle: Bundle| matches!(Bundle::decode(&bundle.encode()), Err(Refused::Content(_)));
        for broken in [
            Resource { depends_on: vec![1], ..resource("a.y") },
            Resource { after: vec![7], ..resource("a.y") },
            Resource { notify: vec![0], ..resource("a.y") },
            resource("a.x"),
            Resource { timeout_ms: 0, ..resource("a.y") },
        ] {
            assert!(refused(Bundle { resources: vec![resource("a.x"), broken.clone()], ..bundle() }), "{broken:?}");
        }
        let deep = (0..40).fold(Value::Null, |value, _| Value::List(vec![value]));
        assert!(refused(Bundle { vars: BTreeMap::from([("d".to_string(), deep)]), ..bundle() }));
    }
}
