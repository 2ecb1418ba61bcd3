//! Limits and hygiene of this process.

use std::io;

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
/// core limit too.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_possible() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let reached = raise_open_files(hard).unwrap();
        assert_eq!(reached, hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, hard);
    }
}
