//! The measurements. Before each round the tree is edited as an operator would: what is measured is never the answer of before.

use std::path::{Path, PathBuf};

use common::sys::Clock;
use vigosrv::store::DataSet;

use super::timed::{Took, timed};
use super::tree::{Size, put};
use crate::server::gauge::{median, resident_kib, status_kib};
use crate::server::target::Site;

/// What to measure, and how thoroughly.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `vigosrv`, with `vigocli` beside it.
    pub server: PathBuf,
    /// Scratch space.
    pub dir: PathBuf,
    /// Configcrates and mappings.
    pub size: Size,
    /// Enrolled envoys of the server.
    pub envoys: u32,
    /// Runs of each command.
    pub rounds: usize,
}

impl Plan {
    /// The size that the budgets are for.
    pub fn new(server: PathBuf, dir: PathBuf) -> Plan {
        Plan { server, dir, size: Size { crates: 1_000, mappings: 10_000 }, envoys: 10_000, rounds: 9 }
    }

    /// Small and short.
    pub fn quick(&mut self) {
        (self.size, self.envoys, self.rounds) = (Size { crates: 100, mappings: 500 }, 500, 3);
    }
}

/// A command with what is edited before each of its rounds.
struct Step<'s> {
    what: &'s str,
    budget: &'s str,
    edit: &'s dyn Fn(usize) -> Result<(), String>,
    words: Vec<&'s str>,
}

/// Measures, and prints a table.
pub fn measure(plan: &Plan) -> Result<(), String> {
    let fleet = DataSet { days: 0, ..DataSet::month(plan.envoys, Clock::system().now().wall) };
    let root = plan.dir.join("root");
    let site = Site::make(&root, &plan.server, &fleet, "")?;
    let stacks = root.join("stacks");
    std::fs::remove_dir_all(&stacks).map_err(|error| error.to_string())?;
    let n_bytes = plan.size.write(&stacks)?;
    println!(
        "{} configcrates of 10 resources, {} mappings, {n_bytes} bytes, {} enrolled envoys; {} runs of each command\n\n\
         | command | median ms | from - to | CPU ms | peak MiB | budget ms |\n|---|---|---|---|---|---|",
        plan.size.crates, plan.size.mappings, plan.envoys, plan.rounds
    );
    let cli = plan.server.with_file_name("vigocli");
    let bench = Bench { plan, root: &root, cli };
    let size = plan.size;
    let host = size.host(plan.size.mappings / 2);
    let nothing = |_: usize| Ok(());
    let crate_edit = |round: usize| edit(&stacks.join(size.crate_path(round + 7)), round);
    let mapping_edit = |round: usize| edit(&stacks.join(size.mapping_path(round * 60)), round);
    let vars_edit = |round: usize| edit(&stacks.join(format!("vars/shared/set-{:02}.vgo", round % 20)), round);
    let forget = |_: usize| {
        // What a command remembers of the tree between its runs.
        for program in ["vigocli", "vigosrv"] {
            let _ = std::fs::remove_file(root.join(format!("run/policy.{program}.memory")));
        }
        Ok(())
    };
    let step = |what, budget, edit, words: &[&'static str]| Step { what, budget, edit, words: words.to_vec() };
    let validate = ["config", "validate"];
    let publish = ["config", "publish"];
    bench.step(&step("validate, nothing remembered", "-", &forget, &validate))?;
    bench.step(&step("validate, nothing changed", "200", &nothing, &validate))?;
    bench.step(&step("validate, one configcrate changed", "200", &crate_edit, &validate))?;
    bench.step(&step("validate, one file of mappings changed", "200", &mapping_edit, &validate))?;
    bench.step(&step("validate, a file of variables for 50 configcrates changed", "200", &vars_edit, &validate))?;
    bench.step(&Step { what: "trace HOST", budget: "100", edit: &nothing, words: vec!["config", "trace", &host] })?;
    let trace = Step {
        what: "trace HOST, one configcrate changed",
        budget: "100",
        edit: &crate_edit,
        words: vec!["config", "trace", &host],
    };
    bench.step(&trace)?;
    let whole = |round: usize| forget(round).and_then(|()| everything(&stacks, size, round));
    bench.step(&step("publish, every file changed, nothing remembered", "1000, goal 500", &whole, &publish))?;
    bench.step(&step("publish, one configcrate changed", "1000, goal 500", &crate_edit, &publish))?;
    bench.step(&step("publish, nothing changed", "-", &nothing, &publish))?;
    bench.step(&step("diff, one configcrate changed", "-", &crate_edit, &["config", "diff"]))?;
    let server = site.start()?;
    bench.step(&step("with a server: publish, every file changed", "1000, goal 500", &whole, &publish))?;
    bench.step(&step("with a server: publish, one configcrate changed", "1000, goal 500", &crate_edit, &publish))?;
    bench.step(&step("with a server: validate, one configcrate changed", "200", &crate_edit, &validate))?;
    let (now, peak) = (resident_kib(server.pid()), status_kib(server.pid(), "VmHWM:"));
    println!("\nThe server afterwards: {:.0} MiB resident, at most {:.0} MiB.", mib(now), mib(peak));
    server.stop()
}

struct Bench<'p> {
    plan: &'p Plan,
    root: &'p Path,
    cli: PathBuf,
}

impl Bench<'_> {
    fn step(&self, step: &Step<'_>) -> Result<(), String> {
        eprintln!("bench: {}", step.what);
        let (program, root) = (self.cli.display().to_string(), self.root.display().to_string());
        let mut command = vec![program.as_str()];
        command.extend(&step.words);
        command.extend(["--root", &root]);
        let mut all: Vec<Took> = Vec::new();
        for round in 0..self.plan.rounds {
            (step.edit)(round)?;
            all.push(timed(&command)?);
        }
        let walls: Vec<f64> = all.iter().map(|took| took.wall_ms).collect();
        let cpu: Vec<f64> = all.iter().map(|took| took.cpu_ms).collect();
        let (low, high) = walls.iter().fold((f64::MAX, 0f64), |(low, high), ms| (low.min(*ms), high.max(*ms)));
        let peak = all.iter().map(|took| took.peak_kib).max().unwrap_or_default();
        println!(
            "| {} | {:.0} | {low:.0} - {high:.0} | {:.0} | {:.0} | {} |",
            step.what,
            median(&walls),
            median(&cpu),
            mib(peak),
            step.budget
        );
        Ok(())
    }
}

/// Changes what a file says: a comment at the end, a new one each time, and with it places, hashes and sizes.
fn edit(path: &Path, round: usize) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(failed)?;
    put(path, &format!("# edit {round}-{}\n{text}", text.len()))
}

/// Changes every file but those that are copied as they are.
fn everything(stacks: &Path, size: Size, round: usize) -> Result<(), String> {
    let mut policy = size.files().into_iter().filter(|(path, _)| path.ends_with(".vgo"));
    policy.try_for_each(|(path, _)| edit(&stacks.join(path), round))
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
