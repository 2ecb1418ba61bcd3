//! The Vigo server: resolves policy, answers check-ins, stores runs.

pub mod app;
pub mod config;
pub mod fleet;
pub mod fuzz;
pub mod keys;
pub mod net;
pub mod policy;
pub mod publish;
mod rpc;
pub mod store;
