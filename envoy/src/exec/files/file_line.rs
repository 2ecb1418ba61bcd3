//! `file_line`: a line is in a file, or is not. What the file should be is a pure function of what it is ([`edit`]);
//! the file is then replaced whole. Lines are bytes: a file need not be UTF-8, but a pattern matches only lines that are.

use std::borrow::Cow;

use regex_lite::Regex;

use super::edit::{Edit, Edited};
use super::lines::{Where, bare, fits, pattern, splice, split};
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Settles one `file_line`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(task), host, task)
}

/// What is to be done to the lines.
#[derive(Debug)]
struct Rule<'t> {
    present: bool,
    line: Option<Cow<'t, str>>,
    pattern: Option<Regex>,
    place: Where,
}

fn read<'t>(task: &'t Task<'t>) -> Result<Edited<'t, Rule<'t>>, Fault> {
    let reader = Reader::of(task)?;
    let rule = Rule {
        present: reader.is("state", "present", "present"),
        line: reader.text("line"),
        pattern: reader.text("match_pattern").map(|text| pattern("match_pattern", &text)).transpose()?,
        place: Where::read(reader.text("position").as_deref())?,
    };
    match &rule.line {
        Some(line) if line.contains('\n') => Err(Fault::Parameter("`line` must be one line".to_string())),
        _ => Ok(Edited::new(reader.path("target_path"), rule)),
    }
}

impl Edit for Rule<'_> {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        edit(old, self)
    }
}

/// The new content, or `None` where the old one is right already. Applied to its own result it always gives `None`.
///
/// A line that matches the pattern becomes the wanted line. Where the wanted line is there already, such a line only goes:
/// otherwise it would be there twice. More than one match is ambiguous and an error.
fn edit(old: &[u8], rule: &Rule<'_>) -> Result<Option<Vec<u8>>, String> {
    let lines = split(old);
    let wanted = rule.line.as_deref().map(str::as_bytes);
    let is_wanted = |line: &[u8]| wanted == Some(bare(line));
    let matches = |line: &[u8]| rule.pattern.as_ref().is_some_and(|pattern| fits(pattern, line));
    if !rule.present {
        // With a pattern, the lines that match it; the line itself too where one is given.
        let keep = |line: &&&[u8]| !(is_wanted(line) || matches(line));
        let kept: Vec<u8> = lines.iter().filter(keep).flat_map(|line| line.iter().copied()).collect();
        return Ok((kept.len() != old.len()).then_some(kept));
    }
    let wanted = wanted.unwrap_or_default();
    let there = lines.iter().any(|line| is_wanted(line));
    let mut others = (0..lines.len()).filter(|at| matches(lines[*at]) && !is_wanted(lines[*at]));
    let (other, another) = (others.next(), others.next());
    match (there, other) {
        (_, Some(at)) if another.is_some() => Err(format!(
            "{} lines match the pattern, among them line {}; make it match one",
            2 + others.count(),
            at + 1
        )),
        (true, None) => Ok(None),
        (true, Some(at)) => Ok(Some(splice(&lines, at, 1, &[]))),
        (false, Some(at)) => Ok(Some(splice(&lines, at, 1, &[wanted]))),
        (false, None) => Ok(Some(splice(&lines, rule.place.at(&lines), 0, &[wanted]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(line: &str, pattern: &str, position: &str, present: bool) -> Rule<'static> {
        let regex = |text: &str| Regex::new(text).unwrap();
        Rule {
            present,
            line: (!line.is_empty()).then(|| Cow::Owned(line.to_string())),
            pattern: (!pattern.is_empty()).then(|| regex(pattern)),
            place: Where::read(Some(position)).unwrap(),
        }
    }

    #[test]
    fn lines_come_go_and_are_replaced_and_a_second_edit_finds_nothing() {
        for (old, line, pattern, position, present, new) in [
            ("", "a", "", "end", true, Some("a\n")),
            ("b", "a", "", "end", true, Some("b\na\n")),
            ("b\n", "a", "", "begin", true, Some("a\nb\n")),
            ("b\na\n", "a", "", "end", true, None),
            ("b\na", "a", "", "end", true, None),
            ("x=1\ny=2\n", "x=3", "^x=", "end", true, Some("x=3\ny=2\n")),
            ("#p no\nq\np yes\n", "p yes", "^#?p ", "end", true, Some("q\np yes\n")),
            ("#p no\nq\n", "p yes", "^#p ", "end", true, Some("p yes\nq\n")),
            ("a\nb\na\n", "n", "", "after:^a", true, Some("a\nb\na\nn\n")),
            ("a\nb\n", "n", "", "before:^b", true, Some("a\nn\nb\n")),
            ("a\nb", "n", "", "after:^zz", true, Some("a\nb\nn\n")),
            ("a\r\nb\r\n", "n", "", "end", true, Some("a\r\nb\r\nn\r\n")),
            ("a\r\nn\r\n", "n", "", "end", true, None),
            ("a\nb\na\n", "a", "", "end", false, Some("b\n")),
            ("a\nab\nb\n", "", "^a", "end", false, Some("b\n")),
            ("b\n", "a", "^a", "end", false, None),
            ("\n", "", "^$", "end", false, Some("")),
        ] {
            let rule = rule(line, pattern, position, present);
            let found = edit(old.as_bytes(), &rule).unwrap();
            assert_eq!(
                found.as_deref().map(|b| std::str::from_utf8(b).unwrap()),
                new,
                "{old:?} {line} {pattern} {position}"
            );
            let settled = found.unwrap_or(old.into());
            assert_eq!(edit(&settled, &rule), Ok(None), "{old:?} {line} {pattern} {position}");
        }
    }

    #[test]
    fn ambiguous_patterns_and_foreign_bytes_are_handled() {
        let error = edit(b"x=1\nx=2\n", &rule("x=3", "^x=", "end", true)).unwrap_err();
        assert!(error.starts_with("2 lines match"), "{error}");
        let found = edit(b"\xff\xfe\nx=1\n", &rule("x=3", "^x=", "end", true)).unwrap().unwrap();
        assert_eq!(found, b"\xff\xfe\nx=3\n");
    }
}
