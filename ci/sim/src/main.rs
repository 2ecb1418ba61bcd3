//! `vigo-sim`: runs seeds, prints what happened, and for a failing seed the command that replays it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vigo_sim::faults::Kind;
use vigo_sim::plant::Bug;
use vigo_sim::{Config, Outcome, run};

const USAGE: &str = "\
usage: vigo-sim [--seeds N] [--first SEED] [--agents N] [--threads N]   run seeds, all must hold
       vigo-sim --replay SEED [--agents N] [--bug NAME]                 one seed; VIGO_SIM_TRACE=1 prints every step
       vigo-sim --bugs [--seeds N] [--agents N]                         every planted bug must be caught
example: vigo-sim --seeds 1000 --agents 20";

struct Args {
    seeds: u64,
    first: u64,
    agents: usize,
    threads: usize,
    replay: Option<u64>,
    bug: Option<Bug>,
    bugs: bool,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(text) => {
            eprintln!("{text}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    let good = if let Some(seed) = args.replay {
        replay(seed, &args)
    } else if args.bugs {
        Bug::ALL.into_iter().map(|bug| catches(bug, &args)).filter(|caught| !caught).count() == 0
    } else {
        all_hold(&args)
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args { seeds: 100, first: 1, agents: 20, threads: 2, replay: None, bug: None, bugs: false };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("`{text}` is not a number"));
        match word.as_str() {
            "--seeds" => args.seeds = number(value()?)?,
            "--first" => args.first = number(value()?)?,
            "--agents" => args.agents = number(value()?)?.clamp(1, 10_000) as usize,
            "--threads" => args.threads = number(value()?)?.clamp(1, 64) as usize,
            "--replay" => args.replay = Some(number(value()?)?),
            "--bug" => args.bug = Some(value()?.parse()?),
            "--bugs" => args.bugs = true,
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(args)
}

fn replay(seed: u64, args: &Args) -> bool {
    let outcome = run(Config { seed, agents: args.agents, bug: args.bug });
    println!("{} runs, {} events, {} records, {} gaps", outcome.runs, outcome.events, outcome.records, outcome.gaps);
    println!("faults: {:?}", outcome.happened);
    outcome.violations.iter().for_each(|text| println!("VIOLATION {text}"));
    outcome.violations.is_empty()
}

/// Runs seeds on all threads; `done` is told of each and may stop the rest.
fn each_seed(args: &Args, bug: Option<Bug>, done: impl Fn(u64, Outcome) -> bool + Sync) {
    let next = AtomicU64::new(args.first);
    let end = args.first + args.seeds;
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if !done(seed, run(Config { seed, agents: args.agents, bug })) {
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

fn all_hold(args: &Args) -> bool {
    let sums = Mutex::new((BTreeMap::<Kind, u64>::new(), Outcome::default(), 0u64));
    each_seed(args, None, |seed, outcome| {
        let mut sums = sums.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for kind in &outcome.happened {
            *sums.0.entry(*kind).or_default() += 1;
        }
        sums.1.runs += outcome.runs;
        sums.1.events += outcome.events;
        sums.1.records += outcome.records;
        sums.1.gaps += outcome.gaps;
        if !outcome.violations.is_empty() {
            sums.2 += 1;
            println!("seed {seed} FAILED: {}", outcome.violations.join("; "));
            println!("  replay: cargo run -p vigo-sim -- --replay {seed} --agents {}", args.agents);
        }
        sums.2 < 20
    });
    let (kinds, total, failed) = sums.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    println!(
        "{} seeds of {} agents: {} runs, {} records, {} gaps, {} events, {failed} failed",
        args.seeds, args.agents, total.runs, total.records, total.gaps, total.events
    );
    let mut rare = 0;
    for kind in Kind::ALL {
        let seeds = kinds.get(&kind).copied().unwrap_or(0);
        println!("  {kind:?}: in {seeds} seeds");
        rare += u64::from(seeds * 10 < args.seeds);
    }
    if rare > 0 && args.seeds >= 50 {
        println!("{rare} kinds of fault happened in less than a tenth of the seeds");
    }
    failed == 0 && (rare == 0 || args.seeds < 50)
}

fn catches(bug: Bug, args: &Args) -> bool {
    let caught = Mutex::new(None);
    each_seed(args, Some(bug), |seed, outcome| {
        let mut caught = caught.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(text) = outcome.violations.first()
            && caught.is_none()
        {
            *caught = Some((seed, text.clone()));
        }
        caught.is_none()
    });
    let caught = caught.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    match &caught {
        Some((seed, text)) => println!("planted {}: caught by seed {seed}: {text}", bug.name()),
        None => println!("planted {}: NOT caught by {} seeds", bug.name(), args.seeds),
    }
    caught.is_some()
}
