//! Work in a forked child with a deadline: for what may crash, hang or be killed by the kernel.
//!
//! The child runs one closure, writes its answer into a pipe and leaves without running destructors. It dies with its
//! parent and at its deadline even when the parent is gone, and it leaves no core file.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};

use common::sys::Clock;

/// How the child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It answered.
    Answered(Vec<u8>),
    /// It died before it had answered: how, in words.
    Died(String),
    /// It was killed at its deadline.
    TimedOut,
    /// There was no child: no process or no pipe to be had.
    NotStarted(String),
}

/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Time that a killed child gets to be gone, in milliseconds; one that hangs in the kernel is left behind.
const REAP_MS: u64 = 2_000;

/// Held while heed's process-wide lock may be held: a child forked at that moment would wait for it for ever.
static QUIET: Mutex<()> = Mutex::new(());

/// Runs `work` while no child is forked by [`run`].
pub fn while_nothing_forks<T>(work: impl FnOnce() -> T) -> T {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Runs `work` in a child that has `deadline_ms`, and gives back what it answered.
///
/// The child is a copy of this thread only. `work` must not wait for another thread; it may allocate (the allocators of
/// glibc and musl are usable in a child) and do I/O on files that it opens itself.
pub fn run(deadline_ms: u64, work: impl FnOnce() -> Vec<u8>) -> Ended {
    let (reader, writer) = match pipe() {
        Ok(ends) => ends,
        Err(errno) => return Ended::NotStarted(errno.desc().to_string()),
    };
    let forked = while_nothing_forks(|| {
        // SAFETY: the child touches no lock of another thread: heed's is free (QUIET), the allocator's is handled by the C
        // library, and `in_child` uses no other. It never returns into the caller's frames.
        unsafe { fork() }
    });
    match forked {
        Err(errno) => Ended::NotStarted(errno.desc().to_string()),
        Ok(ForkResult::Child) => {
            drop(reader);
            in_child(deadline_ms, File::from(writer), work)
        }
        Ok(ForkResult::Parent { child }) => {
            drop(writer);
            in_parent(deadline_ms, child, File::from(reader))
        }
    }
}

fn in_child(deadline_ms: u64, mut answer: File, work: impl FnOnce() -> Vec<u8>) -> ! {
    // Best effort, each: without them the parent's deadline still holds.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGTERM, Signal::SIGINT] {
        // SAFETY: the default action replaces the parent's handlers, which have no business in the child.
        let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
    }
    nix::unistd::alarm::set(u32::try_from(deadline_ms / 1_000 + 2).unwrap_or(u32::MAX).max(1));
    let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(bytes) => i32::from(answer.write_all(&bytes).is_err()),
        Err(_) => 101,
    };
    // SAFETY: ends this process at once. Destructors and exit handlers belong to the parent and must not run twice.
    unsafe { libc::_exit(code) }
}

fn in_parent(deadline_ms: u64, child: Pid, mut answer: File) -> Ended {
    let clock = Clock::system();
    let deadline = clock.now().mono + deadline_ms;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    // The pipe ends when the child does; reading to its end is waiting for the child.
    let complete = loop {
        let left = deadline.since(clock.now().mono);
        let timeout = PollTimeout::try_from(Duration::from_millis(left)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(0) if deadline.since(clock.now().mono) > 0 => continue,
            Ok(0) | Err(_) => break false,
            Ok(_) => match answer.read(&mut buffer) {
                Ok(0) => break true,
                Ok(n) if bytes.len() as u64 + n as u64 <= ANSWER_BYTES_MAX => bytes.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Ok(_) | Err(_) => break false,
            },
        }
    };
    if !complete {
        // It is our child and not reaped yet, so the number is still its own.
        let _ = kill(child, Signal::SIGKILL);
    }
    match reap(&clock, child, &mut answer) {
        _ if !complete => Ended::TimedOut,
        Some(WaitStatus::Exited(_, 0)) => Ended::Answered(bytes),
        Some(WaitStatus::Exited(_, code)) => Ended::Died(format!("it ended with status {code}")),
        Some(WaitStatus::Signaled(_, signal, _)) => Ended::Died(format!("it was ended by {signal}")),
        _ => Ended::Died("how it ended is unknown".to_string()),
    }
}

/// Waits for a child that has closed its pipe or was killed. One that hangs in the kernel is not waited for.
fn reap(clock: &Clock, child: Pid, answer: &mut File) -> Option<WaitStatus> {
    let deadline = clock.now().mono + REAP_MS;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if deadline.since(clock.now().mono) > 0 => {
                // A closed pipe is readable at once, so this is a pause only where the child still holds its end.
                let mut fds = [PollFd::new(answer.as_fd(), PollFlags::empty())];
                let _ = poll(&mut fds, PollTimeout::from(5_u8));
                std::thread::yield_now();
            }
            Err(nix::errno::Errno::EINTR) => {}
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(status) => return Some(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back() {
        let large = vec![7; 60_000];
        assert_eq!(run(10_000, || large.clone()), Ended::Answered(large));
    }

    #[test]
    fn a_crash_is_told_from_an_answer() {
        let ended = run(10_000, || {
            // SAFETY: ends the child only.
            unsafe { libc::raise(libc::SIGSEGV) };
            Vec::new()
        });
        assert_eq!(ended, Ended::Died("it was ended by SIGSEGV".into()));
    }

    #[test]
    fn a_child_that_hangs_is_killed_at_its_deadline() {
        let hang = || loop {
            nix::unistd::pause();
        };
        assert_eq!(run(50, hang), Ended::TimedOut);
    }

    #[test]
    fn an_answer_without_bound_is_cut_off() {
        assert_eq!(run(10_000, || vec![0; 1 << 20]), Ended::TimedOut);
    }
}
