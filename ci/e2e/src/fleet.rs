//! A fleet that lives through a disaster: agents with real queues, some of which enroll or are revoked after the backup, with runs
//! before it, after it, and while the server is gone. What must hold afterwards is checked here once for all scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

use crate::ledger::{account, read_ledger, stored_records};
use crate::process::{binary, wait_for};
use crate::site::{Envoy, Server};

/// Every run changes something and has a line in the ledger of its agent.
pub const POLICY: &[(&str, &str)] = &[
    (
        "configcrates/loud.vgo",
        "name: loud\nresources:\n  - {name: ledger, type: exec, command: 'echo \"$VIGO_RUN_ID $PPID\" >> ledger'}\n",
    ),
    ("envoys/all.vgo", "envoys:\n  - {match: '*', configcrates: [loud]}\n"),
];
const SETTINGS: &str = "checkin: {interval: 1s}\nlog: {level: warn}";

/// When a member came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Before,
    /// After the backup, which does not know it.
    After,
    /// Before the backup; revoked after it.
    Revoked,
}

struct Member {
    name: String,
    envoy: Envoy,
    came: Came,
    uuid: String,
    daemon: bool,
}

/// Server, agents, and the directory of both.
pub struct Fleet {
    /// The server.
    pub server: Server,
    members: Vec<Member>,
    dir: tempfile::TempDir,
}

/// What a recovery is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// The server came back with the keys it had, and the database of the backup.
    Same,
    /// The same, with a database that had everything.
    Whole,
    /// Another server took its place: everybody is re-admitted.
    Rebuilt,
    /// The database was not touched.
    Untouched,
}

/// How many agents: `VIGO_E2E_FLEET` of which every twentieth, and three at least, is a daemon.
fn sizes() -> (usize, usize) {
    let all = std::env::var("VIGO_E2E_FLEET").ok().and_then(|text| text.parse().ok()).unwrap_or(14_usize);
    (all, (all / 20).max(3))
}

impl Fleet {
    /// Enrolled and converged, not backed up yet. `settings` are more lines of `server.yaml`.
    pub fn new(settings: &str) -> Fleet {
        let dir = tempfile::tempdir().expect("a directory");
        let mut server =
            Server::with_program(dir.path(), &format!("{SETTINGS}\n{settings}"), POLICY, binary("vigosrv"));
        server.start();
        let (all, daemons) = sizes();
        let mut fleet = Fleet { server, members: Vec::new(), dir };
        for n in 0..all {
            // Of twelve two come later and one is revoked; daemons are of all kinds.
            let came = match n % 12 {
                1 | 7 => Came::After,
                5 => Came::Revoked,
                _ => Came::Before,
            };
            let envoy = Envoy::new(&fleet.dir.path().join(format!("envoy-{n}")));
            fleet.members.push(Member {
                name: format!("n{n}.example"),
                envoy,
                came,
                uuid: String::new(),
                daemon: n < daemons,
            });
        }
        fleet.enroll(|came| came != Came::After);
        fleet.run(|_| true);
        fleet
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn enroll(&mut self, which: impl Fn(Came) -> bool) {
        let mut known = BTreeMap::new();
        for member in self.members.iter().filter(|member| which(member.came)) {
            member.envoy.enroll(&self.server, &member.name);
        }
        for row in self.rows() {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            known.insert(text("hostname"), text("uuid"));
        }
        for member in self.members.iter_mut().filter(|member| which(member.came)) {
            member.uuid = known.get(&member.name).cloned().unwrap_or_default();
            assert!(!member.uuid.is_empty(), "{} is enrolled", member.name);
        }
    }

    /// One run of everybody who is enrolled and wanted.
    fn run(&self, which: impl Fn(&Member) -> bool) {
        for member in self.members.iter().filter(|member| !member.uuid.is_empty() && which(member)) {
            member.envoy.ask(&["run", "--once"]);
        }
    }

    /// What happens between the backup and the disaster: newcomers, a revocation, runs that are acknowledged.
    pub fn live_on(&mut self) {
        self.enroll(|came| came == Came::After);
        self.run(|_| true);
        for name in self.members.iter().filter(|member| member.came == Came::Revoked).map(|member| member.name.as_str())
        {
            self.server.cli(&["envoys", "revoke", name, "--yes"]);
        }
        // They learn of the revocation, and would remember it.
        self.run(|member| member.came != Came::Revoked);
    }

    /// Waits until the replica had everything at a moment after this call.
    pub fn replicated(&self) {
        let replica = || self.server.cli_any(&["status"])["replica"].clone();
        let mut seen = BTreeSet::from([replica()["synced"].as_str().unwrap_or_default().to_string()]);
        wait_for("the replica to have everything", || {
            let now = replica();
            seen.insert(now["synced"].as_str().unwrap_or_default().to_string());
            // The second new one began after the call.
            if seen.len() > 2 && now["stage"] == "replicating" { Ok(()) } else { Err(now.to_string()) }
        });
    }

    /// The server dies; the agents go on, from their caches.
    pub fn disaster(&mut self) {
        self.server.kill();
        self.run(|_| true);
        self.run(|member| member.came != Came::Revoked);
    }

    /// Everybody comes back. Then the contract must hold.
    pub fn check(&mut self, contract: Contract) {
        for member in self.members.iter_mut().filter(|member| member.daemon) {
            member.envoy.start();
        }
        for member in self.members.iter().filter(|member| !member.daemon) {
            member.envoy.ask(&["run", "--once"]);
        }
        let revoked_is_back = matches!(contract, Contract::Same | Contract::Rebuilt);
        for member in &self.members {
            if member.came == Came::Revoked && !revoked_is_back {
                continue;
            }
            let delivered = wait_for(&format!("everything of {}", member.name), || {
                if !member.daemon {
                    member.envoy.ask(&["run", "--once"]);
                }
                self.settled(member)
            });
            assert_eq!(delivered.1, 0, "{}: forks", member.name);
        }
        for member in &self.members {
            self.check_standing(member, contract);
        }
        let status = self.server.cli_any(&["status"]);
        match contract {
            Contract::Same => {
                assert!(status["epoch"].as_u64() > Some(1), "{status}");
                // Revocations after the backup are lost, and said to be.
                assert_eq!(status["review"], true, "{status}");
                assert_eq!(self.events("revocations-lost"), 1);
            }
            Contract::Whole => assert!(status["epoch"].as_u64() > Some(1), "{status}"),
            Contract::Rebuilt | Contract::Untouched => {}
        }
        for member in self.members.iter_mut().filter(|member| member.daemon) {
            member.envoy.stop();
        }
    }

    /// A new machine in the place of the old one: settings and policy, which are kept elsewhere, and nothing more.
    pub fn lose_everything(&mut self) {
        let yaml = fs::read(self.server.root.join("server.yaml")).expect("settings");
        fs::remove_dir_all(&self.server.root).expect("a root");
        for (name, text) in POLICY {
            let path = self.server.root.join("stacks").join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        fs::write(self.server.root.join("server.yaml"), yaml).expect("a file");
    }

    /// Until something is published envoys keep what they have; afterwards they get what is published.
    pub fn nothing_is_disarmed(&self) {
        let calm = self.members.iter().find(|member| !member.daemon && member.came == Came::Before).expect("one");
        let before = read_ledger(&calm.envoy.path("ledger")).len();
        calm.envoy.ask(&["run", "--once"]);
        assert_eq!(read_ledger(&calm.envoy.path("ledger")).len(), before + 1, "it goes on with its policy");
    }

    fn check_standing(&self, member: &Member, contract: Contract) {
        let rows = self.rows();
        let row = rows.iter().find(|row| row["hostname"] == member.name.as_str());
        if member.came == Came::Revoked && matches!(contract, Contract::Whole | Contract::Untouched) {
            assert!(row.is_none(), "{} stays out: {row:?}", member.name);
            return;
        }
        let row = row.unwrap_or_else(|| panic!("{} is back under its name", member.name));
        assert_eq!(row["uuid"], member.uuid.as_str(), "{} has the identity it had", member.name);
        let wanted = match (contract, member.came) {
            (Contract::Rebuilt, _) | (Contract::Same, Came::After) => "review",
            (Contract::Same, _) => "active",
            (Contract::Whole | Contract::Untouched, _) => "active",
        };
        assert_eq!(row["state"], wanted, "{}: {:?}", member.name, member.came);
    }

    /// Runs that are lost, and forks, once every run is in the database or reported.
    fn settled(&self, member: &Member) -> Result<(usize, usize), String> {
        let database = Connection::open(self.server.root.join("db/vigo.db")).map_err(|error| error.to_string())?;
        let ledger = read_ledger(&member.envoy.path("ledger"));
        // The newest run may be under way.
        let required = ledger.len().saturating_sub(1);
        let found = account(&ledger, &stored_records(&database, &member.name), required, &BTreeSet::new());
        let found = found.map_err(|why| format!("{}: {why}: {}", member.name, member.envoy.log()))?;
        let forks = "SELECT count(*) FROM forks";
        let forks: i64 = database.query_row(forks, [], |row| row.get(0)).map_err(|error| error.to_string())?;
        Ok((found.lost, usize::try_from(forks).unwrap_or(usize::MAX)))
    }

    fn rows(&self) -> Vec<Value> {
        let document = self.server.cli(&["envoys", "list"]);
        document["envoys"].as_array().cloned().unwrap_or_default()
    }

    fn events(&self, kind: &str) -> usize {
        let document = self.server.cli(&["events"]);
        let list = document["events"].as_array().cloned().unwrap_or_default();
        list.iter().filter(|event| event["kind"] == kind).count()
    }
}

/// Everything in a directory but this.
pub fn clear(dir: &Path, but: &[&str]) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        if but.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        let gone = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
