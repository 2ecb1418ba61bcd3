//! What both binaries need of the operating system: clocks, small files, locks, signals, limits, the service manager.
//!
//! A shell: nothing here decides anything. All of it through safe wrappers; what needs `unsafe` lives in the `sys` folder
//! of the crate that needs it.
#![allow(clippy::disallowed_methods, reason = "the one folder of this crate that reads clocks and waits")]

pub mod clock;
pub mod file;
pub mod lock;
pub mod logger;
pub mod net;
pub mod notify;
pub mod process;
pub mod redaction;
pub mod signals;

pub use clock::{Clock, TestClock};
pub use file::{FileError, Owner};
pub use lock::{Lock, LockError};
pub use signals::Signals;
