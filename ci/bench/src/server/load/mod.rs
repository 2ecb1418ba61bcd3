//! The load generator: simulated envoys in several processes, so that one process's descriptors and one core do not bound
//! them. The parent says what to do in lines of text on a worker's stdin and reads a line about each job from its stdout.

mod crew;
mod engine;
mod envoy;
mod worker;

pub use crew::Crew;
pub use engine::{Engine, Job, Tally};
pub use envoy::{CHANGED_PER_RUN, Depth};
pub use worker::work;
