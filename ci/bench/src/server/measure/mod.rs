//! One file a measurement. Each makes what it needs, prints what it does on standard error, and adds rows to the table.

mod check_in;
mod memory;
mod polled;
mod restart;
mod results;

use std::path::PathBuf;

use super::gauge;
use super::load::{Crew, Job, Tally};
use super::target::Target;

pub use check_in::no_change;
pub use memory::held;
pub use polled::polled;
pub use restart::restart;
pub use results::results;

/// What to measure with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `vigosrv`.
    pub server: PathBuf,
    /// The floor program and its arguments but the last, the address; `{bytes}` is the length of an answer.
    pub floor: String,
    /// Scratch space.
    pub dir: PathBuf,
    /// Processes of the load generator.
    pub processes: usize,
    /// Windows of each target, which take turns.
    pub rounds: usize,
    /// Length of a window, milliseconds.
    pub window_ms: u64,
    /// Envoys held at a time; half the descriptors that a process may have are a bound.
    pub held: usize,
    /// Envoys in the database that is started.
    pub enrolled: u32,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured, with its unit.
    pub figure: String,
    /// Of the server.
    pub server: String,
    /// Of the floor, where there is one.
    pub floor: String,
    /// What it should be.
    pub budget: String,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(pub Vec<Row>);

impl Table {
    fn row(&mut self, figure: &str, server: String, floor: String, budget: &str) {
        eprintln!("bench: {figure}: {server}, floor {floor}");
        self.0.push(Row { figure: figure.into(), server, floor, budget: budget.into() });
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::from("| figure | server | floor | budget |\n|---|---|---|---|\n");
        for Row { figure, server, floor, budget } in &self.0 {
            out += &format!("| {figure} | {server} | {floor} | {budget} |\n");
        }
        out
    }
}

/// One target's windows of one job.
#[derive(Clone, Debug, Default)]
struct Windows {
    /// Done a second.
    rate: Vec<f64>,
    /// Microseconds of the target's CPU for each.
    cpu_us: Vec<f64>,
}

impl Windows {
    fn add(&mut self, target: &Target, crew: &mut Crew, job: Job, n: usize) -> Result<Tally, String> {
        let before = gauge::cpu_us(target.pid());
        let tally = crew.run(job, n)?;
        let cpu = gauge::cpu_us(target.pid()) - before;
        let done = tally.done.max(1) as f64;
        self.rate.push(done * 1_000.0 / tally.ms.max(1) as f64);
        self.cpu_us.push(cpu as f64 / done);
        Ok(tally)
    }

    fn rates(&self) -> String {
        format!("{:.0}", gauge::median(&self.rate))
    }

    /// Median, and the extremes.
    fn cpus(&self) -> String {
        let (low, high) =
            self.cpu_us.iter().fold((f64::MAX, 0.0), |(low, high): (f64, f64), us| (low.min(*us), high.max(*us)));
        format!("{:.1} ({low:.1}-{high:.1})", gauge::median(&self.cpu_us))
    }
}

/// Median of the ratios of neighbouring windows: what drifts on a shared machine falls out.
fn ratio(ours: &Windows, floor: &Windows) -> f64 {
    let pairs: Vec<f64> = ours.cpu_us.iter().zip(&floor.cpu_us).map(|(ours, floor)| ours / floor).collect();
    gauge::median(&pairs)
}

fn floor_command(plan: &Plan, answer_bytes: u64) -> String {
    plan.floor.replace("{bytes}", &answer_bytes.to_string())
}
