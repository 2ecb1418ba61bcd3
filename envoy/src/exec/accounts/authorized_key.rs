//! `authorized_key`: public keys may log in as a user, or may not. The file lies where its user may write, and the agent is
//! root: every parent is walked as always, a link of that user is refused, and so is a file with a second name, because its
//! content, copied into a file of the user, might be a secret of somebody else.

use common::policy::shapes::PublicKey;
use nix::sys::stat::FileStat;

use super::database::Database;
use crate::exec::contract::{Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::files::directory::make;
use crate::exec::files::edit::{Edit, Edited};
use crate::exec::files::file::Access;
use crate::exec::files::lines::{bare, is_blank, splice, split};
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Mode of `.ssh`, and of the file in it: sshd ignores what others may write.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Settles one `authorized_key`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(host, task), host, task)
}

struct Wanted<'t> {
    edited: Edited<'t, Keys>,
    /// `.ssh`, where it is for us to make, as it should be then.
    directory: Option<(String, Access)>,
    uid: u32,
}

struct Keys {
    present: bool,
    options: String,
    /// Type and base64, and the line without options.
    keys: Vec<(String, String, String)>,
    exclusive: bool,
}

impl<'t> Wanted<'t> {
    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let name = reader.path("username");
        let database = Database::read(host)?;
        let missing =
            || Fault::Failed(format!("there is no user `{name}` in /etc/passwd: declare it, and depend on it"));
        let user = database.user(&name).ok_or_else(missing)?;
        let present = reader.is("state", "present", "present");
        let owned = host.is_privileged();
        let access = |mode| Access { mode: Some(mode), uid: owned.then_some(user.uid), gid: owned.then_some(user.gid) };
        let (path, directory) = match reader.text("target_path") {
            Some(path) => (path, None),
            None if !common::policy::params::is_absolute(&user.home) => {
                return Err(Fault::Failed(format!("the user `{name}` has no home directory")));
            }
            None => {
                let directory = format!("{}/.ssh", user.home.trim_end_matches('/'));
                (format!("{directory}/authorized_keys").into(), Some((directory, access(DIRECTORY_MODE))))
            }
        };
        let texts = reader.texts("key");
        let keys = texts.iter().filter_map(|text| {
            let key = PublicKey::parse(text)?;
            Some((key.kind.to_string(), key.blob.to_string(), text.trim().to_string()))
        });
        let keys = Keys {
            present,
            options: reader.text("options").unwrap_or_default().trim().to_string(),
            keys: keys.collect(),
            exclusive: reader.truth("exclusive"),
        };
        if !keys.options.is_empty() && options_end(&keys.options) != keys.options.len() {
            return Err(Fault::Parameter(
                "`options` must have no blank outside of quotes, and every quote its partner".to_string(),
            ));
        }
        let access = if present { access(FILE_MODE) } else { Access::default() };
        Ok(Wanted { edited: Edited { path, edit: keys, access }, directory, uid: user.uid })
    }

    fn check_owner(&self, host: &mut Host) -> Result<(), Fault> {
        let path = &self.edited.path;
        let Some(place) = host.locate(path)? else { return Ok(()) };
        let Some(stat) = host.stat(&place, path)? else { return Ok(()) };
        let FileStat { st_nlink, st_uid, .. } = stat;
        if st_nlink > 1 && crate::exec::host::kind_of(&stat) == nix::sys::stat::SFlag::S_IFREG {
            return Err(Fault::Refused(format!(
                "{path} is a hard link to a file that has other names; it is left as it is"
            )));
        }
        if st_uid != self.uid && st_uid != 0 && host.is_privileged() {
            return Err(Fault::Refused(format!(
                "{path} belongs to user {st_uid}, not to {}; it is left as it is",
                self.uid
            )));
        }
        Ok(())
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        self.check_owner(host)?;
        self.edited.probe(host, diff)
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        if let Some((path, access)) = self.directory.as_ref().filter(|_| self.edited.edit.present) {
            let place = host.locate_to_write(path)?;
            if host.stat(&place, path)?.is_none() {
                make(host, &place, path, access)?;
            }
        }
        self.edited.converge(host)
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        self.edited.spare_self(host)
    }
}

/// Options and key of a line.
fn parse(line: &[u8]) -> Option<(&str, PublicKey<'_>)> {
    let text = std::str::from_utf8(bare(line)).ok()?.trim();
    if let Some(key) = PublicKey::parse(text) {
        return Some(("", key));
    }
    let (options, rest) = text.split_at(options_end(text));
    Some((options, PublicKey::parse(rest)?))
}

/// Where the options at the start of a text end: at the first blank that is not in quotes.
fn options_end(text: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return at,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    // A quote without its partner: no end at all.
    if quoted { 0 } else { text.len() }
}

impl Edit for Keys {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let mut new = Vec::new();
        let mut there = vec![false; self.keys.len()];
        for line in split(old) {
            let parsed = parse(line);
            let at = parsed.and_then(|(_, key)| self.keys.iter().position(|(_, blob, _)| blob == key.blob));
            let keep = match (parsed, at) {
                (Some((options, _)), Some(at)) if self.present => {
                    // The first with the right options stays, with its comment.
                    let keep = options == self.options && !there[at];
                    there[at] |= keep;
                    keep
                }
                (Some(_), Some(_)) => false,
                _ => !(self.exclusive && self.present) || is_blank(line) || line.trim_ascii_start().starts_with(b"#"),
            };
            if keep {
                new.extend_from_slice(line);
            }
        }
        if self.present {
            let missing = self.keys.iter().zip(there).filter(|(_, there)| !there).map(|((_, _, line), _)| {
                if self.options.is_empty() { line.clone() } else { format!("{} {line}", self.options) }
            });
            let missing: Vec<String> = missing.collect();
            if !missing.is_empty() {
                let lines = split(&new);
                let texts: Vec<&[u8]> = missing.iter().map(String::as_bytes).collect();
                new = splice(&lines, lines.len(), 0, &texts);
            }
        }
        Ok((new != old).then_some(new))
    }
}
