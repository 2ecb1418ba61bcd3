//! HUP: a new process in place of the old one, and nothing lost between them.

use common::chain::Lane;
use common::outcome::Outcome;

use super::*;
use crate::agent::*;
use crate::cache::CacheError;

fn hup() -> Event {
    Event::Signal(Signal::Renew(Box::default()))
}

/// A world in which a run of a minute is under way, which changes something.
fn in_a_run(seed: u64) -> World {
    let mut world = World::new(seed);
    world.server().publish(1, &["web.motd"]);
    world.run_for(3 * INTERVAL);
    world.run_ms = 60_000;
    world.drift.push("web.motd".into());
    world.start_run();
    world.run_for(1_000);
    world
}

#[test]
fn a_run_under_way_ends_and_is_stored_before_the_program_is_executed_anew() {
    let mut world = in_a_run(400);
    let (finished, urgent) = (world.finished.len(), world.server().count(Lane::Urgent));
    world.push(0, hup());
    world.push(10, hup());
    world.run_for(50_000);
    assert_eq!((world.renewed, world.finished.len(), world.stop_run), (0, finished, false));
    world.run_ms = 100;
    world.run_for(20_000);
    assert_eq!((world.renewed, world.exit), (1, None), "{:#?}", world.log);
    assert!(world.finished.len() > finished);
    assert_eq!(world.server().count(Lane::Urgent), urgent + 1, "{:#?}", world.log);
    assert!(world.server().chain_holds() && world.server().forks.is_empty());
}

#[test]
fn between_runs_the_program_is_executed_at_once_and_the_new_process_runs_at_once() {
    let mut world = World::new(401);
    world.server().publish(1, &["web.motd"]);
    world.run_for(3 * INTERVAL);
    let finished = world.finished.len();
    world.push(0, hup());
    world.run_for(1_000);
    assert_eq!((world.renewed, world.finished.len()), (1, finished + 1), "{:#?}", world.log);
}

#[test]
fn a_program_that_cannot_be_executed_is_an_incident_and_runs_go_on() {
    let mut world = World::new(402);
    world.server().publish(1, &["web.motd"]);
    world.run_for(3 * INTERVAL);
    world.renew_fails = true;
    let (finished, urgent) = (world.finished.len(), world.server().count(Lane::Urgent));
    world.push(0, hup());
    world.run_for(3 * INTERVAL);
    assert_eq!((world.renewed, world.logged("no such program")), (0, 1), "{:#?}", world.log);
    assert!(world.finished.len() >= finished + 2);
    assert_eq!(world.server().count(Lane::Urgent), urgent + 1, "the incident");
    world.renew_fails = false;
    world.push(0, hup());
    world.run_for(1_000);
    assert_eq!(world.renewed, 1);
}

#[test]
fn term_wins() {
    let mut world = in_a_run(403);
    world.push(0, hup());
    world.push(10, Event::Signal(Signal::Term));
    world.run_for(10_000);
    assert_eq!((world.renewed, world.exit), (0, Some(0)), "{:#?}", world.log);
}

#[test]
fn what_is_in_memory_alone_is_not_left_behind_and_runs_go_on_meanwhile() {
    let mut world = World::new(404);
    world.server().publish(1, &["web.motd"]);
    world.run_for(3 * INTERVAL);
    world.commits_fail = Some(CacheError::Io("read-only".into()));
    world.outcomes.insert("web.motd".into(), Outcome::Failed);
    world.take_down("one:1530");
    world.run_for(2 * INTERVAL);
    let finished = world.finished.len();
    world.push(0, hup());
    world.run_for(3 * INTERVAL);
    assert_eq!(world.renewed, 0, "{:#?}", world.log);
    assert!(world.finished.len() >= finished + 2);
    world.commits_fail = None;
    world.run_for(2 * INTERVAL);
    assert_eq!(world.renewed, 1, "{:#?}", world.log);
    let failed = world.finished.len() as u64;
    world.server().up = true;
    world.run_for(600_000);
    assert!(world.server().count(Lane::Urgent) >= failed - 3, "{:#?}", world.log);
    assert!(world.server().chain_holds());
}

#[test]
fn somebody_who_waits_for_the_run_is_told_of_it_and_nobody_else_is_left_waiting() {
    let mut world = World::new(405);
    world.server().publish(1, &["web.motd"]);
    world.run_for(3 * INTERVAL);
    world.run_ms = 10_000;
    let once = ControlRequest::RunOnce { dry_run: false, offline: true, diff: false, all: true };
    world.control(1, once.clone());
    world.run_for(1_000);
    world.push(0, hup());
    world.run_for(100);
    world.control(2, once);
    world.run_for(20_000);
    let told = |id| world.replies.iter().filter(move |(to, _)| *to == id).map(|(_, reply)| reply);
    assert!(told(1).all(|reply| matches!(reply, ControlReply::Ran(_))) && told(1).count() == 1, "{:#?}", world.log);
    assert!(told(2).all(|reply| matches!(reply, ControlReply::Refused(_))) && told(2).count() == 1);
    assert_eq!(world.renewed, 1);
}
