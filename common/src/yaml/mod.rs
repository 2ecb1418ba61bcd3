//! YAML 1.2 as every configuration of the product is written: read into a tree in which each value knows its place, so
//! that whatever is found wrong later can be shown where it stands.
//!
//! This folder must not know what the keys mean, and reads no file: bytes come in. What YAML allows and nobody means is
//! refused: duplicate keys, tags, merge keys, several documents in a file. Size, nesting and number of values (aliases
//! counted at every use) are bounded by `YAML_BYTES_MAX`, `YAML_DEPTH_MAX` and `YAML_VALUES_MAX`. See `docs/adr/0040-yaml.md`.

mod doc;
mod error;
mod load;
mod scalar;

pub use doc::Doc;
pub use error::{Error, render};

/// A place in a file: both numbers count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub at: Pos,
    /// What it is.
    pub kind: Kind,
    /// How a scalar is written; decides where a place inside its text is in the file.
    pub style: Style,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another finite number.
    Float(f64),
    /// Text. A plain scalar with a leading zero, such as `0644`, is text: it is a file mode, an extension, never a quantity.
    Str(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes; also every list and mapping.
    Plain,
    /// In single or double quotes.
    Quoted,
    /// A block after `|`: line breaks as written.
    Literal,
    /// A block after `>`: lines joined.
    Folded,
}

/// A mapping in the order of the file, without duplicate keys.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Map {
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// A key, its place and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, as text whatever it looked like.
    pub key: String,
    /// Where the key begins.
    pub at: Pos,
    /// Its value.
    pub value: Node,
}

impl Map {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Its keys in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }
}

impl Node {
    /// The mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Kind::Map(map) = &self.kind { Some(map) } else { None }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Node]> {
        if let Kind::List(items) = &self.kind { Some(items) } else { None }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Kind::Str(text) = &self.kind { Some(text) } else { None }
    }

    /// Whether it is nothing.
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// What it is, with its value where that is short: for "found ...".
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_string(),
            Kind::Bool(b) => format!("`{b}`"),
            Kind::Int(n) => format!("the number {n}"),
            Kind::Float(n) => format!("the number {n}"),
            Kind::Str(text) if text.chars().count() <= 40 && !text.contains('\n') => format!("the text `{text}`"),
            Kind::Str(_) => "a long text".to_string(),
            Kind::List(items) => format!("a list of {}", items.len()),
            Kind::Map(map) => format!("a mapping of {}", map.entries.len()),
        }
    }
}
