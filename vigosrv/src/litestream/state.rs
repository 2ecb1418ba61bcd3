//! How replication is: written by the thread that looks after it, read by `/metrics` and `status`. Values only.

use std::sync::{Arc, Mutex, PoisonError};

use common::time::Wall;

/// What the thread is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Looks whose replica it is, or has just begun.
    #[default]
    Starting,
    /// Litestream runs.
    Replicating,
    /// Litestream has ended, or the replica cannot be reached; it is tried again.
    Waiting,
    /// The replica is another server's.
    Refused,
    /// There is no program `litestream`, or one that is too old.
    Missing,
}

/// How replication is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// Where to.
    pub url: String,
    /// What is being done.
    pub stage: Stage,
    /// When this server started.
    pub started: Wall,
    /// When the replica was last known to have everything, as Litestream says.
    pub synced: Option<Wall>,
    /// How often Litestream had to be started again.
    pub restarts: u64,
    /// Lines that it logged as errors.
    pub errors: u64,
    /// Bytes that Litestream keeps beside the database: grows while the replica cannot be reached.
    pub kept_bytes: u64,
    /// What is wrong and what to do, if something is.
    pub trouble: String,
}

/// Shared by its writer and its readers.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Mutex<Replication>>);

impl Stage {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Starting => "starting",
            Stage::Replicating => "replicating",
            Stage::Waiting => "waiting",
            Stage::Refused => "refused",
            Stage::Missing => "missing",
        }
    }
}

impl Replication {
    /// How old the newest state in the replica may be, milliseconds: since Litestream last said that it has everything; before the
    /// first time, since the server started.
    pub fn lag_ms(&self, now: Wall) -> u64 {
        let since = self.synced.unwrap_or(self.started);
        u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0)
    }
}

impl Watch {
    /// Replication to this URL, from now on.
    pub fn new(url: &str, started: Wall) -> Watch {
        Watch(Arc::new(Mutex::new(Replication { url: url.to_string(), started, ..Replication::default() })))
    }

    /// As it is.
    pub fn now(&self) -> Replication {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it.
    pub fn change(&self, change: impl FnOnce(&mut Replication)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
