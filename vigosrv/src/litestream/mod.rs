//! Continuous replication by Litestream: its configuration, the process beside this one, who owns a replica, and the way back.
//!
//! A shell. Must not: let a secret into a file or a command line, start a replication into the replica of another server, or call a
//! restored database good that was not checked.

mod control;
mod owner;
mod program;
mod restore;
pub mod settings;
pub mod state;
mod supervise;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use common::cli::{Exit, Failure};
use common::ids::ServerId;
use common::sys::{FileError, Owner, file};

pub use program::Program;
pub use restore::restore_into;
pub use settings::{ReplicaSettings, Target};
pub use supervise::{Start, Supervisor};

/// The configuration file of the child, below `run/`.
const YML: &str = "litestream.yml";
/// Its control socket, below `run/`.
const SOCKET: &str = "litestream.sock";

/// `.vigo.db-litestream/ltx/0/FILE`.
const KEPT_DEPTH_MAX: u32 = 4;

/// What a replica is a replica of.
#[derive(Clone, Debug)]
pub struct Site {
    /// The server root.
    pub root: PathBuf,
    /// The database.
    pub database: PathBuf,
    /// Where the replica is.
    pub replica: ReplicaSettings,
}

/// Whose replica it may be.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The server's.
    pub server_id: ServerId,
    /// Name of this host, for people.
    pub host: String,
}

/// Why a replica cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaError {
    /// `backup.url` is not set.
    NotSet,
    /// There is no such program in `PATH`.
    Missing,
    /// The directory of a `file://` replica cannot be written.
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// A command failed.
    Failed {
        /// Its verb.
        command: String,
        /// Its last words.
        said: String,
    },
    /// There is nothing to restore.
    Nothing {
        /// The replica.
        url: String,
        /// The moment asked for; empty for the newest.
        timestamp: String,
    },
    /// What came back is no whole database.
    Damaged(String),
    /// A file of ours.
    File(FileError),
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplicaError::NotSet => write!(f, "`backup.url` is not set in server.yaml: there is no replica"),
            ReplicaError::Missing => write!(f, "`litestream` is not in PATH; install it from https://litestream.io"),
            ReplicaError::NotWritable { path, reason } => write!(
                f,
                "backup.url: {} cannot be written: {reason}; make it writable for the user that vigosrv runs as; under systemd, \
                 add `ReadWritePaths={}` below `[Service]` by `systemctl edit vigosrv`",
                path.display(),
                path.display()
            ),
            ReplicaError::Failed { command, said } => write!(f, "litestream {command}: {said}"),
            ReplicaError::Nothing { url, timestamp } if timestamp.is_empty() => {
                write!(f, "{url} holds no replica of the database; look at `backup.url`")
            }
            ReplicaError::Nothing { url, timestamp } => {
                write!(
                    f,
                    "{url} holds no state of the database as old as {timestamp}; leave `--timestamp` out for the newest"
                )
            }
            ReplicaError::Damaged(what) => write!(
                f,
                "the restored database is not whole ({what}), and was not put in place; try an earlier `--timestamp`, or an archive: \
                 `vigocli backup restore FILE`"
            ),
            ReplicaError::File(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ReplicaError {}

impl From<FileError> for ReplicaError {
    fn from(error: FileError) -> ReplicaError {
        ReplicaError::File(error)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Failure {
        let exit = match error {
            ReplicaError::NotSet | ReplicaError::NotWritable { .. } => Exit::BadConfig,
            _ => Exit::Failed,
        };
        Failure::new(exit, error.to_string())
    }
}

impl Site {
    /// What a configuration wants replicated, if anything.
    pub fn of(root: PathBuf, database: PathBuf, replica: Option<ReplicaSettings>) -> Option<Site> {
        let root = std::path::absolute(&root).unwrap_or(root);
        let database = std::path::absolute(&database).unwrap_or(database);
        replica.map(|replica| Site { root, database, replica })
    }

    fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The configuration file of the child.
    pub fn yml_path(&self) -> PathBuf {
        self.run_dir().join(YML)
    }

    fn socket(&self) -> PathBuf {
        self.run_dir().join(SOCKET)
    }

    /// Bytes of what Litestream keeps beside the database: what it has not uploaded yet, and a little of what it has.
    fn kept_bytes(&self) -> u64 {
        let name = self.database.file_name().unwrap_or_default().to_string_lossy();
        bytes_below(&self.database.with_file_name(format!(".{name}-litestream")), KEPT_DEPTH_MAX)
    }

    /// Writes a configuration file: 0600, and no secret in it.
    fn write_yml(&self, path: &Path, job: &text::Job) -> Result<(), ReplicaError> {
        let text = text::yml(&self.replica, &self.root, job);
        Ok(file::write_atomic(path, text.as_bytes(), 0o600, Some(Owner::of(&self.root)?))?)
    }

    /// Writes that of the child.
    fn write_main_yml(&self) -> Result<(), ReplicaError> {
        let job = text::Job { database: self.database.clone(), below: "", socket: Some(self.socket()) };
        self.write_yml(&self.yml_path(), &job)
    }

    /// What a person needs to use Litestream by hand, after the file that it names was written. Holds the secret.
    pub fn env_text(&self) -> Result<String, ReplicaError> {
        file::make_dir(&self.run_dir(), 0o700, Some(Owner::of(&self.root)?))?;
        self.write_main_yml()?;
        Ok(text::env_text(&self.replica, &self.yml_path(), &self.database))
    }
}

/// Whether the directory of a `file://` replica can be written: found at the start, by the one who can change it.
pub fn check_writable(replica: &ReplicaSettings) -> Result<(), ReplicaError> {
    let Target::File(path) = &replica.target else { return Ok(()) };
    let probe = path.join(".vigo-can-write");
    let attempt = || -> Result<(), FileError> {
        file::make_dir(path, 0o700, None)?;
        file::write_atomic(&probe, b"", 0o600, None)
    };
    let result = attempt();
    let _ = std::fs::remove_file(&probe);
    result.map_err(|error| ReplicaError::NotWritable { path: path.clone(), reason: error.reason })
}

fn bytes_below(dir: &Path, depth: u32) -> u64 {
    let Some(entries) = depth.checked_sub(1).and_then(|_| std::fs::read_dir(dir).ok()) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path(), depth - 1),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
