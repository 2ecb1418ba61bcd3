//! Tools of the host that executors call: found in the search path, run without a shell, and what they say when they fail
//! told to people. A tool that only waits for another one is no failure of the resource: it is blocked.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::limits;
use common::sys::redaction;
use common::time::Mono;

use super::fault::Fault;
use super::host::{Host, Order};
use crate::sys::child::{Ended, Finished, Tail};

/// Bytes of output that a message quotes.
const QUOTED_BYTES_MAX: usize = 2 << 10;
/// Umask of tools.
const UMASK: u32 = 0o022;
/// What tools say, in lower case, when another one holds what they need, or the disk is full: nothing that the policy is
/// to blame for.
const BLOCKED: [&str; 9] = [
    "cannot lock",
    "could not get lock",
    "unable to lock",
    "unable to acquire",
    "try again later",
    "is locked",
    "being used by another process",
    "resource temporarily unavailable",
    "no space left on device",
];

/// A tool that is there.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
    name: String,
    environment: Vec<(String, String)>,
    /// Directory below the root that it runs in.
    within: Option<String>,
    /// User that it runs as.
    user: Option<String>,
    /// Bytes of each of its outputs that are kept.
    keep: usize,
}

impl Tool {
    /// Looks for one in the search path.
    pub fn find(host: &Host, name: &str) -> Option<Tool> {
        let usable =
            |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        let candidates = host.search_path().split(':').map(|dir| Path::new(dir).join(name));
        let path = candidates.into_iter().find(|path| usable(path))?;
        let keep = limits::CHILD_OUTPUT_BYTES_MAX;
        Some(Tool { path, name: name.to_string(), environment: Vec::new(), within: None, user: None, keep })
    }

    /// The same for one that has to be there.
    pub fn need(host: &Host, name: &str) -> Result<Tool, Fault> {
        let missing = || Fault::Failed(format!("`{name}` is not installed on this host; it is needed here"));
        Tool::find(host, name).ok_or_else(missing)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// With variables on top of the usual.
    pub fn with_environment(mut self, variables: &[(&str, &str)]) -> Tool {
        self.environment = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        self
    }

    /// In a directory below the root.
    pub fn within(mut self, directory: &str) -> Tool {
        self.within = Some(directory.to_string());
        self
    }

    /// As another user.
    pub fn running_as(mut self, user: Option<&str>) -> Tool {
        self.user = user.map(str::to_string);
        self
    }

    /// With another bound of what is kept of its output.
    pub fn keeping(mut self, bytes_max: usize) -> Tool {
        self.keep = bytes_max;
        self
    }

    /// Runs it to its end, whatever its status.
    pub fn ask(&self, host: &mut Host, args: &[&str], stdin: &str, deadline: Mono) -> Result<Finished, Fault> {
        let mut argv = vec![OsString::from(&self.path)];
        argv.extend(args.iter().map(OsString::from));
        let stdin = stdin.as_bytes();
        let (environment, cwd, user) = (&self.environment, self.within.as_deref(), self.user.as_deref());
        host.run_keeping(&Order { argv, cwd, user, environment, stdin, umask: UMASK, deadline }, self.keep)
    }

    /// Runs it; anything but success is a fault. Gives the end of what it wrote to standard output.
    pub fn run(&self, host: &mut Host, args: &[&str], deadline: Mono) -> Result<String, Fault> {
        self.feed(host, args, "", deadline)
    }

    /// The same, with something on its standard input.
    pub fn feed(&self, host: &mut Host, args: &[&str], stdin: &str, deadline: Mono) -> Result<String, Fault> {
        let done = self.ask(host, args, stdin, deadline)?;
        match done.ended {
            Ended::Exited(0) => Ok(done.stdout.text()),
            _ => Err(self.fault(&done)),
        }
    }

    /// What to say of an end that was no success.
    pub fn fault(&self, done: &Finished) -> Fault {
        fault(&self.name, done)
    }
}

/// What to say of a command that ended without success.
pub fn fault(name: &str, done: &Finished) -> Fault {
    let said = match done.ended {
        Ended::Exited(code) => format!("exited with {code}"),
        Ended::Signalled(signal) => format!("was ended by signal {signal}"),
        Ended::TimedOut => "took longer than the timeout of the resource and was ended".to_string(),
        Ended::Stopped => "was ended because the agent stops".to_string(),
    };
    let message = format!("`{name}` {said}{}", quote(done));
    let spoken = message.to_lowercase();
    if BLOCKED.iter().any(|words| spoken.contains(words)) { Fault::Blocked(message) } else { Fault::Failed(message) }
}

/// What a command said, for people. Secrets go here, before anything is cut: half of one would be found by nobody.
pub fn spoken(tail: &Tail) -> String {
    match tail.parts() {
        (text, 0) => redaction::clean(&text).into_owned(),
        (text, dropped) => format!("[{dropped} bytes before this]\n{}", redaction::clean_rest(&text)),
    }
}

/// The end of what a command said, its errors first.
pub fn quote(done: &Finished) -> String {
    let (out, err) = (spoken(&done.stdout), spoken(&done.stderr));
    let text = if err.trim().is_empty() { out } else { err };
    let text = text.trim();
    let mut from = text.len().saturating_sub(QUOTED_BYTES_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    if text.is_empty() { String::new() } else { format!(":\n{}", &text[from..]) }
}
