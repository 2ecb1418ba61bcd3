//! Cases of `container`. The engine is played by a script that keeps its containers as files and logs how it was called: no real
//! podman or docker runs in this test. Real podman is driven by a test of processes, `ci/e2e/tests/containers.rs`.

use std::collections::BTreeMap;
use std::fs;

use common::bundle::{Resource, Value};
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine, Skipped};

use super::sandbox::{Params, Sandbox, resource, text};
use super::suite::{refused, settles};
use crate::report::ResourceReport;

/// Containers are directories in `/engine`, images files in `/images`; `/engine-fails` names a call that fails.
const ENGINE: &str = r#"
E=$R/engine
for last; do :; done
[ -e $R/engine-fails ] && read fails < $R/engine-fails
[ "$fails" = "$1" ] && { echo "Error: $1 does not work today" >&2; exit 125; }
need() { [ -d $E/$1 ] || { echo "Error: No such container: $1" >&2; exit 1; }; }
case $1 in
container)
  need $5; read running < $E/$5/running; read image < $E/$5/image; read hash < $E/$5/hash
  echo "$running $image $hash";;
image)
  [ -e $R/images/$5 ] || { echo "Error: No such image: $5" >&2; exit 1; }
  /bin/cat $R/images/$5;;
create)
  : > $R/environment
  for a; do case $a in --env-file=/dev/stdin) /bin/cat > $R/environment;; esac; done
  for a; do case $a in --name=*) n=${a#--name=};; --label=vigo.description=*) h=${a#*description=};; esac; done
  shift; while [ "$1" != -- ]; do shift; done
  [ -e $R/images/$2 ] || { echo "Error: pull access denied for $2" >&2; exit 125; }
  [ -d $E/$n ] && { echo "Error: the name $n is in use" >&2; exit 125; }
  /bin/mkdir -p $E/$n; echo false > $E/$n/running; /bin/cat $R/images/$2 > $E/$n/image; echo $h > $E/$n/hash;;
start|restart) need $2; echo true > $E/$2/running;;
stop) need $2; echo false > $E/$2/running;;
rename) need $2; /bin/mv $E/$2 $E/$3;;
rm) need $last; /bin/rm -rf $E/$last;;
esac
exit 0
"#;

pub fn engine() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.live = true;
    sandbox.write("/images/nginx:1", "sha256:aaa\n");
    sandbox.write("/images/nginx:2", "sha256:bbb\n");
    fs::create_dir(sandbox.at("/engine")).unwrap();
    sandbox.fake_tool("podman", ENGINE);
    sandbox
}

pub fn asked(more: &[(&'static str, Value)]) -> Params {
    let mut params: Params = vec![("container", text("web")), ("image", text("nginx:1"))];
    params.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    params.into_iter().chain(more.iter().cloned()).collect()
}

fn is_running(sandbox: &Sandbox, name: &str) -> Option<bool> {
    fs::read_to_string(sandbox.at("/engine").join(name).join("running")).ok().map(|text| text.trim() == "true")
}

fn notified(sandbox: &Sandbox, params: &Params) -> ResourceReport {
    let first = Resource { notify: vec![1], ..resource("conf", "exec", &vec![("command", text("true"))]) };
    sandbox.run_all(vec![first, resource("r", "container", params)]).resources.remove(1)
}

#[test]
fn a_container_is_created_runs_and_goes() {
    let sandbox = engine();
    settles(&sandbox, "container", &asked(&[]), "would create: from nginx:1");
    assert_eq!(is_running(&sandbox, "web"), Some(true));
    let calls = sandbox.calls();
    assert!(calls.contains("podman create --name=web --label=vigo.description="), "{calls}");
    assert!(calls.contains("podman start web\n"), "{calls}");
    let gone = vec![("container", text("web")), ("state", text("absent"))];
    settles(&sandbox, "container", &gone, "would remove");
    assert_eq!(is_running(&sandbox, "web"), None);
}

#[test]
fn what_stopped_is_started_and_what_should_not_run_is_stopped() {
    let sandbox = engine();
    sandbox.expect("container", &asked(&[("state", text("stopped"))]), Changed);
    assert_eq!(is_running(&sandbox, "web"), Some(false));
    sandbox.expect("container", &asked(&[("state", text("stopped"))]), Fine);
    assert_eq!(sandbox.expect("container", &asked(&[]), Changed).message, "changed: was not running");
    let report = sandbox.expect("container", &asked(&[("state", text("stopped"))]), Changed);
    assert_eq!(report.message, "changed: was running");
    assert!(!sandbox.calls().contains("rename"));
}

#[test]
fn every_parameter_reaches_the_engine() {
    let sandbox = engine();
    let list = |items: &[&str]| Value::List(items.iter().map(|item| text(item)).collect());
    let map = |name: &str, value: &str| Value::Map(BTreeMap::from([(name.to_string(), text(value))]));
    sandbox.expect(
        "container",
        &asked(&[
            ("command", list(&["nginx", "-g", "daemon off;"])),
            ("ports", list(&["8080:80", "127.0.0.1:8443:443"])),
            ("volumes", text("/srv/www:/www:ro")),
            ("environment", map("PATH", "s3cret '$x'")),
            ("labels", map("team", "web")),
            ("network", text("front")),
            ("restart", text("unless-stopped")),
            ("user", text("1000:1000")),
            ("hostname", text("web-1")),
            ("options", list(&["--read-only"])),
            ("pull", text("never")),
        ]),
        Changed,
    );
    let calls = sandbox.calls();
    let create = calls.lines().find(|line| line.contains(" create ")).unwrap();
    let (_, rest) = create.split_once("--pull=never ").unwrap();
    let expected = "--restart=unless-stopped --network=front --user=1000:1000 --hostname=web-1 --publish=8080:80 \
                    --publish=127.0.0.1:8443:443 --volume=/srv/www:/www:ro --label=team=web --read-only --env-file=/dev/stdin \
                    -- nginx:1 nginx -g daemon off;";
    assert_eq!(rest, expected);
    // A value never stands among the arguments, where every user of the host could read it.
    assert!(!calls.contains("s3cret"), "{calls}");
    assert_eq!(sandbox.read("/environment"), "PATH=s3cret '$x'\n");
}

#[test]
fn another_description_replaces_it_and_the_old_one_stops_late() {
    let sandbox = engine();
    sandbox.expect("container", &asked(&[]), Changed);
    for more in [
        ("image", text("nginx:2")),
        ("ports", text("80:80")),
        ("command", text("x")),
        ("environment", Value::Map(BTreeMap::from([("A".to_string(), text("b"))]))),
        ("environment", Value::Map(BTreeMap::from([("A".to_string(), text("c"))]))),
    ] {
        sandbox.calls();
        settles(&sandbox, "container", &asked(&[more]), "was made of something else");
        let calls = sandbox.calls();
        let at = |what: &str| calls.find(what).unwrap_or_else(|| panic!("{what}: {calls}"));
        assert!(at(" create ") < at(" stop web") && at(" stop web") < at(" start web"), "{calls}");
        assert_eq!(fs::read_dir(sandbox.at("/engine")).unwrap().count(), 1, "something was left behind");
        assert_eq!(is_running(&sandbox, "web"), Some(true));
    }
}

#[test]
fn an_image_that_was_pulled_anew_replaces_it() {
    let sandbox = engine();
    sandbox.expect("container", &asked(&[]), Changed);
    sandbox.write("/images/nginx:1", "ccc\n");
    settles(&sandbox, "container", &asked(&[]), "nginx:1 is another image now");
    // The same number, written in the other way.
    sandbox.write("/images/nginx:1", "sha256:ccc\n");
    sandbox.expect("container", &asked(&[]), Fine);
    // An image that was removed is no difference: the container has it still.
    fs::remove_file(sandbox.at("/images/nginx:1")).unwrap();
    sandbox.expect("container", &asked(&[]), Fine);
}

#[test]
fn a_container_of_somebody_else_is_told_from_ours() {
    let sandbox = engine();
    sandbox.write("/engine/web/running", "true\n");
    sandbox.write("/engine/web/image", "sha256:aaa\n");
    sandbox.write("/engine/web/hash", "<no value>\n");
    settles(&sandbox, "container", &asked(&[]), "was made by somebody else");
}

#[test]
fn a_replacement_that_fails_leaves_the_old_one_running() {
    let sandbox = engine();
    sandbox.expect("container", &asked(&[]), Changed);
    let hash = sandbox.read("/engine/web/hash");
    for (call, image) in [("create", "nginx:2"), ("stop", "nginx:2"), ("rename", "nginx:2"), ("", "nope:1")] {
        sandbox.write("/engine-fails", &format!("{call}\n"));
        sandbox.expect("container", &asked(&[("image", text(image))]), Failed);
        fs::remove_file(sandbox.at("/engine-fails")).unwrap();
        assert_eq!(
            (is_running(&sandbox, "web"), sandbox.read("/engine/web/hash")),
            (Some(true), hash.clone()),
            "{call}"
        );
        assert_eq!(is_running(&sandbox, "web-vigo-new"), None, "{call}");
    }
    // The new one does not start: the old one is back.
    let picky = ENGINE
        .replace("start|restart) need $2;", "start|restart) need $2; read h < $E/$2/hash; [ $h = $OLD ] || exit 1;");
    let mut sandbox = sandbox;
    sandbox.fake_tool("podman", &format!("OLD={}{picky}", hash.trim()));
    sandbox.expect("container", &asked(&[("image", text("nginx:2"))]), Failed);
    assert_eq!((is_running(&sandbox, "web"), sandbox.read("/engine/web/hash")), (Some(true), hash));
    assert_eq!(fs::read_dir(sandbox.at("/engine")).unwrap().count(), 1, "something was left behind");
}

#[test]
fn rests_of_a_killed_agent_do_not_matter() {
    let sandbox = engine();
    sandbox.expect("container", &asked(&[]), Changed);
    for rest in ["web-vigo-new", "web-vigo-old"] {
        sandbox.write(&format!("/engine/{rest}/running"), "false\n");
    }
    sandbox.expect("container", &asked(&[("image", text("nginx:2"))]), Changed);
    assert_eq!(fs::read_dir(sandbox.at("/engine")).unwrap().count(), 1);
    // It was killed between the two names.
    fs::rename(sandbox.at("/engine/web"), sandbox.at("/engine/web-vigo-old")).unwrap();
    sandbox.expect("container", &asked(&[("image", text("nginx:2"))]), Changed);
    assert_eq!(fs::read_dir(sandbox.at("/engine")).unwrap().count(), 1);
    assert_eq!(is_running(&sandbox, "web"), Some(true));
}

#[test]
fn a_notification_restarts_or_looks_for_a_new_image() {
    let sandbox = engine();
    assert_eq!(notified(&sandbox, &asked(&[])).message, "created: from nginx:1");
    assert_eq!(notified(&sandbox, &asked(&[])).message, "changed: restart, as notified");
    assert!(sandbox.calls().contains("podman restart web\n"));
    let pull = asked(&[("pull", text("always"))]);
    sandbox.expect("container", &pull, Fine);
    sandbox.calls();
    assert_eq!(notified(&sandbox, &pull).message, "changed: a new image is looked for, as notified");
    assert!(sandbox.calls().contains("--pull=always"));
    let stopped = asked(&[("state", text("stopped"))]);
    sandbox.expect("container", &stopped, Changed);
    assert_eq!(notified(&sandbox, &stopped).outcome, Fine);
}

#[test]
fn an_engine_that_cannot_be_reached_blocks() {
    let mut sandbox = engine();
    for (words, outcome) in [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", Blocked),
        ("toomanyrequests: You have reached your pull rate limit", Blocked),
        ("permission denied", Failed),
    ] {
        sandbox.fake_tool("podman", &format!("echo '{words}' >&2; exit 1"));
        let report = sandbox.expect("container", &asked(&[]), outcome);
        assert!(report.message.contains(words), "{}", report.message);
    }
    sandbox.fake_tool("podman", "while :; do /bin/sleep 1; done");
    let slow = Resource { timeout_ms: 300, ..resource("r", "container", &asked(&[])) };
    let report = sandbox.run_all(vec![slow]).resources.remove(0);
    assert!(report.message.contains("took longer than the timeout"), "{}", report.message);
    sandbox.fake_tool("podman", "printf '\\377\\376'");
    sandbox.expect("container", &asked(&[]), Failed);
}

#[test]
fn the_engine_that_is_asked_for_is_used() {
    let mut sandbox = engine();
    sandbox.fake_tool("docker", ENGINE);
    sandbox.expect("container", &asked(&[("engine", text("docker"))]), Changed);
    assert!(!sandbox.calls().contains("podman"));
    sandbox.expect("container", &asked(&[]), Fine);
    assert!(!sandbox.calls().contains("docker"));
    fs::remove_file(sandbox.at("/tools/podman")).unwrap();
    sandbox.expect("container", &asked(&[]), Fine);
    let podman = asked(&[("engine", text("podman"))]);
    assert!(sandbox.expect("container", &podman, Failed).message.contains("neither podman nor docker"));
    assert_eq!(sandbox.look("container", &podman).message, "would create: no engine is installed yet");
}

#[test]
fn bad_parameters_are_named_and_a_sysroot_has_no_containers() {
    let mut sandbox = engine();
    let cases = [
        (vec![("image", text("x"))], "needs the parameter `container`"),
        (vec![("container", text("web"))], "needs the parameter `image`"),
        (asked(&[("container", text("--privileged"))]), "does not start with a dash"),
        (asked(&[("image", text("--privileged"))]), "the name of an image"),
        (asked(&[("image", text("a b"))]), "the name of an image"),
        (asked(&[("environment", text("A=b"))]), "a mapping of names to texts"),
        (
            asked(&[("environment", Value::Map(BTreeMap::from([("A".to_string(), text("b\nEVIL=1"))])))]),
            "A must be a name and one line",
        ),
        (asked(&[("state", text("paused"))]), "`running` or `stopped` or `absent`"),
        (asked(&[("engine", text("lxc"))]), "`podman` or `docker`"),
        (asked(&[("pull", text("sometimes"))]), "`missing` or `always` or `never`"),
        (asked(&[("prots", text("80"))]), "did you mean `ports`?"),
    ];
    refused(&sandbox, "container", &cases);
    sandbox.live = false;
    let report = sandbox.expect("container", &asked(&[]), Skipped);
    assert!(report.message.contains("it has no containers"), "{}", report.message);
    assert_eq!(sandbox.calls(), "");
}
