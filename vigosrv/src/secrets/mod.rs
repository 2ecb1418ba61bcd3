//! Secrets of the server on disk: one encrypted file each, below `secrets/`, under the master key.
//!
//! A shell. Works with a server running and with none; writers take `secrets/.lock`. Every change is noted in `.pending` before
//! it is made and until the envoys that it concerns have a new serial: a crash in between is settled at the next start.
//! Rotation writes the new key beside the old one first, then every file, then renames the key: at any point each file opens
//! under one of the two, and the next rotation goes on.

mod file;
mod lost;
mod vault;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use common::bundle::is_secret_path;
use common::crypto::{KEY_FILE_BYTES_MAX, Purpose, parse_seed, seed_text};
use common::limits;
use common::rng::Rng;
use common::sys::file::{make_dir, read_bounded, sync_dir, write_atomic, write_new};
use common::sys::{FileError, Lock, LockError, Owner};
use common::time::Wall;
use zeroize::Zeroizing;

use file::{BadFile, FILE_BYTES_MAX, MasterKey, decode, encode};
pub use vault::{Secret, Vault};

const SUFFIX: &str = ".secret";
const LOCK: &str = ".lock";
const PENDING: &str = ".pending";
/// Beside the key file while a rotation is under way.
const NEW_KEY: &str = "new";
/// Nesting of directories: as deep as a path can be.
const DEPTH_MAX: usize = limits::SECRET_PATH_BYTES_MAX / 2;
/// Times that everything is opened where a key seems to be missing.
const ATTEMPTS_MAX: u32 = 3;
const PENDING_BYTES_MAX: u64 = (limits::SECRETS_MAX * (limits::SECRET_PATH_BYTES_MAX + 1)) as u64;

/// Where secrets are.
#[derive(Clone, Debug)]
pub struct Place {
    /// `secrets.secrets_dir`.
    pub dir: PathBuf,
    /// `secrets.key_file`.
    pub key: PathBuf,
}

/// Everything that opened, and what did not.
#[derive(Debug, Default)]
pub struct Opened {
    /// What the server gives.
    pub vault: Vault,
    /// Paths that did not open, with the reason.
    pub bad: Vec<(String, BadFile)>,
    /// Paths that were set aside in `.lost/` earlier and are neither set again nor removed.
    pub lost: BTreeSet<String>,
}

/// What came of another master key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Files that were encrypted under it anew.
    pub encrypted: usize,
    /// Paths that were taken back from `.lost/`.
    pub back: Vec<String>,
}

/// Why something about secrets failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// The disk, or a permission.
    File(FileError),
    /// Another command is at work.
    Busy(LockError),
    /// The key file holds no master key.
    Key(PathBuf, String),
    /// The path can name no secret.
    Path(String),
    /// There is none of that path.
    Unknown(String),
    /// It is there and does not open.
    Bad(String, BadFile),
    /// The value is out of bounds, or no text.
    Value(String),
    /// A rotation to a third key has not finished.
    Rotating(PathBuf),
    /// It is lost with the key that it was encrypted under.
    Lost(String),
    /// There are too many.
    TooMany,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretError::File(error) => write!(f, "{error}"),
            SecretError::Busy(error) => write!(f, "another command changes secrets ({error}): try again"),
            SecretError::Key(path, why) => write!(
                f,
                "{}: {why}; bring the key back from a backup or the recovery kit, or move the file away: the next start makes a new key",
                path.display()
            ),
            SecretError::Path(path) => write!(
                f,
                "`{path}` can name no secret; expected letters, digits, `_`, `-` and `.` between slashes, such as prod/db/password"
            ),
            SecretError::Unknown(path) => write!(f, "there is no secret `{path}`; `vigocli secrets list` shows all"),
            SecretError::Bad(path, why) => {
                write!(f, "the secret `{path}` does not open: {why}; set it again with `vigocli secrets set {path}`")
            }
            SecretError::Value(why) => f.write_str(why),
            SecretError::Rotating(path) => write!(
                f,
                "{}: a rotation of the master key has not finished; `vigocli secrets rotate` goes on with it",
                path.display()
            ),
            SecretError::Lost(path) => write!(
                f,
                "the secret `{path}` is lost with its master key; set it again with `vigocli secrets set {path}`, or bring the \
                 key back with `vigocli secrets key import KIT`"
            ),
            SecretError::TooMany => write!(f, "there are {} secrets already; remove some", limits::SECRETS_MAX),
        }
    }
}

impl std::error::Error for SecretError {}

impl From<FileError> for SecretError {
    fn from(error: FileError) -> SecretError {
        SecretError::File(error)
    }
}

impl Opened {
    /// Paths that have no value any more: set each again, or bring its key back.
    pub fn unusable(&self) -> impl Iterator<Item = &str> {
        let bad = self.bad.iter().map(|(path, _)| path.as_str());
        bad.chain(self.lost.iter().map(String::as_str)).collect::<BTreeSet<_>>().into_iter()
    }

    /// What has no value, with the reason, in words.
    pub fn problems(&self) -> impl Iterator<Item = (&str, String)> {
        let bad = self.bad.iter().map(|(path, why)| (path.as_str(), why.to_string()));
        bad.chain(self.lost.iter().map(|path| (path.as_str(), "it is lost with its master key".to_string())))
    }
}

impl Place {
    /// In a root that says nothing else.
    pub fn of_root(root: &Path) -> Place {
        Place { dir: root.join("secrets"), key: root.join("secrets/.master.key") }
    }

    /// Paths of all secrets that policy may refer to, whether they open, do not, or are lost: envoys keep the values that they
    /// have.
    pub fn names(&self) -> Result<BTreeSet<String>, SecretError> {
        let mut names = self.files()?;
        names.extend(self.lost()?);
        Ok(names)
    }

    /// Paths of the files that are in place.
    fn files(&self) -> Result<BTreeSet<String>, SecretError> {
        let mut names = BTreeSet::new();
        list(&self.dir, "", 0, &mut names)?;
        if names.len() > limits::SECRETS_MAX { Err(SecretError::TooMany) } else { Ok(names) }
    }

    /// Opens everything. Changes nothing.
    pub fn open(&self) -> Result<Opened, SecretError> {
        for _ in 1..ATTEMPTS_MAX {
            let opened = self.open_once()?;
            // A rotation beside this may have begun, or ended, after the keys were read.
            if opened.bad.iter().all(|(_, why)| *why != BadFile::OtherKey) {
                return Ok(opened);
            }
        }
        self.open_once()
    }

    fn open_once(&self) -> Result<Opened, SecretError> {
        let (names, mut opened) = (self.files()?, Opened { lost: self.lost()?, ..Opened::default() });
        let keys = self.keys()?;
        for name in names {
            match self.read(&keys, &name) {
                Ok((secret, _)) => opened.vault.put(name, secret),
                Err(SecretError::Bad(name, why)) => opened.bad.push((name, why)),
                // Removed since it was listed.
                Err(SecretError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    /// The same at the start of a server: what does not open is moved to `.lost/`, where nothing is ever overwritten.
    pub fn start(&self) -> Result<Opened, SecretError> {
        let opened = self.open()?;
        if opened.bad.is_empty() {
            return Ok(opened);
        }
        // Nothing is moved while another command works on the files or their key: the next start looks again.
        let _lock = match self.lock() {
            Err(SecretError::Busy(_)) => return Ok(opened),
            lock => lock?,
        };
        let opened = self.open()?;
        for (name, _) in &opened.bad {
            self.set_aside(name)?;
        }
        Ok(opened)
    }

    /// One value.
    pub fn get(&self, path: &str) -> Result<Secret, SecretError> {
        self.known(path)?;
        Ok(self.read(&self.keys()?, path)?.0)
    }

    /// Sets a value, durably. The version is above the last one, also across removal and restore.
    pub fn set(&self, path: &str, value: &[u8], now: Wall, rng: &mut dyn Rng) -> Result<u64, SecretError> {
        check(path, value)?;
        let _lock = self.lock()?;
        let keys = self.keys()?;
        let last = match self.read(&keys, path) {
            Ok((secret, _)) => secret.version,
            Err(SecretError::Unknown(_)) => {
                if self.files()?.len() >= limits::SECRETS_MAX {
                    return Err(SecretError::TooMany);
                }
                0
            }
            // It never comes back: there is nothing to go on from.
            Err(SecretError::Bad(name, _)) => {
                self.set_aside(&name)?;
                0
            }
            Err(error) => return Err(error),
        };
        let version = now.ms().max(last + 1);
        self.note(path)?;
        let secret = Secret { version, value: Zeroizing::new(value.to_vec()) };
        let missing = || SecretError::Key(self.key.clone(), "it is missing".into());
        self.write(keys.first().ok_or_else(missing)?, path, &secret, rng)?;
        Ok(version)
    }

    /// Removes a secret.
    pub fn remove(&self, path: &str) -> Result<(), SecretError> {
        match self.known(path) {
            Ok(()) | Err(SecretError::Lost(_)) => {}
            Err(error) => return Err(error),
        }
        let _lock = self.lock()?;
        self.note(path)?;
        let remove = |file: &Path| {
            std::fs::remove_file(file).map_err(|error| FileError::new("remove", file, &error))?;
            file.parent().map_or(Ok(()), sync_dir)
        };
        // Its lost forms too: nobody needs its name any more.
        for (_, file) in self.lost_files()?.into_iter().filter(|(name, _)| name == path) {
            remove(&file)?;
        }
        let file = self.file(path);
        if file.is_file() {
            remove(&file)?;
        }
        Ok(())
    }

    /// Encrypts everything under a new master key, and gives back how many files that were. Goes on where one was
    /// interrupted.
    pub fn rotate(&self, rng: &mut dyn Rng) -> Result<usize, SecretError> {
        let _lock = self.lock()?;
        let new = self.new_key_path();
        if !new.exists() {
            let mut seed = Zeroizing::new([0; 32]);
            rng.fill(&mut *seed);
            write_new(&new, seed_text(Purpose::Master, &seed).as_bytes(), 0o600, Some(self.owner()?))?;
        }
        self.go_on_rotating(rng)
    }

    /// The new key is beside the present one, and the lock is held.
    fn go_on_rotating(&self, rng: &mut dyn Rng) -> Result<usize, SecretError> {
        let new = self.new_key_path();
        let mut keys = self.keys()?;
        let new_key = load_key(&new)?;
        let mut n = 0;
        for name in self.files()? {
            match self.read(&keys, &name) {
                Ok((_, id)) if id == new_key.id => {}
                Ok((secret, _)) => {
                    self.write(&new_key, &name, &secret, rng)?;
                    n += 1;
                }
                // It is as lost as before.
                Err(SecretError::Bad(..)) => {}
                Err(error) => return Err(error),
            }
        }
        keys.clear();
        std::fs::rename(&new, &self.key).map_err(|error| FileError::new("rename", &new, &error))?;
        self.key.parent().map_or(Ok(()), sync_dir)?;
        Ok(n)
    }

    /// Puts another master key in the place of the present one, and takes back what was lost without it. Secrets that were set
    /// under the present key stay: they are encrypted under the other one.
    pub fn import(&self, seed: &[u8; 32], rng: &mut dyn Rng) -> Result<Imported, SecretError> {
        make_dir(&self.dir, 0o700, Some(Owner::of(self.dir.parent().unwrap_or(&self.dir))?))?;
        let _lock = self.lock()?;
        let (new, text) = (self.new_key_path(), seed_text(Purpose::Master, seed));
        let (owner, wanted) = (Some(self.owner()?), MasterKey::new(Zeroizing::new(*seed)));
        let mut done = Imported::default();
        if !self.key.exists() {
            write_new(&self.key, text.as_bytes(), 0o600, owner)?;
        } else if load_key(&self.key)?.id != wanted.id {
            // A rotation to this very key: at any point each file opens under one of the two.
            if !new.exists() {
                write_new(&new, text.as_bytes(), 0o600, owner)?;
            } else if load_key(&new)?.id != wanted.id {
                return Err(SecretError::Rotating(new));
            }
            done.encrypted = self.go_on_rotating(rng)?;
        }
        done.back = self.take_back()?;
        Ok(done)
    }

    /// Paths whose change no envoy was told of yet.
    pub fn pending(&self) -> Result<Vec<String>, SecretError> {
        let path = self.dir.join(PENDING);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = read_bounded(&path, PENDING_BYTES_MAX)?;
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_string).collect())
    }

    /// The envoys of these have a new serial, durably.
    pub fn settle(&self, told: &[String]) -> Result<(), SecretError> {
        let _lock = self.lock()?;
        let left: Vec<String> = self.pending()?.into_iter().filter(|path| !told.contains(path)).collect();
        self.write_pending(&left)
    }

    fn note(&self, path: &str) -> Result<(), SecretError> {
        let mut pending = self.pending()?;
        if !pending.iter().any(|known| known == path) {
            pending.push(path.to_string());
            self.write_pending(&pending)?;
        }
        Ok(())
    }

    fn write_pending(&self, pending: &[String]) -> Result<(), SecretError> {
        let text: String = pending.iter().map(|path| format!("{path}\n")).collect();
        Ok(write_atomic(&self.dir.join(PENDING), text.as_bytes(), 0o600, Some(self.owner()?))?)
    }

    /// The current key, then the one of a rotation that was interrupted.
    fn keys(&self) -> Result<Vec<MasterKey>, SecretError> {
        // A key that is missing opens nothing: which secrets that are is worth more than the error.
        let mut keys = if self.key.exists() { vec![load_key(&self.key)?] } else { Vec::new() };
        let new = self.new_key_path();
        if new.exists() {
            keys.push(load_key(&new)?);
        }
        Ok(keys)
    }

    fn new_key_path(&self) -> PathBuf {
        let mut name = self.key.file_name().unwrap_or_default().to_os_string();
        name.push(".");
        name.push(NEW_KEY);
        self.key.with_file_name(name)
    }

    fn known(&self, path: &str) -> Result<(), SecretError> {
        if !is_secret_path(path) {
            return Err(SecretError::Path(path.to_string()));
        }
        if self.file(path).is_file() {
            return Ok(());
        }
        let lost = self.lost()?.contains(path);
        Err(if lost { SecretError::Lost(path.to_string()) } else { SecretError::Unknown(path.to_string()) })
    }

    fn read(&self, keys: &[MasterKey], path: &str) -> Result<(Secret, [u8; 8]), SecretError> {
        let file = self.file(path);
        if !file.exists() {
            return Err(SecretError::Unknown(path.to_string()));
        }
        let bad = |why| SecretError::Bad(path.to_string(), why);
        let bytes = match file.metadata() {
            Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(bad(BadFile::Form)),
            _ => read_bounded(&file, FILE_BYTES_MAX)?,
        };
        let text = String::from_utf8(bytes).map_err(|_| bad(BadFile::Form))?;
        decode(keys, path, &text).map_err(bad)
    }

    fn write(&self, key: &MasterKey, path: &str, secret: &Secret, rng: &mut dyn Rng) -> Result<(), SecretError> {
        let (file, owner) = (self.file(path), self.owner()?);
        self.make_parents(path)?;
        Ok(write_atomic(&file, encode(key, path, secret, rng).as_bytes(), 0o600, Some(owner))?)
    }

    fn make_parents(&self, path: &str) -> Result<(), SecretError> {
        let (mut dir, owner) = (self.dir.clone(), self.owner()?);
        for part in path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            dir.push(part);
            make_dir(&dir, 0o700, Some(owner))?;
        }
        Ok(())
    }

    fn file(&self, path: &str) -> PathBuf {
        self.dir.join(format!("{path}{SUFFIX}"))
    }

    fn owner(&self) -> Result<Owner, SecretError> {
        Ok(Owner::of(&self.dir)?)
    }

    fn lock(&self) -> Result<Lock, SecretError> {
        let lock = Lock::take(&self.dir.join(LOCK), "vigocli secrets").map_err(|error| match error {
            LockError::Held { .. } => SecretError::Busy(error),
            LockError::File(error) => SecretError::File(error),
        })?;
        common::sys::file::hand_over(&self.dir.join(LOCK), Some(self.owner()?))?;
        Ok(lock)
    }
}

/// Bounds of a value: text, and long enough to be recognised where it must not be.
fn check(path: &str, value: &[u8]) -> Result<(), SecretError> {
    if !is_secret_path(path) {
        return Err(SecretError::Path(path.to_string()));
    }
    let bounds = limits::SECRET_BYTES_MIN..=limits::SECRET_BYTES_MAX;
    if !bounds.contains(&value.len()) {
        let (n, min, max) = (value.len(), limits::SECRET_BYTES_MIN, limits::SECRET_BYTES_MAX);
        return Err(SecretError::Value(format!("the value has {n} bytes; expected {min} to {max}")));
    }
    if std::str::from_utf8(value).is_err() || value.contains(&0) {
        return Err(SecretError::Value("the value is no UTF-8 text; encode it, as base64 for example".to_string()));
    }
    Ok(())
}

fn load_key(path: &Path) -> Result<MasterKey, SecretError> {
    let bytes = Zeroizing::new(read_bounded(path, KEY_FILE_BYTES_MAX)?);
    let wrong = |why: String| SecretError::Key(path.to_path_buf(), why);
    let seed = parse_seed(Purpose::Master, &bytes).map_err(|error| wrong(error.to_string()))?;
    Ok(MasterKey::new(seed))
}

fn list(dir: &Path, prefix: &str, depth: usize, names: &mut BTreeSet<String>) -> Result<(), SecretError> {
    if depth > DEPTH_MAX || !dir.is_dir() {
        return Ok(());
    }
    let entries = std::fs::read_dir(dir).map_err(|error| FileError::new("read", dir, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| FileError::new("read", dir, &error))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let kind = entry.file_type().map_err(|error| FileError::new("read", &entry.path(), &error))?;
        if kind.is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), depth + 1, names)?;
        } else if let Some(stem) = name.strip_suffix(SUFFIX) {
            names.insert(format!("{prefix}{stem}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
