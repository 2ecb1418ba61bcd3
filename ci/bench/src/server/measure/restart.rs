//! From the start of a server with a large fleet and a month of history to its first correct answer.

use common::rng::{Rng, SystemRng};
use common::sys::Clock;
use vigosrv::store::DataSet;

use super::{Plan, Table};
use crate::server::gauge;
use crate::server::load::{Depth, Engine, Job};
use crate::server::target::{Site, Target};

/// Starts of each kind.
const STARTS: usize = 5;
/// A start that takes longer has failed, milliseconds.
const START_MS: u64 = 120_000;

/// Milliseconds to the first answer, after a clean stop and after `kill -9`.
pub fn restart(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let fleet = DataSet::month(plan.enrolled, Clock::system().now().wall);
    eprintln!("bench: making 30 days of {} envoys", plan.enrolled);
    let site = Site::make(&plan.dir.join("restart"), &plan.server, &fleet, "")?;
    // The first start settles what the maker of the database does not know.
    let (server, _) = first_answer(plan, &site)?;
    server.stop()?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..STARTS {
        let (server, clean_ms) = first_answer(plan, &site)?;
        times[0].push(clean_ms);
        server.kill()?;
        let (server, killed_ms) = first_answer(plan, &site)?;
        times[1].push(killed_ms);
        server.stop()?;
    }
    let mib = site.database_bytes() >> 20;
    for (kind, times) in ["a clean stop", "kill -9"].into_iter().zip(&times) {
        let longest = times.iter().copied().fold(0.0, f64::max);
        let what =
            format!("start with {} envoys, 30 days, {mib} MiB, after {kind}: ms to the first answer", plan.enrolled);
        table.row(&what, format!("{:.0} (up to {longest:.0})", gauge::median(times)), "-".into(), "2000, goal 1000");
    }
    Ok(())
}

/// A fresh process answers one envoy, chosen at random.
fn first_answer(plan: &Plan, site: &Site) -> Result<(Target, f64), String> {
    let envoy = SystemRng::default().below(u64::from(plan.enrolled)) as u32;
    let clock = Clock::system();
    let start = clock.now().mono;
    let server = site.launch()?;
    loop {
        let mut engine = Engine::new(server.port, envoy..envoy + 1).map_err(|error| error.to_string())?;
        let tally = engine.run(Job::Connect(Depth::CheckIn), 1).map_err(|error| error.to_string())?;
        let ms = clock.now().mono.since(start);
        if tally.done == 1 {
            return Ok((server, ms as f64));
        }
        if ms > START_MS {
            return Err(format!("no answer within {START_MS} ms: {}", tally.why));
        }
        clock.pause(1);
    }
}
