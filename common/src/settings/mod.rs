//! Settings files driven by one table: each row is a key with its form, default and explanation. The loader, the
//! suggestions, the refusals and the printed reference all come from the table, so they cannot disagree.
//!
//! A core: bytes come in as [`Doc`]s, values with their places go out. Reads no file and knows no particular key. Several
//! documents may be laid over each other; of a key that is in more than one, the last counts.

mod form;
mod reference;

use std::collections::BTreeMap;

pub use form::{Form, HostPort, Secrets};
pub use reference::reference;

use crate::units::nearest;
use crate::yaml::{Doc, Entry, Error, Map, Node, Pos};

/// A row of the table.
#[derive(Debug)]
pub struct Setting {
    /// Path of the key: `server.tls.cert_file`.
    pub key: &'static str,
    /// What it may be.
    pub form: Form,
    /// Default, as it would be written in the file.
    pub default: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A number, milliseconds or bytes.
    Number(u64),
    /// Text.
    Text(String),
    /// Texts.
    List(Vec<String>),
    /// Entries of a list of mappings.
    Entries(Vec<Settings>),
}

/// A value and where it stands; no place for a default.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    value: Value,
    place: Option<(usize, Pos)>,
}

/// Checked settings: a value for every key of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    found: BTreeMap<&'static str, Found>,
    /// Where this entry of a list begins.
    at: Option<(usize, Pos)>,
}

impl Settings {
    /// Checks documents against a table; all errors at once. Keys of sections may not also be rows.
    pub fn load(table: &'static [Setting], docs: &[Doc]) -> Result<Settings, Vec<Error>> {
        Settings::load_with(table, docs, &no_secrets)
    }

    /// The same with somebody who knows secrets, for keys of [`Form::Sensitive`].
    pub fn load_with(table: &'static [Setting], docs: &[Doc], secrets: Secrets<'_>) -> Result<Settings, Vec<Error>> {
        let (mut settings, mut errors) = (defaults(table), Vec::new());
        for (number, doc) in docs.iter().enumerate() {
            match doc.expect_map(doc.root(), "the file") {
                Ok(map) => {
                    read_map(&Level { table, doc, number, prefix: "", secrets }, map, &mut settings, &mut errors)
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }

    /// Text of a key: text, choice, path, address.
    pub fn text(&self, key: &str) -> &str {
        if let Some(Value::Text(text)) = self.value(key) { text } else { "" }
    }

    /// Number of a key: number, duration in milliseconds, size in bytes.
    pub fn number(&self, key: &str) -> u64 {
        if let Some(Value::Number(number)) = self.value(key) { *number } else { 0 }
    }

    /// Truth of a key.
    pub fn is(&self, key: &str) -> bool {
        self.value(key) == Some(&Value::Bool(true))
    }

    /// Texts of a key.
    pub fn list(&self, key: &str) -> &[String] {
        if let Some(Value::List(list)) = self.value(key) { list } else { &[] }
    }

    /// Entries of a key that holds a list of mappings.
    pub fn entries(&self, key: &str) -> &[Settings] {
        if let Some(Value::Entries(entries)) = self.value(key) { entries } else { &[] }
    }

    /// Whether a file says something about the key.
    pub fn is_given(&self, key: &str) -> bool {
        self.found.get(key).is_some_and(|found| found.place.is_some())
    }

    /// An error about a key, at its place: for checks that the table cannot make.
    pub fn error(&self, docs: &[Doc], key: &str, what: impl Into<String>) -> Error {
        let place = self.found.get(key).and_then(|found| found.place).or(self.at);
        match place.and_then(|(number, at)| docs.get(number).map(|doc| (doc, at))) {
            Some((doc, at)) => doc.error(at, what),
            None => Error::whole(docs.first().map_or("", Doc::path), what),
        }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        // A key that is not in the table is a slip of the program: found by the first test that touches it.
        debug_assert!(self.found.contains_key(key), "no setting `{key}`");
        self.found.get(key).map(|found| &found.value)
    }
}

/// Where the walk is.
struct Level<'a> {
    table: &'static [Setting],
    doc: &'a Doc,
    number: usize,
    /// Path of the section, with the dot at its end.
    prefix: &'a str,
    secrets: Secrets<'a>,
}

/// Where nobody knows any.
fn no_secrets(_: &str) -> Result<String, (String, String)> {
    Err(("but no secrets are known here".into(), "write the value itself".into()))
}

fn defaults(table: &'static [Setting]) -> Settings {
    let mut settings = Settings::default();
    for row in table {
        // The table is constant and a test loads every default of each table: a failure here cannot reach a user.
        let doc = Doc::load("the defaults", row.default.as_bytes());
        let check = |doc: Doc| {
            let level = Level { table, doc: &doc, number: 0, prefix: "", secrets: &no_secrets };
            row.form.check(&level, doc.root(), row.key).ok()
        };
        let value = doc.ok().and_then(check);
        debug_assert!(value.is_some(), "the default of `{}` does not fit its form", row.key);
        settings.found.extend(value.map(|value| (row.key, Found { value, place: None })));
    }
    settings
}

fn read_map(level: &Level, map: &Map, settings: &mut Settings, errors: &mut Vec<Error>) {
    for entry in &map.entries {
        let path = format!("{}{}", level.prefix, entry.key);
        if let Some(row) = level.table.iter().find(|row| row.key == path) {
            match row.form.check(level, &entry.value, row.key) {
                Ok(value) => {
                    let place = Some((level.number, entry.value.at));
                    settings.found.insert(row.key, Found { value, place });
                }
                Err(more) => errors.extend(more),
            }
        } else if names_below(level.table, level.prefix).any(|name| name == entry.key) {
            let inner = format!("{path}.");
            match level.doc.expect_map(&entry.value, &path) {
                Ok(map) => read_map(&Level { prefix: &inner, ..*level }, map, settings, errors),
                Err(error) => errors.push(error),
            }
        } else {
            errors.push(unknown(level, entry, &path));
        }
    }
}

/// Checks one entry of a list of mappings.
fn read_entry(table: &'static [Setting], level: &Level<'_>, node: &Node, key: &str) -> Result<Settings, Vec<Error>> {
    let map = level.doc.expect_map(node, key).map_err(|error| vec![error])?;
    let (mut settings, mut errors) = (defaults(table), Vec::new());
    settings.at = Some((level.number, node.at));
    read_map(&Level { table, prefix: "", ..*level }, map, &mut settings, &mut errors);
    if errors.is_empty() { Ok(settings) } else { Err(errors) }
}

/// The names that may stand directly below a section.
fn names_below<'a>(table: &'static [Setting], prefix: &'a str) -> impl Iterator<Item = &'static str> + 'a {
    table.iter().filter_map(move |row| row.key.strip_prefix(prefix)).filter_map(|rest| rest.split('.').next())
}

fn unknown(level: &Level, entry: &Entry, path: &str) -> Error {
    let error = level.doc.error(entry.at, format!("unknown key `{path}`"));
    if let Some(near) = nearest(&entry.key, names_below(level.table, level.prefix)) {
        return error.cure(format!("did you mean `{}{near}`?", level.prefix));
    }
    // The right name in the wrong section is the second most common slip.
    let last = |row: &&Setting| row.key.rsplit('.').next() == Some(entry.key.as_str());
    if let Some(row) = level.table.iter().find(last) {
        return error.cure(format!("did you mean `{}`?", row.key));
    }
    let mut names: Vec<&str> = names_below(level.table, level.prefix).collect();
    names.dedup();
    error.expected(format!("one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests;
