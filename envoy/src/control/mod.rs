//! The agent's control socket: one request and one answer a connection, each one line of JSON. Only root and the agent's
//! own user can open it (mode 0600 in a directory of mode 0700).

mod client;
mod server;

pub use client::{ControlError, ask};
pub use server::{Control, Waiting};

use serde::{Deserialize, Serialize};

/// Name of the socket below the state directory.
pub const SOCKET: &str = "control.sock";
/// Bytes of a request.
pub const REQUEST_BYTES_MAX: usize = 4 << 10;
/// Bytes of an answer: the diffs of a run of thousands of resources.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// `vigo-envoy status`.
    Status,
    /// `vigo-envoy queue`.
    Queue,
    /// `vigo-envoy verify`.
    Verify,
    /// `vigo-envoy run --once`.
    RunOnce {
        /// Change nothing.
        dry_run: bool,
        /// Use the cache only.
        offline: bool,
        /// Show diffs.
        diff: bool,
        /// Tell of every resource, not only of those that there is something to say about: thousands of them.
        #[serde(default)]
        all: bool,
    },
}

/// An answer: a document, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The document of the verb.
    Document(serde_json::Value),
    /// What went wrong and what to do.
    Refused(String),
}
