//! The agent against a scripted server: what it does over time, and after every kind of trouble.

mod confirm;
mod harness;
mod law;
mod life;
mod notify;
mod refusal;
mod renewal;
mod server;
mod trust;

use harness::*;
