//! What a start refuses, it refuses with a command that cures it; here the commands are taken from the messages and run.

use std::fs;
use std::process::Command;

use vigo_e2e::{Server, binary};

const POLICY: &[(&str, &str)] = &[
    ("configcrates/a.vgo", "name: a\nresources:\n  - {name: x, type: file, target_path: /x, content: x}\n"),
    ("envoys/all.vgo", "envoys:\n  - match: \"*\"\n    configcrates: [a]\n"),
];

/// A start that must be refused: what was said.
fn refused(server: &Server) -> String {
    let output = Command::new(binary("vigosrv")).args(["serve", "--root"]).arg(&server.root).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    said
}

/// Runs the command that begins so in a message: up to the end of its line, or of its backticks.
fn obey(said: &str, start: &str) {
    let at = said.find(start).unwrap_or_else(|| panic!("`{start}` is not in: {said}"));
    let command = said[at..].split(['`', '\n']).next().unwrap_or_default().to_owned() + " --yes";
    let command = if start.starts_with("mv") { command.trim_end_matches(" --yes").to_owned() } else { command };
    let path = format!("{}:{}", binary("vigocli").parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").args(["-euc", &command]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_damaged_or_missing_database_is_refused_with_the_command_that_brings_the_newest_archive_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path(), "", POLICY);
    server.start();
    server.cli(&["backup", "create"]);
    server.stop();
    let database = server.root.join("db/vigo.db");
    fs::write(&database, "this was a database").unwrap();
    let said = refused(&server);
    assert!(said.contains("the database is damaged"), "{said}");
    obey(&said, "vigocli backup restore /");
    server.start();
    server.stop();

    fs::remove_file(&database).unwrap();
    let said = refused(&server);
    assert!(said.contains("is missing, and its continuity file says"), "{said}");
    obey(&said, "vigocli backup restore /");
    server.start();
    assert!(server.cli(&["events"]).to_string().contains("restored from"), "{}", server.log());
}

#[test]
fn a_log_of_another_time_is_refused_with_the_command_that_takes_it_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path(), "", POLICY);
    let (database, older) = (server.root.join("db/vigo.db"), dir.path().join("older.db"));
    server.start();
    server.stop();
    fs::copy(&database, &older).unwrap();
    // Started and stopped, the log is all in the database; what is written then begins another one.
    server.start();
    for n in 0..3 {
        server.cli(&["envoys", "invite", "--hostname", &format!("host-{n}")]);
    }
    server.stop();
    server.start();
    server.cli(&["envoys", "invite", "--hostname", "one-more"]);
    server.kill();
    fs::copy(&older, &database).unwrap();
    let said = refused(&server);
    assert!(said.contains("does not belong to the database beside it"), "{said}");
    obey(&said, "mv ");
    server.start();
    assert!(server.log().contains("older than its continuity file"), "{}", server.log());
}
