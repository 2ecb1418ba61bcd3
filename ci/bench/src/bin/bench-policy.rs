//! Measures policy: `ci/bench/run policy`.

use std::path::PathBuf;
use std::process::ExitCode;

use vigo_bench::policy::{Plan, measure, run_here};

const HELP: &str = "\
ci/bench/run policy [--quick] [--dir DIR] [--rounds N]

Measures vigocli config validate, trace, diff and publish, each a fresh process, on a generated tree of 1,000 configcrates and
10,000 mappings, without a server and with one that has 10,000 enrolled envoys. Prints a table.

  --quick     a small tree and few rounds: to see that it works, not for figures
  --dir DIR   scratch space on the disk to be measured (default: a directory below the system's for temporary files)
  --rounds N  runs of each command (default 9)
  --make DIR  only write the tree below DIR/stacks, to look at it or to profile
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("timed", command)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return run_here(command);
    }
    match plan(&arguments).and_then(|plan| plan.map_or(Ok(()), |plan| run(&plan))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-policy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<(), String> {
    let done = measure(plan);
    let _ = std::fs::remove_dir_all(&plan.dir);
    done
}

fn plan(arguments: &[String]) -> Result<Option<Plan>, String> {
    let beside = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut plan = Plan::new(beside.with_file_name("vigosrv"), std::env::temp_dir());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--quick" => plan.quick(),
            "--make" => {
                plan.size.write(&PathBuf::from(value()?).join("stacks"))?;
                return Ok(None);
            }
            "--dir" => plan.dir = PathBuf::from(value()?),
            "--server" => plan.server = PathBuf::from(value()?),
            "--rounds" => plan.rounds = value()?.parse().map_err(|_| "--rounds needs a number".to_string())?,
            other => return Err(format!("no such option: {other}\n\n{HELP}")),
        }
    }
    plan.dir = plan.dir.join(format!("vigo-bench-{}", std::process::id()));
    Ok(Some(plan))
}
