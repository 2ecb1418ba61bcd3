//! HUP: a daemon whose program was replaced goes on as the new program, in the same process, between runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vigo_e2e::{Envoy, Server, Signal, binary, mapping, wait_for, wait_until};

const NAME: &str = "web-1";

/// A run as a package manager makes it: it replaces the agent, asks for its renewal, and goes on for a while.
const UPGRADE: &str = r#"name: web
resources:
  - {name: before, type: file, target_path: /before, content: "made\n"}
  - {name: upgrade, type: exec, command: "sh upgrade.sh", creates: /upgraded, depends_on: [before]}
  - {name: after, type: file, target_path: /after, content: "{{ vars.content }}\n", depends_on: [upgrade]}
"#;

struct Site {
    server: Server,
    envoy: Envoy,
    /// What the daemon is started as.
    program: PathBuf,
}

fn site(dir: &Path) -> Site {
    let policy = [("configcrates/web.vgo", UPGRADE), ("envoys/all.vgo", &mapping("one"))];
    let mut server = Server::new(dir, "checkin: {interval: 1s}", &policy);
    server.start();
    let program = dir.join("vigo-envoy");
    fs::copy(binary("vigo-envoy"), &program).unwrap();
    let envoy = Envoy::with_program(&dir.join("envoy"), program.clone());
    envoy.enroll(&server, NAME);
    Site { server, envoy, program }
}

/// Another program in the place of the daemon's, whole or not at all, as package managers do it.
fn replace(program: &Path, content: &[u8], mode: u32) {
    let new = program.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, program).unwrap();
}

/// A program that notes its process, then is an agent.
fn newer(site: &Site, notes: &str) -> String {
    let dir = site.program.parent().unwrap().display();
    format!("#!/bin/sh\necho $$ >>'{dir}/{notes}'\nexec '{}' \"$@\"\n", binary("vigo-envoy").display())
}

impl Site {
    fn runs(&self) -> Vec<Value> {
        self.server.cli(&["runs", NAME])["runs"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until a newer program has noted that it is this process, once.
    fn noted(&self, notes: &str) {
        let path = self.program.with_file_name(notes);
        let text = wait_for("the newer program", || fs::read_to_string(&path).map_err(|_| self.envoy.log()));
        assert_eq!(text, format!("{}\n", self.envoy.id()));
    }

    fn logged(&self, text: &str) {
        wait_for(text, || if self.envoy.log().contains(text) { Ok(()) } else { Err(self.envoy.log()) });
    }

    fn makes(&self, content: &str) {
        self.server.publish(&[("envoys/all.vgo", &mapping(content))]);
        let wanted = format!("{content}\n");
        let made = || fs::read_to_string(self.envoy.path("after")).is_ok_and(|text| text == wanted);
        wait_for("the next policy", || if made() { Ok(()) } else { Err(self.envoy.log()) });
    }
}

#[test]
fn an_upgrade_in_a_run_lets_it_end_and_the_new_program_goes_on_in_the_same_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path());
    let script = newer(&site, "renewed");
    fs::write(dir.path().join("newer"), script).unwrap();
    let (program, newer) = (site.program.display(), dir.path().join("newer"));
    let upgrade = format!(
        "cp '{newer}' '{program}.new' && chmod 755 '{program}.new' && mv -f '{program}.new' '{program}' || exit 1\n\
         until test -s pid; do sleep 0.1; done\n\
         kill -HUP $(cat pid) && touch upgraded\n\
         until test -e go; do sleep 0.1; done\n",
        newer = newer.display()
    );
    fs::write(site.envoy.path("upgrade.sh"), upgrade).unwrap();
    // Its own child cannot know the process before it is there.
    site.envoy.start();
    fs::write(site.envoy.path("pid"), site.envoy.id().to_string()).unwrap();
    wait_until("the upgrade", || site.envoy.path("upgraded").exists().then_some(()));
    site.logged("configuration read again");
    assert!(!dir.path().join("renewed").exists() && !site.envoy.path("after").exists(), "the run goes on");
    fs::write(site.envoy.path("go"), "").unwrap();
    site.noted("renewed");
    site.makes("two");

    // The run in which it happened came to its end, and is told of once.
    let upgrades = |runs: &[Value]| runs.iter().filter(|run| run["changed"] == 3).count();
    wait_until("the run", || (upgrades(&site.runs()) == 1).then_some(()));
    let runs = site.runs();
    assert!(runs.iter().all(|run| run["failed"] == 0 && run["blocked"] == 0), "{runs:#?}");
    site.envoy.stop();
    assert_eq!(upgrades(&site.runs()), 1, "{:#?}", site.runs());
}

#[test]
fn a_program_that_cannot_be_executed_leaves_the_old_one_running() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path());
    fs::write(site.envoy.path("upgraded"), "").unwrap();
    site.envoy.start();
    site.makes("two");

    fs::remove_file(&site.program).unwrap();
    site.envoy.signal(Signal::SIGHUP);
    site.logged("vigo-envoy cannot be executed: No such file or directory; the agent goes on as it is");
    site.makes("three");
    // As of another architecture.
    replace(&site.program, b"\x7fELF\x01\x02\x01", 0o755);
    site.envoy.signal(Signal::SIGHUP);
    site.logged("vigo-envoy cannot be executed: Exec format error");
    site.makes("four");
    replace(&site.program, newer(&site, "renewed").as_bytes(), 0o644);
    site.envoy.signal(Signal::SIGHUP);
    site.logged("vigo-envoy cannot be executed: Permission denied");
    site.makes("five");
    // Settings that do not read keep a good program from being started with them.
    fs::set_permissions(&site.program, fs::Permissions::from_mode(0o755)).unwrap();
    let yaml = site.envoy.dir.join("envoy.yaml");
    let good = fs::read_to_string(&yaml).unwrap();
    fs::write(&yaml, "server: wrong\n").unwrap();
    site.envoy.signal(Signal::SIGHUP);
    site.logged("the configuration stays as it was");
    site.makes("six");

    fs::write(&yaml, good).unwrap();
    site.envoy.signal(Signal::SIGHUP);
    site.noted("renewed");
    site.makes("seven");
    // The newest start is what is executed next.
    site.envoy.signal(Signal::SIGHUP);
    site.makes("eight");
    let incidents = site.server.log();
    assert!(!incidents.contains("fork"), "{incidents}");
    site.envoy.stop();
}
