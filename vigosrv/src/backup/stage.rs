//! Takes a whole archive apart into a scratch directory, where it can be looked at before anything of a server is touched.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use common::cli::VERSION;
use common::sys::file::make_dir;

use super::create::Progress;
use super::error::BackupError;
use super::manifest::{DATABASE, Manifest, Member, Part, mode_of};
use super::read::{Archive, AskPassword, Sink, read};
use crate::secrets::Place;
use crate::store::{check_copy, facts_of_copy};

const COPY_BYTES: usize = 1 << 20;
/// Room that is left beside what is unpacked.
const RESERVE_BYTES: u64 = 16 << 20;

/// Which members are wanted.
pub type Wanted<'a> = &'a dyn Fn(&Manifest, Part) -> bool;

/// An archive that was unpacked. The directory goes with the value.
#[derive(Debug)]
pub struct Staged {
    /// The archive.
    pub archive: Archive,
    /// Members that are in the directory, as paths below it.
    pub members: Vec<Member>,
    /// The directory.
    pub dir: Scratch,
}

/// A directory that is removed at the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one that is not there yet.
    pub fn new(path: PathBuf) -> Result<Scratch, BackupError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        make_dir(parent, 0o700, None)?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| BackupError::io("make the directory", &path, &error))?;
        Ok(Scratch(path))
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Unpacks what is wanted of an archive; the rest is read and checked all the same.
pub fn stage(
    archive: &Path,
    dir: Scratch,
    password: AskPassword<'_>,
    wanted: Wanted<'_>,
    progress: Progress<'_>,
) -> Result<Staged, BackupError> {
    let mut sink = Unpack {
        archive,
        dir: dir.path(),
        wanted,
        progress,
        parts: Vec::new(),
        done: 0,
        total: 0,
        members: Vec::new(),
    };
    let read = read(archive, password, &mut sink)?;
    let members = sink.members;
    // Last, so that nothing was written through a link.
    for member in &members {
        if let Some(target) = &member.link {
            let path = dir.path().join(&member.path);
            prepare(dir.path(), &member.path)?;
            symlink(target, &path).map_err(|error| BackupError::io("link", &path, &error))?;
        }
    }
    Ok(Staged { archive: read, members, dir })
}

struct Unpack<'a> {
    archive: &'a Path,
    dir: &'a Path,
    wanted: Wanted<'a>,
    progress: &'a mut dyn FnMut(u64, u64),
    parts: Vec<Part>,
    done: u64,
    total: u64,
    members: Vec<Member>,
}

impl Sink for Unpack<'_> {
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), BackupError> {
        self.parts = manifest.parts().into_iter().filter(|part| (self.wanted)(manifest, *part)).collect();
        self.total = manifest.bytes();
        let mine = |member: &&Member| Part::of(&member.path).is_some_and(|part| self.parts.contains(&part));
        let needed = manifest.members.iter().filter(mine).map(|member| member.size).fold(0, u64::saturating_add);
        if let Some(free) = free_bytes(self.dir)
            && needed.saturating_add(RESERVE_BYTES) > free
        {
            return Err(BackupError::Space { place: self.dir.to_path_buf(), needed, free });
        }
        if let Some(database) = &manifest.database
            && database.schema > crate::store::SCHEMA
            && self.parts.contains(&Part::Db)
        {
            let why = format!(
                "its database has schema {}, made by version {}; this binary ({VERSION}) knows up to {}: restore it with \
                 that version or a newer one",
                database.schema,
                manifest.version,
                crate::store::SCHEMA
            );
            return Err(BackupError::archive(self.archive, why));
        }
        Ok(())
    }

    fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), BackupError> {
        let wanted = Part::of(&member.path).is_some_and(|part| self.parts.contains(&part));
        if wanted {
            self.members.push(member.clone());
        }
        if member.link.is_some() {
            return Ok(());
        }
        let path = self.dir.join(&member.path);
        let mut file = if wanted { Some(new_file(self.dir, &path, member)?) } else { None };
        let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(member.size).unwrap_or(COPY_BYTES) + 1)];
        loop {
            let n = content.read(&mut buffer).map_err(|error| BackupError::io("read", self.archive, &error))?;
            if n == 0 {
                return Ok(());
            }
            if let Some(file) = &mut file {
                file.write_all(&buffer[..n]).map_err(|error| BackupError::io("write", &path, &error))?;
            }
            self.done += n as u64;
            (self.progress)(self.done, self.total);
        }
    }
}

fn new_file(dir: &Path, path: &Path, member: &Member) -> Result<File, BackupError> {
    prepare(dir, &member.path)?;
    let mode = mode_of(&member.path, member.mode) | 0o600;
    File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|error| BackupError::io("write", path, &error))
}

/// The folders above a member, as the server makes them: what holds keys is for its owner only.
fn prepare(dir: &Path, member: &str) -> Result<(), BackupError> {
    let mode = if Part::of(member) == Some(Part::Stacks) { 0o755 } else { 0o700 };
    let mut path = dir.to_path_buf();
    let folders = member.rsplit_once('/').map_or("", |(folders, _)| folders);
    for step in folders.split('/').filter(|step| !step.is_empty()) {
        path.push(step);
        match std::fs::DirBuilder::new().mode(mode).create(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(BackupError::io("make the directory", &path, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Free bytes for an unprivileged user, where they can be told.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.is_dir())?;
    let stat = nix::sys::statvfs::statvfs(there).ok()?;
    Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

/// What a look into an unpacked archive found.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Secrets that open with the key of the archive.
    pub secrets: usize,
    /// Those that do not, with the reason.
    pub closed: Vec<(String, String)>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Checks what hashes cannot: that the database is whole and holds what the manifest says, that the keys belong to the server
/// that it names, and that the secrets open.
pub fn look(staged: &Staged, path: &Path) -> Result<Looked, BackupError> {
    let (dir, manifest) = (staged.dir.path(), &staged.archive.manifest);
    let mut looked = Looked::default();
    let copy = dir.join(DATABASE);
    if let Some(said) = &manifest.database
        && copy.exists()
    {
        check_copy(&copy)?;
        let found = facts_of_copy(&copy)?;
        if found != *said {
            return Err(BackupError::member(path, DATABASE, "it does not hold the rows that the manifest names"));
        }
    }
    let has = |part| staged.members.iter().any(|member| Part::of(&member.path) == Some(part));
    if has(Part::Tls) {
        let id = super::keys::server_id_of(&dir.join("tls"))
            .map_err(|why| BackupError::member(path, "tls/identity_key", why))?;
        if id != manifest.server_id {
            let why = format!("it is the key of server {id:.16}, the manifest names {:.16}", manifest.server_id);
            return Err(BackupError::member(path, "tls/identity_key", why));
        }
    } else if manifest.parts().contains(&Part::Db) && !manifest.parts().contains(&Part::Tls) {
        looked.warnings.push("it holds no keys of the server (tls/): with new keys no envoy trusts it".into());
    }
    if has(Part::Secrets) {
        let place = Place { dir: dir.join("secrets"), key: dir.join("secrets/.master.key") };
        let names = place.names().map_err(|error| BackupError::Refused(error.to_string()))?;
        if names.is_empty() {
            return Ok(looked);
        }
        match place.open() {
            Ok(opened) => {
                looked.secrets = opened.vault.len();
                looked.closed = opened.bad.into_iter().map(|(name, why)| (name, why.to_string())).collect();
            }
            Err(error) => {
                looked.closed = names.into_iter().map(|name| (name, error.to_string())).collect();
            }
        }
    }
    Ok(looked)
}
