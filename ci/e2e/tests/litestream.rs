//! Continuous replication with the real Litestream: a directory, an S3-compatible store and an SSH server hold everything after a clean
//! stop, and all but the last moment after `kill -9`; a lost database comes back; a replica has one owner; a secret is in no file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use vigo_e2e::replica::{S3, Sftp, get, litestream, need_replica_programs};
use vigo_e2e::{Envoy, Server, account, binary, read_ledger, stored_records, wait_for, wait_until};

/// Every run is a record of its own.
const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/loud.vgo",
        "name: loud\nresources:\n  - {name: ledger, type: exec, command: 'echo \"$VIGO_RUN_ID $PPID\" >> ledger'}\n",
    ),
    ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [loud]}\n"),
];
const SECRET: &str = "canary/7Qz+xSecret";

fn settings(backup: &str) -> String {
    format!("checkin: {{interval: 1s}}\nbackup: {{{backup}, sync_interval: 200ms}}\n")
}

fn replica(server: &Server) -> Value {
    server.cli_any(&["status"])["replica"].clone()
}

/// Waits until the replica had everything at a moment after this call.
fn in_step(server: &Server) {
    let before = replica(server)["synced"].as_str().unwrap_or_default().to_string();
    let mut seen = BTreeSet::from([before]);
    wait_for("the replica to have everything", || {
        let now = replica(server);
        seen.insert(now["synced"].as_str().unwrap_or_default().to_string());
        // The second new one began after the call.
        if seen.len() > 2 && now["stage"] == "replicating" { Ok(()) } else { Err(format!("{now} {}", server.log())) }
    });
}

fn run(envoy: &Envoy, times: usize) {
    for _ in 0..times {
        envoy.ask(&["run", "--once"]);
    }
}

fn open(database: &Path) -> Connection {
    Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("a database")
}

/// Everything that the tables of a server hold, as text. Read-only, so that the WAL stays as the server left it.
fn content(database: &Path) -> String {
    let output = Command::new("sqlite3").arg("-readonly").arg(database).arg(".dump").output().expect("sqlite3 starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("CREATE TABLE"), "{database:?}: {text}");
    text.lines().filter(|line| !line.contains("_litestream_")).collect::<Vec<_>>().join("\n")
}

/// The replica of a stopped server into a new file, by Litestream alone.
fn restore(server: &Server, to: &Path, environment: &[(&str, &str)]) {
    let yml = server.root.join("run/litestream.yml");
    let (yml, to, database) = (yml.to_str().unwrap(), to.to_str().unwrap(), server.root.join("db/vigo.db"));
    let words = ["restore", "-config", yml, "-no-expand-env", "-o", to, database.to_str().unwrap()];
    let output = litestream(&words, environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(integrity(Path::new(to)), "ok");
}

fn integrity(database: &Path) -> String {
    open(database).query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict")
}

/// A server with a replica, and an enrolled agent.
fn scene(dir: &Path, backup: &str) -> (Server, Envoy) {
    need_replica_programs();
    let mut server = Server::new(dir, &settings(backup), POLICY);
    server.start();
    let envoy = Envoy::new(&dir.join("envoy"));
    envoy.enroll(&server, "one.example");
    (server, envoy)
}

/// The process ids of Litestream for this root.
fn children(root: &Path) -> Vec<u32> {
    let yml = root.join("run/litestream.yml").display().to_string();
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&yml)
    };
    numbers.filter(is_one).collect()
}

/// Files below a directory that hold this text.
fn holding(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            found.extend(holding(&entry.path(), text));
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn a_clean_stop_leaves_everything_in_the_replica_and_the_next_start_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("url: 'file://{}/replica'", dir.path().display());
    let (mut server, envoy) = scene(dir.path(), &url);
    run(&envoy, 5);
    in_step(&server);
    let state = replica(&server);
    assert_eq!((state["stage"].as_str(), state["trouble"].as_str()), (Some("replicating"), Some("")), "{state}");
    assert!(state["lag_ms"].as_u64().unwrap() < 30_000, "{state}");
    let metrics = get(&server.root, "/metrics");
    assert!(metrics.contains("vigo_replica_up 1\n") && metrics.contains("vigo_replica_lag_seconds "), "{metrics}");
    let mode = |path: &str| fs::metadata(server.root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("run/litestream.yml"), 0o600);
    // Written just before the end, and in the replica all the same.
    run(&envoy, 2);
    server.stop();
    assert_eq!(children(&server.root), Vec::<u32>::new());
    restore(&server, &dir.path().join("first.db"), &[]);
    assert_eq!(content(&dir.path().join("first.db")), content(&server.root.join("db/vigo.db")));

    // Only what is new is uploaded after a clean stop: no second copy of the whole.
    let whole = fs::metadata(server.root.join("db/vigo.db")).unwrap().len();
    let newest = || -> BTreeSet<PathBuf> {
        fs::read_dir(dir.path().join("replica/ltx/0")).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let before = newest();
    let biggest = before.iter().map(|path| fs::metadata(path).unwrap().len()).max().unwrap();
    server.start();
    in_step(&server);
    let sizes: Vec<u64> = newest().difference(&before).map(|path| fs::metadata(path).unwrap().len()).collect();
    let again = sizes.iter().sum::<u64>();
    assert!(again > 0 && again < biggest / 2, "a database of {whole} bytes; uploads after a restart: {sizes:?}");
    run(&envoy, 1);
    in_step(&server);

    // It is killed, and is there again.
    let child = children(&server.root);
    assert_eq!(child.len(), 1);
    Command::new("kill").args(["-9", &child[0].to_string()]).status().unwrap();
    wait_for("another litestream", || {
        let now = children(&server.root);
        if now.len() == 1 && now != child { Ok(()) } else { Err(format!("{now:?}: {}", server.log())) }
    });
    run(&envoy, 1);
    in_step(&server);
    assert_eq!(replica(&server)["restarts"], 1);
    server.stop();
    restore(&server, &dir.path().join("second.db"), &[]);
    assert_eq!(content(&dir.path().join("second.db")), content(&server.root.join("db/vigo.db")));
    assert!(metrics.contains("vigo_replica_kept_bytes "), "{metrics}");
}

/// The database is lost while the server is killed under load, and comes back by `put_back`.
fn lose_the_database(put_back: impl FnOnce(&Server)) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("url: 'file://{}/replica'", dir.path().display());
    let (mut server, mut envoy) = scene(dir.path(), &url);
    run(&envoy, 3);
    in_step(&server);
    let ledger = envoy.path("ledger");
    let safe = read_ledger(&ledger).len();
    envoy.start();
    wait_until("runs under load", || (read_ledger(&ledger).len() > safe + 1).then_some(()));
    server.kill();
    wait_until("litestream to end with its server", || children(&server.root).is_empty().then_some(()));
    for name in ["vigo.db", "vigo.db-wal", "vigo.db-shm"] {
        let _ = fs::remove_file(server.root.join("db").join(name));
    }
    put_back(&server);
    assert_eq!(integrity(&server.root.join("db/vigo.db")), "ok");
    let database = open(&server.root.join("db/vigo.db"));
    let broken: i64 =
        database.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).expect("a number");
    assert_eq!(broken, 0);
    // What the replica had acknowledged is there.
    let kept = account(&read_ledger(&ledger), &stored_records(&database, "one.example"), safe, &BTreeSet::new());
    assert!(kept.is_ok(), "{kept:?}");
    drop(database);

    let identity = envoy.ask(&["status"])["uuid"].clone();
    server.start();
    let settled = wait_for("every run to be delivered once", || {
        let ledger = read_ledger(&ledger);
        let database = open(&server.root.join("db/vigo.db"));
        let stored = stored_records(&database, "one.example");
        account(&ledger, &stored, ledger.len(), &BTreeSet::new()).map_err(|why| format!("{why} {}", envoy.log()))
    });
    assert_eq!(settled.lost, 0, "{settled:?}");
    assert_eq!(envoy.ask(&["status"])["uuid"], identity);
    in_step(&server);
    envoy.stop();
    server.stop();
    restore(&server, &dir.path().join("after.db"), &[]);
    assert_eq!(content(&dir.path().join("after.db")), content(&server.root.join("db/vigo.db")));
}

#[test]
fn a_lost_database_comes_back_by_plain_litestream() {
    lose_the_database(|server| restore(server, &server.root.join("db/vigo.db"), &[]));
}

#[test]
fn a_lost_database_comes_back_by_our_own_command() {
    lose_the_database(|server| {
        let env = binary("vigocli");
        let output = Command::new(env).args(["backup", "litestream-env", "--root"]).arg(&server.root).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("export LITESTREAM_CONFIG='") && output.status.success(), "{said}");
        let answer = server.cli(&["backup", "restore", "--from-litestream"]);
        assert!(answer["from"].as_str().unwrap_or_default().starts_with("file://"), "{answer}");
        assert!(fs::read_dir(server.root.join("db")).unwrap().all(|entry| {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            !name.contains("vigo-new") && !name.contains("part")
        }));
    });
}

#[test]
fn s3_gets_everything_and_the_secret_is_in_no_file_and_no_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let s3 = tempfile::tempdir().unwrap();
    need_replica_programs();
    let store = S3::start(s3.path());
    let backup = format!(
        "url: 's3://bucket/vigo', endpoint: '{}', force_path_style: true, region: us-east-1, access_key_id: 'secret:s3/id', \
         secret_access_key: 'secret:s3/key'",
        store.endpoint
    );
    let mut server = Server::new(dir.path(), "", POLICY);
    server.set_secret("s3/id", "AKIACANARY77");
    server.set_secret("s3/key", SECRET);
    server.settings = settings(&backup);
    // A stray variable of the service that breaks TLS where it arrives.
    server.start_as(|mut command| {
        command.env("SSL_CERT_FILE", "/nowhere").env("STRAY_CANARY", "x");
        command
    });
    let envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "one.example");
    run(&envoy, 3);
    in_step(&server);
    let child = children(&server.root)[0];
    let read = |file: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{child}/{file}")).unwrap()).into_owned();
    assert!(read("environ").contains(SECRET), "it has to get there");
    for stray in ["SSL_CERT_FILE", "STRAY_CANARY"] {
        assert!(!read("environ").contains(stray), "{}", read("environ"));
    }
    assert!(!read("cmdline").contains(SECRET));
    run(&envoy, 1);
    server.stop();
    assert_eq!(holding(dir.path(), SECRET), Vec::<PathBuf>::new());
    assert_eq!(holding(dir.path(), "AKIACANARY77"), Vec::<PathBuf>::new());
    let environment = [("LITESTREAM_ACCESS_KEY_ID", "AKIACANARY77"), ("LITESTREAM_SECRET_ACCESS_KEY", SECRET)];
    restore(&server, &dir.path().join("back.db"), &environment);
    let whole = content(&server.root.join("db/vigo.db"));
    assert_eq!(content(&dir.path().join("back.db")), whole);

    // The same by our own command, which has the key by itself; and the key for a person who asks for it.
    let env = Command::new(binary("vigocli")).args(["backup", "litestream-env", "--root"]).arg(&server.root).output();
    let said = String::from_utf8_lossy(&env.unwrap().stdout).into_owned();
    assert!(said.contains(&format!("export LITESTREAM_SECRET_ACCESS_KEY='{SECRET}'\n")), "{said}");
    server.cli(&["backup", "restore", "--from-litestream", "--yes"]);
    assert_eq!(content(&server.root.join("db/vigo.db")), whole);
    let none = Command::new(binary("vigocli"))
        .args(["backup", "restore", "--from-litestream", "--yes", "--timestamp", "2020-01-31", "--root"])
        .arg(&server.root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("holds no state of the database as old as 2020-01-31T00:00:00.000Z"), "{said}");
    assert_eq!(holding(dir.path(), SECRET), Vec::<PathBuf>::new());
}

#[test]
fn sftp_gets_everything_and_another_host_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    need_replica_programs();
    let ssh = Sftp::start(dir.path());
    let login = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let backup = |host_key: &str| {
        format!(
            "url: 'sftp://{login}@127.0.0.1:{}{}/replica', key_path: '{}', host_key: '{host_key}'",
            ssh.port,
            dir.path().display(),
            ssh.key.display()
        )
    };
    let other = Sftp::start(&{
        let path = dir.path().join("other");
        fs::create_dir(&path).unwrap();
        path
    });
    let (mut server, envoy) = scene(dir.path(), &backup(&other.host_key));
    wait_for("the host key to be refused", || {
        let state = replica(&server);
        let trouble = state["trouble"].as_str().unwrap_or_default();
        if state["stage"] == "waiting" && trouble.contains("host key mismatch") {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
    server.stop();
    assert!(!dir.path().join("replica").exists());

    server.settings = settings(&backup(&ssh.host_key));
    server.start();
    run(&envoy, 3);
    in_step(&server);
    run(&envoy, 1);
    server.stop();
    assert!(dir.path().join("replica/ltx").is_dir());
    restore(&server, &dir.path().join("back.db"), &[]);
    assert_eq!(content(&dir.path().join("back.db")), content(&server.root.join("db/vigo.db")));
}

#[test]
fn a_replica_has_one_owner_until_another_takes_it_over() {
    let dir = tempfile::tempdir().unwrap();
    let url = settings(&format!("url: 'file://{}/replica'", dir.path().display()));
    need_replica_programs();
    let [first, second] = ["first", "second"].map(|name| Server::new(&dir.path().join(name), &url, POLICY));
    let [mut first, mut second] = [first, second];
    first.start();
    in_step(&first);
    first.stop();
    let files = |part: &str| -> BTreeSet<PathBuf> {
        let folder = dir.path().join("replica").join(part);
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let before = (files("ltx/0"), files("owner/ltx/0"));

    second.start();
    let trouble = wait_for("the replica to be refused", || {
        let state = replica(&second);
        if state["stage"] == "refused" { Ok(state["trouble"].to_string()) } else { Err(second.log()) }
    });
    assert!(trouble.contains("belongs to server") && trouble.contains("--take-over"), "{trouble}");
    assert!(get(&second.root, "/metrics").contains("vigo_replica_refused 1\n"));
    second.stop();
    assert_eq!((files("ltx/0"), files("owner/ltx/0")), before, "the replica of another was touched");

    second.start_as(|mut command| {
        command.arg("--take-over");
        command
    });
    in_step(&second);
    second.stop();
    restore(&second, &dir.path().join("back.db"), &[]);
    assert_eq!(content(&dir.path().join("back.db")), content(&second.root.join("db/vigo.db")));
    // By then it is the second's, also for the first.
    first.start();
    wait_until("the first to be refused", || (replica(&first)["stage"] == "refused").then_some(()));
    first.stop();
}

#[test]
fn without_the_program_the_server_warns_and_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("url: 'file://{}/replica'", dir.path().display());
    let mut server = Server::new(dir.path(), &settings(&url), POLICY);
    server.start_as(|mut command| {
        command.env("PATH", "/nowhere");
        command
    });
    let envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "one.example");
    run(&envoy, 1);
    let state = replica(&server);
    assert_eq!(state["stage"], "missing");
    assert!(state["trouble"].as_str().unwrap().contains("not in PATH: nothing is replicated"), "{state}");
    assert!(server.log().contains("`litestream` is not in PATH"), "{}", server.log());
    server.stop();

    // A directory that cannot be made is the operator's to cure, at once.
    fs::write(dir.path().join("file"), "").unwrap();
    let yaml = format!("backup: {{url: 'file://{}/file/replica'}}\n", dir.path().display());
    fs::write(server.root.join("server.yaml"), yaml).unwrap();
    let output = Command::new(binary("vigosrv")).args(["serve", "--root"]).arg(&server.root).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("ReadWritePaths="), "{said}");
}
