//! Measures the loss of a server: `ci/bench/run recovery`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use common::sys::Clock;
use serde_json::Value;
use vigo_bench::server::target::Site;
use vigosrv::store::DataSet;

const HELP: &str = "\
ci/bench/run recovery [--envoys N] [--rounds N] [--dir DIR]

Makes a server with 30 days of history, and measures archive and recovery beside `tar | gzip -6` and a raw copy of the same bytes, all in
one run, medians of the rounds. Prints a table.

  --envoys N  size of the fleet (default 10,000, as in the budgets)
  --rounds N  rounds (default 5)
  --dir DIR   scratch space on the disk to be measured (default: the system's for temporary files)
";

struct Plan {
    envoys: u32,
    rounds: usize,
    dir: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match plan(&arguments).and_then(|plan| plan.map_or(Ok(()), |plan| measure(&plan))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-recovery: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> Result<Option<Plan>, String> {
    let mut plan = Plan { envoys: 10_000, rounds: 5, dir: std::env::temp_dir() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        let number = |text: &String| text.parse::<u32>().map_err(|_| format!("{argument} needs a number"));
        match argument.as_str() {
            "--help" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--envoys" => plan.envoys = number(value()?)?,
            "--rounds" => plan.rounds = number(value()?)?.max(1) as usize,
            "--dir" => plan.dir = PathBuf::from(value()?),
            other => return Err(format!("no such option: {other}\n\n{HELP}")),
        }
    }
    Ok(Some(plan))
}

fn measure(plan: &Plan) -> Result<(), String> {
    let dir = plan.dir.join(format!("vigo-bench-recovery-{}", std::process::id()));
    let done = rounds(plan, &dir);
    let _ = std::fs::remove_dir_all(&dir);
    done
}

fn rounds(plan: &Plan, dir: &Path) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("vigosrv");
    let cli = program.with_file_name("vigocli");
    let root = dir.join("server");
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    eprintln!("making {} envoys", plan.envoys);
    let site = Site::make(&root, &program, &DataSet::month(plan.envoys, Clock::system().now().wall), "")?;
    let bytes = site.database_bytes();
    let (root, archive) = (root.display().to_string(), dir.join("vigo.tar.gz").display().to_string());
    let at = |name: &str| dir.join(name).display().to_string();
    let mut table: Vec<(String, Vec<f64>)> = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        let mut note = |name: &str, ms: f64| match table.iter_mut().find(|(known, _)| known == name) {
            Some((_, all)) => all.push(ms),
            None => table.push((name.to_string(), vec![ms])),
        };
        // As durable as what it is compared with.
        note("raw copy of the database, synced", shell(&format!("cp {root}/db/vigo.db {0} && sync {0}", at("raw")))?);
        let tree = format!(
            "tar -C {root} -cf - db/vigo.db stacks secrets tls server.yaml | gzip -6 > {0} && sync {0}",
            at("peer.tar.gz")
        );
        note("tar \\| gzip -6 of the same tree", shell(&tree)?);
        note(
            "backup create",
            run(Command::new(&cli).args(["--root", &root, "backup", "create", &archive, "--force"]))?.0,
        );
        note("backup verify", run(Command::new(&cli).args(["--root", &root, "backup", "verify", &archive]))?.0);
        let (_, drill) = run(Command::new(&cli)
            .args(["--root", &root, "backup", "drill", &archive, "--json", "--scratch"])
            .arg(dir))?;
        let drill: Value = serde_json::from_slice(&drill).map_err(|error| error.to_string())?;
        let (mut total, steps) = (0.0, drill["steps"].as_array().cloned().unwrap_or_default());
        for step in steps {
            let (name, ms) = (step["step"].as_str().unwrap_or_default(), step["ms"].as_f64().unwrap_or(0.0));
            note(&format!("recovery: {name}"), ms);
            total += if name == "stop" { 0.0 } else { ms };
        }
        note("recovery, archive to first answered check-in", total);
    }
    println!(
        "Database of {} envoys: {} MiB; milliseconds, median (least to most) of {} rounds.\n",
        plan.envoys,
        bytes >> 20,
        plan.rounds
    );
    println!("| what | ms |\n|---|---|");
    for (name, all) in &mut table {
        all.sort_by(f64::total_cmp);
        println!("| {name} | {:.0} ({:.0}-{:.0}) |", all[all.len() / 2], all[0], all[all.len() - 1]);
    }
    let median =
        |name: &str| table.iter().find(|(known, _)| known.starts_with(name)).map_or(0.0, |(_, all)| all[all.len() / 2]);
    let speed = median("tar") / median("backup create");
    println!("\nArchive speed: {speed:.2} of tar and gzip (budget: at least 0.8).");
    let limit = 2.0 * median("raw") + 3_000.0;
    println!(
        "Recovery: {:.0} ms of {limit:.0} allowed (twice the raw copy and three seconds).",
        median("recovery, archive")
    );
    Ok(())
}

fn shell(script: &str) -> Result<f64, String> {
    run(Command::new("bash").args(["-o", "pipefail", "-c", script])).map(|(ms, _)| ms)
}

/// How long it took, and what it printed.
fn run(command: &mut Command) -> Result<(f64, Vec<u8>), String> {
    let clock = Clock::system();
    let from = clock.now().mono;
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let ms = clock.now().mono.since(from);
    if output.status.success() || output.status.code() == Some(1) && output.stderr.is_empty() {
        return Ok((ms as f64, output.stdout));
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}
