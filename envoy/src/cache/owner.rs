//! The thread that owns the store and the blob directory: so that neither the loop nor the runner ever waits for a disk.
//!
//! Requests come over a bounded channel and are done one by one in their order; each has one answer, which goes to a
//! callback (it hands it to the loop and wakes it). A store that turns out to be damaged is set aside and rebuilt here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use common::bundle::BlobRef;
use common::chain::Lane;
use common::ids::Hash32;
use common::limits;
use common::sys::Clock;

use super::blobs::Blobs;
use super::open::Store;
use super::ops::{Cache, CacheError, Loaded, QueueRecord, StoreOp};

/// What the owner is asked for. Tickets come back in the answers and mean nothing here.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// One synced transaction.
    Store {
        /// For the answer.
        ticket: u64,
        /// The batch.
        ops: Vec<StoreOp>,
    },
    /// Records of a lane, as [`Cache::read_records`].
    Read {
        /// For the answer.
        ticket: u64,
        /// Lane.
        lane: Lane,
        /// From this first sequence on.
        first: u64,
        /// About this many bytes, at least one record.
        max_bytes: usize,
    },
    /// Which blobs are not there whole.
    BlobCheck {
        /// For the answer.
        ticket: u64,
        /// Which.
        blobs: Vec<BlobRef>,
    },
    /// Writes a piece of a blob. Only the last piece and a failure are answered.
    BlobWrite {
        /// Which.
        hash: Hash32,
        /// Where. 0 starts it over.
        offset: u64,
        /// The bytes.
        data: Bytes,
        /// Nothing comes after it.
        last: bool,
    },
    /// Removes every blob but these. Not answered.
    BlobsKeep(Vec<Hash32>),
}

/// What the owner answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Request::Store`].
    Stored {
        /// As asked.
        ticket: u64,
        /// `Ok`: all of it survives a power cut. Otherwise nothing of it is kept.
        result: Result<(), CacheError>,
    },
    /// To [`Request::Read`].
    Records {
        /// As asked.
        ticket: u64,
        /// In order.
        result: Result<Vec<QueueRecord>, CacheError>,
    },
    /// To [`Request::BlobCheck`].
    BlobsChecked {
        /// As asked.
        ticket: u64,
        /// Each with the bytes that are there of an interrupted transfer.
        missing: Vec<(BlobRef, u64)>,
    },
    /// To the last [`Request::BlobWrite`] of a blob, and to one that failed.
    BlobWritten {
        /// Which.
        hash: Hash32,
        /// On an error what was there is gone.
        result: Result<(), String>,
    },
    /// Half of the pieces that may wait are written: there is room for more of them.
    Room,
    /// After an answer with [`CacheError::Corrupt`]: the store was rebuilt, and this is what is in it now, incidents included.
    /// What the core believes of the store must be replaced by it. The incidents are told again by the next process that opens
    /// the store, because the agent starts afresh over this.
    Reopened(Box<Loaded>),
}

/// The running owner. Dropping it finishes what was asked, and waits for that.
#[derive(Debug)]
pub struct Owner {
    requests: Option<SyncSender<Request>>,
    /// Pieces of blobs that wait to be written.
    pieces: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Owner {
    /// Starts the thread. `answer` is called from it, in the order of the requests, and must not block.
    pub fn start(
        store: Store,
        blobs: Blobs,
        clock: Clock,
        answer: impl FnMut(Answer) + Send + 'static,
    ) -> io::Result<Owner> {
        let (requests, received) = sync_channel(limits::STORE_REQUESTS_MAX);
        let pieces = Arc::new(AtomicUsize::new(0));
        let mut owned = Owned { store, blobs, clock, answer, pieces: pieces.clone() };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || owned.serve(&received))?;
        Ok(Owner { requests: Some(requests), pieces, thread: Some(thread) })
    }

    /// Asks, without waiting. Gives the request back where too many wait already, or the thread is gone.
    pub fn ask(&self, request: Request) -> Result<(), Request> {
        let Some(requests) = &self.requests else { return Err(request) };
        // Counted first: the thread may be done with it before this one goes on.
        let pieces = usize::from(matches!(request, Request::BlobWrite { .. }));
        self.pieces.fetch_add(pieces, Ordering::SeqCst);
        requests.try_send(request).map_err(|error| {
            self.pieces.fetch_sub(pieces, Ordering::SeqCst);
            match error {
                TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
            }
        })
    }

    /// Pieces of blobs that wait to be written. From [`limits::BLOB_PIECES_WAITING_MAX`] on no more should come until
    /// [`Answer::Room`].
    pub fn pieces_waiting(&self) -> usize {
        self.pieces.load(Ordering::SeqCst)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Without a sender the thread ends after the last request.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there; this end has nothing to add.
            let _ = thread.join();
        }
    }
}

struct Owned<F> {
    store: Store,
    blobs: Blobs,
    clock: Clock,
    answer: F,
    pieces: Arc<AtomicUsize>,
}

impl<F: FnMut(Answer)> Owned<F> {
    fn serve(&mut self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
            self.serve_one(request);
        }
    }

    fn serve_one(&mut self, request: Request) {
        match request {
            Request::Store { ticket, ops } => {
                let result = self.store.commit(&ops);
                let corrupt = matches!(result, Err(CacheError::Corrupt(_)));
                (self.answer)(Answer::Stored { ticket, result });
                self.rebuild_if(corrupt);
            }
            Request::Read { ticket, lane, first, max_bytes } => {
                let result = self.store.read_records(lane, first, max_bytes);
                let corrupt = matches!(result, Err(CacheError::Corrupt(_)));
                (self.answer)(Answer::Records { ticket, result });
                self.rebuild_if(corrupt);
            }
            Request::BlobCheck { ticket, blobs } => {
                let missing = self.blobs.missing(&blobs);
                (self.answer)(Answer::BlobsChecked { ticket, missing });
            }
            Request::BlobWrite { hash, offset, data, last } => {
                let result = self.blobs.write(&hash, offset, &data, last);
                if self.pieces.fetch_sub(1, Ordering::SeqCst) == limits::BLOB_PIECES_WAITING_MAX / 2 + 1 {
                    (self.answer)(Answer::Room);
                }
                if last || result.is_err() {
                    (self.answer)(Answer::BlobWritten { hash, result });
                }
            }
            Request::BlobsKeep(hashes) => self.blobs.keep(&hashes),
        }
    }

    /// Once for each answer that said so: a disk that damages the new store at once is met by the next request.
    fn rebuild_if(&mut self, corrupt: bool) {
        if corrupt {
            self.store.reopen(self.clock.now().wall);
            if let Ok(loaded) = self.store.load() {
                // The loop starts afresh over it, and opens the store again.
                self.store.leave_incidents(&loaded.incidents);
                (self.answer)(Answer::Reopened(Box::new(loaded)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture;
    use crate::cache::open::Options;
    use common::ids::Uuid;
    use common::time::Wall;

    #[test]
    fn requests_are_answered_in_order_and_finished_before_the_end() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let options = Options::new(&scratch.path().join("state"), Uuid::from_bytes([1; 16]), Wall(0));
        let blobs = Blobs::new(&scratch.path().join("blobs"), 1 << 20);
        let store = Store::open(&options).expect("nobody else holds it");
        let (sender, answers) = sync_channel(16);
        let send = move |answer| sender.send(answer).expect("the test listens");
        let owner = Owner::start(store, blobs, Clock::system(), send).expect("it starts");
        let record = fixture::run(Lane::Urgent, 1, 1, &[0; 32]);
        let hash = common::crypto::sha256(&[b"ab"]);
        let write = |offset, data: &'static [u8], last| Request::BlobWrite { hash, offset, data: data.into(), last };
        for request in [
            Request::Store { ticket: 7, ops: vec![StoreOp::PutRecord(record.clone())] },
            Request::Read { ticket: 8, lane: Lane::Urgent, first: 1, max_bytes: 1_000 },
            Request::Store { ticket: 9, ops: vec![StoreOp::SetMeta(String::new(), vec![])] },
            write(0, b"a", false),
            write(1, b"b", true),
            write(9, b"c", false),
            Request::BlobsKeep(vec![]),
            Request::BlobCheck { ticket: 10, blobs: vec![BlobRef { sha256: hash, size: 2, path: "a".into() }] },
        ] {
            owner.ask(request).expect("there is room");
        }
        drop(owner);
        let answers: Vec<Answer> = answers.iter().collect();
        assert_eq!(answers.len(), 6, "{answers:?}");
        assert_eq!(answers[0], Answer::Stored { ticket: 7, result: Ok(()) });
        assert_eq!(answers[1], Answer::Records { ticket: 8, result: Ok(vec![record]) });
        assert!(matches!(&answers[2], Answer::Stored { ticket: 9, result: Err(CacheError::Io(_)) }));
        assert_eq!(answers[3], Answer::BlobWritten { hash, result: Ok(()) });
        assert!(matches!(&answers[4], Answer::BlobWritten { result: Err(_), .. }));
        assert!(matches!(&answers[5], Answer::BlobsChecked { ticket: 10, missing } if missing.len() == 1));
        let mut again = Store::open(&options).expect("the lock is free");
        assert_eq!(again.load().expect("it loads").lanes[0].len(), 1);
    }

    #[test]
    fn there_is_room_again_when_half_of_the_pieces_are_written() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let options = Options::new(&scratch.path().join("state"), Uuid::from_bytes([1; 16]), Wall(0));
        let blobs = Blobs::new(&scratch.path().join("blobs"), 1 << 20);
        let store = Store::open(&options).expect("nobody else holds it");
        let (sender, answers) = sync_channel(64);
        // The thread waits in its first answer until every piece was handed over.
        let (go, wait) = sync_channel(1);
        let send = move |answer| {
            let first = matches!(answer, Answer::BlobsChecked { .. });
            sender.send(answer).expect("the test listens");
            if first {
                wait.recv().expect("the test says so");
            }
        };
        let owner = Owner::start(store, blobs, Clock::system(), send).expect("it starts");
        owner.ask(Request::BlobCheck { ticket: 1, blobs: vec![] }).expect("there is room");
        for n in 0..limits::BLOB_PIECES_WAITING_MAX as u64 {
            let data = Bytes::from_static(b"x");
            owner.ask(Request::BlobWrite { hash: Hash32::ZERO, offset: n, data, last: false }).expect("there is room");
        }
        assert_eq!(owner.pieces_waiting(), limits::BLOB_PIECES_WAITING_MAX);
        go.send(()).expect("it waits");
        assert_eq!(answers.iter().nth(1), Some(Answer::Room));
        assert!(owner.pieces_waiting() <= limits::BLOB_PIECES_WAITING_MAX / 2);
    }
}
