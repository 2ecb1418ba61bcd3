//! dnf and yum, and the database of rpm that zypper shares: it is no file that can be read, so rpm is asked once a run.

use super::installed::{Installed, columns};
use super::manager::{Call, How, Manager, Newer, Place, Wanted};
use super::session::{query, root_of};
use crate::exec::fault::Fault;
use crate::exec::host::Host;

/// What rpm prints of each package; no epoch where there is none.
const FORMAT: &str = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\n";
/// Where its database is, by age of the distribution.
pub const DATABASES: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];

/// dnf, or yum before it: the same commands.
pub struct Dnf {
    /// `dnf` or `yum`.
    pub program: &'static str,
}

impl Dnf {
    fn call(&self, place: Place<'_>) -> Call {
        // It would wait for a lock without a bound.
        let call = Call::new(self.program).with(["-y", "-q", "--setopt=exit_on_lock=True"]);
        call.with(place.root.map(|root| format!("--installroot={root}")))
    }
}

impl Manager for Dnf {
    fn name(&self) -> &'static str {
        self.program
    }

    fn families(&self) -> &'static [&'static str] {
        &["redhat"]
    }

    fn databases(&self) -> &'static [&'static str] {
        &DATABASES
    }

    fn lists(&self) -> Option<&'static str> {
        None
    }

    fn installed(&self, host: &mut Host) -> Result<Installed, Fault> {
        installed(host)
    }

    fn is_version(&self, installed: &str, wanted: &str) -> bool {
        is_version(installed, wanted)
    }

    fn install(&self, place: Place<'_>, wanted: &[Wanted], how: How) -> Call {
        let mut call = self.call(place);
        if how.replace {
            call = call.with(["--allowerasing"]);
        }
        if let Some(recommends) = how.recommends {
            call = call.with([if recommends {
                "--setopt=install_weak_deps=True"
            } else {
                "--setopt=install_weak_deps=False"
            }]);
        }
        call.with(["install"]).with(wanted.iter().map(|one| one.joined("-")))
    }

    fn upgrade(&self, place: Place<'_>, names: &[String]) -> Call {
        self.call(place).with(["upgrade"]).with(names)
    }

    fn suffix(&self) -> &'static str {
        ".rpm"
    }

    fn install_file(&self, place: Place<'_>, path: &str) -> Call {
        self.call(place).with(["--nogpgcheck", "install", path])
    }

    fn remove(&self, place: Place<'_>, names: &[String], _purge: bool) -> Call {
        self.call(place).with(["remove"]).with(names)
    }

    fn refresh(&self, place: Place<'_>) -> Call {
        self.call(place).with(["clean", "expire-cache"])
    }

    fn outdated(&self, place: Place<'_>, names: &[String]) -> Call {
        self.call(place).with(["check-update"]).with(names)
    }

    fn outdated_statuses(&self) -> &'static [i32] {
        &[0, 100]
    }

    fn newer(&self, said: &str) -> Vec<Newer> {
        // Three columns; what follows a line about obsolete packages is of no interest.
        let lines = said.lines().take_while(|line| !line.starts_with("Obsoleting"));
        let newer = |line: &str| {
            let mut fields = line.split_ascii_whitespace();
            let (name, version, _repository) = (fields.next()?, fields.next()?, fields.next()?);
            let name = name.rsplit_once('.')?.0.to_string();
            let plain = version.starts_with(|c: char| c.is_ascii_digit()) && fields.next().is_none();
            plain.then(|| Newer { name, version: version.to_string() })
        };
        lines.filter_map(newer).collect()
    }
}

/// Everything in the database of rpm.
pub fn installed(host: &mut Host) -> Result<Installed, Fault> {
    let root = root_of(host);
    let call = Call::new("rpm").with(root.map(|root| format!("--root={root}"))).with(["-qa", "--qf", FORMAT]);
    Ok(Installed::new(columns(&query(host, &call)?)))
}

/// `1.2` is any release of it, and a version without an epoch is of any.
pub fn is_version(installed: &str, wanted: &str) -> bool {
    let bare = installed.split_once(':').map_or(installed, |(_, rest)| rest);
    let upstream = |version: &str| version.rsplit_once('-').map_or(version, |(upstream, _)| upstream).len();
    [installed, bare].iter().any(|have| *have == wanted || have[..upstream(have)] == *wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_may_leave_out_epoch_and_release() {
        for (installed, wanted, same) in [
            ("1.2-3.el9", "1.2-3.el9", true),
            ("1.2-3.el9", "1.2", true),
            ("1:1.2-3", "1.2-3", true),
            ("1:1.2-3", "1:1.2", true),
            ("1:1.2-3", "2:1.2", false),
            ("1.20-3", "1.2", false),
            ("1.2-3", "1.2-30", false),
        ] {
            assert_eq!(is_version(installed, wanted), same, "{installed} {wanted}");
        }
    }

    #[test]
    fn updates_are_read() {
        let said = "\nLast metadata expiration check: 0:01 ago.\nvigo-demo.noarch    2.0-1    local\nkernel.x86_64  1:6.1-2  updates\n\
            Obsoleting Packages\nold.noarch 1-1 x\n";
        let names: Vec<String> =
            Dnf { program: "dnf" }.newer(said).into_iter().map(|one| one.name + " " + &one.version).collect();
        assert_eq!(names, ["vigo-demo 2.0-1", "kernel 1:6.1-2"]);
    }
}
