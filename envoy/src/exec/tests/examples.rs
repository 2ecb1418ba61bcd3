//! The configcrates of `examples/backups` do what they say, on a root that looks like that of a server.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use common::bundle::Value;
use common::outcome::Outcome::{Changed, Ok as Fine};

use super::sandbox::Sandbox;
use crate::exec::run;
use crate::report::RunReport;

const PLAIN: &str = include_str!("../../../../examples/backups/stacks/configcrates/backups.vgo");
const WITH_VARS: &str =
    include_str!("../../../../examples/backups/stacks/configcrates/system/vigo-server-backup.vgo.example");

fn server() -> Option<Sandbox> {
    if !Command::new("sqlite3").arg("--version").output().is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no sqlite3");
        return None;
    }
    let mut sandbox = Sandbox::new();
    sandbox.set_wall("2026-11-21T03:00:00Z");
    for (path, content) in [
        ("/srv/vigo/server.yaml", "fleet_name: x\n"),
        ("/srv/vigo/secrets/.master.key", "key"),
        ("/srv/vigo/run/admin.sock", ""),
        ("/srv/vigo/db/README", "not the database"),
        ("/var/lib/other", ""),
    ] {
        sandbox.write(path, content);
    }
    let made = Command::new("sqlite3")
        .arg(sandbox.at("/srv/vigo/db/vigo.db"))
        .arg("PRAGMA journal_mode=wal; CREATE TABLE envoys(a); INSERT INTO envoys VALUES('web-1');")
        .output();
    assert!(made.unwrap().status.success());
    Some(sandbox)
}

fn converge(sandbox: &Sandbox, source: &str, vars: &[(&str, &str)]) -> RunReport {
    let mut none = |_: &str| Err(String::new());
    let mut bundle = common::policy::compile_file("x.vgo", source.as_bytes(), &mut none).expect("it is right");
    // As the vars of a mapping, which win over those of the configcrate.
    for (name, value) in vars {
        let value = Value::Str(value.to_string());
        bundle.vars.insert(name.to_string(), value.clone());
        bundle.resources.iter_mut().for_each(|resource| drop(resource.vars.insert(name.to_string(), value.clone())));
    }
    let mut input = sandbox.input(Vec::new(), false);
    input.order.bundle = Arc::new(bundle);
    run(&input)
}

fn names(sandbox: &Sandbox, path: &str) -> Vec<String> {
    let all = fs::read_dir(sandbox.at(path)).unwrap();
    let mut names: Vec<String> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn check(source: &str, vars: &[(&str, &str)], target: &str, windows: [&str; 2], second: &str) {
    let Some(mut sandbox) = server() else { return };
    for (now, outcome) in [(windows[0], Changed), (windows[0], Fine), (windows[1], Changed), (windows[1], Fine)] {
        sandbox.set_wall(now);
        let report = converge(&sandbox, source, vars);
        assert_eq!(report.resources.len(), 2);
        assert!(report.resources.iter().all(|one| one.outcome == outcome), "{now}: {:?}", report.resources);
    }
    let snapshot = format!("{target}/{second}");
    assert_eq!(names(&sandbox, &snapshot), ["db", "secrets", "server.yaml"]);
    assert_eq!(names(&sandbox, &format!("{snapshot}/db")), ["README"]);
    assert_eq!(sandbox.read(&format!("{snapshot}/secrets/.master.key")), "key");
    let dump = sandbox.at(&format!("{target}/vigo-db/{second}/vigo.db.sql.gz"));
    assert!(super::db_backup::unpacked(&dump).contains("INSERT INTO envoys VALUES('web-1');"));
    assert_eq!(names(&sandbox, target), ["2026.325.03.00", second, "vigo-db"]);
    assert_eq!(names(&sandbox, &format!("{target}/vigo-db")), ["2026.325.03.00", second]);
}

#[test]
fn the_configcrate_of_backups_keeps_a_server() {
    let days = ["2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"];
    check(PLAIN, &[], "/var/backups/vigo", days, "2026.326.03.00");
}

#[test]
fn the_one_with_variables_takes_numbers_as_text() {
    let days = ["2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"];
    check(WITH_VARS, &[], "/var/backups/vigo", days, "2026.326.03.00");
    let hours = ["2026-11-21T03:00:00Z", "2026-11-21T04:00:00Z"];
    let vars = [("backup_retain", "7"), ("backup_schedule", "hourly"), ("backup_target", "/mnt/keep")];
    check(WITH_VARS, &vars, "/mnt/keep", hours, "2026.325.04.00");
}
