//! Parsed files as bytes and back. Only what this very build has written is read, so nothing is versioned: a field that is added
//! or moved makes another build. What does not decode is `None`, never a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::bundle::{BlobRef, Value};
use common::glob::Glob;
use common::ids::Hash32;
use common::limits;
use common::policy::dag::{Links, Plan};
use common::policy::model::{Crate, Foreign, Mention, Relation, Site, Statement};
use common::yaml::Pos;

use crate::policy::load::{Group, MappingDef, Parsed};

/// Items that a list reserves room for before they are there.
const RESERVED_MAX: u64 = 1024;

/// A value that can be kept.
pub(in crate::policy) trait Keep: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes it from the beginning.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

/// Keeps a struct field by field. A field that is missing here does not compile.
macro_rules! keep {
    ($kind:ident { $($field:ident),* }) => {
        impl Keep for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                let $kind { $($field),* } = self;
                $($field.put(out);)*
            }

            fn take(from: &mut &[u8]) -> Option<$kind> {
                Some($kind { $($field: Keep::take(from)?),* })
            }
        }
    };
}

keep!(Pos { line, column });
keep!(Mention { name, at });
keep!(Site { template, at });
keep!(Links { depends_on, after, notify });
keep!(Plan { order, links });
keep!(Foreign { from, to_crate, to, relation, at });
keep!(BlobRef { sha256, size, path });
keep!(Statement { name, at, kind, params, when, foreach, timeout_ms, retries, sensitive, noop, blob, keys });
keep!(Crate { name, at, path, vars, resources, plan, foreign, required, keys });
keep!(Group { path, roles, configcrates, vars });
keep!(MappingDef { at, patterns, environment, group });

impl Keep for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        prost::encoding::encode_varint(*self, out);
    }

    fn take(from: &mut &[u8]) -> Option<u64> {
        prost::encoding::decode_varint(from).ok()
    }
}

impl Keep for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        u64::from(*self).put(out);
    }

    fn take(from: &mut &[u8]) -> Option<u32> {
        u64::take(from)?.try_into().ok()
    }
}

impl Keep for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(from: &mut &[u8]) -> Option<bool> {
        let (first, rest) = from.split_first()?;
        *from = rest;
        Some(*first == 1)
    }
}

/// So many bytes from the beginning.
pub(super) fn bytes<'b>(from: &mut &'b [u8], n: usize) -> Option<&'b [u8]> {
    let (taken, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(taken)
}

fn text<'b>(from: &mut &'b [u8]) -> Option<&'b str> {
    let n = usize::try_from(u64::take(from)?).ok()?;
    std::str::from_utf8(bytes(from, n)?).ok()
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    (text.len() as u64).put(out);
    out.extend_from_slice(text.as_bytes());
}

impl Keep for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(self, out);
    }

    fn take(from: &mut &[u8]) -> Option<String> {
        text(from).map(str::to_string)
    }
}

impl Keep for Arc<str> {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(self, out);
    }

    fn take(from: &mut &[u8]) -> Option<Arc<str>> {
        text(from).map(Arc::from)
    }
}

impl Keep for Hash32 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn take(from: &mut &[u8]) -> Option<Hash32> {
        bytes(from, 32)?.try_into().ok().map(Hash32)
    }
}

impl Keep for Glob {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(self.source(), out);
    }

    fn take(from: &mut &[u8]) -> Option<Glob> {
        Glob::try_new(text(from)?).ok()
    }
}

impl Keep for Relation {
    fn put(&self, out: &mut Vec<u8>) {
        let at = Relation::ALL.iter().position(|one| one == self).unwrap_or_default();
        (at as u64).put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Relation> {
        Relation::ALL.get(u32::take(from)? as usize).copied()
    }
}

impl<T: Keep> Keep for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn take(from: &mut &[u8]) -> Option<Option<T>> {
        Some(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Keep> Keep for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn take(from: &mut &[u8]) -> Option<Vec<T>> {
        let n = u64::take(from)?;
        let mut out = Vec::with_capacity(n.min(RESERVED_MAX) as usize);
        for _ in 0..n {
            out.push(T::take(from)?);
        }
        Some(out)
    }
}

impl<A: Keep, B: Keep> Keep for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<(A, B)> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl<K: Keep + Ord, V: Keep> Keep for BTreeMap<K, V> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<BTreeMap<K, V>> {
        let mut out = BTreeMap::new();
        for _ in 0..u64::take(from)? {
            out.insert(K::take(from)?, V::take(from)?);
        }
        Some(out)
    }
}

impl<K: Keep + Ord> Keep for BTreeSet<K> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        self.iter().for_each(|key| key.put(out));
    }

    fn take(from: &mut &[u8]) -> Option<BTreeSet<K>> {
        let mut out = BTreeSet::new();
        for _ in 0..u64::take(from)? {
            out.insert(K::take(from)?);
        }
        Some(out)
    }
}

impl Keep for Value {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => 0u64.put(out),
            Value::Bool(truth) => (1 + u64::from(*truth)).put(out),
            Value::Int(n) => {
                3u64.put(out);
                (*n as u64).put(out);
            }
            Value::Float(n) => {
                4u64.put(out);
                n.to_bits().put(out);
            }
            Value::Str(text) => {
                5u64.put(out);
                text.put(out);
            }
            Value::List(items) => {
                6u64.put(out);
                items.put(out);
            }
            Value::Map(map) => {
                7u64.put(out);
                map.put(out);
            }
        }
    }

    fn take(from: &mut &[u8]) -> Option<Value> {
        take_value(from, 0)
    }
}

/// Nesting is bounded as it was when the value was parsed.
fn take_value(from: &mut &[u8], depth: usize) -> Option<Value> {
    if depth > limits::YAML_DEPTH_MAX {
        return None;
    }
    Some(match u64::take(from)? {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => Value::Int(u64::take(from)? as i64),
        4 => Value::Float(f64::from_bits(u64::take(from)?)),
        5 => Value::Str(Keep::take(from)?),
        6 => {
            let n = u64::take(from)?;
            Value::List((0..n).map(|_| take_value(from, depth + 1)).collect::<Option<_>>()?)
        }
        7 => {
            let n = u64::take(from)?;
            let entry = |_| Some((String::take(from)?, take_value(from, depth + 1)?));
            Value::Map((0..n).map(entry).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

impl Keep for Parsed {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Parsed::Crate(parsed) => {
                0u64.put(out);
                parsed.put(out);
            }
            Parsed::Role { name, at, group } => {
                1u64.put(out);
                name.put(out);
                at.put(out);
                group.put(out);
            }
            Parsed::Common(group) => {
                2u64.put(out);
                group.put(out);
            }
            Parsed::Environments(all) => {
                3u64.put(out);
                all.put(out);
            }
            Parsed::Mappings(all) => {
                4u64.put(out);
                all.put(out);
            }
            Parsed::Vars(vars) => {
                5u64.put(out);
                vars.put(out);
            }
        }
    }

    fn take(from: &mut &[u8]) -> Option<Parsed> {
        Some(match u64::take(from)? {
            0 => Parsed::Crate(Box::new(Keep::take(from)?)),
            1 => Parsed::Role { name: Keep::take(from)?, at: Keep::take(from)?, group: Keep::take(from)? },
            2 => Parsed::Common(Keep::take(from)?),
            3 => Parsed::Environments(Keep::take(from)?),
            4 => Parsed::Mappings(Keep::take(from)?),
            5 => Parsed::Vars(Arc::new(Keep::take(from)?)),
            _ => return None,
        })
    }
}
