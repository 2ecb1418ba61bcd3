//! Executors of the system: kernel, limits, names, time, timetables, mounts. Each writes what survives a start; what holds now
//! is changed only where the root is that of the running system.

pub mod cron;
pub mod firewall;
pub mod hostname;
pub mod kernel_module;
pub mod limits;
pub mod mount;
mod nftables;
pub mod parts;
pub mod sysctl;
pub mod systemd_timer;
pub mod timezone;
mod ufw;
