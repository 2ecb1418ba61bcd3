//! The binaries of every target, and how they are run on this machine: by themselves where it is their architecture, otherwise by an
//! emulator that the kernel starts for them.
//!
//! `ci/cross` builds them into the cache; the tests of this crate run what is there and build nothing.

mod emulator;
mod guest;
mod image;
mod target;

pub use emulator::make_runnable;
pub use guest::{BOARDS, Board, Guest};
pub use image::{Image, ImageError};
pub use target::{PROBE, Target, cache, native_server, targets};
