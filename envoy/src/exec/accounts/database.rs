//! `/etc/passwd`, `/etc/group` and `/etc/shadow` below the root, as executors of accounts see them; and changing one field of
//! one line where there is no tool for it.

use crate::exec::contract::Statement;
use crate::exec::fault::Fault;
use crate::exec::files::edit::{Edit, Edited, load};
use crate::exec::files::lines::{bare, splice, split};
use crate::exec::host::Host;

/// Users of the root.
pub const PASSWD: &str = "/etc/passwd";
/// Groups of the root.
pub const GROUP: &str = "/etc/group";
/// Passwords of the root.
pub const SHADOW: &str = "/etc/shadow";

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of its primary group.
    pub gid: u32,
    /// Full name and the like.
    pub comment: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Number.
    pub gid: u32,
    /// Users that it is not the primary group of.
    pub members: Vec<String>,
}

/// Both files, as they are now.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// In the order of the file.
    pub users: Vec<User>,
    /// In the order of the file.
    pub groups: Vec<Group>,
}

impl Database {
    /// Reads them; a file that is missing is empty.
    pub fn read(host: &mut Host) -> Result<Database, Fault> {
        let users = rows(host, PASSWD)?.into_iter().filter_map(|row| match &row[..] {
            [name, _, uid, gid, comment, home, rest @ ..] => Some(User {
                name: name.clone(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                comment: comment.clone(),
                home: home.clone(),
                shell: rest.first().cloned().unwrap_or_default(),
            }),
            _ => None,
        });
        let users = users.collect();
        let groups = rows(host, GROUP)?.into_iter().filter_map(|row| match &row[..] {
            [name, _, gid, members, ..] => Some(Group {
                name: name.clone(),
                gid: gid.parse().ok()?,
                members: members.split(',').filter(|member| !member.is_empty()).map(str::to_string).collect(),
            }),
            _ => None,
        });
        Ok(Database { users, groups: groups.collect() })
    }

    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// What people call a group: its name, else its number.
    pub fn group_name(&self, gid: u32) -> String {
        self.groups.iter().find(|group| group.gid == gid).map_or(gid.to_string(), |group| group.name.clone())
    }

    /// Number of a group by its name or number; it has to exist.
    pub fn gid(&self, name: &str) -> Result<u32, Fault> {
        let number = name.parse::<u32>().ok();
        let found = self.group(name).or_else(|| self.groups.iter().find(|group| Some(group.gid) == number));
        found.map(|group| group.gid).ok_or_else(|| {
            Fault::Failed(format!("there is no group `{name}` in {GROUP}: declare it, and depend on it"))
        })
    }
}

/// The password field of a user; `None` where it has no line.
pub fn password(host: &mut Host, name: &str) -> Result<Option<String>, Fault> {
    let found = rows(host, SHADOW)?.into_iter().find(|row| row.first().is_some_and(|known| known == name));
    Ok(found.and_then(|row| row.get(1).cloned()))
}

/// Gives one field of the line of a name another value.
pub fn set_field(host: &mut Host, path: &'static str, name: &str, index: usize, value: &str) -> Result<(), Fault> {
    let field = Field { name: name.to_string(), index, value: value.to_string() };
    Edited::new(path.into(), field).converge(host)
}

/// Arguments with which tools of shadow-utils work on the root.
pub fn root_args(host: &Host) -> Vec<String> {
    host.sysroot().map_or_else(Vec::new, |root| vec!["-R".to_string(), root.display().to_string()])
}

/// What to say where neither family of tools can do it.
pub fn no_tool(host: &Host, tools: &str) -> Fault {
    match host.sysroot() {
        Some(_) => Fault::Failed(format!("{tools} of shadow-utils is not installed here; only it works on a sysroot")),
        None => Fault::Failed(format!("neither {tools} is installed on this host")),
    }
}

fn rows(host: &mut Host, path: &str) -> Result<Vec<Vec<String>>, Fault> {
    let bytes = load(host, path)?.map(|loaded| loaded.bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // Comments, and the switches of NIS.
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '+', '-']));
    Ok(lines.map(|line| line.split(':').map(str::to_string).collect()).collect())
}

struct Field {
    name: String,
    index: usize,
    value: String,
}

impl Edit for Field {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let lines = split(old);
        let is_own = |line: &&[u8]| bare(line).split(|byte| *byte == b':').next() == Some(self.name.as_bytes());
        let at = lines.iter().position(is_own).ok_or_else(|| format!("it has no line for {}", self.name))?;
        let mut fields: Vec<&[u8]> = bare(lines[at]).split(|byte| *byte == b':').collect();
        match fields.get_mut(self.index) {
            None => Err(format!("line {} has too few fields", at + 1)),
            Some(field) if *field == self.value.as_bytes() => Ok(None),
            Some(field) => {
                *field = self.value.as_bytes();
                Ok(Some(splice(&lines, at, 1, &[&fields.join(&b':')])))
            }
        }
    }
}
