//! What is wrong in a file that a person wrote: where, what, what was expected, and what to do.
//!
//! One struct of sentences instead of an enum: there are over a hundred kinds, and no code decides anything by them.

use std::fmt;

use super::Pos;

/// Characters of the line that are shown around the place.
const SHOWN_CHARS_MAX: usize = 120;

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Error {
    /// The file, as the operator would name it.
    pub path: String,
    /// The place, where there is one.
    pub at: Option<Pos>,
    /// The line of the place.
    pub line: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What was expected, without the word "expected"; may be empty.
    pub expected: String,
    /// What to do about it; may be empty.
    pub cure: String,
}

impl Error {
    /// An error about a file as a whole.
    pub fn whole(path: &str, what: impl Into<String>) -> Error {
        let (path, what) = (path.to_string(), what.into());
        Error { path, at: None, line: None, what, expected: String::new(), cure: String::new() }
    }

    /// With what was expected.
    pub fn expected(mut self, expected: impl Into<String>) -> Error {
        self.expected = expected.into();
        self
    }

    /// With what to do.
    pub fn cure(mut self, cure: impl Into<String>) -> Error {
        self.cure = cure.into();
        self
    }

    /// The first line of the message: `path:line:column: what; expected ...; cure`.
    pub fn summary(&self) -> String {
        let mut out = self.path.clone();
        if let Some(at) = self.at {
            out += &format!(":{}:{}", at.line, at.column);
        }
        out += ": ";
        out += &self.what;
        if !self.expected.is_empty() {
            out += "; expected ";
            out += &self.expected;
        }
        if !self.cure.is_empty() {
            out += "; ";
            out += &self.cure;
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        let (Some(at), Some(line)) = (self.at, &self.line) else { return Ok(()) };
        let (shown, caret) = window(line, at.column.saturating_sub(1) as usize);
        write!(f, "\n{:>5} | {shown}\n      | {:caret$}^", at.line, "")
    }
}

impl std::error::Error for Error {}

/// Several errors as one text, ordered by place, with their number at the end when there is more than one.
pub fn render(errors: &[Error]) -> String {
    let mut sorted: Vec<&Error> = errors.iter().collect();
    sorted.sort();
    let mut out = sorted.iter().map(|error| error.to_string()).collect::<Vec<_>>().join("\n");
    if errors.len() > 1 {
        out += &format!("\n{} errors", errors.len());
    }
    out
}

/// The part of a line around a column, and the column in that part. Control characters become spaces, so that the caret
/// stands where it should and nothing reaches a terminal as a command.
fn window(line: &str, column: usize) -> (String, usize) {
    let n = line.chars().count();
    let first =
        if n <= SHOWN_CHARS_MAX { 0 } else { column.saturating_sub(SHOWN_CHARS_MAX / 2).min(n - SHOWN_CHARS_MAX) };
    let part = line.chars().skip(first).take(SHOWN_CHARS_MAX);
    let text: String = part.map(|c| if c.is_control() { ' ' } else { c }).collect();
    let caret = column.saturating_sub(first).min(text.chars().count());
    (text.trim_end().to_string(), caret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_place() {
        let error = Error {
            at: Some(Pos { line: 3, column: 5 }),
            line: Some("\t  bad: 1".into()),
            ..Error::whole("a.vgo", "unknown key `bad`").cure("did you mean `good`?")
        };
        assert_eq!(
            error.to_string(),
            "a.vgo:3:5: unknown key `bad`; did you mean `good`?\n    3 |    bad: 1\n      |     ^"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let (text, caret) = window(&"x".repeat(5_000), 4_000);
        assert_eq!((text.len(), caret), (SHOWN_CHARS_MAX, SHOWN_CHARS_MAX / 2));
        assert_eq!(window("short", 99), ("short".to_string(), 5));
    }
}
