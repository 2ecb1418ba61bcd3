//! Files as lines of bytes: taking them apart, putting new lines in without disturbing the others, finding where they go.

use common::policy::params::Position;
use regex_lite::{Regex, RegexBuilder};

use crate::exec::fault::Fault;

/// Bytes that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Where new lines go.
#[derive(Debug)]
pub enum Where {
    /// After the last line.
    End,
    /// Before the first.
    Begin,
    /// After the last that matches.
    After(Regex),
    /// Before the first that matches.
    Before(Regex),
}

impl Where {
    /// From the parameter `position`.
    pub fn read(position: Option<&str>) -> Result<Where, Fault> {
        Ok(match position.and_then(Position::parse) {
            Some(Position::Begin) => Where::Begin,
            Some(Position::After(text)) => Where::After(pattern("position", text)?),
            Some(Position::Before(text)) => Where::Before(pattern("position", text)?),
            Some(Position::End) | None => Where::End,
        })
    }

    /// Index of the line before which they go; the end where no line matches.
    pub fn at(&self, lines: &[&[u8]]) -> usize {
        let end = lines.len();
        match self {
            Where::Begin => 0,
            Where::End => end,
            Where::After(pattern) => lines.iter().rposition(|line| fits(pattern, line)).map_or(end, |at| at + 1),
            Where::Before(pattern) => lines.iter().position(|line| fits(pattern, line)).unwrap_or(end),
        }
    }
}

/// Compiles the pattern of a parameter.
pub fn pattern(name: &str, text: &str) -> Result<Regex, Fault> {
    let built = RegexBuilder::new(text).multi_line(true).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| Fault::Parameter(format!("`{name}`: {error}")))
}

/// Lines with their ends.
pub fn split(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// A line without its end.
pub fn bare(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a pattern matches a line. One that is not UTF-8 matches nothing.
pub fn fits(pattern: &Regex, line: &[u8]) -> bool {
    std::str::from_utf8(bare(line)).is_ok_and(|text| pattern.is_match(text))
}

/// Whether there is nothing but blanks on a line.
pub fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// Lines with `gone` of them at `at` taken out and new ones put there, which end as the first of the file does. Every line
/// before another ends in a newline.
pub fn splice(lines: &[&[u8]], at: usize, gone: usize, new: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in &lines[..at] {
        out.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
    let end: &[u8] = if lines.first().is_some_and(|line| line.ends_with(b"\r\n")) { b"\r\n" } else { b"\n" };
    new.iter().for_each(|line| out.extend([*line, end].concat()));
    lines[at + gone..].iter().for_each(|line| out.extend_from_slice(line));
    out
}
