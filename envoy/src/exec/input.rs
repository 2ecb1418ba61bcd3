//! What a run needs beyond its order: where it acts, what it may not touch, where files of the policy are.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use common::ids::{Hash32, Uuid};
use common::sys::Clock;

use super::secrets::Unseal;
use super::undo::Undo;
use crate::agent::RunOrder;
use crate::sys::child::StopFlag;

/// A file of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blob {
    /// In a file, whose content is not trusted before its hash is compared.
    File(PathBuf),
    /// In memory.
    Bytes(Bytes),
}

/// Where files that a bundle names are found.
pub trait Blobs: Send + Sync {
    /// The file with this hash, if it is there.
    fn find(&self, hash: &Hash32) -> Option<Blob>;
}

/// Keeps notifications for the case that the run does not come to its end.
pub trait Promises: Send + Sync {
    /// Returns when the next run will act on these resources whatever happens to this process, or when that cannot be had.
    fn keep(&self, run_id: Uuid, targets: Vec<String>);
}

/// Everything that one run is given. [`super::run`] blocks until it is over.
pub struct RunInput {
    /// What to run.
    pub order: RunOrder,
    /// Name of this envoy, for templates.
    pub uuid: Uuid,
    /// Paths of files are below this; `None` is the host's own root.
    pub sysroot: Option<PathBuf>,
    /// Whether the kernel and the services of this machine are those of the root; a sysroot has none of its own.
    pub live: bool,
    /// Directories where commands are looked for, as in `PATH`; `None` are the usual ones.
    pub search_path: Option<String>,
    /// Files of the policy.
    pub blobs: Arc<dyn Blobs>,
    /// Opens secrets; a file that is applied without a server has none.
    pub unseal: Option<Arc<dyn Unseal>>,
    /// Where notifications outlive the process; nowhere for a run that is not repeated.
    pub promises: Option<Arc<dyn Promises>>,
    /// For changes that are put back without a check-in; `None` where no server could confirm them.
    pub undo: Option<Undo>,
    /// Resources may touch `protected`.
    pub allow_self: bool,
    /// The agent's own files and directories on the host, sysroot or not: binary, state, identity, configuration.
    pub protected: Vec<PathBuf>,
    /// Raised to cut the run short.
    pub stop: Arc<StopFlag>,
    /// For deadlines and durations.
    pub clock: Clock,
}
