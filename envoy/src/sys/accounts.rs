//! Users and groups from `/etc/passwd` and `/etc/group` below the root. No NSS: a static binary has none, and a sysroot has
//! its own accounts. Directory services are therefore out of reach; numbers always work.

use std::io::Read;
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::root::Root;

/// Bytes of either file that are read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// The accounts of one root, as they were when they were read.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads both files; one that is missing is empty.
    pub fn read(root: &mut Root) -> Accounts {
        Accounts { passwd: read_text(root, "/etc/passwd"), group: read_text(root, "/etc/group") }
    }

    /// From the text of both files.
    pub fn from_text(passwd: &str, group: &str) -> Accounts {
        Accounts { passwd: passwd.to_string(), group: group.to_string() }
    }

    /// The user of that name or number.
    pub fn user(&self, name: &str) -> Option<User> {
        let number = name.parse::<u32>().ok();
        let named = self.users().find(|user| user.name == name);
        named.or_else(|| self.users().find(|user| Some(user.uid) == number)).or_else(|| builtin_root(name))
    }

    /// Number of a user: its name, or any number.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.user(name).map(|user| user.uid).or_else(|| name.parse().ok())
    }

    /// Number of a group: its name, or any number.
    pub fn gid(&self, name: &str) -> Option<u32> {
        let named = fields(&self.group).find(|group| group[0] == name).and_then(|group| group.get(2)?.parse().ok());
        named.or_else(|| name.parse().ok()).or_else(|| (name == "root").then_some(0))
    }

    /// Numbers of all groups that a user is in, the primary one first.
    pub fn groups_of(&self, user: &User) -> Vec<u32> {
        let lists = |group: &Vec<&str>| group.get(3).is_some_and(|members| members.split(',').any(|m| m == user.name));
        let others = fields(&self.group).filter(lists).filter_map(|group| group.get(2)?.parse::<u32>().ok());
        let mut all = vec![user.gid];
        all.extend(others.filter(|gid| *gid != user.gid));
        all
    }

    fn users(&self) -> impl Iterator<Item = User> {
        fields(&self.passwd).filter_map(|line| match line[..] {
            [name, _, uid, gid, _, home, ..] => Some(User {
                name: name.to_string(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: home.to_string(),
            }),
            _ => None,
        })
    }
}

/// Root exists wherever there is a kernel.
fn builtin_root(name: &str) -> Option<User> {
    let root = || User { name: "root".to_string(), uid: 0, gid: 0, home: "/root".to_string() };
    matches!(name, "root" | "0").then(root)
}

/// Fields of each line that is not blank, a comment or an NIS switch.
fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '+', '-']));
    lines.map(|line| line.split(':').collect())
}

fn read_text(root: &mut Root, path: &str) -> String {
    let Ok(place) = root.locate(path) else { return String::new() };
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let Ok(fd) = openat(place.dir.as_fd(), place.name, flags, Mode::empty()) else { return String::new() };
    let mut bytes = Vec::new();
    // A file that fails half-way is used as far as it goes: a name that is not found is then an error of its own.
    let _ = std::fs::File::from(fd).take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        let accounts = Accounts::from_text(
            "root:x:0:0:root:/root:/bin/sh\n# note\n+::::::\nada:x:1000:100:Ada:/home/ada:/bin/sh\nbroken:x:y\n",
            "root:x:0:\nusers:x:100:\nwheel:x:10:root,ada\n",
        );
        assert_eq!(accounts.uid("ada"), Some(1000));
        assert_eq!(accounts.uid("4711"), Some(4711));
        assert_eq!(accounts.uid("broken"), None);
        assert_eq!(accounts.uid("+"), None);
        assert_eq!(accounts.gid("wheel"), Some(10));
        assert_eq!(accounts.gid("nope"), None);
        let ada = accounts.user("1000").unwrap();
        assert_eq!((ada.home.as_str(), accounts.groups_of(&ada)), ("/home/ada", vec![100, 10]));
    }

    #[test]
    fn root_needs_no_file() {
        let accounts = Accounts::default();
        assert_eq!((accounts.uid("root"), accounts.gid("root")), (Some(0), Some(0)));
        assert_eq!(accounts.user("0").unwrap().home, "/root");
    }
}
