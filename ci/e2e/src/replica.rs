//! Stores for replicas that a test runs itself: an S3-compatible server, an SSH server; and Litestream by hand.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::{Process, is_there, run, wait_until};
use crate::site::free_port;

/// Programs that `ci/run` installs.
const COMMANDS: [&str; 4] = ["litestream", "moto_server", "ssh-keygen", "sqlite3"];
/// Not in everybody's `PATH`.
const SSHD: &str = "/usr/sbin/sshd";

/// An S3-compatible server with one bucket, `bucket`.
pub struct S3 {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    _process: Process,
}

/// An SSH server for one login, that of this process.
pub struct Sftp {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its public key, as in `known_hosts`.
    pub host_key: String,
    /// Private key of the login.
    pub key: PathBuf,
    _process: Process,
}

/// Panics with what to do where a program is missing.
pub fn need_replica_programs() {
    let missing = COMMANDS.iter().find(|command| !is_there(command));
    assert!(missing.is_none(), "{missing:?} is not in PATH: `ci/run e2e` installs it");
    assert!(Path::new(SSHD).exists(), "{SSHD} is missing: `ci/run e2e` installs it");
}

impl S3 {
    /// Starts it.
    pub fn start(dir: &Path) -> S3 {
        let port = free_port();
        let log = fs::File::create(dir.join("moto.txt")).expect("a log");
        let mut command = Command::new("moto_server");
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdout(log.try_clone().expect("a handle")).stderr(log);
        let process = Process::start(&mut command);
        let answer = wait_until("a bucket", || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            let request = "PUT /bucket HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            Some(answer)
        });
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{answer}");
        S3 { endpoint: format!("http://127.0.0.1:{port}"), _process: process }
    }
}

impl Sftp {
    /// Starts it.
    pub fn start(dir: &Path) -> Sftp {
        let port = free_port();
        for name in ["host", "login"] {
            let file = dir.join(name);
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&file));
        }
        let d = dir.display();
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host\nPidFile {d}/sshd.pid\nAuthorizedKeysFile {d}/login.pub\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             Subsystem sftp internal-sftp\n"
        );
        let config = dir.join("sshd_config");
        fs::write(&config, text).expect("a file");
        if nix::unistd::geteuid().is_root() {
            // Where it locks its children in; a service would make it.
            let _ = fs::create_dir_all("/run/sshd");
            let _ = fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755));
        }
        let log = fs::File::create(dir.join("sshd.txt")).expect("a log");
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f"]).arg(&config).stdout(log.try_clone().expect("a handle")).stderr(log);
        let process = Process::start(&mut command);
        wait_until("the SSH server", || TcpStream::connect(("127.0.0.1", port)).ok());
        let public = fs::read_to_string(dir.join("host.pub")).expect("a key");
        let host_key = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Sftp { port, host_key, key: dir.join("login"), _process: process }
    }
}

/// `litestream` as a person runs it: no variable of this process but `PATH`, and the ones given.
pub fn litestream(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new("litestream");
    command.args(words).env_clear().env("PATH", path).envs(environment.iter().copied());
    command.output().expect("litestream starts")
}

/// `GET` over the admin socket of a server, as text.
pub fn get(root: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(root.join("run/admin.sock")).expect("a server");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
