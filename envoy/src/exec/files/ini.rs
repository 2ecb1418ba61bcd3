//! `ini`: a key in a section has a value, or a key or section is not there. Comments, order and spacing of everything else
//! stay. Only lines of their own are comments: parsers disagree on what follows a value.

use super::edit::{Edit, Edited};
use super::lines::{bare, is_blank, splice, split};
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Settles one `ini`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(task), host, task)
}

/// What is to hold in the file.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Whether it should be there.
    pub present: bool,
    /// `None`: before the first section.
    pub section: Option<String>,
    /// `None`: the section as a whole, to be removed.
    pub key: Option<String>,
    /// `None`: the key stands alone.
    pub value: Option<String>,
    /// Blanks around the `=` of a new line; `None`: as in the file.
    pub spaces: Option<bool>,
}

fn read<'t>(task: &'t Task<'t>) -> Result<Edited<'t, Setting>, Fault> {
    let reader = Reader::of(task)?;
    let owned = |name: &str| reader.text(name).map(|text| text.trim().to_string());
    let setting = Setting {
        present: reader.is("state", "present", "present"),
        section: owned("section"),
        key: owned("key"),
        value: owned("value"),
        spaces: reader.given_truth("spaces"),
    };
    Ok(Edited::new(reader.path("target_path"), setting))
}

/// What a line is.
enum Line<'l> {
    Blank,
    Comment,
    Section(&'l [u8]),
    Pair { key: &'l [u8], value: Option<&'l [u8]> },
}

impl<'l> Line<'l> {
    fn of(line: &'l [u8]) -> Line<'l> {
        let text = line.trim_ascii();
        match text.first() {
            None => Line::Blank,
            Some(b'#' | b';') => Line::Comment,
            Some(b'[') => match text.iter().rposition(|byte| *byte == b']') {
                Some(end) => Line::Section(text[1..end].trim_ascii()),
                None => Line::Pair { key: text, value: None },
            },
            Some(_) => match text.iter().position(|byte| *byte == b'=') {
                Some(at) => Line::Pair { key: text[..at].trim_ascii(), value: Some(text[at + 1..].trim_ascii()) },
                None => Line::Pair { key: text, value: None },
            },
        }
    }
}

/// Where things are.
#[derive(Default)]
struct Found {
    /// Lines of the key in the section.
    keys: Vec<usize>,
    /// Lines that belong to the section, its headers among them.
    section: Vec<usize>,
    /// Index after the last line of the section that is not blank; where a new key goes.
    end: Option<usize>,
}

impl Setting {
    fn find(&self, lines: &[&[u8]]) -> Found {
        let mut found = Found::default();
        let mut inside = self.section.is_none();
        if inside {
            found.end = Some(0);
        }
        for (at, line) in lines.iter().enumerate() {
            let line = Line::of(line);
            if let Line::Section(name) = line {
                inside = self.section.as_deref().is_some_and(|wanted| wanted.as_bytes() == name);
            }
            if !inside {
                continue;
            }
            found.section.push(at);
            if !matches!(line, Line::Blank) {
                found.end = Some(at + 1);
            }
            if matches!(line, Line::Pair { key, .. } if self.key.as_deref().map(str::as_bytes) == Some(key)) {
                found.keys.push(at);
            }
        }
        found
    }

    /// The line as it should be, in the style of the old one or of the file.
    fn line(&self, old: Option<&[u8]>, lines: &[&[u8]]) -> Vec<u8> {
        let key = self.key.as_deref().unwrap_or_default();
        let Some(value) = self.value.as_deref() else {
            let indent = old.map_or(&[][..], |old| &old[..old.len() - old.trim_ascii_start().len()]);
            return [indent, key.as_bytes()].concat();
        };
        let equals = |line: &[u8]| line.iter().position(|byte| *byte == b'=');
        if let Some((old, at)) = old.and_then(|old| Some((old, equals(old)?))) {
            let rest = &bare(old)[at + 1..];
            let mut blanks = &rest[..rest.len() - rest.trim_ascii_start().len()];
            // `key = ` without a value may have lost its trailing blank.
            if rest.is_empty() && old[..at].ends_with(b" ") {
                blanks = b" ";
            }
            let blanks = if value.is_empty() { &[][..] } else { blanks };
            return [&old[..=at], blanks, value.as_bytes()].concat();
        }
        let first = lines.iter().find(|line| matches!(Line::of(line), Line::Pair { value: Some(_), .. }));
        let in_file = || first.is_none_or(|line| equals(line).is_some_and(|at| line[..at].ends_with(b" ")));
        let between = if self.spaces.unwrap_or_else(in_file) { " = " } else { "=" };
        format!("{key}{between}{value}").trim_end().as_bytes().to_vec()
    }

    fn absent(&self, lines: &[&[u8]], found: &Found) -> Option<Vec<u8>> {
        let gone = if self.key.is_some() { &found.keys } else { &found.section };
        let kept = lines.iter().enumerate().filter(|(at, _)| gone.binary_search(at).is_err());
        (!gone.is_empty()).then(|| kept.flat_map(|(_, line)| line.iter().copied()).collect())
    }
}

impl Edit for Setting {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let lines = split(old);
        let found = self.find(&lines);
        if !self.present {
            return Ok(self.absent(&lines, &found));
        }
        let wanted = self.value.as_deref().map(str::as_bytes);
        match (&found.keys[..], found.end) {
            ([at], _) => {
                if matches!(Line::of(lines[*at]), Line::Pair { value, .. } if value == wanted) {
                    return Ok(None);
                }
                if lines.get(at + 1).is_some_and(|next| continues(next)) {
                    let message = "goes on in an indented line; values of several lines are not managed";
                    return Err(format!("the value in line {} {message}", at + 1));
                }
                Ok(Some(splice(&lines, *at, 1, &[&self.line(Some(lines[*at]), &lines)])))
            }
            ([one, two, ..], _) => {
                Err(format!("the key is there more than once, in lines {} and {}; leave one of them", one + 1, two + 1))
            }
            ([], Some(end)) => Ok(Some(splice(&lines, end, 0, &[&self.line(None, &lines)]))),
            ([], None) => {
                let header = format!("[{}]", self.section.as_deref().unwrap_or_default());
                let line = self.line(None, &lines);
                let apart = lines.last().is_some_and(|line| !is_blank(line));
                let new: [&[u8]; 3] = [b"", header.as_bytes(), &line];
                Ok(Some(splice(&lines, lines.len(), 0, if apart { &new } else { &new[1..] })))
            }
        }
    }
}

/// Whether a line belongs to the value above it.
fn continues(line: &[u8]) -> bool {
    let indented = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    indented && matches!(Line::of(line), Line::Pair { value: None, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(section: &str, key: &str, value: &str, present: bool) -> Setting {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_string());
        Setting {
            present,
            section: some(section),
            key: some(key),
            value: if value == "-" { None } else { Some(value.to_string()) },
            spaces: None,
        }
    }

    #[test]
    fn keys_come_go_and_are_changed_and_a_second_edit_finds_nothing() {
        for (old, section, key, value, present, new) in [
            ("", "s", "k", "v", true, Some("[s]\nk = v\n")),
            ("", "", "k", "v", true, Some("k = v\n")),
            ("[s]\nk=1\n", "s", "k", "v", true, Some("[s]\nk=v\n")),
            ("[s]\n  k  =  1  \n", "s", "k", "v", true, Some("[s]\n  k  =  v\n")),
            ("[s]\nk = v\n", "s", "k", "v", true, None),
            ("[s]\nk=v", "s", "k", "v", true, None),
            ("# c\n[s]\na=1\n\n; d\n[t]\nk=1\n", "s", "k", "v", true, Some("# c\n[s]\na=1\n\n; d\nk=v\n[t]\nk=1\n")),
            ("[s]\na=1\n\n[t]\nk=1\n", "s", "k", "v", true, Some("[s]\na=1\nk=v\n\n[t]\nk=1\n")),
            ("a=1\n", "s", "k", "v", true, Some("a=1\n\n[s]\nk=v\n")),
            ("[t]\nk=1\n", "", "k", "v", true, Some("k=v\n[t]\nk=1\n")),
            ("[s]\r\nk=1\r\n", "s", "k", "v", true, Some("[s]\r\nk=v\r\n")),
            ("[s]\nk = \n", "s", "k", "v", true, Some("[s]\nk = v\n")),
            ("[s]\nk =\n", "s", "k", "v", true, Some("[s]\nk = v\n")),
            ("[s]\nk = v\n", "s", "k", "", true, Some("[s]\nk =\n")),
            ("[s]\n", "s", "skip", "-", true, Some("[s]\nskip\n")),
            ("[s]\nskip\n", "s", "skip", "-", true, None),
            ("[s]\nk=a=b\n", "s", "k", "a=b", true, None),
            ("[a \"b\"]\n\tk = 1\n", "a \"b\"", "k", "v", true, Some("[a \"b\"]\n\tk = v\n")),
            ("[s]\na=1\n[t]\nb=1\n[s]\nc=1\n", "s", "k", "v", true, Some("[s]\na=1\n[t]\nb=1\n[s]\nc=1\nk=v\n")),
            ("[s]\nk=1\na=1\nk=2\n", "s", "k", "-", false, Some("[s]\na=1\n")),
            ("[s]\nk=1\n\n[t]\nk=1\n", "s", "", "-", false, Some("[t]\nk=1\n")),
            ("[t]\nk=1\n", "s", "k", "-", false, None),
            ("[t]\nk=1\n", "s", "", "-", false, None),
        ] {
            let rule = setting(section, key, value, present);
            let found = rule.edit(old.as_bytes()).unwrap();
            assert_eq!(found.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), new, "{old:?} {key}={value}");
            assert_eq!(rule.edit(&found.unwrap_or(old.into())), Ok(None), "{old:?} {key}={value}");
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused_and_foreign_bytes_stay() {
        let rule = setting("s", "k", "v", true);
        assert!(rule.edit(b"[s]\nk=1\nk=2\n").unwrap_err().contains("in lines 2 and 3"));
        assert!(rule.edit(b"[s]\nk=1\n  more\n").unwrap_err().contains("goes on in an indented line"));
        assert_eq!(rule.edit(b"\xff\n[s]\nk=\xfe\n"), Ok(Some(b"\xff\n[s]\nk=v\n".to_vec())));
    }

    #[test]
    fn a_new_line_has_the_blanks_that_are_asked_for() {
        let rule = Setting { spaces: Some(false), ..setting("s", "k", "v", true) };
        assert_eq!(rule.edit(b""), Ok(Some(b"[s]\nk=v\n".to_vec())));
        assert_eq!(rule.edit(b"[s]\na = 1\n"), Ok(Some(b"[s]\na = 1\nk=v\n".to_vec())));
    }
}
