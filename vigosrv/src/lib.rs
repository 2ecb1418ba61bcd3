//! The Vigo server: resolves policy, answers check-ins, stores runs.

pub mod config;
pub mod policy;
pub mod store;
