//! The Vigo server: resolves policy, answers check-ins, stores runs.
#![warn(missing_docs)]

pub mod api;
pub mod app;
pub mod backup;
pub mod boot;
pub mod cli;
pub mod config;
pub mod fleet;
pub mod fuzz;
pub mod keys;
pub mod litestream;
pub mod net;
pub mod policy;
pub mod publish;
mod rpc;
pub mod secrets;
pub mod store;
mod sys;
