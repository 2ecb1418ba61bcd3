//! Makes an archive. Everything is written below a hidden directory beside it and renamed at the end: an archive under its final
//! name is whole, whatever happened meanwhile; what a killed run left is removed by the next one.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use common::crypto::Sha256;
use common::rng::Rng;
use common::sys::file::{hand_over, make_dir, sync_dir, write_atomic};
use common::sys::{FileError, Lock, LockError, Owner};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::crypt::Encryptor;
use super::error::BackupError;
use super::gather::{Content, Gathered, Source, gather, hash_file};
use super::layout::Layout;
use super::manifest::{DATABASE, FORMAT, MANIFEST, Manifest, Member};
use super::read::sidecar_path;
use crate::store::{copy_database, facts_of_copy};

/// Times that an archive is begun anew because a large file changed while it was read, or its directory went.
const ATTEMPTS_MAX: u32 = 3;
const PARTIAL: &str = ".vigo-partial";
const COPY_BYTES: usize = 256 << 10;

/// Told how much is done: bytes, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// What an archive is made of and called.
pub struct Request<'a> {
    /// The server.
    pub layout: &'a Layout,
    /// The archive.
    pub file: &'a Path,
    /// Replace an archive of that name.
    pub force: bool,
    /// Encrypt it under this password.
    pub password: Option<&'a [u8]>,
    /// The time, RFC 3339.
    pub created: String,
    /// Name of this host.
    pub hostname: String,
    /// Id of the server, where it has an identity.
    pub server_id: String,
}

/// An archive that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its first member.
    pub manifest: Manifest,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Makes it.
pub fn create(request: &Request<'_>, rng: &mut dyn Rng, progress: Progress<'_>) -> Result<Created, BackupError> {
    let target = request.file;
    if target.exists() && !request.force {
        return Err(BackupError::Exists(target.to_path_buf()));
    }
    let owner = Owner::of(&request.layout.root)?;
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else {
        return Err(BackupError::Refused(format!("{} is no name for an archive", target.display())));
    };
    make_dir(dir, 0o700, Some(owner))?;
    remove_leftovers(dir);
    let partial = Partial::new(dir, name, owner)?;

    let copied = request.layout.database.exists().then(|| partial.path("vigo.db"));
    let database = match &copied {
        Some(copy) => {
            copy_database(&request.layout.database, copy, owner)?;
            Some(facts_of_copy(copy)?)
        }
        None => None,
    };
    let mut attempt = 0;
    let (manifest, sha256) = loop {
        attempt += 1;
        let mut gathered = gather(request.layout)?;
        if let Some(copy) = &copied {
            gathered.sources.insert(0, database_source(copy)?);
        }
        let manifest = Manifest {
            format: FORMAT,
            version: common::cli::VERSION.to_string(),
            created: request.created.clone(),
            hostname: request.hostname.clone(),
            root: std::path::absolute(&request.layout.root).unwrap_or_default().display().to_string(),
            server_id: request.server_id.clone(),
            master_key_id: master_key_id(&gathered),
            database: database.clone(),
            skipped: std::mem::take(&mut gathered.skipped),
            members: gathered.sources.iter().map(|source| source.member.clone()).collect(),
        };
        // A form that this binary would not read back is not written.
        Manifest::decode(&manifest.encode()).map_err(BackupError::Refused)?;
        match write(&partial.path("archive"), &manifest, &gathered.sources, request.password, rng, progress) {
            Ok(sha256) => break (manifest, sha256),
            Err(BackupError::Changing(_)) if attempt < ATTEMPTS_MAX => {}
            Err(error) => return Err(error),
        }
    };
    let made = partial.path("archive");
    let bytes = std::fs::metadata(&made).map_err(|error| BackupError::io("read", &made, &error))?.len();
    hand_over(&made, Some(owner))?;
    place(&made, target, request.force)?;
    let line = format!("{sha256}  {name}\n");
    let (beside, sidecar) = (partial.path("sidecar"), sidecar_path(target));
    write_atomic(&beside, line.as_bytes(), 0o600, Some(owner))?;
    std::fs::rename(&beside, &sidecar).map_err(|error| BackupError::io("rename", &sidecar, &error))?;
    sync_dir(dir)?;
    Ok(Created { manifest, bytes, sha256 })
}

/// The first eight bytes of the SHA-256 of the master key's file.
pub fn key_id(file: &[u8]) -> String {
    common::crypto::sha256(&[file]).to_string().chars().take(16).collect()
}

fn master_key_id(gathered: &Gathered) -> String {
    let key = gathered.sources.iter().find(|source| source.member.path == "secrets/.master.key");
    match key.map(|source| &source.content) {
        Some(Content::Memory(bytes)) => key_id(bytes),
        _ => String::new(),
    }
}

fn database_source(copy: &Path) -> Result<Source, BackupError> {
    let (size, sha256) = hash_file(copy)?;
    let member = Member { path: DATABASE.to_string(), size, mode: 0o600, sha256, link: None };
    Ok(Source { member, content: Content::File(copy.to_path_buf()) })
}

/// A directory for what is not an archive yet. Locked while its process lives, removed at the end.
struct Partial {
    dir: PathBuf,
    _lock: Lock,
}

impl Partial {
    fn new(dir: &Path, name: &str, owner: Owner) -> Result<Partial, BackupError> {
        let dir = dir.join(format!(".{name}{PARTIAL}"));
        let mut attempt = 0;
        loop {
            attempt += 1;
            make_dir(&dir, 0o700, Some(owner))?;
            match Lock::take(&dir.join("lock"), "vigocli backup create") {
                // Another run may have taken it for a leftover between these two lines.
                Ok(_) if attempt < ATTEMPTS_MAX && !dir.join("lock").exists() => {}
                Ok(lock) => return Ok(Partial { dir, _lock: lock }),
                Err(LockError::File(error)) if attempt < ATTEMPTS_MAX && error.kind == io::ErrorKind::NotFound => {}
                Err(LockError::File(error)) => return Err(error.into()),
                Err(error) => {
                    return Err(BackupError::Refused(format!("this archive is being made already: {error}")));
                }
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What stays behind is removed by the next run.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn remove_leftovers(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(PARTIAL));
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Held: somebody makes that archive now.
            if let Ok(_lock) = Lock::take(&entry.path().join("lock"), "vigocli backup create") {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Counts and hashes what goes to the file.
struct Counted<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.out.write(data)?;
        self.hash.update(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

type Out = Counted<BufWriter<File>>;

/// Below gzip.
#[expect(clippy::large_enum_variant, reason = "one of them lives at a time")]
enum Below {
    Plain(Out),
    Encrypted(Box<Encryptor<Out>>),
}

impl Write for Below {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Below::Plain(out) => out.write(data),
            Below::Encrypted(out) => out.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Below::Plain(out) => out.flush(),
            Below::Encrypted(out) => out.flush(),
        }
    }
}

fn write(
    path: &Path,
    manifest: &Manifest,
    sources: &[Source],
    password: Option<&[u8]>,
    rng: &mut dyn Rng,
    progress: Progress<'_>,
) -> Result<String, BackupError> {
    let wrap = |error: io::Error| BackupError::io("write", path, &error);
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(wrap)?;
    let out = Counted { out: BufWriter::with_capacity(COPY_BYTES, file), hash: Sha256::new() };
    let below = match password {
        Some(password) => Below::Encrypted(Box::new(Encryptor::new(out, password, rng).map_err(wrap)?)),
        None => Below::Plain(out),
    };
    let mut tar = Builder::new(GzEncoder::new(below, Compression::default()));
    let bytes = manifest.encode();
    let head =
        Member { path: MANIFEST.into(), size: bytes.len() as u64, mode: 0o600, sha256: String::new(), link: None };
    append(&mut tar, &head, &mut bytes.as_slice()).map_err(wrap)?;
    let (mut done, total) = (0, manifest.bytes());
    for source in sources {
        match &source.content {
            Content::Memory(bytes) => append(&mut tar, &source.member, &mut bytes.as_slice()).map_err(wrap)?,
            Content::File(from) => {
                let cannot = |error: io::Error| BackupError::io("read", from, &error);
                let mut file = File::open(from).map_err(cannot)?;
                let mut told = Told { from: &mut file, hash: Sha256::new(), done, total, progress };
                // Shorter than it was: tar cannot go on either.
                append(&mut tar, &source.member, &mut told).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => BackupError::Changing(from.clone()),
                    _ => BackupError::io("copy", from, &error),
                })?;
                if told.hash.finish().to_string() != source.member.sha256 {
                    return Err(BackupError::Changing(from.clone()));
                }
            }
        }
        done += source.member.size;
        progress(done, total);
    }
    let below = tar.into_inner().and_then(GzEncoder::finish).map_err(wrap)?;
    let out = match below {
        Below::Plain(out) => out,
        Below::Encrypted(encryptor) => encryptor.finish().map_err(wrap)?,
    };
    let file = out.out.into_inner().map_err(|error| wrap(error.into_error()))?;
    file.sync_all().map_err(wrap)?;
    Ok(out.hash.finish().to_string())
}

/// Exactly the bytes that the manifest speaks of: neither times nor names of this host.
fn append<W: Write>(tar: &mut Builder<W>, member: &Member, content: &mut dyn Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(member.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(member.size);
    if let Some(target) = &member.link {
        header.set_entry_type(EntryType::Symlink);
        return tar.append_link(&mut header, &member.path, target);
    }
    header.set_entry_type(EntryType::Regular);
    let mut exact = Exact { from: content, left: member.size };
    tar.append_data(&mut header, &member.path, &mut exact)
}

/// Gives so many bytes, not fewer and not more: tar itself would write whatever comes.
struct Exact<'r> {
    from: &'r mut dyn Read,
    left: u64,
}

impl Read for Exact<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let max = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if max == 0 {
            return Ok(0);
        }
        let n = self.from.read(&mut out[..max])?;
        self.left -= n as u64;
        if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(n) }
    }
}

/// Hashes and tells what is read.
struct Told<'r, 'p> {
    from: &'r mut File,
    hash: Sha256,
    done: u64,
    total: u64,
    progress: &'r mut (dyn FnMut(u64, u64) + 'p),
}

impl Read for Told<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(out)?;
        self.hash.update(&out[..n]);
        self.done += n as u64;
        (self.progress)(self.done, self.total);
        Ok(n)
    }
}

/// The final name. Without `force` nothing is replaced, also nothing that came meanwhile.
fn place(made: &Path, target: &Path, force: bool) -> Result<(), BackupError> {
    if force {
        // An archive without its sidecar is whole; one with the sidecar of another is refused.
        match std::fs::remove_file(sidecar_path(target)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackupError::io("remove", &sidecar_path(target), &error));
            }
            _ => {}
        }
        return std::fs::rename(made, target).map_err(|error| BackupError::io("rename", target, &error));
    }
    std::fs::hard_link(made, target).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(target.to_path_buf()),
        _ => BackupError::File(FileError::new("make", target, &error)),
    })
}
