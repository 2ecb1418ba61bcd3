//! Three hosts in directories, a host that is not there, and the one that the test runs on.

use std::path::PathBuf;

use common::time::{Mono, Wall};
use serde_json::json;

use super::*;

fn facts() -> Facts {
    let now = Now { mono: Mono(5), wall: Wall::parse("2027-03-04T05:06:07Z").unwrap() };
    Facts { now, serial: Some(7), sysroot: None }
}

fn host(name: &str) -> Trees {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/traits").join(name);
    let (trees, warnings) = gather(&Root::fixture(&path), Which::All, &facts());
    assert!(warnings.is_empty(), "{warnings:?}");
    trees
}

/// The value at a path such as `hardware.cpu.count`.
fn at<'t>(trees: &'t Trees, path: &str) -> &'t Value {
    let mut parts = path.split('.');
    let tree = trees.get(parts.next().unwrap()).unwrap_or_else(|| panic!("no tree for {path}"));
    parts.fold(tree, |value, part| value.get(part).unwrap_or_else(|| panic!("no {part} of {path} in {value}")))
}

fn check(trees: &Trees, expected: &[(&str, Value)]) {
    for (path, value) in expected {
        assert_eq!(at(trees, path), value, "{path}");
    }
}

#[test]
fn a_debian_guest_is_described() {
    let trees = host("debian");
    check(
        &trees,
        &[
            ("os.distro", json!("debian")),
            ("os.version", json!("12")),
            ("os.codename", json!("bookworm")),
            ("os.family", json!("debian")),
            ("os.arch", json!("x86_64")),
            ("os.kernel_release", json!("6.1.0-28-amd64")),
            ("os.init", json!("systemd")),
            ("os.container", json!(null)),
            ("hardware.cpu.count", json!(4)),
            ("hardware.cpu.cores", json!(4)),
            ("hardware.cpu.sockets", json!(2)),
            ("hardware.cpu.model", json!("Intel Xeon Processor (Skylake)")),
            ("hardware.memory_bytes", json!(4_025_892u64 * 1_024)),
            ("hardware.virtualization", json!("kvm")),
            ("hardware.dmi.vendor", json!("QEMU")),
            ("hardware.dmi.serial", json!(null)),
            ("network.hostname", json!("web-1")),
            ("network.fqdn", json!("web-1.prod.example.com")),
            ("network.domain", json!("prod.example.com")),
            ("network.address", json!("10.1.2.3")),
            ("network.addresses", json!(["10.1.2.3", "fd00:1::3", "192.168.7.1"])),
            ("network.ipv6", json!(["fd00:1::3"])),
            ("network.macs", json!(["52:54:00:12:34:56", "52:54:00:ab:cd:ef"])),
            ("network.gateway_interface", json!("ens3")),
            ("network.gateway6", json!("fd00:1::1")),
            ("network.nameservers", json!(["10.1.2.53", "fd00:1::53"])),
            ("network.interfaces.ens4.mtu", json!(9_000)),
            ("memory.available_bytes", json!(2_801_220u64 * 1_024)),
            ("load.fifteen", json!(0.59)),
            ("load.processes", json!(602)),
            ("uptime.seconds", json!(350_735)),
            ("uptime.booted_at", json!("2027-02-28T03:40:00.000Z")),
            ("time.timezone", json!("Europe/Berlin")),
            ("time.hour", json!(5)),
            ("vigo.serial", json!(7)),
        ],
    );
    let disks = at(&trees, "hardware.disks").as_array().unwrap();
    let names: Vec<&Value> = disks.iter().map(|disk| &disk["name"]).collect();
    assert_eq!(names, ["vda", "vdb"]);
    assert_eq!((&disks[0]["bytes"], &disks[1]["model"]), (&json!(21_474_836_480u64), &json!("Virtual Disk")));
    assert_eq!((&disks[0]["rotational"], &disks[1]["rotational"]), (&json!(true), &json!(false)));
    // Written as the kernel of this architecture would: the fixture is from a little-endian one.
    if cfg!(target_endian = "little") {
        check(&trees, &[("network.gateway", json!("10.1.2.1"))]);
    }
}

#[test]
fn mounts_are_those_with_content_of_their_own() {
    let trees = host("debian");
    let mounts = trees["mounts"].as_object().unwrap();
    assert_eq!(mounts.keys().collect::<Vec<_>>(), ["/", "/boot/efi", "/mnt/nas", "/srv/my data"]);
    assert_eq!(mounts["/"]["bytes"], json!(21_003_583_488u64));
    assert_eq!(mounts["/srv/my data"]["bytes"], json!(1_073_741_824));
    // A file server is not asked: it may be dead.
    assert_eq!(mounts["/mnt/nas"]["bytes"], Value::Null);
    assert_eq!((&mounts["/boot/efi"]["read_only"], &mounts["/"]["read_only"]), (&json!(true), &json!(false)));
}

#[test]
fn packages_services_and_users_of_debian_are_listed() {
    let trees = host("debian");
    assert_eq!(trees["packages"], json!({"nginx": "1.22.1-9+deb12u1", "libssl3": "3.0.15-1~deb12u1"}));
    let service = |enabled, running, masked| json!({"enabled": enabled, "running": running, "masked": masked});
    assert_eq!(
        trees["services"],
        json!({
            "nginx": service(true, false, false),
            "ssh": service(true, true, false),
            "cron": service(false, false, false),
            "getty@tty1": service(true, true, false),
            "plymouth": service(false, false, true),
        })
    );
    assert_eq!(
        trees["users"],
        json!({
            "root": {"uid": 0, "gid": 0, "home": "/root", "shell": "/bin/bash", "groups": ["root"]},
            "www-data":
                {"uid": 33, "gid": 33, "home": "/var/www", "shell": "/usr/sbin/nologin", "groups": ["www-data"]},
            "deploy": {
                "uid": 1000, "gid": 1000, "home": "/home/deploy", "shell": "/bin/bash",
                "groups": ["deploy", "sudo", "www-data"],
            },
        })
    );
}

/// One collector on a fixture that is no whole host.
fn part(name: &str, collect: Collect) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/traits").join(name);
    collect(&Root::fixture(&path), &facts()).unwrap()
}

#[test]
fn every_package_manager_is_understood() {
    let expected = [
        ("router", json!({"musl": "1.2.5-r0", "dropbear": "2024.85-r0"})),
        ("container", json!({"bash": "5.1.8-9.el9", "openssl": "1:3.2.2-6.el9_5"})),
        ("openwrt", json!({"dropbear": "2022.82-5"})),
        ("arch", json!({"linux": "6.9.7.arch1-1", "xorg-server-common": "21.1.13-1"})),
        ("nothing", json!({})),
    ];
    for (name, packages) in expected {
        assert_eq!(part(name, packages::collect), packages, "{name}");
    }
}

#[test]
fn services_of_other_inits_are_listed() {
    let service = |enabled: bool, running| json!({"enabled": enabled, "running": running});
    assert_eq!(
        part("openrc", services::collect),
        json!({"dropbear": service(true, Some(false)), "crond": service(false, Some(true))})
    );
    assert_eq!(
        part("openwrt", services::collect),
        json!({
            "boot": service(true, None),
            "dnsmasq": service(false, Some(false)),
            "dropbear": service(true, Some(true)),
        })
    );
}

#[test]
fn services_of_busybox_are_scripts_with_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let scripts = dir.path().join("etc/init.d");
    std::fs::create_dir_all(&scripts).unwrap();
    for (name, mode) in [("S50crond", 0o755), ("S60telnetd", 0o644), ("rcS", 0o755)] {
        std::fs::write(scripts.join(name), "").unwrap();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(scripts.join(name), permissions).unwrap();
    }
    let tree = services::collect(&Root::fixture(dir.path()), &facts()).unwrap();
    let service = |enabled: bool| json!({"enabled": enabled, "running": null});
    assert_eq!(tree, json!({"crond": service(true), "telnetd": service(false)}));
}

#[test]
fn files_of_any_size_are_read_and_trees_of_any_size_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let status = dir.path().join("var/lib/dpkg");
    std::fs::create_dir_all(&status).unwrap();
    let stanza = |n: u32| {
        let noise = "x".repeat(300);
        format!("Package: package-{n:05}\nStatus: install ok installed\nDescription: {noise}\nVersion: 1.{n}-1\n\n")
    };
    std::fs::write(status.join("status"), (0..20_000).map(stanza).collect::<String>()).unwrap();
    let tree = packages::collect(&Root::fixture(dir.path()), &facts()).unwrap();
    assert_eq!((&tree["_truncated"], &tree["package-00001"]), (&json!(true), &json!("1.1-1")));
    assert!(tree.to_string().len() <= common::limits::TRAIT_COLLECTED_BYTES_MAX + 64);
    // One line without an end, and bytes that are no text.
    std::fs::write(status.join("status"), vec![0xff; 3 << 20]).unwrap();
    assert_eq!(packages::collect(&Root::fixture(dir.path()), &facts()), Ok(json!({})));
}

#[test]
fn a_router_with_busybox_is_described() {
    check(
        &host("router"),
        &[
            ("os.distro", json!("alpine")),
            ("os.family", json!("alpine")),
            ("os.version", json!("3.20.3")),
            ("os.arch", json!("armv7l")),
            ("os.init", json!("busybox")),
            ("os.machine_id", json!(null)),
            ("hardware.cpu.count", json!(2)),
            ("hardware.cpu.sockets", json!(null)),
            ("hardware.cpu.vendor", json!("0x56")),
            ("hardware.dmi.product", json!("Linksys WRT1200AC")),
            ("hardware.swap_bytes", json!(null)),
            ("hardware.virtualization", json!(null)),
            ("network.hostname", json!("edge-7.site.example")),
            ("network.fqdn", json!("edge-7.site.example")),
            ("network.addresses", json!(["192.168.1.1", "203.0.113.9"])),
            ("network.gateway6", json!(null)),
            ("memory.available_bytes", json!(40_000 * 1_024)),
            ("time.timezone", json!("CET-1CEST,M3.5.0,M10.5.0/3")),
            ("uptime.boot_id", json!(null)),
        ],
    );
    let mounts = host("router").remove("mounts").unwrap();
    assert_eq!(mounts["/"]["fstype"], json!("squashfs"));
}

#[test]
fn a_container_is_recognised() {
    check(
        &host("container"),
        &[
            ("os.container", json!("docker")),
            ("os.distro", json!("rocky")),
            ("os.family", json!("redhat")),
            ("os.like", json!(["rhel", "centos", "fedora"])),
            ("os.machine_id", json!(null)),
            ("os.init", json!(null)),
            ("network.fqdn", json!(null)),
            ("network.address", json!("172.17.0.2")),
            ("network.gateway", json!(null)),
            ("hardware.disks", json!([])),
            ("hardware.swap_bytes", json!(0)),
            ("load.one", json!(null)),
        ],
    );
}

#[test]
fn a_host_that_is_not_there_gives_every_key_and_warnings_with_names() {
    let (trees, warnings) = gather(&Root::fixture(std::path::Path::new("/nonexistent")), Which::All, &facts());
    assert!(warnings.iter().any(|warning| warning == "trait collector `hardware` failed: cannot read /proc/cpuinfo"));
    assert_eq!(warnings.len(), 7, "{warnings:?}");
    check(&trees, &[("hardware.cpu.count", json!(null)), ("os.arch", json!(null)), ("time.year", json!(2027))]);
    assert_eq!(trees.len(), TREES.len());
}

/// Every path that a tree has, with `*` where the table has one.
fn assert_known(tree: &Tree, value: &Value, path: &str) {
    let any = path.is_empty() && tree.keys == ["*"];
    if let Some(map) = value.as_object().filter(|map| any || !map.is_empty()) {
        for (key, inner) in map {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let open = tree.keys.iter().any(|known| *known == "*" || known.strip_suffix(".*") == Some(&below));
            if !open {
                assert_known(tree, inner, &below);
            }
        }
    } else {
        let known = |key: &&str| *key == path || key.strip_suffix(".*") == Some(path);
        assert!(tree.keys.iter().any(known), "{}.{path} is not in the table", tree.name);
    }
}

#[test]
fn trees_have_the_keys_of_the_table_and_no_others() {
    for name in ["debian", "router", "container"] {
        let trees = host(name);
        for tree in &TREES {
            assert_known(tree, &trees[tree.name], "");
            for key in tree.keys.iter().filter(|key| **key != "*") {
                at(&trees, &format!("{}.{}", tree.name, key.trim_end_matches(".*")));
            }
        }
    }
}

#[test]
fn volatile_trees_can_be_gathered_alone() {
    let (trees, _) = gather(&Root::host(), Which::Volatile, &facts());
    assert_eq!(trees.keys().collect::<Vec<_>>(), ["load", "memory", "time", "uptime", "vigo"]);
}

#[test]
fn this_host_is_described_without_a_warning() {
    let (trees, warnings) = gather(&Root::host(), Which::All, &facts());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(at(&trees, "hardware.memory_bytes").as_u64().is_some_and(|bytes| bytes > 0));
    assert!(at(&trees, "os.arch").is_string() && at(&trees, "hardware.cpu.count").as_u64().is_some_and(|n| n > 0));
}

#[test]
fn quoted_values_of_os_release_are_unquoted_by_rule() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("etc")).unwrap();
    std::fs::create_dir_all(dir.path().join(".calls")).unwrap();
    std::fs::write(dir.path().join(".calls/uname"), "6 m\n").unwrap();
    std::fs::write(dir.path().join("etc/os-release"), "ID='x'\nPRETTY_NAME=\"a \\\"b\\\" \\$c\"\nVERSION_ID=\"\"\n")
        .unwrap();
    let tree = os::collect(&Root::fixture(dir.path()), &facts()).unwrap();
    assert_eq!((&tree["name"], &tree["version"]), (&json!("a \"b\" $c"), &Value::Null));
    assert_eq!((&tree["distro"], &tree["family"]), (&json!("x"), &json!("x")));
}
