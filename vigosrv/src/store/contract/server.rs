use super::*;
use crate::store::rules::{audit_link, next_revocation};

fn state(written: Written) -> ServerState {
    match written {
        Written::State(state) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_database_starts_at_epoch_one_and_counts_its_batches() {
    check(|store| {
        let before = store.load().unwrap().state;
        assert_eq!((before.version.epoch, before.version.serial, before.published), (1, 0, None));
        assert_eq!(before.server_id, SERVER);
        enrolled(store, 1);
        assert_eq!(store.load().unwrap().state.continuity, before.continuity + 2);
    });
}

#[test]
fn revocations_count_once_and_chain() {
    check(|store| {
        let (a, b) = (enrolled(store, 1), enrolled(store, 2));
        let revoke = |uuid| Write::Revoke { uuid, at: Wall(1), reason: "lost".into() };
        assert_eq!(one(store, revoke(uuid(9))), Written::UnknownEnvoy);
        one(store, revoke(a));
        let once = state(one(store, revoke(a)));
        assert_eq!((once.revocation_counter, once.revocation_digest), next_revocation(0, 0, &a));
        let second = Write::SetState { uuid: b, state: Enrolled::Revoked, new_serial: false, at: Wall(1) };
        let twice = state(one(store, second));
        let expected = next_revocation(1, once.revocation_digest, &b);
        assert_eq!((twice.revocation_counter, twice.revocation_digest), expected);
        assert_eq!(store.load().unwrap().state, twice_with_continuity(&twice, store));
        // Nothing revives a revoked envoy.
        let revive = Write::SetState { uuid: a, state: Enrolled::Active, new_serial: true, at: Wall(1) };
        assert_eq!(one(store, revive), Written::UnknownEnvoy);
        one(store, Write::Assign { assign: vec![(a, None)], at: Wall(1) });
        assert_eq!(loaded(store, a).bundle, Some(Hash32([1; 32])));
    });
}

fn twice_with_continuity(state: &ServerState, store: &mut dyn Probe) -> ServerState {
    ServerState { continuity: store.load().unwrap().state.continuity, ..state.clone() }
}

#[test]
fn publishing_raises_the_serial_of_those_whose_bundle_changes() {
    check(|store| {
        let (a, b) = (enrolled(store, 1), enrolled(store, 2));
        let bundle = Some(Hash32([8; 32]));
        let publish = PublishWrite {
            tree: Hash32([5; 32]),
            author: "uid 0".into(),
            message: "first".into(),
            summary: "+1".into(),
            at: Wall(1),
            assign: vec![(a, bundle), (uuid(99), bundle)],
        };
        let after = state(one(store, Write::Publish(Box::new(publish))));
        assert_eq!((after.version.serial, after.published), (1, Some(Hash32([5; 32]))));
        assert_eq!((loaded(store, a).assigned_serial, loaded(store, a).bundle), (1, bundle));
        assert_eq!(loaded(store, b).assigned_serial, 0);
        let after = state(one(store, Write::Assign { assign: vec![(b, None)], at: Wall(1) }));
        assert_eq!(after.version.serial, 2);
        assert_eq!((loaded(store, b).assigned_serial, loaded(store, b).bundle), (2, None));
        let after = state(one(store, Write::SetInterval { interval_ms: 1_000, at: Wall(1) }));
        assert_eq!((after.version.serial, after.interval_ms), (3, 1_000));
        assert_eq!([loaded(store, a).assigned_serial, loaded(store, b).assigned_serial], [3, 3]);
    });
}

#[test]
fn a_name_is_one_envoy_s() {
    check(|store| {
        let (a, b) = (enrolled(store, 1), enrolled(store, 2));
        let rename = |uuid, name: &str| Write::Rename { uuid, hostname: name.into(), bundle: None, at: Wall(1) };
        assert_eq!(one(store, rename(a, "host-2")), Written::NameTaken);
        assert_eq!(one(store, rename(uuid(9), "x")), Written::UnknownEnvoy);
        let after = state(one(store, rename(a, "new")));
        let row = loaded(store, a);
        assert_eq!((row.hostname.as_str(), row.assigned_serial), ("new", after.version.serial));
        state(one(store, rename(b, "host-1")));
        assert_eq!(loaded(store, b).hostname, "host-1");
    });
}

#[test]
fn a_sealing_key_takes_a_new_serial() {
    check(|store| {
        let a = enrolled(store, 1);
        let set = |uuid, key| Write::SetSealingKey { uuid, key };
        assert_eq!(one(store, set(uuid(9), [7; 32])), Written::UnknownEnvoy);
        for (serial, key) in [(1, NO_SEALING_KEY), (2, [7; 32])] {
            assert_eq!(state(one(store, set(a, key))).version.serial, serial);
            assert_eq!((loaded(store, a).sealing_key, loaded(store, a).assigned_serial), (key, serial));
        }
    });
}

#[test]
fn a_new_standing_takes_a_new_serial_where_asked() {
    check(|store| {
        let a = enrolled(store, 1);
        let set = |new_serial| Write::SetState { uuid: a, state: Enrolled::Duplicate, new_serial, at: Wall(1) };
        assert_eq!(state(one(store, set(false))).version.serial, 0);
        assert_eq!(state(one(store, set(true))).version.serial, 1);
        assert_eq!((loaded(store, a).state, loaded(store, a).assigned_serial), (Enrolled::Duplicate, 1));
    });
}

#[test]
fn a_higher_epoch_voids_open_invitations_and_no_used_one() {
    check(|store| {
        one(store, invite(1, None, false));
        one(store, invite(2, None, false));
        assert!(matches!(one(store, enroll(row(1, "host-1"), Some(1))), Written::Enrolled(_)));
        one(store, Write::RaiseEpoch { epoch: 2, reason: "restored".into(), at: Wall(1) });
        // A reply that was lost in the restore is given again; a token of before it opens nothing.
        assert!(matches!(one(store, enroll(row(1, "host-1"), Some(1))), Written::Enrolled(_)));
        let late = one(store, enroll(row(2, "host-2"), Some(2)));
        assert_eq!(late, Written::EnrollRefused(EnrollRefusal::UnknownToken));
    });
}

#[test]
fn the_epoch_never_goes_back() {
    check(|store| {
        let raise = |epoch| Write::RaiseEpoch { epoch, reason: "restored".into(), at: Wall(1) };
        assert_eq!(state(one(store, raise(4))).version.epoch, 4);
        assert_eq!(state(one(store, raise(2))).version.epoch, 4);
        assert_eq!(store.events(), ["epoch"]);
    });
}

#[test]
fn sightings_move_time_forward_only_and_skip_strangers() {
    check(|store| {
        let a = enrolled(store, 1);
        let counts = Counts { failed: 3, ..Counts::default() };
        let sighting = |uuid, at| Sighting {
            uuid,
            at: Wall(at),
            status: Status::Degraded,
            counts,
            boot_id: "other".into(),
            agent_version: "0.2.0".into(),
        };
        let write = Write::Sightings(vec![sighting(a, 800), sighting(uuid(9), 1), sighting(a, 700)]);
        assert_eq!(one(store, write), Written::Done);
        let row = loaded(store, a);
        assert_eq!((row.last_seen, row.status, row.counts), (Wall(800), Status::Degraded, counts));
        assert_eq!((row.boot_id.as_str(), row.agent_version.as_str()), ("other", "0.2.0"));
    });
}

#[test]
fn audit_entries_chain() {
    check(|store| {
        let entry = |n: i64| AuditRow {
            at: Wall(n),
            actor: "uid 0".into(),
            action: "publish".into(),
            subject: "stacks".into(),
            detail: n.to_string(),
        };
        store.apply(&[Write::Audit(entry(1)), Write::Audit(entry(2))]).unwrap();
        one(store, Write::Audit(entry(3)));
        let mut previous = Hash32::ZERO;
        assert_eq!(store.audit().len(), 3);
        for (row, hash) in store.audit() {
            previous = audit_link(&previous, &row);
            assert_eq!(hash, previous);
        }
    });
}

#[test]
fn events_are_kept_in_order() {
    check(|store| {
        let event = |kind: &str| {
            Write::Event(EventRow { at: Wall(1), kind: kind.into(), uuid: Some(uuid(1)), detail: String::new() })
        };
        store.apply(&[event("a"), event("b")]).unwrap();
        assert_eq!(store.events(), ["a", "b"]);
        assert!(has_events(store, &["a", "b"]));
    });
}

#[test]
fn statements_wait_for_their_envoys_and_end_with_a_revocation() {
    check(|store| {
        let (a, b) = (enrolled(store, 1), enrolled(store, 2));
        let row = |uuid, text: &'static [u8]| StatementRow {
            uuid,
            signed: wire::Signed { payload: text.into(), signature: vec![3; 64], sealed: Vec::new() },
        };
        one(store, Write::PutStatements(vec![row(a, b"old"), row(b, b"b"), row(uuid(99), b"nobody")]));
        one(store, Write::PutStatements(vec![row(a, b"new")]));
        assert_eq!(store.load().unwrap().statements, [row(a, b"new"), row(b, b"b")]);
        one(store, Write::Revoke { uuid: a, at: Wall(1), reason: "lost".into() });
        one(store, Write::PutStatements(vec![row(a, b"again")]));
        assert_eq!(store.load().unwrap().statements, [row(b, b"b")]);
        one(store, Write::DropStatement { uuid: b });
        assert!(store.load().unwrap().statements.is_empty());
    });
}
