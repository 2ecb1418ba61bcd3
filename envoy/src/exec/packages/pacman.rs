//! pacman of Arch. It installs only the newest version of a package: another one cannot be asked for.

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::installed::{Installed, Package, directory};
use super::manager::{Call, How, Manager, Newer, Place, Wanted};
use crate::exec::fault::Fault;
use crate::exec::host::Host;

/// One directory a package.
const LOCAL: &str = "/var/lib/pacman/local";

/// Arch.
pub struct Pacman;

impl Pacman {
    fn call(&self, place: Place<'_>, operation: &str) -> Call {
        let call = Call::new("pacman").with([operation]);
        // Queries take no such options.
        let call = if operation.starts_with("-Q") { call } else { call.with(["--noconfirm", "--noprogressbar"]) };
        let Some(root) = place.root else { return call };
        let options = [
            ("--root", ""),
            ("--config", "/etc/pacman.conf"),
            ("--dbpath", "/var/lib/pacman"),
            ("--cachedir", "/var/cache/pacman/pkg"),
            ("--gpgdir", "/etc/pacman.d/gnupg"),
            ("--hookdir", "/etc/pacman.d/hooks"),
            ("--logfile", "/var/log/pacman.log"),
        ];
        call.with(options.into_iter().flat_map(|(option, path)| [option.to_string(), format!("{root}{path}")]))
    }
}

impl Manager for Pacman {
    fn name(&self) -> &'static str {
        "pacman"
    }

    fn families(&self) -> &'static [&'static str] {
        &["arch"]
    }

    fn databases(&self) -> &'static [&'static str] {
        &[LOCAL]
    }

    fn lists(&self) -> Option<&'static str> {
        Some("/var/lib/pacman/sync")
    }

    fn installed(&self, host: &mut Host) -> Result<Installed, Fault> {
        let mut packages: Vec<Package> = Vec::new();
        // Names of directories say it all: no file is opened.
        if let Some(place) = host.locate(LOCAL)? {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            match Dir::openat(&place.dir, place.name, flags, Mode::empty()) {
                Ok(mut dir) => {
                    let names = dir.iter().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
                    packages.extend(names.filter_map(|name| directory(&name)));
                }
                Err(nix::errno::Errno::ENOENT) => {}
                Err(errno) => return Err(Fault::io("read", LOCAL)(errno)),
            }
        }
        Ok(Installed::new(packages))
    }

    fn is_version(&self, installed: &str, wanted: &str) -> bool {
        super::rpm::is_version(installed, wanted)
    }

    fn install(&self, place: Place<'_>, wanted: &[Wanted], how: How) -> Call {
        // The bit of `--ask` turns the answer to one question: whether a package in conflict goes.
        let call = self.call(place, "-S").with(how.replace.then_some("--ask=4"));
        call.with(["--needed", "--"]).with(wanted.iter().map(|one| one.name.clone()))
    }

    fn offer(&self, place: Place<'_>, name: &str) -> Option<Call> {
        Some(self.call(place, "-Si").with(["--", name]))
    }

    fn offered(&self, said: &str) -> Option<String> {
        let version = |line: &str| {
            let value = line.strip_prefix("Version")?.trim_start().strip_prefix(':')?;
            Some(value.trim().to_string())
        };
        said.lines().find_map(version)
    }

    fn suffix(&self) -> &'static str {
        ".pkg.tar.zst"
    }

    fn install_file(&self, place: Place<'_>, path: &str) -> Call {
        self.call(place, "-U").with(["--", path])
    }

    fn remove(&self, place: Place<'_>, names: &[String], purge: bool) -> Call {
        self.call(place, "-R").with(purge.then_some("--nosave")).with(["--"]).with(names)
    }

    fn refresh(&self, place: Place<'_>) -> Call {
        self.call(place, "-Sy")
    }

    fn outdated(&self, place: Place<'_>, names: &[String]) -> Call {
        self.call(place, "-Qu").with(["--"]).with(names)
    }

    fn outdated_statuses(&self) -> &'static [i32] {
        // 1: nothing is out of date.
        &[0, 1]
    }

    fn newer(&self, said: &str) -> Vec<Newer> {
        // `linux 6.1-1 -> 6.2-1`
        let newer = |line: &str| {
            let (installed, version) = line.split_once(" -> ")?;
            let (name, _) = installed.split_once(' ')?;
            let version = version.split_ascii_whitespace().next()?;
            // `[ignored]`: the configuration says that it stays.
            (!line.ends_with(']')).then(|| Newer { name: name.to_string(), version: version.to_string() })
        };
        said.lines().filter_map(newer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_read() {
        let said = "Repository      : extra\nName            : curl\nVersion         : 8.1-1\nDescription     : x\n";
        assert_eq!(Pacman.offered(said).as_deref(), Some("8.1-1"));
        assert_eq!(Pacman.offered("error: package 'curl' was not found\n"), None);
        let said = "linux 6.1-1 -> 6.2-1\nheld 1-1 -> 2-1 [ignored]\nwarning: x\n";
        assert_eq!(Pacman.newer(said), [Newer { name: "linux".into(), version: "6.2-1".into() }]);
    }
}
