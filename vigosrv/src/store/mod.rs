//! The server's durable state: the only SQL of the product is below this folder.

mod ops;

pub use ops::*;
