//! A report that the server refuses for what is in it. Sent again as it is it would be refused for ever, and everything
//! behind it would wait: what is refused is found, left out and said aloud.
//!
//! Trait trees are suspected first, because they are state and cost nothing to leave out: the same records go without
//! them. Then the records, by halves ([`Refusal`]).

use common::chain::Lane;
use common::log::Level;
use common::proto::Code;

use super::contact::Failure;
use super::core::{Agent, Cx};
use super::exchange::Sent;
use crate::report::Refusal;

/// Whether trait trees go along with reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trees {
    #[default]
    Welcome,
    /// A report with trees was refused: the same goes without them.
    Suspected,
    /// The trees of this hash are refused: no trees go until the stable ones change.
    Refused(u64),
}

/// Whether this status of a `Report` speaks of what was in it; every other one speaks of the server or the channel.
pub(super) fn is_about_content(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::ResourceExhausted)
}

impl Agent {
    pub(super) fn on_report_refused(&mut self, sent: Sent, code: Code, text: &str, cx: &mut Cx<'_>) {
        if sent.trees && sent.n_records > 0 {
            self.queue.on_lost();
            self.trees = Trees::Suspected;
            return;
        }
        if sent.trees || sent.stable {
            return self.refuse_trees(text, cx);
        }
        self.trees = Trees::Welcome;
        // A record that is too large today may fit tomorrow's limits.
        let give_up = code != Code::ResourceExhausted;
        match self.queue.on_refused(give_up, text, cx.now.wall.0) {
            Refusal::Narrowed => {}
            Refusal::Replaced(lane, first, last) => {
                let (lane, runs) = (lane.name(), if first == last { "run" } else { "runs" });
                cx.log(
                    Level::Error,
                    format!(
                        "queue: the server refuses {runs} {first} to {last} of the {lane} lane: {text}; a gap is sent \
                         instead, and everything behind it"
                    ),
                );
            }
            Refusal::Stuck => self.fail_contact(&format!("{code:?}: {text}"), Failure::Slow, cx),
        }
    }

    pub(super) fn trees_are_welcome(&self) -> bool {
        self.queue.suspects() == 0
            && match self.trees {
                Trees::Welcome => true,
                Trees::Suspected => self.queue.waiting()[Lane::Urgent.index()] == 0,
                Trees::Refused(hash) => hash != self.trait_hash,
            }
    }

    /// A report was taken: if it was the one that was refused with trees, it was the trees.
    pub(super) fn note_trees_taken(&mut self, sent: Sent, cx: &mut Cx<'_>) {
        if self.trees == Trees::Suspected && !sent.trees && sent.n_records > 0 {
            self.refuse_trees("the report is taken without them", cx);
        } else if sent.trees {
            self.trees = Trees::Welcome;
        }
    }

    fn refuse_trees(&mut self, text: &str, cx: &mut Cx<'_>) {
        self.trees = Trees::Refused(self.trait_hash);
        cx.log(Level::Error, format!("traits: the server refuses them: {text}; they are not sent until they change"));
    }
}
