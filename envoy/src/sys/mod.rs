//! What the agent needs of the operating system: walking without following links, replacing files whole, children that end,
//! accounts without NSS, work that may crash. The only `unsafe` of the agent outside the store's opening.
//!
//! A shell: nothing here decides what a host should look like.

pub mod accounts;
pub mod child;
pub mod detach;
pub mod fork;
pub mod program;
pub mod replace;
pub mod root;
pub mod unsynced;
pub mod xattr;
