//! What goes into an archive: finds the files of a server and reads each one whole, so that what the manifest says of a file is
//! what is in the archive, also when somebody writes to it meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use common::crypto::Sha256;
use common::limits;
use zeroize::Zeroizing;

use super::error::BackupError;
use super::layout::Layout;
use super::manifest::{Member, Part, check_link, mode_of};

/// Times that a file is read until it stands still.
const ATTEMPTS_MAX: u32 = 8;
/// A file up to this is kept in memory between its hash and its copy.
const SMALL_BYTES: u64 = 1 << 20;
/// Memory for such files in all.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Names of our own that belong to this host and moment only.
const NOT_ARCHIVED: [&str; 2] = [".lock", ".new"];

/// A member and where its bytes come from.
#[derive(Debug)]
pub struct Source {
    /// As in the manifest.
    pub member: Member,
    /// Its content.
    pub content: Content,
}

/// Bytes of a member.
#[derive(Debug)]
pub enum Content {
    /// Read already.
    Memory(Zeroizing<Vec<u8>>),
    /// To be read again; the hash shows whether it is the same still.
    File(PathBuf),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Gathered {
    /// In the order of the archive.
    pub sources: Vec<Source>,
    /// What is not archived, with the reason.
    pub skipped: Vec<String>,
    memory: u64,
}

/// Everything but the database.
pub fn gather(layout: &Layout) -> Result<Gathered, BackupError> {
    let mut out = Gathered::default();
    for (folder, path) in &layout.folders {
        let mut found = BTreeMap::new();
        walk(folder, path, 0, &mut found, &mut out.skipped)?;
        let prefix = format!("{folder}/");
        for (name, path) in layout.files.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            if path.exists() {
                found.insert(name.to_string(), path.clone());
            }
        }
        for (name, path) in found {
            out.add(name, &path)?;
        }
    }
    for (name, path) in layout.files.iter().filter(|(name, _)| !name.contains('/')) {
        if path.exists() {
            out.add(name.to_string(), path)?;
        }
    }
    Ok(out)
}

/// Reads a file twice at most: hash and size of a state that it really had.
pub fn hash_file(path: &Path) -> Result<(u64, String), BackupError> {
    let wrap = |error: io::Error| BackupError::io("read", path, &error);
    let mut file = open(path).map_err(wrap)?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut buffer).map_err(wrap)?;
        if n == 0 {
            return Ok((size, hash.finish().to_string()));
        }
        hash.update(&buffer[..n]);
        size += n as u64;
    }
}

impl Gathered {
    fn add(&mut self, name: String, path: &Path) -> Result<(), BackupError> {
        if self.sources.len() >= limits::BACKUP_MEMBERS_MAX {
            let max = limits::BACKUP_MEMBERS_MAX;
            return Err(BackupError::TooMuch(format!("there are more than {max} files: an archive holds no more")));
        }
        let wrap = |error: io::Error| BackupError::io("read", path, &error);
        let found = match std::fs::symlink_metadata(path) {
            Ok(found) => found,
            // Removed since it was listed: as if it had been before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(wrap(error)),
        };
        let part = Part::of(&name);
        if found.is_symlink() {
            return self.add_link(name, path, part);
        }
        if !found.is_file() {
            self.skipped.push(format!("{name}: it is no file"));
            return Ok(());
        }
        let mode = mode_of(&name, found.mode());
        let (size, sha256, content) = if found.len() <= SMALL_BYTES && self.memory < MEMORY_BYTES_MAX {
            let bytes = match still(path) {
                Ok(bytes) => bytes,
                Err(BackupError::File(error)) if error.kind == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            self.memory += bytes.len() as u64;
            (bytes.len() as u64, common::crypto::sha256(&[&bytes]).to_string(), Content::Memory(bytes))
        } else {
            let (size, hash) = hash_file(path)?;
            (size, hash, Content::File(path.to_path_buf()))
        };
        self.sources.push(Source { member: Member { path: name, size, mode, sha256, link: None }, content });
        Ok(())
    }

    fn add_link(&mut self, name: String, path: &Path, part: Option<Part>) -> Result<(), BackupError> {
        let target = std::fs::read_link(path).map_err(|error| BackupError::io("read", path, &error))?;
        let target = target.to_string_lossy().into_owned();
        if part != Some(Part::Stacks) || check_link(&name, &target).is_err() {
            self.skipped.push(format!("{name}: it is a link to {target}, out of its folder"));
            return Ok(());
        }
        let sha256 = common::crypto::sha256(&[target.as_bytes()]).to_string();
        let member = Member { path: name, size: 0, mode: 0o777, sha256, link: Some(target) };
        self.sources.push(Source { member, content: Content::Memory(Zeroizing::default()) });
        Ok(())
    }
}

fn walk(
    name: &str,
    dir: &Path,
    depth: usize,
    found: &mut BTreeMap<String, PathBuf>,
    skipped: &mut Vec<String>,
) -> Result<(), BackupError> {
    if depth > limits::BACKUP_DEPTH_MAX {
        return Err(BackupError::TooMuch(format!("{} is too deep", dir.display())));
    }
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // Not every server has every folder, and a tree that was published may be removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BackupError::io("read", dir, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| BackupError::io("read", dir, &error))?;
        let Ok(step) = entry.file_name().into_string() else {
            skipped.push(format!("{name}/{}: its name is no UTF-8", entry.file_name().to_string_lossy()));
            continue;
        };
        if depth == 0 && NOT_ARCHIVED.contains(&step.as_str()) {
            continue;
        }
        let path = format!("{name}/{step}");
        if step.chars().any(char::is_control) || step.contains('\\') || path.len() > limits::BACKUP_PATH_BYTES_MAX {
            skipped.push(format!("{}: its name cannot be kept", common::cli::one_line(&path)));
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, &entry.path(), depth + 1, found, skipped)?;
        } else {
            found.insert(path, entry.path());
        }
    }
    Ok(())
}

/// Neither follows a link that was put there since, nor waits for a FIFO.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// A small file, as it was at one moment.
fn still(path: &Path) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    let wrap = |error: io::Error| BackupError::io("read", path, &error);
    for _ in 0..ATTEMPTS_MAX {
        let mut file = open(path).map_err(wrap)?;
        let before = file.metadata().map_err(wrap)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(before.len()).unwrap_or(0) + 1));
        (&mut file).take(2 * SMALL_BYTES).read_to_end(&mut bytes).map_err(wrap)?;
        let after = file.metadata().map_err(wrap)?;
        let stamp = |found: &std::fs::Metadata| (found.len(), found.mtime(), found.mtime_nsec());
        if stamp(&before) == stamp(&after) && bytes.len() as u64 == after.len() {
            return Ok(bytes);
        }
    }
    Err(BackupError::Changing(path.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(root: &Path) -> Layout {
        Layout {
            root: root.to_path_buf(),
            database: root.join("db/vigo.db"),
            folders: vec![("stacks", root.join("stacks")), ("secrets", root.join("secrets"))],
            files: vec![("secrets/.master.key", root.join("elsewhere")), ("server.yaml", root.join("server.yaml"))],
        }
    }

    #[test]
    fn members_come_in_order_with_their_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for (path, text) in [
            ("stacks/b", "b"),
            ("stacks/a/x", "x"),
            ("secrets/.lock", "gone"),
            ("secrets/p.secret", "p"),
            ("elsewhere", "key"),
            ("server.yaml", "y"),
        ] {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), text).unwrap();
        }
        std::os::unix::fs::symlink("a/x", at("stacks/inner")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("stacks/outer")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("stacks/socket")).unwrap();
        let found = gather(&layout(dir.path())).unwrap();
        let names: Vec<&str> = found.sources.iter().map(|source| source.member.path.as_str()).collect();
        let wanted =
            ["stacks/a/x", "stacks/b", "stacks/inner", "secrets/.master.key", "secrets/p.secret", "server.yaml"];
        assert_eq!(names, wanted);
        let modes: Vec<u32> = found.sources.iter().map(|source| source.member.mode).collect();
        assert_eq!(modes, [0o644, 0o644, 0o777, 0o600, 0o600, 0o644]);
        assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
        assert!(found.skipped.iter().any(|text| text.starts_with("stacks/outer: it is a link to /etc/passwd")));
    }
}
