//! Bounds on a template before the engine parses it: its parser and code generator recurse, so nesting that fits the
//! source limit could still overflow the stack. One linear scan, no recursion, no allocation that grows with nesting
//! beyond its limit. It accepts text that the parser will refuse; it never has to judge syntax.

use std::ops::Range;

use crate::limits;

use super::TemplateError;

/// Whether a text needs the engine at all.
pub fn has_markers(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(found) = text[from..].find('{') {
        match bytes.get(from + found + 1) {
            Some(b'{' | b'%' | b'#') => return true,
            _ => from += found + 1,
        }
    }
    false
}

/// Checks a template. `Some(range)` where the whole text is exactly one `{{ }}`: the range of its expression.
pub(super) fn check_text(source: &str) -> Result<Option<Range<usize>>, TemplateError> {
    check_length(source)?;
    let bytes = source.as_bytes();
    let (mut at, mut blocks, mut only, mut built) = (0, Blocks::default(), None, 0);
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        at = match bytes.get(start + 1) {
            Some(b'{') => {
                let end = Scan::new(source, start + 2, b"}}").run()?.0;
                if start == 0 && end == bytes.len() {
                    only = inner(source, end);
                }
                end
            }
            Some(b'%') => {
                let (end, builds) = Scan::new(source, start + 2, b"%}").run()?;
                let tag = source[start + 2..end].trim_end_matches("%}").trim_matches(['-', '+']).trim();
                if tag == "raw" {
                    past(source, end, "endraw")
                } else {
                    blocks.tag(tag).map_err(|()| too_deep(source, start))?;
                    built += if assigns(tag) { builds } else { 0 };
                    if built > limits::TEMPLATE_BUILD_MAX {
                        return Err(too_deep(source, start));
                    }
                    end
                }
            }
            Some(b'#') => past(source, start + 2, "#}"),
            _ => start + 1,
        };
    }
    Ok(only)
}

/// Checks a bare expression: a condition.
pub(super) fn check_expression(source: &str) -> Result<(), TemplateError> {
    check_length(source)?;
    Scan::new(source, 0, b"").run().map(|_| ())
}

/// Whether a tag gives a name a value, which later tags may wrap once more.
fn assigns(tag: &str) -> bool {
    ["set", "with", "for"].iter().any(|word| tag.starts_with(word))
}

/// Line of a byte offset, from 1.
fn line_of(source: &str, at: usize) -> u32 {
    1 + source.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() as u32
}

fn too_deep(source: &str, at: usize) -> TemplateError {
    TemplateError::TooDeep { line: line_of(source, at) }
}

fn check_length(source: &str) -> Result<(), TemplateError> {
    match source.len() > limits::TEMPLATE_SOURCE_BYTES_MAX {
        true => Err(TemplateError::TooLong { bytes: source.len() }),
        false => Ok(()),
    }
}

/// Offset behind the next `word`, or the end of the text.
fn past(source: &str, from: usize, word: &str) -> usize {
    source[from..].find(word).map_or(source.len(), |found| from + found + word.len())
}

/// The expression of a text that is one `{{ }}`, without whitespace control; `None` where the tag is not closed.
fn inner(source: &str, end: usize) -> Option<Range<usize>> {
    if end < 4 || !source.ends_with("}}") {
        return None;
    }
    let strip = |at: usize| usize::from(matches!(source.as_bytes().get(at), Some(b'-' | b'+')));
    let (from, to) = (2 + strip(2), end - 2 - strip(end - 3));
    (from < to).then_some(from..to)
}

/// Nesting of blocks: every `elif` is one deeper, as in the syntax tree.
#[derive(Default)]
struct Blocks {
    open: Vec<usize>,
    depth: usize,
}

impl Blocks {
    fn tag(&mut self, tag: &str) -> Result<(), ()> {
        let word = tag.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("");
        let opens = match word {
            "for" | "if" | "with" | "filter" | "autoescape" => true,
            "set" => !tag.contains('='),
            _ => false,
        };
        if opens {
            self.open.push(1);
            self.depth += 1;
        } else if word == "elif" {
            if let Some(top) = self.open.last_mut() {
                *top += 1;
                self.depth += 1;
            }
        } else if word.starts_with("end") {
            self.depth -= self.open.pop().unwrap_or(0);
        }
        if self.depth > limits::TEMPLATE_NESTING_MAX { Err(()) } else { Ok(()) }
    }
}

/// One pass over one expression. `chains` has one entry per open bracket: operators since the last comma at that level.
/// Operators and brackets together bound the depth of the syntax tree.
struct Scan<'a> {
    source: &'a str,
    at: usize,
    end: &'static [u8],
    chains: Vec<usize>,
    total: usize,
    /// Brackets and filters, all of them.
    builds: usize,
}

impl<'a> Scan<'a> {
    fn new(source: &'a str, at: usize, end: &'static [u8]) -> Scan<'a> {
        Scan { source, at, end, chains: vec![0], total: 0, builds: 0 }
    }

    /// Offset behind the end marker, or the end of the text where there is none; and how many brackets and filters.
    fn run(mut self) -> Result<(usize, usize), TemplateError> {
        let bytes = self.source.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !self.end.is_empty() && self.chains.len() == 1 && bytes[self.at..].starts_with(self.end) {
                return Ok((self.at + self.end.len(), self.builds));
            }
            self.builds += usize::from(matches!(byte, b'(' | b'[' | b'{' | b'|'));
            match byte {
                b'\'' | b'"' => self.skip_string(byte),
                b'(' | b'[' | b'{' => {
                    self.operator()?;
                    self.chains.push(0);
                    if self.chains.len() > limits::TEMPLATE_NESTING_MAX {
                        return Err(too_deep(self.source, self.at));
                    }
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    if self.chains.len() > 1 {
                        self.total -= self.chains.pop().unwrap_or(0);
                    }
                    self.at += 1;
                }
                b',' => {
                    if let Some(top) = self.chains.last_mut() {
                        self.total -= std::mem::take(top);
                    }
                    self.at += 1;
                }
                b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'|' | b'.' | b'<' | b'>' | b'=' | b'!' => {
                    self.operator()?;
                    self.at += 1;
                }
                _ if byte.is_ascii_alphanumeric() || byte == b'_' => self.word()?,
                _ => self.at += 1,
            }
        }
        Ok((bytes.len(), self.builds))
    }

    fn operator(&mut self) -> Result<(), TemplateError> {
        if let Some(top) = self.chains.last_mut() {
            *top += 1;
        }
        self.total += 1;
        if self.total > limits::TEMPLATE_CHAIN_MAX { Err(too_deep(self.source, self.at)) } else { Ok(()) }
    }

    fn word(&mut self) -> Result<(), TemplateError> {
        let bytes = self.source.as_bytes();
        let start = self.at;
        while bytes.get(self.at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            self.at += 1;
        }
        match &self.source[start..self.at] {
            "and" | "or" | "not" | "in" | "is" | "if" | "else" => self.operator(),
            _ => Ok(()),
        }
    }

    fn skip_string(&mut self, quote: u8) {
        let bytes = self.source.as_bytes();
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == quote {
                return;
            }
        }
        self.at = bytes.len();
    }
}
