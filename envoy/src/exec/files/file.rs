//! `file`: a regular file has this content, owner and mode, or does not exist.
//!
//! The check of an unchanged file is one `openat`, one `fstat` and one `read`. Content is replaced whole; owner and mode
//! alone are changed in place, through the open file and never by name. Links, directories and special files in the way
//! are refused.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use common::bundle::BlobRef;
use common::crypto::sha256;
use common::ids::Hash32;
use common::policy::types;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, linkat, unlinkat};

use crate::exec::contract::{Action, Drift, Statement, settle_read, spare_path};
use crate::exec::fault::Fault;
use crate::exec::host::{Host, Order, damaged, kind_of, mode_of, not_a};
use crate::exec::read::Reader;
use crate::exec::tool::spoken;
use crate::exec::undo::Back;
use crate::plan::{Task, Verdict};
use crate::sys::child::Ended;
use crate::sys::replace::{Attributes, Replacement};
use crate::sys::root::{Place, real_path};

/// Mode of a new file where none is asked for.
const MODE_DEFAULT: u32 = 0o644;
/// Bytes of a file that a diff reads.
const DIFF_READ_MAX: u64 = 256 << 10;

/// Settles one `file`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(Wanted::read(host, task), host, task)
}

/// Owner, group and mode that are asked for; what is `None` is left alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

impl Access {
    /// From `mode`, `owner` and `group`.
    pub fn read(host: &mut Host, reader: &Reader<'_>) -> Result<Access, Fault> {
        let (uid, gid) = host.owners(reader)?;
        Ok(Access { mode: reader.mode("mode"), uid, gid })
    }

    /// What differs.
    pub fn differences(&self, stat: &FileStat) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(mode) = self.mode.filter(|mode| *mode != mode_of(stat)) {
            all.push(format!("mode {:04o} instead of {mode:04o}", mode_of(stat)));
        }
        if let Some(uid) = self.uid.filter(|uid| *uid != stat.st_uid) {
            all.push(format!("owner {} instead of {uid}", stat.st_uid));
        }
        if let Some(gid) = self.gid.filter(|gid| *gid != stat.st_gid) {
            all.push(format!("group {} instead of {gid}", stat.st_gid));
        }
        all
    }

    /// Sets what differs, through an open file. The owner first: changing it clears set-user-id bits.
    pub fn set<F: AsFd>(&self, file: F, stat: &FileStat, path: &str) -> Result<(), Fault> {
        let uid = self.uid.filter(|uid| *uid != stat.st_uid);
        let gid = self.gid.filter(|gid| *gid != stat.st_gid);
        let owned = uid.is_some() || gid.is_some();
        if owned {
            fchown(file.as_fd(), uid.map(Uid::from_raw), gid.map(Gid::from_raw))
                .map_err(Fault::io("change the owner of", path))?;
        }
        let mode = self.mode.unwrap_or(mode_of(stat));
        if owned || mode != mode_of(stat) {
            fchmod(file.as_fd(), Mode::from_bits_truncate(mode as _)).map_err(Fault::io("change the mode of", path))?;
        }
        Ok(())
    }
}

/// Content that is asked for.
enum Content<'t> {
    /// Whatever is there; empty if nothing is.
    Any,
    /// This.
    Text(Cow<'t, str>),
    /// A file of the policy: known by its hash, read only when it has to be written.
    Blob(&'t BlobRef),
}

/// A file as it should be.
pub struct Wanted<'t> {
    path: Cow<'t, str>,
    present: bool,
    content: Content<'t>,
    access: Access,
    backup: bool,
    validate: Option<Cow<'t, str>>,
    task: &'t Task<'t>,
}

impl<'t> Wanted<'t> {
    /// A file of an executor's own: with this text, or not there.
    pub fn owned(path: String, text: Option<String>, task: &'t Task<'t>) -> Wanted<'t> {
        Wanted {
            path: Cow::Owned(path),
            present: text.is_some(),
            content: Content::Text(Cow::Owned(text.unwrap_or_default())),
            access: Access::default(),
            backup: false,
            validate: None,
            task,
        }
    }

    fn read(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
        let table = types::find("file").ok_or_else(|| Fault::Parameter(types::unknown_type("file")))?;
        let reader = Reader::try_new(table, task.params)?;
        let content = match (reader.text("content"), reader.text("source")) {
            (Some(_), Some(_)) => return Err(Fault::Parameter("write only one of `content` and `source`".to_string())),
            (Some(text), None) => Content::Text(text),
            (None, None) => Content::Any,
            (None, Some(source)) => {
                let missing = || Fault::Parameter(format!("the bundle does not carry `{source}`: publish again"));
                let blob = task.blob.ok_or_else(missing)?;
                if source.starts_with("templates/") {
                    Content::Text(Cow::Owned(render(host, task, blob)?))
                } else {
                    Content::Blob(blob)
                }
            }
        };
        Ok(Wanted {
            path: reader.path("target_path"),
            present: reader.is("state", "present", "present"),
            content,
            access: Access::read(host, &reader)?,
            backup: reader.truth("backup"),
            validate: reader.text("validate"),
            task,
        })
    }

    fn absent(&self, host: &mut Host) -> Result<Option<Drift>, Fault> {
        let Some(place) = host.locate(&self.path)? else { return Ok(None) };
        match host.stat(&place, &self.path)? {
            None => Ok(None),
            Some(stat) if kind_of(&stat) == SFlag::S_IFDIR => Err(not_a(&stat, "a file", &self.path)),
            Some(_) => Ok(Some(Drift::new(Action::Remove, ""))),
        }
    }

    fn has_content(&self, host: &mut Host, file: &mut File, stat: &FileStat) -> Result<bool, Fault> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let failed = || Fault::io("read", &self.path);
        match &self.content {
            Content::Any => Ok(true),
            Content::Text(text) if size != text.len() as u64 => Ok(false),
            Content::Text(text) => same(file, text.as_bytes(), &mut host.buffer).map_err(failed()),
            Content::Blob(blob) if size != blob.size => Ok(false),
            Content::Blob(blob) => Ok(hash(file, size, &mut host.buffer).map_err(failed())? == blob.sha256),
        }
    }

    fn diff(&self, host: &mut Host, file: Option<&mut File>) -> Result<String, Fault> {
        let mut old = Vec::new();
        if let Some(file) = file {
            // From the start again: the comparison has moved on.
            std::io::Seek::rewind(file).map_err(Fault::io("read", &self.path))?;
            file.take(DIFF_READ_MAX).read_to_end(&mut old).map_err(Fault::io("read", &self.path))?;
        }
        Ok(match &self.content {
            Content::Any => String::new(),
            Content::Text(text) => host.diff(&self.path, &old, text.as_bytes()),
            Content::Blob(blob) if blob.size > DIFF_READ_MAX => {
                format!("{}: {} bytes of {}", self.path, blob.size, blob.path)
            }
            Content::Blob(blob) => {
                let mut new = Vec::new();
                // A diff is a courtesy: that the content is not here yet is said when it is needed.
                if let Ok(reader) = host.open_blob(blob) {
                    reader.take(DIFF_READ_MAX).read_to_end(&mut new).map_err(Fault::io("read", &blob.path))?;
                }
                host.diff(&self.path, &old, &new)
            }
        })
    }

    fn remove(&self, host: &mut Host) -> Result<(), Fault> {
        let Some(place) = host.locate(&self.path)? else { return Ok(()) };
        self.keep_backup(&place)?;
        match unlinkat(place.dir.as_fd(), place.name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => host.sync_later(&place, &self.path),
            Err(errno) => Err(Fault::io("remove", &self.path)(errno)),
        }
    }

    fn replace(&self, host: &mut Host, place: &Place<'_>, old: Option<(&File, &FileStat)>) -> Result<(), Fault> {
        let mut new = Replacement::begin(place).map_err(Fault::io("write beside", &self.path))?;
        match &self.content {
            Content::Any => {}
            Content::Text(text) => new.write(text.as_bytes()).map_err(Fault::io("write", &self.path))?,
            Content::Blob(blob) => self.copy_blob(host, blob, &mut new)?,
        }
        dress(host, &new, &self.access, old).map_err(Fault::io("set owner and mode of", &self.path))?;
        if let Some(command) = &self.validate {
            self.ask(host, command, place, new.name())?;
        }
        if old.is_some() {
            self.keep_backup(place)?;
        }
        new.commit(place).map_err(Fault::io("replace", &self.path))?;
        host.sync_later(place, &self.path)
    }

    fn copy_blob(&self, host: &mut Host, blob: &BlobRef, new: &mut Replacement) -> Result<(), Fault> {
        let mut from = host.open_blob(blob)?;
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        loop {
            let n = from.read(&mut host.buffer).map_err(Fault::io("read", &blob.path))?;
            if n == 0 {
                break;
            }
            context.update(&host.buffer[..n]);
            new.write(&host.buffer[..n]).map_err(Fault::io("write", &self.path))?;
        }
        if context.finish().as_ref() == blob.sha256.0 { Ok(()) } else { Err(damaged(blob)) }
    }

    /// The validator sees the new content under a temporary name, with its owner and mode.
    fn ask(&self, host: &mut Host, command: &str, place: &Place<'_>, temporary: &str) -> Result<(), Fault> {
        let unknown = || Fault::Failed("validate needs /proc to find out where the new content is".to_string());
        let path = real_path(&place.dir).ok_or_else(unknown)?.join(temporary);
        let quoted = format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let argv = Host::shell(&command.replace("%s", &quoted));
        let deadline = self.task.deadline;
        let order = Order { argv, cwd: None, user: None, environment: &[], stdin: b"", umask: 0o022, deadline };
        let done = host.run(&order)?;
        match done.ended {
            Ended::Exited(0) => Ok(()),
            ended => {
                let (out, err) = (spoken(&done.stdout), spoken(&done.stderr));
                Err(Fault::Failed(format!(
                    "`validate` does not accept the new content ({ended:?}): {}{}",
                    err.trim(),
                    out.trim()
                )))
            }
        }
    }

    /// Another name for the old file: costs nothing and keeps everything about it.
    fn keep_backup(&self, place: &Place<'_>) -> Result<(), Fault> {
        if !self.backup {
            return Ok(());
        }
        let name = format!("{}.vigo-backup", place.name);
        let failed = || Fault::io("keep a backup of", &self.path);
        match unlinkat(place.dir.as_fd(), name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed()(errno)),
        }
        match linkat(place.dir.as_fd(), place.name, place.dir.as_fd(), name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(failed()(errno)),
        }
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        if !self.present {
            return self.absent(host);
        }
        let found = match host.locate(&self.path)? {
            Some(place) => host.open_file(&place, &self.path)?,
            None => None,
        };
        let Some((mut file, stat)) = found else {
            let diff = if diff { self.diff(host, None)? } else { String::new() };
            return Ok(Some(Drift { diff, ..Drift::new(Action::Create, "") }));
        };
        let mut details = Vec::new();
        let mut shown = String::new();
        if !self.has_content(host, &mut file, &stat)? {
            details.push("content".to_string());
            if diff {
                shown = self.diff(host, Some(&mut file))?;
            }
        }
        details.extend(self.access.differences(&stat));
        Ok(Drift::change(details).map(|drift| Drift { diff: shown, ..drift }))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        if !self.present {
            return self.remove(host);
        }
        let place = host.locate_to_write(&self.path)?;
        match host.open_file(&place, &self.path)? {
            None => self.replace(host, &place, None),
            Some((mut file, stat)) => match self.has_content(host, &mut file, &stat)? {
                true => self.access.set(&file, &stat, &self.path),
                false => self.replace(host, &place, Some((&file, &stat))),
            },
        }
    }

    fn back(&mut self, _host: &mut Host) -> Result<Back, Fault> {
        Ok(Back::File(self.path.to_string()))
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        spare_path(host, &self.path, false)
    }
}

/// Gives a replacement what is asked for, and what the old file had where nothing is asked for.
pub fn dress(host: &Host, new: &Replacement, access: &Access, old: Option<(&File, &FileStat)>) -> std::io::Result<()> {
    // Without the right to give files away, the new one is the agent's.
    let kept = |id: fn(&FileStat) -> u32| old.filter(|_| host.is_privileged()).map(|(_, stat)| id(stat));
    let attributes = Attributes {
        mode: access.mode.or(old.map(|(_, stat)| mode_of(stat))).unwrap_or(MODE_DEFAULT),
        uid: access.uid.or(kept(|stat| stat.st_uid)),
        gid: access.gid.or(kept(|stat| stat.st_gid)),
    };
    new.dress(attributes, old.map(|(file, _)| file))
}

/// Opens a directory of the host to change its attributes.
pub fn open_directory(place: &Place<'_>, path: &str) -> Result<File, Fault> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(place.dir.as_fd(), place.name, flags, Mode::empty()).map(File::from).map_err(Fault::io("open", path))
}

fn render(host: &Host, task: &Task<'_>, blob: &BlobRef) -> Result<String, Fault> {
    let bytes = host.read_blob(blob)?;
    let source = String::from_utf8(bytes).map_err(|_| Fault::Failed(format!("{} is not text", blob.path)))?;
    let rendered = common::policy::template::Engine::new().render_once(&source, &(task.scope)());
    let text = rendered.map_err(|error| Fault::Failed(format!("{}: {error}", blob.path)))?;
    match host.secrets.missing_in(&text) {
        Some(missing) => Err(Fault::Failed(format!("{}: {missing}", blob.path))),
        None => Ok(text),
    }
}

/// Whether the rest of the file is these bytes. Its size is known to be right: no read for the end of the file.
fn same(file: &mut File, wanted: &[u8], buffer: &mut [u8]) -> std::io::Result<bool> {
    let mut rest = wanted;
    while !rest.is_empty() {
        let most = rest.len().min(buffer.len());
        let n = file.read(&mut buffer[..most])?;
        if n == 0 || buffer[..n] != rest[..n] {
            return Ok(false);
        }
        rest = &rest[n..];
    }
    Ok(true)
}

fn hash(file: &mut File, size: u64, buffer: &mut [u8]) -> std::io::Result<Hash32> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut left = size;
    while left > 0 {
        let n = file.read(buffer)?;
        if n == 0 {
            break;
        }
        context.update(&buffer[..n]);
        left = left.saturating_sub(n as u64);
    }
    Ok(Hash32::try_from_slice(context.finish().as_ref()).unwrap_or_else(|_| sha256(&[])))
}
