//! The key that secrets are sealed to, when an operator wants another one.
//!
//! The server forgets the old key and asks at every check-in. The shell makes a new one and keeps the old one beside it: what is
//! in the store opens with that until it comes sealed anew. The new key is shown at every check-in until a receipt names
//! it and what comes is sealed to it; only then a further one is made. So a crash or a lost answer at any point costs nothing but a repetition.

use common::crypto::{Context, sealing_key_id};
use common::log::Level;

use super::contact::Contact;
use super::core::{Agent, Cx};
use super::events::Effect;

impl Agent {
    /// The key and its signature while the server's receipt names another one; else nothing.
    pub(super) fn sealing_to_show(&self) -> (Vec<u8>, Vec<u8>) {
        let Some(receipt) = self.peer().receipt() else { return Default::default() };
        // A server that was restored from before the change seals to the old key again.
        let id = sealing_key_id(&self.sealing);
        let named = self.gate.current().map(|applied| &applied.assignment.secrets);
        let is_old = named.into_iter().flatten().any(|secret| secret.sealing_key_id[..] != id);
        if receipt.sealing_key == self.sealing && !is_old {
            return Default::default();
        }
        (self.sealing.to_vec(), self.key.sign(Context::Sealing, &self.sealing).to_vec())
    }

    /// The server wants another key. One that it has not confirmed yet is shown anyway.
    pub(super) fn renew_sealing_key(&mut self, cx: &mut Cx<'_>) {
        let is_confirmed = self.peer().receipt().is_some_and(|receipt| receipt.sealing_key == self.sealing);
        if is_confirmed {
            cx.out.push(Effect::RenewSealingKey);
        }
    }

    pub(super) fn on_sealing_key(&mut self, result: Result<[u8; 32], String>, cx: &mut Cx<'_>) {
        match result {
            Ok(sealing) => {
                self.sealing = sealing;
                cx.log(Level::Info, "this envoy has another sealing key, as its server wished");
                if let Contact::Up(up) = &mut self.contact {
                    up.check_now = true;
                }
            }
            // The server asks again.
            Err(why) => cx.log(Level::Error, format!("no other sealing key can be made: {why}")),
        }
    }
}
