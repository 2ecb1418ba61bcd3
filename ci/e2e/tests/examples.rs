//! The examples, converged for real. On a Debian host the agent runs as a service of systemd, installs by apt what a server on
//! another host says, keeps it, and takes it away again.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vigo_e2e::{Machine, Proxy, Router, Server, binary, wait_for, wait_until};

const NAME: &str = "web-1";
const PASSWORD: &str = "Example-Passw0rd-9";
const UNIT: &str = "[Unit]\nAfter=network.target\n[Service]\nType=notify\nWatchdogSec=30\nExecStart=/usr/bin/vigo-envoy daemon\nRestart=always\n[Install]\nWantedBy=multi-user.target\n";

/// Every file of an example, as paths below `stacks/` and texts.
fn example(name: &str) -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).join("stacks");
    let (mut files, mut folders) = (Vec::new(), vec![top.clone()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => files
                    .push((path.strip_prefix(&top).unwrap().display().to_string(), fs::read_to_string(&path).unwrap())),
            }
        }
    }
    files
}

/// What the agent logged last.
fn journal(machine: &Machine) -> String {
    let output = machine.run_in(&["journalctl", "-q", "-u", "vigo-envoy", "-n", "30", "--no-pager"]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until the server says that the host converged and its last run changed nothing.
fn settles(server: &Server, machine: &Machine) {
    let quiet = || {
        let row = server.cli(&["envoys", "list"])["envoys"][0].clone();
        let ok =
            row["status"] == "converged" && row["counts"]["changed"] == 0 && row["counts"]["ok"].as_u64() > Some(0);
        ok.then_some(()).ok_or_else(|| format!("{row}: {}", journal(machine)))
    };
    wait_for("the host to converge", quiet);
}

/// The page, where somebody serves one.
fn page(machine: &Machine) -> Option<String> {
    let mut socket = TcpStream::connect((machine.address, 80)).ok()?;
    socket.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.contains("200 OK").then(|| body.to_string())
}

/// A server that listens for hosts at this address, with the fleet example and what it needs.
fn fleet(dir: &Path, host: Ipv4Addr) -> (Server, Proxy, SocketAddr, Vec<(String, String)>) {
    let files = example("fleet");
    let policy: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut server = Server::at(dir, "checkin: {interval: 2s}", binary("vigosrv"));
    server.set_secret("fleet/postgres/password", PASSWORD);
    server.publish(&policy);
    server.hostname = host.to_string();
    server.start();
    let address = SocketAddr::from((host, server.port));
    let proxy = Proxy::start(address, SocketAddr::from(([127, 0, 0, 1], server.port)));
    (server, proxy, address, files)
}

/// What `vigo-envoy` is called with to enroll.
fn enrollment(server: &Server, address: SocketAddr, name: &str) -> Vec<String> {
    let invite = server.cli(&["envoys", "invite", "--hostname", name]);
    let text = |key: &str| invite[key].as_str().unwrap_or_default().to_string();
    let (token, hash, at) = (text("token"), text("trust_hash"), address.to_string());
    let words = ["vigo-envoy", "enroll", "--server", &at, "--hostname", name, "--token", &token, "--trust-hash", &hash];
    words.map(str::to_string).to_vec()
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn the_router_of_the_fleet_example_is_busybox_with_neither_systemd_nor_packages() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut router) = Router::new(dir.path()) else { return };
    let (mut server, _proxy, address, files) = fleet(dir.path(), router.host());
    router.put("etc/vigo/envoy.yaml", "", 0o644);
    router.boot();
    router.does(&words(&enrollment(&server, address, "router-1")));
    let pass = |router: &Router| -> Value {
        let done = router.run_in(&["vigo-envoy", "run", "--once", "--json"]);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
    };
    let first = pass(&router);
    assert_eq!((&first["status"], &first["run"]["failed"]), (&"converged".into(), &0.into()), "{first}");
    let again = pass(&router);
    assert_eq!((&again["run"]["changed"], &again["run"]["failed"]), (&0.into(), &0.into()), "{again}");
    let lan = fs::read_to_string(router.root.join("etc/dnsmasq.d/lan.conf")).unwrap();
    assert!(lan.contains("dhcp-host=02:00:00:00:00:07,192.168.7.7,printer\n"), "{lan}");
    assert_eq!(router.does(&["cat", "/proc/sys/net/ipv4/ip_forward"]), "1\n");
    assert!(router.does(&["cat", "/etc/banner"]).contains(" with busybox: kept by Vigo"));
    assert!(router.does(&["cat", "/etc/hosts"]).contains("192.168.7.7"));
    let crond = |router: &Router| router.does(&["ps"]).lines().any(|line| line.contains("crond -f"));
    assert!(crond(&router), "{}", router.does(&["ps"]));
    assert_eq!(router.does(&["vigo-envoy", "traits", "services.crond.enabled"]), "true\n");
    // What somebody breaks is repaired.
    router.does(&["killall", "crond"]);
    // The init of BusyBox takes up to a second to bury it.
    let is_dead = || !router.run_in(&["sh", "-c", "kill -0 $(cat /var/run/crond.pid)"]).status.success();
    wait_until("cron to end", || is_dead().then_some(()));
    router.does(&["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward; rm /etc/crontabs/root"]);
    let repaired = pass(&router);
    assert_eq!((&repaired["run"]["changed"], &repaired["run"]["failed"]), (&3.into(), &0.into()), "{repaired}");
    assert!(crond(&router) && router.does(&["crontab", "-c", "/etc/crontabs", "-l"]).contains("/root/leases"));
    // After a power cut its init starts what policy enabled, and the agent, which puts right what the kernel forgot.
    let start = "#!/bin/sh\n[ \"$1\" = start ] && vigo-envoy daemon >/var/log/vigo.txt 2>&1 &\n";
    router.put("etc/init.d/S90vigo-envoy", start, 0o755);
    router.does(&["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"]);
    router.cut();
    router.boot();
    wait_until("cron", || crond(&router).then_some(()));
    let forwards = || router.does(&["cat", "/proc/sys/net/ipv4/ip_forward"]) == "1\n";
    wait_until("the daemon to repair", || forwards().then_some(()));
    // The same policy takes its service away.
    let text = &files.iter().find(|(path, _)| path.ends_with("router.vgo")).unwrap().1;
    server.publish(&[(
        "configcrates/router.vgo",
        &text.replace("state: running, enabled: true", "state: stopped, enabled: false"),
    )]);
    wait_until("cron to be gone", || (!crond(&router)).then_some(()));
    server.stop();
}

#[test]
fn the_fleet_example_converges_a_debian_host_repairs_it_and_takes_everything_away_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut machine) = Machine::new(dir.path()) else { return };
    let (mut server, _proxy, address, files) = fleet(dir.path(), machine.host);

    let put = |path: &str, text: &str| {
        let path = machine.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    fs::copy(binary("vigo-envoy"), machine.root.join("usr/bin/vigo-envoy")).unwrap();
    put("etc/vigo/envoy.yaml", "");
    put("etc/systemd/system/vigo-envoy.service", UNIT);
    machine.boot();
    machine.does(&words(&enrollment(&server, address, NAME)));
    machine.does(&["systemctl", "enable", "--now", "vigo-envoy"]);

    // Everything is there, by apt and systemd.
    settles(&server, &machine);
    // A reloaded nginx answers with its old workers for a moment.
    let is_ours = |text: &String| text.contains("<h1>It works</h1>") && text.contains(NAME);
    let first = wait_until("the page", || page(&machine).filter(is_ours));
    machine.does(&["systemctl", "is-active", "ssh", "nginx"]);
    assert!(machine.does(&["sshd", "-T"]).contains("passwordauthentication no"));
    assert_eq!(machine.does(&["cat", "/proc/sys/net/ipv4/conf/all/rp_filter"]), "1\n");
    let ada = machine.does(&["id", "ada"]);
    assert!(ada.contains("(operators)") && ada.contains("(ada) gid=1001(ada)"), "{ada}");
    let keys = fs::read_to_string(machine.root.join("home/ada/.ssh/authorized_keys")).unwrap();
    assert!(keys.contains("ada@laptop"), "{keys}");
    assert!(machine.does(&["cat", "/etc/motd"]).contains("web-1: Debian GNU/Linux 12"));
    // A run more changes nothing.
    let again = machine.run_in(&["vigo-envoy", "run", "--once", "--detailed-exitcodes"]);
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stdout));

    // What somebody breaks is repaired: the service, its file, its package.
    let serves = |what: &str| drop(wait_until(what, || page(&machine).filter(|text| *text == first)));
    machine.does(&["systemctl", "stop", "nginx"]);
    serves("nginx to run again");
    fs::write(machine.root.join("srv/www/index.html"), "defaced").unwrap();
    serves("the page to be right again");
    machine.does(&["apt-get", "-y", "-qq", "purge", "nginx"]);
    serves("the package to be there again");
    settles(&server, &machine);

    // The same policy takes it away.
    let mapping = &files.iter().find(|(path, _)| path == "envoys/fleet.vgo").unwrap().1;
    let absent = mapping.replacen("      people: &people\n", "      state: absent\n      people: &people\n", 1);
    server.publish(&[("envoys/fleet.vgo", &absent)]);
    let is_gone = |path: &&str| !machine.root.join(path).exists();
    wait_for("nginx to be gone", || {
        match ["usr/sbin/nginx", "srv/www", "etc/nginx/sites-enabled/vigo", "etc/nginx/sites-available/vigo"]
            .iter()
            .find(|path| !is_gone(path))
        {
            Some(left) => Err(format!("{left} is there: {}", journal(&machine))),
            None => Ok(()),
        }
    });
    settles(&server, &machine);
    assert_eq!(page(&machine), None);
    machine.does(&["systemctl", "is-active", "ssh"]);

    // Under another name it has another job.
    let renamed = Command::new(binary("vigocli"))
        .args(["envoys", "rename", NAME, "batch-1", "--root"])
        .arg(&server.root)
        .status()
        .unwrap();
    assert!(renamed.success());
    let job = machine.root.join("etc/cron.d/clean-spool");
    wait_for("the timetable", || {
        let is_there = fs::read_to_string(&job).is_ok_and(|text| text.contains("17 3 * * *"));
        is_there.then_some(()).ok_or_else(|| journal(&machine))
    });
    wait_for("the whole of its job", || {
        let runs = machine.run_in(&["systemctl", "is-active", "cron", "trim-spool.timer"]).status.success();
        let knows = machine.root.join("var/lib/app/.pgpass").exists();
        (runs && knows).then_some(()).ok_or_else(|| journal(&machine))
    });
    settles(&server, &machine);
    assert!(machine.does(&["systemctl", "cat", "trim-spool.timer"]).contains("OnCalendar=*-*-* 04:40"));
    assert!(machine.does(&["psql", "--version"]).contains("psql (PostgreSQL)"));
    let pgpass = machine.does(&["stat", "-c", "%U %a", "/var/lib/app/.pgpass"]);
    assert_eq!(pgpass, "app 600\n");
    let known = machine.does(&["setpriv", "--reuid=app", "--clear-groups", "cat", "/var/lib/app/.pgpass"]);
    assert_eq!(known, format!("db.example.com:5432:app:app:{PASSWORD}\n"));
    // psql itself takes the service and its user from what was written, and asks nobody for a password.
    let tried = machine.run_in(&["psql", "-w", "service=app hostaddr=127.0.0.1"]);
    assert!(String::from_utf8_lossy(&tried.stderr).contains("port 5432 failed: Connection refused"), "{tried:?}");
    let again = machine.run_in(&["vigo-envoy", "run", "--once", "--detailed-exitcodes"]);
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stdout));

    // A database has moved, so there is nothing of it here any more.
    let absent = mapping.replacen("vars: {people: *people}\n", "vars: {people: *people, state: absent}\n", 1);
    server.publish(&[("envoys/fleet.vgo", &absent)]);
    wait_for("the client to be gone", || {
        let left =
            ["usr/bin/psql", "var/lib/app", "etc/postgresql-common", "etc/cron.d/clean-spool", "var/spool/incoming"];
        match left.iter().find(|path| machine.root.join(path).exists()) {
            Some(left) => Err(format!("{left} is there: {}", journal(&machine))),
            None => Ok(()),
        }
    });
    settles(&server, &machine);
    assert!(!machine.run_in(&["systemctl", "cat", "trim-spool.timer"]).status.success());
    server.stop();
}
