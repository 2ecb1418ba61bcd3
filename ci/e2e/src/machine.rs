//! A Debian host with systemd, apt and a network of its own: a root made by `debootstrap`, booted by `systemd-nspawn`, which
//! reaches this host over a pair of virtual interfaces and installs packages from a repository that this host serves.
//!
//! The root and the packages are made once and kept in the cache of `ci/run`; every machine gets a copy.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::crypto::sha256;
use nix::sys::signal::Signal;

use crate::process::{Process, is_there, run, send, wait_until};
use crate::site::free_port;
use crate::wire::Wire;

/// In the root from the start: what a minimal installation of Debian with systemd has.
const INSTALLED: &str = "systemd,systemd-sysv,dbus,iproute2,procps";
/// What may be installed from the repository, with what they need.
const OFFERED: &str = "nginx openssh-server systemd-timesyncd tzdata cron postgresql-client";
const COMMANDS: [&str; 5] = ["debootstrap", "systemd-nspawn", "dpkg-scanpackages", "ip", "nsenter"];

/// A host that runs. It ends with its value.
#[derive(Debug)]
pub struct Machine {
    /// Its file system.
    pub root: PathBuf,
    /// Where it reaches this host.
    pub host: Ipv4Addr,
    /// Where it is reached.
    pub address: Ipv4Addr,
    wire: Wire,
    log: PathBuf,
    process: Option<Process>,
    _repository: Process,
}

impl Machine {
    /// One in `dir`, not booted. None where no such machine can be made; that is said.
    pub fn new(dir: &Path) -> Option<Machine> {
        let missing = COMMANDS.iter().find(|command| !is_there(command));
        let why = match missing {
            _ if !nix::unistd::geteuid().is_root() => "a machine needs root".to_string(),
            Some(command) => format!("there is no {command}"),
            None => match made() {
                Ok(made) => return Some(Machine::of(&made, dir)),
                Err(why) => why,
            },
        };
        println!("not tested: {why}");
        None
    }

    fn of(made: &Path, dir: &Path) -> Machine {
        let (root, wire) = (dir.join("root"), Wire::new(0));
        run(Command::new("cp").arg("-a").arg(made.join("root")).arg(&root));
        let (host, address) = (wire.host, wire.address);
        let port = free_port();
        fs::write(root.join("etc/apt/sources.list"), format!("deb [trusted=yes] http://{host}:{port}/ ./\n")).unwrap();
        let mut serve = Command::new("python3");
        serve.args(["-m", "http.server", "--bind", &host.to_string(), &port.to_string(), "--directory"]);
        let log = dir.join("machine.txt");
        serve.arg(made.join("packages")).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let _repository = Process::start(&mut serve);
        Machine { root, host, address, wire, log, process: None, _repository }
    }

    /// Boots it.
    pub fn boot(&mut self) {
        let log = fs::File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new("systemd-nspawn");
        command.args(["-q", "-b", "--register=no", "--keep-unit", "--link-journal=no", "--console=pipe"]);
        command.arg(format!("--network-namespace-path={}", self.wire.path())).arg("--capability=CAP_NET_ADMIN");
        command.arg("-D").arg(&self.root).env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network");
        self.process = Some(Process::start(command.stdout(log.try_clone().expect("a handle")).stderr(log)));
        wait_until("systemd to be up", || {
            let output = self.run_in(&["systemctl", "is-system-running"]);
            let state = String::from_utf8_lossy(&output.stdout);
            ["running", "degraded"].contains(&state.trim()).then_some(())
        });
    }

    /// What it wrote to its console.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command in it.
    pub fn run_in(&self, words: &[&str]) -> Output {
        let outer = self.process.as_ref().expect("it is booted").id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
        let init = children.split_whitespace().next().unwrap_or("0");
        let mut command = Command::new("nsenter");
        command.args(["-t", init, "-m", "-u", "-i", "-n", "-p", "--"]).args(words).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").output().expect("nsenter is installed")
    }

    /// The same; panics where it fails. What it printed.
    pub fn does(&self, words: &[&str]) -> String {
        let output = self.run_in(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A clean shutdown leaves nothing mounted; what hangs is killed.
            send(process.id(), Signal::SIGTERM);
            wait_until("the machine to stop", || process.ended().then_some(()));
        }
    }
}

/// The folder with `root` and `packages`, made if need be.
fn made() -> Result<PathBuf, String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let cache = std::env::var("VIGO_CACHE").map_or_else(|_| Path::new(&home).join(".cache/vigo"), PathBuf::from);
    // Of another content, it has another name.
    let content = sha256(&[INSTALLED.as_bytes(), OFFERED.as_bytes()]).to_string();
    let made = cache.join(format!("debian-12-{content:.12}"));
    if made.exists() {
        return Ok(made);
    }
    let new = cache.join(format!("debian-12.new-{}", std::process::id()));
    let (root, packages) = (new.join("root"), new.join("packages"));
    fs::create_dir_all(&packages).map_err(|error| format!("{}: {error}", packages.display()))?;
    let mut bootstrap = Command::new("debootstrap");
    bootstrap.args(["--variant=minbase", &format!("--include={INSTALLED}"), "bookworm"]).arg(&root);
    let downloads = root.join("var/cache/apt/archives");
    let fetch = format!(
        "apt-get update -qq && apt-get install -qq --no-install-recommends --download-only -o Dir::Cache::archives=/offered {OFFERED}"
    );
    fs::create_dir_all(root.join("offered/partial")).map_err(|error| error.to_string())?;
    for command in [
        &mut bootstrap,
        Command::new("chroot").arg(&root).args(["sh", "-c", &fetch]),
        Command::new("sh").arg("-c").arg("mv \"$0\"/offered/*.deb \"$1\"").arg(&root).arg(&packages),
        Command::new("sh").arg("-c").arg("cd \"$0\" && dpkg-scanpackages . >Packages").arg(&packages),
        Command::new("rm").arg("-rf").arg(root.join("offered")).arg(&downloads).arg(root.join("etc/machine-id")),
        Command::new("sh").arg("-c").arg("rm -rf \"$0\"/var/lib/apt/lists/*").arg(&root),
        Command::new("mkdir").arg("-p").arg(downloads.join("partial")).arg(root.join("var/lib/apt/lists/partial")),
        Command::new("touch").arg(root.join("etc/machine-id")),
    ] {
        let output = command.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            let _ = fs::remove_dir_all(&new);
            return Err(format!("no root could be made: {command:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    fs::rename(&new, &made).map_err(|error| error.to_string())?;
    Ok(made)
}
