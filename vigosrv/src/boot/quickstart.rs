//! `vigosrv quickstart`: the main job from nothing to a repaired host, with real processes, in a directory of its own. Every step
//! is checked; the first that did not really happen ends it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::cli::{Common, Exit, Failure, JSON, ROOT, print};
use common::sys::Clock;
use serde_json::{Value, json};

use crate::config::{Running, ServerConfig};

/// How long a step may take, milliseconds.
const STEP_MS: u64 = 30_000;
/// The envoy's name.
const NAME: &str = "quickstart.example";

/// Where, and what to leave behind.
#[derive(Clone, Debug, Default)]
pub struct Quickstart {
    /// `--dir`.
    pub dir: Option<PathBuf>,
    /// `--keep`.
    pub keep: bool,
    /// `--envoy`.
    pub envoy: Option<PathBuf>,
}

/// What was done, as it is told and as `--json` has it.
struct Tale {
    steps: Vec<Value>,
    json: bool,
}

impl Tale {
    fn step(&mut self, title: &str, lines: &[String]) -> Result<(), Failure> {
        self.steps.push(json!({"step": title, "lines": lines}));
        if self.json {
            return Ok(());
        }
        let mut out = format!("{}. {title}\n", self.steps.len());
        lines.iter().for_each(|line| out.push_str(&format!("     {line}\n")));
        print(&out)
    }
}

/// The server that was started; killed when something fails on the way.
struct ServerProcess(Option<Child>);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Stage {
    dir: PathBuf,
    root: PathBuf,
    envoy: PathBuf,
    clock: Clock,
}

/// Does it all. Exit 0 only if every step really happened.
pub fn quickstart(wanted: &Quickstart, common: &Common) -> Result<Exit, Failure> {
    let mut tale = Tale { steps: Vec::new(), json: common.json() };
    let scratch = match &wanted.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("vigo-quickstart-{}", std::process::id())),
    };
    if scratch.join("server").exists() {
        return Err(Failure::failed(format!("{} was used before", scratch.display())).hint("name an empty --dir"));
    }
    let make =
        |path: &Path| fs::create_dir_all(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())));
    make(&scratch)?;
    let dir = scratch.canonicalize().map_err(|error| Failure::failed(error.to_string()))?;
    let stage =
        Stage { root: dir.join("server"), envoy: find_envoy(wanted.envoy.as_deref())?, dir, clock: Clock::system() };
    make(&stage.root)?;
    make(&stage.sandbox())?;
    let outcome = stage.play(&mut tale, wanted.keep);
    let kept = wanted.keep || wanted.dir.is_some();
    if !kept {
        let _ = fs::remove_dir_all(&stage.dir);
    }
    outcome?;
    if common.json() {
        let document = json!({"schema": 1, "done": true, "dir": stage.dir, "kept": kept, "steps": tale.steps});
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let last = match (wanted.keep, kept) {
        (true, _) => format!(
            "The server goes on running on {0}. Look at it with\n  vigocli --root {0} nodes\nand stop it with\n  kill $(grep -o '\"pid\": [0-9]*' {0}/run/vigosrv.json | grep -o '[0-9]*')\n",
            stage.root.display()
        ),
        (_, true) => format!("Everything is left in {}.\n", stage.dir.display()),
        _ => String::new(),
    };
    print(&format!("Done: every step above really happened.\n{last}")).map(|()| Exit::Done)
}

impl Stage {
    fn sandbox(&self) -> PathBuf {
        self.dir.join("sandbox")
    }

    fn play(&self, tale: &mut Tale, keep: bool) -> Result<(), Failure> {
        self.write_files()?;
        tale.step("a server root, with an example policy", &[self.root.display().to_string()])?;

        let published = super::publish_offline(
            &ServerConfig::load(&self.root, None)?,
            crate::publish::Source::Stacks,
            "quickstart",
        )?;
        tale.step("the policy is published", &[text(&published, "summary")])?;

        let mut server = self.start()?;
        let running = self.running()?;
        tale.step("the server runs", &[format!("agents on {}, operators on {}", running.grpc, running.api)])?;

        let invite = crate::cli::post(&self.common(), "/api/v1/tokens", &json!({"hostname": NAME}))?;
        let enrolled = self.agent(&[
            "enroll",
            "--server",
            &running.grpc,
            "--hostname",
            NAME,
            "--token",
            &text(&invite, "token"),
            "--trust-hash",
            &text(&invite, "trust_hash"),
        ])?;
        tale.step("an envoy is enrolled, by a one-time token", &[format!("{NAME} is {}", text(&enrolled, "uuid"))])?;

        let first = self.converge(&[])?;
        ensure(first["run"]["changed"].as_u64() > Some(0), "the first run changed nothing", &first)?;
        let mut lines = changes(&first);
        lines.push(format!("(file paths are below {}; owners are left alone when not root)", self.sandbox().display()));
        tale.step("it converges: what differed was changed", &lines)?;

        let second = self.converge(&[])?;
        ensure(second["run"]["changed"] == 0 && clean(&second), "the second run changed something", &second)?;
        tale.step("it converges again: nothing to do", &[counts(&second)])?;

        self.stop(&mut server)?;
        tale.step("the server is stopped", &[])?;

        let victim = self.first_file()?;
        fs::write(&victim, b"broken by hand\n")
            .map_err(|error| Failure::failed(format!("{}: {error}", victim.display())))?;
        tale.step("a file is broken", &[victim.display().to_string()])?;

        let repaired = self.converge(&[])?;
        let content = fs::read(&victim).unwrap_or_default();
        ensure(repaired["run"]["changed"].as_u64() > Some(0), "nothing was repaired", &repaired)?;
        ensure(content != b"broken by hand\n", "the file is still broken", &repaired)?;
        ensure(repaired["source"] == "cache", "the run did not use the cache", &repaired)?;
        let mut lines = changes(&repaired);
        lines.push(format!("policy {} from the {}, server dead", repaired["serial"], text(&repaired, "source")));
        tale.step("the envoy repairs it from its cache, with no server", &lines)?;

        let queue = self.agent(&["queue"])?;
        let waiting = runs_waiting(&queue);
        ensure(waiting > 0, "no run is queued", &queue)?;
        tale.step("the result waits in its queue", &[format!("{waiting} runs")])?;

        let mut server_again = self.start()?;
        let delivered = self.deliver()?;
        tale.step("the server is back, and the queue arrives", &delivered)?;
        if keep {
            // Its process goes on after this one.
            server_again.0 = None;
        } else {
            self.stop(&mut server_again)?;
        }
        Ok(())
    }

    fn write_files(&self) -> Result<(), Failure> {
        let failed = |path: &Path, error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
        let config = self.root.join("server.yaml");
        // Restarted on other ports, the envoy would not find it: the second start reads the ports of the first.
        let port = free_port().map_err(|error| failed(&config, error))?;
        let yaml = format!(
            "server:\n  grpc_listen: \"127.0.0.1:{port}\"\n  api_listen: \"127.0.0.1:0\"\ncheckin:\n  interval: 1s\nlog: {{level: warn}}\n"
        );
        fs::write(&config, yaml).map_err(|error| failed(&config, error))?;
        for (name, content) in EXAMPLE_FILES {
            let path = self.root.join("stacks").join(name);
            let parent = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
            fs::write(&path, content).map_err(|error| failed(&path, error))?;
        }
        for path in ["etc", "srv", "var", "tmp"] {
            let path = self.sandbox().join(path);
            fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }

    fn start(&self) -> Result<ServerProcess, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::failed(error.to_string()))?;
        let log = self.dir.join("server.log");
        let open = || fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = open().map_err(|error| Failure::failed(format!("{}: {error}", log.display())))?;
        Running::remove(&self.root);
        let child = Command::new(program)
            .args(["serve", "--root"])
            .arg(&self.root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| Failure::failed(format!("the server cannot be started: {error}")))?;
        let mut process = ServerProcess(Some(child));
        let until = self.clock.now().mono + STEP_MS;
        while Running::read(&self.root).is_none() {
            let ended = process.0.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || self.clock.now().mono >= until {
                let mut said = String::new();
                let _ = fs::File::open(&log).and_then(|mut file| file.read_to_string(&mut said));
                return Err(Failure::failed(format!("the server did not start: {}", said.trim())));
            }
            self.clock.pause(20);
        }
        Ok(process)
    }

    fn running(&self) -> Result<Running, Failure> {
        Running::read(&self.root).ok_or_else(|| Failure::failed("the server says nothing of itself"))
    }

    /// TERM, and a wait for the end.
    fn stop(&self, server: &mut ServerProcess) -> Result<(), Failure> {
        let Some(child) = server.0.as_mut() else { return Ok(()) };
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .map_err(|error| Failure::failed(format!("the server cannot be stopped: {error}")))?;
        let until = self.clock.now().mono + STEP_MS;
        while self.clock.now().mono < until {
            if let Ok(Some(status)) = child.try_wait() {
                server.0 = None;
                return match status.success() {
                    true => Ok(()),
                    false => Err(Failure::failed(format!("the server ended with {status}"))),
                };
            }
            self.clock.pause(20);
        }
        Err(Failure::failed("the server did not stop"))
    }

    /// The options that `vigocli` would get.
    fn common(&self) -> Common {
        let mut common = Common::default();
        common.set(&ROOT, self.root.display().to_string());
        common.set(&JSON, "");
        common
    }

    fn agent(&self, words: &[&str]) -> Result<Value, Failure> {
        let output = Command::new(&self.envoy)
            .args(words)
            .arg("--json")
            .arg("--config")
            .arg(self.write_envoy_yaml()?)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| Failure::failed(format!("{}: {error}", self.envoy.display())))?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            Failure::failed(format!("vigo-envoy {}: {}", words.first().unwrap_or(&""), said.trim()))
        })
    }

    fn write_envoy_yaml(&self) -> Result<PathBuf, Failure> {
        let path = self.dir.join("envoy.yaml");
        if !path.exists() {
            let yaml = "state_dir: state\nidentity_dir: identity\nsysroot: sandbox\n";
            fs::write(&path, yaml).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        }
        Ok(path)
    }

    fn converge(&self, more: &[&str]) -> Result<Value, Failure> {
        let words: Vec<&str> = ["run", "--once", "--diff"].iter().chain(more).copied().collect();
        self.agent(&words)
    }

    /// The first file that the example keeps in the sandbox.
    fn first_file(&self) -> Result<PathBuf, Failure> {
        let mut folders = vec![self.sandbox()];
        while let Some(folder) = folders.pop() {
            let mut names: Vec<PathBuf> =
                fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            names.sort();
            for path in names {
                let Ok(meta) = fs::symlink_metadata(&path) else { continue };
                if meta.is_file() && path.extension().is_some_and(|ending| ending == "conf") {
                    return Ok(path);
                }
                if meta.is_dir() {
                    folders.push(path);
                }
            }
        }
        Err(Failure::failed("the example left no file in the sandbox"))
    }

    /// Runs of the agent until its queue is empty and the database has its runs.
    fn deliver(&self) -> Result<Vec<String>, Failure> {
        let until = self.clock.now().mono + STEP_MS;
        loop {
            self.converge(&[])?;
            let waiting = runs_waiting(&self.agent(&["queue"])?);
            let runs = crate::cli::get(&self.common(), "/api/v1/runs?limit=1000")?;
            let rows = runs["runs"].as_array().cloned().unwrap_or_default();
            let cached = rows.iter().any(|row| row["source"] == "cache" && row["changed"].as_u64() > Some(0));
            if cached {
                let total: u64 = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
                return Ok(vec![format!(
                    "{total} runs in the database, the one without a server among them; {waiting} waiting"
                )]);
            }
            if self.clock.now().mono >= until {
                return Err(Failure::failed("the queued run did not arrive"));
            }
            self.clock.pause(200);
        }
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_string()
}

fn ensure(holds: bool, what: &str, seen: &Value) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::failed(format!("{what}: {seen}"))) }
}

fn clean(run: &Value) -> bool {
    run["run"]["failed"] == 0 && run["run"]["blocked"] == 0
}

fn counts(run: &Value) -> String {
    let run = &run["run"];
    format!("{} ok, {} changed, {} skipped, {} failed", run["ok"], run["changed"], run["skipped"], run["failed"])
}

fn changes(run: &Value) -> Vec<String> {
    let rows = run["resources"].as_array().cloned().unwrap_or_default();
    let mut lines: Vec<String> = rows
        .iter()
        .filter(|row| row["outcome"] != "ok" && row["outcome"] != "skipped")
        .map(|row| {
            format!("{} {} {}: {}", text(row, "outcome"), text(row, "type"), text(row, "name"), text(row, "message"))
        })
        .collect();
    lines.push(counts(run));
    lines
}

fn runs_waiting(queue: &Value) -> u64 {
    queue["lanes"].as_array().into_iter().flatten().filter_map(|lane| lane["runs"].as_u64()).sum()
}

/// The agent: named, or beside this program; in a checkout it is built where it is missing or of another commit; else in PATH.
fn find_envoy(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_path_buf());
    }
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("vigo-envoy")));
    let beside = beside.unwrap_or_default();
    if is_of_this_commit(&beside) || (build_envoy(&beside) && beside.is_file()) {
        return Ok(beside);
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&paths).map(|dir| dir.join("vigo-envoy"));
    let missing = || {
        let hint = "build it (`cargo build --release --bin vigo-envoy`), or name it with --envoy";
        Failure::failed("vigo-envoy is not here").hint(hint)
    };
    std::iter::once(beside).chain(in_path).find(|path| path.is_file()).ok_or_else(missing)
}

fn is_of_this_commit(envoy: &Path) -> bool {
    let said = Command::new(envoy).arg("--version").output();
    let commit = format!("(commit {},", common::cli::COMMIT);
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains(&commit))
}

/// Builds the agent beside this program, where cargo has built it and runs it: it says where the sources are. They are not written
/// into the program, which is the same wherever it is built.
fn build_envoy(beside: &Path) -> bool {
    let Some(checkout) = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) else { return false };
    let Some(dir) = beside.parent().filter(|dir| dir.join("deps").is_dir()) else { return false };
    if !checkout.join("Cargo.toml").is_file() {
        return false;
    }
    eprintln!("vigosrv: building vigo-envoy, which is not here or of another commit");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&checkout).args(["build", "--quiet", "--package", "vigo-envoy"]);
    if let Some(target) = dir.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    if dir.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    cargo.status().is_ok_and(|status| status.success())
}

/// The example that is published: path below `stacks/`, content.
const EXAMPLE_FILES: [(&str, &str); 9] = [
    ("configcrates/base.vgo", include_str!("../../../examples/quickstart/stacks/configcrates/base.vgo")),
    ("configcrates/site.vgo", include_str!("../../../examples/quickstart/stacks/configcrates/site.vgo")),
    ("environments.vgo", include_str!("../../../examples/quickstart/stacks/environments.vgo")),
    ("envoys/common.vgo", include_str!("../../../examples/quickstart/stacks/envoys/common.vgo")),
    ("envoys/local.vgo", include_str!("../../../examples/quickstart/stacks/envoys/local.vgo")),
    ("files/logo.txt", include_str!("../../../examples/quickstart/stacks/files/logo.txt")),
    ("roles/demo.vgo", include_str!("../../../examples/quickstart/stacks/roles/demo.vgo")),
    ("templates/site.conf", include_str!("../../../examples/quickstart/stacks/templates/site.conf")),
    ("vars/network.vgo", include_str!("../../../examples/quickstart/stacks/vars/network.vgo")),
];
