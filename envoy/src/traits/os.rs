//! `os`: distribution, kernel, architecture, container, init system.

use serde_json::{Value, json};

use super::{Facts, Root};

/// Which families a distribution may belong to, by the words of `ID` and `ID_LIKE`.
const FAMILIES: [(&str, &[&str]); 6] = [
    ("debian", &["debian", "ubuntu", "raspbian", "devuan"]),
    ("redhat", &["rhel", "fedora", "centos", "rocky", "almalinux", "amzn", "ol"]),
    ("suse", &["suse", "opensuse", "sles"]),
    ("arch", &["arch"]),
    ("alpine", &["alpine"]),
    ("openwrt", &["openwrt", "lede"]),
];

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    let release = root.read("/etc/os-release").or_else(|| root.read("/usr/lib/os-release")).unwrap_or_default();
    let field = |name: &str| release.lines().find_map(|line| unquote(line.strip_prefix(name)?.strip_prefix('=')?));
    let distro = field("ID");
    let like: Vec<String> =
        field("ID_LIKE").map(|text| text.split_whitespace().map(str::to_string).collect()).unwrap_or_default();
    let words = || distro.iter().chain(&like).map(String::as_str);
    let family = words().find_map(|word| {
        FAMILIES
            .iter()
            .find(|(_, members)| members.iter().any(|member| word.starts_with(member)))
            .map(|(name, _)| *name)
    });
    let (kernel_release, machine) = root.uname().ok_or("uname(2) fails")?;
    Ok(json!({
        "name": field("PRETTY_NAME"),
        "distro": distro.clone(),
        "version": field("VERSION_ID").or_else(|| root.line("/etc/debian_version").filter(|_| distro.as_deref() == Some("debian"))),
        "codename": field("VERSION_CODENAME"),
        "family": family.map(str::to_string).or(distro),
        "like": like,
        "kernel": "Linux",
        "kernel_release": kernel_release,
        "arch": machine,
        "container": container(root),
        "init": init(root),
        "machine_id": root.line("/etc/machine-id").filter(|id| id != "uninitialized"),
    }))
}

/// A value of os-release(5): shell quoting without expansion.
fn unquote(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(text);
    let mut out = String::new();
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        out.push(if c == '\\' { characters.next()? } else { c });
    }
    (!out.is_empty()).then_some(out)
}

/// Which container this is, or none.
fn container(root: &Root) -> Option<String> {
    if root.has("/.dockerenv") {
        return Some("docker".into());
    }
    if root.has("/run/.containerenv") {
        return Some("podman".into());
    }
    // systemd and LXC tell their children by the environment of process 1, which only root may read; systemd copies it.
    let environment = root.read("/proc/1/environ").unwrap_or_default();
    let told = environment.split('\0').find_map(|entry| entry.strip_prefix("container=").map(str::to_string));
    let told = told.or_else(|| root.line("/run/systemd/container")).filter(|name| !name.is_empty());
    told.or_else(|| {
        let groups = root.read("/proc/1/cgroup").unwrap_or_default();
        let marks = [("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "lxc")];
        marks.iter().find(|(mark, _)| groups.contains(mark)).map(|(_, name)| name.to_string())
    })
}

/// Which init system runs, or none that is known.
fn init(root: &Root) -> Option<&'static str> {
    let runs = |name: &str| root.line("/proc/1/comm").as_deref() == Some(name);
    let target = root.link("/sbin/init").unwrap_or_default();
    if root.has("/run/systemd/system") {
        Some("systemd")
    } else if root.has("/run/openrc") {
        Some("openrc")
    } else if runs("procd") || root.has("/sbin/procd") {
        Some("procd")
    } else if runs("runit") {
        Some("runit")
    } else if runs("s6-svscan") {
        Some("s6")
    } else if runs("init") && target.contains("busybox") {
        Some("busybox")
    } else if runs("init") && root.has("/etc/inittab") {
        Some("sysv")
    } else {
        None
    }
}
