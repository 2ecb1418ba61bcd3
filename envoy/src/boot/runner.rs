//! The runner's thread: traits and runs, one after the other, so that a hung package manager stops no heartbeat.
//!
//! Orders come over a bounded channel; answers go to a callback that hands them to the loop and wakes it.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use common::ids::{Hash32, Uuid};
use common::log::Level;
use common::sys::Clock;
use common::sys::logger::Logger;

use crate::agent::{AgentConfig, Event, RunOrder, Signal, Ticket};
use crate::cache;
use crate::exec::{Blob, Blobs, Confirmations, Promises, RunInput, Undo, Unseal, run};
use crate::sys::child::StopFlag;
use crate::traits::{Facts, Gatherer};

/// Orders that may wait: a run, and traits for the next one.
const ORDERS_MAX: usize = 4;

/// A run waits so long for its promises to be stored, then makes its change without: a hung disk stops no enforcement.
const PROMISE_WAIT: Duration = Duration::from_secs(10);
/// How often a stop is looked for meanwhile.
const PROMISE_PIECE: Duration = Duration::from_millis(100);

/// Where answers go. Called from the runner's thread; must not block.
pub type Answers = Arc<dyn Fn(Event) + Send + Sync>;

/// What does not change from run to run.
pub struct Surroundings {
    /// This envoy.
    pub uuid: Uuid,
    /// Paths of resources are below this.
    pub sysroot: Option<PathBuf>,
    /// Opens secrets.
    pub unseal: Arc<dyn Unseal>,
    /// Files of the policy.
    pub blobs: Arc<dyn Blobs>,
    /// Where what was there before an unconfirmed change is kept.
    pub undo_dir: PathBuf,
    /// The configuration file of the agent, where it has one.
    pub own_config: Option<PathBuf>,
    /// Reads it.
    pub reload: Reload,
    /// `allow_self`.
    pub allow_self: bool,
    /// The agent's own files.
    pub protected: Vec<PathBuf>,
    /// Clocks.
    pub clock: Clock,
    /// Collects traits.
    pub gatherer: Gatherer,
    /// For warnings of collectors.
    pub logger: Logger,
}

/// The blob directory, for the executors.
pub struct BlobDir(cache::Blobs);

impl BlobDir {
    /// Below the state directory.
    pub fn new(dir: &std::path::Path, bytes_max: u64) -> BlobDir {
        BlobDir(cache::Blobs::new(dir, bytes_max))
    }
}

impl Blobs for BlobDir {
    fn find(&self, hash: &Hash32) -> Option<Blob> {
        Some(self.0.path(hash)).filter(|path| path.is_file()).map(Blob::File)
    }
}

/// Reads the configuration of the agent again; the error is a sentence.
pub type Reload = Arc<dyn Fn() -> Result<AgentConfig, String> + Send + Sync>;

enum Order {
    Traits(Ticket),
    Run(Box<RunOrder>),
}

/// The thread. Dropping it waits for the order under way.
pub struct Runner {
    orders: Option<SyncSender<Order>>,
    stop: Arc<StopFlag>,
    kept: SyncSender<Uuid>,
    confirmed: SyncSender<Uuid>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts the thread.
    pub fn start(around: Surroundings, answer: Answers) -> std::io::Result<Runner> {
        let (orders, received) = sync_channel(ORDERS_MAX);
        let stop = Arc::new(StopFlag::default());
        let flag = stop.clone();
        let (kept, heard) = sync_channel(1);
        let (confirmed, reached) = sync_channel(1);
        let asker = Asker {
            ask: answer.clone(),
            heard: Mutex::new(reached),
            stop: stop.clone(),
            clock: around.clock.clone(),
            reload: around.reload.clone(),
        };
        let own_config = around.own_config.clone();
        let undo = Undo { dir: around.undo_dir.clone(), confirmations: Arc::new(asker), own_config };
        let promises = Keeper { ask: answer.clone(), heard: Mutex::new(heard), stop: stop.clone() };
        let thread = std::thread::Builder::new().name("runner".into()).spawn(move || {
            serve(&received, around, &flag, &answer, &(Arc::new(promises) as Arc<dyn Promises>), &undo);
        })?;
        Ok(Runner { orders: Some(orders), stop, kept, confirmed, thread: Some(thread) })
    }

    /// Asks for traits. False when the thread is gone or has too much to do, which the core's own rules exclude.
    pub fn gather(&self, ticket: Ticket) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(Order::Traits(ticket)).is_ok())
    }

    /// Asks for a run.
    pub fn run(&self, order: Box<RunOrder>) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(Order::Run(order)).is_ok())
    }

    /// What the run under way promised is stored.
    pub fn promised(&self, run_id: Uuid) {
        // Nobody waits any more where it is full.
        let _ = self.kept.try_send(run_id);
    }

    /// A server answered a check-in on the connection that the run under way asked for.
    pub fn confirmed(&self, run_id: Uuid) {
        // Nobody waits any more where it is full.
        let _ = self.confirmed.try_send(run_id);
    }

    /// Cuts the run under way short.
    pub fn stop(&self, grace_ms: u64) {
        self.stop.raise(grace_ms);
    }
}

/// Asks the loop to store promises, and waits for it.
struct Keeper {
    ask: Answers,
    heard: Mutex<Receiver<Uuid>>,
    stop: Arc<StopFlag>,
}

impl Promises for Keeper {
    fn keep(&self, run_id: Uuid, targets: Vec<String>) {
        let Ok(heard) = self.heard.lock() else { return };
        // An answer that came too late for the one who asked.
        while heard.try_recv().is_ok() {}
        (self.ask)(Event::Promise { run_id, targets });
        for _ in 0..PROMISE_WAIT.as_millis() / PROMISE_PIECE.as_millis() {
            match heard.recv_timeout(PROMISE_PIECE) {
                Ok(answered) if answered == run_id => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.stop.grace_ms().is_some() => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Asks the loop for a check-in on a new connection, and waits for its answer.
struct Asker {
    ask: Answers,
    heard: Mutex<Receiver<Uuid>>,
    stop: Arc<StopFlag>,
    clock: Clock,
    reload: Reload,
}

impl Confirmations for Asker {
    fn reread(&self) -> Result<(), String> {
        let config = (self.reload)()?;
        // It is obeyed before the question that follows it: both go the same way.
        (self.ask)(Event::Signal(Signal::Reload(Box::new(config))));
        Ok(())
    }

    fn confirm(&self, run_id: Uuid, within_ms: u64) -> bool {
        let Ok(heard) = self.heard.lock() else { return false };
        while heard.try_recv().is_ok() {}
        (self.ask)(Event::Confirm { run_id });
        let until = self.clock.now().mono + within_ms;
        while self.clock.now().mono < until && self.stop.grace_ms().is_none() {
            match heard.recv_timeout(PROMISE_PIECE) {
                Ok(answered) if answered == run_id => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
        false
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.orders = None;
        self.stop.raise(0);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there; this end has nothing to add.
            let _ = thread.join();
        }
    }
}

fn serve(
    orders: &Receiver<Order>,
    mut around: Surroundings,
    stop: &Arc<StopFlag>,
    answer: &Answers,
    promises: &Arc<dyn Promises>,
    undo: &Undo,
) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Traits(ticket) => {
                let sysroot = around.sysroot.as_ref().map(|path| path.display().to_string());
                let now = around.clock.now();
                let gathered = around.gatherer.gather(&Facts { now, serial: None, sysroot }, stop);
                for warning in &gathered.warnings {
                    around.logger.line(now.wall, Level::Warn, warning);
                }
                answer(Event::Traits { ticket, trees: gathered.trees });
            }
            Order::Run(order) => {
                let report = run(&RunInput {
                    order: *order,
                    uuid: around.uuid,
                    sysroot: around.sysroot.clone(),
                    live: around.sysroot.is_none(),
                    search_path: None,
                    blobs: around.blobs.clone(),
                    unseal: Some(around.unseal.clone()),
                    promises: Some(promises.clone()),
                    undo: Some(undo.clone()),
                    allow_self: around.allow_self,
                    protected: around.protected.clone(),
                    stop: stop.clone(),
                    clock: around.clock.clone(),
                });
                answer(Event::RunDone { report: Box::new(report) });
            }
        }
    }
}
