//! Cases of `service`. Init systems are played: their files by files, their tools and scripts by scripts that log how they were
//! called and change those files.

use std::fs;
use std::os::unix::fs::symlink;

use common::bundle::{Resource, Value};
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine};

use super::sandbox::{Params, Sandbox, mode, resource, set_mode, text};
use super::suite::{refused, settles};

const SYSTEMCTL: &str = r#"
for u; do :; done
s=$R/run/systemd/units/invocation:$u
g=$R/sys/fs/cgroup/system.slice/$u
up() { case $u in *.socket) : > $R/tools/active-$u; return;; esac; /bin/ln -sfn x $s; /bin/mkdir -p $g; echo populated 1 > $g/cgroup.events; }
down() { /bin/rm -rf $s $g; }
case $1 in
show)
  loaded=not-found; active=inactive
  [ -e $R/etc/systemd/system/$u ] && loaded=loaded
  [ -e $R/lib/systemd/system/$u ] && loaded=loaded
  [ -L $s ] && active=active
  [ -e $R/tools/active-$u ] && active=active
  echo LoadState=$loaded; echo ActiveState=$active; /bin/cat $R/tools/extra 2>/dev/null;;
is-enabled) /bin/cat $R/tools/enabled; exit 1;;
enable) /bin/ln -sfn /lib/systemd/system/$u $R/etc/systemd/system/multi-user.target.wants/$u;;
disable) /bin/rm -f $R/etc/systemd/system/multi-user.target.wants/$u;;
start|restart|reload-or-restart) up;;
stop) down;;
daemon-reload) /bin/rm -f $R/tools/extra;;
esac
exit 0
"#;

pub fn systemd() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.live = true;
    let folders = ["/run/systemd/system", "/run/systemd/units", "/etc/systemd/system/multi-user.target.wants"];
    folders.iter().for_each(|folder| fs::create_dir_all(sandbox.at(folder)).unwrap());
    symlink("0", sandbox.at("/run/systemd/units/invocation:dbus.service")).unwrap();
    sandbox.write("/lib/systemd/system/nginx.service", "[Service]\n");
    sandbox.write("/tools/enabled", "disabled\n");
    sandbox.fake_tool("systemctl", SYSTEMCTL);
    sandbox
}

fn asked(more: &[(&'static str, Value)]) -> Params {
    [("service", text("nginx"))].into_iter().chain(more.iter().cloned()).collect()
}

pub fn running() -> Params {
    asked(&[("state", text("running")), ("enabled", Value::Bool(true))])
}

fn stopped() -> Params {
    asked(&[("state", text("stopped")), ("enabled", Value::Bool(false))])
}

/// A change of the first notifies the second.
fn notified(sandbox: &Sandbox, params: &Params) -> crate::report::ResourceReport {
    let notifier = vec![("command", text("true"))];
    let first = Resource { notify: vec![1], ..resource("conf", "exec", &notifier) };
    let report = sandbox.run_all(vec![first, resource("svc", "service", params)]);
    report.resources.into_iter().next_back().unwrap()
}

#[test]
fn services_of_systemd_run_and_are_enabled() {
    let sandbox = systemd();
    settles(&sandbox, "service", &running(), "was not running, was not enabled");
    let calls = sandbox.calls();
    assert!(calls.contains("systemctl enable -- nginx.service\n"), "{calls}");
    assert!(calls.contains("systemctl start -- nginx.service\n"), "{calls}");
    settles(&sandbox, "service", &stopped(), "was running, was enabled");
    let calls = sandbox.calls();
    assert!(calls.contains("systemctl stop -- nginx.service\n"), "{calls}");
    assert!(calls.contains("systemctl disable -- nginx.service\n"), "{calls}");
}

#[test]
fn what_is_as_it_should_be_needs_no_process_to_be_seen() {
    let sandbox = systemd();
    sandbox.expect("service", &running(), Changed);
    sandbox.calls();
    sandbox.expect("service", &running(), Fine);
    assert_eq!(sandbox.calls(), "");
    sandbox.expect("service", &stopped(), Changed);
    sandbox.calls();
    sandbox.expect("service", &stopped(), Fine);
    assert_eq!(sandbox.calls(), "");
    // A oneshot that stays active has no processes: only systemd knows.
    symlink("x", sandbox.at("/run/systemd/units/invocation:nginx.service")).unwrap();
    sandbox.expect("service", &asked(&[("state", text("running"))]), Fine);
    assert!(sandbox.calls().starts_with("systemctl show"));
    // An old systemd keeps no such links at all.
    fs::remove_dir_all(sandbox.at("/run/systemd/units")).unwrap();
    fs::create_dir(sandbox.at("/run/systemd/units")).unwrap();
    sandbox.expect("service", &asked(&[("state", text("stopped"))]), Fine);
    assert!(sandbox.calls().starts_with("systemctl show"));
}

#[test]
fn one_aspect_leaves_the_other_alone() {
    let sandbox = systemd();
    sandbox.expect("service", &asked(&[("enabled", Value::Bool(true))]), Changed);
    assert!(!sandbox.at("/run/systemd/units/invocation:nginx.service").is_symlink());
    sandbox.expect("service", &asked(&[("state", text("started"))]), Changed);
    sandbox.expect("service", &asked(&[("enabled", Value::Bool(false))]), Changed);
    sandbox.expect("service", &asked(&[("state", text("running"))]), Fine);
    sandbox.expect("service", &asked(&[]), Fine);
}

#[test]
fn a_notification_restarts_or_reloads_what_runs_and_only_that() {
    let sandbox = systemd();
    // What is started now has read everything.
    assert_eq!(notified(&sandbox, &running()).message, "changed: was not running, was not enabled");
    assert!(!sandbox.calls().contains("restart"));
    let report = notified(&sandbox, &running());
    assert_eq!((report.outcome, report.message.as_str()), (Changed, "changed: restart, as notified"));
    assert!(sandbox.calls().contains("systemctl restart -- nginx.service\n"));
    let reloaded = asked(&[("state", text("reloaded"))]);
    assert_eq!(notified(&sandbox, &reloaded).message, "changed: reload, as notified");
    assert!(sandbox.calls().contains("systemctl reload-or-restart -- nginx.service\n"));
    for state in ["restarted", "reloaded"] {
        sandbox.expect("service", &asked(&[("state", text(state))]), Fine);
    }
    assert_eq!(sandbox.calls(), "");
    sandbox.expect("service", &stopped(), Changed);
    sandbox.calls();
    assert_eq!(notified(&sandbox, &stopped()).outcome, Fine);
    assert_eq!(notified(&sandbox, &asked(&[])).outcome, Fine);
    assert!(!sandbox.calls().contains("start"));
}

#[test]
fn units_that_changed_on_disk_are_read_before_they_are_started() {
    let sandbox = systemd();
    sandbox.write("/tools/extra", "NeedDaemonReload=yes\n");
    sandbox.expect("service", &running(), Changed);
    let calls = sandbox.calls();
    let at = |what: &str| calls.find(what).unwrap_or_else(|| panic!("{what}: {calls}"));
    assert!(at("systemctl daemon-reload") < at("systemctl start"), "{calls}");
}

#[test]
fn aliases_instances_and_other_kinds_of_units_are_recognised() {
    let sandbox = systemd();
    sandbox.expect("service", &running(), Changed);
    symlink("/lib/systemd/system/nginx.service", sandbox.at("/etc/systemd/system/www.service")).unwrap();
    sandbox.calls();
    sandbox.expect("service", &vec![("service", text("www")), ("state", text("running"))], Fine);
    assert_eq!(sandbox.calls(), "");
    sandbox.write("/lib/systemd/system/vpn@.service", "[Service]\n");
    let instance = vec![("service", text("vpn@office")), ("state", text("running"))];
    settles(&sandbox, "service", &instance, "was not running");
    assert!(sandbox.calls().contains("start -- vpn@office.service\n"));
    sandbox.write("/lib/systemd/system/ssh.socket", "[Socket]\n");
    settles(&sandbox, "service", &vec![("service", text("ssh.socket")), ("state", text("running"))], "was not running");
    assert!(sandbox.calls().contains("start -- ssh.socket\n"));
    fs::remove_file(sandbox.at("/etc/systemd/system/www.service")).unwrap();
    // Nobody can enable a static unit; others start it.
    sandbox.expect("service", &stopped(), Changed);
    sandbox.write("/tools/enabled", "static\n");
    sandbox.expect("service", &asked(&[("enabled", Value::Bool(true))]), Fine);
    sandbox.write("/tools/enabled", "masked\n");
    sandbox.expect("service", &asked(&[("enabled", Value::Bool(true))]), Changed);
}

#[test]
fn failures_say_what_systemd_said() {
    let mut sandbox = systemd();
    sandbox.fake_tool(
        "systemctl",
        "case $1 in show) echo ActiveState=failed;; start) echo 'Job for nginx.service failed.' >&2; exit 1;; esac",
    );
    let report = sandbox.expect("service", &asked(&[("state", text("running"))]), Failed);
    assert_eq!(report.message, "`systemctl` exited with 1:\nJob for nginx.service failed.");
    assert!(sandbox.calls().contains("systemctl reset-failed -- nginx.service\n"));
    sandbox.fake_tool("journalctl", "echo 'nginx: no such file: /etc/nginx.conf'");
    let report = sandbox.expect("service", &asked(&[("state", text("running"))]), Failed);
    assert!(report.message.ends_with("it said last:\nnginx: no such file: /etc/nginx.conf"), "{}", report.message);
    sandbox.fake_tool("systemctl", "exit 0");
    let report = sandbox.expect("service", &asked(&[("state", text("running"))]), Failed);
    assert!(report.message.contains("still differs"), "{}", report.message);
    sandbox.fake_tool("systemctl", "[ $1 = show ] || { echo Resource temporarily unavailable >&2; exit 1; }");
    sandbox.expect("service", &asked(&[("state", text("running"))]), Blocked);
    fs::remove_file(sandbox.at("/tools/systemctl")).unwrap();
    let report = sandbox.expect("service", &asked(&[("state", text("running"))]), Failed);
    assert!(report.message.contains("`systemctl` is not installed"), "{}", report.message);
}

#[test]
fn a_service_that_hangs_is_ended_at_the_deadline() {
    let mut sandbox = systemd();
    sandbox.fake_tool("systemctl", "[ $1 = show ] || { trap '' TERM; while :; do /bin/sleep 1; done; }");
    let params = asked(&[("state", text("running"))]);
    let slow = Resource { timeout_ms: 300, ..resource("svc", "service", &params) };
    let report = sandbox.run_all(vec![slow]).resources.remove(0);
    assert_eq!(report.outcome, Failed);
    assert!(report.message.contains("took longer than the timeout"), "{}", report.message);
}

#[test]
fn services_that_do_not_exist_are_named_and_gone_ones_are_as_good_as_stopped() {
    let sandbox = systemd();
    let nope = |more: &[(&'static str, Value)]| -> Params {
        [("service", text("nope"))].into_iter().chain(more.iter().cloned()).collect()
    };
    let report = sandbox.expect("service", &nope(&[("state", text("running"))]), Failed);
    assert!(report.message.contains("there is no service `nope` on this host"), "{}", report.message);
    let report = sandbox.look("service", &nope(&[("enabled", Value::Bool(true))]));
    assert_eq!(report.message, "would change: it is not installed yet");
    sandbox.expect("service", &nope(&[("state", text("stopped")), ("enabled", Value::Bool(false))]), Fine);
    assert_eq!(notified(&sandbox, &nope(&[])).outcome, Fine);
}

#[test]
fn bad_names_and_the_agent_itself_are_refused() {
    let mut sandbox = systemd();
    refused(
        &sandbox,
        "service",
        &[
            (vec![], "needs the parameter `service`"),
            (vec![("service", text("--force"))], "does not start with a dash"),
            (vec![("service", text("../x"))], "a name of letters"),
            (vec![("service", text("a b"))], "a name of letters"),
            (asked(&[("state", text("run"))]), "`running` or `stopped`"),
            (asked(&[("enabled", text("yes"))]), "true or false"),
            (asked(&[("enable", Value::Bool(true))]), "did you mean `enabled`?"),
        ],
    );
    sandbox.write("/lib/systemd/system/vigo-envoy.service", "[Service]\n");
    let own = |state: &str| vec![("service", text("vigo-envoy")), ("state", text(state))];
    sandbox.protected = vec![sandbox.at("/usr/bin/vigo-envoy")];
    sandbox.expect("service", &own("running"), Changed);
    let report = sandbox.expect("service", &own("stopped"), Failed);
    assert!(report.message.contains("allow_self"), "{}", report.message);
    assert!(notified(&sandbox, &own("running")).message.contains("allow_self"));
    let disabled = vec![("service", text("vigo-envoy.service")), ("enabled", Value::Bool(true))];
    sandbox.expect("service", &disabled, Changed);
    let disabled = vec![("service", text("vigo-envoy.service")), ("enabled", Value::Bool(false))];
    assert!(sandbox.expect("service", &disabled, Failed).message.contains("allow_self"));
    sandbox.allow_self = true;
    sandbox.expect("service", &own("stopped"), Changed);
}

#[test]
fn hostile_files_are_no_evidence() {
    let sandbox = systemd();
    // A group that is a FIFO, a huge sparse file, bytes that are no text: systemd is asked instead, nothing hangs.
    symlink("x", sandbox.at("/run/systemd/units/invocation:nginx.service")).unwrap();
    let group = sandbox.at("/sys/fs/cgroup/system.slice/nginx.service");
    fs::create_dir_all(&group).unwrap();
    let events = group.join("cgroup.events");
    let make: [fn(&std::path::Path); 3] = [
        super::sandbox::fifo,
        |path| fs::File::create(path).unwrap().set_len(1 << 30).unwrap(),
        |path| fs::write(path, b"\xff\xfe populated 1").unwrap(),
    ];
    for arrange in make {
        arrange(&events);
        sandbox.calls();
        sandbox.expect("service", &asked(&[("state", text("running"))]), Fine);
        assert!(sandbox.calls().starts_with("systemctl show"));
        fs::remove_file(&events).unwrap();
    }
    symlink("/nowhere", sandbox.at("/etc/systemd/system/loop.wants")).unwrap();
    sandbox.expect("service", &asked(&[("enabled", Value::Bool(true))]), Changed);
}

#[test]
fn in_a_sysroot_only_the_next_start_is_settled() {
    let mut sandbox = systemd();
    sandbox.live = false;
    fs::remove_dir_all(sandbox.at("/run")).unwrap();
    sandbox.write("/usr/lib/systemd/systemd", "");
    sandbox.fake_tool("systemctl", &SYSTEMCTL.replace("case $1", "shift; case $1"));
    sandbox.expect("service", &running(), Changed);
    let root = format!("--root={}", sandbox.dir.path().canonicalize().unwrap().display());
    assert!(sandbox.calls().contains(&format!("systemctl {root} enable -- nginx.service\n")));
    assert!(!sandbox.at("/run").exists());
    let report = sandbox.run_all(vec![resource("svc", "service", &running())]);
    assert_eq!(report.resources[0].outcome, Fine);
    assert!(report.notes[0].contains("neither started nor stopped"), "{:?}", report.notes);
}

fn openrc() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.live = true;
    for folder in
        ["/run/openrc/started", "/run/openrc/daemons", "/etc/runlevels/default", "/etc/runlevels/boot", "/proc/77"]
    {
        fs::create_dir_all(sandbox.at(folder)).unwrap();
    }
    sandbox.write("/etc/init.d/nginx", "#!/sbin/openrc-run\n");
    sandbox.write("/proc/77/stat", "77 (nginx) S");
    sandbox.fake_tool(
        "rc-service",
        r#"
case $2 in
start|restart) /bin/ln -sfn x $R/run/openrc/started/$1; /bin/mkdir -p $R/run/openrc/daemons/$1
  printf 'exec=/x\npidfile=/run/nginx.pid\n' > $R/run/openrc/daemons/$1/001; echo 77 > $R/run/nginx.pid;;
stop|zap) /bin/rm -rf $R/run/openrc/started/$1 $R/run/openrc/daemons/$1;;
reload) echo "nginx: unknown function reload" >&2; exit 1;;
esac"#,
    );
    sandbox
}

#[test]
fn services_of_openrc_are_links_and_only_acting_takes_a_process() {
    let sandbox = openrc();
    settles(&sandbox, "service", &running(), "was not running, was not enabled");
    assert_eq!(sandbox.calls(), "rc-service nginx start\n");
    let link = fs::read_link(sandbox.at("/etc/runlevels/default/nginx")).unwrap();
    assert_eq!(link, std::path::Path::new("/etc/init.d/nginx"));
    // Its daemon was killed: it is not what it says it is.
    sandbox.write("/run/nginx.pid", "78\n");
    assert_eq!(sandbox.expect("service", &running(), Changed).message, "changed: was not running");
    assert_eq!(sandbox.calls(), "rc-service nginx zap\nrc-service nginx start\n");
    assert_eq!(notified(&sandbox, &asked(&[("state", text("reloaded"))])).outcome, Changed);
    assert_eq!(sandbox.calls(), "rc-service nginx reload\nrc-service nginx restart\n");
    // Debian's tools keep no record of daemons: the script names the PID file.
    fs::remove_dir_all(sandbox.at("/run/openrc/daemons/nginx")).unwrap();
    sandbox.write("/etc/init.d/nginx", "#!/sbin/openrc-run\npidfile=\"/run/${RC_SVCNAME}.pid\"\n");
    sandbox.expect("service", &running(), Fine);
    sandbox.write("/run/nginx.pid", "78\n");
    sandbox.expect("service", &running(), Changed);
    fs::remove_dir_all(sandbox.at("/run/openrc/daemons/nginx")).unwrap();
    fs::remove_file(sandbox.at("/run/nginx.pid")).unwrap();
    sandbox.calls();
    sandbox.expect("service", &running(), Fine);
    assert_eq!(sandbox.calls(), "");
    let boot = asked(&[("enabled", Value::Bool(true)), ("runlevel", text("boot"))]);
    settles(&sandbox, "service", &boot, "was not enabled");
    settles(&sandbox, "service", &stopped(), "was running, was enabled");
    assert!(
        !sandbox.at("/etc/runlevels/default/nginx").is_symlink()
            && !sandbox.at("/etc/runlevels/boot/nginx").is_symlink()
    );
}

#[test]
fn openrc_is_asked_for_scripts_of_sysv() {
    let mut sandbox = openrc();
    sandbox.write("/etc/init.d/nginx", "#!/bin/sh\n");
    sandbox.fake_tool(
        "rc-service",
        "case $2 in start) : > $R/run/up;; stop) /bin/rm $R/run/up;; status) [ -e $R/run/up ] || exit 3;; esac",
    );
    settles(&sandbox, "service", &running(), "was not running, was not enabled");
    settles(&sandbox, "service", &stopped(), "was running, was enabled");
}

const SCRIPT: &str = r#"#!/bin/sh
echo script $1 >> ROOT/tools/log
case $1 in
start|restart) echo 77 > ROOT/run/nginx.pid;;
stop) rm -f ROOT/run/nginx.pid;;
status|running) STATUS;;
*) echo "usage: $0 start|stop" >&2; exit 1;;
esac
"#;

fn scripts(path: &str, status: &str) -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.live = true;
    sandbox.search_path = Some(sandbox.at("/tools").display().to_string() + ":/usr/bin:/bin");
    sandbox.write("/tools/log", "");
    let root = sandbox.dir.path().display().to_string();
    sandbox.write(path, &SCRIPT.replace("ROOT", &root).replace("STATUS", status));
    set_mode(&sandbox.at(path), 0o755);
    for folder in ["/run", "/proc/77", "/etc/rc2.d", "/etc/rc3.d", "/etc/rc6.d"] {
        fs::create_dir_all(sandbox.at(folder)).unwrap();
    }
    sandbox.write("/proc/77/comm", "nginx\n");
    sandbox.write("/proc/77/status", "Name:\tnginx\nState:\tS (sleeping)\n");
    sandbox
}

#[test]
fn services_of_sysv_are_scripts_with_links_by_runlevel() {
    let mut sandbox =
        scripts("/etc/init.d/nginx", "[ -e ROOT/run/nginx.pid ] || exit 3".replace("ROOT", "$VIGO_SYSROOT").as_str());
    sandbox.search_path = Some("/usr/bin:/bin".to_string());
    settles(&sandbox, "service", &running(), "was not running, was not enabled");
    assert_eq!(fs::read_link(sandbox.at("/etc/rc3.d/S20nginx")).unwrap(), std::path::Path::new("../init.d/nginx"));
    assert!(!sandbox.at("/etc/rc6.d/S20nginx").is_symlink());
    // A PID file of a process of its name is enough.
    sandbox.calls();
    sandbox.expect("service", &running(), Fine);
    assert_eq!(sandbox.calls(), "");
    // One of another process is none.
    sandbox.write("/proc/77/comm", "other\n");
    sandbox.expect("service", &running(), Fine);
    assert_eq!(sandbox.calls(), "script status\n");
    sandbox.write("/proc/77/comm", "nginx\n");
    assert_eq!(notified(&sandbox, &asked(&[("state", text("reloaded"))])).outcome, Changed);
    assert_eq!(sandbox.calls(), "script reload\nscript restart\n");
    settles(&sandbox, "service", &stopped(), "was running, was enabled");
    assert!(!sandbox.at("/etc/rc3.d/S20nginx").is_symlink());
}

#[test]
fn tools_for_links_are_used_where_there_are_any() {
    let mut sandbox = scripts("/etc/init.d/nginx", "exit 3");
    sandbox.fake_tool(
        "update-rc.d",
        "case $2 in enable) /bin/ln -sfn ../init.d/$1 $R/etc/rc2.d/S01$1;; disable) /bin/rm -f $R/etc/rc2.d/S01$1;; esac",
    );
    settles(&sandbox, "service", &asked(&[("enabled", Value::Bool(true))]), "was not enabled");
    assert_eq!(sandbox.calls(), "update-rc.d nginx defaults\nupdate-rc.d nginx enable\n");
    settles(&sandbox, "service", &asked(&[("enabled", Value::Bool(false))]), "was enabled");
    assert_eq!(sandbox.calls(), "update-rc.d nginx disable\n");
}

#[test]
fn services_of_busybox_are_started_by_their_names_if_they_are_executable() {
    let sandbox = scripts("/etc/init.d/S50nginx", "echo usage >&2; exit 1");
    // The script knows no `status`: a process of its name runs.
    sandbox.expect("service", &asked(&[("state", text("running"))]), Fine);
    settles(&sandbox, "service", &asked(&[("enabled", Value::Bool(false))]), "was enabled");
    assert_eq!(mode(&sandbox.at("/etc/init.d/S50nginx")), 0o644);
    settles(&sandbox, "service", &asked(&[("enabled", Value::Bool(true))]), "was not enabled");
    assert_eq!(mode(&sandbox.at("/etc/init.d/S50nginx")), 0o755);
    fs::remove_dir_all(sandbox.at("/proc/77")).unwrap();
    sandbox.calls();
    let report = sandbox.expect("service", &asked(&[("state", text("running"))]), Failed);
    assert!(report.message.contains("no process is called `nginx`; give it a `status`"), "{}", report.message);
    assert_eq!(sandbox.calls(), "script status\nscript start\nscript status\n");
}

/// As on a small router: no `status`, no PID file, and a status of 0 for every word.
#[test]
fn a_script_that_takes_every_word_settles_by_the_process_of_its_service() {
    let sandbox = scripts("/etc/init.d/S50nginx", "exit 3");
    let root = sandbox.dir.path().display();
    let script = format!(
        "#!/bin/sh\necho script $1 >> {root}/tools/log\ncase \"$1\" in\n\
         start) mkdir -p {root}/proc/77; printf 'Name:\\tnginx\\nState:\\tS\\n' > {root}/proc/77/status;;\n\
         stop) rm -r {root}/proc/77;;\nrestart) $0 stop; $0 start;;\nesac\n"
    );
    sandbox.write("/etc/init.d/S50nginx", &script);
    fs::remove_dir_all(sandbox.at("/proc/77")).unwrap();
    settles(&sandbox, "service", &asked(&[("state", text("running"))]), "was not running");
    assert_eq!(sandbox.calls(), "script start\n", "it is never asked what it cannot tell");
    settles(&sandbox, "service", &asked(&[("state", text("stopped"))]), "was running");
    assert_eq!(sandbox.calls(), "script stop\n");
    // A daemon that does not come, and one that does not go.
    sandbox.write("/etc/init.d/S50nginx", "#!/bin/sh\ncase $1 in start|stop) exit 0;; esac\n");
    let report = sandbox.expect("service", &asked(&[("state", text("running"))]), Failed);
    assert!(report.message.contains("the script has no `status`"), "{}", report.message);
    sandbox.write("/proc/77/status", "Name:\tnginx\nState:\tS\n");
    let report = sandbox.expect("service", &asked(&[("state", text("stopped"))]), Failed);
    assert!(report.message.contains("its process still runs"), "{}", report.message);
}

#[test]
fn a_script_without_status_is_judged_by_the_pid_file_and_the_daemon_that_it_names() {
    let sandbox = scripts("/etc/init.d/S50web", "echo Usage; exit 1");
    let script = sandbox.read("/etc/init.d/S50web");
    let web = vec![("service", text("web")), ("state", text("running"))];
    sandbox.write("/etc/init.d/S50web", &script.replacen('\n', "\nDAEMON=/usr/sbin/nginx\n", 1));
    sandbox.expect("service", &web, Fine);
    sandbox.write("/proc/77/status", "Name:\tother\nState:\tS (sleeping)\n");
    sandbox.write("/proc/77/stat", "77 (other) S");
    assert_eq!(sandbox.look("service", &web).outcome, Changed);
    sandbox.write("/etc/init.d/S50web", &script.replacen('\n', "\nPIDFILE=\"/run/web-$NAME.pid\"\nNAME=x\n", 1));
    sandbox.write("/run/web-x.pid", "77\n");
    sandbox.expect("service", &web, Fine);
    sandbox.write("/run/web-x.pid", "78\n");
    assert_eq!(sandbox.look("service", &web).outcome, Changed);
}

#[test]
fn services_of_openwrt_have_links_with_the_number_of_their_script() {
    let sandbox = scripts("/etc/init.d/nginx", "[ -e $VIGO_SYSROOT/run/nginx.pid ]");
    sandbox.write("/etc/rc.common", "");
    fs::create_dir_all(sandbox.at("/etc/rc.d")).unwrap();
    let enabled = asked(&[("enabled", Value::Bool(true))]);
    let report = sandbox.expect("service", &enabled, Failed);
    assert!(report.message.contains("no line START="), "{}", report.message);
    let script = sandbox.read("/etc/init.d/nginx").replacen('\n', "\nSTART=80\n", 1);
    sandbox.write("/etc/init.d/nginx", &script);
    settles(&sandbox, "service", &running(), "was not running, was not enabled");
    assert_eq!(fs::read_link(sandbox.at("/etc/rc.d/S80nginx")).unwrap(), std::path::Path::new("../init.d/nginx"));
    settles(&sandbox, "service", &stopped(), "was running, was enabled");
}

/// Answers before a change, and not after it.
#[derive(Default)]
struct CutOff(std::sync::atomic::AtomicBool);

impl crate::exec::Confirmations for CutOff {
    fn confirm(&self, _: common::ids::Uuid, _: u64) -> bool {
        !self.0.fetch_xor(true, std::sync::atomic::Ordering::SeqCst)
    }
}

fn cut_off(sandbox: &mut Sandbox) {
    let path = sandbox.search_path.take().unwrap_or_default();
    // Not where the tools of this machine for its own services are.
    sandbox.search_path = Some(format!("{path}:/usr/bin:/bin"));
    let confirmations = std::sync::Arc::new(CutOff::default());
    sandbox.undo = Some(crate::exec::Undo { dir: sandbox.at("/state/undo"), confirmations, own_config: None });
}

fn confirmed(params: &Params) -> Params {
    params.iter().cloned().chain([("confirm", text("20s"))]).collect()
}

#[test]
fn a_service_that_cuts_the_host_off_is_as_it_was_before() {
    for mut sandbox in [systemd(), openrc()] {
        cut_off(&mut sandbox);
        sandbox.expect("service", &running(), Changed);
        for _ in 0..2 {
            let report = sandbox.expect("service", &confirmed(&stopped()), Failed);
            assert!(report.message.contains("rolled back"), "{}", report.message);
            sandbox.expect("service", &running(), Fine);
        }
        sandbox.expect("service", &stopped(), Changed);
        let report = sandbox.expect("service", &confirmed(&running()), Failed);
        assert!(report.message.contains("rolled back"), "{}", report.message);
        sandbox.expect("service", &stopped(), Fine);
    }
    for path in ["/etc/init.d/nginx", "/etc/init.d/S50nginx"] {
        let mut sandbox = scripts(path, "[ -e $VIGO_SYSROOT/run/nginx.pid ] || exit 3");
        sandbox.search_path = None;
        cut_off(&mut sandbox);
        sandbox.expect("service", &running(), Changed);
        let report = sandbox.expect("service", &confirmed(&stopped()), Failed);
        assert!(report.message.contains("rolled back"), "{path}: {}", report.message);
        sandbox.expect("service", &running(), Fine);
        sandbox.expect("service", &stopped(), Changed);
        sandbox.expect("service", &confirmed(&running()), Failed);
        sandbox.expect("service", &stopped(), Fine);
    }
}

#[test]
fn a_service_restarts_again_once_its_file_is_back_and_may_be_restarted_the_next_time() {
    let mut sandbox = systemd();
    cut_off(&mut sandbox);
    sandbox.fake_tool("systemctl", &format!("cat $R/d/conf >> $R/tools/log\n{SYSTEMCTL}"));
    cut_off(&mut sandbox);
    sandbox.write("/d/conf", "old\n");
    sandbox.expect("service", &running(), Changed);
    let file =
        |content: &str| vec![("target_path", text("/d/conf")), ("content", text(content)), ("confirm", text("20s"))];
    for content in ["bad\n", "worse\n"] {
        sandbox.calls();
        let first = Resource { notify: vec![1], ..resource("conf", "file", &file(content)) };
        let report = sandbox.run_all(vec![first, resource("svc", "service", &confirmed(&running()))]);
        assert!(report.resources.iter().all(|one| one.message.contains("rolled back")), "{:?}", report.resources);
        let calls = sandbox.calls();
        let restarts: Vec<&str> = calls.split("systemctl restart -- nginx.service\n").skip(1).collect();
        assert_eq!(restarts.len(), 2, "{calls}");
        assert!(restarts[0].starts_with(content) && restarts[1].starts_with("old\n"), "{calls}");
    }
}

#[test]
fn a_root_without_an_init_system_says_so() {
    let sandbox = Sandbox::new();
    let report = sandbox.expect("service", &running(), Failed);
    assert!(report.message.starts_with("no init system is known here"), "{}", report.message);
}
