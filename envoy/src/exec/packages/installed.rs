//! What is installed, read from the database of a package manager. Streams: a database has megabytes, what is kept of it is
//! name, version and architecture.

use std::io::{self, BufRead};

/// Bytes of a line that are looked at; what matters here is short, descriptions are not.
const LINE_BYTES_MAX: usize = 4 << 10;

/// In which state a package is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Installed.
    #[default]
    Whole,
    /// Installed, and the manager was told not to replace it.
    Held,
    /// Its installation was begun and not ended.
    Broken,
    /// Removed, its configuration left.
    Residual,
}

/// One package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: Box<str>,
    /// Version, as the manager writes it.
    pub version: Box<str>,
    /// Architecture.
    pub arch: Box<str>,
    /// State.
    pub state: State,
}

impl Package {
    /// Whether it can be used.
    pub fn works(&self) -> bool {
        matches!(self.state, State::Whole | State::Held)
    }
}

/// Everything that is installed.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// In order of name.
    packages: Vec<Package>,
    /// Architecture that a name without one means; empty where any is meant.
    native: Box<str>,
}

impl Installed {
    /// Of these packages.
    pub fn new(mut packages: Vec<Package>) -> Installed {
        packages.sort_by(|one, other| one.name.cmp(&other.name));
        Installed { packages, native: Box::default() }
    }

    /// Names without an architecture mean that of this package: it is what the manager itself is built for.
    pub fn native_as(mut self, name: &str) -> Installed {
        self.native = self.named(name).first().map(|package| package.arch.clone()).unwrap_or_default();
        self
    }

    /// The packages of a name, which may end with an architecture: `libc6:i386`, `glibc.i686`.
    pub fn find(&self, name: &str) -> Vec<&Package> {
        let all = self.named(name);
        if !all.is_empty() {
            let ours = |package: &&Package| self.native.is_empty() || is_for(&package.arch, &self.native);
            return all.iter().filter(ours).collect();
        }
        match name.rsplit_once(':').or_else(|| name.rsplit_once('.')) {
            Some((name, arch)) => self.named(name).iter().filter(|package| is_for(&package.arch, arch)).collect(),
            None => Vec::new(),
        }
    }

    fn named(&self, name: &str) -> &[Package] {
        let from = self.packages.partition_point(|package| *package.name < *name);
        let n = self.packages[from..].partition_point(|package| *package.name == *name);
        &self.packages[from..from + n]
    }
}

fn is_for(arch: &str, wanted: &str) -> bool {
    arch == wanted || matches!(arch, "all" | "noarch" | "any")
}

/// Packages of a file of paragraphs, as dpkg and opkg keep it. `unpacked` is what a package counts as that is there and not
/// configured.
pub fn paragraphs(reader: impl BufRead, unpacked: State) -> io::Result<Vec<Package>> {
    let mut all = Vec::new();
    let mut one = Package::default();
    let mut known = false;
    each_line(reader, |line| {
        if line.is_empty() {
            let done = std::mem::take(&mut one);
            if std::mem::take(&mut known) && !done.name.is_empty() {
                all.push(done);
            }
        } else if let Some(name) = line.strip_prefix("Package:") {
            one.name = name.trim().into();
        } else if let Some(version) = line.strip_prefix("Version:") {
            one.version = version.trim().into();
        } else if let Some(arch) = line.strip_prefix("Architecture:") {
            one.arch = arch.trim().into();
        } else if let Some(status) = line.strip_prefix("Status:") {
            let mut words = status.split_ascii_whitespace();
            let (want, flags) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let held = want == "hold" || flags.contains("hold");
            known = true;
            one.state = match words.next() {
                Some("installed" | "triggers-awaited" | "triggers-pending") if held => State::Held,
                Some("installed" | "triggers-awaited" | "triggers-pending") => State::Whole,
                Some("unpacked") => unpacked,
                Some("config-files") => State::Residual,
                Some("not-installed") | None => {
                    known = false;
                    State::Residual
                }
                Some(_) => State::Broken,
            };
        }
    })?;
    Ok(all)
}

/// Packages of the database of apk: fields of one letter, an empty line after each package.
pub fn letters(reader: impl BufRead) -> io::Result<Vec<Package>> {
    let mut all = Vec::new();
    let mut one = Package::default();
    each_line(reader, |line| match line.split_at_checked(2) {
        Some(("P:", name)) => one.name = name.into(),
        Some(("V:", version)) => one.version = version.into(),
        Some(("A:", arch)) => one.arch = arch.into(),
        None if line.is_empty() && !one.name.is_empty() => all.push(std::mem::take(&mut one)),
        _ => {}
    })?;
    Ok(all)
}

/// Packages of lines `NAME<tab>VERSION<tab>ARCHITECTURE`, as rpm is asked to print them.
pub fn columns(text: &str) -> Vec<Package> {
    let package = |line: &str| {
        let mut fields = line.split('\t');
        let (name, version, arch) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Package { name: name.into(), version: version.into(), arch: arch.into(), state: State::Whole })
    };
    text.lines().filter_map(package).collect()
}

/// A package of its directory name, `NAME-VERSION-RELEASE`, as pacman keeps them.
pub fn directory(name: &str) -> Option<Package> {
    let mut parts = name.rsplitn(3, '-');
    let (release, version, name) = (parts.next()?, parts.next()?, parts.next()?);
    let version = format!("{version}-{release}");
    Some(Package { name: name.into(), version: version.into(), ..Package::default() })
}

/// Every line, without its end; an empty one after the last, which ends the last paragraph.
fn each_line(mut reader: impl BufRead, mut take: impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        let piece = match reader.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if piece.is_empty() {
            break;
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let used = end.unwrap_or(piece.len());
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&piece[..used.min(room)]);
        reader.consume(used + usize::from(end.is_some()));
        if end.is_some() {
            take(String::from_utf8_lossy(&line).trim_end_matches('\r'));
            line.clear();
        }
    }
    take(&String::from_utf8_lossy(&line));
    if !line.is_empty() {
        take("");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: nginx\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.22.1-9\nDescription: web\n \
        more Package: no\n\nPackage: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\nPackage: kept\nStatus: \
        hold ok installed\nArchitecture: amd64\nVersion: 2:3\n\nPackage: libc6\nStatus: install ok half-configured\nArchitecture: \
        i386\nVersion: 2\n\nPackage: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2\n\nPackage: never\nStatus: \
        unknown ok not-installed\n\nPackage: dpkg\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 1\n";

    fn dpkg() -> Installed {
        Installed::new(paragraphs(STATUS.as_bytes(), State::Broken).unwrap()).native_as("dpkg")
    }

    fn shown(installed: &Installed, name: &str) -> Vec<String> {
        installed.find(name).iter().map(|one| format!("{} {} {:?}", one.arch, one.version, one.state)).collect()
    }

    #[test]
    fn paragraphs_are_read_with_their_states() {
        let installed = dpkg();
        for (name, expected) in [
            ("nginx", &["amd64 1.22.1-9 Whole"][..]),
            ("gone", &["all 1 Residual"]),
            ("kept", &["amd64 2:3 Held"]),
            ("never", &[]),
            ("none", &[]),
            ("dpkg", &["amd64 1 Broken"]),
            ("libc6", &["amd64 2 Whole"]),
            ("libc6:i386", &["i386 2 Broken"]),
            ("nginx:i386", &[]),
            ("gone:amd64", &["all 1 Residual"]),
        ] {
            assert_eq!(shown(&installed, name), expected, "{name}");
        }
        let opkg = "Package: a\nVersion: 1\nStatus: install user installed\n\nPackage: b\nVersion: 1\nStatus: install hold,user unpacked\n\n\
            Package: c\nStatus: install ok,hold installed\n";
        let packages = paragraphs(opkg.as_bytes(), State::Whole).unwrap();
        assert_eq!(packages.iter().map(|one| one.state).collect::<Vec<_>>(), [State::Whole, State::Whole, State::Held]);
    }

    #[test]
    fn other_databases_are_read_too() {
        let apk = "C:Q1x=\nP:musl\nV:1.2.4-r1\nA:x86_64\nF:lib\nR:x\n\nP:curl\nV:8.0-r0\nA:x86_64\n";
        let installed = Installed::new(letters(apk.as_bytes()).unwrap());
        assert_eq!(shown(&installed, "curl"), ["x86_64 8.0-r0 Whole"]);
        assert_eq!(shown(&installed, "musl"), ["x86_64 1.2.4-r1 Whole"]);
        let installed =
            Installed::new(columns("bash\t5.2-1\tx86_64\nkernel\t1:6-1\tx86_64\nkernel\t1:7-1\tx86_64\nbad\n"));
        assert_eq!(shown(&installed, "kernel").len(), 2);
        assert_eq!(shown(&installed, "bash.x86_64"), ["x86_64 5.2-1 Whole"]);
        assert!(shown(&installed, "bash.i686").is_empty() && shown(&installed, "bad").is_empty());
        let package = directory("python-a-b-1:2.0-3").unwrap();
        assert_eq!((&*package.name, &*package.version), ("python-a-b", "1:2.0-3"));
        assert!(directory("ALPM_DB_VERSION").is_none());
    }

    #[test]
    fn endless_lines_and_foreign_bytes_cost_nothing() {
        let mut text = b"Package: a\nStatus: install ok installed\nVersion: 1\nDescription: ".to_vec();
        text.extend(vec![b'x'; 1 << 20]);
        text.extend(b"\xff\xfe\n\nPackage: \xff\nStatus: install ok installed");
        let packages = paragraphs(text.as_slice(), State::Broken).unwrap();
        assert_eq!(packages.len(), 2);
        assert_eq!((&*packages[0].name, &*packages[1].name), ("a", "\u{fffd}"));
        assert!(paragraphs(&b""[..], State::Broken).unwrap().is_empty());
    }
}
