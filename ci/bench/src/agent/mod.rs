//! The agent's part: what a warm daemon costs at rest and in a run that changes nothing, beside a floor that makes the same checks.

mod files;
mod measure;
mod process;
mod station;

pub use files::Files;
pub use measure::{Plan, measure};
