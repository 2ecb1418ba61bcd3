//! `host`: names have an address in `/etc/hosts`, and no other of its family: a resolver takes the first line that fits, so a
//! second one would only be right by chance. Other names of a line, its comment and its blanks stay.

use std::net::IpAddr;

use super::edit::{Edit, Edited};
use super::lines::{bare, splice, split};
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// The file where none is named.
const PATH_DEFAULT: &str = "/etc/hosts";

/// Settles one `host`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(task), host, task)
}

struct Names {
    present: bool,
    ip: Option<IpAddr>,
    names: Vec<String>,
}

fn read<'t>(task: &'t Task<'t>) -> Result<Edited<'t, Names>, Fault> {
    let reader = Reader::of(task)?;
    let edit = Names {
        present: reader.is("state", "present", "present"),
        ip: reader.text("ip").and_then(|text| text.parse().ok()),
        names: reader.texts("names"),
    };
    Ok(Edited::new(reader.text("target_path").unwrap_or(PATH_DEFAULT.into()), edit))
}

/// A line that gives an address to names.
struct Line<'l> {
    ip: IpAddr,
    names: Vec<&'l str>,
}

impl<'l> Line<'l> {
    fn parse(line: &'l [u8]) -> Option<Line<'l>> {
        let text = std::str::from_utf8(line).ok()?;
        let text = text.split('#').next().unwrap_or_default();
        let mut fields = text.split_ascii_whitespace();
        Some(Line { ip: fields.next()?.parse().ok()?, names: fields.collect() })
    }
}

impl Names {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Whether a line may not have our names.
    fn is_foreign(&self, ip: IpAddr) -> bool {
        match self.ip {
            Some(own) if self.present => own != ip && own.is_ipv4() == ip.is_ipv4(),
            Some(own) => own == ip,
            None => true,
        }
    }

    /// A line without our names; `None` where nothing is left of it.
    fn without(&self, line: &[u8], parsed: &Line<'_>) -> Option<Vec<u8>> {
        if parsed.names.iter().all(|name| self.has(name)) {
            return None;
        }
        let mut text = String::from_utf8_lossy(bare(line)).into_owned();
        for name in parsed.names.iter().filter(|name| self.has(name)) {
            let code = text.split('#').next().unwrap_or_default();
            // As a whole word, with the blanks in front of it.
            let mut from = 0;
            while let Some(at) = code[from..].find(name).map(|at| from + at) {
                let end = at + name.len();
                let blank = |c: Option<char>| c.is_none_or(char::is_whitespace);
                if blank(code[..at].chars().next_back()) && blank(code[end..].chars().next()) {
                    let start = code[..at].trim_end().len();
                    text.replace_range(start..end, "");
                    break;
                }
                from = end;
            }
        }
        Some(text.into_bytes())
    }

    /// A line with those of our names that it lacks, before its comment.
    fn with(&self, line: &[u8], parsed: &Line<'_>) -> Option<Vec<u8>> {
        let lacks = |name: &&String| !parsed.names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let missing: String = self.names.iter().filter(lacks).map(|name| format!(" {name}")).collect();
        let text = std::str::from_utf8(bare(line)).ok()?;
        let end = text.split('#').next().unwrap_or_default().trim_end().len();
        (!missing.is_empty()).then(|| format!("{}{missing}{}", &text[..end], &text[end..]).into_bytes())
    }
}

impl Edit for Names {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let mut new = old.to_vec();
        let mut at = 0;
        while let Some(line) = split(&new).get(at).map(|line| line.to_vec()) {
            if let Some(parsed) = Line::parse(&line)
                && self.is_foreign(parsed.ip)
                && parsed.names.iter().any(|name| self.has(name))
            {
                let rest = self.without(&line, &parsed);
                new = splice(&split(&new), at, 1, rest.as_deref().as_slice());
                at += usize::from(rest.is_some());
            } else {
                at += 1;
            }
        }
        if let (true, Some(ip)) = (self.present, self.ip) {
            let lines = split(&new);
            let own = lines.iter().position(|line| Line::parse(line).is_some_and(|line| line.ip == ip));
            let added = match own.map(|at| (at, lines[at])) {
                Some((at, line)) => {
                    let parsed = Line::parse(line).filter(|parsed| !self.all_there(&lines, parsed.ip));
                    parsed.and_then(|parsed| self.with(line, &parsed)).map(|line| splice(&lines, at, 1, &[&line]))
                }
                None => Some(splice(&lines, lines.len(), 0, &[format!("{ip}\t{}", self.names.join(" ")).as_bytes()])),
            };
            new = added.unwrap_or(new);
        }
        Ok((new != old).then_some(new))
    }
}

impl Names {
    /// Whether every name has the address, on whichever line.
    fn all_there(&self, lines: &[&[u8]], ip: IpAddr) -> bool {
        let of_ip: Vec<Line<'_>> =
            lines.iter().filter_map(|line| Line::parse(line)).filter(|line| line.ip == ip).collect();
        let there =
            |name: &String| of_ip.iter().any(|line| line.names.iter().any(|known| known.eq_ignore_ascii_case(name)));
        self.names.iter().all(there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ip: &str, names: &[&str], present: bool) -> Names {
        Names { present, ip: ip.parse().ok(), names: names.iter().map(|name| name.to_string()).collect() }
    }

    #[test]
    fn names_come_go_and_move_and_a_second_edit_finds_nothing() {
        for (old, ip, wanted, present, new) in [
            ("", "10.0.0.1", &["a"][..], true, Some("10.0.0.1\ta\n")),
            ("127.0.0.1 localhost", "10.0.0.1", &["a", "b"], true, Some("127.0.0.1 localhost\n10.0.0.1\ta b\n")),
            ("10.0.0.1  a   b # c\n", "10.0.0.1", &["b", "a"], true, None),
            ("10.0.0.1 a # c\n", "10.0.0.1", &["a", "b"], true, Some("10.0.0.1 a b # c\n")),
            ("10.0.0.2 a\n", "10.0.0.1", &["a"], true, Some("10.0.0.1\ta\n")),
            ("10.0.0.2 aa  a x # a\n10.0.0.1 y\n", "10.0.0.1", &["a"], true, Some("10.0.0.2 aa x # a\n10.0.0.1 y a\n")),
            ("::1 a\n", "10.0.0.1", &["a"], true, Some("::1 a\n10.0.0.1\ta\n")),
            ("10.0.0.1 a\n10.0.0.1 b\n", "10.0.0.1", &["a", "b"], true, None),
            ("10.0.0.1 A\n", "10.0.0.1", &["a"], true, None),
            ("0:0::1 a\n", "::1", &["a"], true, None),
            ("10.0.0.1 a b\n::1 a\n", "", &["a"], false, Some("10.0.0.1 b\n")),
            ("10.0.0.1 a\n10.0.0.2 a\n", "10.0.0.1", &["a"], false, Some("10.0.0.2 a\n")),
            ("#10.0.0.1 a\n", "", &["a"], false, None),
            ("\u{fffd}\n10.0.0.1 a", "10.0.0.1", &["b"], true, Some("\u{fffd}\n10.0.0.1 a b\n")),
            ("10.0.0.2 a\r\n10.0.0.1 b\r\n", "10.0.0.1", &["a"], true, Some("10.0.0.1 b a\r\n")),
        ] {
            let rule = names(ip, wanted, present);
            let found = rule.edit(old.as_bytes()).unwrap();
            assert_eq!(found.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), new, "{old:?} {wanted:?}");
            assert_eq!(rule.edit(&found.unwrap_or(old.into())), Ok(None), "{old:?} {wanted:?}");
        }
    }

    #[test]
    fn lines_that_are_not_text_stay() {
        let found = names("10.0.0.1", &["a"], true).edit(b"\xff\xfe a\n").unwrap().unwrap();
        assert_eq!(found, b"\xff\xfe a\n10.0.0.1\ta\n");
    }
}
