//! The promise that everything stands on: a fleet converges through the death of its server, and every run reaches the database
//! exactly once. Fifty agents at a one second interval; the server is killed twenty times with a report in flight.
//!
//! `VIGO_E2E_KILLS` and `VIGO_E2E_AGENTS` make it longer or larger.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::chain::Lane;
use common::ids::Uuid;
use rusqlite::{Connection, OpenFlags};
use vigo_e2e::{Account, Envoy, Proxy, Server, account, read_ledger, stored_records, wait_for, wait_until};
use vigosrv::store::read::Reader;

/// What the file of every agent says when it is right.
const KEPT: &str = "kept by policy\n";

/// Every run writes its id: as a change on the loud agents, so that each is delivered at once; as an answered guard on the
/// quiet ones, so that runs collapse. The file comes after it, so a line in the ledger says that the run had still to look at
/// it. Between the two a pause, in which agents are killed.
const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/loud.vgo",
        r#"name: loud
resources:
  - {name: ledger, type: exec, command: 'echo "$VIGO_RUN_ID $PPID" >> ledger'}
  - {name: pause, type: exec, command: 'exit 1', unless: 'sleep 0.03', depends_on: [ledger]}
"#,
    ),
    (
        "configcrates/quiet.vgo",
        r#"name: quiet
resources:
  - {name: ledger, type: exec, command: 'exit 1', unless: 'echo "$VIGO_RUN_ID $PPID" >> ledger'}
  - {name: pause, type: exec, command: 'exit 1', unless: 'sleep 0.03', depends_on: [ledger]}
"#,
    ),
    (
        "configcrates/loudfile.vgo",
        "name: loudfile\nresources:\n  - {name: kept, type: file, target_path: /kept, content: \"kept by policy\\n\", mode: \"0644\", depends_on: [loud.pause]}\n",
    ),
    (
        "configcrates/quietfile.vgo",
        "name: quietfile\nresources:\n  - {name: kept, type: file, target_path: /kept, content: \"kept by policy\\n\", mode: \"0644\", depends_on: [quiet.pause]}\n",
    ),
    (
        "envoys/all.vgo",
        "envoys:\n  - {match: 'loud-*', configcrates: [loud, loudfile]}\n  - {match: 'quiet-*', configcrates: [quiet, quietfile]}\n",
    ),
];

/// Bytes of a request that only a report reaches: a check-in has about 200, a report of one run about 600.
const REPORT_BYTES: usize = 400;
/// Connections are held in the first part of the kills: all agents lose the server at once. Then they poll.
const HELD_PERCENT: usize = 25;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A file that was broken, and when by the ledger of its agent.
struct Drift {
    envoy: usize,
    lines: usize,
    kills: usize,
}

struct Fleet {
    server: Server,
    proxy: Proxy,
    envoys: Vec<Envoy>,
    names: Vec<String>,
    /// Process ids of agents that were killed, and how often each agent was.
    killed: BTreeSet<u32>,
    kills: Vec<usize>,
    drifts: Vec<Drift>,
    repaired: usize,
}

impl Fleet {
    fn new(dir: &Path, n: usize) -> Fleet {
        let mut server = Server::new(dir, &hold("always"), POLICY);
        // The address that agents are told is that of the proxy, on the same port.
        server.hostname = "127.0.0.2".into();
        server.start();
        let address = |host: [u8; 4]| SocketAddr::from((host, server.port));
        let proxy = Proxy::start(address([127, 0, 0, 2]), address([127, 0, 0, 1]));
        let name = |i: usize| format!("{}-{i}", if i.is_multiple_of(3) { "loud" } else { "quiet" });
        let names: Vec<String> = (0..n).map(name).collect();
        let mut envoys: Vec<Envoy> = names.iter().map(|name| Envoy::new(&dir.join(name))).collect();
        let half = envoys.len().div_ceil(2);
        std::thread::scope(|scope| {
            for (envoys, names) in envoys.chunks_mut(half).zip(names.chunks(half)) {
                let (server, proxy) = (&server, &proxy);
                scope.spawn(move || {
                    for (envoy, name) in envoys.iter_mut().zip(names) {
                        envoy.enroll_at(&proxy.address().to_string(), server, name);
                        envoy.start();
                    }
                });
            }
        });
        let kills = vec![0; n];
        Fleet { server, proxy, envoys, names, killed: BTreeSet::new(), kills, drifts: Vec::new(), repaired: 0 }
    }

    fn lines(&self, envoy: usize) -> usize {
        read_ledger(&self.envoys[envoy].path("ledger")).len()
    }

    fn is_kept(&self, envoy: usize) -> bool {
        let path = self.envoys[envoy].path("kept");
        let mode = fs::metadata(&path).map_or(0, |meta| meta.permissions().mode() & 0o777);
        mode == 0o644 && fs::read_to_string(&path).is_ok_and(|text| text == KEPT)
    }

    /// Breaks the file of an agent, in one of three ways.
    fn break_file(&mut self, envoy: usize, how: usize) {
        if self.drifts.iter().any(|drift| drift.envoy == envoy) {
            return;
        }
        let path = self.envoys[envoy].path("kept");
        // The agent may replace the file at the same time; then it is not broken, which is as good.
        let _ = match how % 3 {
            0 => fs::write(&path, "broken by hand\n"),
            1 => fs::remove_file(&path),
            _ => fs::set_permissions(&path, fs::Permissions::from_mode(0o600)),
        };
        self.drifts.push(Drift { envoy, lines: self.lines(envoy), kills: self.kills[envoy] });
    }

    /// Every drift is repaired by the end of the second run that started after it: before a third one begins. A run that was
    /// killed is none.
    fn check_drifts(&mut self) {
        let drifts = std::mem::take(&mut self.drifts);
        for drift in drifts {
            let (envoy, lines) = (drift.envoy, self.lines(drift.envoy));
            if self.is_kept(envoy) {
                self.repaired += 1;
                continue;
            }
            let runs = lines.saturating_sub(drift.lines + self.kills[envoy] - drift.kills);
            assert!(runs <= 2, "{}: a drift outlived two runs: {}", self.names[envoy], self.envoys[envoy].log());
            self.drifts.push(drift);
        }
    }

    /// In the middle of a run, as a rule.
    fn kill_agent(&mut self, envoy: usize) {
        let before = self.lines(envoy);
        wait_until("a run to begin", || (self.lines(envoy) > before).then_some(()));
        self.killed.insert(self.envoys[envoy].id());
        self.kills[envoy] += 1;
        self.envoys[envoy].kill();
        self.envoys[envoy].start();
    }

    /// The server dies with a report of some agent in flight. Whether that was committed already.
    fn kill_server(&mut self, round: usize, n: usize) -> bool {
        let n_held = n * HELD_PERCENT / 100;
        if round < n_held {
            wait_until("most agents to be connected", || {
                self.check_drifts();
                (self.proxy.connections() * 4 > self.envoys.len() * 3).then_some(())
            });
        }
        let caught = loop {
            self.proxy.arm(REPORT_BYTES);
            let caught = wait_until("a report in flight", || {
                self.check_drifts();
                self.proxy.caught(Duration::from_millis(20))
            });
            if self.has_records(caught.agent) {
                break caught;
            }
            // It has traits alone.
            self.proxy.release();
        };
        match round % 3 {
            // Before it is read, as a rule; after a while; when it is answered, with the answer held back.
            0 => {}
            1 => drop(self.proxy.answered(Duration::from_millis(1 + round as u64))),
            _ => assert!(self.proxy.answered(Duration::from_secs(20)), "no answer to {caught:?}"),
        }
        // Every fourth time, agents that come meanwhile are refused; otherwise they wait for the server.
        self.proxy.set_up(round % 4 == 3);
        self.server.kill();
        let committed = self.is_unacknowledged(caught.agent, round % 3 == 2);
        if round + 1 >= n_held {
            self.server.settings = hold("never");
        }
        self.server.start();
        self.proxy.release();
        self.proxy.set_up(true);
        committed
    }

    fn has_records(&self, agent: SocketAddr) -> bool {
        // The sender may have been killed, or have given up, between its last byte and this look.
        let Some((_, queue)) = self.queue_of(agent) else { return false };
        (0..2).any(|i| queue["lanes"][i]["records"].as_u64() > Some(0))
    }

    /// Which agent is at this address, and its queue.
    fn queue_of(&self, agent: SocketAddr) -> Option<(usize, serde_json::Value)> {
        let at = self.envoys.iter().position(|envoy| owns_socket(envoy.id(), agent))?;
        Some((at, self.envoys[at].ask(&["queue"])))
    }

    /// The agent at this address waits for an acknowledgement; returns whether the database has more than it was told.
    fn is_unacknowledged(&self, agent: SocketAddr, answered: bool) -> bool {
        let (at, queue) = self.queue_of(agent).expect("the report came from an agent of the fleet");
        let lane = |i: usize, key: &str| queue["lanes"][i][key].as_u64().expect("a number");
        let stored = watermarks(&self.server.root, &self.names[at]);
        let committed = (0..2).any(|i| stored[i] > lane(i, "acknowledged"));
        let waits = (0..2).any(|i| lane(i, "records") > 0);
        assert!(waits, "{} has nothing unacknowledged: {queue}", self.names[at]);
        assert!(committed || !answered, "{} was answered, but only {stored:?} is stored: {queue}", self.names[at]);
        committed
    }
}

fn hold(mode: &str) -> String {
    format!("checkin: {{interval: 1s, hold: {mode}}}\nlog: {{level: warn}}")
}

/// Whether a process has this end of a TCP connection (`/proc/net/tcp`: addresses are hexadecimal, the tenth field is the inode).
fn owns_socket(pid: u32, address: SocketAddr) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let port = format!(":{:04X}", address.port());
    let mut fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let Some(row) = fields.find(|row| row.len() > 9 && row[1].ends_with(&port) && row[9] != "0") else { return false };
    let name = format!("socket:[{}]", row[9]);
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == name.as_str()))
}

/// What the database of a server that is dead holds of an envoy, read from a copy: the next start finds it as it was left.
fn watermarks(root: &Path, hostname: &str) -> [u64; 2] {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["vigo.db", "vigo.db-wal"] {
        let _ = fs::copy(root.join("db").join(name), scratch.path().join(name));
    }
    let copy = Connection::open(scratch.path().join("vigo.db")).unwrap();
    let sql = "SELECT p.urgent_watermark, p.routine_watermark FROM envoy_progress p JOIN envoys e USING (id) WHERE e.hostname = ?1";
    copy.query_row(sql, [hostname], |row| Ok([row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64])).unwrap()
}

fn database(root: &Path) -> PathBuf {
    root.join("db/vigo.db")
}

/// Nothing is broken, forked or missing in any chain.
fn verify_chains(root: &Path) {
    let path = database(root);
    let reading = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = |sql: &str| reading.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM forks"), 0);
    assert_eq!(count("SELECT count(*) FROM events WHERE kind IN ('fork', 'chain-break', 'chain-start')"), 0);
    assert_eq!(
        count("SELECT count(*) FROM runs"),
        count("SELECT count(*) FROM (SELECT DISTINCT envoy, lane, last_seq FROM runs)")
    );
    let mut statement = reading.prepare("SELECT uuid FROM envoys").unwrap();
    let uuids: Vec<Vec<u8>> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut reader = Reader::open(&path).unwrap();
    let mut compared = 0;
    for uuid in uuids.iter().map(|bytes| Uuid::try_from_slice(bytes).unwrap()) {
        for lane in Lane::ALL {
            let report = reader.verify(&uuid, lane, 0, 1_000_000).unwrap();
            assert!(report.faults.is_empty(), "{uuid}: {:?}", report.faults);
            assert_eq!(report.lost, 0);
            compared += report.compared;
        }
    }
    assert!(compared > 0, "no link was compared with what it covers");
}

#[test]
fn every_run_arrives_once_through_twenty_deaths_of_the_server() {
    let (n, kills) = (setting("VIGO_E2E_AGENTS", 50), setting("VIGO_E2E_KILLS", 20));
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(dir.path(), n);
    wait_until("every agent to have run", || (0..n).all(|i| fleet.is_kept(i)).then_some(()));

    let mut committed = 0;
    for round in 0..kills {
        for k in 0..8 {
            fleet.break_file((round * 17 + k * 7) % n, round + k);
        }
        fleet.kill_agent((round * 11 + 5) % n);
        committed += usize::from(fleet.kill_server(round, kills));
    }

    // Peace: what was run until now arrives, and what is broken is repaired.
    let required: Vec<usize> = (0..n).map(|i| fleet.lines(i)).collect();
    wait_until("every drift to be repaired", || {
        fleet.check_drifts();
        fleet.drifts.is_empty().then_some(())
    });
    let reading = Connection::open_with_flags(database(&fleet.server.root), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    for (i, required) in required.iter().enumerate() {
        wait_for("what was run to arrive", || {
            let ledger = read_ledger(&fleet.envoys[i].path("ledger"));
            let found = account(&ledger, &stored_records(&reading, &fleet.names[i]), *required, &fleet.killed);
            found.map_err(|why| format!("{}: {why}\n{}", fleet.names[i], fleet.envoys[i].log()))
        });
    }

    drop(reading);
    for envoy in &mut fleet.envoys {
        envoy.stop();
    }
    fleet.server.stop();
    let stopped = Connection::open(database(&fleet.server.root)).unwrap();
    let mut sum = Account::default();
    for (i, required) in required.iter().enumerate() {
        let ledger = read_ledger(&fleet.envoys[i].path("ledger"));
        let one = account(&ledger, &stored_records(&stopped, &fleet.names[i]), *required, &fleet.killed);
        let one = one.unwrap_or_else(|why| panic!("{}: {why}", fleet.names[i]));
        sum.runs += one.runs;
        sum.stored += one.stored;
        sum.collapsed += one.collapsed;
        sum.killed += one.killed;
        assert_eq!(one.lost, 0, "{}", fleet.names[i]);
    }
    verify_chains(&fleet.server.root);
    println!(
        "{kills} deaths of the server, {committed} with the report committed; {} deaths of agents; {} drifts repaired; {sum:?}",
        fleet.killed.len(),
        fleet.repaired
    );
    assert!(committed > 0 && sum.collapsed > 0 && fleet.repaired > 0);
}
