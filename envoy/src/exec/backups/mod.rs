//! Executors that keep dated snapshots: of a directory, of a database.

pub mod backup;
mod copy;
pub mod db_backup;
mod dump;
mod exclude;
mod gzip;
mod keeping;
mod series;
mod stamp;
mod tree;
