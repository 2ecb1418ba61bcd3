//! The fleet simulator: the real server core and real agent cores in one process, from one seed, on virtual time, network
//! and disk.
//!
//! A seed decides everything: latencies, what breaks and when, which host drifts. The same seed gives the same run, event
//! for event, so a failing seed replays (`vigo-sim --replay SEED`). What is checked, and when, is in [`check`]; what can
//! break is in [`faults`]; bugs that are planted on purpose, to prove that the checkers see them, are in [`plant`].

mod agenda;
pub mod check;
pub mod faults;
mod host;
mod net;
pub mod plant;
mod policy;
mod site;
mod world;

pub use world::{Config, Outcome, run};
