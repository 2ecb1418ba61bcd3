//! Moving to another server: redirect and re-bootstrap, in two phases.
//!
//! A verified statement starts a *trial*: the old pins, the old policy and the queue stay as they are, and nothing is
//! reported to the new server. It must prove the stated identity, authenticate this envoy, assign (where its identity is
//! another one), and acknowledge one check-in that names what it assigned. Then the pins are replaced in one write, and
//! only when that is on disk is the new assignment committed; the old policy key stays good for the cache, so a crash
//! between the two writes leaves policy that runs. Whatever fails on the way ends the trial, and the old server is asked
//! again. A statement works once: its nonce is spent with the same write.

use common::limits;
use common::log::Level;
use common::proto::wire;
use common::proto::wire::check_in_reply::Result as Answer;

use super::contact::{Contact, Failure};
use super::core::{Agent, Cx};
use super::pins::Pins;
use super::session::{Move, open_move};

/// A move on its way to being final.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) to: Move,
    /// Redirects followed in a row, this one included.
    pub(super) n_hops: u32,
    /// The new server acknowledged; the pins are being written.
    pub(super) acknowledged: bool,
    /// The pins before, for when that fails.
    before: Option<Box<Pins>>,
}

impl Agent {
    /// A statement came. It is verified against the server that is at the other end now.
    pub(super) fn start_move(&mut self, statement: Option<&wire::Signed>, cx: &mut Cx<'_>) {
        let n_hops = self.trial.as_ref().map_or(0, |trial| trial.n_hops) + 1;
        let opened = open_move(self.peer(), self.uuid, statement, self.server_now(cx), self.config.rebootstrap_deny);
        let opened = opened.and_then(|to| {
            if self.pins.is_spent(&to.nonce) {
                return Err("it was obeyed before".into());
            }
            if n_hops > limits::REDIRECT_HOPS_MAX {
                return Err(format!("it would be redirect number {n_hops} in a row"));
            }
            Ok(to)
        });
        let to = match opened {
            Ok(to) => to,
            Err(why) if self.trial.is_some() => {
                return self.fail_contact(&format!("its redirect is refused: {why}"), Failure::Plain, cx);
            }
            Err(why) => {
                if self.refused_move != why {
                    cx.log(Level::Error, format!("redirect refused: {why}"));
                    self.refused_move = why;
                }
                return;
            }
        };
        let address = to.server.servers.first().cloned().unwrap_or_default();
        cx.log(Level::Info, format!("moving to {address} at the word of the server; the old one stays until it works"));
        self.refused_move.clear();
        self.drop_adoption();
        self.hang_up(None, cx);
        self.trial = Some(Trial { to, n_hops, acknowledged: false, before: None });
    }

    /// The server on trial answered a check-in.
    pub(super) fn on_trial_answer(&mut self, answer: Answer, reply: wire::CheckInReply, cx: &mut Cx<'_>) {
        let same = self.peer().identity_key == self.pins.server.identity_key;
        match answer {
            Answer::NoChange | Answer::KeepCached if self.candidate().is_some() || same => self.commit_move(cx),
            Answer::Send => {
                self.offered(reply.assignment, reply.bundle, cx);
                if self.adoption.is_none() {
                    self.fail_contact("its policy was refused", Failure::Plain, cx);
                } else if let Contact::Up(up) = &mut self.contact {
                    up.checked_on_trial();
                }
            }
            Answer::Redirect => self.start_move(reply.redirect.as_ref(), cx),
            Answer::NoChange | Answer::KeepCached => self.fail_contact("it assigns nothing", Failure::Plain, cx),
            Answer::Later | Answer::SteppedDown | Answer::Unspecified => {
                self.fail_contact("it does not take this envoy now", Failure::Plain, cx);
            }
        }
    }

    fn commit_move(&mut self, cx: &mut Cx<'_>) {
        let server_now = self.server_now(cx);
        let before = Box::new(self.pins.clone());
        let Some(trial) = self.trial.as_mut() else { return };
        trial.acknowledged = true;
        trial.before = Some(before);
        self.pins.replace_server(trial.to.server.clone());
        self.pins.spend(&trial.to.nonce, trial.to.expires_ms, server_now);
        self.save_pins(cx);
    }

    pub(super) fn on_pins_saved(&mut self, result: Result<(), String>, cx: &mut Cx<'_>) {
        self.n_pins_saving = self.n_pins_saving.saturating_sub(1);
        let moved = self.n_pins_saving == 0 && self.trial.as_ref().is_some_and(|trial| trial.acknowledged);
        match result {
            Ok(()) if moved => {
                let address = self.peer().servers.first().cloned().unwrap_or_default();
                self.trial = None;
                self.forget_server();
                self.acknowledge_candidate();
                self.endpoints = super::endpoint::Endpoints::new(self.servers(), Some(&address));
                if let Contact::Up(up) = &mut self.contact {
                    // Heard as the server of this envoy, it is asked once more.
                    up.check_now = true;
                }
                cx.log(Level::Info, format!("moved to {address}"));
            }
            Ok(()) => {}
            Err(why) if moved => {
                if let Some(before) = self.trial.as_mut().and_then(|trial| trial.before.take()) {
                    self.pins = *before;
                }
                self.fail_contact(&format!("the pins could not be written: {why}"), Failure::Plain, cx);
            }
            Err(why) => {
                cx.log(Level::Error, format!("the pins could not be written: {why}; they hold until a restart"))
            }
        }
    }
}
