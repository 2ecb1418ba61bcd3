//! The README's first command, with the real binaries: server and agent processes, TLS, SQLite and LMDB on disk.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A binary of this build, beside the test's own folder.
fn binary(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let path = here.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is not built: cargo build --workspace", path.display());
    path
}

#[test]
fn quickstart_really_does_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("q");
    let output = Command::new(binary("vigosrv"))
        .args(["quickstart", "--json", "--dir"])
        .arg(&place)
        .arg("--envoy")
        .arg(binary("vigo-envoy"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["done"], true);
    assert_eq!(document["steps"].as_array().unwrap().len(), 11);

    // The database says the same: the run without a server is there, once.
    let database = rusqlite::Connection::open(place.join("server/db/vigo.db")).unwrap();
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(count("SELECT count(*) FROM runs") >= 2);
    assert_eq!(
        count("SELECT count(*) FROM runs"),
        count("SELECT count(DISTINCT envoy || '/' || lane || '/' || first_seq) FROM runs")
    );
    assert_eq!(count("SELECT count(*) FROM envoys"), 1);
}

#[test]
fn a_used_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("server")).unwrap();
    let output = Command::new(binary("vigosrv")).args(["quickstart", "--dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was used before"));
}
