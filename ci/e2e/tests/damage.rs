//! Damage in the history of the database: the server goes on, and says so wherever an operator looks.

use std::fs::{File, read_to_string};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;
use vigo_e2e::{Server, binary, wait_until};

const POLICY: &[(&str, &str)] = &[
    ("configcrates/a.vgo", "name: a\nresources:\n  - {name: x, type: file, target_path: /x, content: x}\n"),
    ("envoys/all.vgo", "envoys:\n  - match: \"*\"\n    configcrates: [a]\n"),
];

/// Makes a page of the audit log no page any more. Nothing that the server starts from lies there.
fn damage(database: &Path) {
    let conn = Connection::open(database).expect("the database opens");
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number") as u64;
    let page = number("SELECT rootpage FROM sqlite_schema WHERE name = 'audit'");
    let bytes = number("PRAGMA page_size");
    number("PRAGMA wal_checkpoint(TRUNCATE)");
    drop(conn);
    let file = File::options().write(true).open(database).expect("it is a file");
    file.write_all_at(&[0xff; 200], (page - 1) * bytes).expect("it is written");
}

/// What `vigocli doctor` finds about the database, as (grade, text), and its exit status.
fn doctor(root: &Path) -> (Option<(String, String)>, Option<i32>) {
    let output = Command::new(binary("vigocli")).args(["doctor", "--json", "--root"]).arg(root).output();
    let output = output.expect("vigocli starts");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = document["findings"].as_array().cloned().unwrap_or_default();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_string();
    let found = findings.iter().find(|finding| finding["check"] == "database");
    (found.map(|finding| (text(finding, "grade"), text(finding, "text"))), output.status.code())
}

fn health(root: &Path) -> String {
    let mut socket = UnixStream::connect(root.join("run/admin.sock")).expect("the socket");
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it is sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn damage_found_at_start_is_shown_by_doctor_and_health_and_stops_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::new(dir.path(), "", POLICY);
    server.start();
    assert_eq!(doctor(&server.root).0, None, "a server that found nothing");
    assert!(health(&server.root).contains("\"database\":\"ok\""));
    server.kill();
    damage(&server.root.join("db/vigo.db"));
    server.start();
    let (found, code) =
        wait_until("the damage to be found", || Some(doctor(&server.root)).filter(|(one, _)| one.is_some()));
    let (grade, text) = found.expect("it was waited for");
    assert_eq!((grade.as_str(), code), ("error", Some(2)));
    assert!(text.contains("the database is damaged"), "{text}");
    let health = health(&server.root);
    assert!(health.contains("\"database\":\"damaged\"") && health.contains("\"degraded\""), "{health}");
    let logged = read_to_string(server.root.join("log.txt")).unwrap_or_default();
    assert!(logged.contains("the database is damaged"), "{logged}");
    server.kill();
    let (found, code) = doctor(&server.root);
    assert_eq!((found.map(|(grade, _)| grade).as_deref(), code), (Some("error"), Some(2)), "without a server as well");
}
