//! Keys and pins on a real disk: made, kept, damaged.

use std::os::unix::fs::PermissionsExt;

use common::ids::{Hash32, ServerId};
use common::proto::wire;
use common::rng::SplitMix64;

use super::*;
use crate::agent::pins::{FormerKey, PinnedServer, SpentNonce};

fn enrollment() -> Enrollment {
    let key = SigningKey::from_seed([1; 32]).public();
    let server = PinnedServer {
        identity_key: key,
        policy_key: SigningKey::from_seed([2; 32]).public(),
        recovery_key: Some(key),
        ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        ca_hash: Hash32([3; 32]),
        epoch: 9,
        receipt: Some(wire::Signed { payload: vec![1, 2].into(), signature: vec![3; 64], sealed: Vec::new() }),
        hostname: "a.example".into(),
        servers: vec!["vigo:1530".into()],
    };
    let former = vec![FormerKey { server: ServerId(Hash32([4; 32])), policy_key: key }];
    let nonces = vec![SpentNonce { nonce: vec![5; 16], expires_ms: 77 }];
    Enrollment {
        uuid: Uuid::from_bytes([6; 16]),
        pins: Pins { server, former, nonces, former_uuid: Some(Uuid::from_bytes([7; 16])) },
    }
}

fn enrolled() -> (tempfile::TempDir, IdentityDir) {
    let dir = tempfile::tempdir().unwrap();
    let identity = IdentityDir::open(&dir.path().join("identity")).unwrap();
    identity.keys(&mut SplitMix64(1)).unwrap();
    identity.save(&enrollment()).unwrap();
    (dir, identity)
}

fn refused(identity: &IdentityDir, expected: &str) {
    let keys = identity.keys(&mut SplitMix64(9)).map(|_| ());
    let error = keys.and_then(|()| identity.enrollment().map(|_| ())).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn keys_are_made_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let identity = IdentityDir::open(&dir.path().join("a/identity")).unwrap();
    let first = identity.keys(&mut SplitMix64(1)).unwrap();
    let second = identity.keys(&mut SplitMix64(2)).unwrap();
    assert_eq!(first.identity.public(), second.identity.public());
    assert_eq!(first.sealing.public, second.sealing.public);
    assert_eq!(
        first.identity.public().verify(Context::Sealing, &first.sealing.public, &first.sealing_signature),
        Ok(())
    );
    assert_eq!(identity.enrollment(), Ok(None));
    for name in ["identity_key", "sealing_key"] {
        let mode = std::fs::metadata(identity.path.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(std::fs::metadata(&identity.path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn an_enrollment_round_trips() {
    let (_dir, identity) = enrolled();
    assert_eq!(identity.enrollment(), Ok(Some(enrollment())));
    let mode = std::fs::metadata(identity.path.join("pins")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn every_flipped_bit_of_the_pins_is_found() {
    let good = pins_file::encode(&enrollment());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(pins_file::decode(&bad).is_err(), "byte {at}");
        assert!(pins_file::decode(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_damaged_file_is_named_with_the_cure() {
    for (name, content, expected) in [
        ("pins", &b"vigo-pins-v1 x\n{}\n"[..], "pins: it is damaged (its checksum does not fit); restore it"),
        ("identity_key", b"", "identity_key: it is not a key file"),
        ("sealing_key", seed_text(Purpose::Envoy, &[0; 32]).as_bytes(), "sealing_key: it holds a key for `envoy`"),
    ] {
        let (_dir, identity) = enrolled();
        std::fs::write(identity.path.join(name), content).unwrap();
        refused(&identity, expected);
        refused(&identity, "enroll again with a token of `vigocli envoys invite --replace HOST`");
    }
}

#[test]
fn a_lost_key_of_an_enrolled_envoy_is_not_made_anew() {
    for name in ["identity_key", "sealing_key"] {
        let (_dir, identity) = enrolled();
        std::fs::remove_file(identity.path.join(name)).unwrap();
        refused(&identity, &format!("{name} is missing and this envoy is enrolled"));
        assert!(!identity.path.join(name).exists());
    }
}

#[test]
fn open_permissions_are_refused() {
    for name in ["identity_key", "sealing_key", "pins"] {
        let (_dir, identity) = enrolled();
        std::fs::set_permissions(identity.path.join(name), std::fs::Permissions::from_mode(0o604)).unwrap();
        refused(&identity, "others may open it (mode 0604); run `chmod 600 ");
    }
    let (_dir, identity) = enrolled();
    std::fs::set_permissions(&identity.path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = IdentityDir::open(&identity.path).unwrap_err().to_string();
    assert!(error.contains("run `chmod 700 "), "{error}");
}

#[test]
fn the_receipt_of_another_envoy_is_refused() {
    let key = SigningKey::from_seed([1; 32]);
    let mut enrollment = enrollment();
    let receipt = common::bundle::Receipt {
        uuid: Uuid::from_bytes([7; 16]),
        public_key: key.public(),
        sealing_key: [0; 32],
        hostname: "b.example".into(),
        server: common::crypto::server_id(&key.public()),
        serial: 1,
    };
    enrollment.pins.server.receipt = Some(receipt.sign(&key));
    assert!(pins_file::decode(&pins_file::encode(&enrollment)).unwrap_err().contains("`receipt` is wrong"));
}

#[test]
fn secrets_do_not_print() {
    let key = SealingKey::from_secret(Zeroizing::new([0xab; 32]));
    assert!(!format!("{key:?}").contains("abab"));
}

#[test]
fn a_new_sealing_key_keeps_the_one_before_it() {
    let (_dir, identity) = enrolled();
    let before = identity.keys(&mut SplitMix64(1)).unwrap();
    assert!(before.former_sealing.is_none());
    let made = SealingKey::from_secret(identity.renew_sealing_key(&mut SplitMix64(2)).unwrap());
    let after = identity.keys(&mut SplitMix64(3)).unwrap();
    assert_eq!(after.sealing.public, made.public);
    assert_ne!(after.sealing.public, before.sealing.public);
    assert_eq!(after.former_sealing.map(|key| key.public), Some(before.sealing.public));
    let mode = std::fs::metadata(identity.path.join(FORMER_KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
