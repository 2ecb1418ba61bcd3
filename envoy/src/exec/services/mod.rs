//! Executors of services: one type, one back end for each family of init systems.

mod init;
mod openrc;
mod scripts;
pub mod service;
mod systemd;
