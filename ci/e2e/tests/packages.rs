//! `package` with real package managers: apt, dnf, zypper and pacman install packages that are built here from local
//! repositories into throw-away roots. Needs root, as they do; without it nothing is tested and that is said.
//!
//! apk and opkg are not to be had in Debian: they are driven in the tests of the agent, by transcripts with a program that plays
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::crypto::sha256;
use vigo_e2e::Envoy;

/// What every package installs.
const INSTALLED: &str = "usr/share/vigo-demo/version";

/// A root of its own, and an agent that applies files to it.
struct Site {
    dir: tempfile::TempDir,
    envoy: Envoy,
}

impl Site {
    fn new() -> Option<Site> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not tested: package managers need root");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let envoy = Envoy::new(&dir.path().join("envoy"));
        Some(Site { dir, envoy })
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    fn write(&self, path: &str, text: &str) {
        put(&self.envoy.path(path), text);
    }

    /// Makes the repository known by the type `repository`.
    fn use_repository(&self, manager: &str, more: &str) {
        let url = format!("file://{}", self.repository().display());
        let params = format!("manager: {manager}\n    repository: demo\n    url: {url}\n    verify: false\n    {more}");
        for outcome in ["changed", "ok"] {
            let (found, message) = self.settle("repository", &params);
            assert_eq!(found, outcome, "{message}");
        }
    }

    /// Applies one `package`; its outcome and message.
    fn apply(&self, params: &str) -> (String, String) {
        self.settle("package", params)
    }

    fn settle(&self, kind: &str, params: &str) -> (String, String) {
        let file = self.dir.path().join("site.vgo");
        put(&file, &format!("name: site\nresources:\n  - name: demo\n    type: {kind}\n    {params}\n"));
        let answer = self.envoy.ask(&["apply", file.to_str().expect("UTF-8"), "--diff"]);
        let found = &answer["resources"][0];
        let text = |key: &str| found[key].as_str().map(str::to_string).unwrap_or_else(|| panic!("{key} in {answer}"));
        (text("outcome"), text("message"))
    }

    fn expect(&self, params: &str, outcome: &str, message: &str) {
        let found = self.apply(params);
        assert!(found.0 == outcome && found.1.contains(message), "{params}: {found:?}");
    }

    fn installed(&self) -> Option<String> {
        fs::read_to_string(self.envoy.path(INSTALLED)).ok().map(|text| text.trim().to_string())
    }
}

/// The whole life of a package. `newest` makes the second version appear in the repository; `release` is what the manager adds to a version.
fn check(site: &Site, manager: &str, release: &str, newest: impl FnOnce(), old_versions: bool) {
    let demo = |more: &str| format!("manager: {manager}\n    package: vigo-demo\n    {more}");
    let (one, two) = (format!("1.0{release}"), format!("2.0{release}"));
    site.expect(&demo("state: present"), "changed", "installed: vigo-demo");
    assert_eq!(site.installed().as_deref(), Some("1.0"));
    site.expect(&demo("state: present"), "ok", "");
    newest();
    site.expect(&demo("state: present"), "ok", "");
    site.expect(&demo("state: latest\n    refresh_after: 0s"), "changed", &format!("vigo-demo {one} to {two}"));
    assert_eq!(site.installed().as_deref(), Some("2.0"));
    site.expect(&demo("state: latest"), "ok", "");
    if old_versions {
        site.expect(&demo(&format!("version: \"{one}\"")), "changed", &format!("vigo-demo {two} to {one}"));
        assert_eq!(site.installed().as_deref(), Some("1.0"));
        site.expect(&demo("version: \"1.*\""), "ok", "");
        let (outcome, message) = site.apply(&demo("version: \"7.7\""));
        assert!(matches!(outcome.as_str(), "failed" | "blocked"), "{outcome}: {message}");
        assert_eq!(site.installed().as_deref(), Some("1.0"), "the old state stays usable");
    } else {
        let (outcome, message) = site.apply(&demo(&format!("version: \"{one}\"")));
        assert!(outcome == "failed" && message.contains(&format!("they have vigo-demo {two}")), "{outcome}: {message}");
        assert_eq!(site.installed().as_deref(), Some("2.0"), "what is there stays");
    }
    fs::remove_file(site.envoy.path(INSTALLED)).expect("it is there");
    site.expect(&demo("state: present"), "ok", "");
    site.expect(&demo("state: absent"), "changed", "removed: vigo-demo");
    site.expect(&demo("state: absent"), "ok", "");
    let (outcome, message) = site.apply(&format!("manager: {manager}\n    package: no-such-package"));
    assert!(outcome == "failed" && message.contains("no-such-package"), "{outcome}: {message}");
    site.expect(&demo("state: present"), "changed", "installed: vigo-demo");
    assert!(site.installed().is_some());
}

#[test]
fn apt_installs_upgrades_downgrades_and_removes() {
    let Some(site) = Site::new() else { return };
    site.write("/var/lib/dpkg/status", "");
    for folder in [
        "/var/lib/dpkg/info",
        "/var/lib/dpkg/updates",
        "/var/lib/apt/lists/partial",
        "/var/cache/apt/archives/partial",
        "/etc/apt/preferences.d",
        "/etc/apt/sources.list.d",
        "/var/tmp",
        "/var/log/apt",
    ] {
        fs::create_dir_all(site.envoy.path(folder)).expect("a folder");
    }
    let repository = site.repository();
    site.use_repository("apt", "suites: ./");
    let offer = |versions: &[&str]| {
        let paragraphs: Vec<String> = versions.iter().map(|version| deb(&repository, version)).collect();
        put(&repository.join("Packages"), &paragraphs.join("\n"));
    };
    offer(&["1.0"]);
    check(&site, "apt", "", || offer(&["1.0", "2.0"]), true);
    // The same package from a file, whatever the repository has.
    let file = repository.join("vigo-demo_1.0_all.deb");
    let hash = sha256(&[&fs::read(&file).expect("it was built")]);
    let url = format!("url: file://{}\n    sha256: {hash}", file.display());
    let params = format!("manager: apt\n    package: vigo-demo\n    version: \"1.0\"\n    {url}");
    for outcome in ["changed", "ok"] {
        let (found, message) = site.settle("nonrepo_package", &params);
        assert_eq!(found, outcome, "{message}");
    }
    assert_eq!(site.installed().as_deref(), Some("1.0"));
}

/// Builds a package; its paragraph for the list.
fn deb(repository: &Path, version: &str) -> String {
    let tree = repository.join(format!("tree-{version}"));
    let control = format!(
        "Package: vigo-demo\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: a test\n"
    );
    put(&tree.join("DEBIAN/control"), &control);
    put(&tree.join(INSTALLED), version);
    let name = format!("vigo-demo_{version}_all.deb");
    run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(repository.join(&name)));
    let bytes = fs::read(repository.join(&name)).expect("it was built");
    format!("{control}Filename: ./{name}\nSize: {}\nSHA256: {}\n", bytes.len(), sha256(&[&bytes]))
}

#[test]
fn dnf_installs_upgrades_downgrades_and_removes() {
    let Some(site) = Site::new() else { return };
    let repository = site.repository();
    site.write("/etc/dnf/dnf.conf", "[main]\ngpgcheck=0\nplugins=0\nmetadata_expire=0\n");
    fs::create_dir_all(site.envoy.path("/etc/yum.repos.d")).expect("a folder");
    site.use_repository("dnf", "");
    rpm(&repository, "1.0");
    check(&site, "dnf", "-1", || rpm(&repository, "2.0"), true);
}

#[test]
fn zypper_installs_upgrades_downgrades_and_removes() {
    let Some(site) = Site::new() else { return };
    let repository = site.repository();
    fs::create_dir_all(site.envoy.path("/etc/zypp/repos.d")).expect("a folder");
    site.use_repository("zypper", "");
    rpm(&repository, "1.0");
    // zypper fails on a database that has nothing in it.
    site.expect("manager: zypper\n    package: vigo-anchor", "changed", "installed: vigo-anchor");
    check(&site, "zypper", "-1", || rpm(&repository, "2.0"), true);
}

/// Builds a package into a repository.
fn rpm(repository: &Path, version: &str) {
    let spec = repository.with_file_name("demo.spec");
    let text = format!(
        "Name: vigo-demo\nVersion: {version}\nRelease: 1\nSummary: a test\nLicense: none\nBuildArch: noarch\n%description\na test\n\
         %install\nmkdir -p %{{buildroot}}/usr/share/vigo-demo\necho {version} > %{{buildroot}}/{INSTALLED}\n%files\n/{INSTALLED}\n\
         %package -n vigo-anchor\nSummary: stays\n%description -n vigo-anchor\nstays\n%files -n vigo-anchor\n"
    );
    put(&spec, &text);
    let top = repository.with_file_name("build");
    run(Command::new("rpmbuild")
        .args(["-bb", "--quiet", "--define"])
        .arg(format!("_topdir {}", top.display()))
        .arg("--define")
        .arg(format!("_rpmdir {}", repository.display()))
        .arg(&spec));
    run(Command::new("createrepo_c").arg("-q").arg(repository));
}

#[test]
fn pacman_installs_upgrades_and_removes() {
    let Some(site) = Site::new() else { return };
    let repository = site.repository();
    let conf =
        format!("[options]\nArchitecture = auto\nSigLevel = Never\n[demo]\nServer = file://{}\n", repository.display());
    site.write("/etc/pacman.conf", &conf);
    fs::create_dir_all(site.envoy.path("/var/lib/pacman/local")).expect("a folder");
    fs::create_dir_all(site.envoy.path("/var/cache/pacman/pkg")).expect("a folder");
    pacman(&repository, "1.0");
    check(&site, "pacman", "-1", || pacman(&repository, "2.0"), false);
}

/// Builds a package and a repository that has only this one.
fn pacman(repository: &Path, version: &str) {
    let tree = repository.join(format!("tree-{version}"));
    let name = format!("vigo-demo-{version}-1-any.pkg.tar.gz");
    put(
        &tree.join(".PKGINFO"),
        &format!("pkgname = vigo-demo\npkgbase = vigo-demo\npkgver = {version}-1\narch = any\nsize = 4\n"),
    );
    put(&tree.join(INSTALLED), version);
    run(Command::new("tar")
        .args(["--owner=0", "--group=0", "-czf"])
        .arg(repository.join(&name))
        .arg("-C")
        .arg(&tree)
        .args([".PKGINFO", "usr"]));
    let bytes = fs::read(repository.join(&name)).expect("it was built");
    let entry = format!("vigo-demo-{version}-1");
    let desc = format!(
        "%FILENAME%\n{name}\n\n%NAME%\nvigo-demo\n\n%VERSION%\n{version}-1\n\n%CSIZE%\n{}\n\n%ISIZE%\n4\n\n%SHA256SUM%\n{}\n\n%ARCH%\nany\n",
        bytes.len(),
        sha256(&[&bytes])
    );
    let lists = repository.join(format!("lists-{version}"));
    put(&lists.join(&entry).join("desc"), &desc);
    run(Command::new("tar").arg("-czf").arg(repository.join("demo.db")).arg("-C").arg(&lists).arg(&entry));
    // pacman compares times by the second.
    let age = std::time::Duration::from_secs(if version == "1.0" { 60 } else { 0 });
    let list = fs::File::options().write(true).open(repository.join("demo.db")).expect("it was built");
    let built = list.metadata().and_then(|meta| meta.modified()).expect("a time");
    list.set_modified(built - age).expect("a time is set");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}
