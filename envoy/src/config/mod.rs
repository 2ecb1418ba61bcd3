//! `envoy.yaml`: the settings of the agent, from one table that drives the loader, its suggestions and the reference.
//!
//! A shell: reads one file. A missing file means defaults; a wrong one is refused with its place, and a running agent then
//! keeps the settings that it has. Relative paths are below the directory of the file.

use std::fmt;
use std::path::{Path, PathBuf};

use common::cli::{Exit, Failure};
use common::limits;
use common::log::Level;
use common::settings::{Form, Setting, Settings, reference};
use common::sys::{Clock, FileError, TestClock, file};
use common::yaml::{self, Doc};

use crate::agent::AgentConfig;

/// Where the settings are unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/vigo/envoy.yaml";
/// Environment variable that describes the test clock; see [`TestClock::parse`].
pub const TEST_CLOCK_VARIABLE: &str = "VIGO_TEST_CLOCK";

/// Settings of the agent, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvoyConfig {
    /// `servers`, each `host:port`.
    pub servers: Vec<String>,
    /// `state_dir`.
    pub state_dir: PathBuf,
    /// `identity_dir`.
    pub identity_dir: PathBuf,
    /// `sysroot`: what policy calls `/`.
    pub sysroot: PathBuf,
    /// `traits_dir`: programs that print traits.
    pub traits_dir: PathBuf,
    /// `state.max_bytes`.
    pub state_bytes_max: u64,
    /// `queue.max_bytes`, at most half of the state.
    pub queue_bytes_max: u64,
    /// `blobs.max_bytes`.
    pub blob_bytes_max: u64,
    /// `allow_self`: policy may stop, remove or overwrite the agent.
    pub allow_self: bool,
    /// `rebootstrap: deny`.
    pub rebootstrap_deny: bool,
    /// `tasks: deny`.
    pub tasks_deny: bool,
    /// `test_clock: allow`.
    pub test_clock_allow: bool,
    /// `log.level`.
    pub log_level: Level,
    /// `log.format: json`.
    pub log_json: bool,
}

/// Why there are no settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    File(FileError),
    /// What is wrong in it, all at once.
    Wrong(Vec<yaml::Error>),
    /// The test clock of the environment is wrong.
    TestClock(String),
}

const MIB: u64 = 1 << 20;

const fn row(key: &'static str, form: Form, default: &'static str, doc: &'static str) -> Setting {
    Setting { key, form, default, doc }
}

const STATE_DEFAULT: &str = if limits::STATE_BYTES_DEFAULT == 256 * MIB { "256MiB" } else { "32MiB" };

/// The table.
pub static TABLE: [Setting; 14] = [
    row(
        "servers",
        Form::Servers(limits::SERVERS_MAX),
        "[]",
        "Servers to try, best first, before those that the server advertises.",
    ),
    row("state_dir", Form::Path, "/var/lib/vigo/state", "The state store, its lock and the control socket."),
    row("identity_dir", Form::Path, "/var/lib/vigo/identity", "The keys of this envoy and of its server."),
    row("sysroot", Form::Path, "/", "What policy calls `/`: file paths are below it, commands run in it."),
    row("traits_dir", Form::Path, "/etc/vigo/traits.d", "Executables that print traits of their own as JSON."),
    row("state.max_bytes", Form::Size(limits::STATE_BYTES_MIN, 64 << 30), STATE_DEFAULT, "Size of the state store."),
    row(
        "queue.max_bytes",
        Form::Size(64 << 10, 32 << 30),
        "64MiB",
        "Results that wait for the server; at most half of the state store.",
    ),
    row("blobs.max_bytes", Form::Size(MIB, 1 << 40), "512MiB", "Files that policy brings along."),
    row("allow_self", Form::Bool, "false", "Let policy stop, remove or overwrite the agent itself."),
    row("rebootstrap", Form::Choice(&["allow", "deny"], &[]), "allow", "Move to another server when this one says so."),
    row("tasks", Form::Choice(&["allow", "deny"], &[]), "allow", "Run tasks that operators send."),
    row("test_clock", Form::Choice(&["deny", "allow"], &[]), "deny", "For tests: honour VIGO_TEST_CLOCK."),
    row("log.level", Form::Choice(&["error", "warn", "info", "debug"], &[]), "info", "How much is logged."),
    row("log.format", Form::Choice(&["text", "json"], &[]), "text", "One line a record, for people or for machines."),
];

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::File(error) => write!(f, "{error}"),
            ConfigError::Wrong(errors) => f.write_str(&yaml::render(errors)),
            ConfigError::TestClock(reason) => write!(f, "{TEST_CLOCK_VARIABLE}: {reason}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(
            Exit::BadConfig,
            match &error {
                ConfigError::Wrong(errors) => errors.iter().min().map(yaml::Error::summary).unwrap_or_default(),
                _ => error.to_string(),
            },
        )
    }
}

impl EnvoyConfig {
    /// Reads the settings. The file may be missing unless it was named with `--config`.
    pub fn load(named: Option<&Path>) -> Result<EnvoyConfig, ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        match file::read_bounded(path, limits::YAML_BYTES_MAX as u64) {
            Ok(bytes) => EnvoyConfig::parse(path, &bytes).map_err(ConfigError::Wrong),
            Err(error) if error.kind == std::io::ErrorKind::NotFound && named.is_none() => {
                EnvoyConfig::parse(path, b"").map_err(ConfigError::Wrong)
            }
            Err(error) => Err(ConfigError::File(error)),
        }
    }

    /// Checks the bytes of a file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<EnvoyConfig, Vec<yaml::Error>> {
        let doc = Doc::load(&path.display().to_string(), bytes).map_err(|error| vec![error])?;
        let settings = Settings::load(&TABLE, std::slice::from_ref(&doc))?;
        let (state, queue) = (settings.number("state.max_bytes"), settings.number("queue.max_bytes"));
        if queue > state / 2 && settings.is_given("queue.max_bytes") {
            let error =
                settings.error(&[doc], "queue.max_bytes", "`queue.max_bytes` is more than half of `state.max_bytes`");
            return Err(vec![error.expected(format!("at most {}", common::units::human_bytes(state / 2)))]);
        }
        let base = path.parent().unwrap_or(Path::new("/"));
        let below = |key| base.join(settings.text(key));
        Ok(EnvoyConfig {
            servers: settings.list("servers").to_vec(),
            state_dir: below("state_dir"),
            identity_dir: below("identity_dir"),
            sysroot: below("sysroot"),
            traits_dir: below("traits_dir"),
            state_bytes_max: state,
            queue_bytes_max: queue.min(state / 2),
            blob_bytes_max: settings.number("blobs.max_bytes"),
            allow_self: settings.is("allow_self"),
            rebootstrap_deny: settings.text("rebootstrap") == "deny",
            tasks_deny: settings.text("tasks") == "deny",
            test_clock_allow: settings.text("test_clock") == "allow",
            log_level: Level::from_name(settings.text("log.level")).unwrap_or(Level::Info),
            log_json: settings.text("log.format") == "json",
        })
    }

    /// What the agent's core obeys.
    pub fn core(&self) -> AgentConfig {
        AgentConfig {
            servers: self.servers.clone(),
            rebootstrap_deny: self.rebootstrap_deny,
            queue_bytes_max: self.queue_bytes_max,
        }
    }

    /// The clock: the host's, unless a test clock is described in the environment and allowed here. `variable` is the value
    /// of [`TEST_CLOCK_VARIABLE`].
    pub fn clock(&self, variable: Option<&str>) -> Result<Clock, ConfigError> {
        match variable.filter(|_| self.test_clock_allow) {
            Some(text) => TestClock::parse(text).map(Clock::test).map_err(ConfigError::TestClock),
            None => Ok(Clock::system()),
        }
    }
}

/// The annotated reference of `envoy.yaml`. The error is a sentence for people.
pub fn envoy_yaml_reference(section: Option<&str>) -> Result<String, String> {
    reference(&TABLE, section)
}

#[cfg(test)]
mod tests;
