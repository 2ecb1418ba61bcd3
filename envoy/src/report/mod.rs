//! From outcomes to records, and from records to what is sent next. A core: it touches neither disk nor network.

mod run;

pub use run::{ResourceReport, RunReport};
