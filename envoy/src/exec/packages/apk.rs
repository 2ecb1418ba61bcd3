//! apk of Alpine (and of OpenWrt since 24.10).

use std::io::BufReader;

use super::installed::{Installed, letters};
use super::manager::{Call, How, Manager, Newer, Place, Wanted};
use super::session::read_database;
use crate::exec::fault::Fault;
use crate::exec::host::Host;

/// Its database, by version of apk.
const DATABASES: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];

/// Alpine.
pub struct Apk;

impl Apk {
    fn call(&self, place: Place<'_>) -> Call {
        let call = Call::new("apk").with(["--no-progress"]);
        call.with(place.root.map(|root| ["--root".to_string(), root.to_string()]).into_iter().flatten())
    }
}

impl Manager for Apk {
    fn name(&self) -> &'static str {
        "apk"
    }

    fn families(&self) -> &'static [&'static str] {
        &["alpine", "openwrt"]
    }

    fn databases(&self) -> &'static [&'static str] {
        &DATABASES
    }

    fn lists(&self) -> Option<&'static str> {
        Some("/var/cache/apk")
    }

    fn installed(&self, host: &mut Host) -> Result<Installed, Fault> {
        for path in DATABASES {
            if let Some(packages) = read_database(host, path, |file| letters(BufReader::new(file)))? {
                return Ok(Installed::new(packages));
            }
        }
        Ok(Installed::default())
    }

    fn is_version(&self, installed: &str, wanted: &str) -> bool {
        installed == wanted || installed.rsplit_once("-r").is_some_and(|(upstream, _)| upstream == wanted)
    }

    fn install(&self, place: Place<'_>, wanted: &[Wanted], _how: How) -> Call {
        // `~` is any release of a version.
        let name = |one: &Wanted| match &one.version {
            Some(version) if !version.contains("-r") => one.joined("~"),
            _ => one.joined("="),
        };
        self.call(place).with(["add"]).with(wanted.iter().map(name))
    }

    fn upgrade(&self, place: Place<'_>, names: &[String]) -> Call {
        self.call(place).with(["add", "--upgrade"]).with(names)
    }

    fn suffix(&self) -> &'static str {
        ".apk"
    }

    fn install_file(&self, place: Place<'_>, path: &str) -> Call {
        self.call(place).with(["add", "--allow-untrusted", path])
    }

    fn remove(&self, place: Place<'_>, names: &[String], purge: bool) -> Call {
        self.call(place).with(["del"]).with(purge.then_some("--purge")).with(names)
    }

    fn refresh(&self, place: Place<'_>) -> Call {
        self.call(place).with(["update"])
    }

    fn outdated(&self, place: Place<'_>, names: &[String]) -> Call {
        self.call(place).with(["version", "-l", "<"]).with(names)
    }

    fn newer(&self, said: &str) -> Vec<Newer> {
        // `curl-8.0-r0   < 8.1-r0`
        let newer = |line: &str| {
            let (installed, version) = line.split_once(" < ")?;
            let mut parts = installed.trim().rsplitn(3, '-');
            let (_release, _version, name) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Newer { name: name.to_string(), version: version.trim().to_string() })
        };
        said.lines().filter_map(newer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_read() {
        let said = "Installed:                                Available:\nca-certificates-20230506-r0             < 20240226-r0 \n";
        assert_eq!(Apk.newer(said), [Newer { name: "ca-certificates".into(), version: "20240226-r0".into() }]);
        assert!(Apk.is_version("1.2-r3", "1.2") && !Apk.is_version("1.20-r3", "1.2"));
    }
}
