//! Resident memory of held envoys, step by step, beside the floor.

use common::sys::Clock;
use common::time::Wall;
use vigosrv::store::DataSet;

use super::{Plan, Table, floor_command};
use crate::server::gauge;
use crate::server::load::{Crew, Depth, Job};
use crate::server::target::{Site, Target};

/// Check-ins of every envoy before its memory counts: buffers have grown by then.
const CALLS: u64 = 50;
/// Bytes of an answer that the floor gives.
const ANSWER_BYTES: u64 = 36;
/// Pause before a figure is read, milliseconds.
const SETTLE_MS: u64 = 1_000;

/// KiB for each of `plan.held` envoys after `CALLS` calls, with the steps that lead there.
pub fn held(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let n = plan.held;
    let floor = {
        let floor = Target::floor(&floor_command(plan, ANSWER_BYTES))?;
        let base = resident(&floor);
        let mut crew = Crew::start(floor.port, plan.processes, n)?;
        crew.run(Job::Connect(Depth::Connect), n)?;
        let connected = resident(&floor) - base;
        crew.run(Job::Rounds(1), n)?;
        let called = resident(&floor) - base;
        crew.run(Job::Rounds(CALLS), n)?;
        [connected, called, resident(&floor) - base]
    };
    let fleet = DataSet { days: 0, ..DataSet::month(n as u32 + 64, Wall(0)) };
    // The steps take longer than strangers and idle connections are given.
    let patient = "checkin: {interval: 1h}\n";
    let site = Site::make(&plan.dir.join("memory"), &plan.server, &fleet, patient)?;
    let server = site.start()?;
    let base = resident(&server);
    let mut crew = Crew::start(server.port, plan.processes, n)?;
    crew.run(Job::Connect(Depth::OneCall), n)?;
    let connected = resident(&server) - base;
    crew.close()?;
    drop(crew);
    server.stop()?;

    let server = site.start()?;
    let base = resident(&server);
    let mut crew = Crew::start(server.port, plan.processes, n)?;
    crew.run(Job::Connect(Depth::Held), n)?;
    let held = resident(&server) - base;
    crew.run(Job::Rounds(CALLS), n)?;
    let called = resident(&server) - base;

    let each = |kib: i64| format!("{:.1}", kib as f64 / n as f64);
    let what = format!("KiB for each of {n}");
    table.row(&format!("{what}: TLS, HTTP/2"), "".into(), each(floor[0]), "");
    table.row(&format!("{what}: after one call"), each(connected), each(floor[1]), "");
    table.row(&format!("{what}: authenticated, checked in, Watch held"), each(held), each(floor[1]), "");
    let budget = format!("{:.1} (floor + 3), goal 16", floor[2] as f64 / n as f64 + 3.0);
    table.row(&format!("{what}: after {CALLS} calls each"), each(called), each(floor[2]), &budget);
    server.stop()
}

fn resident(target: &Target) -> i64 {
    // Answers have arrived before the last of their buffers is let go.
    Clock::system().pause(SETTLE_MS);
    gauge::resident_kib(target.pid()) as i64
}
