//! Keys, epochs, moves, forgeries.

use std::collections::BTreeMap;

use common::bundle::sign;
use common::chain::Lane;
use common::crypto::{Context, SigningKey, server_id, sha256};
use common::proto::{Message, wire};
use common::rng::SplitMix64;

use super::*;
use crate::agent::*;

fn settled(seed: u64) -> World {
    let mut world = World::new(seed);
    world.server().publish(5, &["a.b"]);
    world.run_for(3 * INTERVAL);
    assert!(!world.finished.is_empty(), "{:#?}", world.log);
    world
}

/// A statement of the first server that sends this envoy to another one.
fn statement(from: &SigningKey, to: &Server, address: &str, nonce: u8) -> wire::Signed {
    let redirect = wire::Redirect {
        uuid: uuid().as_bytes().to_vec(),
        nonce: vec![nonce; 16],
        expires_ms: u64::MAX / 2,
        epoch: 1,
        address: address.into(),
        ca_hash: to.ca.0.to_vec(),
        identity_key: to.identity.public().as_bytes().to_vec(),
        policy_key: to.policy.public().as_bytes().to_vec(),
        ca_pem: to.ca.to_string(),
    };
    sign(from, Context::Redirect, redirect.encode_to_vec())
}

#[test]
fn nothing_that_was_tampered_with_is_applied() {
    type Forge = fn(&mut wire::CheckInReply);
    let forges: [(Forge, &str); 6] = [
        (|reply| reply.assignment = None, "has none"),
        (
            |reply| reply.assignment.iter_mut().for_each(|signed| signed.signature[3] ^= 1),
            "assignment refused: the signature is not by the pinned key",
        ),
        (
            |reply| reply.bundle.iter_mut().for_each(|signed| signed.signature[3] ^= 1),
            "bundle refused: the signature is not by the pinned key",
        ),
        (|reply| reply.bundle = None, "did not come"),
        (
            |reply| {
                let stranger = SigningKey::generate(&mut SplitMix64(77));
                for signed in reply.assignment.iter_mut() {
                    *signed = sign(&stranger, Context::Assignment, signed.payload.to_vec());
                }
            },
            "not by the pinned key",
        ),
        (
            |reply| {
                for signed in reply.bundle.iter_mut() {
                    let mut bytes = signed.payload.to_vec();
                    bytes.push(0);
                    signed.payload = bytes.into();
                }
            },
            "bundle refused: the assignment names",
        ),
    ];
    for (n, (forge, message)) in forges.into_iter().enumerate() {
        let mut world = settled(100 + n as u64);
        world.server().forge = Some(forge);
        world.server().publish(6, &["a.b", "evil.x"]);
        world.run_for(5 * INTERVAL);
        assert_eq!(world.logged(message), 1, "{message}: {:#?}", world.log);
        let ran: Vec<usize> = world.finished.iter().map(|(_, order)| order.bundle.resources.len()).collect();
        assert!(ran.iter().all(|n| *n == 1), "{message}");
        assert!(world.server().count(Lane::Urgent) >= 1, "the incident is reported");
        world.server().forge = None;
        world.run_for(2 * INTERVAL);
        assert_eq!(world.finished.last().map(|(_, order)| order.bundle.resources.len()), Some(2));
    }
}

#[test]
fn an_older_serial_and_another_envoys_assignment_are_refused() {
    let mut world = settled(110);
    world.server().publish(4, &["old.x"]);
    world.run_for(3 * INTERVAL);
    assert_eq!(world.logged("epoch 1 serial 4 is older than epoch 1 serial 5"), 1, "{:#?}", world.log);
    assert_eq!(world.status().policy.map(|policy| policy.serial), Some(5));
    world.server().forge = Some(|reply| {
        // Another envoy's, with a good signature: the server itself went mad.
        let policy = SigningKey::generate(&mut {
            let mut rng = SplitMix64(1_110);
            SigningKey::generate(&mut rng);
            rng
        });
        for signed in reply.assignment.iter_mut() {
            let mut raw = wire::Assignment::decode(&signed.payload[..]).expect("an assignment");
            raw.uuid = vec![8; 16];
            *signed = sign(&policy, Context::Assignment, raw.encode_to_vec());
        }
    });
    world.server().publish(7, &["other.x"]);
    world.run_for(3 * INTERVAL);
    assert_eq!(world.logged("it is for the envoy 08080808"), 1, "{:#?}", world.log);
}

#[test]
fn a_server_with_a_lower_epoch_gets_nothing_and_changes_nothing() {
    let mut world = settled(120);
    world.server().epoch = 4;
    world.server().publish(6, &["a.b"]);
    world.run_for(2 * INTERVAL);
    assert_eq!(world.pins.server.epoch, 4);
    world.take_down("one:1530");
    let server = world.server();
    (server.up, server.epoch) = (true, 3);
    server.publish(9, &["evil.x"]);
    let (before, runs) = (world.server().count(Lane::Routine), world.finished.len());
    world.run_for(30 * INTERVAL);
    assert_eq!(world.server().count(Lane::Routine), before, "nothing is reported");
    assert!(world.finished[runs..].iter().all(|(_, order)| order.bundle.resources[0].name == "a.b"));
    assert!(world.finished.len() >= runs + 29);
    assert!(world.status().trust.contains("epoch 3, lower than 4"), "{}", world.status().trust);
    assert_eq!(world.logged("lower than 4"), 1, "{:#?}", world.log);
    world.server().epoch = 5;
    world.server().publish(9, &["a.b"]);
    world.run_for(400_000);
    assert!(world.status().trust.is_empty());
    assert!(world.server().chain_holds() && world.server().count(Lane::Routine) > before);
}

#[test]
fn an_unknown_identity_is_named_once_and_the_agent_goes_on() {
    let mut world = settled(130);
    world.take_down("one:1530");
    let other = Server::new(5);
    let fingerprint = format!("{:.16}", server_id(&other.identity.public()));
    // Under the same CA: the host name and certificate fit, the identity does not.
    let ca = world.server().ca;
    let old = world.servers.insert("one:1530".into(), Server { ca, ..other });
    let runs = world.finished.len();
    world.run_for(100 * INTERVAL);
    assert!(world.finished.len() >= runs + 99);
    assert_eq!(world.logged(&format!("trust: server changed {fingerprint}")), 1, "{:#?}", world.log);
    let slow = world.connects.len();
    assert!(slow <= 8, "the slowest step: {slow}");
    assert_eq!(world.server().receipts_seen + world.server().n_check_ins, 0);
    world.servers.insert("one:1530".into(), Server { up: true, ..old.expect("the old one") });
    world.run_for(400_000);
    assert!(world.status().trust.is_empty());
    assert!(world.server().chain_holds());
}

#[test]
fn the_recovery_key_moves_the_pins_to_a_rebuilt_server() {
    let mut world = World::new(140);
    let recovery = SigningKey::generate(&mut SplitMix64(99));
    world.pins.server.recovery_key = Some(recovery.public());
    world.crash();
    world.server().publish(5, &["a.b"]);
    world.run_for(3 * INTERVAL);
    world.take_down("one:1530");
    let old_id = server_id(&world.server().identity.public());
    let mut rebuilt = Server::new(6);
    rebuilt.epoch = 2;
    let named = |epoch, old: common::ids::ServerId| wire::RecoveryStatement {
        old_server_id: old.0.0.to_vec(),
        ca_hash: rebuilt.ca.0.to_vec(),
        identity_key: rebuilt.identity.public().as_bytes().to_vec(),
        policy_key: rebuilt.policy.public().as_bytes().to_vec(),
        epoch,
        expires_ms: u64::MAX / 2,
    };
    let good = sign(&recovery, Context::Recovery, named(2, old_id).encode_to_vec());
    let forged = sign(&SigningKey::generate(&mut SplitMix64(3)), Context::Recovery, named(2, old_id).encode_to_vec());
    let other = sign(&recovery, Context::Recovery, named(2, Default::default()).encode_to_vec());
    rebuilt.publish(6, &["a.b"]);
    let id = server_id(&rebuilt.identity.public());
    world.servers.insert("one:1530".into(), rebuilt);
    for bad in [forged, other] {
        world.server().recovery = Some(bad);
        world.run_for(700_000);
        assert_eq!(world.pins.server.id(), old_id);
    }
    world.server().recovery = Some(good);
    world.run_for(700_000);
    assert_eq!(world.pins.server.id(), id, "{:#?}", world.log);
    assert_eq!(world.status().policy.map(|policy| policy.serial), Some(6));
    assert!(world.server().chain_holds() || world.server().stored[0].is_empty());
    // The old policy key is still good for what the cache holds.
    world.crash();
    assert_eq!(world.logged("does not verify"), 0, "{:#?}", world.log);
}

#[test]
fn a_recovery_key_that_is_made_later_is_pinned_and_gives_way_to_its_successor_alone() {
    let mut world = settled(145);
    let [first, second, third] = [97, 98, 99].map(|seed| SigningKey::generate(&mut SplitMix64(seed)));
    let mut show = |shown: Vec<u8>, succession: Vec<wire::Signed>| {
        world.take_down("one:1530");
        let server = world.server();
        (server.up, server.recovery_key, server.succession) = (true, shown, succession);
        world.run_for(400_000);
        world.pins.server.recovery_key
    };
    assert_eq!(show(vec![1; 5], Vec::new()), None);
    assert_eq!(show(first.public().as_bytes().to_vec(), Vec::new()), Some(first.public()));
    assert_eq!(show(Vec::new(), Vec::new()), Some(first.public()));
    // Whoever has the server's keys can show another one, but not make this envoy believe in it.
    let named = |by: &SigningKey, key: &SigningKey| sign(by, Context::RecoveryKey, key.public().as_bytes().to_vec());
    let third_bytes = || third.public().as_bytes().to_vec();
    assert_eq!(show(third_bytes(), vec![named(&third, &third)]), Some(first.public()));
    assert_eq!(show(third_bytes(), vec![named(&second, &third)]), Some(first.public()));
    assert_eq!(show(third_bytes(), vec![named(&first, &second), named(&second, &third)]), Some(third.public()));
}

#[test]
fn an_unknown_envoy_shows_its_receipt() {
    let mut world = settled(150);
    world.take_down("one:1530");
    let server = world.server();
    (server.up, server.known) = (true, false);
    world.run_for(400_000);
    assert_eq!(world.server().receipts_seen, 1);
    assert!(world.status().connection.starts_with("connected"));
}

#[test]
fn a_sealing_key_is_renewed_once_and_shown_until_a_receipt_names_it() {
    let mut world = settled(155);
    assert_eq!(world.server().n_sealing_shown, 0);
    world.server().sealing = [0; 32];
    world.run_for(2 * INTERVAL);
    // Stored at the first showing, confirmed at the second.
    assert_eq!((world.server().sealing, world.server().n_sealing_shown), (world.sealing, 2));
    assert_ne!(world.sealing, SEALING);
    assert_eq!(world.pins.server.receipt().map(|receipt| receipt.sealing_key), Some(world.sealing));
    // Killed between the new file and the first word about it: the same key is shown, no other one is made.
    let first = world.sealing;
    world.server().sealing = [0; 32];
    world.take_down("one:1530");
    world.sealing = sha256(&[&first]).0;
    world.crash();
    world.server().up = true;
    world.run_for(400_000);
    assert_eq!((world.sealing, world.server().sealing), (sha256(&[&first]).0, sha256(&[&first]).0));
    assert_eq!(world.server().n_sealing_shown, 4);
}

#[test]
fn a_redirect_is_final_only_when_the_new_server_assigned_and_acknowledged() {
    let mut world = settled(160);
    let mut new = Server::new(7);
    new.publish(1, &["new.x"]);
    let (from, id) = (SigningKey::from_seed(*world.server().identity.seed()), server_id(&new.identity.public()));
    world.server().redirect = Some(statement(&from, &new, "two:1530", 1));
    new.up = false;
    world.servers.insert("two:1530".into(), new);
    let old_id = world.pins.server.id();
    world.run_for(3 * INTERVAL);
    assert_eq!((world.pins.server.id(), world.logged("failed")), (old_id, world.logged("moving to two")));
    // It comes up, but takes over only with the whole proof.
    world.servers.get_mut("two:1530").expect("the new one").policy_at = None;
    world.servers.get_mut("two:1530").expect("the new one").up = true;
    world.run_for(3 * INTERVAL);
    assert_eq!(world.pins.server.id(), old_id, "it assigned nothing");
    world.servers.get_mut("two:1530").expect("the new one").publish(1, &["new.x"]);
    world.run_for(4 * INTERVAL);
    assert_eq!(world.pins.server.id(), id, "{:#?}", world.log);
    assert_eq!(world.finished.last().map(|(_, order)| order.bundle.resources[0].name.clone()), Some("new.x".into()));
    assert_eq!(world.logged("moved to two"), 1);
    world.crash();
    world.run_for(3 * INTERVAL);
    assert!(world.status().connection.contains("two"), "{:#?}", world.log);
    assert!(world.servers["two:1530"].forks.is_empty());
}

#[test]
fn a_crash_between_the_two_writes_of_a_move_leaves_policy_that_runs() {
    for cut in 0..60 {
        let mut world = settled(170);
        let mut new = Server::new(8);
        new.publish(1, &["new.x"]);
        let from = SigningKey::from_seed(*world.server().identity.seed());
        world.server().redirect = Some(statement(&from, &new, "two:1530", 1));
        world.servers.insert("two:1530".into(), new);
        let push = wire::WatchEvent { kind: 1, ..Default::default() };
        world.push_watch(&push);
        world.run_for(cut);
        world.crash();
        world.take_down("one:1530");
        world.take_down("two:1530");
        let runs = world.finished.len();
        world.run_for(3 * INTERVAL);
        assert!(world.finished.len() > runs, "cut after {cut} ms: {:#?}", world.log);
        world.servers.values_mut().for_each(|server| server.up = true);
        world.run_for(400_000);
        assert_eq!(world.status().policy.map(|policy| policy.mapping), Some("envoys/a.vgo:1".into()));
        assert!(world.servers["two:1530"].n_check_ins > 0, "cut after {cut} ms");
    }
}

#[test]
fn statements_for_others_by_others_spent_or_denied_are_refused() {
    let mut world = settled(180);
    let new = Server::new(9);
    let from = SigningKey::from_seed(*world.server().identity.seed());
    let stranger = SigningKey::generate(&mut SplitMix64(4));
    world.server().redirect = Some(statement(&stranger, &new, "two:1530", 1));
    world.run_for(3 * INTERVAL);
    assert_eq!(world.logged("redirect refused: the signature"), 1, "{:#?}", world.log);
    let edited = |edit: fn(&mut wire::Redirect)| {
        let mut raw = wire::Redirect::decode(&statement(&from, &new, "two:1530", 2).payload[..]).expect("a redirect");
        edit(&mut raw);
        sign(&from, Context::Redirect, raw.encode_to_vec())
    };
    type Edit = fn(&mut wire::Redirect);
    let edits: [(Edit, &str); 5] = [
        (|raw| raw.uuid[0] ^= 1, "another envoy"),
        (|raw| raw.expires_ms = 5, "run out"),
        (|raw| raw.epoch = 0, "lower than 1"),
        (|raw| raw.address = "nowhere".into(), "host:port"),
        (|raw| raw.nonce.clear(), "nonce"),
    ];
    for (edit, why) in edits {
        world.server().redirect = Some(edited(edit));
        world.run_for(2 * INTERVAL);
        assert_eq!(world.logged(why), 1, "{why}: {:#?}", world.log);
    }
    let config = AgentConfig { rebootstrap_deny: true, ..AgentConfig::default() };
    world.push(0, Event::Signal(Signal::Reload(Box::new(config))));
    world.server().redirect = Some(statement(&from, &new, "two:1530", 3));
    world.run_for(2 * INTERVAL);
    assert_eq!((world.logged("rebootstrap: deny"), world.logged("moving to")), (1, 0));
}

#[test]
fn redirects_end_after_three_hops() {
    let mut world = settled(190);
    let names = ["two:1530", "three:1530", "four:1530", "five:1530"];
    let mut servers: Vec<Server> = (0..4).map(|n| Server::new(20 + n)).collect();
    for n in (0..4usize).rev() {
        let next = servers.get(n + 1).map(|next| statement(&servers[n].identity, next, names[n + 1], 10 + n as u8));
        servers[n].redirect = next;
    }
    let from = SigningKey::from_seed(*world.server().identity.seed());
    world.server().redirect = Some(statement(&from, &servers[0], names[0], 9));
    world.servers.extend(names.iter().map(|name| name.to_string()).zip(servers));
    let old_id = world.pins.server.id();
    world.run_for(INTERVAL * 3 / 2);
    assert!(world.logged("redirect number 4 in a row") >= 1, "{:#?}", world.log);
    assert_eq!(world.pins.server.id(), old_id);
    assert!(!world.connects.iter().any(|(_, address)| address == "five:1530"));
}

#[test]
fn a_second_server_takes_over_and_the_agent_stays_with_it() {
    let mut world = settled(200);
    let key = SigningKey::from_seed(*world.server().identity.seed());
    let policy = SigningKey::from_seed(*world.server().policy.seed());
    world.server().advertised = vec!["one:1530".into(), "two:1530".into()];
    let second = Server { identity: key, policy, ca: world.server().ca, ..Server::new(1) };
    world.servers.insert("two:1530".into(), second);
    world.take_down("one:1530");
    world.server().up = true;
    world.run_for(30_000);
    world.take_down("one:1530");
    world.run_for(100);
    assert_eq!(world.connects.last().map(|(_, address)| &address[..]), Some("two:1530"), "{:#?}", world.log);
    let held = world.connects.len();
    world.server().up = true;
    world.run_for(10 * INTERVAL);
    assert_eq!(world.connects.len(), held, "it stays");
    assert_eq!(world.logged("server lost"), 1, "only the first outage had nobody else: {:#?}", world.log);
}

#[test]
fn a_damaged_current_slot_falls_back_to_the_previous_one_and_is_replaced() {
    use crate::cache::{Cache, StoreOp};
    let mut world = settled(210);
    world.server().publish(6, &["a.b", "c.d"]);
    world.run_for(2 * INTERVAL);
    let (mut assignment, bundle) = world.cache.load().expect("it loads").current.expect("a slot");
    let previous = world.cache.load().expect("it loads").previous.expect("a slot");
    assignment.signature[0] ^= 1;
    let mut disk = world.cache.clone();
    let put =
        |(assignment, bundle): (wire::Signed, wire::Signed)| StoreOp::PutSlot { assignment, bundle: Some(bundle) };
    disk.commit(&[put(previous), put((assignment, bundle))]).expect("it fits");
    world.take_down("one:1530");
    world.restart_with(disk);
    let runs = world.finished.len();
    world.run_for(2 * INTERVAL);
    assert_eq!(world.logged("slot current in the state store does not verify"), 1);
    assert!(world.finished[runs..].iter().all(|(_, order)| order.bundle.resources.len() == 1));
    assert_eq!(world.status().policy.map(|policy| policy.slot), Some("previous".into()));
    world.server().up = true;
    world.run_for(400_000);
    assert_eq!(world.status().policy.map(|policy| (policy.slot, policy.serial)), Some(("current".into(), 6)));
    assert!(world.server().count(Lane::Urgent) >= 1, "the incident is reported");
}

#[test]
fn revocation_counters_are_echoed_and_never_go_back() {
    let mut world = settled(220);
    world.server().revocation = wire::RevocationEcho { counter: 7, digest: 0xabc };
    world.run_for(2 * INTERVAL);
    world.server().revocation = wire::RevocationEcho { counter: 3, digest: 0xdef };
    world.run_for(2 * INTERVAL);
    world.crash();
    world.run_for(2 * INTERVAL);
    let meta = crate::cache::Cache::load(&mut world.cache).expect("it loads").meta;
    let notes = crate::agent::notes::Notes::load(&meta);
    assert_eq!((notes.revocation_counter, notes.revocation_digest), (7, 0xabc));
    let _: BTreeMap<String, Vec<u8>> = meta;
}
