//! The annotated reference, printed from the table: a file that loads, with every default and what it means.

use super::{Form, Setting, names_below};
use crate::units::nearest;

/// The reference of a table, or of one section or key of it. The error is a sentence for people.
pub fn reference(table: &'static [Setting], section: Option<&str>) -> Result<String, String> {
    let section = section.unwrap_or_default();
    let below = |row: &&Setting| {
        section.is_empty()
            || row.key == section
            || row.key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
    };
    let rows: Vec<&Setting> = table.iter().filter(below).collect();
    if rows.is_empty() {
        let sections = names_below(table, "").chain(table.iter().map(|row| row.key));
        return Err(match nearest(section, sections) {
            Some(near) => format!("there is no setting `{section}`; did you mean `{near}`?"),
            None => format!("there is no setting `{section}`; without a name all are shown"),
        });
    }
    let mut out = String::new();
    let mut open: Vec<&str> = Vec::new();
    for row in rows {
        let mut path: Vec<&str> = row.key.split('.').collect();
        let name = path.pop().unwrap_or_default();
        let shared = open.iter().zip(&path).take_while(|(a, b)| a == b).count();
        for (depth, part) in path.iter().enumerate().skip(shared) {
            out.push_str(&format!("{}{part}:\n", "  ".repeat(depth)));
        }
        open = path;
        write_row(&mut out, row, name, open.len());
    }
    Ok(out)
}

fn write_row(out: &mut String, row: &Setting, name: &str, depth: usize) {
    let indent = "  ".repeat(depth);
    out.push_str(&format!("{indent}# {}\n", row.doc));
    out.push_str(&format!("{indent}# {}.", sentence(&row.form.describe())));
    if let Form::Choice(_, later @ [_, ..]) = row.form {
        out.push_str(&format!(" Not available yet: {}.", later.join(", ")));
    }
    out.push_str(format!("\n{indent}{name}: {}", row.default).trim_end());
    out.push('\n');
    if let Form::Entries(table, _) = row.form {
        out.push_str(&format!("{indent}# Each entry:\n"));
        for inner in table {
            out.push_str(&format!("{indent}#   {}: {} ({})\n", inner.key, inner.doc, inner.form.describe()));
        }
    }
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|c| c.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
