//! A small pool for what may block: database questions, files, compiling. Bounded; the answer of a full pool is "busy".

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::read::Reader;

/// Threads.
const THREADS: usize = 3;
/// Jobs that may wait.
const WAITING_MAX: usize = 256;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// What a thread of the pool has at hand.
pub(super) struct Worker {
    database: PathBuf,
    reader: Option<Reader>,
}

/// The pool. Its threads end when the last handle is gone.
#[derive(Clone)]
pub(super) struct Jobs {
    sender: SyncSender<Job>,
}

impl Jobs {
    /// Starts the threads; each opens `database` when it first reads.
    pub fn start(database: PathBuf) -> std::io::Result<Jobs> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..THREADS {
            let (receiver, database) = (receiver.clone(), database.clone());
            std::thread::Builder::new()
                .name("job".into())
                .spawn(move || work(&receiver, &mut Worker { database, reader: None }))?;
        }
        Ok(Jobs { sender })
    }

    /// Queues a job; false when the pool is full.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.sender.try_send(Box::new(move |_| job())).is_ok()
    }

    /// Queues a question; false when the pool is full. A database that cannot be opened asks nothing: the job is dropped, and
    /// with it its answer.
    pub fn read(&self, query: impl FnOnce(&mut Reader) + Send + 'static) -> bool {
        self.sender.try_send(Box::new(move |worker| worker.read(query))).is_ok()
    }
}

impl Worker {
    fn read(&mut self, query: impl FnOnce(&mut Reader)) {
        if self.reader.is_none() {
            self.reader = Reader::open(&self.database).ok();
        }
        if let Some(reader) = &mut self.reader {
            query(reader);
        }
    }
}

fn work(receiver: &Mutex<Receiver<Job>>, worker: &mut Worker) {
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job(worker);
    }
}
