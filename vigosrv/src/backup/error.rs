//! Why a backup or a restore was refused. Every refusal leaves the target as it was.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use common::cli::{Exit, Failure};
use common::sys::FileError;
use common::units::human_bytes;

use crate::store::StoreError;

/// Why nothing was written, or why it was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupError {
    /// The disk, or a permission.
    File(FileError),
    /// The archive is there already.
    Exists(PathBuf),
    /// The archive is damaged, or was made to do harm.
    Archive {
        /// The file.
        archive: PathBuf,
        /// The member, where it is about one.
        member: Option<String>,
        /// What is wrong.
        why: String,
    },
    /// It is encrypted, and the password is missing or wrong.
    Password {
        /// The file.
        archive: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The database cannot be copied, or is not whole.
    Database(String),
    /// It changes faster than it can be read.
    Changing(PathBuf),
    /// There is more than an archive may hold.
    TooMuch(String),
    /// There is not enough room.
    Space {
        /// Where.
        place: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are there.
        free: u64,
    },
    /// This archive cannot be restored so.
    Refused(String),
}

impl BackupError {
    /// About an archive as a whole.
    pub fn archive(archive: &Path, why: impl Into<String>) -> BackupError {
        BackupError::Archive { archive: archive.to_path_buf(), member: None, why: why.into() }
    }

    /// About one of its members.
    pub fn member(archive: &Path, member: &str, why: impl Into<String>) -> BackupError {
        BackupError::Archive { archive: archive.to_path_buf(), member: Some(member.to_string()), why: why.into() }
    }

    /// An error of the file system.
    pub fn io(action: &'static str, path: &Path, error: &io::Error) -> BackupError {
        BackupError::File(FileError::new(action, path, error))
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::File(error) => write!(f, "{error}"),
            BackupError::Exists(path) => write!(f, "{} is there already", path.display()),
            BackupError::Archive { archive, member: Some(member), why } => {
                write!(f, "{}: member `{}`: {why}", archive.display(), common::cli::one_line(member))
            }
            BackupError::Archive { archive, member: None, why } => write!(f, "{}: {why}", archive.display()),
            BackupError::Password { archive, why } => write!(f, "{}: {why}", archive.display()),
            BackupError::Database(why) => f.write_str(why),
            BackupError::Changing(path) => {
                write!(f, "{} changes faster than it can be read: try again when nobody writes to it", path.display())
            }
            BackupError::TooMuch(what) => f.write_str(what),
            BackupError::Space { place, needed, free } => write!(
                f,
                "{}: {} are needed and {} are free",
                place.display(),
                human_bytes(*needed),
                human_bytes(*free)
            ),
            BackupError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<FileError> for BackupError {
    fn from(error: FileError) -> BackupError {
        BackupError::File(error)
    }
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> BackupError {
        match error {
            StoreError::Io(why) => BackupError::Database(why),
            error => BackupError::Database(error.to_string()),
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Failure {
        let (exit, hint) = match &error {
            BackupError::Exists(_) => (Exit::Failed, "choose another name, or replace it with `--force`"),
            BackupError::Archive { .. } => {
                (Exit::Failed, "nothing was written; take another archive: `vigocli backup list` shows them")
            }
            BackupError::Password { .. } => {
                (Exit::NotPermitted, "give the password with `--password-file FILE` or VIGO_BACKUP_PASSWORD")
            }
            BackupError::Changing(_) => (Exit::TryAgain, ""),
            BackupError::Space { .. } => {
                (Exit::Failed, "make room there, or choose another place; nothing was written")
            }
            _ => (Exit::Failed, ""),
        };
        Failure::new(exit, error.to_string()).hint(hint)
    }
}
