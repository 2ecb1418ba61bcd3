use super::*;

fn refused(written: Written) -> EnrollRefusal {
    match written {
        Written::EnrollRefused(why) => why,
        other => panic!("{other:?}"),
    }
}

fn accepted(written: Written) -> EnvoyRow {
    match written {
        Written::Enrolled(row) => *row,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_row_comes_back_as_it_was_enrolled_with_the_serial_of_the_moment() {
    check(|store| {
        one(store, Write::SetInterval { interval_ms: 7_000, at: Wall(1) });
        one(store, invite(1, Some("host-1"), false));
        let row = accepted(one(store, enroll(row(1, "host-1"), Some(1))));
        assert_eq!((row.enrolled_serial, row.assigned_serial), (1, 1));
        assert_eq!(loaded(store, row.uuid), row);
        assert_eq!(store.load().unwrap().state.interval_ms, 7_000);
    });
}

#[test]
fn the_same_token_and_key_give_the_same_row_even_after_expiry() {
    check(|store| {
        one(store, invite(1, None, false));
        let first = accepted(one(store, enroll(row(1, "host-1"), Some(1))));
        let Write::Enroll(mut again) = enroll(row(1, "host-1"), Some(1)) else { unreachable!() };
        again.at = Wall(99_999);
        again.row.uuid = uuid(77);
        assert_eq!(accepted(one(store, Write::Enroll(again))), first);
        assert_eq!(store.load().unwrap().envoys.len(), 1);
    });
}

#[test]
fn tokens_are_refused_for_a_reason() {
    check(|store| {
        one(store, invite(1, Some("bound"), false));
        one(store, invite(2, None, false));
        assert_eq!(refused(one(store, enroll(row(1, "a"), Some(9)))), EnrollRefusal::UnknownToken);
        assert_eq!(refused(one(store, enroll(row(1, "a"), Some(1)))), EnrollRefusal::WrongHostname);
        let Write::Enroll(mut late) = enroll(row(1, "bound"), Some(1)) else { unreachable!() };
        late.at = Wall(10_001);
        assert_eq!(refused(one(store, Write::Enroll(late))), EnrollRefusal::ExpiredToken);
        accepted(one(store, enroll(row(1, "bound"), Some(1))));
        assert_eq!(refused(one(store, enroll(row(2, "bound"), Some(1)))), EnrollRefusal::UsedToken);
        assert_eq!(refused(one(store, enroll(row(2, "bound"), Some(2)))), EnrollRefusal::NameTaken);
        assert_eq!(store.load().unwrap().envoys.len(), 1);
    });
}

#[test]
fn inviting_twice_with_one_token_does_not_free_it() {
    check(|store| {
        one(store, invite(1, None, false));
        accepted(one(store, enroll(row(1, "a"), Some(1))));
        one(store, invite(1, None, false));
        assert_eq!(refused(one(store, enroll(row(2, "b"), Some(1)))), EnrollRefusal::UsedToken);
    });
}

#[test]
fn a_replacement_stands_beside_the_old_until_that_is_revoked() {
    check(|store| {
        let old = enrolled(store, 1);
        one(store, invite(2, Some("host-1"), true));
        let new = accepted(one(store, enroll(row(2, "host-1"), Some(2))));
        assert_eq!(loaded(store, old).state, Enrolled::Active);
        assert!(matches!(
            one(store, Write::Revoke { uuid: old, at: Wall(3), reason: "replaced".into() }),
            Written::State(_)
        ));
        assert_eq!(loaded(store, new.uuid).hostname, "host-1");
        assert_eq!(loaded(store, old).state, Enrolled::Revoked);
        // A replacing token that names no host replaces none.
        one(store, invite(3, None, true));
        assert_eq!(refused(one(store, enroll(row(3, "host-1"), Some(3)))), EnrollRefusal::NameTaken);
    });
}

#[test]
fn a_known_key_is_the_envoy_that_it_was() {
    check(|store| {
        let first = enrolled(store, 1);
        one(store, invite(2, None, false));
        let mut again = row(1, "another-name");
        again.uuid = uuid(50);
        let row = accepted(one(store, enroll(again, Some(2))));
        assert_eq!((row.uuid, row.hostname.as_str()), (first, "host-1"));
        assert_eq!(refused(one(store, enroll(super::row(3, "x"), Some(2)))), EnrollRefusal::UsedToken);
    });
}

#[test]
fn a_revoked_key_may_not_use_its_token_again_and_frees_its_name() {
    check(|store| {
        let first = enrolled(store, 1);
        one(store, Write::Revoke { uuid: first, at: Wall(3), reason: "stolen".into() });
        assert_eq!(refused(one(store, enroll(row(1, "host-1"), Some(1)))), EnrollRefusal::UsedToken);
        one(store, invite(2, None, false));
        accepted(one(store, enroll(row(2, "host-1"), Some(2))));
    });
}

#[test]
fn a_trusted_entry_lets_in_its_maximum() {
    check(|store| {
        let enroll = |n: u8| {
            let trusted = Some(("web-*".to_owned(), 2));
            let row = row(n, &format!("web-{n}"));
            Write::Enroll(Box::new(EnrollWrite { row, token: None, trusted, at: Wall(1) }))
        };
        for n in [1, 2, 1, 2] {
            accepted(one(store, enroll(n)));
        }
        assert_eq!(refused(one(store, enroll(3))), EnrollRefusal::TrustedFull);
        assert_eq!(store.load().unwrap().envoys.len(), 2);
    });
}

#[test]
fn a_receipt_readmits_once_and_never_a_revoked_envoy() {
    check(|store| {
        let shown = EnvoyRow { state: Enrolled::Review, enrolled_serial: 40, ..row(5, "later") };
        let row = accepted(one(store, Write::Readmit(Box::new(shown.clone()))));
        assert_eq!((row.state, row.enrolled_serial, row.assigned_serial), (Enrolled::Review, 40, 0));
        assert_eq!(accepted(one(store, Write::Readmit(Box::new(shown.clone())))), row);
        let taken = EnvoyRow { hostname: "later".into(), ..super::row(6, "later") };
        assert_eq!(one(store, Write::Readmit(Box::new(taken))), Written::NameTaken);
        one(store, Write::Revoke { uuid: row.uuid, at: Wall(1), reason: String::new() });
        assert_eq!(one(store, Write::Readmit(Box::new(shown))), Written::UnknownEnvoy);
    });
}
