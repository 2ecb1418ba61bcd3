//! The contract suite: one set of cases that serves every executor, over real files in a scratch directory, through the
//! same entry as the daemon. What is particular to a type is in its own file beside this one.

mod accounts;
mod blockinfile;
mod canary;
mod census;
mod command;
mod container;
mod contracts;
mod custom;
mod directory;
mod fetched;
mod file;
mod file_line;
mod firewall;
mod git;
mod host;
mod ini;
mod json_file;
mod packages;
mod placed;
mod process;
mod promises;
mod replace;
mod repository;
mod runner;
mod sandbox;
mod services;
mod sshkey;
mod suite;
mod symlink;
mod system;
mod tooled;
mod undo;
