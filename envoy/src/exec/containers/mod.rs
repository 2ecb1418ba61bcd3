//! Executors of containers.

pub mod container;
