//! `backup`: a directory has a snapshot of this hour, day or week.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

use common::time::Mono;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use super::exclude::Exclude;
use super::keeping::{Keeping, Spot};
use super::series::Series;
use super::stamp::Stamp;
use super::tree::{self, Order};
use crate::exec::commands::exec::Line;
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::fault;
use crate::plan::{Task, Verdict};
use crate::sys::child::Ended;
use crate::sys::root::real_path;

/// Time that `post_command` has at least, in milliseconds: it runs also where the time of the resource is over.
const POST_MS: u64 = 10_000;
/// Umask of both commands.
const UMASK: u32 = 0o022;

/// Settles one `backup`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(host, task), host, task)
}

struct Wanted<'t> {
    keeping: Keeping<'t>,
    rest: Rest<'t>,
    enforce: bool,
}

/// What is copied, and how.
struct Rest<'t> {
    source: Cow<'t, str>,
    exclude: Exclude,
    cross: Cross,
    before: Option<Line<'t>>,
    after: Option<Line<'t>>,
    deadline: Mono,
    /// That of `post_command`: the snapshot was made nevertheless.
    late: Option<Fault>,
}

/// Where the target is on another file system.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cross {
    Fail,
    Copy,
    Warn,
}

impl<'t> Wanted<'t> {
    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let cross = match reader.text("cross_fs").as_deref() {
            Some("copy") => Cross::Copy,
            Some("warn") => Cross::Warn,
            _ => Cross::Fail,
        };
        let rest = Rest {
            source: reader.path("source_dir"),
            exclude: Exclude::try_new(&reader.text("exclude").unwrap_or_default())?,
            cross,
            before: Line::read(reader.value("pre_command")),
            after: Line::read(reader.value("post_command")),
            deadline: task.deadline,
            late: None,
        };
        Ok(Wanted { keeping: Keeping::read(host, &reader, task)?, rest, enforce: task.enforce })
    }
}

impl Rest<'_> {
    fn fill(&mut self, host: &mut Host, spot: &Spot<'_>) -> Result<String, Fault> {
        let (source, crosses) = self.open(host, spot.target)?;
        let ready = match &self.before {
            Some(line) => self.call(host, "pre_command", line, self.deadline),
            None => Ok(()),
        };
        let link = !(crosses && self.cross == Cross::Copy);
        let order = Order { path: &self.source, source, exclude: &self.exclude, link };
        let done = ready.and_then(|()| tree::copy(host, spot, order, self.deadline));
        if let Some(line) = &self.after {
            let deadline = self.deadline.max(host.now().mono + POST_MS);
            self.late = self.call(host, "post_command", line, deadline).err();
        }
        let mut told = done?.describe();
        if crosses && self.cross == Cross::Warn {
            told.push_str(", on another file system");
        }
        Ok(told)
    }

    /// The source, and whether it is on another file system than the target.
    fn open(&self, host: &mut Host, target: &OwnedFd) -> Result<(OwnedFd, bool), Fault> {
        let dir = self.find(host)?;
        let id = |dir: &OwnedFd| fstat(dir).map(|stat| (stat.st_dev, stat.st_ino));
        let id = |dir| id(dir).map_err(Fault::io("look at", &self.source));
        let (source_id, target_id) = (id(&dir)?, id(target)?);
        if source_id == target_id {
            return Err(Fault::Refused(format!(
                "`source_dir` and `target_path` are the same directory, {}",
                self.source
            )));
        }
        if is_own_snapshot(&dir, target) {
            return Err(Fault::Refused(format!("{} is in one of its own snapshots, which expire", self.source)));
        }
        let crosses = source_id.0 != target_id.0;
        if crosses && self.cross == Cross::Fail {
            return Err(Fault::Failed(format!(
                "{} and the target are on different file systems; say `cross_fs: warn`, or `copy` for one without hard links",
                self.source
            )));
        }
        Ok((dir, crosses))
    }

    fn find(&self, host: &mut Host) -> Result<OwnedFd, Fault> {
        let dir = host.root.directory(self.source.trim_end_matches('/'))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(dir.as_fd(), ".", flags, Mode::empty()).map_err(Fault::io("open", &self.source))
    }

    fn call(&self, host: &mut Host, name: &str, line: &Line<'_>, deadline: Mono) -> Result<(), Fault> {
        let order = crate::exec::host::Order {
            argv: line.argv(),
            cwd: None,
            user: None,
            environment: &[],
            stdin: b"",
            umask: UMASK,
            deadline,
        };
        let done = host.run(&order)?;
        if done.ended == Ended::Exited(0) { Ok(()) } else { Err(fault(name, &done)) }
    }
}

/// Whether the source lies in a snapshot that it would be copied beside.
fn is_own_snapshot(source: &OwnedFd, target: &OwnedFd) -> bool {
    let below = || {
        let (source, target) = (real_path(source)?, real_path(target)?);
        let first = source.strip_prefix(target).ok()?.components().next()?.as_os_str().to_owned();
        Stamp::parse(first.as_encoded_bytes())
    };
    below().is_some()
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let drift = self.keeping.probe(host)?;
        // Before anything is written; a dry run cannot know what resources before this one would have made.
        if self.enforce && drift.as_ref().is_some_and(|drift| drift.action == Action::Create) {
            match Series::open(host, &self.keeping.target)? {
                Some(series) => self.rest.open(host, series.dir()).map(|_| ())?,
                None => self.rest.find(host).map(|_| ())?,
            }
        }
        Ok(drift)
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let rest = &mut self.rest;
        self.keeping.converge(host, &mut |host, spot| rest.fill(host, spot))?;
        rest.late.take().map_or(Ok(()), Err)
    }

    fn told(&self) -> String {
        self.keeping.told()
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        for line in [&self.rest.before, &self.rest.after].into_iter().flatten() {
            host.spare_self_from(&line.text())?;
        }
        self.keeping.spare_self(host)
    }
}
