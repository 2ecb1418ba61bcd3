//! The server under emulation: agents of two architectures on it, its death, and its archive restored on another architecture and back.
//!
//! Runs for each target whose `vigosrv` was built (`ci/cross TARGET`); `ci/run` builds those of x86_64 and s390x.

use std::fs;
use std::path::Path;
use std::process::Command;

use vigo_arch_tests::{Target, targets};
use vigo_e2e::{Envoy, KEPT, MAPPINGS, Server, mappings, wait_until};

const SETTINGS: &str = "checkin: {interval: 1s}";

fn built() -> Vec<Target> {
    let (built, missing): (Vec<Target>, Vec<Target>) =
        targets().into_iter().partition(|target| target.path("vigosrv").is_file());
    for target in missing {
        println!("not tested: no vigosrv for {}: run `ci/cross {}`", target.triple, target.short());
    }
    let shapes: Vec<bool> = built.iter().map(|target| target.little_endian).collect();
    assert!(shapes.contains(&true) && shapes.contains(&false), "a server of each byte order: `ci/cross x86_64 s390x`");
    built
}

fn native() -> Target {
    targets().into_iter().find(|target| target.emulator.is_none()).expect("one runs by itself")
}

#[test]
fn an_emulated_server_serves_agents_and_survives_its_death() {
    for target in built() {
        let dir = tempfile::tempdir().unwrap();
        let policy = [KEPT, (MAPPINGS, &*mappings(&[("*", "one")]))];
        let mut server = Server::with_program(dir.path(), SETTINGS, &policy, target.binary("vigosrv"));
        server.start();
        let mut envoys = [("same.example", &target), ("other.example", &native())].map(|(name, own)| {
            let mut envoy = Envoy::with_program(&dir.path().join(name), own.binary("vigo-envoy"));
            envoy.enroll(&server, name);
            envoy.start();
            envoy
        });
        envoys.iter().for_each(|envoy| envoy.keeps("one"));
        server.kill();
        envoys.iter().for_each(|envoy| envoy.repairs("one"));
        server.start();
        server.publish(&[(MAPPINGS, &mappings(&[("*", "two")]))]);
        envoys.iter().for_each(|envoy| envoy.keeps("two"));
        wait_until("both to be seen", || {
            let list = server.cli(&["envoys", "list"])["envoys"].clone();
            list.as_array()?.iter().all(|row| row["status"] != "nodata").then_some(())
        });
        envoys.iter_mut().for_each(Envoy::stop);
        server.stop();
    }
}

fn backup(program: &Path, words: &[&str]) {
    let mut command = Command::new(program.with_file_name("vigocli"));
    let output = command.arg("backup").args(words).arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} backup {words:?}: {said}", program.display());
}

#[test]
fn an_archive_of_one_architecture_is_restored_on_another_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut round = built();
    round.push(round[0].clone());
    let policy = [KEPT, (MAPPINGS, &*mappings(&[("*", "kept")]))];
    let mut server = Server::with_program(dir.path(), SETTINGS, &policy, round[0].binary("vigosrv"));
    server.set_secret("db/password", "hunter2-arch");
    server.start();
    let mut envoy = Envoy::with_program(&dir.path().join("envoy"), native().binary("vigo-envoy"));
    envoy.enroll(&server, "moved.example");
    envoy.start();
    envoy.keeps("kept");
    for pair in round.windows(2) {
        let archive = dir.path().join(format!("{}.tar.gz", pair[0].short()));
        let root = &*server.root.display().to_string();
        backup(&pair[0].path("vigosrv"), &["create", archive.to_str().unwrap(), "--force", "--root", root]);
        server.kill();
        // Another machine: nothing is there but the archive.
        fs::remove_dir_all(&server.root).unwrap();
        backup(&pair[1].binary("vigosrv"), &["restore", archive.to_str().unwrap(), "--yes", "--target", root]);
        let port = server.port;
        server = Server::at(dir.path(), SETTINGS, pair[1].binary("vigosrv"));
        server.port = port;
        server.start();
        wait_until("the agent to come back", || {
            let list = server.cli(&["envoys", "list"])["envoys"].clone();
            let row = list.as_array()?.first()?.clone();
            let status = envoy.ask(&["status"]);
            (row["hostname"] == "moved.example" && status["attempt"] == 0).then_some(())
        });
        envoy.repairs("kept");
        let found = Command::new(pair[1].path("vigocli"))
            .args(["secrets", "get", "db/password", "--root"])
            .arg(&server.root)
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&found.stdout).contains("hunter2-arch"), "{}", pair[1].triple);
    }
    envoy.stop();
}
