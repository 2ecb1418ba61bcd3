//! Measuring programs: what the server costs under a fleet, and the agent on its host. `ci/bench/run PART` builds and runs
//! them; none is part of `ci/run`.
#![warn(missing_docs)]

pub mod agent;
pub mod policy;
pub mod server;
