//! Issue 2, check 2: a store of at least 200 pages with both slots, 500 live and 500 freed records; every page truncated,
//! zeroed, flipped, overwritten. A sample runs every time; `VIGO_DAMAGE_CASES=2000 cargo test -p vigo-envoy --lib salvage`
//! runs all of it (some minutes), `VIGO_DAMAGE_SEED` another sample.

use super::*;
use crate::cache::fixture;
use crate::cache::open::{Options, Store};
use crate::cache::ops::{Cache, StoreOp};
use common::rng::{Rng, SplitMix64};
use common::time::Wall;
use std::collections::BTreeSet;

const PAGE: usize = 4_096;
const UUID: [u8; 16] = [0x5a; 16];

/// Every pair of assignment and bundle that is put: fill byte, bytes of the bundle.
const SLOTS: [(u8, usize); 3] = [(1, 30_000), (2, 50_000), (3, 40_000)];

/// The store that is damaged, and what was in it.
struct Original {
    bytes: Vec<u8>,
    /// Pages that LMDB has given out; the file is longer.
    pages: usize,
    loaded: Loaded,
    /// Live records by lane.
    live: [Vec<QueueRecord>; 2],
    /// Every record that was ever put.
    ever: Vec<QueueRecord>,
}

fn options(dir: &Path) -> Options {
    Options { bytes_max: 32 << 20, probe_deadline_ms: 30_000, ..Options::new(dir, Uuid::from_bytes(UUID), Wall(0)) }
}

fn read_all(store: &mut Store) -> [Vec<QueueRecord>; 2] {
    Lane::ALL.map(|lane| store.read_records(lane, 0, usize::MAX).expect("it reads"))
}

/// 600 urgent records of which 300 go, 400 routine of which 200 go, in a few dozen transactions, some acknowledged first;
/// both slots, changed twice; traits; meta values with the acknowledged sequences.
fn original() -> Original {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = scratch.path().join("state");
    let mut store = Store::open(&options(&dir)).expect("nobody else holds it");
    let mut ever = Vec::new();
    store.commit(&[fixture::slot(SLOTS[0].0, SLOTS[0].1)]).expect("it fits");
    for (lane, count, freed) in [(Lane::Urgent, 600, 300), (Lane::Routine, 400, 200)] {
        let mut records = fixture::chain(lane, count, 700);
        // Some in overflow pages.
        for at in (5..records.len()).step_by(40) {
            let head = &records[at].record;
            let previous: [u8; 32] = head.previous_link.clone().try_into().expect("a link");
            records[at] = fixture::run_of_size(lane, head.first_sequence, 1, &previous, 9_000);
        }
        ever.extend(records.iter().cloned());
        for chunk in records.chunks(40) {
            store.commit(&chunk.iter().cloned().map(StoreOp::PutRecord).collect::<Vec<_>>()).expect("it fits");
        }
        for (n, chunk) in records[..freed].chunks(60).enumerate() {
            let firsts: Vec<u64> = chunk.iter().map(|record| record.record.first_sequence).collect();
            if n % 2 == 0 {
                let acked = |record: &QueueRecord| QueueRecord { acked_at_ms: 99, sealed: true, ..record.clone() };
                let acked: Vec<QueueRecord> = chunk.iter().map(acked).collect();
                ever.extend(acked.iter().cloned());
                store.commit(&acked.into_iter().map(StoreOp::PutRecord).collect::<Vec<_>>()).expect("it fits");
            }
            store.commit(&[StoreOp::DeleteRecords { lane, firsts }]).expect("it deletes");
        }
        let acked = StoreOp::SetMeta(META_ACKED[lane.index()].into(), (freed as u64).to_be_bytes().to_vec());
        store.commit(&[acked, StoreOp::SetTrait(lane.name().into(), Some(vec![9; 900]))]).expect("it fits");
    }
    store.commit(&[fixture::slot(SLOTS[1].0, SLOTS[1].1)]).expect("it fits");
    store.commit(&[fixture::slot(SLOTS[2].0, SLOTS[2].1)]).expect("it fits");
    let (loaded, live) = (store.load().expect("it loads"), read_all(&mut store));
    drop(store);
    let bytes = std::fs::read(dir.join("data.mdb")).expect("it reads");
    let report = crate::cache::verify(&dir, Uuid::from_bytes(UUID));
    let pages = (report.used_pages + report.free_pages) as usize;
    assert!(pages >= 200, "{pages} pages");
    assert_eq!((live[0].len(), live[1].len()), (300, 200));
    Original { bytes, pages, loaded, live, ever }
}

/// What the file still holds, found without any code of the product but the checksum: at every byte, whatever has a magic,
/// whole checksums and our UUID.
mod scanner {
    use super::*;

    pub struct Whole {
        pub kind: u8,
        pub place: u8,
        pub first: u64,
        pub last: u64,
        pub revision: u64,
        pub acked: u64,
        pub name: Vec<u8>,
        pub payload: Vec<u8>,
    }

    fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
        bytes[at..at + width].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    pub fn whole_values(file: &[u8]) -> Vec<Whole> {
        let mut out = Vec::new();
        for at in 0..file.len().saturating_sub(75) {
            let head = &file[at..at + 76];
            if !head.starts_with(b"\x89VGO\xff\r\n\x01")
                || u64::from(crc32fast::hash(&head[..72])) != number(head, 72, 4)
            {
                continue;
            }
            let (name, payload) = (number(head, 62, 2) as usize, number(head, 64, 4) as usize);
            let Some(body) = file.get(at + 76..at + 76 + name + payload) else { continue };
            if head[12..28] == UUID && u64::from(crc32fast::hash(body)) == number(head, 68, 4) {
                out.push(Whole {
                    kind: head[9],
                    place: head[10],
                    first: number(head, 28, 8),
                    last: number(head, 36, 8),
                    revision: number(head, 44, 8),
                    acked: number(head, 52, 8),
                    name: body[..name].to_vec(),
                    payload: body[name..].to_vec(),
                });
            }
        }
        out
    }

    /// Payloads of the records of a lane that must be carried over: the newest of each first sequence, unless it was
    /// acknowledged, or lies below the oldest record that the newest seal knows.
    pub fn expected(values: &[Whole], lane: Lane) -> Vec<Vec<u8>> {
        let seal = values.iter().filter(|value| value.kind == 6).max_by_key(|value| value.revision);
        // Payload of a seal: three numbers, then six for each lane; the fourth is the floor, the sixth the acknowledged.
        let of_seal = |n: usize| seal.map_or(0, |seal| number(&seal.payload, 24 + lane.index() * 48 + n * 8, 8));
        let named = values.iter().filter(|value| value.kind == 4 && value.name == META_ACKED[lane.index()].as_bytes());
        let meta = named.max_by_key(|value| value.revision).map_or(0, |value| number(&value.payload, 0, 8));
        let (floor, acked) = (of_seal(3), of_seal(5).max(meta));
        let firsts: BTreeSet<u64> =
            values.iter().filter(|v| v.kind == 1 && v.place == lane as u8).map(|v| v.first).collect();
        let newest = |first: &u64| {
            let same = values.iter().filter(|v| v.kind == 1 && v.place == lane as u8 && v.first == *first);
            same.max_by_key(|value| value.revision)
        };
        firsts
            .iter()
            .filter_map(newest)
            .filter(|value| value.last >= floor && (value.last > acked || value.acked != 0))
            .map(|value| value.payload.clone())
            .collect()
    }
}

/// One way to damage a file. `page` walks over all of them.
fn damage(bytes: &mut Vec<u8>, page: usize, how: u64, rng: &mut SplitMix64) -> String {
    let start = page * PAGE;
    let pages = bytes.len() / PAGE;
    let mut flip = |bytes: &mut Vec<u8>, from: usize, len: usize| {
        let bit = rng.below(len as u64 * 8) as usize;
        bytes[from + bit / 8] ^= 1 << (bit % 8);
        from * 8 + bit
    };
    match how % 10 {
        0 => {
            bytes.truncate(start);
            format!("cut before page {page}")
        }
        1 => {
            bytes[start..start + PAGE].fill(0);
            format!("page {page} zeroed")
        }
        2..=4 => format!("bit {} of page {page} flipped", flip(bytes, start, PAGE)),
        // Headers, pointers and nodes are at the two ends of a page.
        5 => format!("bit {} of page {page} flipped", flip(bytes, start, 64)),
        6 => {
            let bits: Vec<usize> = (0..8).map(|_| flip(bytes, start, PAGE)).collect();
            format!("bits {bits:?} of page {page} flipped")
        }
        7 => {
            let from = rng.below(pages as u64) as usize * PAGE;
            bytes.copy_within(from..from + PAGE, start);
            format!("page {} written over page {page}", from / PAGE)
        }
        8 => {
            let at = start + rng.below(8) as usize * 512;
            bytes[at..at + 512].fill(0xff);
            format!("sector at {at} overwritten")
        }
        _ => {
            let at = start + rng.below(PAGE as u64) as usize;
            bytes.truncate(at);
            format!("cut at byte {at}")
        }
    }
}

fn check(original: &Original, bytes: &[u8], what: &str) -> bool {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = scratch.path().join("state");
    std::fs::create_dir(&dir).expect("it is made");
    std::fs::write(dir.join("data.mdb"), bytes).expect("it is written");
    let mut store = Store::open(&options(&dir)).expect("nobody else holds it");
    let loaded = store.load().expect("it loads");
    let kept = read_all(&mut store);
    assert!(!store.is_memory_only(), "{what}: {:?}", loaded.incidents);

    let values = scanner::whole_values(bytes);
    let moved = !loaded.incidents.is_empty();
    if moved {
        assert!(loaded.incidents[0].starts_with("moved-aside: "), "{what}: {:?}", loaded.incidents);
        assert!(loaded.incidents[1].starts_with("salvaged "), "{what}: {:?}", loaded.incidents);
        let count = kept[0].len() + kept[1].len();
        assert!(loaded.incidents[1].contains(&format!("salvaged {count} records")), "{what}: {:?}", loaded.incidents);
        for lane in Lane::ALL {
            let payloads: Vec<Vec<u8>> =
                kept[lane.index()].iter().map(|r| common::proto::Message::encode_to_vec(&r.record)).collect();
            assert!(payloads == scanner::expected(&values, lane), "{what}: {} records differ", lane.name());
        }
        // Every one of them was put once, as it is, and no live one is missing whose bytes are there.
        for record in kept.iter().flatten() {
            assert!(original.ever.contains(record), "{what}: a record that never was");
        }
    } else {
        // Damage that nothing reads: free pages, slack, the older snapshot.
        assert!(kept == original.live, "{what}: silently other records");
        assert_eq!(loaded, original.loaded, "{what}");
    }
    // A slot is empty, or holds a pair as it was once put, whole; the newest one wherever its bytes are there.
    let pair = |(fill, bytes)| (fixture::signed(fill, 100), fixture::signed(fill, bytes));
    let pairs = SLOTS.map(pair);
    for slot in [&loaded.current, &loaded.previous].into_iter().flatten() {
        assert!(pairs.contains(slot), "{what}: a slot holds what was never put");
    }
    let whole = |signed: &common::proto::wire::Signed| {
        let payload = common::proto::Message::encode_to_vec(signed);
        values.iter().any(|value| value.payload == payload)
    };
    if whole(&pairs[2].0) && whole(&pairs[2].1) {
        assert!(loaded.current == original.loaded.current, "{what}: the current policy is there, but not used");
    }

    // It goes on: takes a record, and is sound at the next start.
    let next = fixture::run(Lane::Urgent, loaded.highest[0].max(1_000) + 1, 0, &[3; 32]);
    store.commit(&[StoreOp::PutRecord(next.clone())]).expect("it takes a record");
    drop(store);
    let mut store = Store::open(&options(&dir)).expect("nobody else holds it");
    let again = store.load().expect("it loads");
    assert_eq!(again.incidents, [""; 0], "{what}: rebuilt twice");
    assert_eq!((again.lanes[0].len(), again.tails[0].clone()), (kept[0].len() + 1, Some(next)), "{what}");
    moved
}

#[test]
fn an_undamaged_store_is_what_the_scanner_expects() {
    let original = original();
    assert!(!check(&original, &original.bytes, "no damage"));
    let values = scanner::whole_values(&original.bytes);
    for lane in Lane::ALL {
        let payloads: Vec<Vec<u8>> =
            original.live[lane.index()].iter().map(|r| common::proto::Message::encode_to_vec(&r.record)).collect();
        assert!(payloads == scanner::expected(&values, lane));
    }
}

#[test]
fn whatever_is_damaged_the_agent_comes_up_with_what_is_whole() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (cases, seed) = (number("VIGO_DAMAGE_CASES").unwrap_or(150), number("VIGO_DAMAGE_SEED").unwrap_or(1));
    let original = original();
    let pages = original.pages;
    let mut rng = SplitMix64(seed);
    let mut moved = 0;
    for case in 0..cases {
        // The meta pages more often than others, then page by page with every kind of damage; a prime step mixes them.
        let page = if case % 12 == 0 { (case / 12 % 2) as usize } else { (case * 37) as usize % pages };
        let mut bytes = original.bytes.clone();
        let what = damage(&mut bytes, page, case + case / pages as u64, &mut rng);
        moved += u64::from(check(&original, &bytes, &format!("case {case} (seed {seed}): {what}")));
    }
    println!("{cases} cases over {pages} pages, {moved} stores moved aside");
    assert!(moved * 3 > cases, "{moved} of {cases}: the damage hits what is in use");
}
