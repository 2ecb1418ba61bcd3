//! Executors of files, directories, links, and parts of files.

pub mod directory;
pub mod edit;
pub mod file;
pub mod file_line;
pub mod symlink;
