//! A large file of the policy on a bad line: a transfer that is cut goes on where it stopped, also when server and agent die
//! meanwhile; and what has arrived once is repaired without the server.

use std::fs;
use std::net::SocketAddr;

use common::rng::{Rng, SplitMix64};
use vigo_e2e::{Envoy, KEPT, MAPPINGS, Proxy, Server, mappings, wait_until};

const BYTES: usize = 24 << 20;
/// Before each cut, of the [`BYTES`].
const PIECE: u64 = 5 << 20;
const POLICY: &str = "name: big\nresources:\n  - {name: big, type: file, target_path: /big, source: files/big}\n";

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

    let mut content = vec![0; BYTES];
    SplitMix64(7).fill(&mut content);
    fs::create_dir_all(server.root.join("stacks/files")).unwrap();
    fs::write(server.root.join("stacks/files/big"), &content).unwrap();
    let before = proxy.answered_bytes();
    proxy.cut_after(PIECE);
    server.publish(&[("configcrates/big.vgo", POLICY), (MAPPINGS, "envoys:\n  - {match: '*', configcrates: [big]}\n")]);
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
