//! Child processes that do not outlive their test, the binaries of this build, and bounded waiting.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time; every wait here is bounded polling")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything may take that should happen soon; generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a command without standard input.
    pub fn start(command: &mut Command) -> Process {
        let child = command.stdin(Stdio::null()).spawn();
        Process(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.0.id(), signal);
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// TERM, and waits; panics when it does not end, or ends badly.
    pub fn stop(self) {
        self.signal(Signal::SIGTERM);
        self.wait();
    }

    /// Waits for a good end, and panics as [`stop`](Process::stop) does.
    pub fn wait(mut self) {
        let status = wait_until("the process to end", || self.0.try_wait().ok().flatten());
        assert!(status.success(), "ended with {status}");
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal.
pub(crate) fn send(process: u32, signal: Signal) {
    // One that is gone already is what the caller finds out next.
    let _ = kill(Pid::from_raw(process as i32), signal);
}

/// A binary of this build: beside the program that runs, or, for a test, beside its folder.
pub fn binary(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let path = here.ancestors().skip(1).take(2).map(|folder: &Path| folder.join(name)).find(|path| path.is_file());
    path.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace"))
}

/// Polls until `look` finds something; panics with what was waited for.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    wait_for(what, || look().ok_or_else(String::new))
}

/// Polls until `look` succeeds; panics with what was waited for and why it is not there.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < until, "waited {PATIENCE:?} for {what} {why}"),
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Does nothing for a while: where a test hits something at a moment that it drew.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Does something, and says how long it took.
pub fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let from = Instant::now();
    let result = act();
    (result, from.elapsed())
}

/// The JSON that a command printed; panics with what it said where there is none.
pub(crate) fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("no JSON ({error}), status {}: {said}", output.status)
    })
}

/// Whether a command is installed.
pub(crate) fn is_there(command: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {command} >/dev/null")]).status().is_ok_and(|s| s.success())
}

/// Runs a command that must not fail; what it printed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
