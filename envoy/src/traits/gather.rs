//! Gathering with a time limit for each collector, and stable trees only every tenth time.
//!
//! Collectors run in a thread of their own, because a read from a dead device cannot be interrupted. A thread that is stuck
//! is left behind, at most one for each collector, and that collector rests until it is back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::limits::COLLECTOR_TIMEOUT_MS;
use common::sys::Clock;
use serde_json::Value;

use super::programs::Programs;
use super::{Collector, Facts, Root, Which, collectors, nulls};
use crate::agent::TraitTree;
use crate::sys::child::StopFlag;

/// Stable trees are gathered once in so many runs.
const STABLE_EVERY: u32 = 10;

/// Gathers for run after run.
pub struct Gatherer {
    root: Root,
    timeout: Duration,
    runs: u32,
    last: BTreeMap<String, Arc<Value>>,
    /// Threads that were left behind, by the collector that they are stuck in.
    stuck: BTreeMap<&'static str, Receiver<()>>,
    collectors: fn(Which) -> Vec<Collector>,
    programs: Option<Programs>,
}

/// What one gathering gave.
#[derive(Debug)]
pub struct Gathered {
    /// Every tree, the last known where it was not its turn.
    pub trees: Arc<Vec<TraitTree>>,
    /// One line for each collector that failed or was late.
    pub warnings: Vec<String>,
}

/// A collector's name, tree and warning.
type Answer = (&'static str, Option<Value>, Option<String>);

impl std::fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gatherer").field("root", &self.root).field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl Gatherer {
    /// For one host.
    pub fn new(root: Root) -> Gatherer {
        Gatherer {
            root,
            timeout: Duration::from_millis(COLLECTOR_TIMEOUT_MS),
            runs: 0,
            last: BTreeMap::new(),
            stuck: BTreeMap::new(),
            collectors: |which| collectors(which).collect(),
            programs: None,
        }
    }

    /// The same with the programs of an operator.
    pub fn with_programs(self, dir: &Path, clock: &Clock) -> Gatherer {
        Gatherer { programs: Some(Programs::new(dir, clock)), ..self }
    }

    /// Gathers what is due. The flag ends programs that run.
    pub fn gather(&mut self, facts: &Facts, stop: &StopFlag) -> Gathered {
        let which = if self.runs.is_multiple_of(STABLE_EVERY) { Which::All } else { Which::Volatile };
        self.runs = self.runs.wrapping_add(1);
        let mut warnings = Vec::new();
        let mut due = (self.collectors)(which);
        due.retain(|collector| self.is_free(collector.tree.name, &mut warnings));
        while !due.is_empty() {
            due = self.gather_some(due, facts, &mut warnings);
        }
        if let Some(programs) = &mut self.programs {
            programs.gather(which, stop, &mut warnings);
        }
        let trees = (self.collectors)(Which::All).into_iter().map(|collector| TraitTree {
            name: collector.tree.name.to_string(),
            value: self.last.get(collector.tree.name).cloned().unwrap_or_else(|| Arc::new(nulls(collector.tree))),
            volatile: collector.tree.volatile,
        });
        let own = self.programs.iter().flat_map(Programs::trees);
        Gathered { trees: Arc::new(trees.chain(own).collect()), warnings }
    }

    /// Whether no thread is stuck in the collector any more.
    fn is_free(&mut self, name: &'static str, warnings: &mut Vec<String>) -> bool {
        let Some(answers) = self.stuck.get(name) else { return true };
        let back = !matches!(answers.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
        if back {
            self.stuck.remove(name);
        } else {
            warnings.push(format!("trait collector `{name}` still hangs"));
        }
        back
    }

    /// Runs collectors one after the other until one is late; returns those behind it. Normally there is one answer, at the end: to
    /// wake this thread after each would cost more than most of them.
    fn gather_some(&mut self, due: Vec<Collector>, facts: &Facts, warnings: &mut Vec<String>) -> Vec<Collector> {
        let (sender, answers) = sync_channel::<()>(1);
        let (root, facts, work) = (self.root.clone(), facts.clone(), due.clone());
        let done = Arc::new(Mutex::new(Done::default()));
        let out = Arc::clone(&done);
        let thread = std::thread::Builder::new().name("traits".into()).spawn(move || {
            for collector in work {
                let (tree, warning) = collector.run(&root, &facts);
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                // After a late answer nobody listens, and the others are done by another thread.
                if out.left {
                    break;
                }
                out.answers.push((collector.tree.name, tree, warning));
            }
            let _ = sender.send(());
        });
        if let Err(error) = thread {
            warnings.push(format!("traits: no thread to gather them: {error}"));
            return Vec::new();
        }
        let (mut n_seen, mut n_waits) = (0, 0);
        let (late, came) = loop {
            // Looked at in pieces of the time limit, so that the one that is late is late by little.
            let heard = answers.recv_timeout(self.timeout / LOOKS);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            let n = done.answers.len();
            n_waits = if n > n_seen { 0 } else { n_waits + 1 };
            n_seen = n;
            let waits = heard == Err(RecvTimeoutError::Timeout);
            if !waits || n_waits >= LOOKS {
                done.left = true;
                break (waits, std::mem::take(&mut done.answers));
            }
        };
        let n = came.len();
        for (name, tree, warning) in came {
            warnings.extend(warning);
            // One that is as it was stays the same in memory: nobody has to look for differences.
            let changed = tree.filter(|tree| self.last.get(name).is_none_or(|last| **last != *tree));
            self.last.extend(changed.map(|tree| (name.to_string(), Arc::new(tree))));
        }
        let Some(next) = due.get(n) else { return Vec::new() };
        let name = next.tree.name;
        if late {
            let limit = common::units::human_duration(self.timeout.as_millis() as u64);
            warnings.push(format!("trait collector `{name}` took more than {limit}"));
            self.stuck.insert(name, answers);
        } else {
            warnings.push(format!("trait collector `{name}` ended without an answer"));
        }
        due[n + 1..].to_vec()
    }
}

/// How often the collectors are looked at within their time limit.
const LOOKS: u32 = 8;

/// What a thread of collectors has done.
#[derive(Debug, Default)]
struct Done {
    answers: Vec<Answer>,
    /// Nobody waits for more.
    left: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use common::policy::trait_keys::TREES;
    use serde_json::json;

    use super::*;

    /// Blocks in `hardware` for as long as the file `block` is a FIFO that nobody writes to.
    fn slow(root: &Root, _: &Facts) -> Result<Value, String> {
        root.read("block");
        Ok(json!({"memory_bytes": 7}))
    }

    fn failing(_: &Root, _: &Facts) -> Result<Value, String> {
        Err("no such thing".into())
    }

    static CALLS: AtomicU32 = AtomicU32::new(0);

    fn counting(_: &Root, _: &Facts) -> Result<Value, String> {
        Ok(json!({"one": CALLS.fetch_add(1, Ordering::SeqCst)}))
    }

    fn tree(name: &str) -> &'static common::policy::trait_keys::Tree {
        TREES.iter().find(|tree| tree.name == name).unwrap()
    }

    fn value(gathered: &Gathered, name: &str) -> Value {
        gathered.trees.iter().find(|tree| tree.name == name).unwrap().value.as_ref().clone()
    }

    #[test]
    fn a_collector_that_hangs_is_left_behind_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("block");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut gatherer = Gatherer::new(Root::fixture(dir.path()));
        gatherer.timeout = Duration::from_millis(50);
        gatherer.collectors = |_| {
            vec![Collector { tree: tree("hardware"), collect: slow }, Collector { tree: tree("os"), collect: failing }]
        };
        let first = gatherer.gather(&Facts::default(), &StopFlag::default());
        assert_eq!(
            first.warnings,
            ["trait collector `hardware` took more than 50ms", "trait collector `os` failed: no such thing"]
        );
        assert_eq!(value(&first, "hardware")["cpu"]["count"], Value::Null);
        assert_eq!(value(&first, "os")["arch"], Value::Null);
        assert_eq!(
            gatherer.gather(&Facts::default(), &StopFlag::default()).warnings[0],
            "trait collector `hardware` still hangs"
        );
        // Opening both ends lets the reader go on; without the FIFO the next one does not block.
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        std::fs::remove_file(&fifo).unwrap();
        gatherer.stuck.get("hardware").unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        gatherer.stuck.clear();
        assert_eq!(
            value(&gatherer.gather(&Facts::default(), &StopFlag::default()), "hardware")["memory_bytes"],
            json!(7)
        );
    }

    #[test]
    fn stable_trees_are_gathered_every_tenth_time() {
        let mut gatherer = Gatherer::new(Root::fixture(std::path::Path::new("/nonexistent")));
        gatherer.collectors = |which| {
            if which == Which::All { vec![Collector { tree: tree("network"), collect: counting }] } else { Vec::new() }
        };
        let seen: Vec<Value> = (0..21)
            .map(|_| value(&gatherer.gather(&Facts::default(), &StopFlag::default()), "network")["one"].clone())
            .collect();
        assert_eq!((&seen[0], &seen[9], &seen[10], &seen[20]), (&json!(0), &json!(0), &json!(1), &json!(2)));
    }
}
