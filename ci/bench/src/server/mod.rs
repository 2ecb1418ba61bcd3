//! What the server costs: a load generator of simulated envoys against a real server, beside a floor program.

pub mod gauge;
pub mod load;
pub mod measure;
pub mod target;
