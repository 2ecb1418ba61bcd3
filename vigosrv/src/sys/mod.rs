//! The operating system, wrapped: children that run beside this process, threads that share work, and many paths replaced together.

pub(crate) mod child;
pub(crate) mod shared;
pub(crate) mod swap;
