//! `container` with real podman and runc: containers of an image that is built here, in storage of their own. Needs root; without
//! it, or where podman cannot run anything, nothing is tested and that is said.
//!
//! Docker needs a daemon, which no test starts: it is driven in the tests of the agent, by a program that plays it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vigo_e2e::{binary, wait_until};

/// Settings of podman: nothing of the host is used, and no limit is asked for that a build machine may not grant.
const SETTINGS: &str = "[containers]\ndefault_ulimits = [\"nofile=1000:1000\", \"nproc=1000:1000\"]\n[engine]\nruntime = \
                        \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
/// What runs in a container: it waits.
const PROGRAM: &str = "#include <unistd.h>\nint main() { for (;;) pause(); }\n";

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Option<Site> {
        let found = |name: &str| Command::new(name).arg("--version").output().is_ok_and(|done| done.status.success());
        if !nix::unistd::geteuid().is_root() || !found("podman") || !found("runc") {
            eprintln!("not tested: containers need root, podman and runc");
            return None;
        }
        let site = Site { dir: tempfile::tempdir().expect("a folder") };
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/storage\"\nrunroot = \"{0}/run\"\n",
            site.dir.path().display()
        );
        put(&site.at("etc/storage.conf"), &storage);
        put(&site.at("etc/containers.conf"), SETTINGS);
        put(&site.at("etc/policy.json"), "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}");
        put(&site.at("wait.c"), PROGRAM);
        fs::create_dir(site.at("image")).expect("a folder");
        let (source, program) = (site.at("wait.c"), site.at("image/wait"));
        let compiled =
            Command::new("cc").args(["-static", "-o"]).args([&program, &source]).status().expect("a compiler");
        assert!(compiled.success());
        let (tree, archive) = (site.at("image").display().to_string(), site.at("image.tar").display().to_string());
        let packed = Command::new("tar").args(["-C", &tree, "-cf", &archive, "."]).status().expect("tar");
        assert!(packed.success());
        for tag in ["1", "2"] {
            let change = format!("ENV TAG={tag}");
            site.podman(&["import", "-q", "--change", &change, "--change", "CMD [\"/wait\"]", &archive, &image(tag)]);
        }
        let tried = site.try_podman(&["run", "--rm", "--network=none", "--entrypoint=/nothing", &image("1")]);
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        // It is there to fail, but for the reason that there is no such program.
        if !said.contains("no such file or directory") {
            eprintln!("not tested: podman cannot run containers here: {said}");
            return None;
        }
        Some(site)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Runs a program with the settings above in place of the host's own.
    fn inside(&self, program: &Path, args: &[&str]) -> Output {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", "mount --bind \"$0\" /etc/containers && exec \"$@\""]);
        command.arg(self.at("etc")).arg(program).args(args).env("NO_COLOR", "1");
        command.output().expect("unshare")
    }

    fn try_podman(&self, args: &[&str]) -> Output {
        self.inside(Path::new("podman"), args)
    }

    fn podman(&self, args: &[&str]) -> String {
        let done = self.try_podman(args);
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text").trim().to_string()
    }

    /// What `apply` says of a file. Another test may apply something to the same host: then it is tried again.
    fn applied(&self, file: &Path) -> serde_json::Value {
        let words = ["apply", file.to_str().expect("text"), "--json"];
        let done = wait_until("the other apply to end", || {
            Some(self.inside(&binary("vigo-envoy"), &words)).filter(|done| done.status.code() != Some(75))
        });
        serde_json::from_slice(&done.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)))
    }

    /// Applies one `container`; its outcome and message.
    fn apply(&self, params: &str) -> (String, String) {
        let file = self.at("site.vgo");
        let head =
            "name: site\nresources:\n  - name: web\n    type: container\n    container: vigo-web\n    engine: podman\n";
        put(&file, &format!("{head}    network: none\n    pull: never\n    {params}\n"));
        let answer = self.applied(&file);
        let found = &answer["resources"][0];
        let text = |key: &str| found[key].as_str().map(str::to_string).unwrap_or_else(|| panic!("{key} in {answer}"));
        (text("outcome"), text("message"))
    }

    fn expect(&self, params: &str, outcome: &str, message: &str) {
        let found = self.apply(params);
        assert!(found.0 == outcome && found.1.contains(message), "{params}: {found:?}");
    }

    /// What podman says of the container.
    fn inspect(&self, format: &str) -> String {
        self.podman(&["container", "inspect", "--format", format, "vigo-web"])
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.try_podman(&["rm", "--all", "--force", "--time=0"]);
    }
}

fn image(tag: &str) -> String {
    format!("localhost/vigo-wait:{tag}")
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

#[test]
fn podman_creates_replaces_stops_and_removes_a_container() {
    let Some(site) = Site::new() else { return };
    let one = "image: localhost/vigo-wait:1\n    options: [--stop-timeout=1]\n    environment: {PATH: /nowhere, A: \"b 'c' $D\"}";
    let two = one.replace(":1\n", ":2\n");
    site.expect(one, "changed", "created: from localhost/vigo-wait:1");
    site.expect(one, "ok", "");
    let variables = site.inspect("{{json .Config.Env}}");
    assert!(variables.contains("\"PATH=/nowhere\"") && variables.contains("\"A=b 'c' $D\""), "{variables}");
    site.podman(&["stop", "vigo-web"]);
    site.expect(one, "changed", "was not running");
    let before = site.inspect("{{.Id}}");
    site.expect(&two, "changed", "was made of something else");
    site.expect(&two, "ok", "");
    assert!(site.inspect("{{json .Config.Env}}").contains("\"TAG=2\""));
    assert_ne!(site.inspect("{{.Id}}"), before);
    // What replaces it does not exist, or does not start: it goes on.
    let running = site.inspect("{{.Id}}");
    site.expect(&two.replace(":2\n", ":nope\n"), "failed", "vigo-wait:nope");
    site.expect(&format!("{two}\n    command: [/nothing]"), "failed", "no such file or directory");
    assert_eq!(site.inspect("{{.Id}} {{.State.Running}}"), format!("{running} true"));
    assert_eq!(site.podman(&["ps", "--all", "--format", "{{.Names}}"]), "vigo-web");
    // The tag means another image now.
    site.podman(&["tag", &image("1"), &image("2")]);
    site.expect(&two, "changed", "is another image now");
    site.expect(&two, "ok", "");
    site.expect(&format!("{two}\n    state: stopped"), "changed", "was running");
    site.expect(&format!("{two}\n    state: stopped"), "ok", "");
    site.expect("state: absent", "changed", "removed");
    site.expect("state: absent", "ok", "");
    assert_eq!(site.podman(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn the_container_host_of_the_fleet_example_converges_and_is_taken_away_again() {
    let Some(site) = Site::new() else { return };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fleet/stacks/configcrates/containers.vgo");
    // The image is one that needs no registry; podman of this host is what runs it.
    let text = fs::read_to_string(example).expect("the example").replace("docker.io/library/redis:7", &image("1"));
    let file = site.at("containers.vgo");
    let apply = |text: &str| -> serde_json::Value {
        put(&file, text);
        let answer = site.applied(&file);
        assert_eq!((&answer["run"]["failed"], &answer["run"]["blocked"]), (&0.into(), &0.into()), "{answer}");
        answer["run"]["changed"].clone()
    };
    assert_eq!(apply(&text), 4);
    assert_eq!(
        site.podman(&["container", "inspect", "--format", "{{.State.Running}} {{.Config.Labels.purpose}}", "cache"]),
        "true cache"
    );
    assert!(fs::read_to_string(site.at("etc/containers.conf")).expect("settings").contains("log_size_max = 10485760"));
    assert_eq!(apply(&text), 0);
    let absent = text.replacen("state: present", "state: absent", 1);
    assert_eq!(apply(&absent), 3);
    assert!(!site.at("etc/registries.conf.d/50-vigo.conf").exists());
    assert!(!site.try_podman(&["container", "exists", "cache"]).status.success());
    assert_eq!(apply(&absent), 0);
}
