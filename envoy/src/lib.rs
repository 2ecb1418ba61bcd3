//! The Vigo agent: gathers traits, converges, reports; survives without the server.

pub mod cache;
