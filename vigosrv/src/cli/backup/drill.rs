//! `vigocli backup drill`: restores an archive into a scratch directory, starts the server there, isolated, and asks it what an
//! operator and an envoy would ask. Makes an untested backup a tested one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Progress, ROOT, Table, color_wanted, print};
use common::sys::Clock;
use common::units::human_duration;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::envoy::check_in;
use super::look::note_proof;
use super::password::Password;
use super::{host, stamp};
use crate::backup::{self, Archive, Choice, Scratch, free_root};
use crate::cli::{get, post};
use crate::config::{Running, lock_root};

/// How long the restored server may take until it answers, milliseconds.
const START_MS: u64 = 120_000;
/// Between two looks at it.
const LOOK_MS: u64 = 20;
/// How long it may take to stop.
const STOP_MS: u64 = 15_000;

/// Restores an archive in a scratch directory, starts the server there by itself, checks it, and cleans up.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "drill", example = "{command_name} vigo.tar.gz")]
pub(super) struct Drill {
    /// the archive
    #[argh(positional)]
    file: PathBuf,
    /// where to make the scratch directory (default: TMPDIR, else /tmp)
    #[argh(option)]
    scratch: Option<PathBuf>,
    /// read the password from a file
    #[argh(option)]
    password_file: Option<PathBuf>,
}

struct Step {
    name: &'static str,
    ms: u64,
    found: String,
}

/// Steps and how long each took.
struct Stages {
    clock: Clock,
    steps: Vec<Step>,
}

impl Stages {
    fn step<T>(
        &mut self,
        name: &'static str,
        act: impl FnOnce() -> Result<(T, String), Failure>,
    ) -> Result<T, Failure> {
        let from = self.clock.now().mono;
        let (value, found) =
            act().map_err(|failure| Failure { what: format!("{name}: {}", failure.what), ..failure })?;
        self.steps.push(Step { name, ms: self.clock.now().mono.since(from), found });
        Ok(value)
    }
}

pub(super) fn run(verb: &Drill, common: &Common) -> Result<Exit, Failure> {
    let file = std::path::absolute(&verb.file).unwrap_or_else(|_| verb.file.clone());
    let base = verb.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let dir = Scratch::new(base.join(format!("vigo-drill-{}-{}", stamp(), std::process::id())))?;
    let mut stages = Stages { clock: Clock::system(), steps: Vec::new() };
    let archive = rehearse(&file, dir.path(), verb, common, &mut stages)?;
    note_proof(&archive, &file, "drill", common);
    let total: u64 = stages.steps.iter().map(|step| step.ms).sum();
    if common.json() {
        let rows: Vec<Value> =
            stages.steps.iter().map(|step| json!({"step": step.name, "ms": step.ms, "found": step.found})).collect();
        let document = json!({"schema": 1, "file": file, "good": true, "steps": rows, "total_ms": total});
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let mut table = Table::new(&["STEP", "TIME", "FOUND"]).right(1);
    for step in &stages.steps {
        table.row([step.name.to_string(), human_ms(step.ms), step.found.clone()]);
    }
    let text = format!(
        "{}the archive is good: a server came back from it in {}\n",
        table.render(color_wanted()),
        human_ms(total)
    );
    print(&text).map(|()| Exit::Done)
}

fn human_ms(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { human_duration(ms / 1_000 * 1_000) }
}

fn rehearse(file: &Path, dir: &Path, verb: &Drill, common: &Common, stages: &mut Stages) -> Result<Archive, Failure> {
    let (root, host) = (dir.join("root"), host());
    let password = Password { file: verb.password_file.clone() };
    let lock = lock_root(&root, "vigocli backup drill")?;
    let staged = stages.step("unpack", || {
        let mut progress = Progress::new("unpacking");
        let mut asker = password.asker(file.to_path_buf());
        let into = Scratch::new(free_root(&root))?;
        let staged =
            backup::stage(file, into, &mut asker, &|_, _| true, &mut |done, total| progress.show(done, total))?;
        let found = format!("{} members, {}", staged.members.len(), staged.archive.manifest.created);
        Ok((staged, found))
    })?;
    let archive = staged.archive.clone();
    stages.step("check", || {
        let looked = backup::look(&staged, file)?;
        if let Some((name, why)) = looked.closed.first() {
            return Err(Failure::failed(format!("the secret {name} does not open: {why}")));
        }
        Ok(((), format!("database whole, {} secrets open", looked.secrets)))
    })?;
    stages.step("restore", || {
        let plan = backup::prepare(staged, &root, &Choice::default(), true, &host)?;
        let done = backup::apply(&plan, file, &stamp())?;
        Ok(((), format!("{} files", done.files)))
    })?;
    drop(lock);
    let (server, running) = stages.step("start", || start(&root, &dir.join("log")))?;
    let mut there = common.clone();
    there.set(&ROOT, root.display().to_string());
    stages.step("health", || health(&there, &archive))?;
    stages.step("check-in", || {
        let token = post(&there, "/api/v1/tokens", &json!({"ttl": "5m"}))?;
        let seen = check_in(&running.grpc, token["token"].as_str().unwrap_or_default()).map_err(Failure::failed)?;
        if seen.server_id != archive.manifest.server_id {
            let text =
                format!("the server proved to be {:.16}, not {:.16}", seen.server_id, archive.manifest.server_id);
            return Err(Failure::failed(text));
        }
        Ok(((), format!("answered: {}; epoch {}", seen.answer, seen.epoch)))
    })?;
    stages.step("stop", || server.stop().map(|()| ((), String::new())))?;
    Ok(archive)
}

/// The child; killed when dropped.
struct Server(Child);

impl Server {
    fn stop(mut self) -> Result<(), Failure> {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(i32::MAX));
        kill(pid, Signal::SIGTERM).map_err(|errno| Failure::failed(format!("it cannot be stopped: {errno}")))?;
        let clock = Clock::system();
        let until = clock.now().mono + STOP_MS;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(Failure::failed(format!("it ended with {status}"))),
                Ok(None) if clock.now().mono < until => clock.pause(LOOK_MS),
                _ => return Err(Failure::failed("it does not stop")),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(root: &Path, log: &Path) -> Result<((Server, Running), String), Failure> {
    let here = std::env::current_exe().ok().map(|exe| exe.with_file_name("vigosrv")).filter(|path| path.is_file());
    let program = here.unwrap_or_else(|| PathBuf::from("vigosrv"));
    let cannot = |what: &str, error: &std::io::Error| Failure::failed(format!("{what}: {error}"));
    let out = File::create(log).map_err(|error| cannot(&log.display().to_string(), &error))?;
    let same = out.try_clone().map_err(|error| cannot(&log.display().to_string(), &error))?;
    // A clean environment: nothing of this host's may reach the server of the archive.
    let child = Command::new(&program)
        .args(["serve", "--root"])
        .arg(root)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(same)
        .spawn()
        .map_err(|error| cannot(&format!("{} cannot be started", program.display()), &error))?;
    let mut server = Server(child);
    let clock = Clock::system();
    let until = clock.now().mono + START_MS;
    loop {
        if let Some(running) = Running::read(root) {
            let found = format!("listens on {}", running.grpc);
            return Ok(((server, running), found));
        }
        let ended = matches!(server.0.try_wait(), Ok(Some(_)));
        if ended || clock.now().mono >= until {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let last = said.lines().last().unwrap_or("it said nothing").to_string();
            let what = if ended { "the restored server ended" } else { "the restored server does not answer" };
            return Err(Failure::failed(format!("{what}: {last}")));
        }
        clock.pause(LOOK_MS);
    }
}

fn health(there: &Common, archive: &Archive) -> Result<((), String), Failure> {
    let status = get(there, "/api/v1/status")?;
    let Some(facts) = &archive.manifest.database else { return Ok(((), "running".into())) };
    let epoch = status["epoch"].as_u64().unwrap_or(0);
    if epoch <= facts.epoch {
        let text = format!("its epoch is {epoch}; after a restore it must be above {}", facts.epoch);
        return Err(Failure::failed(text));
    }
    if let Some(damage) = status["database_damage"].as_str() {
        return Err(Failure::failed(damage.to_string()));
    }
    let envoys = status["envoys"].as_u64().unwrap_or(0);
    if envoys > facts.envoys {
        return Err(Failure::failed(format!("it knows {envoys} envoys, the archive holds {}", facts.envoys)));
    }
    Ok(((), format!("{envoys} envoys, epoch {epoch}")))
}
