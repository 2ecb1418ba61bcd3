//! `blockinfile`: lines between two markers are in a file, or are not. Only what is between the markers is owned; a marker
//! without its partner is refused, because nobody knows where such a block ends.

use std::ops::Range;

use super::edit::{Edit, Edited};
use super::lines::{Where, bare, splice, split};
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Marker where none is given.
const MARKER_DEFAULT: &str = "# {mark} VIGO MANAGED BLOCK";

/// Settles one `blockinfile`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(task), host, task)
}

/// Lines of ours between two markers.
pub struct Block {
    /// `None`: it should not be there.
    lines: Option<Vec<String>>,
    begin: String,
    end: String,
    place: Where,
}

fn read<'t>(task: &'t Task<'t>) -> Result<Edited<'t, Block>, Fault> {
    let reader = Reader::of(task)?;
    let marker = reader.text("marker").unwrap_or(MARKER_DEFAULT.into());
    let (begin, end) = (marker.replace("{mark}", "BEGIN"), marker.replace("{mark}", "END"));
    let block = reader.text("block").unwrap_or_default();
    let lines: Vec<String> = block.lines().map(str::to_string).collect();
    if lines.iter().any(|line| *line == begin || *line == end) {
        return Err(Fault::Parameter("`block` contains its own marker; give it another `marker`".to_string()));
    }
    let edit = Block {
        lines: reader.is("state", "present", "present").then_some(lines),
        begin,
        end,
        place: Where::read(reader.text("position").as_deref())?,
    };
    Ok(Edited::new(reader.path("target_path"), edit))
}

impl Block {
    /// At the end of the file, where it is not there yet.
    pub fn new(marker: &str, lines: Option<Vec<String>>) -> Block {
        Block {
            lines,
            begin: marker.replace("{mark}", "BEGIN"),
            end: marker.replace("{mark}", "END"),
            place: Where::End,
        }
    }

    /// Every block, markers included.
    fn find(&self, lines: &[&[u8]]) -> Result<Vec<Range<usize>>, String> {
        let (mut found, mut open) = (Vec::new(), None);
        for (at, line) in lines.iter().enumerate() {
            if bare(line) == self.begin.as_bytes() {
                if let Some(before) = open.replace(at) {
                    return Err(format!(
                        "the block of line {} has no `{}` before line {}",
                        before + 1,
                        self.end,
                        at + 1
                    ));
                }
            } else if bare(line) == self.end.as_bytes() {
                let from = open.take().ok_or_else(|| format!("line {} ends a block that has no beginning", at + 1))?;
                found.push(from..at + 1);
            }
        }
        match open {
            Some(at) => Err(format!("the block of line {} has no `{}`; put it back where it ends", at + 1, self.end)),
            None => Ok(found),
        }
    }
}

impl Edit for Block {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let lines = split(old);
        let found = self.find(&lines)?;
        let Some(wanted) = &self.lines else {
            let inside = |at: usize| found.iter().any(|block| block.contains(&at));
            let kept =
                lines.iter().enumerate().filter(|(at, _)| !inside(*at)).flat_map(|(_, line)| line.iter().copied());
            return Ok((!found.is_empty()).then(|| kept.collect()));
        };
        let texts = std::iter::once(&self.begin).chain(wanted).chain([&self.end]);
        let new: Vec<&[u8]> = texts.map(String::as_bytes).collect();
        match &found[..] {
            [] => Ok(Some(splice(&lines, self.place.at(&lines), 0, &new))),
            [one] if lines[one.clone()].iter().map(|line| bare(line)).eq(new.iter().copied()) => Ok(None),
            [one] => Ok(Some(splice(&lines, one.start, one.len(), &new))),
            [one, two, ..] => Err(format!(
                "the block is there more than once, at lines {} and {}; each block of a file needs its own `marker`",
                one.start + 1,
                two.start + 1
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(lines: Option<&[&str]>, position: &str) -> Block {
        Block {
            lines: lines.map(|lines| lines.iter().map(|line| line.to_string()).collect()),
            begin: "# BEGIN".to_string(),
            end: "# END".to_string(),
            place: Where::read(Some(position)).unwrap(),
        }
    }

    #[test]
    fn blocks_come_go_and_are_replaced_and_a_second_edit_finds_nothing() {
        let ab: Option<&[&str]> = Some(&["a", "b"]);
        for (old, lines, position, new) in [
            ("", ab, "end", Some("# BEGIN\na\nb\n# END\n")),
            ("x", ab, "end", Some("x\n# BEGIN\na\nb\n# END\n")),
            ("x\n", ab, "begin", Some("# BEGIN\na\nb\n# END\nx\n")),
            ("x\ny\n", ab, "after:^x", Some("x\n# BEGIN\na\nb\n# END\ny\n")),
            ("x\n# BEGIN\na\n# END\ny", ab, "end", Some("x\n# BEGIN\na\nb\n# END\ny")),
            ("# BEGIN\na\nb\n# END", ab, "end", None),
            ("# BEGIN\r\na\r\nb\r\n# END\r\n", ab, "end", None),
            ("x\r\n", ab, "end", Some("x\r\n# BEGIN\r\na\r\nb\r\n# END\r\n")),
            ("x\n# BEGIN\n# END\n", Some(&[]), "end", None),
            ("x\n# BEGIN\na\n# END\ny\n# BEGIN\n# END\n", None, "end", Some("x\ny\n")),
            ("x\n", None, "end", None),
        ] {
            let rule = block(lines, position);
            let found = rule.edit(old.as_bytes()).unwrap();
            assert_eq!(found.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), new, "{old:?}");
            assert_eq!(rule.edit(&found.unwrap_or(old.into())), Ok(None), "{old:?}");
        }
    }

    #[test]
    fn markers_without_a_partner_are_refused() {
        for (old, reason) in [
            ("# BEGIN\na\n", "the block of line 1 has no `# END`"),
            ("a\n# END\n", "line 2 ends a block that has no beginning"),
            ("# BEGIN\n# BEGIN\n# END\n", "no `# END` before line 2"),
            ("# BEGIN\n# END\n# BEGIN\n# END\n", "more than once, at lines 1 and 3"),
        ] {
            let error = block(Some(&["a"]), "end").edit(old.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
