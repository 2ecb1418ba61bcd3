use std::os::unix::fs::PermissionsExt;

use common::rng::{SplitMix64, SystemRng};

use super::*;

fn place() -> (tempfile::TempDir, Place) {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::of_root(dir.path());
    std::fs::create_dir(&place.dir).unwrap();
    new_key(&place, 1);
    (dir, place)
}

fn new_key(place: &Place, fill: u8) {
    std::fs::write(&place.key, seed_text(Purpose::Master, &[fill; 32]).as_bytes()).unwrap();
}

fn set(place: &Place, path: &str, value: &str, at: i64) -> u64 {
    place.set(path, value.as_bytes(), Wall(at), &mut SystemRng::default()).unwrap()
}

fn get(place: &Place, path: &str) -> Result<String, SecretError> {
    place.get(path).map(|secret| String::from_utf8(secret.value.to_vec()).unwrap())
}

#[test]
fn values_are_kept_encrypted_and_come_back() {
    let (_dir, place) = place();
    assert_eq!(set(&place, "prod/db/password", "hunter2", 1_000), 1_000);
    assert_eq!(set(&place, "prod/db", "beside", 5), 5);
    assert_eq!(get(&place, "prod/db/password").unwrap(), "hunter2");
    assert_eq!(place.names().unwrap().into_iter().collect::<Vec<_>>(), ["prod/db", "prod/db/password"]);
    let file = place.dir.join("prod/db/password.secret");
    assert!(!std::fs::read_to_string(&file).unwrap().contains("hunter2"));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(place.pending().unwrap(), ["prod/db/password", "prod/db"]);
    place.settle(&["prod/db".to_string()]).unwrap();
    assert_eq!(place.pending().unwrap(), ["prod/db/password"]);
}

#[test]
fn versions_grow_whatever_the_clock_says() {
    let (_dir, place) = place();
    assert_eq!(set(&place, "a", "first", 1_000), 1_000);
    assert_eq!(set(&place, "a", "second", 10), 1_001);
    assert_eq!(set(&place, "a", "third", 5_000), 5_000);
    place.remove("a").unwrap();
    assert_eq!(get(&place, "a"), Err(SecretError::Unknown("a".into())));
    assert_eq!(place.remove("a"), Err(SecretError::Unknown("a".into())));
}

#[test]
fn bad_paths_and_values_are_refused_and_change_nothing() {
    let (_dir, place) = place();
    let try_set = |path: &str, value: &[u8]| place.set(path, value, Wall(1), &mut SplitMix64(1));
    for path in ["", "../x", ".lost/x", "a b", "a//b"] {
        assert_eq!(try_set(path, b"value"), Err(SecretError::Path(path.into())));
    }
    assert!(try_set("a", b"123").unwrap_err().to_string().contains("3 bytes; expected 4 to 65536"));
    assert!(try_set("a", &[b'x'; 70_000]).is_err());
    assert!(try_set("a", b"\xff\xfe\xfd\xfc").unwrap_err().to_string().contains("no UTF-8 text"));
    assert!(place.names().unwrap().is_empty() && place.pending().unwrap().is_empty());
}

#[test]
fn what_does_not_open_is_set_aside_and_the_rest_goes_on() {
    let (_dir, place) = place();
    set(&place, "a/old", "lost for good", 1);
    new_key(&place, 2);
    set(&place, "b", "still here", 1);
    assert_eq!(place.open().unwrap().bad, [("a/old".to_string(), BadFile::OtherKey)]);
    let opened = place.start().unwrap();
    assert_eq!((opened.vault.len(), opened.bad.len()), (1, 1));
    assert!(place.dir.join(".lost/a%2Fold.secret").is_file());
    // Once more, under a name of its own.
    new_key(&place, 1);
    set(&place, "a/old", "lost again", 1);
    new_key(&place, 2);
    assert_eq!(place.start().unwrap().bad.len(), 1);
    assert!(place.dir.join(".lost/a%2Fold%1.secret").is_file());
    assert!(place.start().unwrap().bad.is_empty());
    set(&place, "a/old", "set again", 1);
    assert_eq!(get(&place, "a/old").unwrap(), "set again");
}

#[test]
fn rotation_survives_a_crash_at_any_point() {
    let names = ["a", "b/c", "d"];
    // After so many files were written under the new key; the last turn is a whole rotation.
    for stop_after in 0..=names.len() {
        let (_dir, place) = place();
        for name in names {
            set(&place, name, &format!("value of {name}"), 7);
        }
        let new = place.new_key_path();
        std::fs::write(&new, seed_text(Purpose::Master, &[9; 32]).as_bytes()).unwrap();
        let (keys, new_key) = (place.keys().unwrap(), load_key(&new).unwrap());
        for name in &names[..stop_after] {
            let (secret, _) = place.read(&keys, name).unwrap();
            place.write(&new_key, name, &secret, &mut SplitMix64(3)).unwrap();
        }
        let whole = |place: &Place| {
            let opened = place.open().unwrap();
            assert!(opened.bad.is_empty());
            names.iter().for_each(|name| assert_eq!(get(place, name).unwrap(), format!("value of {name}")));
            let mut versions = opened.vault.versions().filter(|(name, _)| *name != "late");
            assert!(versions.all(|(_, version)| version == 7), "the value is the same");
        };
        whole(&place);
        set(&place, "late", "between", 1);
        assert_eq!(place.rotate(&mut SplitMix64(4)).unwrap(), names.len() + 1 - stop_after);
        assert!(!new.exists());
        assert_eq!(std::fs::read(&place.key).unwrap(), seed_text(Purpose::Master, &[9; 32]).as_bytes());
        whole(&place);
    }
}

#[test]
fn a_missing_or_wrong_key_says_what_to_do() {
    let (_dir, place) = place();
    set(&place, "a", "value", 1);
    std::fs::write(&place.key, "nonsense").unwrap();
    let text = place.open().unwrap_err().to_string();
    assert!(text.contains("secrets/.master.key") && text.contains("recovery kit"), "{text}");
    std::fs::remove_file(&place.key).unwrap();
    assert_eq!(place.open().unwrap().unusable().collect::<Vec<_>>(), ["a"]);
    place.remove("a").unwrap();
    assert_eq!(place.open().unwrap().vault.len(), 0, "without secrets there need be no key yet");
}

#[test]
fn vaults_differ_where_a_version_does() {
    let (_dir, place) = place();
    ["a", "b", "c"].iter().for_each(|name| assert_eq!(set(&place, name, "value", 5), 5));
    let before = place.open().unwrap().vault;
    set(&place, "b", "another", 1);
    place.remove("c").unwrap();
    set(&place, "d", "value", 5);
    let after = place.open().unwrap().vault;
    let differing: BTreeSet<String> = before.differences(&after).collect();
    assert_eq!(differing.into_iter().collect::<Vec<_>>(), ["b", "c", "d"]);
    assert_eq!(after.differences(&after).count(), 0);
}

#[test]
fn nothing_is_set_aside_beside_a_command_that_works_on_secrets() {
    let (_dir, place) = place();
    set(&place, "a", "under the old key", 1);
    new_key(&place, 2);
    let lock = place.lock().unwrap();
    assert_eq!(place.start().unwrap().bad.len(), 1);
    assert!(place.file("a").exists());
    drop(lock);
    assert_eq!(place.start().unwrap().bad.len(), 1);
    assert!(!place.file("a").exists());
}

#[test]
fn a_lost_secret_stays_known_until_it_is_set_again_removed_or_brought_back() {
    let (_dir, place) = place();
    for name in ["a/x", "b.1", "c"] {
        set(&place, name, &format!("value of {name}"), 1);
    }
    let first = std::fs::read(&place.key).unwrap();
    std::fs::remove_file(&place.key).unwrap();
    // Without the key, and before any start: every one is named.
    assert_eq!(place.open().unwrap().unusable().collect::<Vec<_>>(), ["a/x", "b.1", "c"]);
    new_key(&place, 2);
    place.start().unwrap();
    let unusable = || place.open().unwrap().unusable().map(String::from).collect::<Vec<_>>();
    assert_eq!(unusable(), ["a/x", "b.1", "c"]);
    // Policy may still refer to them: envoys have the values.
    assert_eq!(place.names().unwrap().len(), 3);
    assert_eq!(place.get("c").map(|_| ()), Err(SecretError::Lost("c".into())));
    set(&place, "a/x", "set again", 2);
    place.remove("c").unwrap();
    assert_eq!(unusable(), ["b.1"]);
    // The key comes back: what was set meanwhile stays, under it.
    let key = parse_seed(Purpose::Master, &first).unwrap();
    let done = place.import(&key, &mut SplitMix64(5)).unwrap();
    assert_eq!(done, Imported { encrypted: 1, back: vec!["b.1".into()] });
    assert_eq!((get(&place, "a/x").unwrap(), get(&place, "b.1").unwrap()), ("set again".into(), "value of b.1".into()));
    assert_eq!(std::fs::read(&place.key).unwrap(), first);
    assert!(unusable().is_empty() && place.pending().unwrap().contains(&"b.1".to_string()));
    // Once more it changes nothing.
    assert_eq!(place.import(&key, &mut SplitMix64(6)).unwrap(), Imported::default());
}
