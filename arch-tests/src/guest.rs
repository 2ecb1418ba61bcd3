//! A whole emulated machine: Debian's kernel for it, a minimal initramfs with the static agent, a disk, and a network card behind
//! which this host's loopback is 10.0.2.2.
//!
//! Its parts come from `arch-tests/guest/fetch`; its first program is `arch-tests/guest/init.sh`, which tells on the console how things
//! are, in lines that begin with `VIGO`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use vigo_e2e::Process;

use crate::Target;
use crate::target::cache;

/// What BusyBox is called by.
const COMMANDS: &str =
    "sh cat cp date echo grep head hostname insmod ip kill mount sed sleep sync tr wc tail mkdir rm touch";
/// Where the agent keeps what is its own: on the disk.
const CONFIG: &str = "state_dir: /disk/state\nidentity_dir: /disk/identity\n";

/// A kind of machine that is emulated.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// The target whose agent it runs, see [`Target::short`].
    pub target: &'static str,
    /// As Debian calls the architecture.
    pub debian: &'static str,
    emulator: &'static str,
    options: &'static [&'static str],
    console: &'static str,
    /// The bus of its virtual devices.
    bus: &'static str,
    /// It has a clock of its own that `-rtc` sets.
    pub has_clock: bool,
}

/// Those that there are.
pub const BOARDS: [Board; 4] = [
    Board {
        target: "aarch64",
        debian: "arm64",
        emulator: "qemu-system-aarch64",
        options: &["-M", "virt", "-cpu", "cortex-a53"],
        console: "ttyAMA0",
        bus: "device",
        has_clock: true,
    },
    Board {
        target: "armv7",
        debian: "armhf",
        emulator: "qemu-system-arm",
        options: &["-M", "virt", "-cpu", "cortex-a15"],
        console: "ttyAMA0",
        bus: "device",
        has_clock: true,
    },
    Board {
        target: "riscv64gc",
        debian: "riscv64",
        emulator: "qemu-system-riscv64",
        options: &["-M", "virt"],
        console: "ttyS0",
        bus: "device",
        has_clock: true,
    },
    Board {
        target: "s390x",
        debian: "s390x",
        emulator: "qemu-system-s390x",
        options: &["-M", "s390-ccw-virtio"],
        console: "ttysclp0",
        bus: "ccw",
        has_clock: false,
    },
];

/// A machine, off or on.
#[derive(Debug)]
pub struct Guest {
    board: Board,
    dir: PathBuf,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// What its clock shows when it is switched on, as `-rtc base=` wants it.
    pub clock: String,
    process: Option<Process>,
}

impl Guest {
    /// With an empty disk, off. Its parts must have been fetched.
    pub fn new(board: Board, target: &Target, dir: &Path) -> Guest {
        let parts = cache().join("guests").join(board.debian);
        assert!(parts.join("ready").exists(), "no machine: run `arch-tests/guest/fetch {}`", board.debian);
        let root = dir.join("initramfs");
        for folder in ["bin", "dev", "disk", "modules", "proc", "sys", "tmp", "etc"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        let put = |from: &Path, to: &str| {
            fs::copy(from, root.join(to)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
            fs::set_permissions(root.join(to), fs::Permissions::from_mode(0o755)).expect("a file");
        };
        put(&parts.join("busybox"), "bin/busybox");
        put(&target.path("vigo-envoy"), "bin/vigo-envoy");
        put(&Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/init.sh"), "init");
        COMMANDS.split(' ').for_each(|name| symlink("busybox", root.join("bin").join(name)).expect("a link"));
        let mut modules: Vec<PathBuf> =
            fs::read_dir(parts.join("modules")).expect("modules").map(|entry| entry.expect("a file").path()).collect();
        modules.sort();
        for module in modules {
            put(&module, &format!("modules/{}", module.file_name().unwrap_or_default().to_string_lossy()));
        }
        fs::write(root.join("envoy.yaml"), CONFIG).expect("a file");
        shell(dir, "cd initramfs && find . | cpio --quiet -o -H newc | gzip -1 > ../initramfs.gz");
        shell(dir, "truncate -s 64M disk.img && mkfs.ext4 -q -O ^metadata_csum disk.img");
        Guest {
            board,
            dir: dir.into(),
            memory_mib: std::env::var("VIGO_GUEST_MEMORY_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(256),
            clock: "1970-01-01T00:00:10".into(),
            process: None,
        }
    }

    /// Switches it on. `words` go to its first program, as `name=value`.
    pub fn switch_on(&mut self, words: &[(&str, &str)]) {
        let Board { emulator, options, console, bus, debian, .. } = self.board;
        let words: String = words.iter().map(|(name, value)| format!(" vigo.{name}={value}")).collect();
        let log = fs::File::options().create(true).append(true).open(self.dir.join("console.txt")).expect("a log");
        let mut command = Command::new(emulator);
        command.args(options).args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-m"]);
        command.arg(self.memory_mib.to_string()).arg("-rtc").arg(format!("base={}", self.clock));
        command.arg("-kernel").arg(cache().join("guests").join(debian).join("vmlinuz"));
        command.arg("-initrd").arg(self.dir.join("initramfs.gz"));
        command.arg("-append").arg(format!("console={console} quiet panic=-1 rdinit=/init{words}"));
        command.arg("-drive").arg(format!("if=none,id=d,format=raw,file={}", self.dir.join("disk.img").display()));
        command.arg("-device").arg(format!("virtio-blk-{bus},drive=d"));
        command.args(["-netdev", "user,id=n", "-device"]).arg(format!("virtio-net-{bus},netdev=n"));
        command.stdout(log.try_clone().expect("a handle")).stderr(log);
        self.process = Some(Process::start(&mut command));
    }

    /// Pulls the plug.
    pub fn cut_power(&mut self) {
        self.process.take().expect("it is on").kill();
    }

    /// Whether it is on by itself still.
    pub fn is_on(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !process.ended())
    }

    /// Everything on its console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("console.txt")).unwrap_or_default()).into_owned()
    }

    /// The newest state that it told: see `init.sh`.
    pub fn state(&self, name: &str) -> Option<String> {
        let console = self.console();
        let line = console.lines().rev().find(|line| line.starts_with("VIGO state "))?;
        let (_, rest) = line.split_once(&format!("{name}="))?;
        Some(rest.split('=').next()?.rsplit_once(' ').map_or(rest, |(value, _)| value).trim().to_string())
    }

    /// A file on its disk, which is off; what was under way when the power went is completed first, as a boot would.
    pub fn file(&self, path: &str) -> String {
        assert!(self.process.is_none(), "it is on");
        // Status 1: there was something to complete.
        shell(&self.dir, "e2fsck -fy disk.img >/dev/null 2>&1; [ $? -le 1 ]");
        let output =
            Command::new("debugfs").args(["-R", &format!("cat {path}")]).arg(self.dir.join("disk.img")).output();
        String::from_utf8_lossy(&output.expect("debugfs").stdout).into_owned()
    }
}

fn shell(dir: &Path, line: &str) {
    let output = Command::new("sh").args(["-c", line]).current_dir(dir).output().expect("sh");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
