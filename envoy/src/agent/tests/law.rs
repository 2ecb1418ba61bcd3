//! Laws over many seeds: whatever happens to the agent, its disk and its server, what was committed is delivered exactly
//! once or is named as lost, the chain holds, and the agent never stops converging.

use std::collections::BTreeSet;

use common::chain::Lane;
use common::ids::Uuid;
use common::outcome::Outcome;
use common::proto::wire;
use common::rng::{Rng, SplitMix64};
use common::time::Wall;

use super::*;
use crate::cache::CacheError;

/// Kinds of trouble; each seed mixes those that its law allows.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    ServerDown,
    LostReport,
    Crash,
    DiskRefuses,
    ServerRestored,
    Clock,
    Publish,
}

fn live_through(seed: u64, allowed: &[Trouble]) -> World {
    let mut rng = SplitMix64(seed);
    let mut world = World::new(seed);
    world.server().hold = seed.is_multiple_of(2);
    world.server().publish(1, &["a.b", "c.d"]);
    world.run_for(2 * INTERVAL);
    let mut serial = 1;
    for _ in 0..40 {
        let trouble = allowed[rng.below(allowed.len() as u64) as usize];
        match (rng.below(3), trouble) {
            (0, Trouble::ServerDown) => match world.server().up {
                true => world.take_down("one:1530"),
                false => world.server().up = true,
            },
            (0, Trouble::LostReport) => world.server().lose_reports = 1 + rng.below(3) as u32,
            (0, Trouble::Crash) => {
                let lanes = [0, 1].map(|lane| world.server().watermark(lane));
                world.log.push(format!("crash, the server's lanes up to {lanes:?}"));
                world.crash();
            }
            (0, Trouble::DiskRefuses) => {
                let refuses = world.commits_fail.is_none();
                world.commits_fail = refuses.then(|| CacheError::Io("no space left on device".into()));
            }
            (0, Trouble::ServerRestored) => {
                let lane = rng.below(2) as usize;
                let keep = rng.below(world.server().stored[lane].len() as u64 + 1) as usize;
                world.take_down("one:1530");
                let server = world.server();
                server.stored[lane].truncate(keep);
                server.up = true;
            }
            (0, Trouble::Clock) => world.now.wall = Wall(rng.next_u64() as i64 / 2),
            (0, Trouble::Publish) => {
                serial += 1;
                world.server().publish(serial, &["a.b", "c.d", "e.f"][..1 + rng.below(3) as usize]);
            }
            _ => {}
        }
        let outcome = [Outcome::Ok, Outcome::Ok, Outcome::Changed, Outcome::Failed][rng.below(4) as usize];
        world.outcomes.insert("a.b".into(), outcome);
        world.run_for(INTERVAL / 2 + rng.below(INTERVAL));
    }
    world.server().up = true;
    world.commits_fail = None;
    let runs = world.finished.len();
    world.run_for(400_000 + 20 * INTERVAL);
    assert!(world.finished.len() >= runs + 55, "seed {seed}: it goes on: {:#?}", world.log);
    world
}

/// The server has every sequence once, in an unbroken chain, and every run id at most once.
fn check_delivery(seed: u64, world: &mut World) {
    assert!(world.server().chain_holds(), "seed {seed}: {:#?}", world.log);
    let name = |record: &wire::Record| (record.lane, record.first_sequence, record.last_sequence);
    let forks: Vec<_> = world.server().forks.iter().map(name).collect();
    assert_eq!(forks, [], "seed {seed}: {:#?}", world.log);
    let status = world.status();
    for (lane, document) in Lane::ALL.into_iter().zip(&status.queue.lanes) {
        let delivered = world.server().count(lane);
        assert_eq!(document.newest, delivered + document.runs, "seed {seed} {}", lane.name());
        let ids: Vec<Uuid> = world.server().runs(lane).into_iter().filter_map(|(_, id)| id).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "seed {seed}: a run came twice");
    }
}

#[test]
fn every_finished_run_is_delivered_exactly_once_law() {
    for seed in 0..60 {
        let mut world =
            live_through(1_000 + seed, &[Trouble::ServerDown, Trouble::LostReport, Trouble::Clock, Trouble::Publish]);
        check_delivery(seed, &mut world);
        let delivered: u64 = Lane::ALL.into_iter().map(|lane| world.server().count(lane)).sum();
        let waiting: u64 = world.status().queue.lanes.iter().map(|lane| lane.runs).sum();
        assert_eq!(delivered + waiting, world.finished.len() as u64, "seed {seed}: nothing but runs, each once");
    }
}

#[test]
fn crashes_lose_at_most_the_run_that_they_hit_law() {
    for seed in 0..60 {
        let allowed = [Trouble::ServerDown, Trouble::LostReport, Trouble::Crash, Trouble::Crash, Trouble::Publish];
        let mut world = live_through(2_000 + seed, &allowed);
        check_delivery(seed, &mut world);
        let delivered: u64 = Lane::ALL.into_iter().map(|lane| world.server().count(lane)).sum();
        let waiting: u64 = world.status().queue.lanes.iter().map(|lane| lane.runs).sum();
        let finished = world.finished.len() as u64;
        // A crash within the millisecond of a commit may hit a run that the runner had ended.
        assert!((finished - 3..=finished).contains(&(delivered + waiting)), "seed {seed}: {delivered} of {finished}");
    }
}

#[test]
fn restored_servers_and_refusing_disks_break_no_chain_law() {
    for seed in 0..60 {
        let allowed = [Trouble::ServerDown, Trouble::ServerRestored, Trouble::DiskRefuses, Trouble::LostReport];
        let mut world = live_through(3_000 + seed, &allowed);
        check_delivery(seed, &mut world);
    }
}

#[test]
fn a_crash_while_the_disk_refuses_breaks_no_chain_law() {
    for seed in 0..60 {
        let mut world = live_through(4_000 + seed, &[Trouble::ServerDown, Trouble::DiskRefuses, Trouble::Crash]);
        check_delivery(seed, &mut world);
    }
}
