//! The targets, as `arch-tests/targets.toml` lists them, and where their binaries are.

use std::path::PathBuf;

use serde::Deserialize;

/// The program of `arch-tests/probe`.
pub const PROBE: &str = "vigo-probe";

/// The list.
const LIST: &str = include_str!("../targets.toml");

/// An architecture that Vigo is built for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// As rustc calls it.
    pub triple: String,
    /// As `uname -m` says.
    pub uname: String,
    /// `e_machine` of its binaries.
    pub machine: u16,
    /// Bits of a word.
    pub bits: u32,
    /// Byte order.
    pub little_endian: bool,
    /// The program that runs its binaries; none where they run by themselves.
    #[serde(default)]
    pub emulator: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    target: Vec<Target>,
}

/// All of them.
pub fn targets() -> Vec<Target> {
    let list: List = toml::from_str(LIST).expect("arch-tests/targets.toml is read by a test");
    list.target
}

/// The server that agents of every architecture are tried with: the static one of this machine.
pub fn native_server() -> PathBuf {
    let native = targets().into_iter().find(|target| target.emulator.is_none());
    native.expect("a test knows the list").binary("vigosrv")
}

impl Target {
    /// The first part of the triple.
    pub fn short(&self) -> &str {
        self.triple.split('-').next().unwrap_or_default()
    }

    /// Where `ci/cross` puts a binary of it; the program of the tests apart from what is shipped.
    pub fn path(&self, binary: &str) -> PathBuf {
        let folder = if binary == PROBE { "cross/probe" } else { "cross/dist" };
        cache().join(folder).join(&self.triple).join(binary)
    }

    /// A binary that must be there, and that this machine can run.
    pub fn binary(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(path.is_file(), "{} is missing: run `ci/cross {}`", path.display(), self.short());
        crate::make_runnable(self).unwrap_or_else(|why| panic!("{}: {why}", self.triple));
        path
    }

    /// A binary that is tested on some targets only.
    pub fn binary_if_built(&self, name: &str) -> Option<PathBuf> {
        self.path(name).is_file().then(|| self.binary(name))
    }
}

/// As `ci/lib.sh` has it.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/vigo");
    std::env::var_os("VIGO_CACHE").map_or_else(home, PathBuf::from)
}
