//! Executors of sources: what is fetched from a repository of code.

pub mod git;
