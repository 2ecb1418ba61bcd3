//! Limits and hygiene of this process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files towards `wanted`, as far as this process may, and returns what it is now. A server that
/// gets fewer must hold fewer connections.
#[allow(clippy::useless_conversion, reason = "rlim_t has 32 bits on some targets")]
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= wanted {
        return Ok(soft);
    }
    // Only root may raise the hard limit; everybody may raise the soft one up to it.
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    let possible = hard.min(wanted);
    setrlimit(Resource::RLIMIT_NOFILE, possible, possible.max(hard))?;
    Ok(possible)
}

/// No core dumps, and no reading of this process's memory by others of the same user: it holds keys. Children get the
/// core limit too. A write beyond a limit of file sizes becomes an error like a full disk, and not the end.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    // A handler and not "ignore": children would inherit that.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own: limits are for the whole process.
    #[test]
    fn a_write_beyond_the_limit_of_file_sizes_is_an_error() {
        const INSIDE: &str = "VIGO_TEST_FILE_SIZE_LIMIT";
        if let Ok(path) = std::env::var(INSIDE) {
            harden().unwrap();
            setrlimit(Resource::RLIMIT_FSIZE, 4_096, 4_096).unwrap();
            let error = std::fs::write(path, vec![0; 100_000]).unwrap_err();
            std::process::exit(if error.raw_os_error() == Some(libc::EFBIG) { 42 } else { 1 });
        }
        let dir = tempfile::tempdir().unwrap();
        let mut own = std::process::Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", "sys::process::tests::a_write_beyond_the_limit_of_file_sizes_is_an_error", "--nocapture"]);
        let done = own.env(INSIDE, dir.path().join("x")).stdout(std::process::Stdio::null()).status().unwrap();
        assert_eq!(done.code(), Some(42));
    }

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_possible() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let reached = raise_open_files(hard).unwrap();
        assert_eq!(reached, hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, hard);
    }
}
