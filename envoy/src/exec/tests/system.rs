//! Cases of the group System. Kernel and services are played: `/proc` is a directory of files, tools are scripts.

use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Mounted, Params, Sandbox, mode, text};
use super::suite::{Subject, check_all_but_default, refused, settles};

/// A running system with the directories of one.
pub fn live() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.live = true;
    for folder in ["/etc/security", "/etc/systemd/system", "/etc/cron.d", "/lib/modules/6.1", "/sys/module"] {
        fs::create_dir_all(sandbox.at(folder)).unwrap();
    }
    sandbox.write("/proc/sys/kernel/hostname", "old\n");
    sandbox.write("/proc/sys/kernel/osrelease", "6.1\n");
    sandbox.write("/proc/sys/net/ipv4/ip_forward", "0\n");
    sandbox.write("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
    sandbox.write("/proc/modules", "loop 1 0 - Live 0x0\n");
    sandbox.write("/proc/self/mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    sandbox
}

fn lines(x: &std::path::Path) -> String {
    fs::read_to_string(x).unwrap()
}

#[test]
fn sysctl_keeps_the_contract() {
    check_all_but_default(&Subject {
        kind: "sysctl",
        params: vec![("key", text("net.ipv4.ip_forward")), ("value", Value::Int(1))],
        holds: |x| lines(x).replace(' ', "").lines().any(|line| line == "net.ipv4.ip_forward=1"),
        wrong: vec![
            ("empty", |x| fs::write(x, "").unwrap()),
            ("other value", |x| fs::write(x, "# c\nnet.ipv4.ip_forward=0\n").unwrap()),
            ("other key", |x| fs::write(x, "vm.swappiness = 1").unwrap()),
        ],
        refused: vec![
            ("twice", |x| fs::write(x, "net.ipv4.ip_forward=0\nnet.ipv4.ip_forward=1\n").unwrap(), "more than once"),
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            ("link", |x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
            ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        ],
        absent: vec![("key", text("net.ipv4.ip_forward"))],
    });
}

#[test]
fn sysctl_holds_now_and_after_the_next_start() {
    let sandbox = live();
    let forward = vec![("key", text("net.ipv4.ip_forward")), ("value", Value::Int(1))];
    settles(&sandbox, "sysctl", &forward, "now: 0 instead of 1");
    assert_eq!(sandbox.read("/etc/sysctl.d/99-vigo.conf"), "net.ipv4.ip_forward = 1\n");
    assert_eq!(sandbox.read("/proc/sys/net/ipv4/ip_forward"), "1\n");
    fs::write(sandbox.at("/proc/sys/net/ipv4/ip_forward"), "0\n").unwrap();
    assert_eq!(sandbox.expect("sysctl", &forward, Changed).message, "changed: now: 0 instead of 1");
    let range = vec![("key", text("net/ipv4/ip_local_port_range")), ("value", text("32768 60999"))];
    settles(&sandbox, "sysctl", &range, "/etc/sysctl.d/99-vigo.conf");
    sandbox.expect("sysctl", &vec![("key", text("net.ipv4.ip_forward")), ("state", text("absent"))], Changed);
    assert_eq!(sandbox.read("/proc/sys/net/ipv4/ip_forward"), "1\n");
    let missing = vec![("key", text("net.ipv4.nope")), ("value", Value::Int(1))];
    let report = sandbox.expect("sysctl", &missing, Failed);
    assert!(report.message.contains("this kernel has no setting net.ipv4.nope"), "{}", report.message);
    refused(
        &sandbox,
        "sysctl",
        &[
            (vec![("key", text("net.ipv4.ip_forward"))], "needs the parameter `value`"),
            (vec![("key", text("a/../../etc/passwd")), ("value", text("x"))], "name of a kernel setting"),
            (vec![("key", text("net.ipv4.ip_forward")), ("value", text("1\nkernel.x=1"))], "one line"),
        ],
    );
}

#[test]
fn hostname_holds_now_and_after_the_next_start() {
    let sandbox = live();
    let asked = vec![("hostname", text("web-1.example"))];
    settles(&sandbox, "hostname", &asked, "/etc/hostname, now: old instead of web-1.example");
    assert_eq!(sandbox.read("/etc/hostname"), "web-1.example\n");
    assert_eq!(sandbox.read("/proc/sys/kernel/hostname"), "web-1.example\n");
    fs::write(sandbox.at("/etc/hostname"), "web-2\n").unwrap();
    assert_eq!(sandbox.expect("hostname", &asked, Changed).message, "changed: /etc/hostname: content");
    fs::write(sandbox.at("/proc/sys/kernel/hostname"), "x\n").unwrap();
    sandbox.expect("hostname", &asked, Changed);
    refused(
        &sandbox,
        "hostname",
        &[
            (vec![], "needs the parameter `hostname`"),
            (vec![("hostname", text("a b"))], "the name of a host"),
            (vec![("hostname", text("-a"))], "the name of a host"),
            (vec![("hostname", text(&["a"; 40].join(".")))], "Linux takes 64"),
        ],
    );
    let mut sandbox = live();
    sandbox.live = false;
    sandbox.expect("hostname", &asked, Changed);
    assert_eq!(sandbox.read("/proc/sys/kernel/hostname"), "old\n");
    fs::remove_file(sandbox.at("/etc/hostname")).unwrap();
    symlink("/etc/passwd", sandbox.at("/etc/hostname")).unwrap();
    assert!(sandbox.expect("hostname", &asked, Failed).message.contains("a symbolic link"));
    fs::remove_file(sandbox.at("/etc/hostname")).unwrap();
    sandbox.protected = vec![sandbox.at("/etc/hostname")];
    assert!(sandbox.expect("hostname", &asked, Failed).message.contains("allow_self"));
    if let Some(disk) = Mounted::tmpfs(&sandbox.at("/etc"), "size=1m") {
        disk.make_read_only();
        sandbox.protected.clear();
        sandbox.expect("hostname", &asked, Blocked);
    }
}

#[test]
fn a_zone_is_a_link_to_a_file_that_exists() {
    let mut sandbox = Sandbox::new();
    sandbox.write("/usr/share/zoneinfo/Europe/Berlin", "TZif");
    sandbox.write("/usr/share/zoneinfo/Etc/UTC", "TZif");
    fs::create_dir(sandbox.at("/etc")).unwrap();
    let berlin = vec![("zone", text("Europe/Berlin"))];
    let utc = vec![("zone", text("Etc/UTC"))];
    let link = |sandbox: &Sandbox| fs::read_link(sandbox.at("/etc/localtime")).unwrap().display().to_string();
    settles(&sandbox, "timezone", &berlin, "/etc/localtime");
    assert_eq!(link(&sandbox), "/usr/share/zoneinfo/Europe/Berlin");
    assert!(!sandbox.at("/etc/timezone").exists());
    sandbox.write("/etc/timezone", "x\n");
    assert_eq!(sandbox.expect("timezone", &berlin, Changed).message, "changed: /etc/timezone: content");
    settles(&sandbox, "timezone", &utc, "/etc/localtime");
    assert_eq!(sandbox.read("/etc/timezone"), "Etc/UTC\n");
    // The other way to write it, and a copy in its place.
    fs::remove_file(sandbox.at("/etc/localtime")).unwrap();
    symlink("../usr/share/zoneinfo/Etc/UTC", sandbox.at("/etc/localtime")).unwrap();
    sandbox.expect("timezone", &utc, Fine);
    fs::remove_file(sandbox.at("/etc/localtime")).unwrap();
    fs::write(sandbox.at("/etc/localtime"), "TZif").unwrap();
    sandbox.expect("timezone", &utc, Changed);
    fs::remove_file(sandbox.at("/etc/timezone")).unwrap();
    sandbox.write("/etc/debian_version", "12\n");
    sandbox.expect("timezone", &utc, Changed);
    assert_eq!(sandbox.read("/etc/timezone"), "Etc/UTC\n");
    refused(
        &sandbox,
        "timezone",
        &[
            (vec![("zone", text("Mars/Olympus"))], "there is no zone /usr/share/zoneinfo/Mars/Olympus"),
            (vec![("zone", text("../../../etc/passwd"))], "name of a time zone"),
            (vec![("zone", text("/etc/passwd"))], "name of a time zone"),
            (vec![], "needs the parameter `zone`"),
        ],
    );
    sandbox.protected = vec![sandbox.at("/etc")];
    assert!(sandbox.expect("timezone", &berlin, Failed).message.contains("allow_self"));
    sandbox.protected.clear();
    fs::remove_file(sandbox.at("/etc/localtime")).unwrap();
    fs::create_dir(sandbox.at("/etc/localtime")).unwrap();
    assert!(sandbox.expect("timezone", &berlin, Failed).message.contains("a directory"));
}

#[test]
fn limits_keeps_the_contract() {
    check_all_but_default(&Subject {
        kind: "limits",
        params: vec![("domain", text("@app")), ("item", text("nofile")), ("value", Value::Int(65_536))],
        holds: |x| lines(x).lines().filter(|line| line.starts_with("@app")).eq(["@app - nofile 65536"]),
        wrong: vec![
            ("empty", |x| fs::write(x, "").unwrap()),
            ("other value", |x| fs::write(x, "# c\n@app - nofile 1\nx - core 0").unwrap()),
            ("twice", |x| fs::write(x, "@app - nofile 65536\n@app - nofile 1\n").unwrap()),
        ],
        refused: vec![
            ("directory", |x| fs::create_dir(x).unwrap(), "a directory"),
            ("link", |x| symlink("/etc/passwd", x).unwrap(), "a symbolic link"),
            ("huge and sparse", |x| fs::File::create(x).unwrap().set_len(1 << 40).unwrap(), "are not managed"),
        ],
        absent: vec![("domain", text("@app")), ("item", text("nofile"))],
    });
    let sandbox = live();
    let asked = vec![
        ("domain", text("ada")),
        ("item", text("nproc")),
        ("limit_type", text("hard")),
        ("value", text("unlimited")),
    ];
    settles(&sandbox, "limits", &asked, "/etc/security/limits.d");
    assert_eq!(sandbox.read("/etc/security/limits.d/99-vigo.conf"), "ada hard nproc unlimited\n");
    let with = |name: &str, value: &str| -> Params {
        asked.iter().map(|(known, old)| (*known, if *known == name { text(value) } else { old.clone() })).collect()
    };
    refused(
        &sandbox,
        "limits",
        &[
            (with("item", "files"), "`item` must be `core` or"),
            (with("value", "lots"), "a number, or `unlimited`"),
            (with("domain", "a b"), "text without blanks"),
            (with("domain", "a\n* - core 0"), "text without blanks"),
            (with("limit_type", "both"), "`soft` or `hard` or `-`"),
        ],
    );
}

#[test]
fn modules_are_loaded_now_and_at_start() {
    let mut sandbox = live();
    sandbox.fake_tool("modprobe", "case $1 in -r) /bin/sed -i \"/^$2 /d\" $R/proc/modules;; *) echo \"$1 1 0 - Live 0x0\" >> $R/proc/modules;; esac");
    let asked = vec![("module", text("br_netfilter")), ("options", text("a=1 b=2"))];
    settles(&sandbox, "kernel_module", &asked, "now: not loaded");
    assert_eq!(sandbox.calls(), "modprobe br_netfilter\n");
    assert_eq!(sandbox.read("/etc/modules-load.d/br_netfilter.conf"), "br_netfilter\n");
    assert_eq!(sandbox.read("/etc/modprobe.d/vigo-br_netfilter.conf"), "options br_netfilter a=1 b=2\n");
    let state = |module: &str, state: &str| vec![("module", text(module)), ("state", text(state))];
    settles(&sandbox, "kernel_module", &state("br_netfilter", "absent"), "remove");
    assert_eq!(sandbox.calls(), "");
    assert!(!sandbox.at("/etc/modules-load.d/br_netfilter.conf").exists());
    settles(&sandbox, "kernel_module", &state("br_netfilter", "blacklisted"), "now: loaded");
    assert_eq!(sandbox.calls(), "modprobe -r br_netfilter\n");
    let written = sandbox.read("/etc/modprobe.d/vigo-br_netfilter.conf");
    assert_eq!(written, "blacklist br_netfilter\ninstall br_netfilter /bin/false\n");
    sandbox.expect("kernel_module", &state("br_netfilter", "present"), Changed);
    assert!(!sandbox.at("/etc/modprobe.d/vigo-br_netfilter.conf").exists());

    sandbox.write("/lib/modules/6.1/modules.builtin", "kernel/drivers/net/dummy-net.ko\nkernel/x/ext4.ko\n");
    sandbox.calls();
    sandbox.expect("kernel_module", &state("dummy_net", "present"), Changed);
    assert_eq!(sandbox.calls(), "");
    let report = sandbox.expect("kernel_module", &state("ext4", "blacklisted"), Failed);
    assert!(report.message.contains("built into this kernel"), "{}", report.message);
    fs::create_dir(sandbox.at("/sys/module/tcp_cubic")).unwrap();
    sandbox.expect("kernel_module", &state("tcp_cubic", "present"), Changed);
    assert_eq!(sandbox.calls(), "");
    sandbox.fake_tool("modprobe", "echo 'modprobe: FATAL: Module nope not found' >&2; exit 1");
    let report = sandbox.expect("kernel_module", &state("nope", "present"), Failed);
    assert!(report.message.contains("FATAL: Module nope not found"), "{}", report.message);
    refused(
        &sandbox,
        "kernel_module",
        &[
            (state("../x", "present"), "name of a kernel module"),
            (state("-r", "present"), "name of a kernel module"),
            (state("a", "loaded"), "`present` or `absent` or `blacklisted`"),
            (vec![("module", text("a")), ("options", text("x\ninstall a /bin/evil"))], "one line"),
        ],
    );
    sandbox.live = false;
    sandbox.expect("kernel_module", &state("other", "present"), Changed);
    assert_eq!(sandbox.calls(), "modprobe nope\n");
}

pub fn job(more: &[(&'static str, Value)]) -> Params {
    [("job", text("nightly")), ("command", text("/usr/bin/report 'a b'"))]
        .into_iter()
        .chain(more.iter().cloned())
        .collect()
}

#[test]
fn jobs_have_files_of_their_own() {
    let mut sandbox = live();
    let asked =
        job(&[("minute", Value::Int(15)), ("hour", text("*/2")), ("weekday", text("mon-fri")), ("user", text("app"))]);
    settles(&sandbox, "cron", &asked, "/etc/cron.d/nightly");
    let expected = "# nightly: written by Vigo, changes are undone\n15 */2 * * mon-fri app /usr/bin/report 'a b'\n";
    assert_eq!(sandbox.read("/etc/cron.d/nightly"), expected);
    assert_eq!(mode(&sandbox.at("/etc/cron.d/nightly")), 0o644);
    let environment = Value::Map([("MAILTO".to_string(), text(""))].into_iter().collect());
    sandbox.expect("cron", &job(&[("special", text("daily")), ("environment", environment)]), Changed);
    assert!(sandbox.read("/etc/cron.d/nightly").ends_with("MAILTO=\"\"\n@daily root /usr/bin/report 'a b'\n"));
    let gone = vec![("job", text("nightly")), ("state", text("absent"))];
    settles(&sandbox, "cron", &gone, "remove");
    let bad_name = Value::Map([("A B".to_string(), text(""))].into_iter().collect());
    refused(
        &sandbox,
        "cron",
        &[
            (vec![("job", text("x"))], "needs the parameter `command`"),
            (vec![("command", text("x"))], "needs the parameter `job`"),
            (job(&[("minute", Value::Int(60))]), "minutes as cron takes them"),
            (job(&[("hour", text("* * * * root evil"))]), "hours as cron takes them"),
            (job(&[("special", text("daily")), ("hour", Value::Int(1))]), "only one of `special` and `hour`"),
            (job(&[("user", text("a b"))]), "a name of at most 32"),
            (job(&[("environment", bad_name)]), "names are letters"),
            (vec![("job", text("a.b")), ("command", text("x"))], "letters, digits, dashes and underscores"),
            (vec![("job", text("a")), ("command", text("x\n* * * * * root evil"))], "one line"),
        ],
    );
    symlink("/etc/passwd", sandbox.at("/etc/cron.d/nightly")).unwrap();
    assert!(sandbox.expect("cron", &job(&[]), Failed).message.contains("a symbolic link"));
    fs::remove_file(sandbox.at("/etc/cron.d/nightly")).unwrap();
    sandbox.protected = vec![sandbox.at("/etc/cron.d")];
    assert!(sandbox.expect("cron", &job(&[]), Failed).message.contains("allow_self"));
}

#[test]
fn jobs_are_marked_lines_where_cron_has_no_directory() {
    let sandbox = Sandbox::new();
    assert!(sandbox.expect("cron", &job(&[]), Failed).message.contains("install cron first"));
    sandbox.expect("cron", &vec![("job", text("x")), ("state", text("absent"))], Fine);
    sandbox.write("/etc/crontabs/root", "0 1 * * * by-hand\n");
    settles(&sandbox, "cron", &job(&[("minute", Value::Int(5))]), "/etc/crontabs/root");
    let expected = "0 1 * * * by-hand\n# BEGIN vigo nightly\n5 * * * * /usr/bin/report 'a b'\n# END vigo nightly\n";
    assert_eq!(sandbox.read("/etc/crontabs/root"), expected);
    assert_eq!(mode(&sandbox.at("/etc/crontabs/root")), 0o600);
    assert_eq!(sandbox.read("/etc/crontabs/cron.update"), "root\n");
    sandbox.expect("cron", &vec![("job", text("nightly")), ("state", text("absent"))], Changed);
    assert_eq!(sandbox.read("/etc/crontabs/root"), "0 1 * * * by-hand\n");
    let report = sandbox.expect("cron", &job(&[("user", text("nobody-here"))]), Failed);
    assert!(report.message.contains("there is no user `nobody-here`"), "{}", report.message);
    let environment = Value::Map([("A".to_string(), text("b"))].into_iter().collect());
    let report = sandbox.expect("cron", &job(&[("environment", environment)]), Failed);
    assert!(report.message.contains("only in /etc/cron.d"), "{}", report.message);
}

pub fn timer(more: &[(&'static str, Value)]) -> Params {
    let base = [("unit", text("app-cleanup")), ("command", text("/usr/bin/app \"$HOME\" 50%"))];
    base.into_iter().chain(more.iter().cloned()).collect()
}

#[test]
fn timers_are_written_enabled_and_started() {
    let mut sandbox = live();
    sandbox.fake_tool(
        "systemctl",
        "case $1 in\nshow) /bin/cat $R/tools/state;;\nrestart) echo ActiveState=active > $R/tools/state;;\n\
         stop) echo ActiveState=inactive > $R/tools/state;;\nesac",
    );
    sandbox.write("/tools/state", "ActiveState=inactive\nNeedDaemonReload=no\n");
    let asked =
        timer(&[("on_calendar", text("*-*-* 04:00")), ("persistent", Value::Bool(true)), ("user", text("app"))]);
    settles(&sandbox, "systemd_timer", &asked, "app-cleanup.timer");
    let calls = sandbox.calls();
    assert!(calls.contains("systemctl daemon-reload\nsystemctl restart app-cleanup.timer\n"), "{calls}");
    let service = sandbox.read("/etc/systemd/system/app-cleanup.service");
    assert!(service.contains("\nExecStart=/bin/sh -c \"/usr/bin/app \\\"$$HOME\\\" 50%%\"\nUser=app\n"), "{service}");
    let unit = sandbox.read("/etc/systemd/system/app-cleanup.timer");
    assert!(unit.contains("OnCalendar=*-*-* 04:00\nPersistent=true\n"), "{unit}");
    let link = fs::read_link(sandbox.at("/etc/systemd/system/timers.target.wants/app-cleanup.timer")).unwrap();
    assert_eq!(link, std::path::Path::new("/etc/systemd/system/app-cleanup.timer"));
    for state in ["ActiveState=inactive\n", "ActiveState=active\nNeedDaemonReload=yes\n"] {
        sandbox.write("/tools/state", state);
        let report = sandbox.expect("systemd_timer", &asked, Changed);
        assert_eq!(report.message, "changed: app-cleanup.timer was not running");
    }
    fs::remove_file(sandbox.at("/etc/systemd/system/timers.target.wants/app-cleanup.timer")).unwrap();
    assert_eq!(sandbox.expect("systemd_timer", &asked, Changed).message, "created: enabled");
    sandbox.calls();
    let gone = vec![("unit", text("app-cleanup")), ("state", text("absent"))];
    settles(&sandbox, "systemd_timer", &gone, "remove");
    let calls = sandbox.calls();
    assert!(calls.contains("stop app-cleanup.timer\nsystemctl daemon-reload\n"), "{calls}");
    assert!(!sandbox.at("/etc/systemd/system/app-cleanup.service").exists());
    sandbox.fake_tool("systemctl", "echo 'Failed to connect to bus' >&2; exit 1");
    let report = sandbox.expect("systemd_timer", &asked, Failed);
    assert!(report.message.contains("Failed to connect to bus"), "{}", report.message);
}

#[test]
fn timers_in_a_sysroot_need_no_systemd() {
    let mut sandbox = live();
    sandbox.live = false;
    settles(&sandbox, "systemd_timer", &timer(&[("every", text("10m"))]), "enabled");
    let unit = sandbox.read("/etc/systemd/system/app-cleanup.timer");
    assert!(unit.contains("OnUnitActiveSec=10m\nOnActiveSec=0\n"), "{unit}");
    refused(
        &sandbox,
        "systemd_timer",
        &[
            (timer(&[]), "needs the parameter `on_calendar or on_boot or every`"),
            (vec![("unit", text("x")), ("every", text("5m"))], "needs the parameter `command`"),
            (timer(&[("every", text("often"))]), "a length of time"),
            (timer(&[("on_calendar", text("daily\nUnit=evil"))]), "one line"),
            (timer(&[("user", text("a\nExecStart=/evil"))]), "a name of at most 32"),
            (vec![("unit", text("../x")), ("command", text("x")), ("every", text("5m"))], "a name of letters"),
            (vec![("unit", text("vigo-envoy")), ("command", text("x")), ("every", text("5m"))], "the agent's own"),
        ],
    );
    sandbox.protected = vec![sandbox.at("/etc/systemd/system/other.timer")];
    let other = vec![("unit", text("other")), ("command", text("x")), ("every", text("5m"))];
    assert!(sandbox.expect("systemd_timer", &other, Failed).message.contains("allow_self"));
}

pub fn scratch(more: &[(&'static str, Value)]) -> Params {
    let base = [("target_path", text("/scratch")), ("source", text("tmpfs")), ("fstype", text("tmpfs"))];
    base.into_iter().chain(more.iter().cloned()).collect()
}

pub fn mounts() -> Sandbox {
    let mut sandbox = live();
    fs::create_dir(sandbox.at("/scratch")).unwrap();
    sandbox.write("/etc/fstab", "# by hand\n/dev/sda1 / ext4 defaults 0 1\n");
    sandbox.fake_tool(
        "mount",
        "for t; do :; done\n[ \"$1\" = -o ] || echo \"30 20 0:9 / $t rw - tmpfs tmpfs rw\" >> $R/proc/self/mountinfo",
    );
    sandbox.fake_tool("umount", "/bin/sed -i \"\\| $1 rw|d\" $R/proc/self/mountinfo");
    sandbox
}

#[test]
fn file_systems_are_in_the_table_and_mounted() {
    let sandbox = mounts();
    settles(&sandbox, "mount", &scratch(&[("options", text("size=1m,nosuid"))]), "/etc/fstab, not mounted");
    assert_eq!(sandbox.calls(), "mount /scratch\n");
    let expected = "# by hand\n/dev/sda1 / ext4 defaults 0 1\ntmpfs /scratch tmpfs size=1m,nosuid 0 0\n";
    assert_eq!(sandbox.read("/etc/fstab"), expected);
    sandbox.expect("mount", &scratch(&[("options", text("size=2m"))]), Changed);
    assert_eq!(sandbox.calls(), "mount -o remount /scratch\n");
    sandbox.write("/proc/self/mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    let report = sandbox.expect("mount", &scratch(&[("options", text("size=2m"))]), Changed);
    assert_eq!(report.message, "changed: /scratch was not mounted");
    sandbox.calls();
    let gone = vec![("target_path", text("/scratch")), ("state", text("absent"))];
    settles(&sandbox, "mount", &gone, "mounted");
    assert_eq!(sandbox.calls(), "umount /scratch\n");
    assert_eq!(sandbox.read("/etc/fstab"), "# by hand\n/dev/sda1 / ext4 defaults 0 1\n");
    settles(&sandbox, "mount", &scratch(&[("state", text("present"))]), "/etc/fstab");
    assert_eq!(sandbox.calls(), "");
    fs::create_dir(sandbox.at("/a b")).unwrap();
    let blank = [
        ("target_path", text("/a b/")),
        ("source", text("LABEL=x y")),
        ("fstype", text("auto")),
        ("pass", Value::Int(2)),
    ];
    sandbox.expect("mount", &blank.iter().cloned().chain([("state", text("present"))]).collect(), Changed);
    assert!(sandbox.read("/etc/fstab").ends_with("LABEL=x\\040y /a\\040b auto defaults 0 2\n"));
}

#[test]
fn mounts_that_cannot_be_are_refused() {
    let mut sandbox = mounts();
    refused(
        &sandbox,
        "mount",
        &[
            (vec![("target_path", text("/scratch")), ("fstype", text("tmpfs"))], "needs the parameter `source`"),
            (vec![("target_path", text("/scratch")), ("source", text("tmpfs"))], "needs the parameter `fstype`"),
            (vec![("target_path", text("/")), ("source", text("x")), ("fstype", text("x"))], "starts with /"),
            (scratch(&[("options", text("ro 0 0\nevil"))]), "text without blanks"),
            (scratch(&[("pass", Value::Int(10))]), "a whole number from 0 to 9"),
            (scratch(&[("state", text("unmounted"))]), "`mounted` or `present` or `absent`"),
        ],
    );
    let nowhere = vec![("target_path", text("/nowhere")), ("source", text("tmpfs")), ("fstype", text("tmpfs"))];
    assert!(sandbox.expect("mount", &nowhere, Failed).message.contains("declare the directory /nowhere"));
    sandbox.write("/proc/self/mountinfo", "30 20 8:2 / /scratch rw - ext4 /dev/sdb rw\n");
    assert!(sandbox.expect("mount", &scratch(&[]), Failed).message.contains("type ext4 on it already"));
    sandbox.write("/proc/self/mountinfo", "");
    sandbox.fake_tool("mount", "echo 'mount: /scratch: permission denied.' >&2; exit 32");
    let report = sandbox.expect("mount", &scratch(&[]), Failed);
    assert_eq!(report.message, "`mount` exited with 32:\nmount: /scratch: permission denied.");
    sandbox.write("/etc/fstab", "a /scratch tmpfs\nb /scratch tmpfs\n");
    assert!(sandbox.expect("mount", &scratch(&[]), Failed).message.contains("in lines 1 and 2"));
    sandbox.protected = vec![sandbox.at("/scratch/agent")];
    sandbox.write("/etc/fstab", "");
    assert!(sandbox.expect("mount", &scratch(&[]), Failed).message.contains("allow_self"));
}
