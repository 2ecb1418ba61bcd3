//! What happens when: a heap ordered by virtual time, and by order of entry within one millisecond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use common::ids::Hash32;
use common::time::Mono;
use envoy::agent::Ticket;

use crate::net::{ToAgent, ToServer};

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum What {
    /// The agent's deadline. Stale when `incarnation` or the deadline moved on.
    AgentTick {
        host: usize,
        incarnation: u32,
    },
    /// A message reaches an agent.
    ToAgent {
        host: usize,
        incarnation: u32,
        message: ToAgent,
    },
    /// The owner of an agent's store does its next request.
    StoreTurn {
        host: usize,
        incarnation: u32,
    },
    /// Traits are gathered.
    Traits {
        host: usize,
        incarnation: u32,
        ticket: Ticket,
    },
    /// A run ends.
    RunEnd {
        host: usize,
        incarnation: u32,
    },
    /// Pins are on disk.
    PinsSaved {
        host: usize,
        incarnation: u32,
    },
    SealingKey {
        host: usize,
        incarnation: u32,
    },
    /// The blob directory answers.
    BlobsChecked {
        host: usize,
        incarnation: u32,
        ticket: Ticket,
        missing: Vec<common::bundle::BlobRef>,
    },
    /// A blob is written.
    BlobWritten {
        host: usize,
        incarnation: u32,
        hash: Hash32,
    },
    /// An agent starts; `reboot` gives it a new boot id.
    AgentStart {
        host: usize,
        reboot: bool,
    },
    /// A message reaches the server.
    ToServer {
        boot: u32,
        message: ToServer,
    },
    /// The server's deadline.
    ServerTick {
        boot: u32,
    },
    /// The writer commits what is queued.
    WriterTurn {
        boot: u32,
    },
    /// The server starts.
    ServerStart,
    /// The next fault, or the end of one.
    Fault(crate::faults::Fault),
    /// Somebody breaks a resource of a host.
    Drift {
        host: usize,
    },
    /// A new host enrolls.
    Enroll {
        host: usize,
    },
    /// The operator publishes another version.
    Publish {
        version: u32,
    },
}

/// The agenda.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    items: std::collections::HashMap<u64, What>,
    next: u64,
}

impl Agenda {
    /// Enters an item.
    pub fn at(&mut self, when: Mono, what: What) {
        let id = self.next;
        self.next += 1;
        self.heap.push(Reverse((when.0, id)));
        self.items.insert(id, what);
    }

    /// The next item.
    pub fn pop(&mut self) -> Option<(Mono, What)> {
        let Reverse((when, id)) = self.heap.pop()?;
        self.items.remove(&id).map(|what| (Mono(when), what))
    }
}
