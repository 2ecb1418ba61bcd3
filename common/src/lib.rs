//! What the Vigo server and agent share: the model, the protocol, identities, policy and limits.
//!
//! Everything here but `cli`, `net` and `sys` is a *core*: it reads no clock, draws no entropy and touches no file. Time, randomness
//! and bytes come in as arguments, so the same code runs in production and in the simulator.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod backoff;
pub mod base64;
pub mod bundle;
pub mod chain;
pub mod cli;
pub mod crypto;
pub mod deadline;
pub mod fuzz;
pub mod glob;
pub mod ids;
pub mod limits;
pub mod log;
pub mod net;
pub mod outcome;
pub mod policy;
pub mod proto;
pub mod redact;
pub mod rng;
pub mod settings;
pub mod splay;
pub mod sys;
pub mod time;
pub mod units;
pub mod x509;
pub mod yaml;
