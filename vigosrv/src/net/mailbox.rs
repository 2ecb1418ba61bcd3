//! How other threads reach a loop: a bounded queue and a wake-up.
//!
//! The sender blocks when the queue is full, the loop never does: a loop must not send to its own mailbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mio::Waker;

/// The loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The sending end. Clone it for each thread.
#[derive(Debug)]
pub struct Mailbox<T> {
    sender: SyncSender<T>,
    waker: Arc<Waker>,
    awake: Arc<AtomicBool>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Mailbox<T> {
        Mailbox { sender: self.sender.clone(), waker: self.waker.clone(), awake: self.awake.clone() }
    }
}

impl<T> Mailbox<T> {
    /// A queue of `max` letters for the loop that `waker` wakes.
    pub(super) fn new(max: usize, waker: Arc<Waker>) -> (Mailbox<T>, Letters<T>) {
        let (sender, receiver) = sync_channel(max);
        let awake = Arc::new(AtomicBool::new(false));
        (Mailbox { sender, waker: waker.clone(), awake: awake.clone() }, Letters { receiver, awake, _waker: waker })
    }

    /// Queues a letter and wakes the loop; waits while the queue is full.
    pub fn send(&self, letter: T) -> Result<(), Gone> {
        self.sender.send(letter).map_err(|_| Gone)?;
        self.wake()
    }

    /// Queues a letter unless the queue is full; for the loop's own thread, which must not wait for itself.
    pub fn try_send(&self, letter: T) -> Result<(), Gone> {
        self.sender.try_send(letter).map_err(|_| Gone)?;
        self.wake()
    }

    fn wake(&self) -> Result<(), Gone> {
        // One wake-up for many letters: whoever lowers the flag reads the queue after that, so this letter is seen.
        if !self.awake.swap(true, Ordering::SeqCst) {
            self.waker.wake().map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// The receiving end, owned by the loop.
#[derive(Debug)]
pub(super) struct Letters<T> {
    receiver: Receiver<T>,
    awake: Arc<AtomicBool>,
    /// A wake-up is forgotten by the system when its last handle goes: a sender may end right after its last letter.
    _waker: Arc<Waker>,
}

impl<T> Letters<T> {
    /// To be called before a series of [`Letters::next`] that ends with none.
    pub(super) fn open(&self) {
        self.awake.store(false, Ordering::SeqCst);
    }

    /// The next letter, without waiting.
    pub(super) fn next(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    #[test]
    fn many_letters_wake_once_and_none_is_lost() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (mailbox, letters) = Mailbox::new(4, waker);
        let sender = std::thread::spawn(move || (0..1_000).for_each(|n| mailbox.send(n).unwrap()));
        let mut events = Events::with_capacity(4);
        let mut got = Vec::new();
        while got.len() < 1_000 {
            poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "a letter was queued without a wake-up");
            letters.open();
            got.extend(std::iter::from_fn(|| letters.next()));
        }
        sender.join().unwrap();
        assert_eq!(got, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_letter_to_a_loop_that_ended_is_refused() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (mailbox, letters) = Mailbox::new(4, waker);
        drop(letters);
        assert_eq!(mailbox.send(1), Err(Gone));
    }
}
