//! How a server starts and stops, in one readable order: configuration, lock, keys, database, policy, threads. On top of
//! everything, imported by the binaries alone.

mod backend;
pub mod commands;
mod jobs;
mod offline;
mod quickstart;
mod replica;
mod serve;
mod states;

pub use offline::{publish_failure, publish_offline, settle_secrets_offline};
pub use quickstart::{Quickstart, quickstart};
pub use serve::serve;
