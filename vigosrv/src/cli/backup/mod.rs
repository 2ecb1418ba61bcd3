//! `vigocli backup`: archives of a server root, made beside a running server, looked at, verified, restored, rehearsed.

mod create;
mod drill;
mod envoy;
mod look;
mod password;
mod replica;
mod restore;

use std::net::IpAddr;
use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure};
use common::sys::Clock;

use crate::backup::Host;

/// Makes, checks and restores archives of a server.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "backup", example = "{command_name} create")]
pub(super) struct Backup {
    #[argh(subcommand)]
    verb: BackupVerb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum BackupVerb {
    Create(create::Create),
    Inspect(look::Inspect),
    Verify(look::Verify),
    Restore(restore::Restore),
    List(look::List),
    Download(look::Download),
    Drill(drill::Drill),
    LitestreamEnv(replica::LitestreamEnv),
}

pub(super) fn run(verb: Backup, common: &Common) -> Result<Exit, Failure> {
    match verb.verb {
        BackupVerb::Create(verb) => create::run(&verb, common),
        BackupVerb::Inspect(verb) => look::inspect(&verb, common),
        BackupVerb::Verify(verb) => look::verify(&verb, common),
        BackupVerb::Restore(verb) => restore::run(&verb, common),
        BackupVerb::List(_) => look::list(common),
        BackupVerb::Download(verb) => look::download(&verb, common),
        BackupVerb::Drill(verb) => drill::run(&verb, common),
        BackupVerb::LitestreamEnv(_) => replica::environment(common),
    }
}

/// Name and addresses of this host.
fn host() -> Host {
    let addresses: Vec<IpAddr> =
        common::sys::net::interface_addresses().into_iter().map(|found| found.address).collect();
    Host { hostname: common::sys::net::hostname(), addresses }
}

/// The time to the second, for names of files. Without the colons of RFC 3339: `tar` and `scp` take what is before a colon for
/// the name of a host.
fn stamp() -> String {
    let text = Clock::system().now().wall.to_string().replace(':', "");
    text.split('.').next().unwrap_or_default().trim_end_matches('Z').to_string() + "Z"
}

/// A directory of this process for what is unpacked to be looked at: beside the archive where that can be written to, so that
/// it is where there is room for archives.
fn scratch(archive: &std::path::Path) -> PathBuf {
    let name = format!(".vigo-look-{}", std::process::id());
    let beside = archive.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let writable = nix::unistd::access(beside, nix::unistd::AccessFlags::W_OK).is_ok();
    if writable { beside.join(name) } else { std::env::temp_dir().join(name) }
}
