//! Children that end: each in its own process group, with a deadline, TERM then KILL, bounded output, a stop flag.
//!
//! A child that ignores TERM is killed. One that forked and keeps the pipes open does not matter: when the child itself has
//! ended, what is in the pipes is read and the pipes are closed. Daemons that a successful child leaves behind live on.
#![allow(unsafe_code, reason = "the calls between fork and exec have no safe form")]

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::limits;
use common::sys::Clock;
use common::time::Mono;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Gid, Pid, Uid};

/// How often the stop flag is looked at while a child runs, in milliseconds.
const STOP_CHECK_MS: u64 = 100;
/// How often an end is looked for where the kernel has no `pidfd_open` (before 5.3), in milliseconds.
const EXIT_CHECK_MS: u64 = 10;
/// From TERM to KILL at a deadline, in milliseconds.
const TERM_TO_KILL_MS: u64 = 2_000;
/// The same when the agent itself has to end: it has 10 s, of which [`limits::TERM_GRACE_MS`] are gone.
const STOP_TERM_TO_KILL_MS: u64 = 500;
/// How long a killed child may take to go (it may hang in the kernel) before it is left behind, in milliseconds.
const KILL_TO_LEAVE_MS: u64 = 1_000;
/// Bytes read from a pipe after its child has ended.
const DRAIN_BYTES_MAX: usize = 1 << 20;

/// Bytes read from a pipe at once.
const PIECE_BYTES: usize = 4 << 10;
/// The same where all of it is wanted: what a pipe holds.
const SINK_PIECE_BYTES: usize = 64 << 10;

/// Asks a run to stop. Shared with the thread that runs.
#[derive(Debug, Default)]
pub struct StopFlag(AtomicU64);

impl StopFlag {
    /// The current resource gets this many milliseconds, nothing else is begun. Cannot be taken back.
    pub fn raise(&self, grace_ms: u64) {
        self.0.store(grace_ms.saturating_add(1), Ordering::Release);
    }

    /// Grace in milliseconds, if the flag was raised.
    pub fn grace_ms(&self) -> Option<u64> {
        self.0.load(Ordering::Acquire).checked_sub(1)
    }
}

/// Whom a child runs as.
#[derive(Clone, Debug)]
pub struct RunAs {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    /// Program and arguments, not empty.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Working directory.
    pub directory: Arc<OwnedFd>,
    /// Another user.
    pub run_as: Option<RunAs>,
    /// Bits that new files do not get.
    pub umask: u32,
    /// Standard input; empty is the end of a file.
    pub stdin: &'a [u8],
    /// Bytes of each output that are kept: the last ones.
    pub keep: usize,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// It took too long and was ended.
    TimedOut,
    /// The agent was told to stop and ended it.
    Stopped,
}

/// A child that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How.
    pub ended: Ended,
    /// The last bytes of its standard output.
    pub stdout: Tail,
    /// The last bytes of its standard error.
    pub stderr: Tail,
}

/// The end of a stream, of bounded length.
#[derive(Clone, Debug)]
pub struct Tail {
    bytes: Vec<u8>,
    dropped: u64,
    keep: usize,
}

impl Tail {
    fn new(keep: usize) -> Tail {
        Tail { bytes: Vec::new(), dropped: 0, keep }
    }

    /// As text, with a note in front where something is missing.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        match self.dropped {
            0 => text.into_owned(),
            n => format!("[{n} bytes before this]\n{text}"),
        }
    }

    /// What was kept, and how many bytes before it were not.
    pub fn parts(&self) -> (Cow<'_, str>, u64) {
        (String::from_utf8_lossy(&self.bytes), self.dropped)
    }

    /// All that was written; `None` where it was more than was kept.
    pub fn whole(&self) -> Option<&[u8]> {
        (self.dropped == 0).then_some(&self.bytes)
    }

    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        // Twice the bound before it is cut, so that cutting is rare.
        if self.bytes.len() > 2 * self.keep {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let over = self.bytes.len().saturating_sub(self.keep);
        self.bytes.drain(..over);
        self.dropped += over as u64;
    }
}

/// A child that has ended, whose standard output went elsewhere.
#[derive(Debug)]
pub struct Poured {
    /// The child; of its standard output nothing is kept.
    pub finished: Finished,
    /// Why its output could not be taken; it was then ended.
    pub unwritten: Option<io::Error>,
}

/// What takes standard output, piece by piece.
pub type Sink<'s> = dyn FnMut(&[u8]) -> io::Result<()> + 's;

/// Starts a child and waits until it has ended, at the latest a few seconds after the deadline.
pub fn run(spec: &Spec<'_>, clock: &Clock, deadline: Mono, stop: &StopFlag) -> io::Result<Finished> {
    end(Running::start(spec)?, clock, deadline, stop).map(|poured| poured.finished)
}

/// The same for one that writes more than can be kept.
pub fn run_into(
    spec: &Spec<'_>,
    clock: &Clock,
    deadline: Mono,
    stop: &StopFlag,
    sink: &mut Sink<'_>,
) -> io::Result<Poured> {
    let mut running = Running::start(spec)?;
    running.piece.resize(SINK_PIECE_BYTES, 0);
    running.sink = Some(sink);
    end(running, clock, deadline, stop)
}

fn end(mut running: Running<'_, '_>, clock: &Clock, deadline: Mono, stop: &StopFlag) -> io::Result<Poured> {
    let ended = running.wait(clock, deadline, stop);
    running.drain();
    running.out.1.cut();
    running.err.1.cut();
    let finished = Finished { ended: ended?, stdout: running.out.1, stderr: running.err.1 };
    Ok(Poured { finished, unwritten: running.unwritten })
}

struct Running<'a, 's> {
    child: Child,
    group: Pid,
    exit: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    input: &'a [u8],
    out: (Option<OwnedFd>, Tail),
    err: (Option<OwnedFd>, Tail),
    /// What is read at once.
    piece: Vec<u8>,
    sink: Option<&'s mut Sink<'s>>,
    unwritten: Option<io::Error>,
}

/// How far the ending of a child has come.
#[derive(Clone, Copy)]
enum Stage {
    Running,
    Asked { until: Mono },
    Killed { until: Mono },
}

impl<'a> Running<'a, '_> {
    fn start(spec: &Spec<'a>) -> io::Result<Self> {
        let mut command = Command::new(&spec.argv[0]);
        command.args(&spec.argv[1..]).env_clear().envs(spec.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if spec.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.process_group(0);
        let (directory, run_as, umask) = (Arc::clone(&spec.directory), spec.run_as.clone(), spec.umask);
        let groups: Vec<Gid> = run_as.iter().flat_map(|who| &who.groups).map(|gid| Gid::from_raw(*gid)).collect();
        let prepare = move || {
            nix::sys::stat::umask(Mode::from_bits_truncate(umask as libc::mode_t));
            if let Some(who) = &run_as {
                nix::unistd::setgroups(&groups)?;
                nix::unistd::setgid(Gid::from_raw(who.gid))?;
                nix::unistd::setuid(Uid::from_raw(who.uid))?;
            }
            // As that user: a directory that it may not enter is an error.
            nix::unistd::fchdir(directory.as_fd())?;
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made; what they read was allocated before the fork.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn()?;
        let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let running = Running {
            group: Pid::from_raw(child.id() as i32),
            exit: pidfd(child.id()),
            child,
            stdin: stdin.map(OwnedFd::from),
            input: spec.stdin,
            out: (out.map(OwnedFd::from), Tail::new(spec.keep)),
            err: (err.map(OwnedFd::from), Tail::new(spec.keep)),
            piece: vec![0; PIECE_BYTES],
            sink: None,
            unwritten: None,
        };
        for pipe in [&running.stdin, &running.out.0, &running.err.0].into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(running)
    }

    fn wait(&mut self, clock: &Clock, deadline: Mono, stop: &StopFlag) -> io::Result<Ended> {
        let (mut stage, mut stopped, mut deadline) = (Stage::Running, false, deadline);
        loop {
            if self.has_ended()? {
                if !matches!(stage, Stage::Running) {
                    // Whatever it left behind was to end too. Before the reaping, so that the group is still its own.
                    let _ = killpg(self.group, Signal::SIGKILL);
                }
                let status = self.child.wait()?;
                return Ok(self.verdict(stage, stopped, status));
            }
            let now = clock.now().mono;
            if let Some(grace_ms) = stop.grace_ms()
                && !stopped
            {
                stopped = true;
                deadline = deadline.min(now + grace_ms);
            }
            if self.unwritten.is_some() {
                // Nobody wants the rest.
                deadline = deadline.min(now);
            }
            stage = match stage {
                Stage::Running if now >= deadline => {
                    let _ = killpg(self.group, Signal::SIGTERM);
                    Stage::Asked { until: now + if stopped { STOP_TERM_TO_KILL_MS } else { TERM_TO_KILL_MS } }
                }
                Stage::Asked { until } if now >= until => {
                    let _ = killpg(self.group, Signal::SIGKILL);
                    Stage::Killed { until: now + KILL_TO_LEAVE_MS }
                }
                // It hangs in the kernel. It stays a zombie at worst, and the run goes on.
                Stage::Killed { until } if now >= until => {
                    return Ok(if stopped { Ended::Stopped } else { Ended::TimedOut });
                }
                stage => stage,
            };
            let until = match stage {
                Stage::Running => deadline,
                Stage::Asked { until } | Stage::Killed { until } => until,
            };
            let longest = if self.exit.is_some() { STOP_CHECK_MS } else { EXIT_CHECK_MS };
            self.serve(clock.real(until.since(now)).as_millis().min(u128::from(longest)) as u16)?;
        }
    }

    fn verdict(&self, stage: Stage, stopped: bool, status: ExitStatus) -> Ended {
        match (stage, stopped) {
            (Stage::Running, _) => match status.code() {
                Some(code) => Ended::Exited(code),
                None => Ended::Signalled(status.signal().unwrap_or(0)),
            },
            (_, true) => Ended::Stopped,
            (_, false) => Ended::TimedOut,
        }
    }

    /// Without reaping.
    fn has_ended(&self) -> io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.group), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for any of the pipes or the end, and moves bytes.
    fn serve(&mut self, timeout_ms: u16) -> io::Result<()> {
        let watched = [
            (self.exit.as_ref(), PollFlags::POLLIN),
            (self.stdin.as_ref(), PollFlags::POLLOUT),
            (self.out.0.as_ref(), PollFlags::POLLIN),
            (self.err.0.as_ref(), PollFlags::POLLIN),
        ];
        let mut fds: Vec<PollFd<'_>> =
            watched.iter().filter_map(|(fd, flags)| fd.map(|fd| PollFd::new(fd.as_fd(), *flags))).collect();
        match poll(&mut fds, PollTimeout::from(timeout_ms)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.feed();
        self.pull(limits::CHILD_OUTPUT_BYTES_MAX, limits::CHILD_OUTPUT_BYTES_MAX);
        Ok(())
    }

    /// Takes what is in the pipes, about as much of each as is allowed, and closes those that have come to their end.
    fn pull(&mut self, out_max: usize, err_max: usize) {
        let (out, err) = (&mut self.out, &mut self.err);
        let (sink, unwritten) = (&mut self.sink, &mut self.unwritten);
        let mut pour = |bytes: &[u8]| match sink {
            None => {
                out.1.push(bytes);
                true
            }
            Some(sink) => match sink(bytes) {
                Ok(()) => true,
                Err(error) => {
                    *unwritten = Some(error);
                    false
                }
            },
        };
        if out.0.as_ref().is_some_and(|fd| !pull(fd.as_fd(), out_max, &mut self.piece, &mut pour)) {
            out.0 = None;
        }
        let mut keep = |bytes: &[u8]| {
            err.1.push(bytes);
            true
        };
        if err.0.as_ref().is_some_and(|fd| !pull(fd.as_fd(), err_max, &mut self.piece, &mut keep)) {
            err.0 = None;
        }
    }

    fn feed(&mut self) {
        let Some(fd) = &self.stdin else { return };
        match nix::unistd::write(fd.as_fd(), self.input) {
            Ok(n) => self.input = &self.input[n..],
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            // A child need not read its input.
            Err(_) => self.input = &[],
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
    }

    fn drain(&mut self) {
        self.pull(DRAIN_BYTES_MAX, DRAIN_BYTES_MAX);
        (self.out.0, self.err.0) = (None, None);
    }
}

/// Reads what is there, at most about `max` bytes; `false` at the end of the stream, or where nobody takes more of it.
fn pull(fd: BorrowedFd<'_>, max: usize, piece: &mut [u8], take: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let mut total = 0;
    while total < max {
        match nix::unistd::read(fd, piece) {
            Ok(0) => return false,
            Ok(n) => {
                if !take(&piece[..n]) {
                    return false;
                }
                total += n;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// A descriptor that becomes readable when the process ends; `None` on old kernels.
fn pidfd(pid: u32) -> Option<OwnedFd> {
    // SAFETY: a system call with two integers; it returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::c_long, 0 as libc::c_long) };
    // SAFETY: the kernel has just opened this descriptor for us alone.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) }).filter(|fd| fd.as_raw_fd() > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(script: &str, stdin: &'static [u8]) -> Spec<'static> {
        Spec {
            argv: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            directory: Arc::new(std::fs::File::open("/tmp").unwrap().into()),
            run_as: None,
            umask: 0o027,
            stdin,
            keep: limits::CHILD_OUTPUT_BYTES_MAX,
        }
    }

    fn check(script: &str, stdin: &'static [u8], timeout_ms: u64) -> (Ended, String, u64) {
        let clock = Clock::system();
        let started = clock.now().mono;
        let done = run(&spec(script, stdin), &clock, started + timeout_ms, &StopFlag::default()).unwrap();
        (done.ended, done.stdout.text(), clock.now().mono.since(started))
    }

    #[test]
    fn output_status_and_surroundings_are_as_asked() {
        let (ended, out, _) = check("cat; umask; pwd; env | grep -c . ; exit 3", b"hello\n", 10_000);
        assert_eq!(ended, Ended::Exited(3));
        assert!(out.starts_with("hello\n0027\n/tmp\n"), "{out}");
        assert_eq!(check("kill -9 $$", b"", 10_000).0, Ended::Signalled(9));
        assert!(
            run(
                &Spec { argv: vec!["/nonexistent".into()], ..spec("", b"") },
                &Clock::system(),
                Mono(u64::MAX),
                &StopFlag::default()
            )
            .is_err()
        );
    }

    #[test]
    fn a_child_that_ignores_term_is_killed() {
        let (ended, _, took) = check("trap '' TERM; while :; do sleep 1; done", b"", 100);
        assert_eq!(ended, Ended::TimedOut);
        assert!(took < 8_000, "{took}");
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipes_open_stalls_nothing() {
        let (ended, out, took) = check("sleep 30 & echo done", b"", 20_000);
        assert_eq!((ended, out.as_str()), (Ended::Exited(0), "done\n"));
        assert!(took < 8_000, "{took}");
    }

    #[test]
    fn the_whole_group_ends_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let (ended, out, _) = check(&format!("(sleep 300; touch {}) & echo $!; wait", mark.display()), b"", 200);
        assert_eq!(ended, Ended::TimedOut);
        let grandchild = Pid::from_raw(out.trim().parse().unwrap());
        // It may still be a zombie of init; a zombie cannot be told from the living by kill, so read its state. A signal that
        // was sent is not yet one that was taken: on a busy machine that takes a while.
        let state = || std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        let clock = Clock::system();
        let deadline = clock.now().mono + 10_000;
        while !state().is_empty() && !state().contains(") Z") {
            assert!(clock.now().mono < deadline, "{}", state());
            std::thread::yield_now();
        }
    }

    #[test]
    fn much_output_is_bounded_to_its_end() {
        let clock = Clock::system();
        let deadline = clock.now().mono + 60_000;
        let script = spec("head -c 3000000 /dev/zero | tr '\\0' x; echo END", b"");
        let done = run(&script, &clock, deadline, &StopFlag::default()).unwrap();
        assert!(done.stdout.bytes.len() <= limits::CHILD_OUTPUT_BYTES_MAX);
        assert!(done.stdout.text().starts_with('[') && done.stdout.text().ends_with("END\n"));
    }

    #[test]
    fn what_is_poured_is_whole_and_a_sink_that_refuses_ends_the_child() {
        let clock = Clock::system();
        let started = clock.now().mono;
        let deadline = started + 60_000;
        let script = "head -c 3000000 /dev/zero; echo END; echo said >&2; exit 5";
        let mut all = Vec::new();
        let mut keep = |piece: &[u8]| {
            all.extend_from_slice(piece);
            Ok(())
        };
        let done = run_into(&spec(script, b""), &clock, deadline, &StopFlag::default(), &mut keep).unwrap();
        assert_eq!((done.finished.ended, done.unwritten.is_some()), (Ended::Exited(5), false));
        assert_eq!((done.finished.stdout.text(), done.finished.stderr.text()), (String::new(), "said\n".to_string()));
        assert_eq!((all.len(), &all[3_000_000..]), (3_000_004, &b"END\n"[..]));
        let mut refuse = |_: &[u8]| Err(io::Error::from_raw_os_error(libc::ENOSPC));
        let endless = spec("while :; do echo x; done", b"");
        let done = run_into(&endless, &clock, deadline, &StopFlag::default(), &mut refuse).unwrap();
        assert_eq!(done.unwritten.and_then(|error| error.raw_os_error()), Some(libc::ENOSPC));
        assert!(clock.now().mono.since(started) < 30_000);
    }

    #[test]
    fn large_input_to_a_child_that_reads_none_of_it_is_no_problem() {
        let input: &'static [u8] = vec![b'x'; 1 << 20].leak();
        assert_eq!(check("exit 0", input, 10_000).0, Ended::Exited(0));
        assert_eq!(check("wc -c", input, 10_000).1.trim(), "1048576");
    }

    #[test]
    fn a_raised_flag_ends_the_child_after_its_grace() {
        let stop = Arc::new(StopFlag::default());
        stop.raise(50);
        let clock = Clock::system();
        let started = clock.now().mono;
        let done = run(&spec("sleep 60", b""), &clock, started + 60_000, &stop).unwrap();
        assert_eq!(done.ended, Ended::Stopped);
        assert!(clock.now().mono.since(started) < 8_000);
    }
}
