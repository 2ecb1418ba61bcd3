//! TLS session tickets whose keys survive a restart, so that a restart is not a storm of full handshakes.
//!
//! Two keys: tickets are made with the newer and accepted with both. A key is replaced after a day, so a ticket lives for
//! at least one day and at most two. The caller stores the bytes (0600) and never archives them (docs/THREATS.md, "Channel").

use std::fmt;
use std::sync::{Arc, RwLock};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::rng::{Rng, SystemRng};
use crate::time::Wall;

/// Life of a key until a newer one makes the tickets, in milliseconds.
const KEY_LIFE_MS: u64 = 24 * 3_600_000;
/// Largest ticket that is looked at, in bytes. Ours have about 150.
const TICKET_BYTES_MAX: usize = 1024;
/// First byte of the stored form.
const FORMAT: u8 = 1;
/// Stored bytes of one key: time of making, name, key.
const STORED_BYTES: usize = 8 + NAME_BYTES + 32;
const NAME_BYTES: usize = 16;

/// The stored form is damaged; make new keys (sessions then start with a full handshake, nothing else is lost).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTicketKeys;

impl fmt::Display for BadTicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stored TLS ticket keys are damaged; new ones will be made")
    }
}

impl std::error::Error for BadTicketKeys {}

/// The keys, newest first, one or two. Shared by all loops of a server.
pub struct Tickets {
    keys: RwLock<Vec<Arc<Key>>>,
}

struct Key {
    made: Wall,
    name: [u8; NAME_BYTES],
    secret: [u8; 32],
    cipher: LessSafeKey,
}

impl Tickets {
    /// One new key.
    pub fn new(now: Wall, rng: &mut dyn Rng) -> Tickets {
        Tickets { keys: RwLock::new(vec![Arc::new(Key::random(now, rng))]) }
    }

    /// From [`Tickets::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Tickets, BadTicketKeys> {
        let (format, rest) = bytes.split_first().ok_or(BadTicketKeys)?;
        let (keys, tail) = rest.as_chunks::<STORED_BYTES>();
        if *format != FORMAT || !tail.is_empty() || !(1..=2).contains(&keys.len()) {
            return Err(BadTicketKeys);
        }
        Ok(Tickets { keys: RwLock::new(keys.iter().map(|stored| Arc::new(Key::load(stored))).collect()) })
    }

    /// To be stored where only the server can read it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for key in self.read().iter() {
            out.extend_from_slice(&key.made.0.to_be_bytes());
            out.extend_from_slice(&key.name);
            out.extend_from_slice(&key.secret);
        }
        out
    }

    /// Makes a new key when the newest is a day old (or claims to be from the future). True: store the keys again.
    pub fn rotate(&self, now: Wall, rng: &mut dyn Rng) -> bool {
        let age = self.read().first().map_or(i64::MAX, |key| now.0.saturating_sub(key.made.0));
        if u64::try_from(age).is_ok_and(|age| age < KEY_LIFE_MS) {
            return false;
        }
        let mut keys = self.keys.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        keys.insert(0, Arc::new(Key::random(now, rng)));
        // After a pause of more than a day the older key has outlived its time, too.
        let keep = if u64::try_from(age).is_ok_and(|age| age < 2 * KEY_LIFE_MS) { 2 } else { 1 };
        keys.truncate(keep);
        true
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Key>>> {
        self.keys.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Key {
    fn random(made: Wall, rng: &mut dyn Rng) -> Key {
        let (mut name, mut secret) = ([0; NAME_BYTES], [0; 32]);
        rng.fill(&mut name);
        rng.fill(&mut secret);
        Key::build(made, name, secret)
    }

    fn load(stored: &[u8; STORED_BYTES]) -> Key {
        let (mut made, mut name, mut secret) = ([0; 8], [0; NAME_BYTES], [0; 32]);
        made.copy_from_slice(&stored[..8]);
        name.copy_from_slice(&stored[8..8 + NAME_BYTES]);
        secret.copy_from_slice(&stored[8 + NAME_BYTES..]);
        Key::build(Wall(i64::from_be_bytes(made)), name, secret)
    }

    fn build(made: Wall, name: [u8; NAME_BYTES], secret: [u8; 32]) -> Key {
        // The only possible error is a wrong length, and 32 is the length of this cipher's keys.
        let key = UnboundKey::new(&CHACHA20_POLY1305, &secret).expect("32 bytes");
        Key { made, name, secret, cipher: LessSafeKey::new(key) }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
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
        true
    }

    fn lifetime(&self) -> u32 {
        (KEY_LIFE_MS / 1000) as u32
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
    use crate::rng::SplitMix64;

    const DAY: i64 = KEY_LIFE_MS as i64;

    fn tickets() -> (Tickets, SplitMix64) {
        let mut rng = SplitMix64(1);
        (Tickets::new(Wall(0), &mut rng), rng)
    }

    #[test]
    fn a_ticket_survives_storing_the_keys() {
        let (tickets, _) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        let again = Tickets::from_bytes(&tickets.to_bytes()).unwrap();
        assert_eq!(again.decrypt(&ticket).unwrap(), b"session");
    }

    #[test]
    fn a_ticket_lives_one_rotation_and_not_two() {
        let (tickets, mut rng) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        assert!(!tickets.rotate(Wall(DAY - 1), &mut rng));
        assert!(tickets.rotate(Wall(DAY), &mut rng));
        assert!(tickets.decrypt(&ticket).is_some());
        assert!(tickets.rotate(Wall(2 * DAY), &mut rng));
        assert!(tickets.decrypt(&ticket).is_none());
    }

    #[test]
    fn after_a_long_pause_or_a_clock_set_back_old_tickets_are_dead() {
        for later in [2 * DAY, -1] {
            let (tickets, mut rng) = tickets();
            let ticket = tickets.encrypt(b"session").unwrap();
            assert!(tickets.rotate(Wall(later), &mut rng));
            assert!(tickets.decrypt(&ticket).is_none());
        }
    }

    #[test]
    fn damaged_tickets_and_keys_are_refused() {
        let (tickets, _) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[at] ^= 1;
            assert_eq!(tickets.decrypt(&bad), None);
            assert_eq!(tickets.decrypt(&ticket[..at]), None);
        }
        assert_eq!(tickets.decrypt(&[0; TICKET_BYTES_MAX + 1]), None);
        let stored = tickets.to_bytes();
        assert!(Tickets::from_bytes(&stored[..stored.len() - 1]).is_err());
        assert!(Tickets::from_bytes(&[]).is_err() && Tickets::from_bytes(&[FORMAT]).is_err());
    }
}
