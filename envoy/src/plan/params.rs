//! Rendered parameters, borrowed from the bundle wherever there was nothing to render, and their fingerprint.

use std::borrow::Cow;

use common::bundle::Value;
use common::ids::Hash32;

/// The parameters of one resource (of one item, under `foreach`), in order of name.
#[derive(Clone, Debug, Default)]
pub struct Params<'a>(Vec<(&'a str, Cow<'a, Value>)>);

impl<'a> Params<'a> {
    /// The value of that name; a null counts as not given.
    pub fn find(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref()).filter(|v| **v != Value::Null)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value.as_ref()))
    }
}

impl<'a> FromIterator<(&'a str, Cow<'a, Value>)> for Params<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, Cow<'a, Value>)>>(pairs: I) -> Self {
        Params(pairs.into_iter().collect())
    }
}

/// Hash of what is asked for: the same number means the same request. The same on every architecture; not for anything
/// that an adversary could profit from colliding.
pub fn fingerprint(kind: &str, params: &Params<'_>, blob: Option<&Hash32>) -> u64 {
    let mut mix = Mix(0);
    mix.text(kind);
    for (name, value) in params.iter() {
        mix.text(name);
        mix.value(value);
    }
    if let Some(hash) = blob {
        mix.word(hash.short());
    }
    mix.finish()
}

/// Multiply and rotate, eight bytes at a time: this runs over every parameter in every run.
struct Mix(u64);

impl Mix {
    fn word(&mut self, word: u64) {
        // An odd constant with no pattern in it: the golden ratio.
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn text(&mut self, text: &str) {
        let mut words = text.as_bytes().chunks_exact(8);
        for chunk in &mut words {
            self.word(u64::from_le_bytes(std::array::from_fn(|i| chunk[i])));
        }
        let rest = words.remainder();
        self.word(u64::from_le_bytes(std::array::from_fn(|i| rest.get(i).copied().unwrap_or(0))));
        // The length keeps texts apart that differ in trailing zeros, and neighbours that share a border.
        self.word(text.len() as u64);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.word(1),
            Value::Bool(b) => self.word(2 + u64::from(*b)),
            Value::Int(n) => {
                self.word(4);
                self.word(*n as u64);
            }
            Value::Float(n) => {
                self.word(5);
                self.word(n.to_bits());
            }
            Value::Str(text) => {
                self.word(6);
                self.text(text);
            }
            Value::List(items) => {
                self.word(7);
                self.word(items.len() as u64);
                items.iter().for_each(|item| self.value(item));
            }
            Value::Map(map) => {
                self.word(8);
                self.word(map.len() as u64);
                for (key, value) in map {
                    self.text(key);
                    self.value(value);
                }
            }
        }
    }

    fn finish(self) -> u64 {
        let spread = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        spread ^ (spread >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(kind: &str, pairs: &[(&'static str, Value)], blob: Option<Hash32>) -> u64 {
        let params = pairs.iter().map(|(name, value)| (*name, Cow::Borrowed(value))).collect();
        fingerprint(kind, &params, blob.as_ref())
    }

    #[test]
    fn different_requests_have_different_fingerprints() {
        let text = |text: &str| Value::Str(text.to_string());
        let all = [
            print("file", &[("a", text("x"))], None),
            print("exec", &[("a", text("x"))], None),
            print("file", &[("b", text("x"))], None),
            print("file", &[("a", text("y"))], None),
            print("file", &[("a", text("x\0"))], None),
            print("file", &[("a", text("1"))], None),
            print("file", &[("a", Value::Int(1))], None),
            print("file", &[("a", Value::Float(1.0))], None),
            print("file", &[("a", Value::Bool(true))], None),
            print("file", &[("a", Value::List(vec![text("x")]))], None),
            print("file", &[("a", Value::List(vec![text("x"), text("")]))], None),
            print("file", &[("a", text("x"))], Some(Hash32([1; 32]))),
            print("file", &[("a", text("x")), ("b", Value::Null)], None),
        ];
        let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], print("file", &[("a", text("x"))], None));
    }

    #[test]
    fn a_null_counts_as_not_given() {
        let params: Params<'_> =
            [("a", Cow::Owned(Value::Null)), ("b", Cow::Owned(Value::Int(1)))].into_iter().collect();
        assert_eq!((params.find("a"), params.find("b"), params.find("c")), (None, Some(&Value::Int(1)), None));
    }
}
