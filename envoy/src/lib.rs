//! The Vigo agent: gathers traits, converges, reports; survives without the server.
#![warn(missing_docs)]

pub mod agent;
pub mod boot;
pub mod cache;
pub mod cli;
pub mod config;
pub mod control;
pub mod exec;
pub mod identity;
pub mod link;
pub mod plan;
pub mod report;
pub mod sys;
pub mod traits;
