//! A server on loopback and agents enrolled with it, all real processes, each in a directory of its own.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Process, binary, document, send, wait_until};

/// A server: its root, its fixed port, and its process while it runs.
#[derive(Debug)]
pub struct Server {
    /// `--root`.
    pub root: PathBuf,
    /// Where agents connect: the same over restarts, because they remember it.
    pub port: u16,
    /// What agents are told to dial. In force from the next start on.
    pub hostname: String,
    /// Lines of `server.yaml` beyond the listeners. In force from the next start on.
    pub settings: String,
    program: PathBuf,
    process: Option<Process>,
}

impl Server {
    /// A root in `dir` with this policy (paths below `stacks/`), published. `settings` are lines for `server.yaml` beyond the
    /// listeners. Nothing runs yet.
    pub fn new(dir: &Path, settings: &str, policy: &[(&str, &str)]) -> Server {
        Server::with_program(dir, settings, policy, binary("vigosrv"))
    }

    /// The same with a binary from elsewhere; `vigocli` is beside it.
    pub fn with_program(dir: &Path, settings: &str, policy: &[(&str, &str)], program: PathBuf) -> Server {
        let server = Server::at(dir, settings, program);
        server.publish(policy);
        server
    }

    /// A root in `dir` as it is.
    pub fn at(dir: &Path, settings: &str, program: PathBuf) -> Server {
        let root = dir.join("server");
        let port = free_port();
        let (hostname, settings) = ("localhost".into(), settings.to_owned());
        let server = Server { root, port, hostname, settings, program, process: None };
        server.write_yaml();
        server
    }

    fn write_yaml(&self) {
        let Server { port, hostname, settings, .. } = self;
        let yaml = format!(
            "server:\n  grpc_listen: \"127.0.0.1:{port}\"\n  api_listen: \"127.0.0.1:0\"\n  hostname: {hostname}\n{settings}\n"
        );
        put(&self.root.join("server.yaml"), &yaml);
    }

    /// Writes policy and publishes it, with the server running or not.
    pub fn publish(&self, policy: &[(&str, &str)]) {
        for (name, text) in policy {
            put(&self.root.join("stacks").join(name), text);
        }
        self.cli(&["config", "publish", "--message", "test"]);
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(&mut self) {
        self.start_as(|usual| usual);
    }

    /// The same by another command, made from the usual one: under a tracer, with limits, in a namespace.
    pub fn start_as(&mut self, make: impl FnOnce(Command) -> Command) {
        self.write_yaml();
        let ready = self.root.join("run/vigosrv.json");
        let _ = fs::remove_file(&ready);
        let log = fs::File::options().create(true).append(true).open(self.root.join("log.txt")).expect("a log");
        let mut usual = Command::new(&self.program);
        usual.args(["serve", "--root"]).arg(&self.root);
        let mut command = make(usual);
        command.stdout(log.try_clone().expect("a handle")).stderr(log);
        let mut process = Process::start(&mut command);
        wait_until("the server to be ready", || {
            assert!(!process.ended(), "the server ended: {}", self.log());
            ready.exists().then_some(())
        });
        self.process = Some(process);
    }

    /// The process id that it states, which is not that of a tracer around it.
    pub fn id(&self) -> u32 {
        let text = fs::read_to_string(self.root.join("run/vigosrv.json")).expect("it runs");
        let stated: Value = serde_json::from_str(&text).expect("JSON");
        stated["pid"].as_u64().expect("a process id") as u32
    }

    /// TERM.
    pub fn stop(&mut self) {
        let process = self.process.take().expect("it runs");
        send(self.id(), Signal::SIGTERM);
        process.wait();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.id(), signal);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        send(self.id(), Signal::SIGKILL);
        self.process.take().expect("it runs").kill();
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("log.txt")).unwrap_or_default()
    }

    /// `vigocli secrets set`, with the server running or not.
    pub fn set_secret(&self, path: &str, value: &str) {
        let mut child = Command::new(self.program.with_file_name("vigocli"))
            .args(["secrets", "set", path, "--root"])
            .arg(&self.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("vigocli starts");
        child.stdin.take().expect("a pipe").write_all(format!("{value}\n").as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success());
    }

    /// `vigocli`; panics where it fails.
    pub fn cli(&self, words: &[&str]) -> Value {
        let output = self.ask(words);
        assert!(output.status.success(), "vigocli {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        document(&output)
    }

    /// The same whatever its exit code; panics where there is no answer.
    pub fn cli_any(&self, words: &[&str]) -> Value {
        document(&self.ask(words))
    }

    fn ask(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.program.with_file_name("vigocli"));
        command.args(words).args(["--json", "--root"]).arg(&self.root).output().expect("vigocli starts")
    }
}

/// An agent: its directory, and its daemon while it runs.
#[derive(Debug)]
pub struct Envoy {
    /// Holds `envoy.yaml`, `state`, `identity`, `root` (the sandbox) and `log.txt`.
    pub dir: PathBuf,
    /// Its test clock for the next process; empty for the host's. See `common::sys::TestClock`.
    pub clock: String,
    program: PathBuf,
    daemon: Option<Process>,
}

impl Envoy {
    /// In a directory of its own, not enrolled.
    pub fn new(dir: &Path) -> Envoy {
        Envoy::with_program(dir, binary("vigo-envoy"))
    }

    /// The same with a binary from elsewhere.
    pub fn with_program(dir: &Path, program: PathBuf) -> Envoy {
        fs::create_dir_all(dir.join("root")).expect("a sandbox");
        put(&dir.join("envoy.yaml"), "state_dir: state\nidentity_dir: identity\nsysroot: root\ntest_clock: allow\n");
        Envoy { dir: dir.to_owned(), clock: String::new(), program, daemon: None }
    }

    /// Enrolls with a running server by a one-time token, under this name.
    pub fn enroll(&self, server: &Server, hostname: &str) {
        self.enroll_at(&format!("127.0.0.1:{}", server.port), server, hostname);
    }

    /// The same where the agent reaches the server at another address.
    pub fn enroll_at(&self, address: &str, server: &Server, hostname: &str) {
        let invite = server.cli(&["envoys", "invite", "--hostname", hostname]);
        let text = |key: &str| invite[key].as_str().unwrap_or_default().to_string();
        self.ask(&[
            "enroll",
            "--server",
            address,
            "--hostname",
            hostname,
            "--token",
            &text("token"),
            "--trust-hash",
            &text("trust_hash"),
        ]);
    }

    /// A command with this agent's configuration and clock.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--config").arg(self.dir.join("envoy.yaml"));
        if !self.clock.is_empty() {
            command.env("VIGO_TEST_CLOCK", &self.clock);
        }
        command
    }

    /// The answer of a verb as JSON, whatever its exit code; panics where there is none.
    pub fn ask(&self, words: &[&str]) -> Value {
        document(&self.command(words).arg("--json").output().expect("vigo-envoy starts"))
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log.txt")).expect("a log");
        let mut command = self.command(&["daemon"]);
        command.stdout(log.try_clone().expect("a handle")).stderr(log);
        let mut process = Process::start(&mut command);
        let socket = self.dir.join("state/control.sock");
        wait_until("the agent to be ready", || {
            assert!(!process.ended(), "the agent ended: {}", self.log());
            std::os::unix::net::UnixStream::connect(&socket).is_ok().then_some(())
        });
        self.daemon = Some(process);
    }

    /// The daemon's process id.
    pub fn id(&self) -> u32 {
        self.daemon.as_ref().map(Process::id).expect("it runs")
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.id(), signal);
    }

    /// TERM.
    pub fn stop(&mut self) {
        self.daemon.take().expect("it runs").stop();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.daemon.take().expect("it runs").kill();
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log.txt")).unwrap_or_default()
    }

    /// A path in its sandbox.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.join("root").join(path.trim_start_matches('/'))
    }
}

/// A server that serves a configcrate `web` by this mapping, and an agent `web-1` that is enrolled with it and not started.
pub fn enrolled(dir: &Path, configcrate: &str, mapping: &str) -> (Server, Envoy) {
    let policy = [("configcrates/web.vgo", configcrate), ("envoys/all.vgo", mapping)];
    let mut server = Server::new(dir, "checkin:\n  interval: 1s", &policy);
    server.start();
    let envoy = Envoy::new(&dir.join("envoy"));
    envoy.enroll(&server, "web-1");
    (server, envoy)
}

/// A mapping that gives `web` to every host, with this variable `content`.
pub fn mapping(content: &str) -> String {
    format!("envoys:\n  - match: \"*\"\n    configcrates: [web]\n    vars: {{content: {content}}}\n")
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}
