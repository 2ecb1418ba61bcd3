//! The agent's durable state: the only LMDB of the product is below this folder.

mod ops;

pub use ops::*;
