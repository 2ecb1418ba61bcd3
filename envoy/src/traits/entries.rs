//! Trees of very many entries, cut at a bound: what has no room are the last ones by name, and a mark says so. The same host
//! always gives the same tree.

use std::collections::BTreeMap;

use common::limits::TRAIT_COLLECTED_BYTES_MAX;
use common::policy::trait_keys::TRUNCATED;
use serde_json::{Map, Value};

/// The tree of these entries.
pub(super) fn tree(entries: BTreeMap<String, Value>) -> Value {
    let (mut out, mut room) = (Map::new(), TRAIT_COLLECTED_BYTES_MAX);
    for (name, value) in entries {
        let bytes = escaped_bytes(&name) + value_bytes(&value) + 2;
        if bytes > room {
            out.insert(TRUNCATED.to_string(), Value::Bool(true));
            break;
        }
        room -= bytes;
        out.insert(name, value);
    }
    Value::Object(out)
}

/// Bytes of a value as JSON, without making it for the most common kind.
fn value_bytes(value: &Value) -> usize {
    value.as_str().map_or_else(|| value.to_string().len(), escaped_bytes)
}

/// Bytes of a text in quotes: at most six for what is escaped.
fn escaped_bytes(text: &str) -> usize {
    2 + text.bytes().map(|byte| if byte < b' ' || byte == b'"' || byte == b'\\' { 6 } else { 1 }).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_cut_at_its_bound_and_says_so() {
        let entries = |n: usize| (0..n).map(|n| (format!("package-{n:06}"), "1.2.3-4\"\\".into())).collect();
        assert_eq!(tree(entries(3)).as_object().unwrap().len(), 3);
        let cut = tree(entries(20_000));
        assert_eq!(cut[TRUNCATED], true);
        assert!(cut.to_string().len() <= TRAIT_COLLECTED_BYTES_MAX + 64);
        assert!(cut.get("package-000000").is_some() && cut.get("package-019999").is_none());
        assert_eq!(cut, tree(entries(20_000)));
    }
}
