//! From parser events to the tree. Iterative, so that nesting costs memory and not stack, and stopped at the first bound.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::{Doc, Entry, Error, Kind, Map, Node, Pos, Style, scalar};
use crate::limits;

/// A list or mapping whose end has not been seen.
struct Open {
    at: Pos,
    anchor: usize,
    values_before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    /// Entries, and the key that waits for its value.
    Map(Map, Option<(String, Pos)>),
}

/// State of one load.
struct Loader<'d> {
    doc: &'d Doc,
    open: Vec<Open>,
    root: Option<Node>,
    n_documents: usize,
    n_values: usize,
    /// Finished nodes with an anchor, and how many values each stands for.
    anchors: BTreeMap<usize, (Node, usize)>,
}

/// Fills in the root of a document.
pub(super) fn load(doc: &Doc) -> Result<Node, Error> {
    let mut loader =
        Loader { doc, open: Vec::new(), root: None, n_documents: 0, n_values: 0, anchors: BTreeMap::new() };
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(doc.text());
    while let Some(next) = parser.next_event() {
        match next {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => loader.on_event(event, span)?,
            Err(bad) => {
                let at = Pos { line: bad.marker().line() as u32, column: bad.marker().col() as u32 + 1 };
                return Err(loader.syntax(at, bad.info()));
            }
        }
    }
    let empty = Node { at: Pos { line: 1, column: 1 }, kind: Kind::Null, style: Style::Plain };
    Ok(loader.root.unwrap_or(empty))
}

impl Loader<'_> {
    fn on_event(&mut self, event: Event<'_>, span: Span) -> Result<(), Error> {
        let at = Pos { line: span.start.line() as u32, column: span.start.col() as u32 + 1 };
        match event {
            Event::DocumentStart(_) => {
                self.n_documents += 1;
                if self.n_documents > 1 {
                    let error = self.doc.error(at, "a second document begins here");
                    return Err(error.expected("one document a file").cure("move it to a file of its own"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(at, tag.is_some())?;
                self.on_scalar(at, text.into_owned(), style, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(at, tag.is_some())?;
                self.on_open(at, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(at, tag.is_some())?;
                self.on_open(at, anchor, Content::Map(Map::default(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.on_close(),
            Event::Alias(id) => self.on_alias(at, id),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn on_scalar(&mut self, at: Pos, text: String, style: ScalarStyle, anchor: usize) -> Result<(), Error> {
        self.count(at, 1)?;
        if let Some(Open { content: Content::Map(_, key @ None), .. }) = self.open.last_mut() {
            if text.is_empty() {
                return Err(self.doc.error(at, "a mapping entry has no key").expected("a name before `:`"));
            }
            if text == "<<" && style == ScalarStyle::Plain {
                let error = self.doc.error(at, "merge keys (`<<`) are not part of YAML 1.2");
                return Err(error.cure("write the keys out, or use `vars` and `defaults`"));
            }
            *key = Some((text, at));
            return Ok(());
        }
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Folded,
        };
        let kind = match style {
            Style::Plain => scalar::resolve(&text)
                .map_err(|expected| self.doc.error(at, format!("`{text}` is out of range")).expected(expected))?,
            _ => Kind::Str(text),
        };
        self.finish(Node { at, kind, style }, anchor, 1)
    }

    fn on_open(&mut self, at: Pos, anchor: usize, content: Content) -> Result<(), Error> {
        if let Some(Open { content: Content::Map(_, None), at: outer, .. }) = self.open.last() {
            if self.looks_like_template(*outer) {
                return Err(self.unquoted_template(*outer));
            }
            return Err(self
                .doc
                .error(at, "a list or mapping stands where a key should be")
                .expected("a name before `:`"));
        }
        if self.open.len() >= limits::YAML_DEPTH_MAX {
            let error = self.doc.error(at, "too deeply nested");
            return Err(error.expected(format!("at most {} levels", limits::YAML_DEPTH_MAX)));
        }
        let values_before = self.n_values;
        self.count(at, 1)?;
        self.open.push(Open { at, anchor, values_before, content });
        Ok(())
    }

    fn on_close(&mut self) -> Result<(), Error> {
        // The parser emits an end only for a start that it emitted.
        let Some(open) = self.open.pop() else { return Ok(()) };
        let kind = match open.content {
            Content::List(items) => Kind::List(items),
            Content::Map(map, _) => {
                self.refuse_duplicates(&map)?;
                Kind::Map(map)
            }
        };
        let n_values = self.n_values - open.values_before;
        self.finish(Node { at: open.at, kind, style: Style::Plain }, open.anchor, n_values)
    }

    fn on_alias(&mut self, at: Pos, id: usize) -> Result<(), Error> {
        let Some((node, n_values)) = self.anchors.get(&id).cloned() else {
            return Err(self
                .doc
                .error(at, "an alias stands inside the value that it names")
                .cure("write the value out"));
        };
        if let Some(Open { content: Content::Map(_, None), .. }) = self.open.last() {
            return Err(self.doc.error(at, "an alias stands where a key should be").expected("a name before `:`"));
        }
        // Every use counts in full, and is checked before it is made: this is what stops a "billion laughs".
        self.count(at, n_values)?;
        self.check_alias_depth(at, &node)?;
        self.finish(node, 0, n_values)
    }

    /// Puts a finished node where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, n_values: usize) -> Result<(), Error> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), n_values));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(map, key)) => {
                // A value never comes before its key: both are handled above.
                if let Some((key, at)) = key.take() {
                    map.entries.push(Entry { key, at, value: node });
                }
            }
            None => self.root = Some(node),
        }
        Ok(())
    }

    fn count(&mut self, at: Pos, n: usize) -> Result<(), Error> {
        self.n_values += n;
        if self.n_values > limits::YAML_VALUES_MAX {
            let error = self.doc.error(at, "too many values, aliases counted at every use");
            return Err(error
                .expected(format!("at most {} in a file", limits::YAML_VALUES_MAX))
                .cure("split the file"));
        }
        Ok(())
    }

    fn check_alias_depth(&self, at: Pos, node: &Node) -> Result<(), Error> {
        if self.open.len() + depth(node) > limits::YAML_DEPTH_MAX {
            let error = self.doc.error(at, "too deeply nested through this alias");
            return Err(error.expected(format!("at most {} levels", limits::YAML_DEPTH_MAX)));
        }
        Ok(())
    }

    fn refuse_tag(&self, at: Pos, tagged: bool) -> Result<(), Error> {
        if tagged {
            let error = self.doc.error(at, "YAML tags (`!name`) are not supported");
            return Err(error.cure("remove the tag; quote a value to make it text"));
        }
        Ok(())
    }

    fn refuse_duplicates(&self, map: &Map) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for entry in &map.entries {
            if !seen.insert(entry.key.as_str()) {
                let first = map.entry(&entry.key).map_or(entry.at, |entry| entry.at);
                let what = format!("the key `{}` is written twice, first in line {}", entry.key, first.line);
                return Err(self.doc.error(entry.at, what).cure("remove one of them"));
            }
        }
        Ok(())
    }

    /// Whether a flow mapping at this place begins with `{{`.
    fn looks_like_template(&self, at: Pos) -> bool {
        let line = self.doc.line(at.line).unwrap_or_default();
        line.chars().skip(at.column as usize - 1).take(2).eq("{{".chars())
    }

    fn unquoted_template(&self, at: Pos) -> Error {
        let error = self.doc.error(at, "YAML reads `{{` without quotes as a mapping");
        error.cure("put the whole value in quotes: \"{{ ... }}\"")
    }

    /// A syntax error, with a cure for the mistakes that people make most.
    fn syntax(&self, at: Pos, info: &str) -> Error {
        let line = self.doc.line(at.line).unwrap_or_default();
        let value = line.split_once(": ").map_or(line, |(_, value)| value).trim_start();
        if value.starts_with("{{") {
            let column = line.chars().count() - value.chars().count() + 1;
            return self.unquoted_template(Pos { line: at.line, column: column as u32 });
        }
        let error = self.doc.error(at, format!("not YAML: {}", info.trim_end_matches('.')));
        let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
        if indent.contains('\t') {
            error.cure("indent with spaces, YAML does not allow tabs")
        } else if info.contains("anchor") {
            error.cure("put a value that begins with `*` or `&` in quotes")
        } else if value.starts_with(['%', '@', '`', '*', '&', '!']) {
            error.cure("put a value that begins with a special character in quotes")
        } else if info.contains("mapping values are not allowed") {
            error.cure("check the indentation, and quote a value that contains `: `")
        } else {
            error.cure("check quotes, brackets and indentation here and in the line above")
        }
    }
}

fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Kind::Map(map) => 1 + map.entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
