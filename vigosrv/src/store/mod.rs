//! The server's durable state: the only SQL of the product is below this folder.

#[cfg(test)]
mod contract;
mod memory;
mod ops;
pub mod read;
mod rules;
mod sqlite;
mod tables;
mod writer;

pub use memory::{MemoryRecord, MemoryStore};
pub use ops::*;
pub use sqlite::{
    Checkpoints, DataSet, DatabaseFacts, Gauges, Held, Marker, Migrated, OpenOptions, Opened, SCHEMA, SqliteStore,
    check_copy, check_log, check_whole, copy_database, facts_of_copy, generate, identity, read_marker, write_marker,
};
pub use writer::{Done, Submitter, Writer};
