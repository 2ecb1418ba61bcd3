//! Executors of commands.

pub mod custom;
pub mod exec;
mod guard;
pub mod process;
