//! What the executors need of the operating system: walking without following links, replacing files whole, children that
//! end, accounts without NSS. The only `unsafe` of the agent outside the store's opening.
//!
//! A shell: nothing here decides what a host should look like.

pub mod accounts;
pub mod child;
pub mod replace;
pub mod root;
pub mod xattr;
