//! The server's durable state: the only SQL of the product is below this folder.

mod memory;
mod ops;
mod rules;
mod tables;

pub use memory::{MemoryRecord, MemoryStore};
pub use ops::*;
