//! `mount`: a file system is in `/etc/fstab` and mounted, only in there, or neither. What is mounted is read from the kernel;
//! mounting is done by mount(8) from the table, so that helpers for network file systems are used.

use super::parts::Parts;
use crate::exec::contract::{Action, Drift, Statement, settle_read, spare_path};
use crate::exec::fault::Fault;
use crate::exec::files::edit::{Edit, Edited, load};
use crate::exec::files::lines::{bare, splice, split};
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};

/// What is mounted at start.
const FSTAB: &str = "/etc/fstab";
/// What is mounted now.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Settles one `mount`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(task), host, task)
}

struct Wanted<'t> {
    table: Parts<'t>,
    target: String,
    fstype: String,
    /// Whether it should be mounted now; `None` leaves it.
    mounted: Option<bool>,
    task: &'t Task<'t>,
}

/// A line of the table.
struct Entry {
    target: String,
    /// `None`: there should be none.
    fields: Option<[String; 6]>,
}

impl<'t> Wanted<'t> {
    fn read(task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let path = reader.path("target_path");
        let target = path.trim_end_matches('/').to_string();
        let absent = reader.is("state", "absent", "mounted");
        let source = reader.text("source").unwrap_or_default();
        if !absent && (source.trim().is_empty() || source.starts_with('#')) {
            return Err(Fault::Parameter("`source` must be a device, UUID=.., LABEL=.. or HOST:/path".to_string()));
        }
        if target.contains(['\n', '\r']) {
            return Err(Fault::Parameter("`target_path` must be one line".to_string()));
        }
        let text = |name: &str, default: &str| reader.text(name).unwrap_or(default.to_string().into()).into_owned();
        let fstype = text("fstype", "auto");
        let fields = [
            escape(source.trim()),
            escape(&target),
            fstype.clone(),
            text("options", "defaults"),
            text("dump", "0"),
            text("pass", "0"),
        ];
        let entry = Entry { target: escape(&target), fields: (!absent).then_some(fields) };
        let mounted = if reader.is("state", "present", "mounted") { None } else { Some(!absent) };
        let table = Parts::default().with(FSTAB, Edited::new(FSTAB.into(), entry));
        Ok(Wanted { table, target, fstype, mounted, task })
    }

    /// Type of what is mounted there now, uppermost.
    fn found(&self, host: &mut Host) -> Result<Option<String>, Fault> {
        let missing = || Fault::Failed("/proc is needed to find out what is mounted".to_string());
        let bytes = load(host, MOUNTS)?.ok_or_else(missing)?.bytes;
        let text = String::from_utf8_lossy(&bytes);
        let target = escape(&self.target);
        let own = text.lines().filter(|line| line.split(' ').nth(4) == Some(&target));
        Ok(own.filter_map(|line| line.split(" - ").nth(1)?.split(' ').next().map(str::to_string)).next_back())
    }

    /// Whether a type can be compared with what the kernel says: helpers and binds have other names there.
    fn is_comparable(&self) -> bool {
        let loose = ["auto", "none", "bind", "nfs", "fuse", "cifs", "smb", "overlay"];
        !loose.iter().any(|word| self.fstype.starts_with(word)) && !self.fstype.contains('.')
    }

    fn call(&self, host: &mut Host, name: &str, args: &[&str]) -> Result<(), Fault> {
        let missing = || Fault::Failed(format!("`{name}` is not installed on this host"));
        let tool = Tool::find(host, name).ok_or_else(missing)?;
        tool.run(host, args, self.task.deadline).map(|_| ())
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        let table = self.table.probe(host, diff)?;
        let Some(wanted) = self.mounted.filter(|_| host.is_live()) else { return Ok(table) };
        let found = self.found(host)?;
        if let Some(other) = found.as_ref().filter(|other| wanted && self.is_comparable() && **other != self.fstype) {
            let message = "unmount it, or name another directory";
            return Err(Fault::Failed(format!(
                "{} has a file system of type {other} on it already; {message}",
                self.target
            )));
        }
        if found.is_some() == wanted {
            return Ok(table);
        }
        let words = if wanted { "not mounted" } else { "mounted" };
        Ok(Some(match table {
            Some(drift) => Drift { detail: format!("{}, {words}", drift.detail), ..drift },
            None => Drift::new(Action::Change, format!("{} was {words}", self.target)),
        }))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let live = host.is_live();
        let found = if live { self.found(host)? } else { None };
        if live && self.mounted == Some(false) {
            // More than one may lie upon another: each takes its own call, and the last one says why it cannot go.
            if found.is_some() {
                self.call(host, "umount", &[&self.target])?;
            }
            return self.table.converge(host);
        }
        let changed = self.table.probe(host, false)?.is_some();
        if live && self.mounted == Some(true) && found.is_none() {
            host.root.directory(&self.target).map_err(|error| {
                Fault::Failed(format!("{error}: declare the directory {}, and depend on it", self.target))
            })?;
        }
        self.table.converge(host)?;
        match (live && self.mounted == Some(true), found) {
            (true, None) => self.call(host, "mount", &[&self.target]),
            // The new options of a mounted one hold at once where its file system can change them.
            (true, Some(_)) if changed => self.call(host, "mount", &["-o", "remount", &self.target]),
            _ => Ok(()),
        }
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        // A file system over the agent's files hides them.
        spare_path(host, &self.target, true)?;
        self.table.spare_self(host)
    }
}

/// Blanks and backslashes as in fstab(5) and in the kernel's own list.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' => out.push_str("\\040"),
            '\t' => out.push_str("\\011"),
            '\\' => out.push_str("\\134"),
            c => out.push(c),
        }
    }
    out
}

impl Edit for Entry {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let lines = split(old);
        let fields = |line: &[u8]| -> Vec<String> {
            let text = String::from_utf8_lossy(bare(line)).into_owned();
            if text.trim_start().starts_with('#') {
                return Vec::new();
            }
            text.split_ascii_whitespace().map(str::to_string).collect()
        };
        let target = |found: &String| found.trim_end_matches('/') == self.target;
        let own: Vec<usize> = (0..lines.len()).filter(|at| fields(lines[*at]).get(1).is_some_and(target)).collect();
        let Some(wanted) = &self.fields else {
            let kept = (0..lines.len()).filter(|at| !own.contains(at)).flat_map(|at| lines[at].iter().copied());
            return Ok((!own.is_empty()).then(|| kept.collect()));
        };
        let line = wanted.join(" ");
        match own[..] {
            [] => Ok(Some(splice(&lines, lines.len(), 0, &[line.as_bytes()]))),
            [at] => {
                let mut found = fields(lines[at]);
                found.truncate(6);
                let defaults = ["", "", "auto", "defaults", "0", "0"];
                found.extend(defaults.iter().skip(found.len()).map(|text| text.to_string()));
                found[1] = found[1].trim_end_matches('/').to_string();
                Ok((found != wanted).then(|| splice(&lines, at, 1, &[line.as_bytes()])))
            }
            [one, two, ..] => Err(format!(
                "the directory is there more than once, in lines {} and {}; leave one of them",
                one + 1,
                two + 1
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_go_and_change_and_a_second_edit_finds_nothing() {
        let wanted = || Some(["/dev/sdb1", "/data", "ext4", "noatime", "0", "2"].map(str::to_string));
        let line = "/dev/sdb1 /data ext4 noatime 0 2\n";
        for (old, fields, new) in [
            ("", wanted(), Some(line.to_string())),
            ("# c\n/dev/sda1 / ext4", wanted(), Some(format!("# c\n/dev/sda1 / ext4\n{line}"))),
            ("/dev/sdb1\t/data/  ext4 noatime 0 2 # why\n", wanted(), None),
            ("/dev/sdb1 /data ext4 noatime\n", wanted(), Some(line.to_string())),
            ("#/dev/sdb1 /data ext4 noatime 0 2\n", None, None),
            ("/dev/sdb1 /data ext4 noatime 0 2\nx /y z\n", None, Some("x /y z\n".to_string())),
        ] {
            let entry = Entry { target: "/data".to_string(), fields };
            let found = entry.edit(old.as_bytes()).unwrap();
            assert_eq!(found.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), new.as_deref(), "{old:?}");
            assert_eq!(entry.edit(&found.unwrap_or(old.into())), Ok(None), "{old:?}");
        }
        let entry = Entry { target: "/data".to_string(), fields: wanted() };
        assert!(entry.edit(b"a /data b\nc /data d\n").unwrap_err().contains("in lines 1 and 2"));
        assert_eq!(escape("/a b\\c"), "/a\\040b\\134c");
    }
}
