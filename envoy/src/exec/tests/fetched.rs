//! The contracts of `nonrepo_package` and `source_package`: with a manager that the test plays, and real archives.

use std::fs;
use std::process::Command;

use common::bundle::{Resource, Value};
use common::crypto::sha256;
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, resource, text};

/// Installs what a file says: its first line is `NAME VERSION`.
const APT: &str = r#"
db=$R/var/lib/dpkg/status
for last; do :; done
case " $* " in
    *' install '*) read -r name version < "$last" || exit 1
        [ "$name" = bad ] && { echo 'E: not a package' >&2; exit 100; }
        printf 'Package: %s\nStatus: install ok installed\nArchitecture: all\nVersion: %s\n\n' $name $version > $db;;
    *' remove '*) : > $db;;
esac
"#;

pub fn sandbox() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.fake_tool("apt-get", APT);
    let tools = sandbox.search_path.take().unwrap();
    sandbox.search_path = Some(format!("{tools}:/usr/bin:/bin"));
    sandbox.write("/var/lib/dpkg/status", "");
    fs::create_dir_all(sandbox.at("/var/tmp")).unwrap();
    sandbox
}

pub fn from_url(sandbox: &Sandbox, content: &str, more: &[(&'static str, Value)]) -> Params {
    sandbox.write("/away/demo_1.0_all.deb", content);
    let url = format!("file://{}", sandbox.at("/away/demo_1.0_all.deb").display());
    let hash = sha256(&[content.as_bytes()]).to_string();
    let base = [("package", text("demo")), ("manager", text("apt")), ("url", text(&url)), ("sha256", text(&hash))];
    base.into_iter()
        .filter(|(name, _)| !more.iter().any(|(other, _)| other == name))
        .chain(more.iter().cloned())
        .collect()
}

fn nothing_is_left(sandbox: &Sandbox) {
    assert_eq!(fs::read_dir(sandbox.at("/var/tmp")).unwrap().count(), 0);
}

#[test]
fn a_package_of_a_file_is_installed_once_replaced_by_another_version_and_removed() {
    let sandbox = sandbox();
    let asked = from_url(&sandbox, "demo 1.0\n", &[]);
    let report = sandbox.look("nonrepo_package", &asked);
    assert_eq!((report.outcome, report.message.as_str()), (Changed, "would install: demo"));
    assert_eq!(sandbox.calls(), "");
    let report = sandbox.expect("nonrepo_package", &asked, Changed);
    assert_eq!(report.diff, "--- apt\n+++ apt\n+demo\n");
    assert!(sandbox.calls().contains("/demo_1.0_all.deb"), "the manager sees what it is by its name");
    nothing_is_left(&sandbox);
    sandbox.expect("nonrepo_package", &asked, Fine);
    fs::remove_file(sandbox.at("/away/demo_1.0_all.deb")).unwrap();
    sandbox.expect("nonrepo_package", &asked, Fine);
    assert_eq!(sandbox.calls(), "", "nothing is fetched while it is there");
    let newer = from_url(&sandbox, "demo 2.0\n", &[("version", text("2.0"))]);
    let report = sandbox.expect("nonrepo_package", &newer, Changed);
    assert_eq!(report.message, "changed: demo 1.0 to demo 2.0");
    sandbox.expect("nonrepo_package", &newer, Fine);
    let gone = vec![("package", text("demo")), ("manager", text("apt")), ("state", text("absent"))];
    sandbox.expect("nonrepo_package", &gone, Changed);
    sandbox.expect("nonrepo_package", &gone, Fine);
}

#[test]
fn a_file_of_the_policy_is_installed_too() {
    let mut sandbox = sandbox();
    sandbox.blob("files/demo.deb", b"demo 1.0\n");
    let asked = vec![("package", text("demo")), ("manager", text("apt")), ("source", text("files/demo.deb"))];
    sandbox.expect("nonrepo_package", &asked, Changed);
    sandbox.expect("nonrepo_package", &asked, Fine);
    nothing_is_left(&sandbox);
    sandbox.write("/var/lib/dpkg/status", "");
    let blobs = std::mem::take(&mut *sandbox.store.0.lock().unwrap());
    let report = sandbox.expect("nonrepo_package", &asked, Blocked);
    assert!(report.message.contains("is not here yet"), "{}", report.message);
    let damaged = blobs.into_keys().map(|hash| (hash, crate::exec::Blob::Bytes(b"else".as_slice().into()))).collect();
    *sandbox.store.0.lock().unwrap() = damaged;
    let report = sandbox.expect("nonrepo_package", &asked, Blocked);
    assert!(report.message.contains("is damaged"), "{}", report.message);
    assert!(!sandbox.calls().contains("else"));
    nothing_is_left(&sandbox);
}

#[test]
fn content_that_is_not_what_policy_names_is_never_handed_to_anybody() {
    let sandbox = sandbox();
    let asked = from_url(&sandbox, "demo 1.0\n", &[]);
    sandbox.write("/away/demo_1.0_all.deb", "demo 6.6\n");
    let report = sandbox.expect("nonrepo_package", &asked, Failed);
    assert!(
        report.message.contains("has the SHA-256") && report.message.contains("policy names"),
        "{}",
        report.message
    );
    assert_eq!(sandbox.calls(), "");
    nothing_is_left(&sandbox);
    fs::remove_file(sandbox.at("/away/demo_1.0_all.deb")).unwrap();
    let report = sandbox.expect("nonrepo_package", &asked, Failed);
    assert!(report.message.contains("cannot read"), "{}", report.message);
    let wrong = from_url(&sandbox, "other 1.0\n", &[]);
    let report = sandbox.expect("nonrepo_package", &wrong, Failed);
    assert!(report.message.contains("no package called `demo`"), "{}", report.message);
    let bad = from_url(&sandbox, "bad 1.0\n", &[]);
    let report = sandbox.expect("nonrepo_package", &bad, Failed);
    assert!(report.message.contains("not a package"), "{}", report.message);
}

#[test]
fn what_is_fetched_over_the_network_is_fetched_by_curl_or_wget() {
    let mut sandbox = sandbox();
    let url = [("url", text("https://example.com/x/demo.deb?v=1"))];
    let asked = from_url(&sandbox, "demo 1.0\n", &url);
    let path = sandbox.search_path.take();
    for (tool, script) in [
        ("wget", "printf 'demo 1.0\\n' > \"$3\""),
        ("curl", "while [ \"$1\" != -o ]; do shift; done; printf 'demo 1.0\\n' > \"$2\""),
    ] {
        // Only the one that is played is there.
        sandbox.fake_tool(tool, script);
        sandbox.write("/var/lib/dpkg/status", "");
        sandbox.search_path = Some(sandbox.at("/tools").display().to_string());
        let report = sandbox.apply("nonrepo_package", &asked);
        assert_eq!(report.outcome, Changed, "{tool}: {}", report.message);
        let calls = sandbox.calls();
        assert!(calls.starts_with(&format!("{tool} ")) && calls.contains("https://example.com"), "{calls}");
        assert!(calls.contains("/demo.deb"), "the question is no part of the name: {calls}");
    }
    sandbox.fake_tool("curl", "echo 'curl: (6) Could not resolve host: example.com' >&2; exit 6");
    sandbox.write("/var/lib/dpkg/status", "");
    sandbox.expect("nonrepo_package", &asked, Blocked);
    sandbox.search_path = path;
}

#[test]
fn bad_parameters_of_both_are_named() {
    let sandbox = sandbox();
    let hash = "a".repeat(64);
    for (kind, params, expected) in [
        ("nonrepo_package", vec![("url", text("https://x/y"))], "needs the parameter `package`"),
        ("nonrepo_package", vec![("package", text("a"))], "needs the parameter `source or url`"),
        ("nonrepo_package", vec![("package", text("a")), ("url", text("https://x/y"))], "`url` needs `sha256`"),
        ("nonrepo_package", vec![("package", text("a")), ("url", text("ftp://x/y"))], "`url` must be"),
        ("nonrepo_package", vec![("package", text("-a")), ("url", text("https://x"))], "`package` must be"),
        (
            "nonrepo_package",
            vec![("package", text("a")), ("url", text("https://x")), ("sha256", text("abc"))],
            "`sha256` must be",
        ),
        ("source_package", vec![("url", text("https://x")), ("build", text("make"))], "needs the parameter `creates`"),
        ("source_package", vec![("creates", text("/x")), ("build", text("make"))], "`source` or `url` is needed"),
        ("source_package", vec![("creates", text("x")), ("build", text("make"))], "`creates` must be"),
        (
            "source_package",
            vec![("creates", text("/x")), ("url", text("https://x")), ("sha256", text(&hash))],
            "needs the parameter `build`",
        ),
    ] {
        let params: Params =
            params.into_iter().chain((kind == "nonrepo_package").then_some(("manager", text("apt")))).collect();
        let report = sandbox.expect(kind, &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
    assert_eq!(sandbox.calls(), "");
}

/// An archive of `demo-1/name`, and what asks for it.
pub fn archive(sandbox: &Sandbox, build: &[&str]) -> Params {
    sandbox.write("/src/demo-1/name", "demo\n");
    let path = sandbox.at("/src.tar.gz");
    let status = Command::new("tar").arg("-czf").arg(&path).arg("-C").arg(sandbox.at("/src")).arg("demo-1").status();
    assert!(status.unwrap().success());
    let hash = sha256(&[&fs::read(&path).unwrap()]).to_string();
    let build = Value::List(build.iter().map(|line| text(line)).collect());
    let url = format!("file://{}", path.display());
    vec![("url", text(&url)), ("sha256", text(&hash)), ("build", build), ("creates", text("/d/built"))]
}

#[test]
fn an_archive_is_built_once_and_again_when_what_it_created_is_gone() {
    let sandbox = sandbox();
    let asked = archive(&sandbox, &["cat name > out", "cp out \"$VIGO_SYSROOT/d/built\""]);
    let report = sandbox.look("source_package", &asked);
    assert_eq!((report.outcome, report.message.as_str()), (Changed, "would install: /d/built is not there"));
    assert!(!sandbox.at("/d/built").exists());
    sandbox.expect("source_package", &asked, Changed);
    assert_eq!(sandbox.read("/d/built"), "demo\n");
    nothing_is_left(&sandbox);
    fs::remove_file(sandbox.at("/src.tar.gz")).unwrap();
    sandbox.expect("source_package", &asked, Fine);
    let asked = archive(&sandbox, &["cat name > \"$VIGO_SYSROOT/d/built\""]);
    fs::remove_file(sandbox.at("/d/built")).unwrap();
    sandbox.expect("source_package", &asked, Changed);
    sandbox.expect("source_package", &asked, Fine);
}

#[test]
fn a_build_that_fails_or_creates_nothing_says_so_and_leaves_nothing() {
    let sandbox = sandbox();
    for (build, expected) in [
        (&["echo no such header >&2; exit 2"][..], "no such header"),
        (&["false", "touch \"$VIGO_SYSROOT/d/built\""], "exited with 1"),
        (&["true"], "did not create /d/built"),
    ] {
        let report = sandbox.expect("source_package", &archive(&sandbox, build), Failed);
        assert!(report.message.contains(expected), "{}", report.message);
        assert!(!sandbox.at("/d/built").exists());
        nothing_is_left(&sandbox);
    }
    let mut asked = archive(&sandbox, &["touch \"$VIGO_SYSROOT/d/built\""]);
    sandbox.write("/src.tar.gz", "not the archive");
    let report = sandbox.expect("source_package", &asked, Failed);
    assert!(report.message.contains("has the SHA-256"), "{}", report.message);
    asked[1].1 = text(&sha256(&[b"not the archive"]).to_string());
    let report = sandbox.expect("source_package", &asked, Failed);
    assert!(report.message.contains("`tar` exited"), "{}", report.message);
    let endless = archive(&sandbox, &["sleep 60"]);
    let report = sandbox.run_all(vec![Resource { timeout_ms: 700, ..resource("r", "source_package", &endless) }]);
    assert!(report.resources[0].message.contains("timeout"), "{}", report.resources[0].message);
    nothing_is_left(&sandbox);
}

#[test]
fn an_archive_that_climbs_out_of_its_directory_does_not() {
    let sandbox = sandbox();
    let mut asked = archive(&sandbox, &["true"]);
    let path = sandbox.at("/src.tar.gz");
    sandbox.write("/evil", "evil\n");
    let status = Command::new("tar")
        .args(["-czPf"])
        .arg(&path)
        .arg("--transform=s,.*,../../../d/built,")
        .arg(sandbox.at("/evil"))
        .status();
    assert!(status.unwrap().success());
    asked[1].1 = text(&sha256(&[&fs::read(&path).unwrap()]).to_string());
    sandbox.expect("source_package", &asked, Failed);
    assert!(!sandbox.at("/d/built").exists());
    nothing_is_left(&sandbox);
}
