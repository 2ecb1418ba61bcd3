//! `replace`: every match of a pattern in a file reads as its replacement. A replacement that the pattern matches again, to
//! another effect, would change the file at every run: it is refused.

use regex_lite::Regex;

use super::edit::{Edit, Edited, FILE_BYTES_MAX, load};
use super::lines::pattern;
use crate::exec::contract::{Drift, Statement, settle};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Settles one `replace`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    match read(task) {
        Ok(edited) => settle(&mut Wanted { edited }, host, task),
        Err(fault) => fault.verdict(),
    }
}

struct Rule {
    pattern: Regex,
    replacement: String,
}

/// The edit of a file that must exist: in a missing one the pattern holds, but nobody meant that.
struct Wanted<'t> {
    edited: Edited<'t, Rule>,
}

fn read<'t>(task: &'t Task<'t>) -> Result<Edited<'t, Rule>, Fault> {
    let reader = Reader::of(task)?;
    let replacement = reader.text("replacement").unwrap_or_default().into_owned();
    let rule = Rule { pattern: pattern("pattern", &reader.path("pattern"))?, replacement };
    rule.check_groups()?;
    Ok(Edited::new(reader.path("target_path"), rule))
}

impl Rule {
    /// A reference to a group that is not there would silently be nothing.
    fn check_groups(&self) -> Result<(), Fault> {
        let mut rest = self.replacement.as_str();
        while let Some(at) = rest.find('$') {
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                rest = after;
                continue;
            }
            let name = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, _)) => name,
                None => &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())],
            };
            let known = match name.parse::<usize>() {
                Ok(number) => number < self.pattern.captures_len(),
                Err(_) => self.pattern.capture_names().flatten().any(|known| known == name),
            };
            if !known && !name.is_empty() {
                return Err(Fault::Parameter(format!(
                    "`replacement`: the pattern has no group `{name}`; write ${{1}}x for group 1 before an x, $$ for a dollar"
                )));
            }
        }
        Ok(())
    }

    fn replaced(&self, text: &str) -> Result<String, String> {
        let (mut out, mut last) = (String::with_capacity(text.len()), 0);
        for found in self.pattern.captures_iter(text) {
            let Some(whole) = found.get(0) else { continue };
            out.push_str(&text[last..whole.start()]);
            found.expand(&self.replacement, &mut out);
            last = whole.end();
            if out.len() as u64 > FILE_BYTES_MAX {
                return Err(format!("it would grow beyond {FILE_BYTES_MAX} bytes"));
            }
        }
        out.push_str(&text[last..]);
        Ok(out)
    }
}

impl Edit for Rule {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let text = std::str::from_utf8(old)
            .map_err(|error| format!("byte {} is not UTF-8; patterns match only text", error.valid_up_to() + 1))?;
        let new = self.replaced(text)?;
        if new == text {
            return Ok(None);
        }
        if self.replaced(&new)? != new {
            return Err("the pattern matches what it was replaced by, so that the file would change at every run; \
                        make it match only what is to go"
                .to_string());
        }
        Ok(Some(new.into_bytes()))
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        if load(host, &self.edited.path)?.is_none() {
            return Err(Fault::Failed(format!("{} does not exist: there is nothing to replace in", self.edited.path)));
        }
        self.edited.probe(host, diff)
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        self.edited.converge(host)
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        self.edited.spare_self(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str, replacement: &str) -> Rule {
        Rule { pattern: pattern("pattern", text).unwrap(), replacement: replacement.to_string() }
    }

    #[test]
    fn every_match_is_replaced_and_a_second_edit_finds_nothing() {
        for (old, pattern, replacement, new) in [
            ("a=1\nb=1\n", "=1$", "=2", Some("a=2\nb=2\n")),
            ("a=2\n", "=1$", "=2", None),
            ("x y", "(x) (y)", "${2}_$1", Some("y_x")),
            ("cost 5", "5", "$$6", Some("cost $6")),
            ("a  b   c", " +", " ", Some("a b c")),
            ("a\n\n\nb\n", "\n\n+", "\n", Some("a\nb\n")),
            ("ä=1", "=.", "", Some("ä")),
            ("abc", "(?P<first>a)", "$first", None),
        ] {
            let rule = rule(pattern, replacement);
            let found = rule.edit(old.as_bytes()).unwrap();
            assert_eq!(found.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), new, "{old:?}");
            assert_eq!(rule.edit(&found.unwrap_or(old.into())), Ok(None), "{old:?}");
        }
    }

    #[test]
    fn what_would_never_settle_or_grow_without_end_is_refused() {
        for (old, pattern, replacement, reason) in [
            (&b"a"[..], "a", "aa", "at every run"),
            (b"ab", "(a)(b)", "$2$1$1$2", "at every run"),
            (b"\xff", "a", "b", "byte 1 is not UTF-8"),
        ] {
            let error = rule(pattern, replacement).edit(old).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let bomb = rule("x", &"y".repeat(1 << 20));
        assert!(bomb.edit(&[b'x'; 64]).unwrap_err().contains("grow beyond"));
    }

    #[test]
    fn references_to_groups_that_are_not_there_are_refused() {
        for (replacement, fine) in
            [("$1", true), ("${1}x", true), ("$1x", false), ("$2", false), ("$$1x", true), ("5$", true)]
        {
            assert_eq!(rule("(a)", replacement).check_groups().is_ok(), fine, "{replacement}");
        }
    }
}
