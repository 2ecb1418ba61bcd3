//! `user`: a user exists with these properties, or does not exist. What is not asked for is left alone. The hash of a password
//! never comes into an argument, where every process could read it, nor into a message.

use std::borrow::Cow;

use super::database::{self, Database, GROUP, PASSWD, SHADOW, User, no_tool, root_args, set_field};
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::files::directory::make;
use crate::exec::files::file::Access;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};

/// Mode of a home directory that is made later than its user.
const HOME_MODE: u32 = 0o700;

/// Settles one `user`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(task), host, task)
}

struct Wanted<'t> {
    name: String,
    uid: Option<u32>,
    group: Option<Cow<'t, str>>,
    groups: Option<Vec<String>>,
    append: bool,
    home: Option<Cow<'t, str>>,
    shell: Option<Cow<'t, str>>,
    comment: Option<Cow<'t, str>>,
    password: Option<Cow<'t, str>>,
    locked: Option<bool>,
    system: bool,
    create_home: Option<bool>,
    remove_home: bool,
    present: bool,
    task: &'t Task<'t>,
}

/// What differs of a user that is there: one flag of usermod, the field of `/etc/passwd`, the new value, words for people.
struct Difference {
    flag: &'static str,
    field: usize,
    value: String,
    words: String,
}

impl<'t> Wanted<'t> {
    fn read(task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let comment = reader.text("comment");
        if comment.as_deref().is_some_and(|text| text.contains(':')) {
            return Err(Fault::Parameter(
                "`comment` must not have a `:` in it: it is a field of /etc/passwd".to_string(),
            ));
        }
        for name in ["home", "shell"] {
            if reader.text(name).is_some_and(|path| path.contains([':', '\n'])) {
                return Err(Fault::Parameter(format!("`{name}` must be one line without a `:` in it")));
            }
        }
        Ok(Wanted {
            name: reader.path("username").into_owned(),
            uid: reader.text("uid").and_then(|text| text.parse().ok()),
            group: reader.text("group"),
            groups: reader.value("groups").map(|_| reader.texts("groups")),
            append: reader.given_truth("append").unwrap_or(true),
            home: reader.text("home"),
            shell: reader.text("shell"),
            comment,
            password: reader.text("password"),
            locked: reader.given_truth("locked"),
            system: reader.truth("system"),
            create_home: reader.given_truth("create_home"),
            remove_home: reader.truth("remove_home"),
            present: reader.is("state", "present", "present"),
            task,
        })
    }

    fn differences(&self, database: &Database, user: &User) -> Result<Vec<Difference>, Fault> {
        let mut all = Vec::new();
        let mut compare = |flag, field, what: &str, found: &str, wanted: &str| {
            if found != wanted {
                let words = format!("{what} {found:?} instead of {wanted:?}").replace('"', "`");
                all.push(Difference { flag, field, value: wanted.to_string(), words });
            }
        };
        if let Some(uid) = self.uid {
            compare("-u", 2, "uid", &user.uid.to_string(), &uid.to_string());
        }
        if let Some(group) = &self.group {
            let gid = database.gid(group)?;
            if gid != user.gid {
                compare("-g", 3, "group", &user.gid.to_string(), &gid.to_string());
            }
        }
        for (flag, field, what, found, wanted) in [
            ("-c", 4, "comment", &user.comment, &self.comment),
            ("-d", 5, "home", &user.home, &self.home),
            ("-s", 6, "shell", &user.shell, &self.shell),
        ] {
            if let Some(wanted) = wanted {
                compare(flag, field, what, found, wanted);
            }
        }
        Ok(all)
    }

    /// Groups to join and to leave.
    fn memberships(&self, database: &Database, gid: u32) -> Result<(Vec<String>, Vec<String>), Fault> {
        let Some(wanted) = &self.groups else { return Ok((Vec::new(), Vec::new())) };
        for name in wanted {
            database.gid(name)?;
        }
        let is_in = |name: &str| {
            database.group(name).is_some_and(|group| group.members.contains(&self.name) || group.gid == gid)
        };
        let join = wanted.iter().filter(|name| !is_in(name)).cloned().collect();
        let others = database.groups.iter().filter(|group| group.members.contains(&self.name));
        let leave =
            others.filter(|group| !self.append && !wanted.contains(&group.name)).map(|group| group.name.clone());
        Ok((join, leave.collect()))
    }

    /// The field of `/etc/shadow` as it should be, if it is asked for and differs.
    fn password_field(&self, host: &mut Host) -> Result<Option<String>, Fault> {
        if self.password.is_none() && self.locked.is_none() {
            return Ok(None);
        }
        let found = database::password(host, &self.name)?;
        let current = found.as_deref().unwrap_or("!");
        let open = |field: &str| field.trim_start_matches('!').to_string();
        let wanted = match (&self.password, self.locked) {
            (Some(hash), None) => hash.to_string(),
            (hash, Some(true)) => {
                // A lock is put before the hash, once: taking it off gives the same password back.
                let base = hash.as_deref().unwrap_or(current);
                if base.starts_with('!') { base.to_string() } else { format!("!{base}") }
            }
            (hash, Some(false)) => {
                let base = open(hash.as_deref().unwrap_or(current));
                if base.is_empty() {
                    let message = "has no password that could be unlocked; set `password` too";
                    return Err(Fault::Failed(format!("the user `{}` {message}", self.name)));
                }
                base
            }
            (None, None) => return Ok(None),
        };
        // `!` and `!!` are both locked without a password.
        let same = found.is_some()
            && (wanted == current || open(&wanted).is_empty() && open(current).is_empty() && current.starts_with('!'));
        Ok((!same).then_some(wanted))
    }

    fn home_is_missing(&self, host: &mut Host, home: &str) -> Result<bool, Fault> {
        if self.create_home != Some(true) || !common::policy::params::is_absolute(home) {
            return Ok(false);
        }
        let Some(place) = host.locate(home)? else { return Ok(true) };
        Ok(host.stat(&place, home)?.is_none())
    }

    fn create(&self, host: &mut Host, database: &Database) -> Result<(), Fault> {
        let makes_home = self.create_home.unwrap_or(!self.system);
        // A group of its own name, unless another is asked for: whatever the defaults of the system are.
        let group = match &self.group {
            Some(group) => Some(database.group_name(database.gid(group)?)),
            None => database.group(&self.name).map(|group| group.name.clone()),
        };
        for name in self.groups.iter().flatten() {
            database.gid(name)?;
        }
        let mut args = Arguments::default();
        args.add("-u", self.uid.map(|uid| uid.to_string()));
        if let Some(tool) = Tool::find(host, "useradd") {
            args.flag("-U", group.is_none());
            args.add("-g", group);
            args.add("-G", self.groups.as_ref().map(|groups| groups.join(",")).filter(|groups| !groups.is_empty()));
            args.add("-c", self.comment.as_deref().map(str::to_string));
            args.add("-d", self.home.as_deref().map(str::to_string));
            args.add("-s", self.shell.as_deref().map(str::to_string));
            args.flag("-r", self.system);
            args.flag(if makes_home { "-m" } else { "-M" }, true);
            return self.call(host, &tool, root_args(host), args);
        }
        let Some(tool) = self.busybox(host, "adduser") else {
            return Err(no_tool(host, "`useradd` nor `adduser`"));
        };
        args.add("-G", group);
        args.add("-g", self.comment.as_deref().map(str::to_string));
        args.add("-h", self.home.as_deref().map(str::to_string));
        args.add("-s", self.shell.as_deref().map(str::to_string));
        args.flag("-S", self.system);
        args.flag("-H", !makes_home);
        // Without a password; one is set afterwards where it is asked for.
        args.flag("-D", true);
        self.call(host, &tool, Vec::new(), args)?;
        self.join_and_leave(host)
    }

    fn modify(&self, host: &mut Host, database: &Database, user: &User) -> Result<(), Fault> {
        let differences = self.differences(database, user)?;
        let (join, leave) = self.memberships(database, user.gid)?;
        let Some(tool) = Tool::find(host, "usermod") else {
            for one in &differences {
                set_field(host, PASSWD, &self.name, one.field, &one.value)?;
            }
            return self.join_and_leave(host);
        };
        let mut args = Arguments::default();
        for one in differences {
            args.add(one.flag, Some(one.value));
        }
        if !leave.is_empty() {
            args.add("-G", Some(self.groups.iter().flatten().cloned().collect::<Vec<_>>().join(",")));
        } else if !join.is_empty() {
            args.flag("-a", true);
            args.add("-G", Some(join.join(",")));
        }
        if args.0.is_empty() { Ok(()) } else { self.call(host, &tool, root_args(host), args) }
    }

    /// Membership by the file, where there is no usermod.
    fn join_and_leave(&self, host: &mut Host) -> Result<(), Fault> {
        let database = Database::read(host)?;
        let Some(user) = database.user(&self.name) else { return Ok(()) };
        let (join, leave) = self.memberships(&database, user.gid)?;
        for group in &database.groups {
            let mut members = group.members.clone();
            members.retain(|member| *member != self.name || !leave.contains(&group.name));
            members.extend(join.contains(&group.name).then(|| self.name.clone()));
            if members != group.members {
                set_field(host, GROUP, &group.name, 3, &members.join(","))?;
            }
        }
        Ok(())
    }

    fn set_password(&self, host: &mut Host) -> Result<(), Fault> {
        let Some(field) = self.password_field(host)? else { return Ok(()) };
        // Beside usermod there is the chpasswd that knows a sysroot; through a pipe, so that nobody sees the hash.
        match Tool::find(host, "chpasswd").filter(|_| Tool::find(host, "usermod").is_some()) {
            Some(tool) => {
                let root = root_args(host);
                let args: Vec<&str> = ["-e"].into_iter().chain(root.iter().map(String::as_str)).collect();
                tool.feed(host, &args, &format!("{}:{field}\n", self.name), self.task.deadline).map(|_| ())
            }
            None => set_field(host, SHADOW, &self.name, 1, &field),
        }
    }

    fn remove(&self, host: &mut Host) -> Result<(), Fault> {
        let mut args = Arguments::default();
        if let Some(tool) = Tool::find(host, "userdel") {
            args.flag("-r", self.remove_home);
            return self.call(host, &tool, root_args(host), args);
        }
        let Some(tool) = self.busybox(host, "deluser") else { return Err(no_tool(host, "`userdel` nor `deluser`")) };
        args.flag("--remove-home", self.remove_home);
        self.call(host, &tool, Vec::new(), args)
    }

    /// A tool of BusyBox; these know no sysroot.
    fn busybox(&self, host: &Host, name: &str) -> Option<Tool> {
        Tool::find(host, name).filter(|_| host.sysroot().is_none() || host.is_live())
    }

    fn call(&self, host: &mut Host, tool: &Tool, root: Vec<String>, args: Arguments) -> Result<(), Fault> {
        let all: Vec<&str> = root.iter().chain(&args.0).map(String::as_str).chain([self.name.as_str()]).collect();
        tool.run(host, &all, self.task.deadline).map(|_| ())
    }
}

/// Arguments of a tool.
#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, flag: &str, value: Option<String>) {
        if let Some(value) = value {
            self.0.extend([flag.to_string(), value]);
        }
    }

    fn flag(&mut self, flag: &str, given: bool) {
        self.0.extend(given.then(|| flag.to_string()));
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let database = Database::read(host)?;
        let Some(user) = database.user(&self.name) else {
            return Ok(self.present.then(|| Drift::new(Action::Create, "")));
        };
        if !self.present {
            return Ok(Some(Drift::new(Action::Remove, "")));
        }
        let mut details: Vec<String> = self.differences(&database, user)?.into_iter().map(|one| one.words).collect();
        let (join, leave) = self.memberships(&database, user.gid)?;
        details.extend(join.iter().map(|group| format!("not in the group {group}")));
        details.extend(leave.iter().map(|group| format!("in the group {group}")));
        if self.password_field(host)?.is_some() {
            details.push(if self.password.is_some() { "password" } else { "lock" }.to_string());
        }
        if self.home_is_missing(host, &user.home)? {
            details.push(format!("no {}", user.home));
        }
        Ok(Drift::change(details))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let database = Database::read(host)?;
        let done = match (database.user(&self.name), self.present) {
            (_, false) => self.remove(host),
            (None, true) => self.create(host, &database),
            (Some(user), true) => self.modify(host, &database, user),
        };
        host.forget_accounts();
        done?;
        if !self.present {
            return Ok(());
        }
        self.set_password(host)?;
        let database = Database::read(host)?;
        let Some(user) = database.user(&self.name) else { return Ok(()) };
        if self.home_is_missing(host, &user.home)? {
            let owned = host.is_privileged();
            let access =
                Access { mode: Some(HOME_MODE), uid: owned.then_some(user.uid), gid: owned.then_some(user.gid) };
            let place = host.locate_to_write(&user.home)?;
            make(host, &place, &user.home, &access)?;
        }
        Ok(())
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        let database = Database::read(host)?;
        let Some(user) = database.user(&self.name) else { return Ok(()) };
        let leaves = !self.present || self.uid.is_some_and(|uid| uid != user.uid);
        match user.uid {
            0 if leaves => {
                Err(Fault::Refused(format!("the user `{}` has number 0: no host works without it", self.name)))
            }
            uid if leaves && uid == nix::unistd::geteuid().as_raw() && host.sysroot().is_none() => {
                Err(Fault::Refused(format!("the agent runs as the user `{}`", self.name)))
            }
            _ => Ok(()),
        }
    }
}
