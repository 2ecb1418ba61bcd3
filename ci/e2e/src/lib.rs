//! What tests and measurements with real processes share: a server and agents from the binaries of this build, in directories of
//! their own, stopped and removed with their values.

mod process;
mod site;

pub use process::{Process, binary, wait_until};
pub use site::{Envoy, Server};
