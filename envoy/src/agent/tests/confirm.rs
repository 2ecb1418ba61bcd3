//! A run that wants to know whether a server can still be reached.

use super::*;
use crate::agent::*;
use common::ids::Uuid;

/// A world with a run under way that takes long.
fn running(seed: u64) -> (World, Uuid) {
    let mut world = World::new(seed);
    world.server().publish(1, &["web.conf"]);
    world.run_for(3 * INTERVAL);
    world.run_ms = 10 * INTERVAL;
    let run_id = world.start_run();
    (world, run_id)
}

#[test]
fn a_check_in_on_a_new_connection_confirms_and_the_old_connection_does_not() {
    let (mut world, run_id) = running(1);
    let connects = world.connects.len();
    world.step(Event::Confirm { run_id });
    assert!(world.confirmed.is_empty(), "what is up proves nothing");
    world.run_for(2_000);
    assert_eq!(world.confirmed, [run_id], "{:#?}", world.log);
    assert_eq!(world.connects.len(), connects + 1);
    world.step(Event::Confirm { run_id: Uuid::from_bytes([1; 16]) });
    world.run_for(2_000);
    assert_eq!(world.confirmed.len(), 1, "that is not the run under way");
    assert_eq!(world.logged("server lost"), 0, "a new connection is no trouble");
}

#[test]
fn without_a_server_nothing_is_confirmed_until_it_is_back() {
    let (mut world, run_id) = running(2);
    world.take_down("one:1530");
    world.step(Event::Confirm { run_id });
    world.run_for(20_000);
    assert!(world.confirmed.is_empty());
    world.server().up = true;
    world.run_for(60_000);
    assert_eq!(world.confirmed, [run_id], "{:#?}", world.log);
}
