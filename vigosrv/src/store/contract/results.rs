use super::*;

const URGENT: usize = 0;

#[test]
fn records_in_order_raise_the_watermark() {
    check(|store| {
        let uuid = enrolled(store, 1);
        let (mut urgent, mut routine) = (Agent::new(Lane::Urgent), Agent::new(Lane::Routine));
        let answer = stored(store, uuid, vec![urgent.run(2, 10), urgent.run(1, 20), routine.stretch(8, 30)]);
        assert_eq!(answer.watermark, [2, 8]);
        assert_eq!(answer.link, [urgent.link, routine.link]);
        assert_eq!((answer.forks.len(), answer.chain_breaks), (0, 0));
        assert_eq!(answer.newest.map(|(status, counts)| (status, counts.changed)), Some((Status::Converged, 0)));
        let kinds = [
            (Lane::Urgent, 1, 1, RecordKind::Run),
            (Lane::Urgent, 2, 2, RecordKind::Run),
            (Lane::Routine, 1, 8, RecordKind::Stretch),
        ];
        assert_eq!(store.rows(&uuid), kinds);
        let row = loaded(store, uuid);
        assert_eq!((row.watermark, row.link), (answer.watermark, answer.link));
        assert_eq!((row.status, row.last_seen), (Status::Converged, Wall(9_000)));
        assert_eq!(store.events(), [] as [String; 0]);
    });
}

#[test]
fn a_record_that_comes_again_is_known() {
    check(|store| {
        let uuid = enrolled(store, 1);
        let mut agent = Agent::new(Lane::Urgent);
        let records = vec![agent.run(1, 10), agent.stretch(4, 20)];
        let first = stored(store, uuid, records.clone());
        let again = stored(store, uuid, records);
        assert_eq!((again.watermark, again.link), (first.watermark, first.link));
        assert_eq!((again.forks.len(), again.newest), (0, None));
        assert_eq!(store.rows(&uuid).len(), 2);
    });
}

#[test]
fn a_record_behind_a_hole_is_not_stored_until_the_hole_is_filled() {
    check(|store| {
        let uuid = enrolled(store, 1);
        let mut agent = Agent::new(Lane::Urgent);
        let records: Vec<_> = (0..4).map(|n| agent.run(1, n)).collect();
        stored(store, uuid, records[..1].to_vec());
        assert_eq!(stored(store, uuid, records[2..].to_vec()).watermark[URGENT], 1);
        assert_eq!(store.rows(&uuid).len(), 1);
        assert_eq!(stored(store, uuid, records).watermark[URGENT], 4);
        assert_eq!(store.rows(&uuid).len(), 4);
    });
}

#[test]
fn the_first_record_of_a_lane_may_start_anywhere() {
    check(|store| {
        let uuid = enrolled(store, 1);
        let mut agent = Agent::new(Lane::Urgent);
        agent.stretch(76, 1);
        assert_eq!(stored(store, uuid, vec![agent.run(1, 10)]).watermark, [77, 0]);
        assert_eq!(store.events(), ["chain-start"]);
        assert_eq!(stored(store, uuid, vec![agent.run(1, 11)]).chain_breaks, 0);
    });
}

#[test]
fn the_same_sequence_with_another_link_is_a_fork_and_is_kept_once() {
    check(|store| {
        let uuid = enrolled(store, 1);
        let mut agent = Agent::new(Lane::Urgent);
        let shared = agent.run(1, 10);
        let mut clone = agent.clone();
        let first = stored(store, uuid, vec![shared, agent.run(1, 20)]);
        for _ in 0..2 {
            let other = stored(store, uuid, vec![Agent::run(&mut clone.clone(), 1, 30)]);
            assert_eq!(other.forks, [(Lane::Urgent, 2)]);
            assert_eq!((other.watermark, other.link), (first.watermark, first.link));
        }
        assert_eq!(store.forks(&uuid), [(Lane::Urgent, 2)]);
        assert_eq!(store.events(), ["fork"]);
        // The clone goes on: its next run fits by number, not by chain.
        clone.run(1, 30);
        let next = stored(store, uuid, vec![clone.run(1, 40)]);
        assert_eq!((next.chain_breaks, next.watermark[URGENT]), (1, 3));
        assert_eq!(store.events(), ["fork", "chain-break"]);
    });
}

#[test]
fn a_clone_that_collapsed_otherwise_is_a_fork() {
    check(|store| {
        let uuid = enrolled(store, 1);
        let (mut a, mut b) = (Agent::new(Lane::Routine), Agent::new(Lane::Routine));
        stored(store, uuid, vec![a.stretch(6, 10)]);
        // Ends within the stored stretch; then goes on beyond the watermark.
        let answer = stored(store, uuid, vec![b.stretch(3, 11)]);
        assert_eq!((answer.forks.as_slice(), answer.watermark), (&[(Lane::Routine, 1)][..], [0, 6]));
        let answer = stored(store, uuid, vec![b.stretch(5, 12)]);
        assert_eq!((answer.forks.as_slice(), answer.watermark), (&[(Lane::Routine, 4)][..], [0, 8]));
        let spans: Vec<_> = store.rows(&uuid).into_iter().map(|(_, first, last, _)| (first, last)).collect();
        assert_eq!(spans, [(1, 6), (7, 8)], "every sequence once on the main chain");
        assert_eq!(store.forks(&uuid).len(), 2);
    });
}

#[test]
fn a_gap_is_a_row_and_an_event() {
    check(|store| {
        use wire::gap::Reason;
        let uuid = enrolled(store, 1);
        let mut agent = Agent::new(Lane::Urgent);
        let records = vec![
            agent.run(1, 1),
            agent.gap(40, Reason::QueueFull),
            agent.gap(1, Reason::LostInRestore),
            agent.gap(2, Reason::Corrupt),
            agent.incident(),
        ];
        assert_eq!(stored(store, uuid, records).watermark[URGENT], 45);
        assert_eq!(store.events(), ["queue-full", "lost-in-restore", "corrupt", "incident"]);
        assert_eq!(store.rows(&uuid)[1], (Lane::Urgent, 2, 41, RecordKind::Gap));
    });
}

#[test]
fn a_gap_may_swallow_what_the_server_has_without_losing_it() {
    check(|store| {
        let uuid = enrolled(store, 1);
        let mut agent = Agent::new(Lane::Routine);
        let start = agent.clone();
        stored(store, uuid, vec![agent.stretch(2, 1), agent.stretch(3, 5)]);
        // The agent never saw the answer, dropped both and two more, and says so in one record.
        let mut gap = start.clone().gap(7, wire::gap::Reason::QueueFull);
        (gap.meta.first_link, gap.meta.last_link) = (start.link, Hash32([7; 32]));
        let answer = stored(store, uuid, vec![gap.clone()]);
        assert_eq!((answer.watermark, answer.forks.len()), ([0, 7], 0));
        let spans: Vec<_> = store.rows(&uuid).into_iter().map(|(_, first, last, _)| (first, last)).collect();
        assert_eq!(spans, [(1, 2), (3, 5), (6, 7)]);
        let again = stored(store, uuid, vec![gap]);
        assert_eq!((again.watermark, again.forks.len(), store.rows(&uuid).len()), ([0, 7], 0, 3));
        // One that ends where a stored record ends, with its link, is known.
        let mut gap = start.clone().gap(5, wire::gap::Reason::QueueFull);
        gap.meta.last_link = agent.link;
        assert_eq!(stored(store, uuid, vec![gap]).forks, []);
    });
}

#[test]
fn traits_are_replaced_and_removed() {
    check(|store| {
        let (a, b) = (enrolled(store, 1), enrolled(store, 2));
        let tree = |path: &str, json: &str, volatile| (path.to_owned(), json.to_owned(), volatile);
        for uuid in [a, b] {
            let Write::Results(mut write) = report(uuid, Vec::new()) else { unreachable!() };
            write.traits = vec![tree("os", "{\"id\":\"debian\"}", false), tree("load", "{}", true)];
            write.trait_hash = Some(42);
            one(store, Write::Results(write));
        }
        let Write::Results(mut write) = report(a, Vec::new()) else { unreachable!() };
        write.traits = vec![tree("os", "{\"id\":\"alpine\"}", false)];
        write.removed_traits = vec!["load".into(), "never-was".into()];
        assert!(matches!(one(store, Write::Results(write)), Written::Stored(stored) if stored.trait_hash == 42));
        assert_eq!(store.traits(&a), [("os".into(), "{\"id\":\"alpine\"}".into())]);
        let both = [("load".into(), "{}".into()), ("os".into(), "{\"id\":\"debian\"}".into())];
        assert_eq!(store.traits(&b), both);
    });
}

#[test]
fn changed_traits_count_only_on_top_of_those_that_are_stored() {
    check(|store| {
        let a = enrolled(store, 1);
        let mut put = |base, hash, json: &str| {
            let Write::Results(mut write) = report(a, Vec::new()) else { unreachable!() };
            write.traits = vec![("os".to_owned(), json.to_owned(), false)];
            (write.trait_hash, write.trait_base) = (Some(hash), base);
            let Written::Stored(stored) = one(store, Write::Results(write)) else { panic!("not stored") };
            stored.trait_hash
        };
        assert_eq!(put(0, 42, "1"), 42);
        assert_eq!(put(42, 43, "2"), 43);
        assert_eq!(put(42, 44, "3"), 0);
        assert_eq!(put(0, 44, "3"), 44);
        assert_eq!(store.traits(&a), [("os".into(), "3".into())]);
    });
}

#[test]
fn results_of_unknown_and_revoked_envoys_are_refused() {
    check(|store| {
        let mut agent = Agent::new(Lane::Urgent);
        assert_eq!(one(store, report(uuid(8), vec![agent.run(1, 1)])), Written::UnknownEnvoy);
        let known = enrolled(store, 1);
        one(store, Write::Revoke { uuid: known, at: Wall(1), reason: "stolen".into() });
        assert_eq!(one(store, report(known, vec![agent.run(1, 1)])), Written::UnknownEnvoy);
        assert_eq!(store.rows(&known), []);
    });
}
