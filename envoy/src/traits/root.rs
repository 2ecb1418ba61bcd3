//! What collectors read: files below a root, and the few facts that only a system call gives. For a directory other than
//! `/` the calls are answered by files in `.calls/`, so that a fixture is a whole host.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::limits::PACKAGE_DATABASE_BYTES_MAX;
use common::sys::net::{InterfaceAddress, interface_addresses};

/// Bytes that are read of one file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a line of a file that is read line by line.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Names that are listed of one directory.
const NAMES_MAX: usize = 16_384;

/// A host, or a directory that looks like one.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// The host itself.
    pub fn host() -> Root {
        Root { path: PathBuf::from("/") }
    }

    /// A directory that looks like a host.
    pub fn fixture(path: &Path) -> Root {
        Root { path: path.to_path_buf() }
    }

    pub(super) fn is_host(&self) -> bool {
        self.path == Path::new("/")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// The text of a file, cut at a bound; `None` where it cannot be read. What is not UTF-8 is replaced.
    pub fn read(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.at(path)).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Gives the lines of a file of any size one by one, up to a bound; what is longer than a line should be is cut. `false`
    /// where it cannot be read.
    pub fn lines(&self, path: &str, take: &mut dyn FnMut(&str)) -> bool {
        let Ok(file) = File::open(self.at(path)) else { return false };
        let mut reader = BufReader::new(file.take(PACKAGE_DATABASE_BYTES_MAX));
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => return true,
                Ok(_) => take(String::from_utf8_lossy(&line).trim_end_matches('\n')),
                Err(_) => return false,
            }
        }
    }

    /// The first line of a file without blanks around it; `None` where it is empty.
    pub fn line(&self, path: &str) -> Option<String> {
        let text = self.read(path)?;
        // Device tree strings end in NUL.
        let line = text.lines().next()?.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!line.is_empty()).then(|| line.to_string())
    }

    /// The number in a file.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// The names in a directory, sorted; empty where there is none.
    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.at(path)).into_iter().flatten().flatten().take(NAMES_MAX);
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Where a link points to, as it is written in it.
    pub fn link(&self, path: &str) -> Option<String> {
        std::fs::read_link(self.at(path)).ok()?.into_os_string().into_string().ok()
    }

    /// Whether there is something.
    pub fn has(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Whether its owner may execute a file.
    pub fn is_executable(&self, path: &str) -> bool {
        self.at(path).metadata().is_ok_and(|found| found.permissions().mode() & 0o100 != 0)
    }

    /// Release and machine of the kernel, as `uname(2)` says.
    pub fn uname(&self) -> Option<(String, String)> {
        if self.is_host() {
            let names = nix::sys::utsname::uname().ok()?;
            return Some((names.release().to_str()?.to_string(), names.machine().to_str()?.to_string()));
        }
        let line = self.line(".calls/uname")?;
        let (release, machine) = line.split_once(' ')?;
        Some((release.to_string(), machine.to_string()))
    }

    /// Addresses of the interfaces.
    pub fn addresses(&self) -> Vec<InterfaceAddress> {
        if self.is_host() {
            return interface_addresses();
        }
        let entry = |line: &str| {
            let (interface, rest) = line.split_once(' ')?;
            let (address, prefix) = rest.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            Some(InterfaceAddress { interface: interface.to_string(), address, prefix: prefix.parse().ok()? })
        };
        self.read(".calls/addresses").unwrap_or_default().lines().filter_map(entry).collect()
    }

    /// Size of a mounted file system in bytes. Only for local ones: a dead server would block the call.
    pub fn file_system_bytes(&self, mount_point: &str) -> Option<u64> {
        if self.is_host() {
            let found = nix::sys::statvfs::statvfs(mount_point).ok()?;
            #[allow(clippy::unnecessary_cast, reason = "the fields are 32 bits wide on some targets")]
            return (found.blocks() as u64).checked_mul(found.fragment_size() as u64);
        }
        let sizes = self.read(".calls/statvfs")?;
        let line = sizes.lines().find_map(|line| line.strip_prefix(mount_point)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }
}
