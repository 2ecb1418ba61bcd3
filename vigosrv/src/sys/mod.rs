//! The operating system, wrapped: threads that share work.

pub(crate) mod shared;
