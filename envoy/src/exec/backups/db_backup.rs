//! `db_backup`: a database has a dump of this hour, day or week. One that did not change gives the same file, which is then another
//! name of the one before. Memory does not grow with the database: the dump is packed as it comes.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use common::outcome::Outcome;
use common::units::human_bytes;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::dump::{Call, Database, Engine, word_around};
use super::gzip::{Packer, head, is_same};
use super::keeping::{Keeping, Spot};
use crate::exec::commands::exec::Line;
use crate::exec::contract::{Action, Drift, Statement, settle};
use crate::exec::fault::Fault;
use crate::exec::host::{Host, Order};
use crate::exec::read::Reader;
use crate::exec::tool::fault;
use crate::plan::{Task, Verdict};
use crate::sys::child::Ended;
use crate::sys::root::real_path;

/// Umask of the tools.
const UMASK: u32 = 0o077;

/// Settles one `db_backup`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    let mut wanted = match Wanted::read(host, task) {
        Ok(wanted) => wanted,
        Err(fault) => return fault.verdict(),
    };
    let verdict = settle(&mut wanted, host, task);
    // A database that need not be there was looked for, and is not.
    match wanted.rest.missing && wanted.rest.optional && verdict.outcome == Outcome::Failed {
        true => Verdict { outcome: Outcome::Skipped, ..verdict },
        false => verdict,
    }
}

struct Wanted<'t> {
    keeping: Keeping<'t>,
    rest: Rest<'t>,
}

/// What is dumped, and how.
struct Rest<'t> {
    database: Database<'t>,
    command: Option<Line<'t>>,
    optional: bool,
    /// It was found that there is no such database.
    missing: bool,
    task: &'t Task<'t>,
}

impl<'t> Wanted<'t> {
    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let reader = Reader::of(task)?;
        let rest = Rest {
            database: Database::read(&reader),
            command: Line::read(reader.value("db_dump_command")),
            optional: reader.truth("optional"),
            missing: false,
            task,
        };
        Ok(Wanted { keeping: Keeping::read(host, &reader, task)?, rest })
    }
}

impl Rest<'_> {
    /// What can be known to be missing before anything is written.
    fn look(&mut self, host: &mut Host) -> Result<(), Fault> {
        if self.database.engine == Engine::Sqlite {
            self.file(host)?;
        }
        if self.command.is_none() {
            self.database.tool(host)?;
        }
        Ok(())
    }

    /// The file of a database of SQLite, and its owner.
    fn file(&mut self, host: &mut Host) -> Result<(PathBuf, u32), Fault> {
        let path = self.database.name.to_string();
        let found = match host.locate(&path)? {
            Some(place) => host.open_file(&place, &path)?.map(|(_, stat)| (place, stat.st_uid)),
            None => None,
        };
        let Some((place, owner)) = found else {
            self.missing = true;
            return Err(Fault::Failed(format!("there is no database {path}")));
        };
        let no_proc = || Fault::Failed("/proc is needed to find out where the database is".to_string());
        Ok((real_path(&place.dir).ok_or_else(no_proc)?.join(place.name), owner))
    }

    /// What the dump is called in its snapshot.
    fn name(&self, host: &Host) -> String {
        let last = self.database.name.rsplit('/').next().filter(|name| !name.is_empty());
        let name = match last {
            // A name is seen by whoever sees the directory.
            Some(name) if !host.is_tainted => name,
            _ => "database",
        };
        format!("{name}.sql.gz")
    }

    fn fill(&mut self, host: &mut Host, spot: &Spot<'_>) -> Result<String, Fault> {
        let name = self.name(host);
        let before = spot.base.and_then(|base| open(base, &name).ok());
        let call = self.call(host, before.as_ref())?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let new = openat(spot.to, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let new = File::from(new.map_err(Fault::io("create", &name))?);
        let length = self.dump(host, &call, &new, &name)?;
        if let (Some(base), true) = (spot.base, before.is_some())
            && self.share(base, spot.to, &name)?
        {
            return Ok(format!("{name}, the same as before, {}", human_bytes(length)));
        }
        let packed = new.metadata().map_err(Fault::io("look at", &name))?.len();
        Ok(format!("{name}, {}, packed {}", human_bytes(length), human_bytes(packed)))
    }

    fn call(&mut self, host: &mut Host, before: Option<&File>) -> Result<Call, Fault> {
        if let Some(line) = &self.command {
            return Ok(Call { argv: line.argv(), environment: Vec::new(), user: None });
        }
        if self.database.engine == Engine::Sqlite {
            let (file, owner) = self.file(host)?;
            return self.database.call_sqlite(host, &file, owner);
        }
        let before = before.filter(|_| self.database.engine == Engine::Postgres);
        let word = before.and_then(|file| word_around(&head(file.try_clone().ok()?)));
        self.database.call(host, word.as_deref())
    }

    /// Gives the length of the dump.
    fn dump(&mut self, host: &mut Host, call: &Call, new: &File, name: &str) -> Result<u64, Fault> {
        let mut packer = Packer::new(new.try_clone().map_err(Fault::io("open", name))?);
        let order = Order {
            argv: call.argv.clone(),
            cwd: None,
            user: call.user.as_deref(),
            environment: &call.environment,
            stdin: b"",
            umask: UMASK,
            deadline: self.task.deadline,
        };
        let done = host.run_into(&order, &mut |piece| packer.write(piece))?;
        if let Some(error) = done.unwritten {
            return Err(Fault::io("write", name)(error));
        }
        let done = done.finished;
        let program = match &self.command {
            Some(_) => Cow::Borrowed("db_dump_command"),
            None => call.argv[0].to_string_lossy().rsplit('/').next().unwrap_or_default().to_string().into(),
        };
        if done.ended != Ended::Exited(0) {
            return Err(self.refine(fault(&program, &done), &done.stderr.text()));
        }
        let (length, tail) = packer.finish().map_err(Fault::io("write", name))?;
        if length == 0 {
            return Err(Fault::Failed(format!("`{program}` succeeded and wrote nothing")));
        }
        if self.command.is_none() && !self.database.engine.is_whole(&tail) {
            let message = "succeeded, but its dump has no end: the database is damaged, or in use for too long";
            return Err(match fault(&program, &done) {
                Fault::Blocked(said) => Fault::Blocked(said),
                _ => Fault::Failed(format!("`{program}` {message}{}", crate::exec::tool::quote(&done))),
            });
        }
        Ok(length)
    }

    fn refine(&mut self, fault: Fault, said: &str) -> Fault {
        let engine = self.database.engine;
        self.missing = self.command.is_none() && engine.says_missing(said);
        match fault {
            Fault::Failed(message) if self.command.is_none() && engine.says_away(said) => Fault::Blocked(message),
            fault => fault,
        }
    }

    /// Where the new dump is the same as the one before, it becomes another name of it.
    fn share(&self, base: &OwnedFd, to: &OwnedFd, name: &str) -> Result<bool, Fault> {
        let open = |dir| open(dir, name).map_err(Fault::io("open", name));
        if !is_same(open(base)?, open(to)?).map_err(Fault::io("read", name))? {
            return Ok(false);
        }
        let aside = ".same";
        match linkat(base, name, to, aside, AtFlags::empty()) {
            Ok(()) => {}
            // As many names as it can have, or no second ones there: the copy stays.
            Err(Errno::EMLINK | Errno::EPERM | Errno::EOPNOTSUPP) => return Ok(false),
            Err(errno) => return Err(Fault::io("link", name)(errno)),
        }
        unlinkat(to, name, UnlinkatFlags::NoRemoveDir).map_err(Fault::io("remove", name))?;
        nix::fcntl::renameat(to, aside, to, name).map_err(Fault::io("rename", name))?;
        Ok(true)
    }
}

fn open(dir: &OwnedFd, name: &str) -> Result<File, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(dir.as_fd(), name, flags, Mode::empty()).map(File::from)
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let drift = self.keeping.probe(host)?;
        // A dry run cannot know what resources before this one would have put there.
        if self.rest.task.enforce && drift.as_ref().is_some_and(|drift| drift.action == Action::Create) {
            self.rest.look(host)?;
        }
        Ok(drift)
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let rest = &mut self.rest;
        self.keeping.converge(host, &mut |host, spot| rest.fill(host, spot))
    }

    fn told(&self) -> String {
        self.keeping.told()
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        if let Some(line) = &self.rest.command {
            host.spare_self_from(&line.text())?;
        }
        self.keeping.spare_self(host)
    }
}
