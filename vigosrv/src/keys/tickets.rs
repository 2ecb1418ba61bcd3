//! Keys of TLS session tickets: kept over a restart, so that a restart is no storm of full handshakes; rotated daily; in no
//! archive (`run/`). They are a cache: a damaged file is replaced.

use std::path::Path;

use common::ids::{hex, unhex};
use common::rng::Rng;
use common::sys::{FileError, Owner, file};
use common::time::Wall;
use zeroize::Zeroizing;

/// How long a key seals new tickets.
const ROTATE_MS: i64 = 24 * 3_600_000;
/// Keys that still open tickets, the newest first; so a ticket lives for one to two days.
const KEYS_MAX: usize = 2;
const FILE_BYTES_MAX: u64 = 4 << 10;

/// One key.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// In front of each ticket, to find the key again.
    pub name: [u8; 16],
    /// AES-256 or ChaCha20 key.
    pub secret: Zeroizing<[u8; 32]>,
    /// When it was made.
    pub made_at: Wall,
}

/// The keys in use, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKeys(pub Vec<TicketKey>);

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKey({})", hex(&self.name[..4]))
    }
}

impl TicketKeys {
    /// Loads the keys, or makes some; rotates where that is due.
    pub fn load(path: &Path, now: Wall, rng: &mut dyn Rng, owner: Option<Owner>) -> Result<TicketKeys, FileError> {
        let private = file::check_private(path).is_ok();
        let text = file::read_bounded(path, FILE_BYTES_MAX).ok().filter(|_| private);
        let mut keys = text.and_then(|text| parse(&text)).unwrap_or(TicketKeys(Vec::new()));
        if keys.rotate(now, rng) {
            keys.save(path, owner)?;
        }
        Ok(keys)
    }

    /// Puts a new key in front when the newest is a day old (or from the future, after a clock was set back). Returns
    /// whether it did; then they must be saved.
    pub fn rotate(&mut self, now: Wall, rng: &mut dyn Rng) -> bool {
        let fresh = |key: &TicketKey| (0..ROTATE_MS).contains(&(now.0.saturating_sub(key.made_at.0)));
        if self.0.first().is_some_and(fresh) {
            return false;
        }
        let mut key = TicketKey { name: [0; 16], secret: Zeroizing::new([0; 32]), made_at: now };
        rng.fill(&mut key.name);
        rng.fill(&mut *key.secret);
        self.0.insert(0, key);
        self.0.truncate(KEYS_MAX);
        true
    }

    /// Writes the file.
    pub fn save(&self, path: &Path, owner: Option<Owner>) -> Result<(), FileError> {
        let mut text = Zeroizing::new(String::from("vigo-ticket-keys-v1\n"));
        for key in &self.0 {
            let secret = Zeroizing::new(hex(&*key.secret));
            text.push_str(&format!("{} {} {}\n", hex(&key.name), secret.as_str(), key.made_at.0));
        }
        file::write_atomic(path, text.as_bytes(), 0o600, owner)
    }
}

fn parse(text: &[u8]) -> Option<TicketKeys> {
    let rest = std::str::from_utf8(text).ok()?.strip_prefix("vigo-ticket-keys-v1\n")?;
    let key = |line: &str| {
        let mut words = line.split(' ');
        let name = unhex(words.next()?)?.try_into().ok()?;
        let secret = Zeroizing::new(unhex(words.next()?)?.try_into().ok()?);
        Some(TicketKey { name, secret, made_at: Wall(words.next()?.parse().ok()?) })
    };
    let keys: Vec<TicketKey> = rest.lines().map(key).collect::<Option<_>>()?;
    (keys.len() <= KEYS_MAX).then_some(TicketKeys(keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::rng::SplitMix64;

    #[test]
    fn keys_survive_a_restart_and_rotate_daily() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket_keys");
        let mut rng = SplitMix64(1);
        let mut load = |ms| TicketKeys::load(&path, Wall(ms), &mut rng, None).unwrap();
        let first = load(1_000);
        assert_eq!(load(ROTATE_MS), first);
        let second = load(ROTATE_MS + 1_000);
        assert_eq!((second.0.len(), &second.0[1]), (2, &first.0[0]));
        assert_eq!(load(3 * ROTATE_MS).0.len(), KEYS_MAX);
        // A clock that was set back makes a new key rather than one for ever.
        assert_eq!(load(0).0[0].made_at, Wall(0));
    }

    #[test]
    fn a_damaged_or_open_file_is_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket_keys");
        let mut rng = SplitMix64(1);
        let mut load = || TicketKeys::load(&path, Wall(5), &mut rng, None).unwrap();
        let first = load();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let second = load();
        assert_ne!(first, second);
        std::fs::write(&path, "vigo-ticket-keys-v1\nzz").unwrap();
        assert_ne!(load(), second);
    }
}
