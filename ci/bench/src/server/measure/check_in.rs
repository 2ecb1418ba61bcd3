//! No-change check-ins over held connections, beside the floor.

use common::time::Wall;
use vigosrv::store::DataSet;

use super::{Plan, Table, Windows, floor_command, ratio};
use crate::server::load::{Crew, Depth, Job};
use crate::server::target::{Site, Target};

/// Connections to each target,
const CONNECTIONS: usize = 1_000;
/// of which so many always have a call in flight.
const BUSY: usize = 64;

/// Rate and CPU of a no-change check-in, and the ratio to the floor.
pub fn no_change(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let fleet = DataSet { days: 0, ..DataSet::month(CONNECTIONS as u32 + 64, Wall(0)) };
    let site = Site::make(&plan.dir.join("check-in"), &plan.server, &fleet, "")?;
    let server = site.start()?;
    let mut envoys = Crew::start(server.port, plan.processes, CONNECTIONS)?;
    envoys.run(Job::Connect(Depth::Held), CONNECTIONS)?;
    let answer_bytes = envoys.run(Job::Busy(500), BUSY)?.answer_bytes;

    let floor = Target::floor(&floor_command(plan, answer_bytes))?;
    let mut callers = Crew::start(floor.port, plan.processes, CONNECTIONS)?;
    callers.run(Job::Connect(Depth::Connect), CONNECTIONS)?;
    let floor_bytes = callers.run(Job::Busy(500), BUSY)?.answer_bytes;

    let (mut ours, mut theirs) = (Windows::default(), Windows::default());
    for _ in 0..plan.rounds {
        ours.add(&server, &mut envoys, Job::Busy(plan.window_ms), BUSY)?;
        theirs.add(&floor, &mut callers, Job::Busy(plan.window_ms), BUSY)?;
    }
    let what = format!("no-change check-ins, {CONNECTIONS} held, {BUSY} busy");
    table.row(&format!("{what}: a second"), ours.rates(), theirs.rates(), "");
    table.row(&format!("{what}: CPU us each"), ours.cpus(), theirs.cpus(), "");
    let ratio = format!("{:.2}", ratio(&ours, &theirs));
    table.row("ratio of the CPU of neighbouring windows", ratio, "1".into(), "1.5, goal 1.2");
    // A floor may answer with bytes that are no message; then it knows their number.
    let floor_bytes = if floor_bytes > 0 { floor_bytes.to_string() } else { "its own".into() };
    table.row("bytes of an answer, with the prefix of gRPC", answer_bytes.to_string(), floor_bytes, "under 64");
    server.stop()
}
