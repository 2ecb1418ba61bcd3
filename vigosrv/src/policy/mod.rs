//! The policy of the server: from a tree of files to one encoded bundle a mapping.
//!
//! A core: files come in as bytes, nothing here reads a disk. All errors of a tree are found at once.

mod changes;
mod compile;
mod compiled;
mod diff;
mod encode;
mod hosts;
mod load;
mod memory;
mod resolve;
mod search;
mod trace;
mod tree;

pub use changes::{Changes, Difference, Outline};
pub use compile::{check, compile, compile_with};
pub use compiled::{Compiled, Mapping};
pub use diff::{Facts, difference, needs_facts};
pub use memory::Memory;
pub use search::{Found, outline, search};
pub use trace::{Trace, TracedCrate, TracedVar, trace, trace_with};
pub use tree::{File, Tree};

/// A mapping of one [`Compiled`]: its position in path order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub u32);
