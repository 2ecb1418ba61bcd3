//! What a large policy costs: commands of `vigocli` on a generated tree, each a fresh process, with no server and with one.

mod measure;
mod timed;
mod tree;

pub use measure::{Plan, measure};
pub use timed::run_here;
