//! Everything that can be in place of a store, and what becomes of it.

use super::*;
use crate::cache::fixture;
use std::os::unix::fs::PermissionsExt;

const NOW: Wall = Wall(1_795_254_957_120);

fn options(dir: &Path) -> Options {
    Options { bytes_max: 8 << 20, probe_deadline_ms: 20_000, ..Options::new(dir, Uuid::from_bytes([5; 16]), NOW) }
}

fn open(dir: &Path) -> (Store, Loaded) {
    let mut store = Store::open(&options(dir)).expect("nobody else holds it");
    let loaded = store.load().expect("it loads");
    (store, loaded)
}

/// A state directory in a scratch directory, with two slots and ten records.
fn filled() -> (tempfile::TempDir, PathBuf, Loaded) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = scratch.path().join("state");
    let (mut store, first) = open(&dir);
    assert_eq!((first, store.is_memory_only()), (Loaded::default(), false), "the first start has nothing to tell");
    store.commit(&[fixture::slot(1, 9_000), fixture::slot(2, 8_000)]).expect("it fits");
    let records = fixture::chain(Lane::Urgent, 10, 200);
    store.commit(&records.into_iter().map(StoreOp::PutRecord).collect::<Vec<_>>()).expect("it fits");
    let loaded = store.load().expect("it loads");
    drop(store);
    (scratch, dir, loaded)
}

fn aside(scratch: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(scratch)
        .expect("it lists")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("corrupt"))
        .collect();
    found.sort();
    found
}

/// Opens, and checks that incidents begin with these words, that it is on disk, and that the next start has none.
fn check_incidents(dir: &Path, starts: &[&str]) -> Loaded {
    let (store, loaded) = open(dir);
    assert!(!store.is_memory_only(), "{:?}", loaded.incidents);
    assert_eq!(loaded.incidents.len(), starts.len(), "{:?}", loaded.incidents);
    for (line, start) in loaded.incidents.iter().zip(starts) {
        assert!(line.contains(start), "{line}");
    }
    drop(store);
    let (_store, again) = open(dir);
    assert_eq!(Loaded { incidents: Vec::new(), ..loaded.clone() }, again, "a rebuilt store is sound");
    loaded
}

#[test]
fn a_sound_store_opens_as_it_was_left() {
    let (_scratch, dir, loaded) = filled();
    let (_store, again) = open(&dir);
    assert_eq!(again, loaded);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join(DATA_FILE))), (0o700, 0o600));
}

#[test]
fn a_second_agent_learns_who_holds_the_directory() {
    let (_scratch, dir, _) = filled();
    let (_store, _) = open(&dir);
    let error = Store::open(&options(&dir)).err().expect("it is held").to_string();
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
}

#[test]
fn a_missing_file_becomes_a_new_store() {
    let (scratch, dir, _) = filled();
    fs::remove_file(dir.join(DATA_FILE)).expect("it is removed");
    assert_eq!(open(&dir).1, Loaded::default());
    assert!(aside(scratch.path()).is_empty());
}

#[test]
fn an_empty_file_is_told_and_replaced() {
    let (scratch, dir, _) = filled();
    fs::write(dir.join(DATA_FILE), b"").expect("it is written");
    check_incidents(&dir, &["it is empty", "salvaged 0 records"]);
    assert_eq!(aside(scratch.path()).len(), 1);
}

#[test]
fn a_directory_in_place_of_the_file_is_moved_aside() {
    let (scratch, dir, _) = filled();
    fs::remove_file(dir.join(DATA_FILE)).expect("it is removed");
    fs::create_dir(dir.join(DATA_FILE)).expect("it is made");
    check_incidents(&dir, &["it is no regular file", "salvaged 0 records"]);
    assert!(aside(scratch.path())[0].join(DATA_FILE).is_dir());
}

#[test]
fn a_symlink_in_place_of_the_file_is_moved_aside() {
    let (scratch, dir, _) = filled();
    fs::rename(dir.join(DATA_FILE), scratch.path().join("elsewhere")).expect("it is moved");
    std::os::unix::fs::symlink(scratch.path().join("elsewhere"), dir.join(DATA_FILE)).expect("it is linked");
    let (store, loaded) = open(&dir);
    assert!(loaded.incidents[0].contains("it is no regular file"), "{:?}", loaded.incidents);
    assert!(!store.is_memory_only());
    assert!(fs::symlink_metadata(dir.join(DATA_FILE)).expect("it is there").is_file());
}

#[test]
fn a_file_in_place_of_the_directory_is_moved_aside() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = scratch.path().join("state");
    fs::write(&dir, b"no directory").expect("it is written");
    check_incidents(&dir, &["it is no directory"]);
}

#[test]
fn odd_things_in_place_of_lock_and_rebuild_directory_stop_nothing() {
    let (_scratch, dir, loaded) = filled();
    fs::remove_file(dir.join(LOCK_FILE)).expect("it is removed");
    fs::create_dir(dir.join(LOCK_FILE)).expect("it is made");
    let again = check_incidents(&dir, &["it is no lock file"]);
    assert_eq!(again.lanes, loaded.lanes);
    fs::write(dir.join(REBUILD_DIR), b"a file").expect("it is written");
    fs::write(dir.join(DATA_FILE), b"").expect("it is written");
    check_incidents(&dir, &["it is empty", "salvaged 0 records"]);
}

#[test]
fn a_store_of_another_word_size_or_byte_order_is_recognised_and_its_records_are_kept() {
    let (_scratch, dir, loaded) = filled();
    let path = dir.join(DATA_FILE);
    let mut bytes = fs::read(&path).expect("it reads");
    // Where a 32-bit file has its magic; and none where a 64-bit one has it.
    bytes[12..16].copy_from_slice(&0xBEEF_C0DE_u32.to_be_bytes());
    bytes[16..20].fill(0);
    fs::write(&path, bytes).expect("it is written");
    let again = check_incidents(&dir, &["32-bit big-endian host", "salvaged 10 records"]);
    assert_eq!((again.lanes, again.current, again.previous), (loaded.lanes, loaded.current, loaded.previous));
}

#[test]
fn an_envoy_that_was_enrolled_again_keeps_its_queue_and_no_policy() {
    let (_scratch, dir, before) = filled();
    let again = Options { uuid: Uuid::from_bytes([6; 16]), former: Some(Uuid::from_bytes([5; 16])), ..options(&dir) };
    for _ in 0..2 {
        let loaded = Store::open(&again).expect("nobody else holds it").load().expect("it loads");
        assert_eq!((loaded.lanes.clone(), loaded.highest), (before.lanes.clone(), before.highest));
        assert_eq!((loaded.current, loaded.previous), (None, None));
        assert!(loaded.traits.is_empty() && !loaded.meta.contains_key("queue.epoch"), "{:?}", loaded.meta);
    }
    assert!(crate::cache::verify(&dir, again.uuid).is_sound());
}

#[test]
fn a_store_of_another_envoy_is_set_aside_and_nothing_of_it_is_used() {
    let (scratch, dir, _) = filled();
    let other = Options { uuid: Uuid::from_bytes([6; 16]), ..options(&dir) };
    let mut store = Store::open(&other).expect("nobody else holds it");
    let loaded = store.load().expect("it loads");
    assert!(loaded.incidents[0].contains("it belongs to envoy 05050505"), "{:?}", loaded.incidents);
    assert!(loaded.incidents[2].contains("values of another envoy"), "{:?}", loaded.incidents);
    assert_eq!((loaded.current, loaded.lanes), (None, [vec![], vec![]]));
    assert_eq!(aside(scratch.path()).len(), 1);
}

#[test]
fn the_last_two_damaged_stores_are_kept() {
    let (scratch, dir, _) = filled();
    for n in 0..4_u8 {
        fs::write(dir.join(DATA_FILE), [n; 100]).expect("it is written");
        open(&dir);
    }
    let kept: Vec<Vec<u8>> =
        aside(scratch.path()).iter().map(|p| fs::read(p.join(DATA_FILE)).expect("it reads")).collect();
    assert_eq!(kept.len(), 2);
    assert!(kept.contains(&vec![3; 100]), "the newest is among them");
}

#[test]
fn a_crash_between_two_renames_loses_nothing() {
    let (_scratch, dir, loaded) = filled();
    fs::create_dir(dir.join(REBUILD_DIR)).expect("it is made");
    fs::rename(dir.join(DATA_FILE), dir.join(REBUILD_DIR).join(DATA_FILE)).expect("it is moved");
    assert_eq!(open(&dir).1, loaded);
}

#[test]
fn a_disk_that_refuses_leaves_the_agent_in_memory_with_what_can_be_read() {
    let (_scratch, dir, loaded) = filled();
    // A directory where the new store must be made, that cannot be removed by a file's name and takes no file: /proc.
    let refused = Options { dir: PathBuf::from("/proc/self/vigo"), ..options(&dir) };
    let mut store = Store::open(&refused).expect("nobody else holds it");
    let incidents = store.load().expect("it loads").incidents;
    assert!(incidents[0].starts_with("memory-only: cannot make the directory /proc/self/vigo"), "{incidents:?}");
    store.commit(&[StoreOp::SetMeta("a".into(), vec![1])]).expect("memory takes it");
    // And with a store that is there: everything goes on from it.
    let mut store = Store::in_memory(&options(&dir), Vec::new(), "read-only file system".into(), None);
    let again = store.load().expect("it loads");
    assert_eq!(again.incidents, ["memory-only: read-only file system"]);
    assert_eq!(Loaded { incidents: Vec::new(), ..again }, loaded);
}

#[test]
fn a_store_that_breaks_while_it_is_open_is_rebuilt_in_place() {
    let (_scratch, dir, loaded) = filled();
    let (mut store, _) = open(&dir);
    // LMDB wrote its pages long ago; other bytes now, as a bad disk would give.
    let path = dir.join(DATA_FILE);
    let bytes = fs::read(&path).expect("it reads");
    let at = bytes.windows(8).rposition(|window| window == crate::cache::codec::MAGIC).expect("a value is there");
    let file = fs::OpenOptions::new().write(true).open(&path).expect("it opens");
    std::os::unix::fs::FileExt::write_all_at(&file, b"XX", at as u64 + 80).expect("it is written");
    store.reopen(NOW);
    let again = store.load().expect("it loads");
    assert!(again.incidents[0].starts_with("moved-aside: "), "{:?}", again.incidents);
    assert_eq!(again.highest, loaded.highest);
    store.commit(&[StoreOp::SetMeta("a".into(), vec![1])]).expect("it goes on");
    store.leave_incidents(&again.incidents);
    drop(store);
    assert_eq!(open(&dir).1.incidents, again.incidents, "the next process tells it");
    let last = open(&dir).1;
    assert_eq!((last.incidents.len(), last.meta.len()), (0, 1), "once");
}
