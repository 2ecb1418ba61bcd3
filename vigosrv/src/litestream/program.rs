//! The program `litestream`: found, and run to its end with a clean environment and a deadline.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::sys::{Clock, Owner};

use super::ReplicaError;
use super::settings::ReplicaSettings;
use super::text;
use crate::sys::child::Beside;

/// What it says that is kept for an error, lines.
const SAID_LINES_MAX: usize = 20;
/// Between two looks at the deadline, milliseconds.
const LOOK_MS: u16 = 100;
/// The first version whose configuration is written here.
const VERSION_MIN: (u32, u32) = (0, 5);

/// The program and the environment that it gets.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    environment: Vec<(String, String)>,
    owner: Option<Owner>,
}

/// How long a command may take, and who may end it.
pub struct Patience<'a> {
    /// For the deadline.
    pub clock: &'a Clock,
    /// From its start, milliseconds.
    pub ms: u64,
    /// Asked while it runs: true ends it.
    pub stop: &'a dyn Fn() -> bool,
}

impl Program {
    /// Looks in `PATH`.
    pub fn find(replica: &ReplicaSettings) -> Option<Program> {
        let places = std::env::var_os("PATH")?;
        let is_program = |path: &PathBuf| {
            use std::os::unix::fs::PermissionsExt;
            path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        let path = std::env::split_paths(&places).map(|place| place.join("litestream")).find(is_program)?;
        let of_process =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Some(Program { path, environment: text::environment(replica, of_process), owner: None })
    }

    /// Runs as the user whose files it works on, where this process is root and acts for that user.
    pub(super) fn acting_for(self, owner: Owner) -> Program {
        let wanted = Owner::own().uid == 0 && owner != Owner::own();
        Program { owner: wanted.then_some(owner), ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command of it, with nothing but the listed environment.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(words).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(owner) = self.owner {
            command.gid(owner.gid).uid(owner.uid);
        }
        command
    }

    /// Runs a command to its end; what it said, when it succeeded.
    pub(super) fn run(&self, words: &[&str], patience: &Patience<'_>) -> Result<String, ReplicaError> {
        let name = words.first().copied().unwrap_or_default().to_string();
        let failed = |said: String| ReplicaError::Failed { command: name.clone(), said };
        let mut said: Vec<String> = Vec::new();
        let mut keep = |line: &str| {
            if said.len() == SAID_LINES_MAX {
                said.remove(0);
            }
            said.push(line.to_string());
        };
        let mut child = Beside::start(&mut self.command(words)).map_err(|error| failed(error.to_string()))?;
        let until = patience.clock.now().mono + patience.ms;
        let status = loop {
            if let Some(status) = child.serve(LOOK_MS, &mut keep).map_err(|error| failed(error.to_string()))? {
                break status;
            }
            if patience.clock.now().mono >= until || (patience.stop)() {
                let _ = child.kill();
                let last = last_words(&said.join("\n"));
                return Err(failed(format!("it did not end within {} s; {last}", patience.ms / 1_000)));
            }
        };
        // What was written between the last look and the end.
        let _ = child.serve(0, &mut keep);
        let said = said.join("\n");
        if status.success() { Ok(said) } else { Err(failed(last_words(&said))) }
    }

    /// Its version, where that is too old to be used.
    pub(super) fn too_old(&self, patience: &Patience<'_>) -> Option<String> {
        let said = self.run(&["version"], patience).ok()?;
        let mut numbers = said.trim().trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
        let version = (numbers.next().flatten()?, numbers.next().flatten()?);
        (version < VERSION_MIN).then(|| said.trim().to_string())
    }
}

/// The error in what a command said: its last line, or the whole where that is short.
fn last_words(said: &str) -> String {
    let line = said.lines().rev().find(|line| line.starts_with("Error: ") || line.contains("level=ERROR"));
    let line = line.or_else(|| said.lines().next_back()).unwrap_or("it said nothing");
    line.trim_start_matches("Error: ").to_string()
}
