//! Measures the database: durable results a second, and the start with a large fleet.
//!
//! `cargo run --release -p vigosrv --example store_bench -- [DIR [ENVOYS [results|start]]]`
#![allow(clippy::disallowed_methods, reason = "a measuring program reads clocks")]

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use common::chain::{self, Lane};
use common::ids::{Hash32, ServerId};
use common::proto::{Message, RecordBody, RecordMeta, wire};
use common::time::Wall;
use vigosrv::store::{
    DataSet, OpenOptions, RecordKind, ResultsWrite, SqliteStore, Store, StoredRecord, Write, Writer, check_whole,
    generate, identity,
};

const SERVER: ServerId = ServerId(Hash32([9; 32]));
/// Envoys that drain their queues.
const SENDERS: u32 = 10_000;
/// Results that each sends, one a report.
const EACH: u64 = 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from).join("vigo-store-bench");
    let envoys: u32 = args.next().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let part = args.next();
    if part.as_deref() != Some("start") {
        for group in [128, 512] {
            batches(&dir.join(format!("batch-{group}.db")), group)?;
        }
        writer(&dir.join("writer.db"))?;
    }
    if part.as_deref() != Some("results") {
        start(&dir.join("month.db"), envoys)?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn result(n: u32, sequence: u64, link: &mut Hash32) -> Write {
    let outcome = |i: u32| wire::ResourceOutcome {
        resource: format!("web.resource-{i}"),
        outcome: 2,
        duration_ms: 12,
        r#type: "file".into(),
        ..wire::ResourceOutcome::default()
    };
    let run = wire::RunResult {
        run_id: chain::link(link, Lane::Urgent, sequence, b"id").0[..16].to_vec(),
        started_wall_ms: 1_790_000_000_000 + sequence as i64,
        duration_ms: 400,
        boot_id: "0b5d6f1c-2a34-4e6f-8a9b-0c1d2e3f4a5b".into(),
        bundle_hash: vec![3; 32],
        serial: 4,
        epoch: 1,
        source: 1,
        counts: Some(wire::RunCounts { ok: 180, changed: 20, ..wire::RunCounts::default() }),
        outcomes: (0..20).map(outcome).collect(),
        status: 9,
        ..wire::RunResult::default()
    };
    let body = run.encode_to_vec();
    let previous_link = *link;
    *link = chain::link(link, Lane::Urgent, sequence, &body);
    let meta = RecordMeta {
        lane: Lane::Urgent,
        first: sequence,
        last: sequence,
        previous_link,
        first_link: *link,
        last_link: *link,
    };
    let record = StoredRecord { meta, kind: RecordKind::Run, body, decoded: RecordBody::Run(run) };
    let (traits, removed_traits, trait_hash, trait_base) = Default::default();
    let uuid = identity(n).0;
    let at = Wall(1_790_000_000_000);
    Write::Results(Box::new(ResultsWrite {
        uuid,
        records: vec![record],
        traits,
        removed_traits,
        trait_hash,
        trait_base,
        at,
    }))
}

fn enrolled(path: &std::path::Path) -> Outcome<SqliteStore> {
    let options = OpenOptions::new(path, SERVER);
    generate(&options, &DataSet { days: 0, ..DataSet::month(SENDERS, Wall(0)) })?;
    Ok(SqliteStore::open(&options)?.store)
}

/// One result of every envoy in turn, as a returning fleet sends them: the worst order for the pages.
fn results() -> impl Iterator<Item = Write> {
    let mut links = vec![Hash32::ZERO; SENDERS as usize];
    (1..=EACH).flat_map(move |sequence| {
        let round: Vec<Write> =
            links.iter_mut().enumerate().map(|(n, link)| result(n as u32, sequence, link)).collect();
        round
    })
}

/// Time that this thread was on a processor: what counts on a machine that does other things too.
fn cpu() -> std::time::Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    std::time::Duration::from_nanos(nanoseconds)
}

fn batches(path: &std::path::Path, group: usize) -> Outcome<()> {
    let mut store = enrolled(path)?;
    let mut results = results();
    let (mut total, mut busy, mut on_cpu) = (0, std::time::Duration::ZERO, std::time::Duration::ZERO);
    let mut longest = std::time::Duration::ZERO;
    loop {
        let batch: Vec<Write> = results.by_ref().take(group).collect();
        if batch.is_empty() {
            break;
        }
        let (start, cpu_before) = (Instant::now(), cpu());
        store.apply(&batch)?;
        store.upkeep()?;
        busy += start.elapsed();
        on_cpu += cpu() - cpu_before;
        longest = longest.max(start.elapsed());
        total += batch.len();
    }
    let bytes = std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
    println!(
        "durable results, groups of {group}: {:.0}/s ({total}, longest group {longest:.0?}, {} bytes a result, {:.1} us of CPU each)",
        total as f64 / busy.as_secs_f64(),
        bytes / total as u64,
        on_cpu.as_secs_f64() * 1e6 / total as f64
    );
    Ok(())
}

/// Through the writer thread, with a bounded number under way, as a fleet does that waits for its acknowledgements.
fn writer(path: &std::path::Path) -> Outcome<()> {
    let store = enrolled(path)?;
    let writes: Vec<Write> = results().collect();
    let total = writes.len();
    let (sender, receiver) = mpsc::channel();
    let writer = Writer::spawn(store, move |done| drop(sender.send(done)))?;
    let start = Instant::now();
    let (mut under_way, mut groups) = (0, 0);
    for (ticket, write) in (0..).zip(writes) {
        while under_way >= 4_096 {
            under_way -= receiver.recv()?.len();
            groups += 1;
        }
        under_way += 1;
        assert!(writer.submit(ticket, write).is_ok(), "the queue has room");
    }
    while under_way > 0 {
        under_way -= receiver.recv()?.len();
        groups += 1;
    }
    let rate = total as f64 / start.elapsed().as_secs_f64();
    println!("durable results, writer thread: {rate:.0}/s ({total} in {groups} groups)");
    writer.stop()?;
    Ok(())
}

fn start(path: &std::path::Path, envoys: u32) -> Outcome<()> {
    let options = OpenOptions::new(path, SERVER);
    let begin = Instant::now();
    let rows = generate(&options, &DataSet::month(envoys, Wall(1_790_000_000_000)))?;
    let bytes = std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
    println!("made {rows} rows of {envoys} envoys, {} MB, in {:.0?}", bytes >> 20, begin.elapsed());
    for unclean in [false, true, false] {
        let (begin, cpu_before) = (Instant::now(), cpu());
        let mut opened = SqliteStore::open(&options)?;
        let open = begin.elapsed();
        let n = opened.store.load()?.envoys.len();
        let kind = if unclean { "unclean" } else { "clean" };
        let (wall, on_cpu) = (begin.elapsed(), cpu() - cpu_before);
        println!("start ({kind}): open {open:.0?}, with {n} envoys loaded {wall:.0?}, of it CPU {on_cpu:.0?}");
        assert_eq!(opened.unclean, unclean);
        // The first is left as a crash leaves it.
        if unclean {
            opened.store.close()?;
        }
    }
    let begin = Instant::now();
    check_whole(path)?;
    println!("check of the whole file beside a running server: {:.0?}", begin.elapsed());
    Ok(())
}
