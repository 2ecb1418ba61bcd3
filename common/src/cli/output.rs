//! What goes to stdout: aligned tables and JSON documents. Text that came from elsewhere (host names, messages) never
//! reaches a terminal with control characters in it.

use std::io::{IsTerminal, Write};

use super::{Exit, Failure};
use crate::sys::redaction;

/// How a cell looks where colour is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// Green.
    Good,
    /// Yellow.
    Warn,
    /// Red.
    Bad,
    /// Grey.
    Dim,
    /// Bold.
    Strong,
}

/// A table whose columns are aligned. The last column is not padded.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<(String, Style)>>,
    right: Vec<usize>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Table {
        let headings = headings.iter().map(|text| (text.to_string(), Style::Strong)).collect();
        Table { rows: vec![headings], right: Vec::new() }
    }

    /// Aligns a column to the right: numbers.
    #[must_use]
    pub fn right(mut self, column: usize) -> Table {
        self.right.push(column);
        self
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.styled_row(cells.into_iter().map(|cell| (cell.into(), Style::Plain)));
    }

    /// Adds a row whose cells have styles.
    pub fn styled_row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = (S, Style)>) {
        self.rows.push(cells.into_iter().map(|(cell, style)| (one_line(&cell.into()), style)).collect());
    }

    /// Rows without the headings.
    pub fn len(&self) -> usize {
        self.rows.len() - 1
    }

    /// Whether there are only headings.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text, one line a row.
    pub fn render(&self, color: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|(cell, _)| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width_of(column).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, style)) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                let (before, after) =
                    if self.right.contains(&column) { (padding, "".into()) } else { ("".into(), padding) };
                line.push_str(if column > 0 { "  " } else { "" });
                line.push_str(&before);
                line.push_str(&paint(cell, *style, color));
                line.push_str(&after);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Text in a style, or as it is where colour is not allowed.
pub fn paint(text: &str, style: Style, color: bool) -> String {
    let code = match style {
        Style::Plain => return text.to_string(),
        Style::Good => "32",
        Style::Warn => "33",
        Style::Bad => "31",
        Style::Dim => "2",
        Style::Strong => "1",
    };
    if color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

/// Whether stdout may have colour: a terminal, not a dumb one, and no `NO_COLOR`.
pub fn color_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A JSON document of the product: one object with `schema` (`kind/version`). What is no object is put under `items`.
pub fn json_document(kind: &str, version: u32, value: serde_json::Value) -> String {
    let mut object = match value {
        serde_json::Value::Object(object) => object,
        other => serde_json::Map::from_iter([("items".to_string(), other)]),
    };
    object.insert("schema".into(), format!("{kind}/{version}").into());
    format!("{:#}\n", serde_json::Value::Object(object))
}

/// Writes to stdout. A reader that went away (`| head`) ends the command without a word.
pub fn print(text: &str) -> Result<(), Failure> {
    let (mut stdout, text) = (std::io::stdout().lock(), redaction::clean(text));
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::new(Exit::Failed, "")),
        Err(error) => Err(Failure::failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Text without line breaks and other control characters: safe for a terminal and for one line.
pub fn one_line(text: &str) -> String {
    // The bidirectional overrides reorder what a reader sees without being control characters.
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.trim_end()
        .chars()
        .map(|c| {
            if matches!(c, '\n' | '\t') {
                ' '
            } else if hidden(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["ENVOY", "RUNS", "STATUS"]).right(1);
        table.row(["web-1", "7", "converged"]);
        table.styled_row([("db", Style::Plain), ("1200", Style::Plain), ("failed", Style::Bad)]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        assert_eq!(table().render(false), "ENVOY  RUNS  STATUS\nweb-1     7  converged\ndb     1200  failed\n");
        assert!(table().render(true).contains("\x1b[31mfailed\x1b[0m"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\x1b[2Jb\nc"]);
        assert_eq!(table.render(false), "NAME\na\u{fffd}[2Jb c\n");
        assert_eq!(one_line("x\u{202e}y\n"), "x\u{fffd}y");
    }

    #[test]
    fn documents_carry_their_schema() {
        let text = json_document("vigo.envoys", 1, serde_json::json!([1, 2]));
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, serde_json::json!({"schema": "vigo.envoys/1", "items": [1, 2]}));
        assert!(json_document("vigo.status", 2, serde_json::json!({"a": 1})).contains("\"vigo.status/2\""));
    }
}
