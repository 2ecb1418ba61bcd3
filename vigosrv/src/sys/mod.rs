//! The operating system, wrapped: threads that share work, and many paths replaced together.

pub(crate) mod shared;
pub(crate) mod swap;
