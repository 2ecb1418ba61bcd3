//! The mark that `restore` leaves beside a database: the operator put back an older state on purpose. The next start raises the
//! epoch, and until one interval plus the longest backoff has passed the server outbids higher epochs instead of stepping down
//! (docs/PROTOCOL.md, "The restore contract").

use std::path::{Path, PathBuf};

use common::limits::BACKOFF_MAX_MS;
use common::sys::file::{read_bounded, write_atomic};
use common::sys::{FileError, Owner};
use common::time::Wall;
use serde::{Deserialize, Serialize};

const BYTES_MAX: u64 = 16 << 10;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Version of this form: 1.
    pub schema: u32,
    /// What was restored, for the log and the events.
    pub reason: String,
    /// Epoch of the database as it was restored.
    pub epoch: u64,
    /// When a server first started on it, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<i64>,
}

/// What a start has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Raise the epoch, for this reason.
    Raise(String),
    /// It is raised; outbid higher ones for so long, in milliseconds.
    Outbid(u64),
}

impl Marker {
    /// For a database that was just put in place.
    pub fn new(reason: String, epoch: u64) -> Marker {
        Marker { schema: 1, reason, epoch, begun: None }
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        // Plain values in a fixed struct always serialise.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// Beside the database.
pub fn marker_path(database: &Path) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_os_string();
    name.push(".restored");
    database.with_file_name(name)
}

/// What the start of a server with this epoch finds; notes the first start, and removes a mark that is over.
pub fn at_start(database: &Path, epoch: u64, interval_ms: u64, now: Wall) -> Result<Option<Restored>, FileError> {
    let path = marker_path(database);
    let bytes = match read_bounded(&path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // It says that somebody restored something, whatever else it says.
    let damaged = || Marker::new("the mark of a restore is there and cannot be read".into(), epoch);
    let mut marker: Marker = serde_json::from_slice(&bytes).unwrap_or_else(|_| damaged());
    let window = interval_ms + BACKOFF_MAX_MS;
    let Some(begun) = marker.begun.filter(|_| epoch > marker.epoch) else {
        if marker.begun.is_none() {
            marker.begun = Some(now.0);
            write_atomic(&path, &marker.encode(), 0o600, Some(Owner::of(database)?))?;
        }
        return Ok(Some(Restored::Raise(marker.reason)));
    };
    // A clock that jumped makes the window shorter or as long as it was, never longer.
    let passed = u64::try_from(now.0.saturating_sub(begun)).unwrap_or(0);
    if passed >= window {
        std::fs::remove_file(&path).map_err(|error| FileError::new("remove", &path, &error))?;
        return Ok(None);
    }
    Ok(Some(Restored::Outbid(window - passed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_raised_until_it_is_and_outbid_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("vigo.db");
        std::fs::write(&database, "").unwrap();
        let start = |epoch, at| at_start(&database, epoch, 1_000, Wall(at)).unwrap();
        assert_eq!(start(4, 0), None);
        std::fs::write(marker_path(&database), Marker::new("why".into(), 4).encode()).unwrap();
        assert_eq!(start(4, 5_000), Some(Restored::Raise("why".into())));
        // Killed before the epoch was committed.
        assert_eq!(start(4, 6_000), Some(Restored::Raise("why".into())));
        let window = 1_000 + BACKOFF_MAX_MS;
        assert_eq!(start(5, 7_000), Some(Restored::Outbid(window - 2_000)));
        assert_eq!(start(5, 0), Some(Restored::Outbid(window)));
        assert_eq!(start(5, 5_000 + window as i64), None);
        assert!(!marker_path(&database).exists());
    }

    #[test]
    fn a_mark_that_cannot_be_read_counts() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("vigo.db");
        std::fs::write(&database, "").unwrap();
        std::fs::write(marker_path(&database), "{").unwrap();
        assert!(matches!(at_start(&database, 4, 1_000, Wall(0)), Ok(Some(Restored::Raise(_)))));
        assert_eq!(at_start(&database, 5, 1_000, Wall(1)), Ok(Some(Restored::Outbid(999 + BACKOFF_MAX_MS))));
    }
}
