//! What brings resources to their state: one file a type, all under one contract (probe, converge, probe again).
//!
//! A shell: it acts on the host, and decides only how. What to do, in which order and what follows is `plan`.

mod input;

pub use input::{Blob, Blobs, RunInput};
