//! Executors of files, directories, links, and parts of files.

pub mod blockinfile;
pub mod directory;
pub mod edit;
pub mod file;
pub mod file_line;
pub mod host;
pub mod ini;
mod json;
pub mod json_file;
pub mod lines;
pub mod replace;
pub mod sshkey;
pub mod symlink;
