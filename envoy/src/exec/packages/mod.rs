//! Executors of packages. Managers differ in what they are called with and in how their database looks, and in nothing else:
//! each is a small table of commands behind [`manager::Manager`], and [`session`] is what drives all of them.

mod apk;
mod apt;
mod fetch;
mod installed;
mod manager;
pub mod nonrepo;
mod opkg;
pub mod package;
mod pacman;
pub mod repository;
mod rpm;
mod session;
pub mod source;
mod zypper;

pub use session::Known;
