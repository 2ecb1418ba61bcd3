//! apt, with the database of dpkg.

use std::io::BufReader;

use super::installed::{Installed, State, paragraphs};
use super::manager::{Call, How, Manager, Newer, Place, Wanted};
use super::session::read_database;
use crate::exec::fault::Fault;
use crate::exec::host::Host;

/// Debian and everything made of it.
pub struct Apt;

impl Apt {
    fn call(&self, program: &'static str, place: Place<'_>) -> Call {
        // Names are names: apt-get would take one that it does not know for a regular expression, and install what matches.
        let call = Call::new(program).with(["-q", "-o", "APT::Cmd::Pattern-Only=true"]);
        match place.root {
            None => call,
            // The user that apt downloads as may not enter a root that is only for us.
            Some(root) => call.with([
                "-o".to_string(),
                format!("Dir={root}/"),
                "-o".to_string(),
                format!("Dir::State::status={root}/var/lib/dpkg/status"),
                "-o".to_string(),
                format!("DPkg::Options::=--root={root}"),
                "-o".to_string(),
                "APT::Sandbox::User=root".to_string(),
            ]),
        }
    }

    fn change(&self, place: Place<'_>) -> Call {
        // Files of configuration that were changed stay as they are: they belong to the policy.
        self.call("apt-get", place).with([
            "-y",
            "-o",
            "DPkg::Options::=--force-confdef",
            "-o",
            "DPkg::Options::=--force-confold",
        ])
    }
}

impl Manager for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn program(&self) -> &'static str {
        "apt-get"
    }

    fn families(&self) -> &'static [&'static str] {
        &["debian"]
    }

    fn databases(&self) -> &'static [&'static str] {
        &["/var/lib/dpkg/status"]
    }

    fn lists(&self) -> Option<&'static str> {
        Some("/var/lib/apt/lists")
    }

    fn environment(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("APT_LISTCHANGES_FRONTEND", "none"),
            ("APT_LISTBUGS_FRONTEND", "none"),
            // It would ask which services to restart, or restart them at a time of its own choice.
            ("NEEDRESTART_MODE", "l"),
            ("UCF_FORCE_CONFFOLD", "1"),
        ]
    }

    fn installed(&self, host: &mut Host) -> Result<Installed, Fault> {
        let read = |file| paragraphs(BufReader::new(file), State::Broken);
        let packages = read_database(host, "/var/lib/dpkg/status", read)?;
        Ok(Installed::new(packages.unwrap_or_default()).native_as("dpkg"))
    }

    fn install(&self, place: Place<'_>, wanted: &[Wanted], how: How) -> Call {
        let mut call = self.change(place);
        if !how.replace {
            call = call.with(["--no-remove"]);
        }
        if wanted.iter().any(|one| one.version.is_some()) {
            call = call.with(["--allow-downgrades", "--allow-change-held-packages"]);
        }
        call = match how.recommends {
            Some(true) => call.with(["--install-recommends"]),
            Some(false) => call.with(["--no-install-recommends"]),
            None => call,
        };
        call.with(["install"]).with(wanted.iter().map(|one| one.joined("=")))
    }

    fn suffix(&self) -> &'static str {
        ".deb"
    }

    fn install_file(&self, place: Place<'_>, path: &str) -> Call {
        self.change(place).with(["--no-remove", "--allow-downgrades", "install", path])
    }

    fn remove(&self, place: Place<'_>, names: &[String], purge: bool) -> Call {
        self.change(place).with([if purge { "purge" } else { "remove" }]).with(names)
    }

    fn refresh(&self, place: Place<'_>) -> Call {
        self.call("apt-get", place).with(["update"])
    }

    fn outdated(&self, place: Place<'_>, names: &[String]) -> Call {
        self.call("apt-cache", place).with(["policy"]).with(names)
    }

    fn newer(&self, said: &str) -> Vec<Newer> {
        let mut all = Vec::new();
        let (mut name, mut installed) = ("", "");
        for line in said.lines() {
            if let Some(header) = line.strip_suffix(':').filter(|header| !header.starts_with(' ')) {
                (name, installed) = (header, "");
            } else if let Some(version) = line.trim_start().strip_prefix("Installed: ") {
                installed = version;
            } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
                && version != installed
                && version != "(none)"
            {
                all.push(Newer { name: name.to_string(), version: version.to_string() });
            }
        }
        all
    }

    fn repair(&self, place: Place<'_>, said: &str) -> Option<Call> {
        let root = place.root.map(|root| format!("--root={root}"));
        let broken = said.contains("dpkg was interrupted") || said.contains("half-configured");
        broken.then(|| Call::new("dpkg").with(root).with(["--force-confdef", "--force-confold", "--configure", "-a"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read() {
        let said = "nginx:\n  Installed: 1.22\n  Candidate: 1.24\n  Version table:\n     1.24 500\n        500 file:/r ./ Packages\n *** 1.22 100\n\
            curl:\n  Installed: 8\n  Candidate: 8\n  Version table:\nother:\n  Installed: 1\n  Candidate: (none)\n";
        assert_eq!(Apt.newer(said), [Newer { name: "nginx".into(), version: "1.24".into() }]);
    }

    #[test]
    fn nothing_is_removed_to_install_and_other_versions_may_be_older() {
        let wanted = |version: Option<&str>| [Wanted { name: "nginx".into(), version: version.map(str::to_string) }];
        let args = Apt
            .install(Place::default(), &wanted(None), How { recommends: Some(false), replace: false })
            .args
            .join(" ");
        assert!(args.ends_with("--no-remove --no-install-recommends install nginx"), "{args}");
        let args = Apt.install(Place { root: Some("/r") }, &wanted(Some("1.2*")), How::default()).args.join(" ");
        assert!(
            args.contains("Dir=/r/") && args.contains("--allow-downgrades") && args.ends_with("nginx=1.2*"),
            "{args}"
        );
    }
}
