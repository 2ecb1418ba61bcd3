//! Executors of commands.

pub mod exec;
mod guard;
