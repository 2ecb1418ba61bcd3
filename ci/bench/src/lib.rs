//! Measuring programs: what the server costs under a fleet. `ci/bench/run PART` builds and runs them; none is part of `ci/run`.
#![warn(missing_docs)]

pub mod server;
