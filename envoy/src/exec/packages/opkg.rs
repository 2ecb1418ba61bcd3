//! opkg of OpenWrt and Yocto. It installs only the version that its lists have.

use std::io::BufReader;

use super::installed::{Installed, State, paragraphs};
use super::manager::{Call, How, Manager, Newer, Place, Wanted};
use super::session::read_database;
use crate::exec::fault::Fault;
use crate::exec::host::Host;

/// Its database, on OpenWrt and on Yocto.
const DATABASES: [&str; 2] = ["/usr/lib/opkg/status", "/var/lib/opkg/status"];

/// OpenWrt.
pub struct Opkg;

impl Opkg {
    fn call(&self, place: Place<'_>) -> Call {
        Call::new("opkg")
            .with(place.root.map(|root| ["--offline-root".to_string(), root.to_string()]).into_iter().flatten())
    }
}

impl Manager for Opkg {
    fn name(&self) -> &'static str {
        "opkg"
    }

    fn families(&self) -> &'static [&'static str] {
        &["openwrt"]
    }

    fn databases(&self) -> &'static [&'static str] {
        &DATABASES
    }

    fn lists(&self) -> Option<&'static str> {
        // In memory on a router: gone after every boot.
        Some("/var/opkg-lists")
    }

    fn installed(&self, host: &mut Host) -> Result<Installed, Fault> {
        for path in DATABASES {
            // In another root packages are unpacked, and configured at its first boot.
            let read = |file| paragraphs(BufReader::new(file), State::Whole);
            if let Some(packages) = read_database(host, path, read)? {
                return Ok(Installed::new(packages));
            }
        }
        Ok(Installed::default())
    }

    fn install(&self, place: Place<'_>, wanted: &[Wanted], _how: How) -> Call {
        self.call(place).with(["install"]).with(wanted.iter().map(|one| one.name.clone()))
    }

    fn upgrade(&self, place: Place<'_>, names: &[String]) -> Call {
        self.call(place).with(["upgrade"]).with(names)
    }

    fn offer(&self, place: Place<'_>, name: &str) -> Option<Call> {
        Some(self.call(place).with(["list", name]))
    }

    fn offered(&self, said: &str) -> Option<String> {
        // `curl - 8.1-1 - A client-side URL transfer utility`
        said.lines().find_map(|line| line.split(" - ").nth(1)).map(|version| version.trim().to_string())
    }

    fn suffix(&self) -> &'static str {
        ".ipk"
    }

    fn install_file(&self, place: Place<'_>, path: &str) -> Call {
        self.call(place).with(["install", path])
    }

    fn remove(&self, place: Place<'_>, names: &[String], _purge: bool) -> Call {
        self.call(place).with(["remove"]).with(names)
    }

    fn refresh(&self, place: Place<'_>) -> Call {
        self.call(place).with(["update"])
    }

    fn outdated(&self, place: Place<'_>, _names: &[String]) -> Call {
        self.call(place).with(["list-upgradable"])
    }

    fn newer(&self, said: &str) -> Vec<Newer> {
        // `curl - 8.0-1 - 8.1-1`
        let newer = |line: &str| {
            let mut fields = line.split(" - ");
            let (name, _, version) = (fields.next()?, fields.next()?, fields.next()?);
            Some(Newer { name: name.trim().to_string(), version: version.trim().to_string() })
        };
        said.lines().filter_map(newer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_read() {
        assert_eq!(Opkg.offered("curl - 8.1-1 - A client\n").as_deref(), Some("8.1-1"));
        assert_eq!(Opkg.offered(""), None);
        assert_eq!(Opkg.newer("curl - 8.0-1 - 8.1-1\n"), [Newer { name: "curl".into(), version: "8.1-1".into() }]);
    }
}
