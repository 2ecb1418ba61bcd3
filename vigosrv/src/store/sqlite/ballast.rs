//! A file of a few MiB beside the database that is given up when the disk is full, so that what must still be written
//! (enrollments, revocations, a publish, the events that say what is wrong) finds room, and made again when space returns.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The reserve.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
    held: bool,
}

impl Ballast {
    /// Names the reserve of a database; [`Ballast::restore`] makes it.
    pub fn new(database: &Path, bytes: u64) -> Ballast {
        let mut name = database.file_name().unwrap_or_default().to_os_string();
        name.push(".ballast");
        let path = database.with_file_name(name);
        let held = fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() >= bytes);
        Ballast { path, bytes, held }
    }

    /// Gives it up; `true` if there was something to give.
    pub fn release(&mut self) -> bool {
        std::mem::take(&mut self.held) && fs::remove_file(&self.path).is_ok()
    }

    /// A reserve is wanted and not there.
    pub fn missing(&self) -> bool {
        self.bytes > 0 && !self.held
    }

    /// Makes it, if it is not there. Real bytes, not a hole: a hole reserves nothing. Twice its size must be free, or the
    /// reserve would be taken from the very writes that it is for.
    pub fn restore(&mut self) -> io::Result<()> {
        if !self.missing() {
            return Ok(());
        }
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let room = nix::sys::statvfs::statvfs(directory)?;
        if room.blocks_available() as u64 * room.fragment_size() as u64 <= 2 * self.bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.fill(&self.path, self.bytes)?;
        self.held = true;
        Ok(())
    }

    fn fill(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let written = (|| {
            // Made new, so that no link that lies in its place is followed.
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = File::create_new(path)?;
            // Not zeros: some file systems store those as holes.
            let chunk = [0x55; 64 << 10];
            let mut left = bytes;
            while left > 0 {
                let n = left.min(chunk.len() as u64);
                file.write_all(&chunk[..n as usize])?;
                left -= n;
            }
            file.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(path);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_is_given_up_once_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::new(&dir.path().join("vigo.db"), 100_000);
        assert!(!ballast.release());
        ballast.restore().unwrap();
        assert_eq!(fs::metadata(dir.path().join("vigo.db.ballast")).unwrap().len(), 100_000);
        assert!(!Ballast::new(&dir.path().join("vigo.db"), 100_000).missing());
        assert!(ballast.release());
        assert!(!ballast.release());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        ballast.restore().unwrap();
        assert!(!ballast.missing());
    }
}
