//! Archives by real processes: stock tools read them, a killed command leaves the old state or the new one, and what is restored
//! elsewhere is the same server. `VIGO_E2E_BACKUP_KILLS=500` makes the loop of kills as long as that.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use vigo_e2e::{Envoy, Process, Server, binary, wait_until};

const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/web.vgo",
        "name: web\nresources:\n  - {name: page, type: file, target_path: /page, content: hello}\n",
    ),
    ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [web]}\n"),
];

fn vigocli(words: &[&str]) -> Output {
    Command::new(binary("vigocli")).args(words).output().expect("vigocli starts")
}

fn done(words: &[&str]) -> String {
    let output = vigocli(words);
    assert!(output.status.success(), "vigocli {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn tool(program: &str, words: &[&str], dir: &Path) -> String {
    let output =
        Command::new(program).args(words).current_dir(dir).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A server with a secret and an envoy that has converged.
fn scene(dir: &Path, settings: &str) -> (Server, Envoy) {
    let mut server = Server::new(dir, &format!("checkin: {{interval: 1s}}\nlog: {{level: warn}}\n{settings}"), POLICY);
    server.set_secret("prod/db", "hunter22hunter");
    server.start();
    let envoy = Envoy::new(&dir.join("envoy"));
    envoy.enroll(&server, "web-1.example");
    envoy.ask(&["run", "--once"]);
    (server, envoy)
}

#[test]
fn stock_tools_read_an_archive_and_what_comes_back_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, _envoy) = scene(dir.path(), "");
    let archive = dir.path().join("vigo.tar.gz");
    done(&["--root", text(&server.root), "backup", "create", text(&archive)]);
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(tool("sha256sum", &["-c", "vigo.tar.gz.sha256"], dir.path()), "vigo.tar.gz: OK\n");
    let listed = tool("tar", &["-tzf", "vigo.tar.gz"], dir.path());
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(names[..2], ["manifest.json", "db/vigo.db"]);
    for name in
        ["stacks/envoys/all.vgo", "secrets/.master.key", "secrets/prod/db.secret", "tls/identity_key", "server.yaml"]
    {
        assert!(names.contains(&name), "{name} in {listed}");
    }
    assert!(!listed.contains("run/") && !listed.contains("-wal") && !listed.contains("ticket"), "{listed}");
    // Beside a running server nothing is replaced, and nothing is written before that is said.
    let refused = vigocli(&["backup", "restore", text(&archive), "--target", text(&server.root), "--yes"]);
    assert_eq!(refused.status.code(), Some(75), "{}", String::from_utf8_lossy(&refused.stderr));
    server.stop();

    let target = dir.path().join("target");
    done(&["backup", "restore", text(&archive), "--target", text(&target)]);
    let database = target.join("db/vigo.db");
    let manifest: Value = serde_json::from_str(&done(&["backup", "inspect", text(&archive)])).unwrap();
    let rows: BTreeMap<String, u64> = serde_json::from_value(manifest["database"]["rows"].clone()).unwrap();
    assert!(rows["runs"] > 0 && rows["envoys"] == 1, "{rows:?}");
    let ask = |sql: &str| tool("sqlite3", &[text(&database), sql], dir.path()).trim().to_owned();
    assert_eq!(ask("PRAGMA integrity_check"), "ok");
    for (table, n) in rows {
        assert_eq!(ask(&format!("SELECT count(*) FROM {table}")), n.to_string(), "{table}");
    }
}

/// Path, and a checksum of the content, of what a restore replaces.
fn state(root: &Path) -> BTreeMap<PathBuf, String> {
    let script = "find db stacks secrets tls server.yaml -type f \
                  ! -name '*-shm' ! -name '*-wal' ! -name '*.continuity' ! -name .lock ! -name '*.restored' ! -name '*.ballast' | sort | xargs sha256sum";
    let lines = tool("sh", &["-c", script], root);
    lines.lines().filter_map(|line| line.split_once("  ")).map(|(sum, path)| (path.into(), sum.to_owned())).collect()
}

#[test]
fn a_killed_command_leaves_the_old_state_or_the_new_one() {
    let kills: u64 = std::env::var("VIGO_E2E_BACKUP_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let dir = tempfile::tempdir().unwrap();
    let (mut server, _envoy) = scene(dir.path(), "");
    server.stop();
    // Enough that there is time to be killed in.
    for n in 0..60 {
        fs::write(server.root.join(format!("stacks/files-{n}.txt")), vec![b'a' + (n % 20) as u8; 40_000]).unwrap();
    }
    let (root, archive) = (server.root.clone(), dir.path().join("safe/vigo.tar.gz"));
    fs::create_dir(dir.path().join("safe")).unwrap();
    let create = ["--root", text(&root), "backup", "create", text(&archive), "--force"];
    let (_, whole) = vigo_e2e::timed(|| done(&create));
    let restore = ["backup", "restore", text(&archive), "--target", text(&root), "--yes"];
    let (_, back) = vigo_e2e::timed(|| done(&restore));
    let new = state(&root);
    let mut random = 0x9e37_79b9_u64;
    let mut draw = |below: u128| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((u128::from(random >> 33) % below.max(1)) as u64)
    };
    let mut seen = [0, 0];
    for n in 0..kills {
        // Half of them hit the making of an archive, half the restore.
        if n % 2 == 0 {
            cut(&create, draw(whole.as_micros()));
            if archive.exists() {
                let verified = vigocli(&["--root", text(&root), "backup", "verify", text(&archive)]);
                let said = String::from_utf8_lossy(&verified.stdout).into_owned();
                assert!(verified.status.code() < Some(2), "kill {n}: {said}");
            }
            done(&create);
            let left: Vec<_> = fs::read_dir(dir.path().join("safe")).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left.len(), 2, "kill {n}: {left:?}");
        } else {
            fs::write(
                root.join("server.yaml"),
                format!("# {n}\n{}", fs::read_to_string(root.join("server.yaml")).unwrap()),
            )
            .unwrap();
            fs::write(root.join(format!("stacks/only-{n}.txt")), "old").unwrap();
            let old = state(&root);
            cut(&restore, draw(back.as_micros()));
            // Whatever works there next cures it.
            let checked =
                Command::new(binary("vigosrv")).args(["check-config", "--root", text(&root)]).output().unwrap();
            assert!(checked.status.success(), "kill {n}: {}", String::from_utf8_lossy(&checked.stderr));
            let found = state(&root);
            assert!(found == old || found == new, "kill {n}: a mixture");
            seen[usize::from(found == new)] += 1;
            done(&restore);
            assert_eq!(state(&root), new, "kill {n}");
            assert!(!root.join(".restore").exists(), "kill {n}");
        }
        for entry in fs::read_dir(&root).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("replaced-") {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
    }
    assert!(seen[0] > 0, "some were cut before their end: {seen:?}");
}

fn cut(words: &[&str], after: Duration) {
    let child = Process::start(
        Command::new(binary("vigocli"))
            .args(words)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null()),
    );
    vigo_e2e::pause(after);
    child.kill();
}

#[test]
fn a_drill_and_a_staging_server_touch_nothing_of_production() {
    vigo_e2e::replica::need_replica_programs();
    let dir = tempfile::tempdir().unwrap();
    let stream = dir.path().join("replica");
    let (mut server, mut envoy) = scene(dir.path(), &format!("backup: {{url: 'file://{}'}}", stream.display()));
    envoy.start();
    let root = text(&server.root).to_owned();
    let archive = dir.path().join("vigo.tar.gz");
    done(&["--root", &root, "backup", "create", text(&archive)]);
    let (pid, before) = (server.id(), fs::read(server.root.join("server.yaml")).unwrap());
    let drilled: Value = serde_json::from_str(&done(&[
        "--root",
        &root,
        "backup",
        "drill",
        text(&archive),
        "--scratch",
        text(dir.path()),
        "--json",
    ]))
    .unwrap();
    assert_eq!(drilled["good"], true);
    let steps: Vec<&str> =
        drilled["steps"].as_array().unwrap().iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(steps, ["unpack", "check", "restore", "start", "health", "check-in", "stop"]);
    let listed: Value = serde_json::from_str(&done(&["--root", &root, "backup", "list", "--json"])).unwrap();
    assert_eq!(listed["archives"], serde_json::json!([]), "the archive is elsewhere");

    // A server for staging, with the program that would replicate in its path.
    let staging = dir.path().join("staging");
    done(&["backup", "restore", text(&archive), "--target", text(&staging), "--isolated"]);
    let mut command = Command::new(binary("vigosrv"));
    command.args(["serve", "--root", text(&staging)]);
    let log = fs::File::create(dir.path().join("staging.log")).unwrap();
    let mut process = Process::start(command.stderr(log));
    wait_until("the staging server", || {
        assert!(!process.ended(), "{}", fs::read_to_string(dir.path().join("staging.log")).unwrap());
        staging.join("run/vigosrv.json").exists().then_some(())
    });
    let running: Value = serde_json::from_slice(&fs::read(staging.join("run/vigosrv.json")).unwrap()).unwrap();
    for key in ["grpc", "api"] {
        let address = running[key].as_str().unwrap();
        assert!(address.starts_with("127.0.0.1:") && !address.ends_with(&format!(":{}", server.port)), "{address}");
    }
    assert!(!staging.join("run/litestream.yml").exists());
    process.stop();

    assert_eq!((server.id(), fs::read(server.root.join("server.yaml")).unwrap()), (pid, before));
    let epoch = server.cli_any(&["status"])["epoch"].clone();
    assert_eq!(epoch, 1, "nobody told production of another server");
    envoy.stop();
    server.stop();
}

#[test]
fn it_comes_back_under_another_user_on_another_host_in_another_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, envoy) = scene(dir.path(), "");
    fs::write(server.root.join("server.local.yaml"), "log: {level: info}\n").unwrap();
    let archive = dir.path().join("vigo.tar.gz.enc");
    let password = dir.path().join("password");
    fs::write(&password, "correct horse\n").unwrap();
    let words = ["backup", "create", text(&archive), "--encrypt", "--password-file", text(&password)];
    done(&[&["--root", text(&server.root)], &words[..]].concat());
    server.kill();

    let target = dir.path().join("elsewhere");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let me = nix::unistd::geteuid().as_raw();
    let uid = if me == 0 { 23_456 } else { me };
    let mut restore = format!(
        "{} backup restore {} --decrypt --password-file {} --target {}",
        binary("vigocli").display(),
        archive.display(),
        password.display(),
        target.display()
    );
    if me == 0 {
        // The root belongs to a user of its own, and the host has another name.
        chown(&target, Some(uid), Some(uid)).unwrap();
        restore = format!("hostname elsewhere && {restore}");
        let said = tool("unshare", &["--uts", "sh", "-c", &restore], dir.path());
        assert!(said.contains("server.local.yaml is not restored"), "{said}");
        assert!(!target.join("server.local.yaml").exists());
    } else {
        tool("sh", &["-c", &restore], dir.path());
    }
    for path in
        ["db/vigo.db", "tls/identity_key", "secrets/prod/db.secret", "stacks/envoys/all.vgo", "db/vigo.db.restored"]
    {
        let found = fs::metadata(target.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(found.uid(), uid, "{path}");
    }
    fs::remove_dir_all(&server.root).unwrap();
    server.root = target;
    done(&["--root", text(&server.root), "config", "publish", "--message", "again"]);
    server.start_as(|usual| {
        if me != 0 {
            return usual;
        }
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--"]);
        command.arg(usual.get_program()).args(usual.get_args());
        command
    });
    let answer = envoy.ask(&["run", "--once"]);
    assert_eq!(server.cli_any(&["status"])["epoch"], 2, "{answer}");
    assert_eq!(envoy.ask(&["status"])["policy"]["epoch"], 2);
    let nodes = server.cli(&["envoys", "list"]);
    assert_eq!(nodes["envoys"][0]["state"], "active", "{nodes}");
    server.stop();
}
