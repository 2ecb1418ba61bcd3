//! The contract of `package`, with package managers that the test plays: what is asserted is what they are called with and what
//! becomes of what they say. Real apt, dnf, zypper and pacman are driven by the tests of real processes; apk and opkg only here,
//! by transcripts of theirs.

use std::fs;

use common::bundle::{Resource, Value};
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, resource, text};

/// A dpkg database as one file a package, so that a script can change it.
const APT: &str = r#"
set -u
db=$R/var/lib/dpkg
case " $* " in *" update "*) [ -e $R/broken ] && { echo 'E: Failed to fetch http://x/ Could not resolve' >&2; exit 100; }
    mkdir -p $R/var/lib/apt/lists; touch $R/lists; exit 0;; esac
[ -e $R/locked ] && { echo 'E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7' >&2; exit 100; }
[ -e $R/interrupted ] && { echo "E: dpkg was interrupted, you must manually run 'dpkg --configure -a'" >&2; exit 100; }
verb=; for word; do
    case $word in install|remove|purge) verb=$word; continue;; esac
    [ -n "$verb" ] || continue
    name=${word%%=*}; version=2.0; case $word in *=*) version=${word#*=};; esac
    case $verb in
        install)
            [ -e $R/lists ] || { echo "E: Unable to locate package $name" >&2; exit 100; }
            case $name in
                none) echo "E: Unable to locate package none" >&2; exit 100;;
                virtual) exit 0;;
            esac
            printf 'Package: %s\nStatus: install ok installed\nArchitecture: amd64\nVersion: %s\n\n' $name $version > $db/info/$name;;
        remove) printf 'Package: %s\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 2.0\n\n' $name > $db/info/$name;;
        purge) : > $db/info/$name;;
    esac
done
: > $db/status; for one in $db/info/*; do while IFS= read -r line; do printf '%s\n' "$line"; done < $one >> $db/status; done
"#;

const POLICY: &str = r#"
echo "nginx:"; echo "  Installed: 1.0"; echo "  Candidate: 2.0"
"#;

pub fn debian() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.write("/var/lib/dpkg/status", "");
    sandbox.write("/var/lib/dpkg/info/.keep", "");
    sandbox.fake_tool("apt-get", APT);
    sandbox.fake_tool("apt-cache", POLICY);
    sandbox.fake_tool("dpkg", "rm $R/interrupted");
    let tools = sandbox.search_path.take().unwrap();
    sandbox.search_path = Some(format!("{tools}:/usr/bin:/bin"));
    sandbox
}

fn have(sandbox: &Sandbox, name: &str, version: &str, status: &str) {
    let paragraph = format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\n\n");
    sandbox.write(&format!("/var/lib/dpkg/info/{name}"), &paragraph);
    let old = sandbox.read("/var/lib/dpkg/status");
    sandbox.write("/var/lib/dpkg/status", &(old + &paragraph));
}

/// These tools are beside real ones: a test that is for apt says so.
pub fn package(names: &[&str], more: &[(&'static str, Value)]) -> Params {
    let names = Value::List(names.iter().map(|name| text(name)).collect());
    [("package", names), ("manager", text("apt"))].into_iter().chain(more.iter().cloned()).collect()
}

fn verbs(calls: &str) -> Vec<&str> {
    let words = ["update", "install", "remove", "purge", "policy", "--configure"];
    calls.split_whitespace().filter(|word| words.contains(word)).collect()
}

#[test]
fn packages_are_installed_once_and_then_nothing_is_called() {
    let sandbox = debian();
    let asked = package(&["nginx", "curl"], &[]);
    let report = sandbox.expect("package", &asked, Changed);
    assert_eq!(report.message, "installed: nginx, curl");
    assert_eq!(report.diff, "--- apt\n+++ apt\n+nginx\n+curl\n");
    let calls = sandbox.calls();
    assert_eq!(verbs(&calls), ["update", "install"], "{calls}");
    assert!(calls.trim_end().ends_with("--no-remove install nginx curl"), "{calls}");
    assert!(calls.contains("force-confold"), "{calls}");
    let before = sandbox.picture();
    sandbox.expect("package", &asked, Fine);
    assert_eq!(sandbox.calls(), "", "no process is started");
    let after = sandbox.picture();
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    sandbox.expect("package", &package(&["nginx", "vim"], &[]), Changed);
    let calls = sandbox.calls();
    assert_eq!(verbs(&calls), ["install"], "lists are fresh, and nginx is there: {calls}");
    assert!(calls.trim_end().ends_with("install vim"), "{calls}");
}

#[test]
fn a_dry_run_calls_nothing_that_writes() {
    let sandbox = debian();
    have(&sandbox, "nginx", "1.0", "install ok installed");
    let before = sandbox.picture();
    let report = sandbox.look("package", &package(&["curl"], &[]));
    assert_eq!((report.outcome, report.message.as_str()), (Changed, "would install: curl"));
    let report = sandbox.look("package", &package(&["nginx"], &[("state", text("absent"))]));
    assert_eq!((report.outcome, report.message.as_str()), (Changed, "would remove: nginx 1.0"));
    assert_eq!(sandbox.picture(), before);
    let report = sandbox.look("package", &package(&["nginx"], &[("state", text("latest"))]));
    assert_eq!(report.message, "would change: nginx 1.0 to 2.0");
    assert_eq!(verbs(&sandbox.calls()), ["policy"]);
}

#[test]
fn a_certain_version_may_be_older_or_the_start_of_one() {
    let sandbox = debian();
    have(&sandbox, "nginx", "2.0", "install ok installed");
    sandbox.expect("package", &package(&["nginx"], &[("version", text("2.*"))]), Fine);
    let report = sandbox.expect("package", &package(&["nginx"], &[("version", text("1.5-1"))]), Changed);
    assert_eq!(report.message, "changed: nginx 2.0 to 1.5-1");
    assert_eq!(report.diff, "--- apt\n+++ apt\n-nginx 2.0\n+nginx 1.5-1\n");
    let calls = sandbox.calls();
    assert!(calls.contains("--allow-downgrades") && calls.contains("nginx=1.5-1"), "{calls}");
    sandbox.expect("package", &package(&["nginx"], &[("version", text("1.5-1"))]), Fine);
    for (params, expected) in [
        (package(&["a", "b"], &[("version", text("1"))]), "of one package"),
        (package(&["a"], &[("version", text("1")), ("state", text("latest"))]), "`state: present` only"),
    ] {
        let report = sandbox.expect("package", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}

#[test]
fn latest_upgrades_what_is_old_and_leaves_what_is_held() {
    let mut sandbox = debian();
    have(&sandbox, "nginx", "1.0", "hold ok installed");
    sandbox.expect("package", &package(&["nginx"], &[("state", text("latest"))]), Fine);
    assert_eq!(verbs(&sandbox.calls()), ["update"], "what is held is not even asked for");
    sandbox.write("/var/lib/dpkg/status", "");
    have(&sandbox, "nginx", "1.0", "install ok installed");
    let script = "set -- $R/var/lib/dpkg/status; while read -r k v; do [ \"$k\" = Version: ] && have=$v; done < $1
        echo nginx:; echo \"  Installed: $have\"; echo '  Candidate: 2.0'";
    let path = sandbox.search_path.take();
    sandbox.fake_tool("apt-cache", script);
    sandbox.search_path = path;
    sandbox.calls();
    let report = sandbox.expect("package", &package(&["nginx"], &[("state", text("latest"))]), Changed);
    assert_eq!(report.message, "changed: nginx 1.0 to 2.0");
    assert_eq!(verbs(&sandbox.calls()), ["policy", "install", "policy"]);
    sandbox.expect("package", &package(&["nginx"], &[("state", text("latest"))]), Fine);
}

#[test]
fn absent_removes_and_purges_only_where_asked() {
    let sandbox = debian();
    have(&sandbox, "nginx", "1.0", "install ok installed");
    let gone = package(&["nginx", "never"], &[("state", text("absent"))]);
    let report = sandbox.expect("package", &gone, Changed);
    assert_eq!(
        (report.message.as_str(), report.diff.as_str()),
        ("removed: nginx 1.0", "--- apt\n+++ apt\n-nginx 1.0\n")
    );
    let calls = sandbox.calls();
    assert!(calls.trim_end().ends_with("remove nginx"), "{calls}");
    sandbox.expect("package", &gone, Fine);
    let purged = package(&["nginx"], &[("state", text("absent")), ("purge", Value::Bool(true))]);
    sandbox.expect("package", &purged, Changed);
    assert!(sandbox.calls().trim_end().ends_with("purge nginx"));
    sandbox.expect("package", &purged, Fine);
    assert_eq!(sandbox.calls(), "");
}

#[test]
fn lists_are_fetched_once_a_run_and_again_where_they_do_not_suffice() {
    let sandbox = debian();
    // Fresh by their time, and empty.
    sandbox.write("/var/lib/apt/lists/lock", "");
    let resources = |names: &[&str]| -> Vec<Resource> {
        names.iter().map(|name| resource(name, "package", &package(&[name], &[]))).collect()
    };
    assert_eq!(sandbox.run_all(resources(&["a", "b"])).counts().changed, 2);
    assert_eq!(verbs(&sandbox.calls()), ["install", "update", "install", "install"]);
    let report = sandbox.run_all(resources(&["none", "c"]));
    assert_eq!((report.counts().failed, report.counts().changed), (1, 1));
    assert!(report.resources[0].message.contains("Unable to locate package none"), "{}", report.resources[0].message);
    assert_eq!(verbs(&sandbox.calls()), ["install", "update", "install", "install"]);
    let old = package(&["d"], &[("refresh_after", text("0s"))]);
    sandbox.expect("package", &old, Changed);
    assert_eq!(verbs(&sandbox.calls()), ["update", "install"]);
}

#[test]
fn a_repository_that_cannot_be_had_blocks() {
    let sandbox = debian();
    sandbox.write("/broken", "");
    let report = sandbox.expect("package", &package(&["nginx"], &[]), Blocked);
    assert!(report.message.contains("Unable to locate package nginx"), "{}", report.message);
    assert!(report.message.contains("fetching the lists of the repositories"), "{}", report.message);
    assert!(report.message.contains("Could not resolve"), "{}", report.message);
    sandbox.write("/lists", "");
    sandbox.expect("package", &package(&["nginx"], &[]), Changed);
}

#[test]
fn a_lock_of_others_is_waited_for_and_then_blocks() {
    let sandbox = debian();
    sandbox.write("/lists", "");
    sandbox.write("/var/lib/apt/lists/lock", "");
    sandbox.write("/locked", "");
    let short = |name: &str| Resource { timeout_ms: 1_200, ..resource(name, "package", &package(&[name], &[])) };
    let report = sandbox.run_all(vec![short("nginx")]);
    assert_eq!(report.resources[0].outcome, Blocked, "{}", report.resources[0].message);
    assert!(report.resources[0].message.contains("held by process 7"), "{}", report.resources[0].message);
    assert!(verbs(&sandbox.calls()).len() > 1, "it was tried more than once");
    assert!(report.duration_ms < 20_000);
}

#[test]
fn an_interrupted_dpkg_is_ended_first() {
    let sandbox = debian();
    sandbox.write("/lists", "");
    sandbox.write("/interrupted", "");
    have(&sandbox, "nginx", "1.0", "install ok half-configured");
    sandbox.write("/var/lib/apt/lists/lock", "");
    let report = sandbox.expect("package", &package(&["nginx"], &[]), Changed);
    assert_eq!(report.message, "installed: nginx");
    assert_eq!(verbs(&sandbox.calls()), ["install", "--configure", "install"]);
    sandbox.expect("package", &package(&["nginx"], &[]), Fine);
}

#[test]
fn names_that_others_provide_and_names_that_are_no_names_are_refused() {
    let sandbox = debian();
    let report = sandbox.expect("package", &package(&["virtual"], &[]), Failed);
    assert!(report.message.contains("another one provides that name"), "{}", report.message);
    sandbox.calls();
    for name in ["nginx-", "-y", "~nnginx", "?installed", "a*", "a b", "./x.deb", "a=1", "a;touch x", "a/b", ""] {
        let report = sandbox.expect("package", &package(&[name], &[]), Failed);
        assert!(report.message.contains("the name of a package"), "{name}: {}", report.message);
    }
    assert_eq!(sandbox.calls(), "");
    for (params, expected) in [
        (vec![], "needs the parameter `package`"),
        (package(&["a"], &[("stat", text("absent"))]), "did you mean `state`?"),
        (package(&["a"], &[("state", text("installed"))]), "`present` or `absent` or `latest`"),
        (package(&["a"], &[("version", text("1 -y"))]), "`version` must be"),
        (vec![("package", text("a")), ("manager", text("brew"))], "`manager` must be"),
        (vec![("package", text("a")), ("manager", text("opkg"))], "`opkg` is not installed"),
    ] {
        let report = sandbox.expect("package", &params, Failed);
        assert!(report.message.contains(expected), "{}", report.message);
    }
}

#[test]
fn the_package_of_the_agent_itself_is_spared() {
    let mut sandbox = debian();
    sandbox.protected = vec!["/usr/bin/vigo-envoy".into()];
    have(&sandbox, "vigo-envoy", "1.0", "install ok installed");
    let gone = package(&["vigo-envoy"], &[("state", text("absent"))]);
    let report = sandbox.expect("package", &gone, Failed);
    assert!(report.message.contains("allow_self"), "{}", report.message);
    assert_eq!(sandbox.calls(), "");
    sandbox.allow_self = true;
    sandbox.expect("package", &gone, Changed);
}

#[test]
fn a_database_that_cannot_be_read_is_no_reason_to_install_everything_again() {
    let sandbox = debian();
    fs::remove_file(sandbox.at("/var/lib/dpkg/status")).unwrap();
    super::sandbox::fifo(&sandbox.at("/var/lib/dpkg/status"));
    let report = sandbox.expect("package", &package(&["nginx"], &[]), Failed);
    assert!(report.message.contains("FIFO"), "{}", report.message);
    assert_eq!(sandbox.calls(), "");
    fs::remove_file(sandbox.at("/var/lib/dpkg/status")).unwrap();
    let mut bytes = b"Package: odd\nDescription: \xff\xfe".to_vec();
    bytes.extend(vec![b'x'; 2 << 20]);
    bytes.extend(b"\nStatus: install ok installed\nVersion: 1\n");
    fs::write(sandbox.at("/var/lib/dpkg/status"), bytes).unwrap();
    sandbox.expect("package", &package(&["odd"], &[]), Fine);
}

#[test]
fn the_manager_is_found_by_its_database() {
    for (tool, database, content, script) in [
        (
            "apk",
            "/lib/apk/db/installed",
            "P:musl\nV:1.2-r0\nA:x86_64\n\n",
            "echo; printf 'P:curl\\nV:8.0-r0\\nA:x86_64\\n\\n' >> $R/lib/apk/db/installed",
        ),
        (
            "opkg",
            "/usr/lib/opkg/status",
            "Package: libc\nVersion: 1\nStatus: install user installed\n\n",
            "printf 'Package: curl\\nVersion: 8.0-1\\nStatus: install user installed\\n\\n' >> $R/usr/lib/opkg/status",
        ),
        ("pacman", "/var/lib/pacman/local/ALPM_DB_VERSION", "9\n", "/bin/mkdir -p $R/var/lib/pacman/local/curl-8.0-1"),
    ] {
        let mut sandbox = Sandbox::new();
        sandbox.write(database, content);
        let guarded =
            format!("case \" $* \" in *' add '*|*' install '*|'-S '*|*' -S '*) ;; *) exit 0;; esac\n{script}");
        sandbox.fake_tool(tool, &guarded);
        // There too, and never used.
        sandbox.fake_tool("dnf", "exit 9");
        let asked: Params = vec![("package", text("curl"))];
        let report = sandbox.expect("package", &asked, Changed);
        assert!(report.diff.starts_with(&format!("--- {tool}")), "{}", report.diff);
        let calls = sandbox.calls();
        assert!(calls.lines().all(|line| line.starts_with(tool)), "{calls}");
        assert!(calls.contains(sandbox.dir.path().to_str().unwrap()), "in the root of the run: {calls}");
        sandbox.expect("package", &asked, Fine);
        assert_eq!(sandbox.calls(), "", "{tool}: no process is started");
    }
    let mut sandbox = Sandbox::new();
    sandbox.search_path = Some(sandbox.at("/tools").display().to_string());
    let report = sandbox.expect("package", &vec![("package", text("curl"))], Failed);
    assert!(report.message.contains("no package manager is installed"), "{}", report.message);
}

#[test]
fn a_manager_that_has_only_the_newest_says_so_before_it_replaces_anything() {
    for (tool, database, content, offer) in [
        (
            "opkg",
            "/usr/lib/opkg/status",
            "Package: curl\nVersion: 8.0-1\nStatus: install user installed\n\n",
            "case \"$*\" in *' list '*) echo 'curl - 8.1-1 - a client';; esac",
        ),
        (
            "pacman",
            "/var/lib/pacman/local/curl-8.0-1/desc",
            "x\n",
            "case \"$*\" in '-Si '*) echo 'Name            : curl'; echo 'Version         : 8.1-1';; esac",
        ),
    ] {
        let mut sandbox = Sandbox::new();
        sandbox.write(database, content);
        sandbox.fake_tool(tool, offer);
        let asked = |version: &str| vec![("package", text("curl")), ("version", text(version))];
        sandbox.expect("package", &asked("8.0-1"), Fine);
        sandbox.expect("package", &asked("8.0*"), Fine);
        let report = sandbox.expect("package", &asked("7.9-1"), Failed);
        let expected = format!("{tool} installs only what its repositories have, and they have curl 8.1-1, not 7.9-1");
        assert!(report.message.contains(&expected) && report.message.contains("nonrepo_package"), "{}", report.message);
        let calls = sandbox.calls();
        assert!(!calls.contains(" install ") && !calls.contains("-S "), "{tool}: {calls}");
        // The one that they have is installed; this tool only says that it did.
        let report = sandbox.expect("package", &asked("8.1*"), Failed);
        assert!(report.message.contains("still differs"), "{}", report.message);
    }
}
