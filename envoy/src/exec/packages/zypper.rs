//! zypper, with the database of rpm.

use super::installed::Installed;
use super::manager::{Call, How, Manager, Newer, Place, Wanted};
use super::rpm;
use crate::exec::fault::Fault;
use crate::exec::host::Host;

/// SUSE.
pub struct Zypper;

impl Zypper {
    fn call(&self, place: Place<'_>) -> Call {
        let call = Call::new("zypper").with(["--non-interactive", "--quiet"]);
        call.with(place.root.map(|root| ["--root".to_string(), root.to_string()]).into_iter().flatten())
    }
}

impl Manager for Zypper {
    fn name(&self) -> &'static str {
        "zypper"
    }

    fn families(&self) -> &'static [&'static str] {
        &["suse"]
    }

    fn databases(&self) -> &'static [&'static str] {
        &rpm::DATABASES
    }

    fn lists(&self) -> Option<&'static str> {
        Some("/var/cache/zypp/raw")
    }

    fn installed(&self, host: &mut Host) -> Result<Installed, Fault> {
        rpm::installed(host)
    }

    fn is_version(&self, installed: &str, wanted: &str) -> bool {
        rpm::is_version(installed, wanted)
    }

    fn install(&self, place: Place<'_>, wanted: &[Wanted], how: How) -> Call {
        let mut call = self.call(place).with(["install", "--auto-agree-with-licenses"]);
        if wanted.iter().any(|one| one.version.is_some()) {
            call = call.with(["--oldpackage"]);
        }
        if how.replace {
            call = call.with(["--force-resolution"]);
        }
        call = match how.recommends {
            Some(true) => call.with(["--recommends"]),
            Some(false) => call.with(["--no-recommends"]),
            None => call,
        };
        call.with(["--"]).with(wanted.iter().map(|one| one.joined("=")))
    }

    fn upgrade(&self, place: Place<'_>, names: &[String]) -> Call {
        self.call(place).with(["update", "--auto-agree-with-licenses", "--"]).with(names)
    }

    fn suffix(&self) -> &'static str {
        ".rpm"
    }

    fn install_file(&self, place: Place<'_>, path: &str) -> Call {
        self.call(place).with(["--no-gpg-checks", "install", "--allow-unsigned-rpm", "--oldpackage", "--", path])
    }

    fn remove(&self, place: Place<'_>, names: &[String], _purge: bool) -> Call {
        self.call(place).with(["remove", "--"]).with(names)
    }

    fn refresh(&self, place: Place<'_>) -> Call {
        self.call(place).with(["refresh"])
    }

    fn outdated(&self, place: Place<'_>, _names: &[String]) -> Call {
        self.call(place).with(["--no-refresh", "list-updates"])
    }

    fn newer(&self, said: &str) -> Vec<Newer> {
        // `v | repository | name | installed | available | architecture`
        let newer = |line: &str| {
            let mut fields = line.split('|').map(str::trim);
            let (mark, _, name, _, version) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            (mark == "v").then(|| Newer { name: name.to_string(), version: version.to_string() })
        };
        said.lines().filter_map(newer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_read() {
        let said = "S | Repository | Name      | Current Version | Available Version | Arch\n--+------------+-----------+----+----+---\n\
            v | local      | vigo-demo | 1.0-1           | 2.0-1             | noarch\n";
        assert_eq!(Zypper.newer(said), [Newer { name: "vigo-demo".into(), version: "2.0-1".into() }]);
    }
}
