//! A small router: a root of BusyBox with the C library that the agent of this build needs and nothing else, started by BusyBox's
//! `init` in namespaces of its own. No systemd, no package manager, no shell but `ash`.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::{Process, binary, is_there, run, wait_until};
use crate::wire::Wire;

const COMMANDS: [&str; 6] = ["busybox", "unshare", "nsenter", "ip", "mount", "ldd"];
/// What a router's firmware starts.
const INITTAB: &str = "::sysinit:/etc/init.d/rcS\n::ctrlaltdel:/bin/true\n";
/// All scripts whose names begin with S and two digits, as BusyBox's own example does.
const RCS: &str = "#!/bin/sh\nmkdir -p /dev/pts /run /tmp /var/run /var/log\nfor script in /etc/init.d/S[0-9][0-9]*; do [ -x \"$script\" ] && \"$script\" start; done\ntouch /run/up\n";

/// A router that runs. It ends with its value.
#[derive(Debug)]
pub struct Router {
    /// Its file system.
    pub root: PathBuf,
    wire: Wire,
    init: Option<Process>,
}

impl Router {
    /// One in `dir` with the agent in it, not started. None where no such machine can be made; that is said.
    pub fn new(dir: &Path) -> Option<Router> {
        let missing = COMMANDS.iter().find(|command| !is_there(command));
        if !nix::unistd::geteuid().is_root() || missing.is_some() {
            println!("not tested: a router needs root and {COMMANDS:?}");
            return None;
        }
        let root = dir.join("router");
        for folder in ["bin", "dev", "etc/init.d", "proc", "root", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        let busybox =
            String::from_utf8(run(Command::new("sh").args(["-c", "command -v busybox"])).stdout).expect("text");
        fs::copy(busybox.trim(), root.join("bin/busybox")).expect("a copy");
        run(Command::new("chroot").arg(&root).args(["/bin/busybox", "--install", "-s"]));
        let router = Router { root, wire: Wire::new(1), init: None };
        router.put("etc/inittab", INITTAB, 0o644);
        router.put("etc/init.d/rcS", RCS, 0o755);
        router.put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644);
        router.put("etc/group", "root:x:0:\n", 0o644);
        router.put("etc/os-release", "NAME=Small\nID=small\n", 0o644);
        router.put("etc/hosts", "127.0.0.1 localhost\n", 0o644);
        router.install(&binary("vigo-envoy"));
        Some(router)
    }

    /// Copies a program to `/usr/bin` with the libraries that it is linked to, each to where it is sought.
    fn install(&self, program: &Path) {
        let name = program.file_name().expect("a name");
        fs::copy(program, self.root.join("usr/bin").join(name)).expect("a copy");
        let output = Command::new("ldd").arg(program).output().expect("ldd");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = self.root.join(path.trim_start_matches('/'));
            fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            fs::copy(path, to).expect("a copy");
        }
    }

    /// Writes a file.
    pub fn put(&self, path: &str, text: &str, mode: u32) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    /// Where this host is reached.
    pub fn host(&self) -> Ipv4Addr {
        self.wire.host
    }

    /// Starts its `init`, which is process 1 of it.
    pub fn boot(&mut self) {
        let _ = fs::remove_file(self.root.join("run/up"));
        let script = "mount -t proc proc \"$0/proc\" && mount -t sysfs -o ro sys \"$0/sys\" && mount -t tmpfs -o mode=755 dev \"$0/dev\" \
                      && for node in null zero urandom random tty console; do : >\"$0/dev/$node\"; \
                      mount --bind /dev/null \"$0/dev/$node\"; done; mount --bind /dev/urandom \"$0/dev/urandom\"; \
                      exec chroot \"$0\" /sbin/init";
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.wire.path()));
        command.args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-c", script]);
        command.arg(&self.root).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        self.init = Some(Process::start(&mut command));
        let up = self.root.join("run/up");
        wait_until("the router to be up", || up.exists().then_some(()));
    }

    /// Ends it at once, as a power cut does.
    pub fn cut(&mut self) {
        if let Some(init) = self.init.take() {
            init.kill();
        }
    }

    /// Runs a command in it.
    pub fn run_in(&self, words: &[&str]) -> Output {
        let outer = self.init.as_ref().expect("it is booted").id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
        let init = children.split_whitespace().next().unwrap_or("0").to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &init, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--"]).args(words).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().expect("nsenter is installed")
    }

    /// The same; panics where it fails. What it printed.
    pub fn does(&self, words: &[&str]) -> String {
        let output = self.run_in(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}
