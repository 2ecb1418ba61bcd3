//! A large file of the policy on a bad line: a transfer that is cut goes on where it stopped, also when server and agent die
//! meanwhile; and what has arrived once is repaired without the server.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use common::crypto::sha256;
use common::rng::{Rng, SplitMix64};
use vigo_e2e::trace;
use vigo_e2e::{Envoy, KEPT, MAPPINGS, Proxy, Server, mappings, wait_until};

const BYTES: usize = 24 << 20;
/// Of the file for the slow disk, which takes so many microseconds for each piece of 64 KiB.
const SLOW_BYTES: usize = 12 << 20;
const PIECE_US: u64 = 10_000;
/// Before each cut, of the [`BYTES`].
const PIECE: u64 = 5 << 20;
const POLICY: &str = "name: big\nresources:\n  - {name: big, type: file, target_path: /big, source: files/big}\n";

/// Publishes the file for all hosts; its content.
fn publish_big(server: &Server, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    SplitMix64(7).fill(&mut content);
    fs::create_dir_all(server.root.join("stacks/files")).unwrap();
    fs::write(server.root.join("stacks/files/big"), &content).unwrap();
    server.publish(&[("configcrates/big.vgo", POLICY), (MAPPINGS, "envoys:\n  - {match: '*', configcrates: [big]}\n")]);
    content
}

#[test]
fn a_transfer_that_is_cut_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let policy = [KEPT, (MAPPINGS, &*mappings(&[("*", "before")]))];
    let mut server = Server::new(dir.path(), "checkin: {interval: 1s}", &policy);
    // Agents are told the address of the proxy, on the same port.
    server.hostname = "127.0.0.2".into();
    server.start();
    let address = |host: [u8; 4]| SocketAddr::from((host, server.port));
    let proxy = Proxy::start(address([127, 0, 0, 2]), address([127, 0, 0, 1]));
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll_at(&proxy.address().to_string(), &server, "big.example");
    // The pauses after a cut end twenty times sooner.
    envoy.clock = "scale=20".into();
    envoy.start();
    envoy.keeps("before");

    let before = proxy.answered_bytes();
    proxy.cut_after(PIECE);
    let content = publish_big(&server, BYTES);
    let cut = || wait_until("a cut", || (!proxy.will_cut()).then_some(()));
    cut();
    proxy.cut_after(PIECE);
    cut();
    // Each end dies once in the middle.
    proxy.cut_after(PIECE);
    cut();
    envoy.kill();
    envoy.start();
    proxy.cut_after(PIECE);
    cut();
    server.kill();
    server.start();
    let whole = || fs::read(envoy.path("big")).is_ok_and(|found| found == content).then_some(());
    wait_until("the file", whole);
    let carried = proxy.answered_bytes() - before;
    // Beside the file: handshakes, framing, and what was in flight at a cut.
    println!("{} KiB crossed the line for a file of {} KiB", carried >> 10, BYTES >> 10);
    assert!(carried < BYTES as u64 + PIECE / 2, "{carried} bytes for {BYTES}");

    server.stop();
    fs::write(envoy.path("big"), "broken").unwrap();
    wait_until("the repair without a server", whole);
}

#[test]
fn a_transfer_waits_for_a_disk_that_is_slower_than_the_line() {
    if !trace::is_permitted() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path(), "", &[KEPT, (MAPPINGS, &mappings(&[("*", "before")]))]);
    server.start();
    let envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "slow.example");
    let content = publish_big(&server, SLOW_BYTES);
    let part = envoy.dir.join(format!("state/blobs/{}.part", sha256(&[&content])));
    let run = envoy.command(&["run", "--once"]);
    let mut slow = Command::new("strace");
    slow.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("inject=write:delay_exit={PIECE_US}"), "-P"]).arg(&part);
    let output = slow.arg(run.get_program()).args(run.get_args()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("could not be kept"), "{said}");
    assert!(fs::read(envoy.path("big")).is_ok_and(|found| found == content), "{said}");
}
