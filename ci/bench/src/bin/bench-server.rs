//! Measures the server: `ci/bench/run server`.

use std::io::{stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use vigo_bench::server::load::work;
use vigo_bench::server::measure::{self, Plan, Table};

const HELP: &str = "\
ci/bench/run server [--quick] [--dir DIR] [PART]...

Measures a release build of vigosrv beside a floor program that only answers, with simulated envoys in several processes,
and prints a table. Parts: check-in memory polled results restart; all of them where none is named.

  --quick      fewer envoys and shorter windows: to see that it works, not for figures
  --dir DIR    scratch space on the disk to be measured (default: a directory below the system's for temporary files)

ECHO_CMD='PROGRAM ARGUMENT...' measures against another floor. It gets the address to listen on as its last argument; `{bytes}`
in it is replaced by the length of an answer.
";

type Measure = fn(&Plan, &mut Table) -> Result<(), String>;

const PARTS: [(&str, Measure); 5] = [
    ("check-in", measure::no_change),
    ("memory", measure::held),
    ("polled", measure::polled),
    ("results", measure::results),
    ("restart", measure::restart),
];

fn main() -> ExitCode {
    // A worker holds as many connections as it may.
    let _ = common::sys::process::raise_open_files(1 << 20);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("work") => work(stdin().lock(), stdout()),
        Some("--help") => {
            print!("{HELP}");
            Ok(())
        }
        _ => measure_all(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(arguments: &[String]) -> Result<(), String> {
    let beside = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut plan = Plan {
        server: beside.with_file_name("vigosrv"),
        floor: std::env::var("ECHO_CMD").unwrap_or_default(),
        dir: std::env::temp_dir(),
        processes: 2,
        rounds: 7,
        window_ms: 3_000,
        held: 10_000,
        enrolled: 100_000,
    };
    let mut parts = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--quick" => (plan.rounds, plan.window_ms, plan.held, plan.enrolled) = (3, 500, 500, 1_000),
            "--dir" => plan.dir = PathBuf::from(rest.next().ok_or("--dir needs a directory")?),
            name => match PARTS.iter().find(|(part, _)| *part == name) {
                Some(part) => parts.push(part),
                None => return Err(format!("no such part or option: {name}\n\n{HELP}")),
            },
        }
    }
    if parts.is_empty() {
        parts.extend(&PARTS);
    }
    plan.dir = plan.dir.join(format!("vigo-bench-{}", std::process::id()));
    let mut table = Table::default();
    let done = parts.into_iter().try_for_each(|(name, measure)| {
        eprintln!("bench: {name}");
        measure(&plan, &mut table).map_err(|error| format!("{name}: {error}"))
    });
    let _ = std::fs::remove_dir_all(&plan.dir);
    print!("{}", table.markdown());
    done
}
