//! The writer thread: the one place from which the database changes. It takes what is queued, applies it as one transaction, and
//! only then reports, in the order of the queue. While one group is being synced the next one gathers, so groups grow with the
//! load and nobody waits for a timer.
//!
//! Must not: decide anything, or drop a ticket: each is answered exactly once, the last ones at [`Writer::stop`].

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use common::limits;

use super::{RetainRule, Store, StoreError, Write, Written};

/// What became of a ticket.
pub type Done = (u64, Result<Written, StoreError>);

/// Handle of the writer thread.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

/// A handle that can only submit; for the loop threads.
#[derive(Clone)]
pub struct Submitter(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, Write)>,
    /// Sum of the weights of what waits.
    bytes: usize,
    /// Retention that is under way or asked for.
    retain: Option<RetainRule>,
    stopping: bool,
}

impl Writer {
    /// Starts the thread. `done` is called on it after each group: it hands the answers over and wakes whoever waits.
    pub fn spawn(
        store: impl Store + Send + 'static,
        done: impl FnMut(Vec<Done>) + Send + 'static,
    ) -> std::io::Result<Writer> {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        let inside = shared.clone();
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || Worker { store, done, shared: inside }.run())?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    /// A handle for another thread.
    pub fn submitter(&self) -> Submitter {
        Submitter(self.shared.clone())
    }

    /// Queues a write; gives it back when the queue is full or the writer stops.
    pub fn submit(&self, ticket: u64, write: Write) -> Result<(), Write> {
        self.shared.submit(ticket, write)
    }

    /// Asks for retention by this rule, in steps between groups. A new rule replaces the one under way.
    pub fn retain(&self, rule: RetainRule) {
        self.shared.lock().retain = Some(rule);
        self.shared.wake.notify_one();
    }

    /// Applies what is queued, closes the store cleanly, and ends the thread. The error is that of closing.
    pub fn stop(mut self) -> Result<(), StoreError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), StoreError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.shared.lock().stopping = true;
        self.shared.wake.notify_one();
        thread.join().unwrap_or_else(|_| Err(StoreError::Io("the writer thread panicked".into())))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

impl Submitter {
    /// As [`Writer::submit`].
    pub fn submit(&self, ticket: u64, write: Write) -> Result<(), Write> {
        self.0.submit(ticket, write)
    }

    /// Writes that wait, and their bytes.
    pub fn depth(&self) -> (usize, usize) {
        let queue = self.0.lock();
        (queue.waiting.len(), queue.bytes)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds the lock, and every state of the queue is a whole one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, ticket: u64, write: Write) -> Result<(), Write> {
        let weight = weight(&write);
        let mut queue = self.lock();
        let full = queue.waiting.len() >= limits::WRITER_QUEUE_MAX
            || (queue.bytes + weight > limits::WRITER_QUEUE_BYTES_MAX && !queue.waiting.is_empty());
        if full || queue.stopping {
            return Err(write);
        }
        queue.bytes += weight;
        queue.waiting.push_back((ticket, write));
        // Only an empty queue has a sleeper behind it.
        if queue.waiting.len() == 1 {
            drop(queue);
            self.wake.notify_one();
        }
        Ok(())
    }
}

/// About the memory that a write holds.
fn weight(write: &Write) -> usize {
    let own = match write {
        Write::Results(results) => {
            let bodies: usize = results.records.iter().map(|record| record.body.len() * 3).sum();
            let traits: usize = results.traits.iter().map(|(path, json, _)| path.len() + json.len()).sum();
            bodies + traits
        }
        Write::Publish(publish) => publish.assign.len() * 56,
        Write::Assign { assign, .. } => assign.len() * 56,
        Write::Sightings(sightings) => sightings.len() * 128,
        _ => 0,
    };
    own + 512
}

struct Worker<S, D> {
    store: S,
    done: D,
    shared: Arc<Shared>,
}

/// What the thread does next.
enum Turn {
    Group(Vec<(u64, Write)>),
    Retain(RetainRule),
    Upkeep,
    Stop,
}

/// The longest time without upkeep.
const IDLE: Duration = Duration::from_secs(1);

impl<S: Store, D: FnMut(Vec<Done>)> Worker<S, D> {
    fn run(mut self) -> Result<(), StoreError> {
        let mut retained_last = false;
        loop {
            match self.next(retained_last) {
                Turn::Group(group) => {
                    retained_last = false;
                    let (tickets, writes): (Vec<u64>, Vec<Write>) = group.into_iter().unzip();
                    let results = apply_group(&mut self.store, &writes);
                    (self.done)(tickets.into_iter().zip(results).collect());
                    // Whether upkeep worked shows in the gauges; no ticket depends on it.
                    let _ = self.store.upkeep();
                }
                Turn::Retain(rule) => {
                    retained_last = true;
                    let more = self.store.retain(&rule).is_ok_and(|retained| retained.more);
                    let mut queue = self.shared.lock();
                    if !more && queue.retain == Some(rule) {
                        queue.retain = None;
                    }
                }
                Turn::Upkeep => {
                    let _ = self.store.upkeep();
                }
                Turn::Stop => return self.store.close(),
            }
        }
    }

    /// Groups and steps of retention take turns while there are both; the queue is empty before the end.
    fn next(&self, retained_last: bool) -> Turn {
        let mut queue = self.shared.lock();
        loop {
            if let Some(rule) = queue.retain
                && !queue.stopping
                && (queue.waiting.is_empty() || !retained_last)
            {
                return Turn::Retain(rule);
            }
            if !queue.waiting.is_empty() {
                return Turn::Group(take_group(&mut queue));
            }
            if queue.stopping {
                return Turn::Stop;
            }
            let (back, timeout) = self.shared.wake.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = back;
            if timeout.timed_out() && queue.waiting.is_empty() && !queue.stopping && queue.retain.is_none() {
                return Turn::Upkeep;
            }
        }
    }
}

/// As much as one transaction takes; at least one write.
fn take_group(queue: &mut Queue) -> Vec<(u64, Write)> {
    let mut group = Vec::with_capacity(queue.waiting.len().min(limits::WRITER_GROUP_MAX));
    let mut bytes = 0;
    while let Some((_, write)) = queue.waiting.front() {
        let weight = weight(write);
        let fits = group.len() < limits::WRITER_GROUP_MAX && bytes + weight <= limits::WRITER_GROUP_BYTES_MAX;
        if !fits && !group.is_empty() {
            break;
        }
        bytes += weight;
        group.extend(queue.waiting.pop_front());
    }
    queue.bytes = queue.bytes.saturating_sub(bytes);
    group
}

/// Applies a group. Full disk: what cannot wait (everything but results and sightings, which agents and heartbeats bring again)
/// is tried once more with the reserve released. Another error may be the fault of one write: each is then tried alone.
fn apply_group<S: Store>(store: &mut S, writes: &[Write]) -> Vec<Result<Written, StoreError>> {
    match store.apply(writes) {
        Ok(written) => written.into_iter().map(Ok).collect(),
        Err(StoreError::Full) => apply_urgent(store, writes),
        Err(StoreError::Io(_)) if writes.len() > 1 => writes.iter().map(|write| apply_alone(store, write)).collect(),
        Err(error) => writes.iter().map(|_| Err(error.clone())).collect(),
    }
}

fn apply_urgent<S: Store>(store: &mut S, writes: &[Write]) -> Vec<Result<Written, StoreError>> {
    store.release_reserve();
    let urgent: Vec<Write> = writes.iter().filter(|write| !write.can_wait()).cloned().collect();
    let applied = if urgent.is_empty() { Ok(Vec::new()) } else { store.apply(&urgent) };
    match applied {
        Ok(written) => {
            let mut written = written.into_iter();
            let answer = |write: &Write| if write.can_wait() { None } else { written.next() };
            writes.iter().map(answer).map(|written| written.ok_or(StoreError::Full)).collect()
        }
        Err(error) => {
            let answer = |write: &Write| if write.can_wait() { StoreError::Full } else { error.clone() };
            writes.iter().map(|write| Err(answer(write))).collect()
        }
    }
}

fn apply_alone<S: Store>(store: &mut S, write: &Write) -> Result<Written, StoreError> {
    let written = store.apply(std::slice::from_ref(write))?.pop();
    written.ok_or(StoreError::Io("the store answered a write with nothing".into()))
}

#[cfg(test)]
mod tests;
