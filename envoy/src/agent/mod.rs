//! The agent's core: `step(now, event) -> effects`. It decides when to run, whom to connect to, what to trust, what to apply
//! and what to send. It reads no clock, draws no entropy and touches no file or socket; the same code runs in production
//! and in the simulator.
//!
//! [`Agent`] is one state with one function; its parts lie in one file each: `converge` (runs), `contact` (getting an
//! authenticated channel), `exchange` (what is said on it), `adopt` (policy becoming current), `refusal` (reports that a
//! server does not take), `moves` (another server), `persist` (commits), `control` (the socket, TERM), `renewal` (HUP). Pure pieces without any state of the agent are `schedule`, `endpoint`,
//! `clock`, `session`, `gate`, `history`, `notes` and `pins`.

mod adopt;
mod clock;
mod config;
mod contact;
mod control;
mod converge;
mod core;
mod endpoint;
mod events;
mod exchange;
mod gate;
mod history;
mod moves;
mod notes;
mod persist;
pub mod pins;
mod refusal;
mod renewal;
mod schedule;
mod sealing;
mod session;
pub mod status;
#[cfg(test)]
mod tests;
mod told;

pub use self::core::Agent;
pub use config::{AgentConfig, AgentInit, Mode};
pub use endpoint::{EndpointAction, EndpointEvent, Endpoints};
pub use events::{
    CallId, ControlId, ControlReply, ControlRequest, Effect, Event, LinkId, Notice, PresentedCa, RunOrder, Signal,
    Target, Ticket, TraitTree,
};
pub use gate::{Applied, Gate, Offer, OfferRefused};
pub use session::hello_request;
