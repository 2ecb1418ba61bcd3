//! From a verified offer to current policy: blobs first, then one commit, then it counts.
//!
//! check the blob directory -> fetch what is missing (resumed where a transfer broke) -> commit the slot -> current, run.
//! Nothing of it is applied before the commit is confirmed; a crash at any point leaves the old policy current, and blobs
//! that are complete need not be fetched again. The same path, without an offer, repairs blobs of what is current already.

use bytes::Bytes;
use common::bundle::BlobRef;
use common::ids::Hash32;
use common::limits;
use common::log::Level;
use common::proto::{Code, Message, method, wire};
use common::time::Mono;

use super::config::Mode;
use super::contact::{Contact, Failure};
use super::core::{Agent, Cx};
use super::events::{CallId, Effect, Ticket};
use super::gate::{Applied, Offer};
use crate::cache::StoreOp;

/// A stream of a blob may pause this long, in milliseconds.
const CHUNK_TIMEOUT_MS: u64 = 60_000;
/// Blobs that did not verify before the offer is given up until the next check-in.
const BAD_BLOBS_MAX: u32 = 3;

/// New policy on its way, or a repair.
#[derive(Debug)]
pub(super) struct Adoption {
    /// `None`: only blobs of what is current are repaired.
    offer: Option<Box<Offer>>,
    stage: Stage,
    /// Blobs that came and did not verify.
    n_bad: u32,
}

#[derive(Debug, PartialEq)]
enum Stage {
    /// The blob directory must be asked.
    Check,
    /// It is being asked.
    Checking(Ticket),
    /// These are missing; the first is fetched or about to be.
    Fetching(Vec<(BlobRef, u64)>),
    /// All blobs are here.
    Complete,
    /// A trial: the new server must acknowledge one check-in with it.
    Acknowledging,
    /// The slot is being committed.
    Storing,
    /// For a dry run only: never stored.
    Shadow,
}

/// A blob on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) call: CallId,
    pub(super) deadline: Mono,
    blob: BlobRef,
    /// Where the next chunk must begin.
    offset: u64,
    /// Everything was handed to the disk.
    written: bool,
}

impl Adoption {
    fn new(offer: Option<Offer>) -> Adoption {
        Adoption { offer: offer.map(Box::new), stage: Stage::Check, n_bad: 0 }
    }

    /// Policy that is only for a dry run.
    pub(super) fn shadow(&self) -> Option<&Applied> {
        self.offer.as_ref().filter(|_| self.stage == Stage::Shadow).map(|offer| &offer.applied)
    }
}

impl Agent {
    /// Asks at start whether the blobs of what is current are all there.
    pub(super) fn check_current_blobs(&mut self, out: &mut Vec<Effect>) {
        let Some(applied) = self.gate.current().filter(|applied| !applied.bundle.blobs.is_empty()) else { return };
        let blobs = applied.bundle.blobs.clone();
        let ticket = self.fresh_ticket();
        self.adoption = Some(Adoption { stage: Stage::Checking(ticket), ..Adoption::new(None) });
        out.push(Effect::BlobCheck { ticket, blobs });
    }

    /// A verified offer of the server.
    pub(super) fn adopt(&mut self, offer: Offer, cx: &mut Cx<'_>) {
        if let Some(adoption) = self.adoption.as_mut()
            && let Some(old) = adoption.offer.as_deref()
        {
            // One that is being stored is not overtaken: the next check-in brings the newer one again.
            if adoption.stage == Stage::Storing || old.applied.assignment_hash == offer.applied.assignment_hash {
                return;
            }
            let fetching = matches!(adoption.stage, Stage::Check | Stage::Checking(_) | Stage::Fetching(_));
            if fetching && old.applied.assignment.bundle == offer.applied.assignment.bundle {
                // The same files: their transfer goes on, and must not be begun a second time beside itself.
                adoption.offer = Some(Box::new(offer));
                return;
            }
        }
        if let Contact::Up(up) = &mut self.contact {
            up.fetch = None;
        }
        self.adoption = Some(Adoption::new(Some(offer)));
        self.settle_adoption(cx);
    }

    /// What a check-in names on trial: the offer that is complete and not current.
    pub(super) fn candidate(&self) -> Option<&Applied> {
        let adoption = self.adoption.as_ref().filter(|adoption| adoption.stage == Stage::Acknowledging)?;
        adoption.offer.as_ref().map(|offer| &offer.applied)
    }

    /// The new server acknowledged: go on to the commit.
    pub(super) fn acknowledge_candidate(&mut self) {
        if let Some(adoption) = self.adoption.as_mut().filter(|adoption| adoption.stage == Stage::Acknowledging) {
            adoption.stage = Stage::Complete;
        }
    }

    pub(super) fn settle_adoption(&mut self, cx: &mut Cx<'_>) {
        let Some(adoption) = self.adoption.as_mut() else { return };
        match &adoption.stage {
            Stage::Check => {
                let applied = adoption.offer.as_ref().map(|offer| &offer.applied).or(self.gate.current());
                let blobs = applied.map(|applied| applied.bundle.blobs.clone()).unwrap_or_default();
                if blobs.is_empty() {
                    adoption.stage = Stage::Complete;
                    return self.settle_adoption(cx);
                }
                self.n_ids += 1;
                let ticket = Ticket(self.n_ids);
                adoption.stage = Stage::Checking(ticket);
                cx.out.push(Effect::BlobCheck { ticket, blobs });
            }
            Stage::Fetching(missing) => {
                if let Some((blob, have)) = missing.first().cloned() {
                    self.fetch(blob, have, cx);
                }
            }
            Stage::Complete => self.complete(cx),
            Stage::Checking(_) | Stage::Acknowledging | Stage::Storing | Stage::Shadow => {}
        }
    }

    fn complete(&mut self, cx: &mut Cx<'_>) {
        let only_dry = self.mode == Mode::OneShot && self.waiters_only_dry();
        let Some(adoption) = self.adoption.as_mut() else { return };
        let Some(offer) = &adoption.offer else {
            self.adoption = None;
            return;
        };
        if let Some(trial) = &self.trial {
            if !trial.acknowledged {
                adoption.stage = Stage::Acknowledging;
                if let Contact::Up(up) = &mut self.contact {
                    up.check_now = true;
                }
            }
            return;
        }
        if only_dry {
            adoption.stage = Stage::Shadow;
            return;
        }
        let op = StoreOp::PutSlot { assignment: offer.assignment.clone(), bundle: offer.bundle.clone() };
        let bundle = offer.applied.assignment.bundle;
        adoption.stage = Stage::Storing;
        self.persist.put_slot(op, bundle);
        self.settle_persist(cx);
    }

    /// The commit with the slot is confirmed.
    pub(super) fn on_slot_stored(&mut self, bundle: Hash32, cx: &mut Cx<'_>) {
        let stored = self.adoption.take_if(|adoption| {
            adoption.stage == Stage::Storing
                && adoption.offer.as_ref().is_some_and(|offer| offer.applied.assignment.bundle == bundle)
        });
        let Some(offer) = stored.and_then(|adoption| adoption.offer) else { return };
        let applied = offer.applied;
        let assignment = &applied.assignment;
        let same = self
            .gate
            .current()
            .is_some_and(|old| old.assignment.bundle == bundle && !old.fallback && old.has_secrets_of(&applied));
        cx.log(
            Level::Info,
            format!(
                "policy: epoch {} serial {}, {} resources from {}",
                assignment.version.epoch,
                assignment.version.serial,
                applied.bundle.resources.len(),
                applied.bundle.mapping
            ),
        );
        self.schedule.set_interval(assignment.interval_ms, cx.now.mono);
        self.next_check = self.next_check.min(self.schedule.next());
        self.notes.confirmed_ms = self.notes.confirmed_ms.max(self.clock.now_ms(cx.now.mono));
        self.keep_cached = false;
        self.gate.make_current(applied);
        if !same {
            self.schedule.trigger();
        }
        cx.out.push(Effect::BlobsKeep(self.gate.blobs_kept()));
    }

    pub(super) fn on_blobs_checked(&mut self, ticket: Ticket, missing: Vec<(BlobRef, u64)>, cx: &mut Cx<'_>) {
        let Some(adoption) = self.adoption.as_mut() else { return };
        if adoption.stage != Stage::Checking(ticket) {
            return;
        }
        if adoption.offer.is_none() && !missing.is_empty() {
            let n = missing.len();
            cx.log(
                Level::Warn,
                format!("{n} files of the policy are missing or damaged here: asking the server for them"),
            );
        }
        adoption.stage = if missing.is_empty() { Stage::Complete } else { Stage::Fetching(missing) };
    }

    fn fetch(&mut self, blob: BlobRef, have: u64, cx: &mut Cx<'_>) {
        let Contact::Up(up) = &mut self.contact else { return };
        if up.fetch.is_some() {
            return;
        }
        self.n_ids += 1;
        let call = CallId(self.n_ids);
        let offset = if have < blob.size { have } else { 0 };
        let request = wire::FetchBlobRequest { sha256: blob.sha256.0.to_vec(), offset };
        let deadline = cx.now.mono + CHUNK_TIMEOUT_MS;
        up.fetch = Some(Fetch { call, deadline, blob, offset, written: false });
        let body = request.encode_to_vec().into();
        cx.out.push(Effect::Stream { link: up.link, call, method: method::FETCH_BLOB, body });
    }

    pub(super) fn on_blob_chunk(&mut self, body: &Bytes, cx: &mut Cx<'_>) {
        let Contact::Up(up) = &mut self.contact else { return };
        let Some(fetch) = up.fetch.as_mut() else { return };
        let chunk = match wire::BlobChunk::decode(body.clone()) {
            Ok(chunk) if chunk.data.len() <= limits::MESSAGE_BYTES_MAX => chunk,
            _ => return self.fail_contact("its chunk is no message", Failure::Plain, cx),
        };
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        if fetch.written || chunk.offset != fetch.offset || end > fetch.blob.size || chunk.size != fetch.blob.size {
            return self.fail_contact("its chunk is not the next one of the file", Failure::Plain, cx);
        }
        let last = end == fetch.blob.size;
        let (hash, offset) = (fetch.blob.sha256, fetch.offset);
        fetch.offset = end;
        fetch.written = last;
        fetch.deadline = cx.now.mono + CHUNK_TIMEOUT_MS;
        cx.out.push(Effect::BlobWrite { hash, offset, data: chunk.data, last });
    }

    pub(super) fn on_blob_end(&mut self, result: Result<(), (Code, String)>, cx: &mut Cx<'_>) {
        let Contact::Up(up) = &mut self.contact else { return };
        let Some(fetch) = up.fetch.as_mut() else { return };
        match result {
            // The disk has the last word.
            Ok(()) if fetch.written => {}
            Ok(()) if fetch.blob.size == 0 => {
                fetch.written = true;
                let hash = fetch.blob.sha256;
                cx.out.push(Effect::BlobWrite { hash, offset: 0, data: Bytes::new(), last: true });
            }
            Ok(()) => self.fail_contact("a file ended early", Failure::Plain, cx),
            Err((Code::NotFound | Code::PermissionDenied, text)) if self.trial.is_none() => {
                // The policy moved on meanwhile: the next check-in says where to.
                up.fetch = None;
                cx.log(Level::Warn, format!("the server does not give a file of the policy: {text}"));
                self.drop_adoption();
            }
            Err((code, text)) => self.fail_contact(&format!("{code:?}: {text}"), Failure::Plain, cx),
        }
    }

    pub(super) fn on_blob_written(&mut self, hash: Hash32, result: Result<(), String>, cx: &mut Cx<'_>) {
        if let Contact::Up(up) = &mut self.contact {
            up.fetch.take_if(|fetch| fetch.blob.sha256 == hash);
        }
        let Some(adoption) = self.adoption.as_mut() else { return };
        let Stage::Fetching(missing) = &mut adoption.stage else { return };
        match result {
            Ok(()) => {
                missing.retain(|(blob, _)| blob.sha256 != hash);
                if missing.is_empty() {
                    adoption.stage = Stage::Complete;
                }
            }
            Err(why) => {
                missing.iter_mut().filter(|(blob, _)| blob.sha256 == hash).for_each(|(_, have)| *have = 0);
                adoption.n_bad += 1;
                let give_up = adoption.n_bad >= BAD_BLOBS_MAX;
                cx.log(Level::Error, format!("a file of the policy could not be kept: {why}"));
                if give_up {
                    self.drop_adoption();
                }
            }
        }
    }

    /// The link is gone: what is on disk is looked at again before the rest is asked for.
    pub(super) fn interrupt_adoption(&mut self) {
        if let Some(adoption) = self.adoption.as_mut()
            && matches!(adoption.stage, Stage::Fetching(_))
        {
            adoption.stage = Stage::Check;
        }
    }

    pub(super) fn drop_adoption(&mut self) {
        self.adoption.take_if(|adoption| adoption.stage != Stage::Storing);
    }

    /// Blobs must still be fetched.
    pub(super) fn adoption_needs_contact(&self) -> bool {
        self.adoption
            .as_ref()
            .is_some_and(|adoption| matches!(adoption.stage, Stage::Check | Stage::Checking(_) | Stage::Fetching(_)))
    }

    /// New policy is on its way to being current.
    pub(super) fn adopting(&self) -> bool {
        self.adoption.as_ref().is_some_and(|adoption| adoption.offer.is_some() && adoption.stage != Stage::Shadow)
    }
}
