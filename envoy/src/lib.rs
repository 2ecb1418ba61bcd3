//! The Vigo agent: gathers traits, converges, reports; survives without the server.
#![warn(missing_docs)]

pub mod agent;
pub mod cache;
pub mod exec;
pub mod report;
pub mod sys;
