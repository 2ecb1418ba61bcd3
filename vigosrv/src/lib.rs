//! The Vigo server: resolves policy, answers check-ins, stores runs.

pub mod policy;
pub mod config;
pub mod store;
