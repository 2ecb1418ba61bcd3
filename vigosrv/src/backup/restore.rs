//! Puts an unpacked archive into a server root: decides what goes where, then replaces it all together ([`crate::sys::swap`]).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use common::sys::Owner;
use common::sys::file::{make_dir, write_new};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::error::BackupError;
use super::layout::Layout;
use super::manifest::{DATABASE, Part};
use super::marker::{Marker, marker_path};
use super::preflight::Host;
use super::stage::Staged;
use crate::config::{ISOLATED, ServerConfig};
use crate::secrets::Place;
use crate::sys::swap::{Move, WORK, old_place, replace};

/// Which parts are restored.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only these; `None` for all.
    pub only: Option<BTreeSet<Part>>,
    /// Not these.
    pub without: BTreeSet<Part>,
}

impl Choice {
    /// Whether a part is.
    pub fn takes(&self, part: Part) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&part)) && !self.without.contains(&part)
    }
}

/// What will happen, before it does.
#[derive(Debug)]
pub struct Plan {
    /// The archive.
    pub staged: Staged,
    /// Where its parts go.
    pub layout: Layout,
    /// The configuration that the server will have.
    pub config: ServerConfig,
    /// Parts that are restored.
    pub parts: BTreeSet<Part>,
    /// Members that stay out, with the reason.
    pub left_out: Vec<(String, String)>,
    /// The server may speak to nobody.
    pub isolated: bool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Restoration {
    /// Where the state from before is, if there was one.
    pub kept: Option<PathBuf>,
    /// Files that were put in place.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The directory in a root into which an archive is unpacked for it.
pub fn free_root(root: &Path) -> PathBuf {
    root.join(WORK).join("new")
}

/// Decides. Touches nothing.
pub fn prepare(staged: Staged, root: &Path, choice: &Choice, isolated: bool, host: &Host) -> Result<Plan, BackupError> {
    let (dir, manifest) = (staged.dir.path(), &staged.archive.manifest);
    let parts: BTreeSet<Part> = manifest.parts().into_iter().filter(|part| choice.takes(*part)).collect();
    if parts.is_empty() {
        let has: Vec<&str> = manifest.parts().into_iter().map(Part::name).collect();
        let text = format!("nothing is left to restore: the archive holds {}", has.join(", "));
        return Err(BackupError::Refused(text));
    }
    let mut left_out = Vec::new();
    let local = "server.local.yaml";
    if manifest.hostname != host.hostname && parts.contains(&Part::Config) && dir.join(local).exists() {
        let why = format!("it is for the host {} alone; this one is {}", manifest.hostname, host.hostname);
        left_out.push((local.to_string(), why));
        std::fs::remove_file(dir.join(local)).map_err(|error| BackupError::io("remove", &dir.join(local), &error))?;
    }
    let own = root.join("server.yaml");
    let archived = dir.join("server.yaml");
    let from_archive = parts.contains(&Part::Config) && archived.exists();
    let bad = |error: crate::config::ConfigError| {
        let whose = if from_archive { "the configuration in the archive" } else { "the configuration of this root" };
        BackupError::Refused(format!("{whose} cannot be used: {error}"))
    };
    let config = if from_archive {
        let place = Place { dir: dir.join("secrets"), key: dir.join("secrets/.master.key") };
        ServerConfig::load_elsewhere(root, &archived, &place).map_err(bad)?
    } else {
        ServerConfig::load_for_secrets(root, own.exists().then_some(own.as_path())).map_err(bad)?
    };
    let layout = Layout::of(&config, None);
    let moved = Path::new(&manifest.root) != root;
    let outside = layout.outside();
    if let Some(path) = outside.first()
        && (isolated || (from_archive && moved))
    {
        let text = format!(
            "server.yaml names {}, which is not below {}: a server is there already, or may be; write paths relative to the \
             root in server.yaml and make a new archive, restore into {} as it was, or leave the configuration out with \
             `--without config`",
            path.display(),
            root.display(),
            manifest.root
        );
        return Err(BackupError::Refused(text));
    }
    Ok(Plan { staged, layout, config, parts, left_out, isolated })
}

/// Does it. On an error everything is as it was. The caller holds the lock of the root.
pub fn apply(plan: &Plan, archive: &Path, stamp: &str) -> Result<Restoration, BackupError> {
    let (root, new) = (&plan.layout.root, plan.staged.dir.path());
    let owner = Owner::of(root)?;
    let mut steps: Vec<(PathBuf, Option<PathBuf>)> = Vec::new();
    if plan.parts.contains(&Part::Db) {
        database_steps(plan, archive, owner, &mut steps)?;
    }
    // Single files first: those that are elsewhere are taken out of the folder of their name.
    for (name, place) in &plan.layout.files {
        let chosen = Part::of(name).is_some_and(|part| plan.parts.contains(&part));
        if chosen && new.join(name).exists() {
            steps.push((place.clone(), Some(new.join(name))));
        }
    }
    for (folder, place) in &plan.layout.folders {
        let chosen = Part::of(&format!("{folder}/x")).is_some_and(|part| plan.parts.contains(&part));
        if chosen && new.join(folder).is_dir() {
            steps.push((place.clone(), Some(new.join(folder))));
        }
    }
    if plan.parts.contains(&Part::Stacks) {
        // Envoys keep what they have until the operator publishes.
        steps.push((root.join(".live"), None));
    }
    if plan.isolated {
        let path = new.join(ISOLATED);
        write_new(&path, b"{\"schema\":1}\n", 0o600, None)?;
        steps.push((root.join(ISOLATED), Some(path)));
    }
    let mut moves = Vec::new();
    for (n, (place, from)) in steps.into_iter().enumerate() {
        let from = match from {
            Some(from) if !place.starts_with(root) => Some(beside(&from, &place, n)?),
            from => from,
        };
        if let Some(from) = &from {
            give(from, owner)?;
        }
        moves.push(Move { old: old_place(root, &place, n), new: from, place });
    }
    let kept = replace(root, moves, &format!("replaced-{stamp}"), owner)?;
    let members =
        plan.staged.members.iter().filter(|member| !plan.left_out.iter().any(|(name, _)| *name == member.path));
    let (files, bytes) = members.fold((0, 0), |(n, bytes), member| (n + 1, bytes + member.size));
    Ok(Restoration { kept, files, bytes })
}

fn database_steps(
    plan: &Plan,
    archive: &Path,
    owner: Owner,
    steps: &mut Vec<(PathBuf, Option<PathBuf>)>,
) -> Result<(), BackupError> {
    let (database, new) = (&plan.layout.database, plan.staged.dir.path());
    steps.push((database.clone(), Some(new.join(DATABASE))));
    // A restored database beside the WAL of another is a damaged one.
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    for suffix in ["-wal", "-shm", ".continuity"] {
        steps.push((database.with_file_name(format!("{name}{suffix}")), None));
    }
    // What Litestream knew of the one that goes.
    steps.push((database.with_file_name(format!(".{name}-litestream")), None));
    let manifest = &plan.staged.archive.manifest;
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    let reason = format!("restored from {name}, made {} on {}", manifest.created, manifest.hostname);
    let epoch = manifest.database.as_ref().map_or(0, |facts| facts.epoch);
    let path = new.join("restored");
    write_new(&path, &Marker::new(reason, epoch).encode(), 0o600, Some(owner))?;
    steps.push((marker_path(database), Some(path)));
    Ok(())
}

/// A copy on the file system of its place.
fn beside(from: &Path, place: &Path, n: usize) -> Result<PathBuf, BackupError> {
    let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let to = place.with_file_name(format!(".{name}.{n}.vigo-new"));
    make_dir(place.parent().unwrap_or(Path::new("/")), 0o700, None)?;
    // What an interrupted restore left.
    let _ = std::fs::remove_file(&to);
    let _ = std::fs::remove_dir_all(&to);
    copy_tree(from, &to).map_err(|error| BackupError::io("write", &to, &error))?;
    Ok(to)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let found = from.symlink_metadata()?;
    if found.is_symlink() {
        symlink(std::fs::read_link(from)?, to)
    } else if found.is_dir() {
        std::fs::create_dir(to)?;
        std::fs::set_permissions(to, found.permissions())?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
        Ok(())
    } else {
        std::fs::copy(from, to).map(|_| ())
    }
}

/// To the owner of the root, where this process acts for another user. That user may write to the root meanwhile: directories
/// are held open and no link is followed, so that it is never somebody else's file that changes hands.
fn give(path: &Path, owner: Owner) -> Result<(), BackupError> {
    let found = path.symlink_metadata().map_err(|error| BackupError::io("change the owner of", path, &error))?;
    if owner == Owner::own() && (found.uid(), found.gid()) == (owner.uid, owner.gid) {
        return Ok(());
    }
    let (parent, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Dir::open(parent, flags, Mode::empty())
        .and_then(|parent| give_at(&parent, name, owner))
        .map_err(|errno| BackupError::io("change the owner of", path, &errno.into()))
}

fn give_at(parent: &Dir, name: &OsStr, owner: Owner) -> nix::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match Dir::openat(parent, name, flags, Mode::empty()) {
        Ok(mut dir) => {
            let names: Vec<OsString> = dir
                .iter()
                .map(|entry| entry.map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_os_string()))
                .collect::<nix::Result<_>>()?;
            for name in names.iter().filter(|name| *name != "." && *name != "..") {
                give_at(&dir, name, owner)?;
            }
            fchown(&dir, uid, gid)
        }
        // A file, or a link.
        Err(Errno::ENOTDIR | Errno::ELOOP) => fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW),
        Err(errno) => Err(errno),
    }
}
