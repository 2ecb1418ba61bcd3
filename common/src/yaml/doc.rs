//! A file with its tree, and the questions that every loader asks of it. Each `expect_*` names the field in its error.

use super::{Entry, Error, Kind, Map, Node, Pos, Style, load};
use crate::limits;
use crate::units::nearest;

/// A YAML file: path, text and tree.
#[derive(Clone, Debug)]
pub struct Doc {
    path: String,
    text: String,
    root: Node,
}

impl Doc {
    /// Reads the bytes of a file. `path` is what errors call it. An empty file has the root `Null`.
    pub fn load(path: &str, bytes: &[u8]) -> Result<Doc, Error> {
        if bytes.len() > limits::YAML_BYTES_MAX {
            let error = Error::whole(path, format!("the file has {} bytes", bytes.len()));
            return Err(error.expected(format!("at most {}", limits::YAML_BYTES_MAX)).cure("split it"));
        }
        let root = Node { at: Pos { line: 1, column: 1 }, kind: Kind::Null, style: Style::Plain };
        let mut doc = Doc { path: path.to_string(), text: String::from_utf8_lossy(bytes).into_owned(), root };
        if let Err(bad) = std::str::from_utf8(bytes) {
            // The bytes before the bad one are UTF-8, so the lossy text has its replacement at that very offset.
            let at = doc.pos_of_byte(bad.valid_up_to());
            let error = doc.error(at, format!("the byte 0x{:02x} is not UTF-8", bytes[bad.valid_up_to()]));
            return Err(error.cure("save the file as UTF-8"));
        }
        if let Some(rest) = doc.text.strip_prefix('\u{feff}') {
            doc.text = rest.to_string();
        }
        let unprintable = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
        if let Some((offset, c)) = doc.text.char_indices().find(|(_, c)| unprintable(*c)) {
            let error = doc.error(doc.pos_of_byte(offset), format!("the control character U+{:04X}", u32::from(c)));
            return Err(error
                .expected("printable text")
                .cure("write it as an escape in double quotes, such as \"\\x1b\""));
        }
        doc.root = load::load(&doc)?;
        Ok(doc)
    }

    /// What errors call the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// A line, counted from 1.
    pub fn line(&self, line: u32) -> Option<&str> {
        self.text.lines().nth((line as usize).checked_sub(1)?)
    }

    /// An error at a place.
    pub fn error(&self, at: Pos, what: impl Into<String>) -> Error {
        let line = self.line(at.line).map(str::to_string);
        Error { at: Some(at), line, ..Error::whole(&self.path, what) }
    }

    /// The place in the file of a line and column (from 1) in the text of a string node: exact for blocks and for strings
    /// on one line without escapes, otherwise the beginning of the node.
    pub fn pos_in(&self, node: &Node, line: u32, column: u32) -> Pos {
        match node.style {
            Style::Literal => {
                let at_line = node.at.line + self.header_lines(node) + line - 1;
                let indent = self.block_indent(node);
                Pos { line: at_line, column: indent + column }
            }
            Style::Plain | Style::Quoted if line == 1 => {
                let quote = u32::from(node.style == Style::Quoted);
                let written = self.line(node.at.line).unwrap_or_default().chars();
                let before: String =
                    written.skip((node.at.column - 1 + quote) as usize).take(column as usize - 1).collect();
                let same = node.as_str().is_some_and(|text| text.starts_with(before.as_str()));
                if same { Pos { line: node.at.line, column: node.at.column + quote + column - 1 } } else { node.at }
            }
            _ => node.at,
        }
    }

    /// Lines from the place of a block scalar to its first line of content.
    fn header_lines(&self, node: &Node) -> u32 {
        let line = self.line(node.at.line).unwrap_or_default();
        u32::from(line.chars().nth(node.at.column as usize - 1) == Some('|'))
    }

    fn block_indent(&self, node: &Node) -> u32 {
        let first = node.at.line + self.header_lines(node);
        let text = node.as_str().unwrap_or_default();
        let lines = text.lines().zip(first..).find(|(content, _)| !content.trim().is_empty());
        let Some((content, at)) = lines else { return 0 };
        let written = self.line(at).unwrap_or_default();
        (written.chars().count().saturating_sub(content.chars().count())) as u32
    }

    /// "expected X, found Y" about a field.
    pub fn wrong_type(&self, node: &Node, field: &str, expected: &str) -> Error {
        self.error(node.at, format!("`{field}` is {}", node.describe())).expected(expected)
    }

    /// A mapping; nothing counts as an empty one.
    pub fn expect_map<'n>(&self, node: &'n Node, field: &str) -> Result<&'n Map, Error> {
        static EMPTY: Map = Map { entries: Vec::new() };
        match &node.kind {
            Kind::Map(map) => Ok(map),
            Kind::Null => Ok(&EMPTY),
            _ => Err(self.wrong_type(node, field, "a mapping (`key: value`)")),
        }
    }

    /// A list; nothing counts as an empty one.
    pub fn expect_list<'n>(&self, node: &'n Node, field: &str) -> Result<&'n [Node], Error> {
        match &node.kind {
            Kind::List(items) => Ok(items),
            Kind::Null => Ok(&[]),
            _ => Err(self.wrong_type(node, field, "a list (`[a, b]`, or lines that begin with `- `)")),
        }
    }

    /// A text.
    pub fn expect_str<'n>(&self, node: &'n Node, field: &str) -> Result<&'n str, Error> {
        node.as_str().ok_or_else(|| match node.kind {
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {
                self.wrong_type(node, field, "text").cure("put it in quotes")
            }
            _ => self.wrong_type(node, field, "text"),
        })
    }

    /// A text that is not empty.
    pub fn expect_name<'n>(&self, node: &'n Node, field: &str) -> Result<&'n str, Error> {
        let text = self.expect_str(node, field)?;
        if text.trim().is_empty() {
            Err(self.error(node.at, format!("`{field}` is empty")).expected("text"))
        } else {
            Ok(text)
        }
    }

    /// `true` or `false`.
    pub fn expect_bool(&self, node: &Node, field: &str) -> Result<bool, Error> {
        match &node.kind {
            Kind::Bool(b) => Ok(*b),
            Kind::Str(text) if matches!(text.to_lowercase().as_str(), "yes" | "on" | "y") => {
                Err(self.wrong_type(node, field, "true or false").cure("write `true`: YAML 1.2 has no yes and on"))
            }
            Kind::Str(text) if matches!(text.to_lowercase().as_str(), "no" | "off" | "n") => {
                Err(self.wrong_type(node, field, "true or false").cure("write `false`: YAML 1.2 has no no and off"))
            }
            _ => Err(self.wrong_type(node, field, "true or false")),
        }
    }

    /// A whole number within bounds.
    pub fn expect_int(&self, node: &Node, field: &str, min: i64, max: i64) -> Result<i64, Error> {
        match node.kind {
            Kind::Int(n) if (min..=max).contains(&n) => Ok(n),
            _ => Err(self.wrong_type(node, field, &format!("a whole number from {min} to {max}"))),
        }
    }

    /// A duration such as `30s` or `5m`, in milliseconds, within bounds.
    pub fn expect_duration_ms(&self, node: &Node, field: &str, min: u64, max: u64) -> Result<u64, Error> {
        let text = match &node.kind {
            Kind::Int(0) => "0",
            Kind::Str(text) => text,
            _ => return Err(self.wrong_type(node, field, "a duration such as 30s, 5m, 12h or 90d")),
        };
        let ms = crate::units::duration_ms(text).map_err(|_| {
            self.wrong_type(node, field, "a duration").cure("write a number and a unit, such as 30s, 5m, 12h or 90d")
        })?;
        if (min..=max).contains(&ms) {
            return Ok(ms);
        }
        let (low, high) = (crate::units::human_duration(min), crate::units::human_duration(max));
        Err(self.error(node.at, format!("`{field}` is {text}")).expected(format!("a duration from {low} to {high}")))
    }

    /// A size such as `64MiB`, in bytes.
    pub fn expect_size_bytes(&self, node: &Node, field: &str) -> Result<u64, Error> {
        match &node.kind {
            Kind::Int(n) if *n >= 0 => Ok(*n as u64),
            Kind::Str(text) => crate::units::size_bytes(text).map_err(|_| {
                self.wrong_type(node, field, "a size").cure("write a number and a unit, such as 512KiB, 64MB or 10GB")
            }),
            _ => Err(self.wrong_type(node, field, "a size such as 512KiB, 64MB or 10GB")),
        }
    }

    /// A list of texts; one text counts as a list of one.
    pub fn expect_str_list<'n>(&self, node: &'n Node, field: &str) -> Result<Vec<(&'n str, Pos)>, Error> {
        if let Kind::Str(text) = &node.kind {
            return Ok(vec![(text, node.at)]);
        }
        let items = self.expect_list(node, field)?;
        items.iter().map(|item| Ok((self.expect_name(item, field)?, item.at))).collect()
    }

    /// One error for each key that is not known, with the nearest known one.
    pub fn unknown_keys(&self, map: &Map, known: &[&str], context: &str) -> Vec<Error> {
        let unknown = map.entries.iter().filter(|entry| !known.contains(&entry.key.as_str()));
        unknown.map(|entry| self.unknown_key(entry, known, context)).collect()
    }

    /// The mapping that the whole file is; an empty file counts as an empty one. `keys` are those it may have.
    pub fn expect_root(&self, keys: &[&str]) -> Result<&Map, Error> {
        self.expect_map(&self.root, "").map_err(|_| {
            let error = self.error(self.root.at, format!("the file holds {}", self.root.describe()));
            error.expected(format!("a mapping with the keys {}", keys.join(", ")))
        })
    }

    fn unknown_key(&self, entry: &Entry, known: &[&str], context: &str) -> Error {
        let error = self.error(entry.at, format!("unknown key `{}` in {context}", entry.key));
        match nearest(&entry.key, known.iter().copied()) {
            Some(near) => error.cure(format!("did you mean `{near}`?")),
            None if known.len() == 1 => error.expected(format!("`{}`", known[0])),
            None => error.expected(format!("one of {}", known.join(", "))),
        }
    }

    fn pos_of_byte(&self, offset: usize) -> Pos {
        let before = &self.text[..offset];
        let line = before.matches('\n').count() as u32 + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u32 + 1;
        Pos { line, column }
    }
}
