//! What the agent's core needs to know of its configuration, and of itself, when it starts.

use common::crypto::SigningKey;
use common::ids::Uuid;
use common::limits;

use super::pins::Pins;
use crate::cache::Loaded;

/// The part of `envoy.yaml` that the core obeys. HUP replaces it whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// `servers:`, each `host:port`, most preferred first.
    pub servers: Vec<String>,
    /// `rebootstrap: deny`: no statement moves this envoy to another server identity.
    pub rebootstrap_deny: bool,
    /// Bound of the queue, in bytes.
    pub queue_bytes_max: u64,
}

impl Default for AgentConfig {
    fn default() -> AgentConfig {
        AgentConfig { servers: Vec::new(), rebootstrap_deny: false, queue_bytes_max: limits::QUEUE_BYTES_DEFAULT }
    }
}

/// How the process was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `daemon`: runs and checks in by itself.
    Daemon,
    /// `run --once` without a daemon: does nothing until asked by [`super::ControlRequest::RunOnce`], then exits by TERM.
    OneShot,
}

/// Everything that the core is given once.
#[derive(Debug)]
pub struct AgentInit {
    /// How the process was started.
    pub mode: Mode,
    /// Its configuration.
    pub config: AgentConfig,
    /// Who this envoy is.
    pub uuid: Uuid,
    /// Its identity key.
    pub key: SigningKey,
    /// Public half of the key that its secrets are sealed to.
    pub sealing: [u8; 32],
    /// Whom it trusts.
    pub pins: Pins,
    /// What the store held.
    pub loaded: Loaded,
    /// Names this boot of the host; a new one after every boot.
    pub boot_id: String,
    /// `/etc/machine-id`, to tell clones apart.
    pub machine_id: String,
    /// Version of the agent.
    pub version: String,
    /// When this binary was built: server time is never believed to be earlier. Wall milliseconds.
    pub build_ms: u64,
}
