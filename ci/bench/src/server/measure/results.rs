//! Durable results: a fleet that was alone for a while delivers its queues.

use common::time::Wall;
use vigosrv::store::DataSet;

use super::{Plan, Table, Windows};
use crate::server::load::{CHANGED_PER_RUN, Crew, Depth, Job};
use crate::server::target::Site;

/// Results that each envoy has queued, and how many of them one report carries.
const QUEUES: [(u64, u64); 2] = [(20, 20), (4, 1)];

/// Results acknowledged a second.
pub fn results(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let n = plan.held;
    let fleet = DataSet { days: 0, ..DataSet::month(n as u32 + 64, Wall(0)) };
    let site = Site::make(&plan.dir.join("results"), &plan.server, &fleet, "")?;
    let server = site.start()?;
    let mut crew = Crew::start(server.port, plan.processes, n)?;
    crew.run(Job::Connect(Depth::Held), n)?;
    for (each, batch) in QUEUES {
        let mut windows = Windows::default();
        let (mut put_off, mut reports) = (0, 0);
        for _ in 0..plan.rounds.div_ceil(2) {
            let tally = windows.add(&server, &mut crew, Job::Drain { each, batch }, n)?;
            (put_off, reports) = (put_off + tally.put_off, reports + tally.done / batch);
        }
        let what = format!(
            "durable results of {CHANGED_PER_RUN} changed resources, {n} envoys with {each} queued, {batch} in a report"
        );
        let budget = if batch > 1 { "20000, goal 30000" } else { "" };
        table.row(&format!("{what}: a second"), windows.rates(), "-".into(), budget);
        table.row(&format!("{what}: CPU us each"), windows.cpus(), "-".into(), "");
        eprintln!("bench: {put_off} of {reports} reports were put off once or more: the database was behind");
    }
    server.stop()
}
