//! Measures the agent: `ci/bench/run agent`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vigo_bench::agent::{Plan, measure};

const HELP: &str = "\
ci/bench/run agent [--quick] [--dir DIR] [--sizes N,N] [--rounds N]

Measures a release build of vigo-envoy: its size, a daemon at rest, and runs of a warm daemon beside a bare program that makes the
same checks and as many syncs. Prints tables. Needs strace.

  --quick      fewer and shorter rounds: to see that it works, not for figures
  --dir DIR    scratch space on the disk to be measured (default: a directory below the system's for temporary files)
  --sizes N,N  numbers of files (default 100,1000,5000)
  --rounds N   pairs of runs that change nothing (default 41)
";

fn main() -> ExitCode {
    match plan().and_then(|plan| plan.map_or(Ok(()), |plan| run(&plan))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<(), String> {
    let done = measure(plan);
    let _ = std::fs::remove_dir_all(&plan.dir);
    done
}

fn plan() -> Result<Option<Plan>, String> {
    let beside = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut plan = Plan {
        envoy: beside.with_file_name("vigo-envoy"),
        server: beside.with_file_name("vigosrv"),
        dir: std::env::temp_dir(),
        sizes: vec![100, 1_000, 5_000],
        rounds: 41,
        first_rounds: 5,
        idle: Duration::from_secs(60),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no number"));
        match argument.as_str() {
            "--help" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--envoy" => plan.envoy = value()?.into(),
            "--server" => plan.server = value()?.into(),
            "--dir" => plan.dir = PathBuf::from(value()?),
            "--sizes" => plan.sizes = value()?.split(',').map(number).collect::<Result<_, _>>()?,
            "--rounds" => plan.rounds = number(&value()?)?,
            "--quick" => (plan.rounds, plan.first_rounds, plan.idle) = (5, 1, Duration::from_secs(4)),
            other => return Err(format!("no such option: {other}\n\n{HELP}")),
        }
    }
    plan.dir = plan.dir.join(format!("vigo-bench-{}", std::process::id()));
    Ok(Some(plan))
}
