//! `limits`: a line of `limits.conf` (pam_limits): domain, type, item, value. Other lines of the file stay.

use super::parts::{Folder, Parts};
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::files::edit::{Edit, Edited};
use crate::exec::files::lines::{bare, splice, split};
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Where the file is if none is named.
const FOLDER: &str = "/etc/security/limits.d";
const FILE: &str = "/etc/security/limits.d/99-vigo.conf";

/// Settles one `limits`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(task), host, task)
}

struct Limit {
    /// Domain, type, item.
    key: [String; 3],
    /// `None`: there should be no such line.
    value: Option<String>,
}

fn read<'t>(task: &'t Task<'t>) -> Result<Parts<'t>, Fault> {
    let reader = Reader::of(task)?;
    let present = reader.is("state", "present", "present");
    let kind = reader.text("limit_type").unwrap_or("-".into());
    let limit = Limit {
        key: [reader.path("domain"), kind, reader.path("item")].map(|text| text.into_owned()),
        value: reader.text("value").filter(|_| present).map(|text| text.into_owned()),
    };
    let target = reader.text("target_path");
    let file = target.clone().unwrap_or(FILE.into());
    Ok(Parts::default()
        .with_if(target.is_none() && present, FOLDER, Folder(FOLDER.to_string()))
        .with(file.clone(), Edited::new(file, limit)))
}

impl Edit for Limit {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let lines = split(old);
        let fields = |line: &[u8]| -> Vec<String> {
            let text = String::from_utf8_lossy(bare(line)).into_owned();
            let text = text.split('#').next().unwrap_or_default();
            text.split_ascii_whitespace().map(str::to_string).collect()
        };
        let own: Vec<usize> =
            (0..lines.len()).filter(|at| fields(lines[*at]).get(..3).is_some_and(|key| *key == self.key)).collect();
        let wanted = self.value.as_ref().map(|value| format!("{} {value}", self.key.join(" ")));
        // The first of them has the value; pam_limits takes the last, so that there may be only one.
        let keeps = |at: usize| fields(lines[at]).get(3) == self.value.as_ref();
        match (&own[..], &wanted) {
            ([], None) => Ok(None),
            ([], Some(line)) => Ok(Some(splice(&lines, lines.len(), 0, &[line.as_bytes()]))),
            ([at], Some(_)) if keeps(*at) => Ok(None),
            ([first, rest @ ..], wanted) => {
                let kept: Vec<&[u8]> = (0..lines.len()).filter(|at| !rest.contains(at)).map(|at| lines[at]).collect();
                let new: Vec<&[u8]> = wanted.iter().map(|line| line.as_bytes()).collect();
                Ok(Some(splice(&kept, *first, 1, &new)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_go_and_change_and_a_second_edit_finds_nothing() {
        for (old, value, new) in [
            ("", Some("5"), Some("@a soft nofile 5\n")),
            ("# c", Some("5"), Some("# c\n@a soft nofile 5\n")),
            ("@a  soft\tnofile  5 # why\n", Some("5"), None),
            ("@a soft nofile 4\n@a hard nofile 4\n", Some("5"), Some("@a soft nofile 5\n@a hard nofile 4\n")),
            ("@a soft nofile 5\nx - core 0\n@a soft nofile 6\n", Some("5"), Some("@a soft nofile 5\nx - core 0\n")),
            ("#@a soft nofile 5\n", None, None),
            ("@a soft nofile 5\nx - core 0\n@a soft nofile 6\n", None, Some("x - core 0\n")),
            ("@a soft\n", Some("5"), Some("@a soft\n@a soft nofile 5\n")),
        ] {
            let key = ["@a", "soft", "nofile"].map(str::to_string);
            let limit = Limit { key, value: value.map(str::to_string) };
            let found = limit.edit(old.as_bytes()).unwrap();
            assert_eq!(found.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), new, "{old:?}");
            assert_eq!(limit.edit(&found.unwrap_or(old.into())), Ok(None), "{old:?}");
        }
    }
}
