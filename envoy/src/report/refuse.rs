//! A report that a server refuses for what is in it, and would refuse again: which record it is, and what becomes of it.
//!
//! Halving finds it: of so many suspects at the front of the queue half are sent, and what is taken is innocent. The last
//! one becomes a gap that says so, in its place of the chain, and everything behind it is delivered. Nothing is removed on
//! suspicion, nothing while it is not alone in its report, and a gap never.

use common::chain::Lane as LaneId;
use common::limits;
use common::proto::wire::gap::Reason;

use super::queue::Queue;
use super::record::cut;
use crate::cache::RecordClass;

/// Bytes of the server's words that a gap keeps.
const WORDS_BYTES_MAX: usize = 256;

/// What follows from a refused report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer records go next.
    Narrowed,
    /// The one record in it is a gap now: its lane and sequences.
    Replaced(LaneId, u64, u64),
    /// There is nothing that could be left out: no record was in it, or one that must not be given up.
    Stuck,
}

impl Queue {
    /// The batch in flight was refused for what is in it. `give_up`: the server's word is that it never takes it.
    pub fn on_refused(&mut self, give_up: bool, words: &str, wall_ms: i64) -> Refusal {
        let sent = std::mem::take(&mut self.in_flight);
        let n = sent[0] + sent[1];
        if n == 0 {
            return Refusal::Stuck;
        }
        self.suspects = n;
        if n > 1 {
            return Refusal::Narrowed;
        }
        let id = if sent[LaneId::Urgent.index()] > 0 { LaneId::Urgent } else { LaneId::Routine };
        let front = self.lanes[id.index()].waiting().next();
        let Some(alone) = front.filter(|entry| give_up && entry.class != RecordClass::Gap) else {
            return Refusal::Stuck;
        };
        let (first, last) = (alone.first, alone.last);
        let detail = format!("the server refuses the record: {}", cut(words, WORDS_BYTES_MAX));
        self.replace_by_gap(id, first, Reason::Refused, &detail, wall_ms);
        self.suspects = 0;
        Refusal::Replaced(id, first, last)
    }

    /// Records at the front of which one is refused; 0: none is known to be.
    pub fn suspects(&self) -> usize {
        self.suspects
    }

    /// Records that may go together.
    pub(super) fn records_max(&self) -> usize {
        match self.suspects {
            0 => limits::REPORT_RECORDS_MAX,
            n => (n / 2).max(1),
        }
    }
}
