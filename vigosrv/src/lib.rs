//! The Vigo server: resolves policy, answers check-ins, stores runs.

pub mod api {
    //! The REST API; the handlers follow.
    pub mod http;
    mod message;
    pub use message::{Body, Origin, Request, Respond, Response};
}
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
