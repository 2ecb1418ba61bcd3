//! Notifications over the death of the process.

use super::*;
use crate::agent::*;
use crate::cache::CacheError;

/// A world with a run under way that takes long.
fn running(seed: u64) -> (World, common::ids::Uuid) {
    let mut world = World::new(seed);
    world.server().publish(1, &["web.conf", "web.refresh"]);
    world.run_for(3 * INTERVAL);
    world.run_ms = INTERVAL / 2;
    let before = world.finished.len();
    world.run_for(INTERVAL + 10);
    while world.finished.len() == before {
        world.run_for(10);
    }
    let run_id = world.start_run();
    (world, run_id)
}

fn promise(world: &mut World, run_id: common::ids::Uuid, target: &str) {
    world.step(Event::Promise { run_id, targets: vec![target.into()] });
    world.run_for(3);
}

/// What the next run that ends was told to act on.
fn next_owed(world: &mut World) -> Vec<String> {
    let before = world.finished.len();
    world.run_for(3 * INTERVAL);
    world.finished[before].1.owed.clone()
}

#[test]
fn a_promise_is_stored_before_it_is_answered_and_outlives_a_kill() {
    let (mut world, run_id) = running(1);
    let stores = world.stores;
    world.step(Event::Promise { run_id, targets: vec!["web.refresh".into()] });
    assert_eq!((world.stores, world.promised.len()), (stores + 1, 0), "stored, not yet answered");
    world.run_for(3);
    assert_eq!(world.promised, [run_id]);
    promise(&mut world, run_id, "web.refresh");
    assert_eq!((world.stores, world.promised.len()), (stores + 1, 2), "what is stored is not stored again");
    world.crash();
    assert_eq!(next_owed(&mut world), ["web.refresh"]);
    assert!(next_owed(&mut world).is_empty(), "it was done");
}

#[test]
fn the_record_of_a_run_takes_its_promises_back() {
    let (mut world, run_id) = running(2);
    promise(&mut world, run_id, "web.refresh");
    let (stores, before) = (world.stores, world.finished.len());
    while world.finished.len() == before {
        world.run_for(10);
    }
    world.run_for(5);
    assert_eq!(world.stores, stores + 1, "one commit, the run's own");
    world.crash();
    assert!(next_owed(&mut world).is_empty());
}

#[test]
fn a_promise_waits_for_its_own_commit_and_a_disk_that_refuses_stops_no_run() {
    let (mut world, run_id) = running(3);
    world.commits_fail = Some(CacheError::Io("read-only file system".into()));
    promise(&mut world, run_id, "web.refresh");
    promise(&mut world, run_id, "web.conf");
    assert_eq!(world.promised, [run_id, run_id], "{:#?}", world.log);
    world.commits_fail = None;
    let owed = next_owed(&mut world);
    assert!(owed.is_empty(), "the run itself ended: {owed:?}");
}

#[test]
fn runs_that_change_nothing_cost_one_commit_each_as_before() {
    let mut world = World::new(4);
    world.server().publish(1, &["web.conf", "web.refresh"]);
    world.run_for(3 * INTERVAL);
    world.take_down("one:1530");
    world.run_for(300 * INTERVAL);
    let (stores, runs) = (world.stores, world.finished.len());
    world.run_for(40 * INTERVAL);
    assert_eq!((world.stores - stores) as usize, world.finished.len() - runs);
}

#[test]
fn a_run_that_cannot_start_forgets_no_promise() {
    let mut world = World::new(5);
    world.server().max_age_ms = 100_000;
    world.server().publish(1, &["web.conf", "web.refresh"]);
    world.run_for(INTERVAL);
    world.take_down("one:1530");
    // A run that outlasts its policy.
    world.run_for(70_000);
    world.run_ms = 200_000;
    let run_id = world.start_run();
    world.run_for(50_000);
    promise(&mut world, run_id, "web.refresh");
    world.run_ms = 100;
    world.crash();
    world.run_for(3 * INTERVAL);
    assert_eq!(world.logged("no run: the policy ran out"), 1, "{:#?}", world.log);
    world.server().up = true;
    world.run_for(700_000);
    let owed = world.finished.iter().filter(|(_, order)| order.owed == ["web.refresh"]).count();
    assert_eq!(owed, 1, "{:#?}", world.log);
}
