//! The agent's durable state: the only LMDB of the product is below this folder.
//!
//! [`Cache`] is the interface; [`MemoryCache`] keeps everything in memory, for the simulator and for a host whose disk
//! refuses altogether.

mod check;
pub mod codec;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod fixture;
mod memory;
mod ops;

pub use memory::MemoryCache;
pub use ops::*;
