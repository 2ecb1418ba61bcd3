//! Programs that run beside this process: in a group of their own, so that a signal from the terminal is not theirs, and dead when the
//! thread that started them is, so that two of a kind never meet. What they write is for their own user.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

/// Bytes of a line; the rest of a longer one is another line.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Once the pipes are closed only the end is awaited; looked for this often, milliseconds.
const END_LOOK_MS: u16 = 5;

/// A child with its output.
#[derive(Debug)]
pub struct Beside {
    child: Child,
    /// Standard error, then standard output.
    pipes: [Option<Pipe>; 2],
}

#[derive(Debug)]
struct Pipe {
    file: File,
    line: Vec<u8>,
}

impl Beside {
    /// Starts a command without standard input.
    pub fn start(command: &mut Command) -> io::Result<Beside> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let prepare = || {
            umask(Mode::from_bits_truncate(0o077));
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn()?;
        let err = child.stderr.take().map(OwnedFd::from);
        let out = child.stdout.take().map(OwnedFd::from);
        let pipe = |fd: Option<OwnedFd>| -> io::Result<Option<Pipe>> {
            let Some(fd) = fd else { return Ok(None) };
            fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Some(Pipe { file: File::from(fd), line: Vec::new() }))
        };
        Ok(Beside { pipes: [pipe(err)?, pipe(out)?], child })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends its group a signal. One that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// Waits for output or the end, at most so long; hands over the lines that are whole.
    pub fn serve(&mut self, wait_ms: u16, line: &mut dyn FnMut(&str)) -> io::Result<Option<ExitStatus>> {
        let mut fds: Vec<PollFd<'_>> =
            self.pipes.iter().flatten().map(|pipe| PollFd::new(pipe.file.as_fd(), PollFlags::POLLIN)).collect();
        let wait_ms = if fds.is_empty() { wait_ms.min(END_LOOK_MS) } else { wait_ms };
        match poll(&mut fds, PollTimeout::from(wait_ms)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ended = self.child.try_wait()?;
        for pipe in &mut self.pipes {
            if pipe.as_mut().is_some_and(|pipe| !pipe.pull(line)) {
                *pipe = None;
            }
        }
        Ok(ended)
    }

    /// `kill -9`, and the end.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.child.wait()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.kill();
        }
    }
}

impl Pipe {
    /// Reads what is there; false at its end.
    fn pull(&mut self, line: &mut dyn FnMut(&str)) -> bool {
        let mut buffer = [0; 4 << 10];
        let open = loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break false,
                Ok(n) => self.split(&buffer[..n], line),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        if !open && !self.line.is_empty() {
            line(&String::from_utf8_lossy(&std::mem::take(&mut self.line)));
        }
        open
    }

    fn split(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
            }
            if *byte == b'\n' || self.line.len() >= LINE_BYTES_MAX {
                line(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Vec<String>, ExitStatus) {
        let mut lines = Vec::new();
        let mut child = Beside::start(Command::new("/bin/sh").args(["-c", script])).unwrap();
        loop {
            if let Some(status) = child.serve(1_000, &mut |line| lines.push(line.to_string())).unwrap() {
                child.serve(0, &mut |line| lines.push(line.to_string())).unwrap();
                return (lines, status);
            }
        }
    }

    #[test]
    fn lines_of_both_streams_arrive_whole_and_a_long_one_in_parts() {
        let (lines, status) = run("echo one; echo two >&2; printf %05000d 7; exit 3");
        assert_eq!(status.code(), Some(3));
        assert!(lines.contains(&"one".to_string()) && lines.contains(&"two".to_string()), "{lines:?}");
        assert_eq!(lines.iter().map(String::len).max(), Some(LINE_BYTES_MAX));
        assert_eq!(lines.iter().map(String::len).sum::<usize>(), 5_006);
    }

    #[test]
    fn what_a_child_writes_is_its_users_alone_and_it_has_a_group_of_its_own() {
        let (lines, _) = run("umask; ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat; echo $$");
        assert_eq!(lines[0], "0077");
        assert_eq!(lines[1].trim(), lines[2]);
    }
}
