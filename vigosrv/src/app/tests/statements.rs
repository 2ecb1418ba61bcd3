//! Re-bootstraps that were ordered, over restarts, revocations and time.

use wire::check_in_reply::Result as Answer;

use super::*;

const WEEK_MS: u64 = 7 * 24 * 3_600_000;

fn order(bench: &mut Bench, uuids: Vec<Uuid>) {
    let target = RebootstrapTarget {
        address: "other.example:1530".into(),
        ca_pem: "other ca".into(),
        identity_key: envoy_key(20).public(),
        policy_key: envoy_key(21).public(),
    };
    bench.order(AdminRequest::Rebootstrap { uuids, target, actor: "uid 0".into() });
}

#[test]
fn what_the_operator_was_told_is_ordered_outlives_a_restart() {
    let mut bench = Bench::new(&[]);
    order(&mut bench, vec![envoy(10)]);
    assert_eq!(bench.logged("Reached { now: 0, later: 1 }"), 1, "{:#?}", bench.log);
    bench.restart();
    let answer = bench.check_in(10);
    assert_eq!(answer.result, Answer::Redirect as i32);
    let signed = answer.redirect.unwrap();
    assert!(identity().public().verify(Context::Redirect, &signed.payload, &signed.signature).is_ok());
    let redirect = wire::Redirect::decode(&signed.payload[..]).unwrap();
    assert_eq!((redirect.uuid, redirect.address), (envoy(10).as_bytes().to_vec(), "other.example:1530".to_string()));
    assert_ne!(bench.check_in(11).result, Answer::Redirect as i32, "only who was named");
    assert_eq!(bench.check_in(10).redirect, Some(signed), "until it is followed, the same again");
}

#[test]
fn a_fleet_is_sent_elsewhere_so_many_a_second() {
    let mut bench = Bench::new(&[]);
    order(&mut bench, Vec::new());
    (0..common::limits::REBOOTSTRAPS_PER_SECOND_MAX).for_each(|_| assert!(bench.server.handed.may(bench.now.mono)));
    assert_ne!(bench.check_in(10).result, Answer::Redirect as i32, "it goes on as before");
    bench.pass(1_000);
    assert_eq!(bench.check_in(10).result, Answer::Redirect as i32);
}

#[test]
fn an_order_is_answered_only_when_it_is_stored() {
    let mut bench = Bench::new(&[]);
    let target = RebootstrapTarget {
        address: "other.example:1530".into(),
        ca_pem: String::new(),
        identity_key: envoy_key(20).public(),
        policy_key: envoy_key(21).public(),
    };
    let mut out = Vec::new();
    let request = AdminRequest::Rebootstrap { uuids: Vec::new(), target, actor: "uid 0".into() };
    bench.server.handle(bench.now, Event::Admin { ticket: 9, request }, &mut out);
    assert!(!out.iter().any(|effect| matches!(effect, Effect::AdminReply { .. })), "{out:?}");
    let tickets = out.iter().filter_map(|effect| match effect {
        Effect::Write { ticket, write: Write::PutStatements(rows) } => Some((*ticket, rows.len())),
        _ => None,
    });
    let [(ticket, 2)] = tickets.collect::<Vec<_>>()[..] else { panic!("{out:?}") };
    out.clear();
    let full = Event::Written { ticket, result: Err(crate::store::StoreError::Full) };
    bench.server.handle(bench.now, full, &mut out);
    let refused = out.iter().any(|effect| matches!(effect, Effect::AdminReply { ticket: 9, result: Err(_) }));
    assert!(refused, "{out:?}");
    assert_ne!(bench.check_in(10).result, Answer::Redirect as i32, "nothing half ordered");
}

#[test]
fn a_statement_that_ran_out_is_said_aloud_and_gives_way_to_policy() {
    for restarts in [false, true] {
        let mut bench = Bench::new(&[]);
        order(&mut bench, vec![envoy(10)]);
        bench.pass(WEEK_MS - 1);
        assert_eq!(bench.check_in(10).result, Answer::Redirect as i32);
        bench.pass(1);
        if restarts {
            bench.restart();
        }
        assert_eq!(bench.check_in(10).result, Answer::Send as i32);
        assert_eq!(bench.logged("node-10: the re-bootstrap that was ordered has run out"), 1, "{:#?}", bench.log);
        assert!(bench.store.events().iter().any(|event| event.kind == "statement-expired"));
        assert!(bench.store.load().unwrap().statements.is_empty());
    }
}

#[test]
fn a_revoked_envoy_has_none_and_an_unknown_one_gets_none() {
    let mut bench = Bench::new(&[]);
    order(&mut bench, vec![envoy(10), envoy(99)]);
    assert_eq!(bench.store.load().unwrap().statements.len(), 1);
    bench.order(AdminRequest::Revoke { uuid: envoy(10), reason: "lost".into(), actor: "uid 0".into() });
    assert!(bench.store.load().unwrap().statements.is_empty());
    order(&mut bench, vec![envoy(10)]);
    assert!(bench.store.load().unwrap().statements.is_empty());
}
