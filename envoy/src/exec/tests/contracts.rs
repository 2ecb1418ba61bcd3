//! Types that keep a file in a place of their own, and types that call a tool, put through the cases that each of them has to
//! pass.

use std::fs;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed};

use super::placed::{self, Placed};
use super::sandbox::{Params, Sandbox, text};
use super::tooled::{self, Tooled};
use super::{accounts, container, fetched, firewall, packages, replace, repository, services, system};

fn named(name: &'static str, value: &str, more: &[(&'static str, Value)]) -> Params {
    [(name, text(value))].into_iter().chain(more.iter().cloned()).collect()
}

fn gone(name: &'static str, value: &str) -> Option<Params> {
    Some(named(name, value, &[("state", text("absent"))]))
}

fn has_line(sandbox: &Sandbox, path: &str, wanted: &str) -> bool {
    fs::read(sandbox.at(path)).is_ok_and(|text| String::from_utf8_lossy(&text).lines().any(|line| line == wanted))
}

fn stopped() -> Sandbox {
    let mut sandbox = system::live();
    sandbox.live = false;
    sandbox
}

#[test]
fn cron_keeps_its_file() {
    placed::check(&Placed {
        kind: "cron",
        host: system::live,
        params: system::job(&[]),
        absent: gone("job", "nightly"),
        file: "/etc/cron.d/nightly",
        stale: "* * * * * root evil\n",
        makes: true,
        holds: |sandbox| fs::read(sandbox.at("/etc/cron.d/nightly")).is_ok_and(|text| text.ends_with(b"'a b'\n")),
    });
}

#[test]
fn systemd_timer_keeps_its_units() {
    placed::check(&Placed {
        kind: "systemd_timer",
        host: stopped,
        params: system::timer(&[("every", text("10m"))]),
        absent: gone("unit", "app-cleanup"),
        file: "/etc/systemd/system/app-cleanup.timer",
        stale: "[Timer]\nOnCalendar=daily\n",
        makes: true,
        holds: |sandbox| {
            fs::read_to_string(sandbox.at("/etc/systemd/system/app-cleanup.timer"))
                .is_ok_and(|text| text.contains("OnUnitActiveSec=10m") && !text.contains("daily"))
        },
    });
}

#[test]
fn kernel_module_keeps_its_file() {
    placed::check(&Placed {
        kind: "kernel_module",
        host: stopped,
        params: named("module", "br_netfilter", &[]),
        absent: gone("module", "br_netfilter"),
        file: "/etc/modules-load.d/br_netfilter.conf",
        stale: "other\n",
        makes: true,
        holds: |sandbox| {
            fs::read(sandbox.at("/etc/modules-load.d/br_netfilter.conf")).is_ok_and(|text| text == b"br_netfilter\n")
        },
    });
}

#[test]
fn hostname_keeps_its_file() {
    placed::check(&Placed {
        kind: "hostname",
        host: system::live,
        params: named("hostname", "web-1.example", &[]),
        absent: None,
        file: "/etc/hostname",
        stale: "other\n",
        makes: true,
        holds: |sandbox| fs::read(sandbox.at("/etc/hostname")).is_ok_and(|text| text == b"web-1.example\n"),
    });
}

#[test]
fn timezone_keeps_its_link() {
    placed::check(&Placed {
        kind: "timezone",
        host: || {
            let sandbox = Sandbox::new();
            sandbox.write("/usr/share/zoneinfo/Etc/UTC", "TZif");
            fs::create_dir(sandbox.at("/etc")).unwrap();
            sandbox
        },
        params: named("zone", "Etc/UTC", &[]),
        absent: None,
        file: "/etc/localtime",
        stale: "TZif of somewhere else",
        makes: true,
        holds: |sandbox| fs::read_link(sandbox.at("/etc/localtime")).is_ok_and(|to| to.ends_with("zoneinfo/Etc/UTC")),
    });
}

#[test]
fn mount_keeps_its_line() {
    placed::check(&Placed {
        kind: "mount",
        host: || {
            let sandbox = stopped();
            fs::create_dir(sandbox.at("/scratch")).unwrap();
            sandbox
        },
        params: system::scratch(&[("state", text("present"))]),
        absent: gone("target_path", "/scratch"),
        file: "/etc/fstab",
        stale: "/dev/sda1 / ext4 defaults 0 1\n",
        makes: true,
        holds: |sandbox| has_line(sandbox, "/etc/fstab", "tmpfs /scratch tmpfs defaults 0 0"),
    });
}

#[test]
fn sysctl_keeps_its_line() {
    placed::check(&Placed {
        kind: "sysctl",
        host: system::live,
        params: named("key", "net.ipv4.ip_forward", &[("value", Value::Int(1))]),
        absent: gone("key", "net.ipv4.ip_forward"),
        file: "/etc/sysctl.d/99-vigo.conf",
        stale: "net.ipv4.ip_forward=0\n",
        makes: true,
        holds: |sandbox| {
            fs::read(sandbox.at("/etc/sysctl.d/99-vigo.conf")).is_ok_and(|text| {
                let text = String::from_utf8_lossy(&text).replace(' ', "");
                text.lines().any(|line| line == "net.ipv4.ip_forward=1")
            })
        },
    });
}

#[test]
fn limits_keeps_its_line() {
    placed::check(&Placed {
        kind: "limits",
        host: system::live,
        params: named("domain", "ada", &[("item", text("nofile")), ("value", Value::Int(9))]),
        absent: Some(named("domain", "ada", &[("item", text("nofile")), ("state", text("absent"))])),
        file: "/etc/security/limits.d/99-vigo.conf",
        stale: "ada - nofile 1\n",
        makes: true,
        holds: |sandbox| has_line(sandbox, "/etc/security/limits.d/99-vigo.conf", "ada - nofile 9"),
    });
}

#[test]
fn repository_keeps_its_file() {
    placed::check(&Placed {
        kind: "repository",
        host: repository::host,
        params: repository::repository("apt", &[]),
        absent: Some(named("repository", "demo", &[("manager", text("apt")), ("state", text("absent"))])),
        file: "/etc/apt/sources.list.d/demo.sources",
        stale: "Types: deb\nURIs: https://evil\n",
        makes: true,
        holds: |sandbox| {
            fs::read_to_string(sandbox.at("/etc/apt/sources.list.d/demo.sources"))
                .is_ok_and(|text| text.contains("packages.example.com") && !text.contains("evil"))
        },
    });
}

#[test]
fn authorized_key_keeps_its_line() {
    placed::check(&Placed {
        kind: "authorized_key",
        host: accounts::accounts,
        params: accounts::keys(&[]),
        absent: Some(accounts::keys(&[("state", text("absent"))])),
        file: accounts::FILE,
        stale: "# keys of others\n",
        makes: true,
        holds: |sandbox| has_line(sandbox, accounts::FILE, &format!("{} ada@laptop", accounts::A)),
    });
}

#[test]
fn replace_keeps_what_it_replaced() {
    placed::check(&Placed {
        kind: "replace",
        host: Sandbox::new,
        params: replace::one_to_two(),
        absent: None,
        file: "/d/x",
        stale: "port=1\n",
        makes: false,
        holds: |sandbox| fs::read(sandbox.at("/d/x")).is_ok_and(|text| text == b"port=2\n"),
    });
}

#[test]
fn nftables_may_be_broken() {
    tooled::check(&Tooled {
        kind: "firewall",
        host: || {
            let mut sandbox = system::live();
            sandbox.fake_tool("unshare", "echo 'table inet vigo {'; echo '}'");
            sandbox
        },
        params: |_| firewall::rules(&["allow 22/tcp"], &[]),
        tool: "nft",
        script: "case \"$*\" in *list*) echo 'Error: No such file or directory' >&2; exit 1;; *) BEHAVE;; esac",
        lied: Failed,
    });
}

#[test]
fn ufw_may_be_broken() {
    tooled::check(&Tooled {
        kind: "firewall",
        host: system::live,
        params: |_| firewall::rules(&["allow 22/tcp"], &[("backend", text("ufw"))]),
        tool: "ufw",
        script: "case \"$*\" in 'show added') echo Added;; 'status verbose') echo 'Status: inactive';; *) BEHAVE;; esac",
        lied: Failed,
    });
}

#[test]
fn apt_may_be_broken() {
    tooled::check(&Tooled {
        kind: "package",
        host: packages::debian,
        params: |_| packages::package(&["nginx"], &[]),
        tool: "apt-get",
        script: "BEHAVE",
        lied: Failed,
    });
}

#[test]
fn systemd_may_be_broken() {
    tooled::check(&Tooled {
        kind: "service",
        host: services::systemd,
        params: |_| services::running(),
        tool: "systemctl",
        script: "case $1 in show) echo LoadState=loaded; echo ActiveState=inactive;; is-enabled) exit 1;; *) BEHAVE;; esac",
        lied: Failed,
    });
}

#[test]
fn systemd_may_be_broken_when_a_timer_is_to_start() {
    tooled::check(&Tooled {
        kind: "systemd_timer",
        host: system::live,
        params: |_| system::timer(&[("every", text("10m"))]),
        tool: "systemctl",
        script: "case $1 in show) echo ActiveState=inactive;; *) BEHAVE;; esac",
        lied: Failed,
    });
}

#[test]
fn modprobe_may_be_broken() {
    tooled::check(&Tooled {
        kind: "kernel_module",
        host: system::live,
        params: |_| named("module", "br_netfilter", &[]),
        tool: "modprobe",
        script: "BEHAVE",
        lied: Failed,
    });
}

#[test]
fn mount_itself_may_be_broken() {
    tooled::check(&Tooled {
        kind: "mount",
        host: system::mounts,
        params: |_| system::scratch(&[]),
        tool: "mount",
        script: "BEHAVE",
        lied: Failed,
    });
}

#[test]
fn the_manager_of_a_file_package_may_be_broken() {
    tooled::check(&Tooled {
        kind: "nonrepo_package",
        host: fetched::sandbox,
        params: |sandbox| fetched::from_url(sandbox, "demo 1.0\n", &[]),
        tool: "apt-get",
        script: "BEHAVE",
        lied: Failed,
    });
}

#[test]
fn tar_may_be_broken() {
    tooled::check(&Tooled {
        kind: "source_package",
        host: fetched::sandbox,
        params: |sandbox| fetched::archive(sandbox, &["true"]),
        tool: "tar",
        script: "BEHAVE",
        lied: Failed,
    });
}

#[test]
fn rpm_may_be_broken_when_it_is_told_of_a_key() {
    tooled::check(&Tooled {
        kind: "repository",
        host: repository::host,
        params: |_| repository::repository("zypper", &[("key", text(repository::KEY))]),
        tool: "rpm",
        script: "BEHAVE",
        // What it knows of keys is in a database of its own: the files are what can be compared.
        lied: Changed,
    });
}

#[test]
fn an_engine_may_be_broken() {
    tooled::check(&Tooled {
        kind: "container",
        host: container::engine,
        params: |_| container::asked(&[]),
        tool: "podman",
        script: "case $1 in container|image) echo 'Error: no such container: web' >&2; exit 1;; *) BEHAVE;; esac",
        lied: Failed,
    });
}

#[test]
fn git_itself_may_be_broken() {
    tooled::check(&Tooled {
        kind: "git",
        host: Sandbox::new,
        params: |_| named("target_path", "/d/app", &[("repository", text("https://example.com/app"))]),
        tool: "git",
        script: "case \"$*\" in *ls-remote*) printf '0123456789012345678901234567890123456789\\tHEAD\\n';; *) BEHAVE;; esac",
        lied: Failed,
    });
}

#[test]
fn addgroup_may_be_broken() {
    tooled::check(&Tooled {
        kind: "group",
        host: accounts::busybox,
        params: |_| named("groupname", "staff", &[]),
        tool: "addgroup",
        script: "BEHAVE",
        lied: Failed,
    });
}

#[test]
fn adduser_may_be_broken() {
    tooled::check(&Tooled {
        kind: "user",
        host: accounts::busybox,
        params: |_| named("username", "bob", &[]),
        tool: "adduser",
        script: "BEHAVE",
        lied: Failed,
    });
}
