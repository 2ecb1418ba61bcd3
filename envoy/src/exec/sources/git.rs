//! `git`: a directory is a working copy of a repository, at a revision. Which commit it is at is read from its files; only a branch
//! or tag has to be asked for, and only a change fetches anything. A clone grows beside its place and is renamed, so that there
//! is never half of one.
//!
//! A working copy of another user is never entered: what its configuration names would run as us.

use std::borrow::Cow;

use nix::sys::stat::SFlag;

use crate::exec::contract::{Action, Drift, Statement, settle_read, spare_path};
use crate::exec::fault::Fault;
use crate::exec::files::directory::{make, remove_all};
use crate::exec::files::file::Access;
use crate::exec::host::{Host, kind_of, not_a};
use crate::exec::look::{names_in, text_of};
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};
use crate::sys::child::{Ended, Finished};
use crate::sys::replace::temporary_name;

/// Digits of a commit that messages show.
const SHOWN: usize = 12;
/// What git says when the other side, or the way there, is at fault.
const UNREACHABLE: [&str; 8] = [
    "could not resolve host",
    "unable to access",
    "connection refused",
    "connection timed out",
    "operation timed out",
    "network is unreachable",
    "early eof",
    "could not read from remote repository",
];
/// Settings that no repository may change: no program of theirs is run, nothing is asked on a terminal.
const SETTINGS: [&str; 8] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "advice.detachedHead=false",
    "-c",
    "init.defaultBranch=main",
];

/// Settles one `git`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(host, task), host, task)
}

struct Wanted<'t> {
    path: String,
    url: Cow<'t, str>,
    revision: Cow<'t, str>,
    update: bool,
    force: bool,
    present: bool,
    submodules: bool,
    depth: Option<String>,
    uid: u32,
    tool: Option<Tool>,
    task: &'t Task<'t>,
}

/// What is there.
enum Found {
    Nothing,
    /// A directory without anything in it.
    Empty,
    /// A working copy, at this commit; `None` where none was ever checked out.
    Copy(Option<String>),
}

/// What should be there.
struct Aim {
    commit: String,
    /// Name to fetch it by; `None` where the policy names the commit itself.
    name: Option<String>,
}

impl<'t> Wanted<'t> {
    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let user = reader.text("user");
        let uid = match &user {
            Some(user) => host.uid_of(user)?,
            None => nix::unistd::geteuid().as_raw(),
        };
        let key =
            reader.text("ssh_key").map(|path| format!(" -i '{}' -o IdentitiesOnly=yes", path.replace('\'', "'\\''")));
        let ssh = format!("ssh -o BatchMode=yes{}", key.unwrap_or_default());
        let url = reader.path("repository");
        // What a repository from elsewhere contains is not fetched from this host's own files.
        let local = url.starts_with("file://");
        let protocols = if local { "file:git:http:https:ssh" } else { "git:http:https:ssh" };
        let environment = [
            ("GIT_TERMINAL_PROMPT", "0"),
            // `status` would write what it learned into the index, and a check only reads.
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_ALLOW_PROTOCOL", protocols),
            ("GIT_SSH_COMMAND", &*ssh),
            ("LC_ALL", "C"),
        ];
        let tool = Tool::find(host, "git").map(|tool| tool.with_environment(&environment).running_as(user.as_deref()));
        Ok(Wanted {
            path: reader.path("target_path").trim_end_matches('/').to_string(),
            url,
            revision: reader.text("revision").unwrap_or("HEAD".into()),
            update: reader.given_truth("update").unwrap_or(true),
            force: reader.truth("force"),
            present: reader.is("state", "present", "present"),
            submodules: reader.truth("submodules"),
            depth: reader.text("depth").map(|depth| format!("--depth={depth}")),
            uid,
            tool,
            task,
        })
    }

    /// Runs git in a directory; not in a working copy unless it says `--git-dir`.
    fn ask(&self, host: &mut Host, directory: &str, args: &[&str]) -> Result<Finished, Fault> {
        let missing = || Fault::Failed("`git` is not installed on this host: install it, and depend on it".to_string());
        let tool = self.tool.as_ref().ok_or_else(missing)?;
        let args: Vec<&str> = SETTINGS.iter().chain(args).copied().collect();
        tool.clone().within(directory).ask(host, &args, "", self.task.deadline)
    }

    fn call(&self, host: &mut Host, directory: &str, args: &[&str]) -> Result<String, Fault> {
        let done = self.ask(host, directory, args)?;
        if done.ended == Ended::Exited(0) { Ok(done.stdout.text()) } else { Err(self.fault(&done)) }
    }

    fn fault(&self, done: &Finished) -> Fault {
        let fault = self.tool.as_ref().map_or(Fault::Failed(String::new()), |tool| tool.fault(done));
        match fault {
            Fault::Failed(message) if message.to_lowercase().contains("host key verification failed") => {
                Fault::Failed(format!("{message}\ndeclare the key of that host with `sshkey`, and depend on it"))
            }
            Fault::Failed(message) if UNREACHABLE.iter().any(|words| message.to_lowercase().contains(words)) => {
                Fault::Blocked(message)
            }
            fault => fault,
        }
    }

    /// In the working copy, as such.
    fn call_inside(&self, host: &mut Host, directory: &str, args: &[&str]) -> Result<String, Fault> {
        let args: Vec<&str> = ["--git-dir=.git", "--work-tree=."].iter().chain(args).copied().collect();
        self.call(host, directory, &args)
    }

    fn found(&self, host: &mut Host) -> Result<Found, Fault> {
        let Some(place) = host.locate(&self.path)? else { return Ok(Found::Nothing) };
        match host.stat(&place, &self.path)? {
            None => return Ok(Found::Nothing),
            Some(stat) if kind_of(&stat) != SFlag::S_IFDIR => return Err(not_a(&stat, "a directory", &self.path)),
            Some(_) => {}
        }
        let inside = format!("{}/.git", self.path);
        let stat = match host.locate(&inside)? {
            Some(place) => host.stat(&place, &inside)?,
            None => None,
        };
        match stat {
            None if names_in(host, &self.path)?.is_empty() => Ok(Found::Empty),
            None => Err(Fault::Refused(format!(
                "{} is not empty and not a working copy of git; it is left as it is",
                self.path
            ))),
            Some(stat) if kind_of(&stat) != SFlag::S_IFDIR => Err(not_a(&stat, "a directory", &inside)),
            Some(stat) if stat.st_uid != self.uid => Err(Fault::Refused(format!(
                "{inside} belongs to user {}: what its configuration names is not run as user {}; set `user`",
                stat.st_uid, self.uid
            ))),
            Some(_) => Ok(Found::Copy(self.head(host)?)),
        }
    }

    /// The commit that is checked out.
    fn head(&self, host: &mut Host) -> Result<Option<String>, Fault> {
        let git = format!("{}/.git", self.path);
        let head = text_of(host, &format!("{git}/HEAD"))?;
        let Some(name) = head.trim().strip_prefix("ref: ") else {
            return Ok(is_commit(head.trim()).then(|| head.trim().to_string()));
        };
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Ok(None);
        }
        let loose = text_of(host, &format!("{git}/{name}"))?;
        if is_commit(loose.trim()) {
            return Ok(Some(loose.trim().to_string()));
        }
        let packed = text_of(host, &format!("{git}/packed-refs"))?;
        let own = |line: &str| line.split_once(' ').filter(|(_, known)| *known == name).map(|(id, _)| id.to_string());
        Ok(packed.lines().find_map(own).filter(|id| is_commit(id)))
    }

    /// What the revision is now.
    fn aim(&self, host: &mut Host) -> Result<Aim, Fault> {
        let revision = &*self.revision;
        if is_commit(revision) {
            return Ok(Aim { commit: revision.to_lowercase(), name: None });
        }
        let whole = revision == "HEAD" || revision.starts_with("refs/");
        // A branch before a tag of the same name, as `git clone --branch` has it; of a tag the commit, not the tag itself.
        let names = match whole {
            true => vec![format!("{revision}^{{}}"), revision.to_string()],
            false => vec![
                format!("refs/heads/{revision}"),
                format!("refs/tags/{revision}^{{}}"),
                format!("refs/tags/{revision}"),
            ],
        };
        let args: Vec<&str> =
            ["ls-remote", "-q", "--", &self.url].into_iter().chain(names.iter().map(String::as_str)).collect();
        let said = self.call(host, "/", &args)?;
        let listed = |wanted: &str| {
            let own =
                |line: &str| line.split_once('\t').filter(|(_, name)| *name == wanted).map(|(id, _)| id.to_string());
            said.lines().find_map(own).filter(|id| is_commit(id))
        };
        let found = names.iter().find_map(|name| Some((listed(name)?, name.trim_end_matches("^{}").to_string())));
        match found {
            Some((commit, name)) => Ok(Aim { commit, name: Some(name) }),
            None => Err(Fault::Failed(format!(
                "{} has no branch or tag `{revision}`; a commit is named by all of its 40 digits",
                self.url
            ))),
        }
    }

    fn changed_files(&self, host: &mut Host) -> Result<usize, Fault> {
        let said = self.call_inside(host, &self.path, &["status", "--porcelain", "--untracked-files=no"])?;
        Ok(said.lines().count())
    }

    /// Brings a working copy, which may be new, to the commit.
    fn check_out(&self, host: &mut Host, directory: &str, aim: &Aim) -> Result<(), Fault> {
        let fetch = |host: &mut Host, what: &[&str], depth: bool| {
            let depth = self.depth.as_deref().filter(|_| depth);
            let args: Vec<&str> = ["fetch", "-q", "--no-tags"]
                .into_iter()
                .chain(depth)
                .chain(["--", &self.url])
                .chain(what.iter().copied())
                .collect();
            self.call_inside(host, directory, &args)
        };
        match &aim.name {
            Some(name) => fetch(host, &[name], true)?,
            // Not every server gives away a commit by its number.
            None => match fetch(host, &[&aim.commit], true) {
                Err(Fault::Failed(_)) => {
                    fetch(host, &["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"], false)?
                }
                done => done?,
            },
        };
        let commit = if aim.name.is_some() { "FETCH_HEAD" } else { &aim.commit };
        let force: &[&str] = if self.force { &["--force"] } else { &[] };
        let args: Vec<&str> = ["checkout", "-q", "--detach"].iter().chain(force).chain(&[commit]).copied().collect();
        self.call_inside(host, directory, &args)?;
        self.fill(host, directory)
    }

    /// Brings what it contains of other repositories to the commits that it names.
    fn fill(&self, host: &mut Host, directory: &str) -> Result<(), Fault> {
        if !self.submodules {
            return Ok(());
        }
        let force = self.force.then_some("--force");
        // An address that has changed since counts at once.
        self.call_inside(host, directory, &["submodule", "--quiet", "sync", "--recursive"])?;
        let args: Vec<&str> =
            ["submodule", "--quiet", "update", "--init", "--recursive"].into_iter().chain(force).collect();
        self.call_inside(host, directory, &args).map(|_| ())
    }

    /// How many of them are not there, or at another commit.
    fn unfilled(&self, host: &mut Host) -> Result<usize, Fault> {
        if !self.submodules {
            return Ok(0);
        }
        let said = self.call_inside(host, &self.path, &["submodule", "status", "--recursive"])?;
        Ok(said.lines().filter(|line| line.starts_with(['-', '+', 'U'])).count())
    }

    /// What goes, unless somebody's work would go with it.
    fn unwanted(&self, host: &mut Host) -> Result<Option<Drift>, Fault> {
        let Found::Copy(head) = self.found(host)? else { return Ok(None) };
        let changed = if self.force || head.is_none() { 0 } else { self.changed_files(host)? };
        match changed {
            0 => Ok(Some(Drift::new(Action::Remove, head.map_or(String::new(), |id| id[..SHOWN].to_string())))),
            n => Err(Fault::Refused(format!(
                "{} has changes by hand in {n} of its files; it is left as it is: save them, or set `force: true`",
                self.path
            ))),
        }
    }

    fn begin(&self, host: &mut Host, directory: &str) -> Result<(), Fault> {
        // A template may hold hooks.
        self.call(host, directory, &["init", "-q", "--template="])?;
        self.call_inside(host, directory, &["config", "remote.origin.url", &self.url])?;
        let heads = "+refs/heads/*:refs/remotes/origin/*";
        self.call_inside(host, directory, &["config", "remote.origin.fetch", heads]).map(|_| ())
    }

    /// A clone beside its place, then renamed.
    fn clone(&self, host: &mut Host, aim: &Aim) -> Result<(), Fault> {
        let place = host.locate_to_write(&self.path)?;
        let parent = self.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let temporary = format!("{parent}/{}", temporary_name(place.name));
        // Left behind by an agent that was killed.
        remove_all(host, &temporary)?;
        let access = Access { uid: host.is_privileged().then_some(self.uid), ..Access::default() };
        let beside = host.locate_to_write(&temporary)?;
        make(host, &beside, &temporary, &access)?;
        host.root.forget();
        let done = self.begin(host, &temporary).and_then(|()| self.check_out(host, &temporary, aim));
        if let Err(fault) = done {
            // The fault that led here is the one to tell.
            let _ = remove_all(host, &temporary);
            return Err(fault);
        }
        let from = host.locate_to_write(&temporary)?;
        nix::fcntl::renameat(&place.dir, from.name, &place.dir, place.name)
            .map_err(Fault::io("rename the clone to", &self.path))?;
        host.root.forget();
        host.sync_later(&place, &self.path)
    }

    fn describe(&self, commit: &str) -> String {
        let short: String = commit.chars().take(SHOWN).collect();
        if is_commit(&self.revision) { short } else { format!("{short} ({})", self.revision) }
    }
}

/// The whole number of a commit: SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        if !self.present {
            return self.unwanted(host);
        }
        let head = match self.found(host)? {
            Found::Nothing | Found::Empty | Found::Copy(None) => {
                if self.tool.is_none() && !self.task.enforce {
                    return Ok(Some(Drift::new(Action::Create, "git is not installed yet")));
                }
                let aim = self.aim(host)?;
                return Ok(Some(Drift::new(Action::Create, self.describe(&aim.commit))));
            }
            Found::Copy(Some(head)) => head,
        };
        let mut details = Vec::new();
        if self.update || is_commit(&self.revision) {
            let aim = self.aim(host)?;
            if aim.commit != head {
                details.push(format!("{} instead of {}", &head[..SHOWN], self.describe(&aim.commit)));
            }
        }
        if self.force {
            match self.changed_files(host)? {
                0 => {}
                1 => details.push("one file was changed by hand".to_string()),
                n => details.push(format!("{n} files were changed by hand")),
            }
        }
        match self.unfilled(host)? {
            0 => {}
            1 => details.push("one submodule is not at its commit".to_string()),
            n => details.push(format!("{n} submodules are not at their commits")),
        }
        Ok(Drift::change(details))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let found = self.found(host)?;
        if !self.present {
            remove_all(host, &self.path)?;
            host.root.forget();
            return match host.locate(&self.path)? {
                Some(place) => host.sync_later(&place, &self.path),
                None => Ok(()),
            };
        }
        // Without updates a copy that is there stays where it is; only what was changed by hand is undone.
        if let (Found::Copy(Some(head)), false) = (&found, self.update || is_commit(&self.revision)) {
            let force: &[&str] = if self.force { &["--force"] } else { &[] };
            let args: Vec<&str> =
                ["checkout", "-q", "--detach"].iter().chain(force).copied().chain([&**head]).collect();
            self.call_inside(host, &self.path, &args)?;
            return self.fill(host, &self.path);
        }
        let aim = self.aim(host)?;
        match found {
            Found::Nothing => self.clone(host, &aim),
            Found::Empty => {
                self.begin(host, &self.path)?;
                self.check_out(host, &self.path, &aim)
            }
            Found::Copy(_) => self.check_out(host, &self.path, &aim),
        }
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        spare_path(host, &self.path, true)
    }
}
