//! What package managers have in common, and which of them a host has.

use super::apk::Apk;
use super::apt::Apt;
use super::installed::Installed;
use super::opkg::Opkg;
use super::pacman::Pacman;
use super::rpm::Dnf;
use super::zypper::Zypper;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::tool::Tool;

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Looked for in the search path.
    pub program: &'static str,
    /// Arguments.
    pub args: Vec<String>,
}

impl Call {
    /// Without arguments.
    pub fn new(program: &'static str) -> Call {
        Call { program, args: Vec::new() }
    }

    /// With more arguments.
    pub fn with<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Call {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// A package that is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name.
    pub name: String,
    /// Version; the newest where none is asked for.
    pub version: Option<String>,
}

impl Wanted {
    /// `NAME`, or `NAME`, something between, and the version.
    pub fn joined(&self, between: &str) -> String {
        match &self.version {
            Some(version) => format!("{}{between}{version}", self.name),
            None => self.name.clone(),
        }
    }
}

/// A package that can be replaced by a newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newer {
    /// Name.
    pub name: String,
    /// The newest version.
    pub version: String,
}

/// Where a manager acts, and how it is to be told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'r> {
    /// Another root than that of the host.
    pub root: Option<&'r str>,
}

/// How packages are to be installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// With packages that are only recommended; `None`: as the manager is configured.
    pub recommends: Option<bool>,
    /// Packages that are in the way may go.
    pub replace: bool,
}

/// One package manager. It says what to call and reads what comes back; it calls nothing but to read a database that is no
/// file.
pub trait Manager: Sync {
    /// As in the parameter `manager`.
    fn name(&self) -> &'static str;

    /// The program without which it is not there.
    fn program(&self) -> &'static str {
        self.name()
    }

    /// Families of distributions that are its home, as in the trait `os.family`.
    fn families(&self) -> &'static [&'static str];

    /// Paths of which one exists where the manager was ever used.
    fn databases(&self) -> &'static [&'static str];

    /// Directory that holds the lists of the repositories; its time is their age. `None`: it looks after their age itself.
    fn lists(&self) -> Option<&'static str>;

    /// Variables without which it would ask questions.
    fn environment(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Everything that is installed.
    fn installed(&self, host: &mut Host) -> Result<Installed, Fault>;

    /// Whether an installed version is the one that policy asks for. `wanted` does not end with `*`.
    fn is_version(&self, installed: &str, wanted: &str) -> bool {
        installed == wanted
    }

    /// Installs packages, or other versions of them.
    fn install(&self, place: Place<'_>, wanted: &[Wanted], how: How) -> Call;

    /// Replaces installed packages by the newest.
    fn upgrade(&self, place: Place<'_>, names: &[String]) -> Call {
        let wanted: Vec<Wanted> = names.iter().map(|name| Wanted { name: name.clone(), version: None }).collect();
        self.install(place, &wanted, How::default())
    }

    /// Asks which version of a package the repositories have; `None` for a manager that can be asked to install any.
    fn offer(&self, _place: Place<'_>, _name: &str) -> Option<Call> {
        None
    }

    /// What [`Manager::offer`] said.
    fn offered(&self, _said: &str) -> Option<String> {
        None
    }

    /// How files of its packages end.
    fn suffix(&self) -> &'static str;

    /// Installs the package of a file, whose hash was compared: a signature adds nothing.
    fn install_file(&self, place: Place<'_>, path: &str) -> Call;

    /// Removes packages, their configuration too with `purge`.
    fn remove(&self, place: Place<'_>, names: &[String], purge: bool) -> Call;

    /// Fetches the lists of the repositories anew.
    fn refresh(&self, place: Place<'_>) -> Call;

    /// Asks for newer versions of installed packages, from the lists that are there.
    fn outdated(&self, place: Place<'_>, names: &[String]) -> Call;

    /// Statuses of [`Manager::outdated`] that are no failure.
    fn outdated_statuses(&self) -> &'static [i32] {
        &[0]
    }

    /// What [`Manager::outdated`] said.
    fn newer(&self, said: &str) -> Vec<Newer>;

    /// What has to be called before the manager can work again, by what it said.
    fn repair(&self, _place: Place<'_>, _said: &str) -> Option<Call> {
        None
    }
}

/// Every manager; where nothing else decides, the first one that is there.
pub const MANAGERS: [&dyn Manager; 7] =
    [&Apt, &Dnf { program: "dnf" }, &Dnf { program: "yum" }, &Zypper, &Apk, &Pacman, &Opkg];

/// The manager of that name, or the one that the host has: what counts is a database below the root, then the family of the
/// distribution, because foreign managers can be installed as packages.
pub fn choose(host: &mut Host, asked: Option<&str>) -> Result<&'static dyn Manager, Fault> {
    if let Some(name) = asked {
        let known = MANAGERS.into_iter().find(|manager| manager.name() == name);
        let manager = known.ok_or_else(|| Fault::Parameter(format!("there is no package manager `{name}`")))?;
        Tool::need(host, manager.program())?;
        return Ok(manager);
    }
    let family = host.trait_text("os", "family").unwrap_or_default();
    let mut best: Option<(u8, &'static dyn Manager)> = None;
    for manager in MANAGERS {
        if Tool::find(host, manager.program()).is_none() {
            continue;
        }
        let used = manager.databases().iter().any(|path| exists(host, path));
        let points = 2 * u8::from(used) + u8::from(manager.families().contains(&family.as_str()));
        if best.is_none_or(|(most, _)| points > most) {
            best = Some((points, manager));
        }
    }
    let names = || MANAGERS.map(|manager| manager.program()).join(", ");
    let missing = || Fault::Failed(format!("no package manager is installed on this host; looked for {}", names()));
    best.map(|(_, manager)| manager).ok_or_else(missing)
}

fn exists(host: &mut Host, path: &str) -> bool {
    match host.locate(path) {
        Ok(Some(place)) => host.stat(&place, path).is_ok_and(|stat| stat.is_some()),
        _ => false,
    }
}
