//! The runner's thread: traits and runs, one after the other, so that a hung package manager stops no heartbeat.
//!
//! Orders come over a bounded channel; answers go to a callback that hands them to the loop and wakes it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use common::ids::{Hash32, Uuid};
use common::log::Level;
use common::sys::Clock;
use common::sys::logger::Logger;

use crate::agent::{Event, RunOrder, Ticket};
use crate::cache;
use crate::exec::{Blob, Blobs, RunInput, run};
use crate::sys::child::StopFlag;
use crate::traits::{Facts, Gatherer};

/// Orders that may wait: a run, and traits for the next one.
const ORDERS_MAX: usize = 4;

/// What does not change from run to run.
pub struct Surroundings {
    /// This envoy.
    pub uuid: Uuid,
    /// Paths of resources are below this.
    pub sysroot: Option<PathBuf>,
    /// Files of the policy.
    pub blobs: Arc<dyn Blobs>,
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

enum Order {
    Traits(Ticket),
    Run(Box<RunOrder>),
}

/// The thread. Dropping it waits for the order under way.
pub struct Runner {
    orders: Option<SyncSender<Order>>,
    stop: Arc<StopFlag>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts the thread. `answer` is called from it and must not block.
    pub fn start(around: Surroundings, answer: impl FnMut(Event) + Send + 'static) -> std::io::Result<Runner> {
        let (orders, received) = sync_channel(ORDERS_MAX);
        let stop = Arc::new(StopFlag::default());
        let flag = stop.clone();
        let thread = std::thread::Builder::new().name("runner".into()).spawn(move || {
            serve(&received, around, &flag, answer);
        })?;
        Ok(Runner { orders: Some(orders), stop, thread: Some(thread) })
    }

    /// Asks for traits. False when the thread is gone or has too much to do, which the core's own rules exclude.
    pub fn gather(&self, ticket: Ticket) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(Order::Traits(ticket)).is_ok())
    }

    /// Asks for a run.
    pub fn run(&self, order: Box<RunOrder>) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(Order::Run(order)).is_ok())
    }

    /// Cuts the run under way short.
    pub fn stop(&self, grace_ms: u64) {
        self.stop.raise(grace_ms);
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

fn serve(orders: &Receiver<Order>, mut around: Surroundings, stop: &Arc<StopFlag>, mut answer: impl FnMut(Event)) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Traits(ticket) => {
                let sysroot = around.sysroot.as_ref().map(|path| path.display().to_string());
                let now = around.clock.now();
                let gathered = around.gatherer.gather(&Facts { now, serial: None, sysroot });
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
                    blobs: around.blobs.clone(),
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
