//! TLS session tickets whose keys the caller keeps, so that a restart is not a storm of full handshakes.
//!
//! Tickets are made with the first key and accepted with all. Making, storing and rotating keys is the caller's part
//! (docs/THREATS.md, "Channel": daily, over restarts, in no archive).

use std::fmt;
use std::sync::{Arc, RwLock};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::rng::{Rng, SystemRng};

/// Hint to clients: after this many seconds a ticket may not be worth a try. Keys are replaced daily and kept for two days.
const LIFETIME_S: u32 = 24 * 3600;
/// Largest ticket that is looked at, in bytes. Ours have about 150.
const TICKET_BYTES_MAX: usize = 1024;
const NAME_BYTES: usize = 16;

/// The keys, newest first. Shared by all loops of a server.
pub struct Tickets {
    keys: RwLock<Vec<Arc<Key>>>,
}

struct Key {
    name: [u8; NAME_BYTES],
    cipher: LessSafeKey,
}

impl Tickets {
    /// With these keys, as (name, secret), newest first. With none, tickets are neither made nor accepted.
    pub fn new(keys: &[([u8; 16], [u8; 32])]) -> Tickets {
        let tickets = Tickets { keys: RwLock::default() };
        tickets.replace(keys);
        tickets
    }

    /// Goes on with other keys, after a rotation.
    pub fn replace(&self, keys: &[([u8; 16], [u8; 32])]) {
        let keys = keys.iter().map(|(name, secret)| {
            // The only possible error is a wrong length, and 32 is the length of this cipher's keys.
            let key = UnboundKey::new(&CHACHA20_POLY1305, secret).expect("32 bytes");
            Arc::new(Key { name: *name, cipher: LessSafeKey::new(key) })
        });
        *self.keys.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = keys.collect();
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Key>>> {
        self.keys.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("keys", &self.read().len()).finish()
    }
}

/// Ticket: key name, nonce, then the sealed session with the key name as associated data.
impl rustls::server::ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.read().is_empty()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.read().first()?.clone();
        // Random, not a counter: a counter would tell strangers how many sessions there were.
        let mut nonce = [0; NONCE_LEN];
        SystemRng::default().fill(&mut nonce);
        let mut out = Vec::with_capacity(NAME_BYTES + NONCE_LEN + plain.len() + CHACHA20_POLY1305.tag_len());
        out.extend_from_slice(&key.name);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let tag = key
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(key.name),
                &mut out[NAME_BYTES + NONCE_LEN..],
            )
            .ok()?;
        out.extend_from_slice(tag.as_ref());
        Some(out)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.read().iter().find(|key| key.name == *name)?.clone();
        let mut out = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = key.cipher.open_in_place(nonce, Aad::from(key.name), &mut out).ok()?.len();
        out.truncate(len);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::ProducesTickets;

    use super::*;

    fn key(n: u8) -> ([u8; 16], [u8; 32]) {
        ([n; 16], [n; 32])
    }

    #[test]
    fn a_ticket_lives_as_long_as_its_key() {
        let tickets = Tickets::new(&[key(1)]);
        let ticket = tickets.encrypt(b"session").unwrap();
        tickets.replace(&[key(2), key(1)]);
        assert_eq!(tickets.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(Tickets::new(&[key(1)]).decrypt(&ticket).unwrap(), b"session");
        tickets.replace(&[key(3), key(2)]);
        assert_eq!(tickets.decrypt(&ticket), None);
        assert!(!Tickets::new(&[]).enabled());
    }

    #[test]
    fn damaged_tickets_are_refused() {
        let tickets = Tickets::new(&[key(1)]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[at] ^= 1;
            assert_eq!(tickets.decrypt(&bad), None);
            assert_eq!(tickets.decrypt(&ticket[..at]), None);
        }
        assert_eq!(tickets.decrypt(&[0; TICKET_BYTES_MAX + 1]), None);
    }
}
