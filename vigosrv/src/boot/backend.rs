//! The wires between the loops: what the core's loop asks of writer and jobs, and what the API asks of the core.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use common::ids::Hash32;
use common::log::Level;
use common::rng::{Rng, SystemRng};
use common::sys::Clock;
use common::sys::logger::Logger;
use common::time::Now;

use super::jobs::Jobs;
use crate::api::Backend;
use crate::app::{AdminError, AdminReply, AdminRequest, Event};
use crate::net::{Mail, Mailbox, Outside};
use crate::policy::Compiled;
use crate::publish;
use crate::store::read::Reader;
use crate::store::{StoreError, Submitter, Write};

type Callback = Box<dyn FnOnce(Result<AdminReply, AdminError>) + Send>;

/// Operators that wait for the core.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<HashMap<u64, Callback>>>);

impl Waiting {
    fn add(&self, ticket: u64, callback: Callback) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, callback);
    }

    fn take(&self, ticket: u64) -> Option<Callback> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket)
    }
}

/// What is served now, shared between publishes, blob reads and the API.
pub(super) type Live = Arc<Mutex<Option<Arc<Compiled>>>>;

/// Everything behind the core's loop.
pub(super) struct Behind {
    pub writer: Submitter,
    pub jobs: Jobs,
    pub waiting: Waiting,
    pub mailbox: Mailbox<Mail>,
    pub root: PathBuf,
    pub live: Live,
    pub logger: Logger,
    pub clock: Clock,
}

impl Outside for Behind {
    fn write(&mut self, ticket: u64, write: Write) {
        if self.writer.submit(ticket, write).is_err() {
            // The core bounds the number of writes under way, not their bytes. From a job: a loop must not write to its own
            // mailbox.
            let mailbox = self.mailbox.clone();
            let result = Err(StoreError::Behind);
            self.jobs.run(move || {
                let _ = mailbox.send(Mail::Event(Event::Written { ticket, result }));
            });
        }
    }

    fn read_blob(&mut self, ticket: u64, hash: Hash32, offset: u64, len: usize) {
        let (mailbox, root) = (self.mailbox.clone(), self.root.clone());
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.jobs.run(move || {
            let result = match live {
                Some(compiled) => read_blob(&root, &compiled, &hash, offset, len),
                None => Err("nothing is published".into()),
            };
            let _ = mailbox.send(Mail::Event(Event::BlobRead { ticket, result }));
        });
    }

    fn admin_reply(&mut self, ticket: u64, result: Result<AdminReply, AdminError>) {
        if let Some(callback) = self.waiting.take(ticket) {
            callback(result);
        }
    }

    fn log(&mut self, level: Level, line: String) {
        self.logger.line(self.clock.now().wall, level, &line);
    }
}

fn read_blob(
    root: &std::path::Path,
    compiled: &Compiled,
    hash: &Hash32,
    offset: u64,
    len: usize,
) -> Result<Bytes, String> {
    let path = publish::blob_file(root, compiled, hash).ok_or("the policy that is served names no such file")?;
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(&path).map_err(text)?;
    let mut buffer = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buffer[filled..], offset + filled as u64).map_err(text)? {
            0 => break,
            n => filled += n,
        }
    }
    buffer.truncate(filled);
    Ok(Bytes::from(buffer))
}

/// How the API reaches the rest.
pub(super) struct Reach {
    pub mailbox: Arc<OnceLock<Mailbox<Mail>>>,
    pub waiting: Waiting,
    pub jobs: Jobs,
    pub clock: Clock,
    pub next: AtomicU64,
}

impl Backend for Reach {
    fn core(&self, request: AdminRequest, then: Callback) {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting.add(ticket, then);
        let sent = self.mailbox.get().map(|mailbox| mailbox.send(Mail::Event(Event::Admin { ticket, request })));
        if !matches!(sent, Some(Ok(())))
            && let Some(then) = self.waiting.take(ticket)
        {
            then(Err(AdminError::Conflict("the server is stopping".into())));
        }
    }

    fn job(&self, job: Box<dyn FnOnce() + Send>) -> bool {
        self.jobs.run(job)
    }

    fn read(&self, query: Box<dyn FnOnce(&mut Reader) + Send>) -> bool {
        self.jobs.read(query)
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn random(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        SystemRng::default().fill(&mut bytes);
        bytes
    }
}
