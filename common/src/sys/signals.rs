//! Signals as a readable file descriptor and flags, for an event loop.
//!
//! Handlers, not a blocked mask with `signalfd`: a mask is inherited by children, and a child that cannot receive TERM
//! cannot be stopped.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use nix::sys::signal::{SigmaskHow, Signal, pthread_sigmask};

/// The signals that a service acts on. Register its descriptor for reading; then call [`Signals::take`].
#[derive(Debug)]
pub struct Signals {
    reader: UnixStream,
    flags: [(i32, Arc<AtomicBool>); 4],
}

/// Signals since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// TERM or INT: stop.
    pub terminate: bool,
    /// HUP: reload.
    pub reload: bool,
    /// USR1: free for the program.
    pub user: bool,
}

impl Signals {
    /// Takes over TERM, INT, HUP and USR1 for the whole process.
    pub fn install() -> io::Result<Signals> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let flags = [SIGTERM, SIGINT, SIGHUP, SIGUSR1].map(|signal| (signal, Arc::new(AtomicBool::new(false))));
        for (signal, flag) in &flags {
            // Actions run in the order of registration: the flag is up before the loop wakes.
            signal_hook::flag::register(*signal, flag.clone())?;
            signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
        }
        // A process that executed itself anew held them back, because there were no handlers.
        set_held_back(false)?;
        Ok(Signals { reader, flags })
    }

    /// What has arrived since the last call.
    pub fn take(&mut self) -> Received {
        let mut buffer = [0; 64];
        // Drained before the flags are read, so that a signal in between wakes the loop again.
        while matches!(self.reader.read(&mut buffer), Ok(n) if n > 0) {}
        let seen = |signal| self.flags.iter().any(|(s, flag)| *s == signal && flag.swap(false, Ordering::SeqCst));
        let (term, int) = (seen(SIGTERM), seen(SIGINT));
        Received { terminate: term || int, reload: seen(SIGHUP), user: seen(SIGUSR1) }
    }
}

/// Holds the signals of a service back in this thread, or lets them through. One that arrives meanwhile waits, and survives
/// `execve`.
pub fn set_held_back(held_back: bool) -> io::Result<()> {
    let how = if held_back { SigmaskHow::SIG_BLOCK } else { SigmaskHow::SIG_UNBLOCK };
    let each = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1];
    Ok(pthread_sigmask(how, Some(&each.into_iter().collect()), None)?)
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::raise;

    #[test]
    fn signals_wake_the_descriptor_and_are_taken_once() {
        let mut signals = Signals::install().unwrap();
        raise(Signal::SIGHUP).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(5_000u16)), Ok(1));
        assert_eq!(signals.take(), Received { terminate: false, reload: true, user: true });
        assert_eq!(signals.take(), Received::default());
        raise(Signal::SIGTERM).unwrap();
        assert!(signals.take().terminate);
    }
}
