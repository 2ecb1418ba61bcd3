//! What a run does, in which order, and what follows from each outcome. Knows no executor: it hands rendered parameters to
//! [`Hands`] and reads verdicts. A core: time, the stop flag and every action are behind that trait.

mod params;
mod walk;

pub use params::{Params, fingerprint};
pub use walk::{Hands, Options, Task, Verdict, Walked, walk};
