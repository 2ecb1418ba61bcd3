//! The agent's core: `step(now, event) -> effects`. It decides when to run, whom to connect to, what to trust, what to apply
//! and what to send. It reads no clock, draws no entropy and touches no file or socket; the same code runs in production
//! and in the simulator.

mod config;
mod events;
pub mod pins;
pub mod status;

pub use config::{AgentConfig, AgentInit, Mode};
pub use events::{
    CallId, ControlId, ControlReply, ControlRequest, Effect, Event, LinkId, Notice, PresentedCa, RunOrder, Signal,
    Target, Ticket, TraitTree,
};
