//! The agent's durable state: the only LMDB of the product is below this folder.
//!
//! [`Cache`] is the interface; [`MemoryCache`] keeps everything in memory, for the simulator and for a host whose disk
//! refuses altogether.

mod batch;
mod blobs;
mod check;
pub mod codec;
mod compact;
#[cfg(test)]
mod contract;
mod env;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod killed;
mod lmdb;
mod memory;
mod open;
mod ops;
mod owner;
mod pages;
mod probe;
mod salvage;
mod scan;
mod seal;
mod verify;
mod walk;

pub use blobs::Blobs;
pub use memory::MemoryCache;
pub use open::{LOCK_FILE, OpenError, Options, Store};
pub use ops::*;
pub use owner::{Answer, Owner, Request};
pub use verify::{LaneReport, Report, verify};
