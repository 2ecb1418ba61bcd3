//! `vigo-envoy verify` of a running daemon: reads the whole store in a thread of its own, so that neither loop nor store stalls.
//!
//! One reading at a time. Who asks while one is under way gets the next one, because that one may have passed what they mean.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde_json::Value;

/// Reads the store and says what it found.
pub type Verify = Arc<dyn Fn() -> Value + Send + Sync>;

/// The thread, while there is one, and who waits.
pub struct Verifier<W> {
    verify: Verify,
    wake: Arc<dyn Fn() + Send + Sync>,
    found: (SyncSender<Value>, Receiver<Value>),
    /// Wait for the reading under way.
    served: Vec<W>,
    /// Wait for the next one.
    next: Vec<W>,
}

impl<W> Verifier<W> {
    /// `wake` is called from the thread when there is something to take.
    pub fn new(verify: Verify, wake: Arc<dyn Fn() + Send + Sync>) -> Verifier<W> {
        Verifier { verify, wake, found: sync_channel(1), served: Vec::new(), next: Vec::new() }
    }

    /// Somebody asks. Bounded by the connections of the control socket.
    pub fn ask(&mut self, who: W) {
        self.next.push(who);
        self.begin();
    }

    /// What was found since the last call, and for whom.
    pub fn take(&mut self) -> Vec<(W, Value)> {
        let Ok(value) = self.found.1.try_recv() else { return Vec::new() };
        let answers = self.served.drain(..).map(|who| (who, value.clone())).collect();
        self.begin();
        answers
    }

    fn begin(&mut self) {
        if !self.served.is_empty() || self.next.is_empty() {
            return;
        }
        self.served = std::mem::take(&mut self.next);
        let (verify, wake, found) = (self.verify.clone(), self.wake.clone(), self.found.0.clone());
        let thread = std::thread::Builder::new().name("verify".into()).spawn(move || {
            // One place and one reading at a time: this never waits, and fails only when the loop has ended.
            let _ = found.send(verify());
            wake();
        });
        if let Err(error) = thread {
            let problem = format!("the store was not read: no thread could be started: {error}");
            let _ = self.found.0.try_send(serde_json::json!({"problems": [problem], "n_problems": 1}));
            (self.wake)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;

    #[test]
    fn asking_never_waits_and_whoever_comes_later_gets_a_later_reading() {
        let (go, gate) = sync_channel::<u32>(4);
        let (woken, wakes) = sync_channel(4);
        let gate = Mutex::new(gate);
        let verify: Verify = Arc::new(move || json!(gate.lock().unwrap().recv().unwrap()));
        let mut verifier = Verifier::new(verify, Arc::new(move || woken.send(()).unwrap()));
        verifier.ask("a");
        verifier.ask("b");
        verifier.ask("c");
        assert!(verifier.take().is_empty(), "the reading is under way and nobody waited for it");
        go.send(1).unwrap();
        wakes.recv().unwrap();
        assert_eq!(verifier.take(), [("a", json!(1))]);
        verifier.ask("d");
        go.send(2).unwrap();
        wakes.recv().unwrap();
        assert_eq!(verifier.take(), [("b", json!(2)), ("c", json!(2))]);
        go.send(3).unwrap();
        wakes.recv().unwrap();
        assert_eq!(verifier.take(), [("d", json!(3))]);
        assert!(verifier.take().is_empty());
    }
}
