//! What brings resources to their state: one folder a group, one file a type, all under one contract (probe, converge, probe again).
//!
//! A shell: it acts on the host, and decides only how. What to do, in which order and what follows is `plan`.

mod accounts;
mod backups;
mod commands;
mod containers;
mod contract;
mod diff;
mod fault;
mod files;
mod host;
mod input;
mod look;
mod packages;
mod processes;
mod read;
mod run;
mod secrets;
mod services;
mod sources;
mod system;
#[cfg(test)]
mod tests;
mod tool;
mod undo;

pub use input::{Blob, Blobs, Promises, RunInput};
pub use run::run;
pub use secrets::Unseal;
pub use undo::{Confirmations, Undo};
