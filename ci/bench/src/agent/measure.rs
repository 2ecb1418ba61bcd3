//! The measurements. What is compared alternates, so that a busy moment of the machine falls on both; medians are what counts.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::files::{Files, Floor};
use super::process::{is_static, memory, wakeups};
use super::station::Station;

/// What is measured, and how thoroughly.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `vigo-envoy`.
    pub envoy: PathBuf,
    /// `vigosrv`, with `vigocli` beside it.
    pub server: PathBuf,
    /// Scratch space, on the disk to be measured.
    pub dir: PathBuf,
    /// Numbers of files for the runs.
    pub sizes: Vec<usize>,
    /// Pairs of runs that change nothing.
    pub rounds: usize,
    /// Pairs of runs that make everything.
    pub first_rounds: usize,
    /// How long a daemon is watched at rest.
    pub idle: Duration,
}

/// Files of the policy of the daemon at rest; its directories come on top.
const IDLE_FILES: usize = 476;
/// No page of LMDB is smaller.
const PAGE_BYTES_MIN: u64 = 512;

/// Measures; prints the tables as it goes.
pub fn measure(plan: &Plan) -> Result<(), String> {
    println!("### At rest\n\n| figure | value | budget |\n|---|---|---|");
    binary(plan)?;
    idle(plan)?;
    println!(
        "\n### Runs, in milliseconds (median, and from the lower to the upper quartile)\n\n\
         | files | nothing to do: agent | floor | ratio | syncs each | everything to make: agent | floor | ratio | resident afterwards | peak |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    plan.sizes.iter().try_for_each(|&n| runs(plan, n))
}

fn binary(plan: &Plan) -> Result<(), String> {
    let bytes = std::fs::read(&plan.envoy).map_err(|error| format!("{}: {error}", plan.envoy.display()))?;
    let linked = if is_static(&bytes) { "static" } else { "linked to the host's C library" };
    println!("| release binary, stripped, {linked} | {:.2} MiB | 4 MiB |", bytes.len() as f64 / f64::from(1 << 20));
    Ok(())
}

fn idle(plan: &Plan) -> Result<(), String> {
    let files = Files { n: IDLE_FILES };
    let mut station = start(plan, &files, "idle");
    for _ in 0..3 {
        station.run()?;
    }
    station.settle();
    // What follows a run (the delivery of it) is over when nothing happens any more.
    std::thread::sleep(plan.idle / 4);
    let pid = station.envoy.id();
    let before = wakeups(pid);
    std::thread::sleep(plan.idle);
    let n = wakeups(pid) - before;
    let memory = memory(pid);
    let seconds = plan.idle.as_secs();
    println!("| wake-ups in {seconds} s of all threads, connection held | {n} | 0 outside timers |");
    println!("| resident, 500 resources, after 4 runs | {} | 8 MiB |", mib(memory.rss));
    println!("| of it not shared and written (heap, stacks) | {} | |", mib(memory.private_dirty));
    println!("| proportional (PSS) | {} | |", mib(memory.pss));
    println!("| peak so far | {} | |", mib(memory.peak));
    station.stop();
    Ok(())
}

fn runs(plan: &Plan, n: usize) -> Result<(), String> {
    let files = Files { n };
    let mut station = start(plan, &files, &format!("n{n}"));
    let floor = files.floor(&station.root());
    let syncs = syncs(&mut station)?;
    let mut check = Pair::default();
    for round in 0..=plan.rounds {
        let ran = station.run()?;
        let bare = timed(|| floor.check(syncs))?;
        if ran.changed > 0 || bare.1 > 0 {
            return Err(format!("a run that should change nothing: {ran:?}, the floor found {} wrong", bare.1));
        }
        // The first of each is a warm-up.
        if round > 0 {
            check.push(ran.wall, bare.0);
        }
    }
    let after = memory(station.envoy.id());
    let mut make = Pair::default();
    for _ in 0..plan.first_rounds {
        clear(&floor)?;
        let ran = station.run()?;
        if ran.changed < n as u64 {
            return Err(format!("a run that should make {n} files: {ran:?}"));
        }
        clear(&floor)?;
        let bare = timed(|| floor.write(syncs))?;
        make.push(ran.wall, bare.0);
        station.settle();
    }
    let peak = memory(station.envoy.id()).peak;
    println!("| {n} | {} | {syncs} | {} | {} | {} |", check.cells(), make.cells(), mib(after.rss), mib(peak));
    station.stop();
    Ok(())
}

fn start(plan: &Plan, files: &Files, name: &str) -> Station {
    let dir = plan.dir.join(name);
    eprintln!("bench: {name}");
    std::fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    Station::start(&dir, files, plan.server.clone(), plan.envoy.clone())
}

fn clear(floor: &Floor) -> Result<(), String> {
    floor.clear().map_err(|error| error.to_string())?;
    nix::unistd::sync();
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> std::io::Result<T>) -> Result<(Duration, T), String> {
    let from = Instant::now();
    let value = work().map_err(|error| format!("the floor: {error}"))?;
    Ok((from.elapsed(), value))
}

/// Synced writes of one run that changes nothing, counted by strace: `fdatasync`, and writes to a file that was opened to be
/// synced at every write (LMDB's meta page).
fn syncs(station: &mut Station) -> Result<u64, String> {
    let trace = station.envoy.dir.join("trace.txt");
    let mut strace = Command::new("strace")
        .args(["-f", "-q", "-e", "trace=fsync,fdatasync,sync_file_range,msync,pwrite64,pwritev", "-y", "-o"])
        .arg(&trace)
        .args(["-p", &station.envoy.id().to_string()])
        .spawn()
        .map_err(|error| format!("strace: {error}"))?;
    // It has attached when the process says who traces it.
    let status = format!("/proc/{}/status", station.envoy.id());
    vigo_e2e::wait_until("strace to attach", || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")).then_some(())
    });
    let ran = station.run();
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(strace.id() as i32), nix::sys::signal::Signal::SIGINT);
    let _ = strace.wait();
    ran?;
    let text = std::fs::read_to_string(&trace).map_err(|error| error.to_string())?;
    let synced = |line: &&str| line.contains("sync(") || line.contains("sync_file_range(") || is_meta_write(line);
    Ok(text.lines().filter(synced).count() as u64)
}

/// LMDB writes the head of a meta page, less than any page, through a descriptor of its own that syncs.
fn is_meta_write(line: &str) -> bool {
    line.contains("pwrite64(")
        && line.contains("data.mdb>")
        && line.split_whitespace().next_back().and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n < PAGE_BYTES_MIN)
}

/// Two series that alternate.
#[derive(Default)]
struct Pair {
    agent: Vec<f64>,
    floor: Vec<f64>,
}

impl Pair {
    fn push(&mut self, agent: Duration, floor: Duration) {
        self.agent.push(agent.as_secs_f64() * 1e3);
        self.floor.push(floor.as_secs_f64() * 1e3);
    }

    fn cells(&self) -> String {
        let (agent, floor) = (Quartiles::of(&self.agent), Quartiles::of(&self.floor));
        format!("{agent} | {floor} | {:.2}", agent.median / floor.median)
    }
}

struct Quartiles {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Quartiles {
    fn of(values: &[f64]) -> Quartiles {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted.get(sorted.len() * part / 4).copied().unwrap_or(f64::NAN);
        Quartiles { lower: at(1), median: at(2), upper: at(3) }
    }
}

impl std::fmt::Display for Quartiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.lower, self.upper)
    }
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
