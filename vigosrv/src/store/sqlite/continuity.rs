//! The continuity file: a counter beside the database, written after each commit and never before, so that a database which
//! was put back to an older state is behind it. Where the file is missing or unreadable although the database has a history,
//! the database counts as restored too: it came here without its file.
//!
//! The file is overwritten in place and not synced: after a power cut it may lag, which means nothing; it is never ahead of a
//! database that nobody replaced, because the commit was synced before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::io_error;
use crate::store::StoreError;

/// The open file.
#[derive(Debug)]
pub struct Continuity {
    file: File,
    path: PathBuf,
    /// Counter in the file when it was opened; `None` if there was none that could be read.
    pub found: Option<u64>,
}

impl Continuity {
    /// Opens or makes the file of a database.
    pub fn open(database: &Path) -> Result<Continuity, StoreError> {
        let path = super::log::beside(database, ".continuity");
        let open = || -> io::Result<(File, Option<u64>)> {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut bytes = [0; RECORD_BYTES];
            let n = file.read_at(&mut bytes, 0)?;
            Ok((file, parse(&bytes[..n])))
        };
        let (file, found) = open().map_err(|error| io_error(&path, "open the continuity file", &error))?;
        Ok(Continuity { file, path, found })
    }

    /// Whether a database was here that had committed something. Makes no file.
    pub fn had_history(database: &Path) -> bool {
        let bytes = std::fs::read(super::log::beside(database, ".continuity")).unwrap_or_default();
        parse(&bytes).is_some_and(|counter| counter > 0)
    }

    /// Writes the counter of a database that has just committed it.
    pub fn write(&self, counter: u64) -> Result<(), StoreError> {
        let line = encode(counter);
        self.file.write_all_at(&line, 0).map_err(|error| io_error(&self.path, "write the continuity file", &error))
    }

    /// Makes what was written durable; for a clean shutdown and for the first write.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| io_error(&self.path, "sync the continuity file", &error))
    }
}

/// Length of the one line, the same for every counter so that it is overwritten whole.
const RECORD_BYTES: usize = 48;

/// `vigo-continuity 1 <20 digits> <8 digits of SHA-256>\n`.
fn encode(counter: u64) -> [u8; RECORD_BYTES] {
    let head = format!("vigo-continuity 1 {counter:020}");
    let sum = common::crypto::sha256(&[head.as_bytes()]).to_string();
    let mut out = [b'\n'; RECORD_BYTES];
    let line = head.bytes().chain([b' ']).chain(sum.bytes().take(8));
    out.iter_mut().zip(line).for_each(|(to, from)| *to = from);
    out
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let counter: u64 = text.split(' ').nth(2)?.parse().ok()?;
    (encode(counter) == bytes).then_some(counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_round_trips_and_a_flipped_bit_is_seen() {
        for counter in [0, 1, 77, u64::MAX] {
            let line = encode(counter);
            assert_eq!(line.last(), Some(&b'\n'));
            assert_eq!(parse(&line), Some(counter));
            for at in 0..RECORD_BYTES {
                let mut bad = line;
                bad[at] ^= 1;
                assert_eq!(parse(&bad), None, "{counter} at {at}");
            }
        }
        assert_eq!(parse(b""), None);
    }
}
