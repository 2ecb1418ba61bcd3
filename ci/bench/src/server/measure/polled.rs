//! Envoys that come, check in and go; and handshakes alone.

use common::time::Wall;
use vigosrv::store::DataSet;

use super::{Plan, Table, Windows, floor_command};
use crate::server::gauge;
use crate::server::load::{Crew, Depth, Job, Tally};
use crate::server::target::{Site, Target};

/// Envoys that are under way at a time.
const BUSY: usize = 64;
/// Bytes of an answer that the floor gives.
const ANSWER_BYTES: u64 = 36;

/// Rate and CPU of polled check-ins, and of full and resumed handshakes.
pub fn polled(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let fleet = DataSet { days: 0, ..DataSet::month(BUSY as u32 + 64, Wall(0)) };
    let site = Site::make(&plan.dir.join("polled"), &plan.server, &fleet, "")?;
    let server = site.start()?;
    let mut envoys = Crew::start(server.port, plan.processes, BUSY)?;
    // The first connection of each gets the ticket.
    envoys.run(Job::Connect(Depth::CheckIn), BUSY)?;
    envoys.close()?;
    let floor = Target::floor(&floor_command(plan, ANSWER_BYTES))?;
    let mut callers = Crew::start(floor.port, plan.processes, BUSY)?;
    callers.run(Job::Connect(Depth::OneCall), BUSY)?;
    callers.close()?;

    let ms = plan.window_ms;
    let job = |depth, fresh| Job::Again { depth, fresh, ms };
    let mut check_ins = Windows::default();
    let mut shakes = [[Windows::default(), Windows::default()], [Windows::default(), Windows::default()]];
    // A floor may forget sessions: then it did some full handshakes, and the row says so.
    let mut floor_resumed = Vec::new();
    for _ in 0..plan.rounds {
        all_resumed(&check_ins.add(&server, &mut envoys, job(Depth::CheckIn, false), BUSY)?)?;
        for (fresh, windows) in [false, true].into_iter().zip(&mut shakes) {
            let ours = windows[0].add(&server, &mut envoys, job(Depth::OneCall, fresh), BUSY)?;
            let theirs = windows[1].add(&floor, &mut callers, job(Depth::OneCall, fresh), BUSY)?;
            if !fresh {
                all_resumed(&ours)?;
                floor_resumed.push(100.0 * theirs.resumed as f64 / theirs.done.max(1) as f64);
            }
        }
    }
    let dash = || "-".to_string();
    table.row(&format!("polled check-ins, {BUSY} at a time: a second"), check_ins.rates(), dash(), "");
    table.row("polled check-ins: CPU us each", check_ins.cpus(), dash(), "300, goal 200");
    for (what, [ours, theirs]) in ["resumed", "full"].into_iter().zip(&shakes) {
        let what = format!("{what} handshakes, each with one call that is refused");
        table.row(&format!("{what}: a second"), ours.rates(), theirs.rates(), "");
        table.row(&format!("{what}: CPU us each"), ours.cpus(), theirs.cpus(), "");
    }
    table.row(
        "resumed, of those that asked for it: %",
        "99 or more".into(),
        format!("{:.0}", gauge::median(&floor_resumed)),
        "",
    );
    server.stop()
}

/// One in a hundred may have lost its ticket: a job ends while connections are being made.
fn all_resumed(tally: &Tally) -> Result<(), String> {
    if tally.resumed * 100 < tally.done * 99 {
        return Err(format!("of {} connections only {} resumed", tally.done, tally.resumed));
    }
    Ok(())
}
