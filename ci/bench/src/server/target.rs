//! What is measured: a real `vigosrv serve` over a generated fleet, and a floor program that only answers.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::rng::SystemRng;
use common::sys::Clock;
use vigosrv::boot::publish_offline;
use vigosrv::config::ServerConfig;
use vigosrv::keys::{Keys, Surroundings};
use vigosrv::store::{DataSet, OpenOptions, generate};

/// A server is up within this, milliseconds.
const START_MS: u64 = 60_000;
/// A server that was asked to stop has stopped within this, milliseconds.
const STOP_MS: u64 = 30_000;

/// A running process that listens.
pub struct Target {
    child: Child,
    /// On every address of loopback.
    pub port: u16,
}

/// A server root with a fleet in its database.
pub struct Site {
    root: PathBuf,
    program: PathBuf,
    port: u16,
}

impl Site {
    /// Makes a root below `dir`: keys, a published policy of a few resources, and a database with this fleet. `settings` are
    /// further lines of `server.yaml`.
    pub fn make(dir: &Path, program: &Path, fleet: &DataSet, settings: &str) -> Result<Site, String> {
        let root = dir.to_path_buf();
        let _ = fs::remove_dir_all(&root);
        let port = free_port()?;
        // One host plays ten thousand: what protects a server from one address would protect it from the measurement.
        let yaml = format!(
            "server: {{grpc_listen: \"0.0.0.0:{port}\", api_listen: \"127.0.0.1:0\", hostname: localhost}}\n\
             limits: {{rate_per_address: 1000000, unauthenticated_per_address: 100000, checkins_per_second: 1000000}}\n\
             log: {{level: warn}}\n{settings}"
        );
        write(&root.join("server.yaml"), &yaml)?;
        write(&root.join("stacks/configcrates/base.vgo"), &policy())?;
        write(&root.join("stacks/envoys/all.vgo"), "envoys:\n  - match: \"*\"\n    configcrates: [base]\n")?;
        let config = ServerConfig::load(&root, None).map_err(|error| error.to_string())?;
        let now = Clock::system().now().wall;
        let keys = Keys::prepare(&config, &Surroundings::of_host(&config, now), &mut SystemRng::default())
            .map_err(|error| error.to_string())?;
        let options = OpenOptions::new(&config.database, keys.server_id);
        generate(&options, fleet).map_err(|error| error.to_string())?;
        publish_offline(&config, vigosrv::publish::Source::Stacks, "bench").map_err(|failure| failure.to_string())?;
        Ok(Site { root, program: program.to_path_buf(), port })
    }

    /// Starts the server, without waiting for it.
    pub fn launch(&self) -> Result<Target, String> {
        let child = Command::new(&self.program)
            .args(["serve", "--root"])
            .arg(&self.root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        Ok(Target { child, port: self.port })
    }

    /// Starts the server and waits until it listens.
    pub fn start(&self) -> Result<Target, String> {
        self.launch()?.listening()
    }

    /// Size of the database in bytes.
    pub fn database_bytes(&self) -> u64 {
        fs::metadata(self.root.join("db/vigo.db")).map_or(0, |meta| meta.len())
    }
}

impl Target {
    /// A program that takes the address to listen on as its last argument. `command` is split at spaces.
    pub fn floor(command: &str) -> Result<Target, String> {
        let mut words = command.split_whitespace();
        let program = words.next().ok_or("the floor program has no name")?;
        let port = free_port()?;
        let child = Command::new(program)
            .args(words)
            .arg(format!("0.0.0.0:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        Target { child, port }.listening()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an operator would, and waits.
    pub fn stop(mut self) -> Result<(), String> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let clock = Clock::system();
        let until = clock.now().mono + STOP_MS;
        while self.child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if clock.now().mono >= until {
                return Err("the server does not stop".into());
            }
            clock.pause(5);
        }
        Ok(())
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|error| error.to_string())
    }

    fn listening(mut self) -> Result<Target, String> {
        let clock = Clock::system();
        let until = clock.now().mono + START_MS;
        while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server to be measured has ended: {status}"));
            }
            if clock.now().mono >= until {
                return Err("the server to be measured does not listen".into());
            }
            clock.pause(5);
        }
        Ok(self)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        // Gone already is as good.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Another process may take it before it is used: then the start says so.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

fn policy() -> String {
    let file = |n| {
        format!("  - name: file-{n}\n    type: file\n    target_path: /etc/bench/{n}.conf\n    content: kept by Vigo\n")
    };
    format!("name: base\nresources:\n{}", (0..20).map(file).collect::<String>())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, text)).map_err(|error| format!("{}: {error}", path.display()))
}
