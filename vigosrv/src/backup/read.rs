//! Reads an archive that may be damaged or made to do harm. Every byte comes from one pass through decryption, gzip and tar; what
//! comes must be exactly what the manifest names, in its order, with its sizes and hashes. This module writes nothing: a
//! [`Sink`] is given each member's bytes, and what it made counts only after the whole archive was read.
//!
//! tar is read here block by block, not by a library that unpacks: extensions that make names or sizes out of data are where
//! unpackers go wrong.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use common::crypto::Sha256;
use common::limits;
use flate2::bufread::GzDecoder;
use tar::{EntryType, Header};
use zeroize::Zeroizing;

use super::crypt::{Decryptor, MAGIC, is_encrypted};
use super::error::BackupError;
use super::manifest::{MANIFEST, Manifest, Member};

const BLOCK: usize = 512;
/// Zeros behind the end mark of tar: other tars fill up to 10 KiB.
const PADDING_BYTES_MAX: usize = 20 << 10;
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes of a sidecar.
const SIDECAR_BYTES_MAX: u64 = 4 << 10;

/// Who is asked for the password, only where one is needed.
pub type AskPassword<'a> = &'a mut dyn FnMut() -> Result<Zeroizing<Vec<u8>>, BackupError>;

/// Takes what is read.
pub trait Sink {
    /// The manifest, before everything else.
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), BackupError>;
    /// One member; not trusted before [`read`] has returned.
    fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), BackupError>;
}

/// What the file beside an archive says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// Its SHA-256 is that of the archive.
    Good,
    /// There is none.
    Missing,
}

/// An archive that was read whole.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Its first member.
    pub manifest: Manifest,
    /// Whether it was encrypted.
    pub encrypted: bool,
    /// The file beside it.
    pub sidecar: Sidecar,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Reads everything.
pub fn read(archive: &Path, password: AskPassword<'_>, sink: &mut dyn Sink) -> Result<Archive, BackupError> {
    let sidecar = read_sidecar(archive)?;
    let mut stream = Stream::open(archive, password)?;
    let manifest = stream.manifest()?;
    sink.manifest(&manifest)?;
    for member in &manifest.members {
        stream.member(member, sink)?;
    }
    let encrypted = stream.encrypted;
    let sha256 = stream.finish()?;
    let sidecar = match sidecar {
        None => Sidecar::Missing,
        Some(said) if said == sha256 => Sidecar::Good,
        Some(said) => {
            let name = sidecar_path(archive);
            let why = format!("{} says SHA-256 {said:.16}..., it has {sha256:.16}...", name.display());
            return Err(BackupError::archive(archive, why));
        }
    };
    Ok(Archive { manifest, encrypted, sidecar, sha256 })
}

/// Reads the manifest only.
pub fn inspect(archive: &Path, password: AskPassword<'_>) -> Result<Manifest, BackupError> {
    Stream::open(archive, password)?.manifest()
}

/// `FILE.sha256`.
pub fn sidecar_path(archive: &Path) -> std::path::PathBuf {
    let mut name = archive.as_os_str().to_os_string();
    name.push(".sha256");
    name.into()
}

/// In the form of `sha256sum`: 64 digits, two characters, the name.
fn read_sidecar(archive: &Path) -> Result<Option<String>, BackupError> {
    let path = sidecar_path(archive);
    let bytes = match common::sys::file::read_bounded(&path, SIDECAR_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let hash = text.split_whitespace().next().unwrap_or_default();
    match hash.parse::<common::ids::Hash32>() {
        Ok(hash) => Ok(Some(hash.to_string())),
        Err(_) => Err(BackupError::archive(&path, "it does not begin with a SHA-256")),
    }
}

/// Hashes what passes.
struct Hashed<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(out)?;
        self.hash.update(&out[..n]);
        Ok(n)
    }
}

type Raw = BufReader<Hashed<File>>;

/// Both kinds of files, as their gzip stream.
#[expect(clippy::large_enum_variant, reason = "one of them lives at a time")]
enum Packed {
    Plain(Raw),
    Encrypted(BufReader<Box<Decryptor<Raw>>>),
}

impl Read for Packed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Packed::Plain(from) => from.read(out),
            Packed::Encrypted(from) => from.read(out),
        }
    }
}

impl BufRead for Packed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Packed::Plain(from) => from.fill_buf(),
            Packed::Encrypted(from) => from.fill_buf(),
        }
    }

    fn consume(&mut self, n: usize) {
        match self {
            Packed::Plain(from) => from.consume(n),
            Packed::Encrypted(from) => from.consume(n),
        }
    }
}

struct Stream<'a> {
    archive: &'a Path,
    from: GzDecoder<Packed>,
    encrypted: bool,
}

impl<'a> Stream<'a> {
    fn open(archive: &'a Path, password: AskPassword<'_>) -> Result<Stream<'a>, BackupError> {
        let wrap = |error: io::Error| BackupError::io("read", archive, &error);
        let file = File::open(archive).map_err(wrap)?;
        if !file.metadata().map_err(wrap)?.is_file() {
            return Err(BackupError::archive(archive, "it is no file"));
        }
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, Hashed { from: file, hash: Sha256::new() });
        let head = raw.fill_buf().map_err(wrap)?;
        let encrypted = is_encrypted(head);
        if !encrypted && !head.starts_with(&[0x1f, 0x8b]) {
            let why = if head.is_empty() { "it is empty" } else { "it is no archive of this product: no gzip file" };
            return Err(BackupError::archive(archive, why));
        }
        let packed = if encrypted {
            raw.consume(MAGIC.len());
            let decryptor = Decryptor::new(raw, archive, &password()?)?;
            Packed::Encrypted(BufReader::with_capacity(BUFFER_BYTES, Box::new(decryptor)))
        } else {
            Packed::Plain(raw)
        };
        Ok(Stream { archive, from: GzDecoder::new(packed), encrypted })
    }

    fn wrong(&self, why: impl Into<String>) -> BackupError {
        BackupError::archive(self.archive, why)
    }

    /// An error below tar: the file is cut or damaged, or the disk is.
    fn unreadable(&self, error: &io::Error) -> BackupError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.wrong("it is cut short"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other => {
                self.wrong(format!("it is damaged: {error}"))
            }
            _ => BackupError::io("read", self.archive, error),
        }
    }

    fn manifest(&mut self) -> Result<Manifest, BackupError> {
        let (header, name) = match self.header()? {
            Some(found) => found,
            None => return Err(self.wrong("it holds nothing")),
        };
        if name != MANIFEST || header.entry_type() != EntryType::Regular {
            let name = common::cli::one_line(&name);
            return Err(
                self.wrong(format!("it begins with `{name}`, not with {MANIFEST}: it is no archive of this product"))
            );
        }
        let size = self.size(&header, MANIFEST)?;
        if size > limits::BACKUP_MANIFEST_BYTES_MAX {
            return Err(BackupError::member(self.archive, MANIFEST, format!("it has {size} bytes")));
        }
        let mut bytes = Vec::new();
        (&mut self.from).take(size).read_to_end(&mut bytes).map_err(|error| self.unreadable(&error))?;
        if bytes.len() as u64 != size {
            return Err(self.wrong("it is cut short"));
        }
        self.padding(size)?;
        Manifest::decode(&bytes).map_err(|why| self.wrong(why))
    }

    fn member(&mut self, member: &Member, sink: &mut dyn Sink) -> Result<(), BackupError> {
        let archive = self.archive;
        let wrong = |why: String| BackupError::member(archive, &member.path, why);
        let (header, name) = match self.header()? {
            Some(found) => found,
            None => return Err(wrong("the manifest names it, and it is missing".into())),
        };
        if name != member.path {
            let name = common::cli::one_line(&name);
            return Err(wrong(format!("the manifest names it, and `{name}` comes in its place")));
        }
        let kind = header.entry_type();
        if let Some(link) = &member.link {
            let target = header.link_name_bytes();
            if kind != EntryType::Symlink || target.as_deref() != Some(link.as_bytes()) {
                return Err(wrong(format!(
                    "the manifest names a link to `{}`; it is another thing",
                    common::cli::one_line(link)
                )));
            }
            if common::crypto::sha256(&[link.as_bytes()]).to_string() != member.sha256 {
                return Err(wrong("its SHA-256 is not that of the manifest".into()));
            }
            return sink.member(member, &mut io::empty());
        }
        if kind != EntryType::Regular {
            return Err(wrong(format!("it is {}, not a file", kind_name(kind))));
        }
        let size = self.size(&header, &member.path)?;
        if size != member.size {
            return Err(wrong(format!("it has {size} bytes; the manifest says {}", member.size)));
        }
        let mut content = Hashed { from: (&mut self.from).take(size), hash: Sha256::new() };
        let taken = sink.member(member, &mut content);
        let left = content.from.limit();
        let hash = content.hash.finish().to_string();
        match taken {
            // What the sink says of a stream that ended early is less than the reason.
            Err(BackupError::File(error)) if left > 0 && is_damage(error.kind) => {
                return Err(wrong(format!("the archive is cut short or damaged here: {}", error.reason)));
            }
            taken => taken?,
        }
        if left > 0 {
            return Err(wrong(format!("the archive is cut short: {left} bytes are missing")));
        }
        if hash != member.sha256 {
            return Err(wrong("its SHA-256 is not that of the manifest".into()));
        }
        self.padding(size)
    }

    /// The next header and the name it gives. `None` at the end mark.
    fn header(&mut self) -> Result<Option<(Header, String)>, BackupError> {
        let mut long = None;
        loop {
            let block = self.block()?;
            if block.iter().all(|byte| *byte == 0) {
                return if long.is_none() { Ok(None) } else { Err(self.wrong("a long name belongs to no member")) };
            }
            let header = Header::from_byte_slice(&block).clone();
            let sum: u32 = (0..BLOCK).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(block[at]) }).sum();
            if header.cksum().ok() != Some(sum) {
                return Err(self.wrong("it is damaged: the checksum of a header is wrong"));
            }
            if header.entry_type() == EntryType::GNULongName && long.is_none() {
                let size = self.size(&header, "././@LongLink")?;
                if size > limits::BACKUP_PATH_BYTES_MAX as u64 + 1 {
                    return Err(
                        self.wrong(format!("a name has {size} bytes; at most {}", limits::BACKUP_PATH_BYTES_MAX))
                    );
                }
                let mut name = vec![0; usize::try_from(size).unwrap_or(0)];
                self.from.read_exact(&mut name).map_err(|error| self.unreadable(&error))?;
                self.padding(size)?;
                while name.last() == Some(&0) {
                    name.pop();
                }
                long = Some(name);
                continue;
            }
            let name = long.unwrap_or_else(|| header.path_bytes().into_owned());
            let name = String::from_utf8(name).map_err(|_| self.wrong("the name of a member is no UTF-8"))?;
            return Ok(Some((header, name)));
        }
    }

    fn size(&self, header: &Header, member: &str) -> Result<u64, BackupError> {
        header.entry_size().map_err(|_| BackupError::member(self.archive, member, "its size cannot be read"))
    }

    fn block(&mut self) -> Result<[u8; BLOCK], BackupError> {
        let mut block = [0; BLOCK];
        self.from.read_exact(&mut block).map_err(|error| self.unreadable(&error))?;
        Ok(block)
    }

    /// A member fills whole blocks.
    fn padding(&mut self, size: u64) -> Result<(), BackupError> {
        let rest = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let mut block = [0; BLOCK];
        let block = &mut block[..usize::try_from(rest).unwrap_or(0)];
        self.from.read_exact(block).map_err(|error| self.unreadable(&error))
    }

    /// Nothing may follow; the hash of the file.
    fn finish(mut self) -> Result<String, BackupError> {
        if let Some((_, name)) = self.header()? {
            let name = common::cli::one_line(&name);
            return Err(self.wrong(format!("it holds `{name}`, which the manifest does not name")));
        }
        let mut rest = Vec::new();
        let read = (&mut self.from).take(PADDING_BYTES_MAX as u64 + 1).read_to_end(&mut rest);
        read.map_err(|error| self.unreadable(&error))?;
        if rest.len() < BLOCK || rest.len() > PADDING_BYTES_MAX || rest.iter().any(|byte| *byte != 0) {
            return Err(self.wrong("it does not end where it should"));
        }
        let archive = self.archive;
        let mut packed = self.from.into_inner();
        let after =
            packed.fill_buf().map_err(|error| BackupError::archive(archive, format!("it is damaged: {error}")))?;
        if !after.is_empty() {
            return Err(BackupError::archive(archive, "something follows behind its end"));
        }
        let hashed = match packed {
            Packed::Plain(raw) => raw.into_inner(),
            Packed::Encrypted(decryptor) => decryptor.into_inner().into_inner().into_inner(),
        };
        Ok(hashed.hash.finish().to_string())
    }
}

/// Kinds of errors that come from the stream, not from the disk that the sink writes to.
fn is_damage(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
}

fn kind_name(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Directory => "a directory",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a FIFO",
        EntryType::GNUSparse => "a sparse file",
        EntryType::XHeader | EntryType::XGlobalHeader => "an extended header",
        _ => "of an unknown kind",
    }
}
