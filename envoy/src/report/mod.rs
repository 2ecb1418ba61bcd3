//! From outcomes to records, and from records to what is sent next. A core: it touches neither disk nor network.

mod bytes;
mod lane;
mod queue;
mod reconcile;
mod record;
mod refuse;
mod run;
mod shrink;

pub use bytes::{Reader, Writer};
pub use lane::{Entry, Lane};
pub use queue::{Next, Queue};
pub use reconcile::Standing;
pub use record::{RunContext, Verdict, cut, incident, run_result};
pub use refuse::Refusal;
pub use run::{ResourceReport, RunReport};
