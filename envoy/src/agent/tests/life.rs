//! Runs, contact, queue, disk, end.

use common::chain::Lane;
use common::outcome::Outcome;
use common::proto::wire;
use common::time::Wall;

use super::*;
use crate::agent::*;
use crate::cache::{CacheError, MemoryCache};

/// A world whose agent has policy of one resource and has run it.
fn settled(seed: u64) -> World {
    let mut world = World::new(seed);
    world.server().publish(1, &["web.motd"]);
    world.run_for(3 * INTERVAL);
    assert!(!world.finished.is_empty(), "{:#?}", world.log);
    world
}

/// Waits until everything is delivered, then checks that every finished run is there exactly once.
fn check_exactly_once(world: &mut World, finished: usize) {
    world.run_for(2_000_000);
    let delivered = world.server().count(Lane::Urgent) + world.server().count(Lane::Routine);
    assert!(delivered as usize >= finished, "{delivered} of {finished}");
    assert!(world.server().forks.is_empty(), "forks: {:#?}", world.log);
    assert!(world.server().chain_holds(), "{:#?}", world.log);
    let status = world.status();
    let newest: u64 = status.queue.lanes.iter().map(|lane| lane.newest).sum();
    let waiting: u64 = status.queue.lanes.iter().map(|lane| lane.runs).sum();
    let delivered = world.server().count(Lane::Urgent) + world.server().count(Lane::Routine);
    assert_eq!(newest, delivered + waiting);
}

#[test]
fn policy_arrives_is_stored_and_runs_every_interval() {
    let mut world = settled(1);
    let before = world.finished.len();
    world.run_for(10 * INTERVAL);
    let runs = world.finished.len() - before;
    assert!((9..=11).contains(&runs), "{runs}");
    let status = world.status();
    assert_eq!(status.status, "converged");
    assert!(status.connection.starts_with("connected"), "{}", status.connection);
    assert_eq!(status.policy.as_ref().map(|policy| policy.serial), Some(1));
    assert!((12..=15).contains(&world.server().n_check_ins), "{}", world.server().n_check_ins);
    assert_eq!(world.server().traits.get("os").map(String::as_str), Some(r#"{"name":"linux"}"#));
    assert_eq!(world.connects.len(), 1, "one connection is held");
}

#[test]
fn new_policy_is_run_at_once_and_its_files_are_fetched_first() {
    let mut world = settled(2);
    let data = b"hello, world".to_vec();
    let hash = common::crypto::sha256(&[&data]);
    world.server().blobs.insert(hash, data.clone());
    world.server().publish(2, &["web.motd", "web.more"]);
    world.push_watch(&wire::WatchEvent { kind: 1, ..Default::default() });
    world.run_for(500);
    assert_eq!(world.blobs.get(&hash), Some(&data));
    let newest = world.finished.last().map(|(_, order)| order.bundle.resources.len());
    assert_eq!(newest, Some(2), "{:#?}", world.log);
}

#[test]
fn the_same_policy_assigned_anew_does_not_begin_its_files_again() {
    let mut world = settled(2);
    let data = vec![7; 4_000];
    let hash = common::crypto::sha256(&[&data]);
    world.server().blobs.insert(hash, data.clone());
    world.server().publish(2, &["web.motd", "web.more"]);
    world.fetch_ms = 20;
    // The second check-in falls into the transfer.
    world.push_watch(&wire::WatchEvent { kind: 1, ..Default::default() });
    world.run_for(20);
    world.server().publish(3, &["web.motd", "web.more"]);
    world.push_watch(&wire::WatchEvent { kind: 1, ..Default::default() });
    world.run_for(500);
    assert_eq!(world.blobs.get(&hash), Some(&data));
    assert_eq!(world.fetches, [hash], "{:#?}", world.log);
    assert_eq!(world.status().policy.as_ref().map(|policy| policy.serial), Some(3));
}

#[test]
fn enforcement_outlives_the_server_and_everything_is_delivered_once_when_it_is_back() {
    let mut world = settled(3);
    world.take_down("one:1530");
    for n in 0..40 {
        if n % 5 == 0 {
            world.drift.push("web.motd".into());
        }
        world.run_for(INTERVAL);
    }
    assert_eq!(world.logged("server lost"), 1, "{:#?}", world.log);
    let finished = world.finished.len();
    assert!(finished >= 40, "{finished}");
    assert!(world.status().connection.starts_with("lost"));
    world.server().up = true;
    world.run_for(300_000);
    assert_eq!(world.logged("is back after"), 1, "{:#?}", world.log);
    check_exactly_once(&mut world, finished);
    assert!(world.server().count(Lane::Urgent) >= 8);
}

#[test]
fn backoff_doubles_to_its_ceiling_and_survives_a_restart() {
    let mut world = World::new(4);
    world.server().up = false;
    world.run_for(2_000_000);
    let waits: Vec<u64> = world.connects.windows(2).map(|pair| (pair[1].0 - pair[0].0) / 1_000).collect();
    for (wait, nominal) in waits.iter().zip([5, 10, 20, 40, 80, 160, 300, 300]) {
        assert!((nominal * 8 / 10..=(nominal * 12 / 10).min(300)).contains(wait), "{waits:?}");
    }
    world.connects.clear();
    let start = world.now.mono.0;
    world.crash();
    world.run_for(400_000);
    assert!(world.connects[0].0 - start >= 290_000, "{:?}", world.connects);
    world.server().up = true;
    world.run_for(400_000);
    assert_eq!(world.status().attempt, 0);
}

#[test]
fn an_overloaded_server_names_the_moment() {
    let mut world = World::new(5);
    world.server().hold = false;
    world.server().answer_later_ms = 47_000;
    world.run_for(20_000);
    assert_eq!(world.connects.len(), 1);
    let first = world.connects[0].0;
    world.run_for(40_000);
    assert_eq!(world.connects.len(), 2);
    assert!((47_000..47_100).contains(&(world.connects[1].0 - first)), "{:?}", world.connects);
}

#[test]
fn an_unanswered_report_is_repeated_and_stored_once() {
    for seed in 10..30 {
        let mut world = settled(seed);
        world.server().lose_reports = 3;
        for n in 0..20 {
            if n % 2 == 0 {
                world.drift.push("web.motd".into());
            }
            world.run_for(INTERVAL);
        }
        let finished = world.finished.len();
        check_exactly_once(&mut world, finished);
    }
}

#[test]
fn a_killed_agent_loses_no_stored_run_and_forks_nothing() {
    for seed in 30..60 {
        let mut world = settled(seed);
        for n in 0..30u64 {
            if (seed + n).is_multiple_of(3) {
                world.drift.push("web.motd".into());
            }
            if n == 12 {
                world.server().lose_reports = 2;
            }
            world.run_for(INTERVAL / 2 + (seed * 977 + n * 131) % INTERVAL);
            if n % 4 == seed % 4 {
                world.crash();
            }
        }
        world.run_for(3 * INTERVAL);
        let stored = world.status().queue.lanes.iter().map(|lane| lane.newest).sum::<u64>();
        check_exactly_once(&mut world, stored as usize);
    }
}

#[test]
fn a_restored_server_gets_again_what_is_kept_and_is_told_of_the_rest() {
    let mut world = settled(6);
    for _ in 0..30 {
        world.drift.push("web.motd".into());
        world.run_for(INTERVAL);
    }
    let before = world.server().watermark(0);
    assert!(before >= 30);
    world.take_down("one:1530");
    world.server().stored[0].truncate(10);
    world.server().up = true;
    world.run_for(40_000);
    assert!(world.server().watermark(0) >= before, "{:#?}", world.log);
    assert_eq!(world.logged("it was restored"), 1);
    let gaps = world.server().runs(Lane::Urgent).iter().filter(|(_, id)| id.is_none()).count();
    assert_eq!((gaps, world.server().chain_holds()), (0, true));
    assert!(world.server().forks.is_empty());
}

#[test]
fn a_lost_store_goes_on_behind_the_server() {
    for seed in 60..70 {
        let mut world = settled(seed);
        for _ in 0..10 {
            world.drift.push("web.motd".into());
            world.run_for(INTERVAL);
        }
        let before = world.server().watermark(0);
        world.take_down("one:1530");
        // The slots survive nowhere either: nothing runs until the server is back, so policy comes from a copy.
        let mut fresh = MemoryCache::default();
        let policy = crate::cache::Cache::load(&mut world.cache).expect("it loads").current.expect("a slot");
        let op = crate::cache::StoreOp::PutSlot { assignment: policy.0, bundle: Some(policy.1) };
        crate::cache::Cache::commit(&mut fresh, &[op]).expect("it fits");
        world.restart_with(fresh);
        for n in 0..5 {
            world.drift.push("web.motd".into());
            world.run_for(INTERVAL);
            if n == 2 && seed % 2 == 0 {
                world.crash();
            }
        }
        world.server().up = true;
        world.run_for(400_000);
        assert!(world.server().forks.is_empty(), "{:#?}", world.log);
        assert!(world.server().watermark(0) >= before + 5, "{:#?}", world.log);
        assert!(world.server().chain_holds());
        assert_eq!(world.logged("numbered anew"), 2, "{:#?}", world.log);
    }
}

#[test]
fn a_disk_that_refuses_is_said_aloud_once_and_changes_nothing_else() {
    let mut world = settled(7);
    world.commits_fail = Some(CacheError::Io("state: read-only file system".into()));
    for _ in 0..10 {
        world.drift.push("web.motd".into());
        world.run_for(INTERVAL);
    }
    assert_eq!(world.logged("going on from memory"), 1, "{:#?}", world.log);
    assert!(world.status().disk.contains("read-only"));
    assert!(world.server().count(Lane::Urgent) >= 10, "delivered from memory");
    world.commits_fail = None;
    world.run_for(100_000);
    assert_eq!(world.logged("takes writes again"), 1);
    let finished = world.finished.len();
    world.crash();
    check_exactly_once(&mut world, finished);
}

#[test]
fn a_full_disk_is_made_room_on_and_failures_survive() {
    let mut world = settled(8);
    world.take_down("one:1530");
    world.cache.set_bytes_max(world.cache.bytes() + 30_000);
    for n in 0..400 {
        let outcome = if n % 10 == 0 { Outcome::Failed } else { Outcome::Changed };
        world.outcomes.insert("web.motd".into(), outcome);
        world.run_for(INTERVAL);
    }
    assert!(world.logged("the server will be told") > 0, "{:#?}", world.log);
    assert!(world.status().disk.is_empty());
    world.server().up = true;
    world.run_for(400_000);
    assert!(world.server().chain_holds() && world.server().forks.is_empty());
    let failures = world.server().stored[0].iter().filter(|record| {
        let (_, body) = common::proto::record_meta(record).expect("checked");
        matches!(body, common::proto::RecordBody::Run(run) if run.counts.is_some_and(|counts| counts.failed > 0))
    });
    assert!(failures.count() >= 39, "failures survive");
}

#[test]
fn the_wall_clock_may_be_anywhere_and_jump() {
    let mut world = World::new(9);
    world.now.wall = Wall(0);
    world.server().publish(1, &["web.motd"]);
    for wall in [0, 4_102_444_800_000, -1, 1_700_000_000_000] {
        world.now.wall = Wall(wall);
        let before = world.finished.len();
        world.run_for(5 * INTERVAL);
        assert!(world.finished.len() >= before + 4);
    }
    let finished = world.finished.len();
    check_exactly_once(&mut world, finished);
}

#[test]
fn relapse_and_divergence_come_from_history() {
    let mut world = settled(10);
    let mut seen = Vec::new();
    for drifts in [true, false, true, true, true, false] {
        if drifts {
            world.drift.push("web.motd".into());
        }
        world.run_for(INTERVAL);
        seen.push(world.status().status.clone());
    }
    assert_eq!(seen, ["relapsed", "converged", "relapsed", "relapsed", "diverged", "converged"]);
}

#[test]
fn run_once_asks_the_server_runs_and_answers_when_stored() {
    let mut world = settled(11);
    world.server().publish(2, &["web.motd", "web.new"]);
    world.control(1, ControlRequest::RunOnce { dry_run: false, offline: false, diff: false, all: true });
    world.run_for(1_000);
    let Some((1, ControlReply::Ran(document))) = world.replies.pop() else { panic!("{:?}", world.replies) };
    assert_eq!((document.serial, document.resources.len(), &document.server[..]), (2, 2, ""));
    world.take_down("one:1530");
    world.run_for(100);
    world.control(2, ControlRequest::RunOnce { dry_run: true, offline: false, diff: true, all: true });
    world.run_for(30_000);
    let Some((2, ControlReply::Ran(document))) = world.replies.pop() else { panic!("{:?}", world.replies) };
    assert!(document.dry_run && document.server.contains("refused"), "{}", document.server);
}

#[test]
fn one_shot_runs_new_policy_delivers_and_a_dry_run_keeps_nothing() {
    for dry_run in [true, false] {
        let server = Server::new(5);
        let pins = pins::Pins::new(server.pinned(uuid(), &envoy_key(), "one:1530"));
        let servers = [("one:1530".to_string(), server)].into_iter().collect();
        let mut world = World::with(12, MemoryCache::default(), pins, servers, Mode::OneShot);
        world.server().publish(3, &["a.b"]);
        world.outcomes.insert("a.b".into(), Outcome::Changed);
        world.run_for(100_000);
        assert!(world.connects.is_empty() && world.finished.is_empty(), "it waits to be asked");
        world.control(1, ControlRequest::RunOnce { dry_run, offline: false, diff: false, all: true });
        world.run_for(5_000);
        let Some((1, ControlReply::Ran(document))) = world.replies.pop() else { panic!("{:#?}", world.log) };
        assert_eq!((document.serial, document.run.changed), (3, 1));
        let stored = crate::cache::Cache::load(&mut world.cache).expect("it loads");
        assert_eq!(stored.current.is_some(), !dry_run);
        assert_eq!(world.server().count(Lane::Urgent), u64::from(!dry_run), "{:#?}", world.log);
        world.push(0, Event::Signal(Signal::Term));
        world.run_for(1_000);
        assert_eq!(world.exit, Some(0));
    }
}

#[test]
fn term_ends_the_run_stores_it_and_exits_in_time() {
    let mut world = settled(13);
    world.run_ms = 60_000;
    world.run_for(INTERVAL + 100);
    let stores = world.stores;
    world.push(0, Event::Signal(Signal::Term));
    world.run_for(10_000);
    assert_eq!(world.exit, Some(0));
    assert!(world.stop_run && world.stores > stores);
    assert!(world.notices.contains(&Notice::Stopping));
    world.exit = None;
    world.run_ms = 100;
    world.crash();
    world.run_for(100_000);
    let interrupted = world.server().stored[0].iter().filter(|record| {
        let (_, body) = common::proto::record_meta(record).expect("checked");
        matches!(body, common::proto::RecordBody::Run(run) if run.error.contains("interrupted"))
    });
    assert_eq!(interrupted.count(), 1, "{:#?}", world.log);
}

#[test]
fn a_polled_agent_keeps_no_connection() {
    let mut world = World::new(14);
    world.server().hold = false;
    world.server().publish(1, &["a.b"]);
    world.run_for(20 * INTERVAL);
    let finished = world.finished.len();
    assert!((18..=23).contains(&finished), "{finished}");
    assert!((15..=25).contains(&world.connects.len()), "{}", world.connects.len());
    assert_eq!(world.logged("server lost"), 0, "{:#?}", world.log);
    check_exactly_once(&mut world, finished);
}

#[test]
fn a_year_offline_without_a_change_fits_in_a_megabyte() {
    let mut world = settled(15);
    world.take_down("one:1530");
    let (before, runs) = (world.cache.bytes(), world.finished.len());
    for day in 0..365 {
        world.run_for(86_400_000 / 288 * 8);
        if day % 7 == 0 {
            world.crash();
        }
    }
    assert!(world.finished.len() > runs + 50_000);
    assert!(world.cache.bytes() - before < 1 << 20, "{}", world.cache.bytes() - before);
    world.server().up = true;
    let finished = world.finished.len();
    world.run_for(600_000);
    check_exactly_once(&mut world, finished);
}

#[test]
fn policy_with_a_max_age_stops_when_it_is_over_and_says_so_once() {
    let mut world = World::new(16);
    world.server().max_age_ms = 100_000;
    world.server().publish(1, &["a.b"]);
    world.run_for(50_000);
    assert!(world.status().offline_horizon.contains("may be applied for"));
    world.take_down("one:1530");
    world.run_for(60_000);
    let during = world.finished.len();
    world.run_for(500_000);
    assert!(world.finished.len() < during + 8, "it stopped");
    assert_eq!(world.logged("no run: the policy ran out"), 1, "{:#?}", world.log);
    world.server().up = true;
    world.run_for(400_000);
    assert!(world.finished.len() > during + 5, "it goes on");
}
