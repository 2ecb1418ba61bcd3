//! Small, full and read-only disks: a test in a mount namespace of its own, whose mounts end with it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the process that has the namespace.
const INSIDE: &str = "VIGO_E2E_OWN_MOUNTS";

/// Runs the body of the test of this name in a mount namespace. Where that is not permitted, the test is skipped, and says so.
pub fn with_own_mounts(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    // Root needs no user namespace, and may not get one in a container.
    let ways = [&["-m"][..], &["-r", "-m"]];
    let permitted =
        |way: &&&[&str]| Command::new("unshare").args(**way).arg("true").output().is_ok_and(|out| out.status.success());
    let Some(way) = ways.iter().find(permitted) else {
        println!("skipped: no mount namespace may be made here");
        return;
    };
    let program = std::env::current_exe().expect("the test's program");
    let output = Command::new("unshare")
        .args(*way)
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is installed");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    print!("{said}");
}

/// A disk of its own at a directory, in memory; what the directory holds is moved onto it.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Of so many bytes.
    pub fn mount(path: &Path, bytes: u64) -> Disk {
        fs::create_dir_all(path).expect("a directory");
        let kept = path.with_extension("kept");
        copy(path, &kept);
        mount(&["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "tmpfs"], path);
        copy(&kept, path);
        Disk { path: path.to_owned() }
    }

    /// Takes what space there is left.
    pub fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(self.filler()).expect("a file");
        for block in [64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    /// Lets nobody write. Nothing may be open for writing.
    pub fn make_read_only(&self) {
        mount(&["-o", "remount,ro"], &self.path);
    }

    /// Lets all write again.
    pub fn make_writable(&self) {
        mount(&["-o", "remount,rw"], &self.path);
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

fn mount(options: &[&str], path: &Path) {
    let status = Command::new("mount").args(options).arg(path).status().expect("mount is installed");
    assert!(status.success(), "mount {options:?} {}", path.display());
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-aT").args([from, to]).status().expect("cp");
    assert!(status.success(), "{} cannot be copied", from.display());
}
