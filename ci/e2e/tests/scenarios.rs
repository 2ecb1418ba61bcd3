//! The scenarios of the operations guide, each by the very commands that the guide prints, with a fleet that had runs before the
//! backup, after it, and while the server was gone. `VIGO_E2E_FLEET=200` makes the fleet as large as that.

use std::fs;
use std::path::Path;

use vigo_e2e::fleet::{Contract, Fleet, clear};
use vigo_e2e::guide;

const PAGE: &str = "docs/OPERATIONS.md";
const KEYS: &str = "docs/operations/keys.md";
const LITESTREAM: &str = "docs/operations/litestream.md";

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The backup of the guide; the archive.
fn back_up(fleet: &Fleet) -> String {
    let safe = fleet.dir().join("safe");
    fs::create_dir(&safe).unwrap();
    let archive = text(&safe.join("vigo.tar.gz"));
    let root = text(&fleet.server.root);
    guide::run(PAGE, "backup", &[("ROOT", &root), ("ARCHIVE", &archive)], |_| panic!("it starts nothing"));
    archive
}

/// Runs a block; the server is started and stopped where the block says so.
fn follow(fleet: &mut Fleet, page: &str, name: &str, variables: &[(&str, &str)]) {
    let root = text(&fleet.server.root);
    let all: Vec<(&str, &str)> = variables.iter().copied().chain([("ROOT", root.as_str())]).collect();
    guide::run(page, name, &all, |words| match words {
        "start vigosrv" => fleet.server.start(),
        "restart vigosrv" => {
            fleet.server.stop();
            fleet.server.start();
        }
        other => panic!("systemctl {other}"),
    });
}

#[test]
fn the_whole_host_is_lost_and_comes_back_from_an_archive() {
    let mut fleet = Fleet::new("");
    let archive = back_up(&fleet);
    fleet.live_on();
    fleet.disaster();
    // Another host: another directory, and nothing of the old one is left.
    fs::remove_dir_all(&fleet.server.root).unwrap();
    fleet.server.root = fleet.dir().join("another/place");
    fs::create_dir_all(fleet.dir().join("another")).unwrap();
    follow(&mut fleet, PAGE, "scenario-1", &[("ARCHIVE", &archive)]);
    fleet.check(Contract::Same);
}

/// The replica may lack the last moment; what it lacks comes again.
#[test]
fn the_database_is_lost_and_comes_back_from_its_replica() {
    vigo_e2e::replica::need_replica_programs();
    let store = tempfile::tempdir().unwrap();
    let url = format!("backup: {{url: 'file://{}/replica', sync_interval: 200ms}}", store.path().display());
    let mut fleet = Fleet::new(&url);
    fleet.live_on();
    fleet.replicated();
    fleet.disaster();
    follow(&mut fleet, LITESTREAM, "scenario-2", &[]);
    fleet.check(Contract::Whole);
}

#[test]
fn the_master_key_is_lost_and_everything_else_works() {
    let mut fleet = Fleet::new("");
    fleet.server.set_secret("prod/db", "hunter22hunter");
    fleet.live_on();
    fleet.disaster();
    fs::remove_file(fleet.server.root.join("secrets/.master.key")).unwrap();
    fleet.server.start();
    fleet.check(Contract::Untouched);
    let found = fleet.server.cli_any(&["doctor"]).to_string();
    assert!(found.contains("prod/db"), "{found}");
    assert!(fleet.server.root.join("secrets/.lost").is_dir());
}

#[test]
fn everything_is_lost_and_a_kit_brings_the_fleet_to_another_server() {
    let mut fleet = Fleet::new("");
    let kit = text(&fleet.dir().join("kit.txt"));
    follow(&mut fleet, KEYS, "kit", &[("KIT", &kit)]);
    fleet.live_on();
    fleet.disaster();
    fleet.lose_everything();
    follow(&mut fleet, KEYS, "scenario-5-kit", &[("KIT", &kit)]);
    fleet.check(Contract::Rebuilt);
}

#[test]
fn the_database_is_lost_and_comes_back_from_an_archive() {
    let mut fleet = Fleet::new("");
    let archive = back_up(&fleet);
    fleet.live_on();
    fleet.disaster();
    clear(&fleet.server.root.join("db"), &[]);
    follow(&mut fleet, PAGE, "scenario-3", &[("ARCHIVE", &archive)]);
    fleet.nothing_is_disarmed();
    fleet.check(Contract::Same);
}
