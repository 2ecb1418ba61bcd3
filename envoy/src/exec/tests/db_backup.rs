//! `db_backup`: against the real `sqlite3` and a real PostgreSQL server where the host has them; MySQL is played.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::bundle::Value;
use common::outcome::Outcome::{Blocked, Changed, Failed, Ok as Fine, Skipped};

use super::sandbox::{Mounted, Params, Sandbox, is_root, mode, text};
use super::suite::refused;

const KIND: &str = "db_backup";
const FIRST: &str = "2026.325.03.00";
const SECOND: &str = "2026.326.03.00";

fn params(kind: &str, source: &str, more: &[(&'static str, Value)]) -> Params {
    let base = [
        ("db_type", text(kind)),
        ("source_db", text(source)),
        ("target_path", text("/d/keep")),
        ("min_free_space", text("0")),
    ];
    let base = base.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
    base.chain(more.iter().cloned()).collect()
}

fn host() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.set_wall("2026-11-21T03:00:30Z");
    sandbox
}

fn next_day(sandbox: &mut Sandbox) {
    sandbox.set_wall("2026-11-22T03:00:30Z");
}

fn snapshots(sandbox: &Sandbox) -> Vec<String> {
    let Ok(all) = fs::read_dir(sandbox.at("/d/keep")) else { return Vec::new() };
    let mut names: Vec<String> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn dump(sandbox: &Sandbox, snapshot: &str, name: &str) -> PathBuf {
    sandbox.at("/d/keep").join(snapshot).join(format!("{name}.sql.gz"))
}

pub fn unpacked(path: &Path) -> String {
    let mut out = String::new();
    let file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    flate2::read::GzDecoder::new(file).read_to_string(&mut out).unwrap();
    out
}

fn inode(path: &Path) -> u64 {
    path.metadata().unwrap().ino()
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|done| done.status.success())
}

fn sqlite(file: &Path, sql: &str) -> String {
    let done = Command::new("sqlite3").arg(file).arg(sql).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// A database of SQLite at `/x.db`; `None` without the tool.
fn with_sqlite() -> Option<Sandbox> {
    if !has("sqlite3") {
        eprintln!("skipped: no sqlite3");
        return None;
    }
    let sandbox = host();
    sqlite(&sandbox.at("/x.db"), "PRAGMA journal_mode=wal; CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'one');");
    Some(sandbox)
}

#[test]
fn sqlite_is_dumped_and_an_unchanged_database_is_the_same_file() {
    let Some(mut sandbox) = with_sqlite() else { return };
    let params = params("sqlite", "/x.db", &[]);
    let before = sandbox.picture();
    sandbox.look(KIND, &params);
    assert_eq!(sandbox.picture(), before);
    let report = sandbox.expect(KIND, &params, Changed);
    assert!(report.message.contains(&format!("created: {FIRST}; x.db.sql.gz, ")), "{}", report.message);
    assert_eq!(sandbox.expect(KIND, &params, Fine).message, "");
    let first = dump(&sandbox, FIRST, "x.db");
    assert!(unpacked(&first).contains("INSERT INTO t VALUES(1,'one');"));
    assert_eq!(mode(&first), 0o600);
    next_day(&mut sandbox);
    let report = sandbox.expect(KIND, &params, Changed);
    assert!(report.message.contains("the same as before"), "{}", report.message);
    assert_eq!(inode(&first), inode(&dump(&sandbox, SECOND, "x.db")));
    assert_eq!(fs::read_dir(sandbox.at("/d/keep").join(SECOND)).unwrap().count(), 1);
    sandbox.set_wall("2026-11-23T03:00:30Z");
    sqlite(&sandbox.at("/x.db"), "INSERT INTO t VALUES(2, 'two')");
    sandbox.expect(KIND, &params, Changed);
    assert_ne!(inode(&first), inode(&dump(&sandbox, "2026.327.03.00", "x.db")));
    assert_eq!(
        fs::read_dir(sandbox.dir.path())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("x.db") })
            .count(),
        1,
        "something was left beside the database"
    );
}

#[test]
fn a_database_in_use_is_dumped_as_it_was_committed() {
    let Some(sandbox) = with_sqlite() else { return };
    let mut user =
        Command::new("sqlite3").arg(sandbox.at("/x.db")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = user.stdin.take().unwrap();
    writeln!(stdin, "INSERT INTO t VALUES(2, 'wal'); BEGIN; INSERT INTO t VALUES(3, 'not yet'); SELECT 'begun';")
        .unwrap();
    let mut line = String::new();
    BufReader::new(user.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    sandbox.expect(KIND, &params("sqlite", "/x.db", &[]), Changed);
    drop(stdin);
    user.wait().unwrap();
    let restored = sandbox.at("/restored.db");
    sqlite(&restored, &unpacked(&dump(&sandbox, FIRST, "x.db")));
    assert_eq!(sqlite(&restored, "SELECT * FROM t; PRAGMA integrity_check;"), "1|one\n2|wal\nok\n");
}

#[test]
fn a_database_of_somebody_is_dumped_as_that_user() {
    if !is_root() {
        return;
    }
    let mut sandbox = host();
    sandbox.write("/etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:4001:4001::/:/bin/sh\n");
    sandbox.fake_tool("sqlite3", "/usr/bin/id -u; printf 'COMMIT;\\n'");
    sandbox.write("/x.db", "");
    chown(sandbox.at("/x.db"), Some(4_001), Some(4_001)).unwrap();
    fs::set_permissions(sandbox.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(sandbox.at("/tools/log"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    sandbox.expect(KIND, &params("sqlite", "/x.db", &[]), Changed);
    assert_eq!(unpacked(&dump(&sandbox, FIRST, "x.db")), "4001\nCOMMIT;\n");
}

#[test]
fn a_damaged_database_gives_no_dump() {
    let Some(mut sandbox) = with_sqlite() else { return };
    let params = params("sqlite", "/x.db", &[]);
    sandbox.expect(KIND, &params, Changed);
    next_day(&mut sandbox);
    fs::write(sandbox.at("/x.db"), "no database at all").unwrap();
    let report = sandbox.expect(KIND, &params, Failed);
    assert!(report.message.contains("its dump has no end"), "{}", report.message);
    assert_eq!(snapshots(&sandbox), [FIRST]);
}

#[test]
fn a_missing_database_fails_or_is_skipped() {
    let Some(sandbox) = with_sqlite() else { return };
    let before = sandbox.picture();
    for path in ["/none.db", "/none/x.db"] {
        let report = sandbox.expect(KIND, &params("sqlite", path, &[]), Failed);
        assert!(report.message.contains(&format!("there is no database {path}")), "{}", report.message);
        let report = sandbox.expect(KIND, &params("sqlite", path, &[("optional", Value::Bool(true))]), Skipped);
        assert!(report.message.contains("there is no database"), "{}", report.message);
    }
    assert_eq!(sandbox.picture(), before);
    std::os::unix::fs::symlink("x.db", sandbox.at("/link.db")).unwrap();
    let report = sandbox.expect(KIND, &params("sqlite", "/link.db", &[]), Failed);
    assert!(report.message.contains("symbolic link"), "{}", report.message);
}

#[test]
fn a_missing_tool_blocks() {
    let mut sandbox = host();
    sandbox.write("/x.db", "");
    sandbox.search_path = Some(sandbox.at("/none").display().to_string());
    let before = sandbox.picture();
    for (kind, tool) in
        [("sqlite", "sqlite3"), ("postgres", "pg_dump"), ("mysql", "mysqldump"), ("mariadb", "mariadb-dump")]
    {
        let source = if kind == "sqlite" { "/x.db" } else { "shop" };
        let report = sandbox.expect(KIND, &params(kind, source, &[]), Blocked);
        assert!(report.message.contains(&format!("`{tool}` is not installed")), "{}", report.message);
    }
    assert_eq!(sandbox.picture(), before);
}

#[test]
fn what_a_tool_says_of_its_server_decides_the_outcome() {
    for (kind, said, outcome, optional) in [
        ("postgres", "FATAL:  database \"shop\" does not exist", Failed, Skipped),
        ("postgres", "connection failed: Connection refused", Blocked, Blocked),
        ("postgres", "FATAL:  password authentication failed", Failed, Failed),
        ("mysql", "Got error: 1049: \"Unknown database 'shop'\"", Failed, Skipped),
        ("mysql", "Got error: 2002: \"Can't connect to local server\"", Blocked, Blocked),
    ] {
        let mut sandbox = host();
        let tool = if kind == "postgres" { "pg_dump" } else { "mysqldump" };
        sandbox.fake_tool(tool, "echo '-- begun'; /bin/cat $R/said >&2; exit 1");
        sandbox.write("/said", said);
        sandbox.expect(KIND, &params(kind, "shop", &[]), outcome);
        sandbox.expect(KIND, &params(kind, "shop", &[("optional", Value::Bool(true))]), optional);
        assert_eq!(snapshots(&sandbox), [""; 0], "{said}");
    }
}

#[test]
fn mysql_gets_its_password_by_its_environment_and_what_makes_dumps_the_same() {
    let mut sandbox = host();
    sandbox.fake_tool("mysqldump", "echo \"-- $MYSQL_PWD\"; echo 'INSERT'; echo '-- Dump completed'");
    let more = [
        ("db_user", text("ada")),
        ("db_password", text("hunter22")),
        ("db_host", text("db.example.com")),
        ("db_port", text("3307")),
    ];
    sandbox.expect(KIND, &params("mysql", "shop", &more), Changed);
    let called = sandbox.calls();
    assert!(!called.contains("hunter22"), "{called}");
    for argument in
        ["--single-transaction", "--skip-dump-date", "--host=db.example.com", "--port=3307", "--user=ada shop\n"]
    {
        assert!(called.contains(argument), "{argument}: {called}");
    }
    assert_eq!(unpacked(&dump(&sandbox, FIRST, "shop")), "-- hunter22\nINSERT\n-- Dump completed\n");
    next_day(&mut sandbox);
    sandbox.expect(KIND, &params("mysql", "shop", &[("db_host", text("/run/my.sock"))]), Changed);
    assert!(sandbox.calls().contains("--socket=/run/my.sock"));
    sandbox.set_wall("2026-11-23T03:00:30Z");
    sandbox.fake_tool("mysqldump", "echo 'INSERT'; exit 0");
    let report = sandbox.expect(KIND, &params("mariadb", "shop", &[]), Failed);
    assert!(report.message.contains("its dump has no end"), "{}", report.message);
}

#[test]
fn a_command_of_the_operator_may_dump() {
    let mut sandbox = host();
    let run = |command: &str| params("postgres", "shop", &[("db_dump_command", text(command))]);
    sandbox.expect(KIND, &run("echo whatever"), Changed);
    assert_eq!(unpacked(&dump(&sandbox, FIRST, "shop")), "whatever\n");
    next_day(&mut sandbox);
    for (command, expected) in [
        ("echo half; echo no >&2; exit 3", "`db_dump_command` exited with 3:\nno"),
        ("true", "wrote nothing"),
        ("echo half; kill -9 $$", "was ended by signal 9"),
    ] {
        let report = sandbox.expect(KIND, &run(command), Failed);
        assert!(report.message.contains(expected), "{}", report.message);
        assert_eq!(snapshots(&sandbox), [FIRST]);
    }
    sandbox.expect(KIND, &run("echo whatever"), Changed);
    assert_eq!(inode(&dump(&sandbox, FIRST, "shop")), inode(&dump(&sandbox, SECOND, "shop")));
}

#[test]
fn a_dump_that_takes_too_long_or_finds_no_room_leaves_nothing() {
    let sandbox = host();
    let slow = params("postgres", "shop", &[("db_dump_command", text("echo half; exec sleep 60"))]);
    let slow = common::bundle::Resource { timeout_ms: 200, ..super::sandbox::resource("r", KIND, &slow) };
    let report = sandbox.run_all(vec![slow]);
    assert_eq!(report.resources[0].outcome, Failed);
    assert_eq!(snapshots(&sandbox), [""; 0]);
    let Some(disk) = Mounted::tmpfs(&sandbox.at("/d"), "size=1m") else { return };
    let large = params("postgres", "shop", &[("db_dump_command", text("head -c 4000000 /dev/urandom"))]);
    let report = sandbox.expect(KIND, &large, Blocked);
    assert!(report.message.contains("free some space"), "{}", report.message);
    assert_eq!(snapshots(&sandbox), [""; 0]);
    let report = sandbox.expect(KIND, &params("sqlite", "/x", &[("min_free_space", text("9T"))]), Failed);
    assert!(report.message.contains("no database"), "{}", report.message);
    disk.make_read_only();
    let report = sandbox.expect(KIND, &large, Blocked);
    assert!(report.message.contains("mount it writable"), "{}", report.message);
}

#[test]
fn old_dumps_go_and_bad_parameters_are_named() {
    let mut sandbox = host();
    let run = [("db_dump_command", text("echo x")), ("retain", text("1"))];
    for day in 21..=24 {
        sandbox.set_wall(&format!("2026-11-{day}T03:00:00Z"));
        sandbox.expect(KIND, &params("mysql", "shop", &run), Changed);
    }
    assert_eq!(snapshots(&sandbox), ["2026.327.03.00", "2026.328.03.00"]);
    refused(
        &sandbox,
        KIND,
        &[
            (params("oracle", "shop", &[]), "`db_type` must be `sqlite` or `postgres`"),
            (params("mysql", "-x", &[]), "`source_db` must be the name of a database"),
            (params("postgres", "postgres://u:p@h/d", &[]), "`source_db` must be the name of a database"),
            (params("mysql", "shop", &[("db_host", text("-x"))]), "`db_host` must be"),
            (params("mysql", "shop", &[("db_port", text("70000"))]), "`db_port` must be a whole number"),
            (params("mysql", "shop", &[("optional", text("perhaps"))]), "`optional` must be true or false"),
            (params("mysql", "shop", &[("db_name", text("x"))]), "has no parameter `db_name`"),
        ],
    );
}

#[test]
fn the_agent_s_own_directories_are_spared() {
    let mut sandbox = host();
    sandbox.protected = vec![sandbox.at("/d")];
    let report = sandbox.expect(KIND, &params("mysql", "shop", &[("db_dump_command", text("echo x"))]), Failed);
    assert!(report.message.contains("allow_self"), "{}", report.message);
}

/// A server of PostgreSQL of its own, as a user who may not be root, at a socket in a scratch directory.
struct Postgres {
    dir: tempfile::TempDir,
    server: Child,
}

impl Postgres {
    fn start() -> Option<Postgres> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let bin = versions.flatten().map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").exists())?;
        let dir = tempfile::tempdir().unwrap();
        let run = |program: &str, args: &[&str]| {
            let mut command = if is_root() { Command::new("setpriv") } else { Command::new("env") };
            if is_root() {
                command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            }
            command
                .arg(bin.join(program))
                .args(args)
                .current_dir(dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        if is_root() {
            chown(dir.path(), Some(65_534), Some(65_534)).unwrap();
        }
        let at = dir.path().to_str().unwrap().to_string();
        let data = format!("{at}/data");
        let made = run("initdb", &["-D", &data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"])
            .status()
            .unwrap();
        assert!(made.success());
        let server = run("postgres", &["-D", &data, "-k", &at, "-c", "listen_addresses=", "-F"]).spawn().unwrap();
        let postgres = Postgres { dir, server };
        let clock = common::sys::Clock::system();
        let deadline = clock.now().mono + 60_000;
        while postgres.sql("postgres", "SELECT 1").is_none() {
            assert!(clock.now().mono < deadline, "the server does not answer");
            clock.pause(50);
        }
        Some(postgres)
    }

    fn sql(&self, database: &str, sql: &str) -> Option<String> {
        let mut psql = Command::new("psql");
        psql.args(["-h", self.dir.path().to_str().unwrap(), "-U", "postgres", "-d", database, "-XqAt", "-c", sql]);
        let done = psql.stderr(Stdio::null()).output().unwrap();
        done.status.success().then(|| String::from_utf8(done.stdout).unwrap())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate: nothing of it is kept.
        let pid = nix::unistd::Pid::from_raw(self.server.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
        let _ = self.server.wait();
    }
}

#[test]
fn postgres_is_dumped_and_an_unchanged_database_is_the_same_file() {
    let Some(server) = Postgres::start() else {
        eprintln!("skipped: no PostgreSQL");
        return;
    };
    let mut sandbox = host();
    server.sql("postgres", "CREATE DATABASE shop").unwrap();
    server.sql("shop", "CREATE TABLE t(a int PRIMARY KEY, b text); INSERT INTO t VALUES (1, 'one')").unwrap();
    let socket = server.dir.path().to_str().unwrap();
    let params = params("postgres", "shop", &[("db_host", text(socket))]);
    sandbox.expect(KIND, &params, Changed);
    let first = dump(&sandbox, FIRST, "shop");
    assert!(unpacked(&first).contains("1\tone\n"));
    next_day(&mut sandbox);
    let report = sandbox.expect(KIND, &params, Changed);
    assert!(report.message.contains("the same as before"), "{}", report.message);
    assert_eq!(inode(&first), inode(&dump(&sandbox, SECOND, "shop")));
    // It can be had again.
    server.sql("postgres", "CREATE DATABASE again").unwrap();
    let mut psql = Command::new("psql")
        .args(["-h", socket, "-U", "postgres", "-d", "again", "-Xq", "-v", "ON_ERROR_STOP=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(unpacked(&first).as_bytes()).unwrap();
    assert!(psql.wait().unwrap().success());
    assert_eq!(server.sql("again", "SELECT * FROM t").as_deref(), Some("1|one\n"));
    sandbox.set_wall("2026-11-23T03:00:30Z");
    server.sql("shop", "INSERT INTO t VALUES (2, 'two')").unwrap();
    let report = sandbox.expect(KIND, &params, Changed);
    assert!(!report.message.contains("the same"), "{}", report.message);
    sandbox.set_wall("2026-11-24T03:00:30Z");
    let none = |optional: bool| {
        super::db_backup::params("postgres", "none", &[("db_host", text(socket)), ("optional", Value::Bool(optional))])
    };
    sandbox.expect(KIND, &none(false), Failed);
    sandbox.expect(KIND, &none(true), Skipped);
}
