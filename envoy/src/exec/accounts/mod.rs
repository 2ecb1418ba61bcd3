//! Executors of users, groups and keys. The tools of the system make the changes, because they take its locks and know its
//! ranges; where a host has only those of BusyBox, what they cannot do is done to the files.

pub mod authorized_key;
mod database;
pub mod group;
pub mod user;
