//! What tests and measurements with real processes share: a server and agents from the binaries of this build, in directories of
//! their own, stopped and removed with their values; a proxy between them; and the account of what was run and what was stored.

mod deaf;
pub mod fleet;
pub mod guide;
mod kept;
mod ledger;
mod machine;
mod mounts;
mod process;
mod proxy;
pub mod replica;
mod router;
mod site;
pub mod trace;
mod wire;

pub use deaf::{Deaf, LATE, SLACK, check_pause, pause_fits};
pub use kept::{KEPT, MAPPINGS, mappings};
pub use ledger::{Account, Entry, Stored, account, read_ledger, stored_records};
pub use nix::sys::signal::Signal;

pub use machine::Machine;
pub use mounts::{Disk, with_own_mounts};
pub use process::{Process, binary, pause, timed, wait_for, wait_until};
pub use proxy::{Caught, Proxy};
pub use router::Router;
pub use site::{Envoy, Server, enrolled, free_port, mapping};
