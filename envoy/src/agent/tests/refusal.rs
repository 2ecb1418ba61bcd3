//! Reports that a server refuses for what is in them.

use common::chain::Lane;
use common::proto::wire::gap::Reason;
use common::proto::{Code, RecordBody, record_meta, wire};

use super::*;

/// Runs while the server is away, so that all are delivered in one report.
const RUNS: usize = 40;

fn waiting(seed: u64) -> World {
    let mut world = World::new(seed);
    world.server().publish(1, &["web.motd"]);
    world.run_for(3 * INTERVAL);
    world.take_down("one:1530");
    for _ in 0..RUNS {
        world.drift.push("web.motd".into());
        world.run_for(INTERVAL);
    }
    world.server().up = true;
    world.server().n_reports = 0;
    world
}

fn holds(request: &wire::ReportRequest, sequence: u64) -> bool {
    let urgent = request.records.iter().filter(|record| record.lane == Lane::Urgent as i32);
    urgent
        .filter(|record| !matches!(record.body, Some(wire::record::Body::Gap(_))))
        .any(|record| (record.first_sequence..=record.last_sequence).contains(&sequence))
}

fn gaps(world: &mut World) -> Vec<(u64, u64, wire::Gap)> {
    let gap = |record: &wire::Record| match record_meta(record) {
        Ok((meta, RecordBody::Gap(gap))) => Some((meta.first, meta.last, gap)),
        _ => None,
    };
    world.server().stored.iter().flatten().filter_map(gap).collect()
}

#[test]
fn one_refused_record_becomes_a_gap_and_all_others_are_delivered() {
    let mut world = waiting(1);
    world.server().refuse = Some(|request| holds(request, 17).then_some(Code::InvalidArgument));
    world.run_for(400_000);
    let gaps = gaps(&mut world);
    let [(17, 17, gap)] = &gaps[..] else { panic!("{gaps:?} {:#?}", world.log) };
    assert_eq!(gap.reason, Reason::Refused as i32);
    assert!(gap.detail.contains("not like this"), "{}", gap.detail);
    assert!(world.server().watermark(0) >= RUNS as u64, "{:#?}", world.log);
    assert!(world.server().chain_holds() && world.server().forks.is_empty());
    assert!(world.server().n_reports < 60, "{} reports", world.server().n_reports);
    assert_eq!(world.logged("a gap is sent instead"), 1, "{:#?}", world.log);
    assert_eq!(world.logged("server lost"), 1, "the channel stays up: {:#?}", world.log);
}

#[test]
fn several_refused_records_are_each_found_also_over_a_crash() {
    let mut world = waiting(2);
    world.server().refuse =
        Some(|request| (holds(request, 3) || holds(request, 4) || holds(request, 40)).then_some(Code::InvalidArgument));
    for _ in 0..30 {
        world.run_for(20_007);
        world.crash();
    }
    world.run_for(400_000);
    let sequences: Vec<(u64, u64)> = gaps(&mut world).iter().map(|(first, last, _)| (*first, *last)).collect();
    assert_eq!(sequences, [(3, 3), (4, 4), (40, 40)], "{:#?}", world.log);
    assert!(world.server().chain_holds() && world.server().forks.is_empty());
}

#[test]
fn a_report_that_is_too_large_is_halved_and_costs_no_record() {
    let mut world = waiting(3);
    world.server().refuse = Some(|request| (request.records.len() > 4).then_some(Code::ResourceExhausted));
    world.run_for(400_000);
    assert!(world.server().watermark(0) >= RUNS as u64, "{:#?}", world.log);
    assert!(gaps(&mut world).is_empty() && world.server().chain_holds());
}

#[test]
fn a_server_that_refuses_everything_costs_one_record_and_is_asked_at_the_slowest_pace() {
    let mut world = waiting(4);
    world.server().refuse = Some(|request| (!request.records.is_empty()).then_some(Code::InvalidArgument));
    world.run_for(3_000_000);
    assert_eq!(world.logged("a gap is sent instead"), 1, "{:#?}", world.log);
    let before = world.server().n_reports;
    world.run_for(3_000_000);
    assert!(world.server().n_reports - before <= 3_000_000 / 200_000, "{}", world.server().n_reports - before);
    world.server().refuse = None;
    world.run_for(700_000);
    assert!(world.server().watermark(0) >= RUNS as u64, "{:#?}", world.log);
    assert!(world.server().chain_holds() && gaps(&mut world).len() == 1);
}

#[test]
fn refused_trait_trees_are_left_out_and_stop_no_record() {
    let mut world = waiting(5);
    world.server().trait_hash = 1;
    world.server().refuse = Some(|request| (!request.traits.is_empty()).then_some(Code::InvalidArgument));
    world.run_for(400_000);
    assert!(world.server().watermark(0) >= RUNS as u64, "{:#?}", world.log);
    assert!(gaps(&mut world).is_empty() && world.server().chain_holds());
    assert_eq!(world.logged("traits: the server refuses them"), 1, "{:#?}", world.log);
    assert!(world.server().n_reports < 60, "{} reports", world.server().n_reports);
}

#[test]
fn a_status_that_says_nothing_of_the_content_removes_nothing() {
    let mut world = waiting(6);
    world.server().refuse = Some(|_| Some(Code::FailedPrecondition));
    world.run_for(400_000);
    assert_eq!(world.server().watermark(0), 0);
    world.server().refuse = None;
    world.run_for(700_000);
    assert!(world.server().watermark(0) >= RUNS as u64, "{:#?}", world.log);
    assert!(gaps(&mut world).is_empty());
}
