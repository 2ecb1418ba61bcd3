//! The contract of `repository`: files as each manager reads them. That real managers read them is shown by the tests of real
//! processes.

use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, text};

const URL: &str = "https://packages.example.com/x";
pub const KEY: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----";
const MANAGERS: [(&str, &str); 6] =
    [("apt", "apt-get"), ("dnf", "dnf"), ("zypper", "zypper"), ("apk", "apk"), ("pacman", "pacman"), ("opkg", "opkg")];

pub fn host() -> Sandbox {
    let mut sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.at("/var/tmp")).unwrap();
    for folder in ["/etc/apt/sources.list.d", "/etc/yum.repos.d", "/etc/zypp/repos.d", "/etc/apk/keys", "/etc/opkg"] {
        fs::create_dir_all(sandbox.at(folder)).unwrap();
    }
    sandbox.write("/etc/apk/repositories", "https://dl-cdn.alpinelinux.org/main\n");
    sandbox.write("/etc/pacman.conf", "[options]\nSigLevel = Required\n\n[core]\nServer = https://a\n");
    for (_, tool) in MANAGERS {
        sandbox.fake_tool(tool, "");
    }
    sandbox.fake_tool("rpm", "");
    sandbox
}

pub fn repository(manager: &str, more: &[(&'static str, Value)]) -> Params {
    let mut params = vec![("repository", text("demo")), ("manager", text(manager)), ("url", text(URL))];
    if manager == "apt" {
        params.push(("suites", text("stable")));
    }
    params.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    params.into_iter().chain(more.iter().cloned()).collect()
}

fn list(items: &[&str]) -> Value {
    Value::List(items.iter().map(|item| text(item)).collect())
}

#[test]
fn every_manager_gets_its_file_once_and_loses_it_again() {
    for (manager, _) in MANAGERS {
        let sandbox = host();
        let before = sandbox.picture();
        assert_eq!(sandbox.look("repository", &repository(manager, &[])).outcome, Changed);
        assert_eq!(sandbox.picture(), before, "{manager}: a dry run writes nothing");
        let report = sandbox.expect("repository", &repository(manager, &[]), Changed);
        assert!(report.diff.contains(URL), "{manager}: {}", report.diff);
        let written = sandbox.picture();
        sandbox.expect("repository", &repository(manager, &[]), Fine);
        assert_eq!(sandbox.picture(), written, "{manager}");
        sandbox.expect("repository", &repository(manager, &[("url", text("https://b.example.com/"))]), Changed);
        let gone = vec![("repository", text("demo")), ("manager", text(manager)), ("state", text("absent"))];
        sandbox.expect("repository", &gone, Changed);
        sandbox.expect("repository", &gone, Fine);
        let names = |picture: &std::collections::BTreeMap<_, _>| picture.keys().cloned().collect::<Vec<_>>();
        let left: Vec<_> =
            names(&sandbox.picture()).into_iter().filter(|path| !names(&before).contains(path)).collect();
        let ours = |path: &std::path::PathBuf| path.ends_with("etc/opkg/customfeeds.conf");
        assert!(left.iter().all(ours), "{manager}: {left:?}");
        assert_eq!(sandbox.read("/etc/apk/repositories"), "https://dl-cdn.alpinelinux.org/main\n");
        assert!(sandbox.read("/etc/pacman.conf").trim_end().ends_with("[core]\nServer = https://a"));
    }
}

#[test]
fn files_are_as_the_managers_read_them() {
    for (manager, path, more, expected) in [
        (
            "apt",
            "/etc/apt/sources.list.d/demo.sources",
            vec![],
            "Types: deb\nURIs: https://packages.example.com/x\nSuites: stable\nComponents: main\n",
        ),
        (
            "apt",
            "/etc/apt/sources.list.d/demo.sources",
            vec![
                ("suites", list(&["a", "b"])),
                ("components", list(&["c", "d"])),
                ("key", text(KEY)),
                ("enabled", Value::Bool(false)),
            ],
            "Suites: a b\nComponents: c d\nSigned-By: /etc/apt/keyrings/demo.asc\nEnabled: no\n",
        ),
        (
            "apt",
            "/etc/apt/sources.list.d/demo.list",
            vec![
                ("suites", text("./")),
                ("format", text("list")),
                ("verify", Value::Bool(false)),
                ("architectures", text("amd64")),
            ],
            "deb [arch=amd64 trusted=yes] https://packages.example.com/x ./\n",
        ),
        (
            "dnf",
            "/etc/yum.repos.d/demo.repo",
            vec![],
            "[demo]\nname=demo\nbaseurl=https://packages.example.com/x\nenabled=1\ngpgcheck=1\n",
        ),
        (
            "zypper",
            "/etc/zypp/repos.d/demo.repo",
            vec![("verify", Value::Bool(false))],
            "enabled=1\ngpgcheck=0\nautorefresh=1\ntype=rpm-md\n",
        ),
        (
            "apk",
            "/etc/apk/repositories",
            vec![],
            "main\n# BEGIN vigo demo\nhttps://packages.example.com/x\n# END vigo demo\n",
        ),
        ("opkg", "/etc/opkg/customfeeds.conf", vec![], "src/gz demo https://packages.example.com/x\n"),
        (
            "pacman",
            "/etc/pacman.conf",
            vec![],
            "\n[demo]\nSigLevel = Required DatabaseOptional\nServer = https://packages.example.com/x\n",
        ),
    ] {
        let sandbox = host();
        sandbox.expect("repository", &repository(manager, &more), Changed);
        let found = sandbox.read(path);
        assert!(found.contains(expected), "{manager}: {found}");
    }
}

#[test]
fn the_format_of_apt_changes_without_leaving_both() {
    let sandbox = host();
    sandbox.expect("repository", &repository("apt", &[]), Changed);
    sandbox.expect("repository", &repository("apt", &[("format", text("list"))]), Changed);
    assert!(!sandbox.at("/etc/apt/sources.list.d/demo.sources").exists());
    sandbox.expect("repository", &repository("apt", &[("format", text("list"))]), Fine);
    sandbox.expect("repository", &repository("apt", &[]), Changed);
    assert!(!sandbox.at("/etc/apt/sources.list.d/demo.list").exists());
}

#[test]
fn keys_come_from_text_or_from_a_file_and_go_with_the_repository() {
    for (manager, path) in [
        ("apt", "/etc/apt/keyrings/demo.asc"),
        ("dnf", "/etc/pki/rpm-gpg/RPM-GPG-KEY-demo"),
        ("zypper", "/etc/pki/rpm-gpg/RPM-GPG-KEY-demo"),
        ("apk", "/etc/apk/keys/demo.rsa.pub"),
    ] {
        let sandbox = host();
        let with_key = repository(manager, &[("key", text(KEY))]);
        sandbox.expect("repository", &with_key, Changed);
        assert_eq!(sandbox.read(path), format!("{KEY}\n"));
        assert_eq!(manager == "zypper", sandbox.calls().contains("--import"), "{manager}");
        fs::write(sandbox.at(path), "another").unwrap();
        sandbox.expect("repository", &with_key, Changed);
        assert_eq!(sandbox.read(path), format!("{KEY}\n"));
        sandbox.expect("repository", &with_key, Fine);
        sandbox.expect("repository", &repository(manager, &[]), Changed);
        assert!(!sandbox.at(path).exists(), "{manager}: a key that nothing names");
    }
    for (manager, word) in [("pacman", "pacman-key"), ("opkg", "/etc/opkg/keys")] {
        let report = host().expect("repository", &repository(manager, &[("key", text(KEY))]), Failed);
        assert!(report.message.contains(word), "{}", report.message);
    }
}

#[test]
fn repositories_that_changed_are_fetched_before_the_next_installation() {
    let sandbox = host();
    sandbox.write("/var/lib/apt/lists/lock", "");
    sandbox.write("/var/lib/dpkg/status", "");
    let install = vec![("package", text("x")), ("manager", text("apt"))];
    sandbox.run_all(vec![
        super::sandbox::resource("r", "repository", &repository("apt", &[])),
        super::sandbox::resource("p", "package", &install),
    ]);
    let calls = sandbox.calls();
    let words: Vec<&str> = calls.split_whitespace().filter(|word| matches!(*word, "update" | "install")).collect();
    assert_eq!(words, ["update", "install"]);
}

#[test]
fn what_is_wrong_or_in_the_way_is_named_and_left() {
    let sandbox = host();
    for (params, expected) in [
        (vec![], "needs the parameter `repository`"),
        (vec![("repository", text("demo")), ("manager", text("apt"))], "needs the parameter `url`"),
        (repository("apt", &[("url", text("packages.example.com"))]), "`url` must be a URL"),
        (repository("apt", &[("url", text("https://a\nURIs: https://evil"))]), "`url` must be a URL"),
        (repository("apt", &[("suites", text("a b"))]), "`suites` must be"),
        (repository("apt", &[("suites", text("a\nTrusted: yes"))]), "`suites` must be"),
        (repository("apt", &[("repository", text("../x"))]), "`repository` must be"),
        (repository("apt", &[("suites", text("./")), ("components", text("main"))]), "has no `components`"),
        (repository("dnf", &[("suites", text("a"))]), "go with apt only"),
        (repository("dnf", &[("key", text(KEY)), ("source", text("files/k"))]), "only one of"),
        (repository("dnf", &[("enabeld", Value::Bool(true))]), "did you mean `enabled`?"),
    ] {
        let report = sandbox.expect("repository", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    let plain = vec![("repository", text("demo")), ("manager", text("apt")), ("url", text(URL))];
    let report = sandbox.expect("repository", &plain, Failed);
    assert!(report.message.contains("codename of this host"), "{}", report.message);
    symlink("/etc/passwd", sandbox.at("/etc/apt/sources.list.d/demo.sources")).unwrap();
    let report = sandbox.expect("repository", &repository("apt", &[]), Failed);
    assert!(report.message.contains("symbolic link"), "{}", report.message);
    fs::remove_dir(sandbox.at("/etc/yum.repos.d")).unwrap();
    let report = sandbox.expect("repository", &repository("dnf", &[]), Failed);
    assert!(report.message.contains("/etc/yum.repos.d does not exist"), "{}", report.message);
}
