//! What brings resources to their state: one file a type, all under one contract (probe, converge, probe again).
//!
//! A shell: it acts on the host, and decides only how. What to do, in which order and what follows is `plan`.

mod command;
mod contract;
mod diff;
mod directory;
mod fault;
mod file;
mod file_line;
mod guard;
mod host;
mod input;
mod read;
mod run;
mod symlink;
#[cfg(test)]
mod tests;

pub use input::{Blob, Blobs, RunInput};
pub use run::run;
