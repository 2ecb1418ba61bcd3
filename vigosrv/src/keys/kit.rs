//! The recovery kit: one text file that an operator keeps where the server is not. It holds the master key, what tells which
//! server it is of, and, where one was made, the private half of the recovery key (docs/operations/keys.md has its form).
//!
//! Pure but for [`Kit::read`]. A kit is read whole or not at all: a line that was lost in copying shows in the checksum.

use std::fmt;
use std::path::{Path, PathBuf};

use common::crypto::{self, BadSeed, PublicKey, Purpose, SigningKey, parse_seed, seed_text};
use common::ids::{Hash32, ServerId, hex, unhex};
use common::sys::{FileError, file};
use common::time::Wall;
use zeroize::Zeroizing;

/// First line of every kit.
const MAGIC: &str = "vigo-recovery-kit-v1";
/// Bytes that a kit may have.
const KIT_BYTES_MAX: u64 = 64 << 10;

/// What a kit holds.
#[derive(Debug)]
pub struct Kit {
    /// When it was made.
    pub made: Wall,
    /// What envoys dialled then.
    pub hostname: String,
    /// Identity key of the server; its hash is the server id.
    pub identity: PublicKey,
    /// Policy key.
    pub policy: PublicKey,
    /// SHA-256 of the CA certificate (DER).
    pub ca_hash: Hash32,
    /// Epoch when it was made.
    pub epoch: u64,
    /// Opens the secrets.
    pub master: Zeroizing<[u8; 32]>,
    /// Signs recovery statements.
    pub recovery: Option<SigningKey>,
}

/// Why a file gives no kit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KitError {
    /// It cannot be read.
    File(FileError),
    /// It is something else.
    NoKit(PathBuf),
    /// It is a kit whose checksum does not fit.
    Damaged(PathBuf),
    /// It is whole and says something that this version does not understand.
    Line(PathBuf, &'static str),
    /// A key in it.
    Key(PathBuf, BadSeed),
}

impl fmt::Display for KitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KitError::File(error) => write!(f, "{error}"),
            KitError::NoKit(path) => write!(
                f,
                "{}: this is no recovery kit (its first line is `{MAGIC}`); `vigocli secrets key export FILE` writes one",
                path.display()
            ),
            KitError::Damaged(path) => write!(
                f,
                "{}: the recovery kit is damaged (its checksum does not fit): take another copy of it; nothing was changed",
                path.display()
            ),
            KitError::Line(path, line) => {
                write!(
                    f,
                    "{}: the line `{line}` of the recovery kit is missing or wrong; nothing was changed",
                    path.display()
                )
            }
            KitError::Key(path, why) => write!(f, "{}: a key in the recovery kit is wrong: {why}", path.display()),
        }
    }
}

impl std::error::Error for KitError {}

impl Kit {
    /// The server that it is of.
    pub fn server_id(&self) -> ServerId {
        crypto::server_id(&self.identity)
    }

    /// The text of the file.
    pub fn text(&self) -> Zeroizing<String> {
        let recovery = self.recovery.as_ref().map(|key| seed_text(Purpose::Recovery, key.seed()));
        let what = match recovery {
            Some(_) => "all secrets in backups of this server, and can take its place before its envoys",
            None => "all secrets in backups of this server",
        };
        let head = Zeroizing::new(format!(
            "{MAGIC}\n\
             # Recovery kit of a Vigo server. Keep it offline, where the server is not, and more than once.\n\
             # Whoever has it has {what}.\n\
             made {}\nhostname {}\nserver-id {}\nidentity-key {}\npolicy-key {}\nca-hash {}\nepoch {}\n{}{}",
            self.made,
            self.hostname,
            self.server_id(),
            hex(self.identity.as_bytes()),
            hex(self.policy.as_bytes()),
            self.ca_hash,
            self.epoch,
            seed_text(Purpose::Master, &self.master).as_str(),
            recovery.as_ref().map_or("", |text| text.as_str()),
        ));
        Zeroizing::new(format!("{}sha256 {}\n", head.as_str(), checksum(&head)))
    }

    /// Reads and checks a kit.
    pub fn read(path: &Path) -> Result<Kit, KitError> {
        let bytes = Zeroizing::new(file::read_bounded(path, KIT_BYTES_MAX).map_err(KitError::File)?);
        Kit::parse(path, &bytes)
    }

    /// The master key of a kit, or of a bare key file.
    pub fn read_master(path: &Path) -> Result<Zeroizing<[u8; 32]>, KitError> {
        let bytes = Zeroizing::new(file::read_bounded(path, KIT_BYTES_MAX).map_err(KitError::File)?);
        match parse_seed(Purpose::Master, &bytes) {
            Ok(seed) => Ok(seed),
            Err(why @ BadSeed::Purpose { .. }) => Err(KitError::Key(path.into(), why)),
            Err(BadSeed::Form) => Kit::parse(path, &bytes).map(|kit| kit.master),
        }
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Kit, KitError> {
        let text = std::str::from_utf8(bytes).map_err(|_| KitError::NoKit(path.into()))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.lines().next().map(str::trim_end) != Some(MAGIC) {
            return Err(KitError::NoKit(path.into()));
        }
        let damaged = || KitError::Damaged(path.into());
        let (head, last) = text.rsplit_once('\n').ok_or_else(damaged)?;
        if last.strip_prefix("sha256 ") != Some(&checksum(head)) {
            return Err(damaged());
        }
        // Behind the checksum a mistake is another version's.
        let line = |key: &'static str| {
            let found = head.lines().find_map(|line| line.trim_end().strip_prefix(key)?.strip_prefix(' '));
            found.ok_or(KitError::Line(path.into(), key))
        };
        let wrong = |key: &'static str| KitError::Line(path.into(), key);
        let public = |key| {
            let bytes = unhex(line(key)?).unwrap_or_default();
            PublicKey::try_from_slice(&bytes).map_err(|_| wrong(key))
        };
        let seed = |purpose: Purpose| {
            let lines = head.lines().map(|line| parse_seed(purpose, line.as_bytes()));
            lines.filter_map(Result::ok).next()
        };
        let kit = Kit {
            made: Wall::parse(line("made")?).map_err(|_| wrong("made"))?,
            hostname: line("hostname")?.to_string(),
            identity: public("identity-key")?,
            policy: public("policy-key")?,
            ca_hash: line("ca-hash")?.parse().map_err(|_| wrong("ca-hash"))?,
            epoch: line("epoch")?.parse().map_err(|_| wrong("epoch"))?,
            master: seed(Purpose::Master).ok_or_else(|| wrong("vigo-key-v1 master"))?,
            recovery: seed(Purpose::Recovery).map(|seed| SigningKey::from_seed(*seed)),
        };
        if line("server-id")? != kit.server_id().to_string() {
            return Err(wrong("server-id"));
        }
        Ok(kit)
    }
}

/// Over the lines as they are read: blanks at their ends and kinds of line breaks do not count.
fn checksum(head: &str) -> String {
    let mut hash = crypto::Sha256::new();
    for line in head.trim_end().lines() {
        hash.update(line.trim_end().as_bytes());
        hash.update(b"\n");
    }
    hash.finish().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::rng::SplitMix64;

    fn kit(recovery: bool) -> Kit {
        let key = |seed| SigningKey::generate(&mut SplitMix64(seed));
        Kit {
            made: Wall::parse("2027-01-01T10:00:00Z").unwrap(),
            hostname: "vigo.example".into(),
            identity: key(1).public(),
            policy: key(2).public(),
            ca_hash: Hash32([3; 32]),
            epoch: 4,
            master: Zeroizing::new([5; 32]),
            recovery: recovery.then(|| key(6)),
        }
    }

    fn parse(text: &str) -> Result<Kit, KitError> {
        Kit::parse(Path::new("kit"), text.as_bytes())
    }

    #[test]
    fn a_kit_round_trips_with_and_without_a_recovery_key() {
        for recovery in [false, true] {
            let text = kit(recovery).text();
            let read = parse(&text).unwrap();
            assert_eq!(read.text(), text);
            assert_eq!(read.recovery.is_some(), recovery);
            // As mail programs and editors leave it.
            let mangled = format!("\u{feff}{}\r\n\r\n", text.replace('\n', " \r\n"));
            assert_eq!(parse(&mangled).unwrap().text(), text);
        }
    }

    #[test]
    fn a_damaged_kit_is_told_from_another_file() {
        let text = kit(true).text();
        assert_eq!(parse("vigo-key-v1 master 00").unwrap_err(), KitError::NoKit("kit".into()));
        for (at, _) in text.char_indices().skip(MAGIC.len() + 1) {
            let mut bytes = text.as_bytes().to_vec();
            if !bytes[at].is_ascii_whitespace() {
                bytes[at] ^= 1;
                let error = Kit::parse(Path::new("kit"), &bytes).unwrap_err();
                assert!(matches!(error, KitError::Damaged(_)), "{at}: {error}");
            }
            if at + 1 < text.len() {
                assert!(matches!(parse(&text[..at]), Err(KitError::Damaged(_))), "{at}");
            }
        }
    }

    #[test]
    fn the_master_key_comes_from_a_kit_and_from_a_bare_key_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit");
        for text in [kit(false).text(), seed_text(Purpose::Master, &[5; 32])] {
            std::fs::write(&path, text.as_bytes()).unwrap();
            assert_eq!(*Kit::read_master(&path).unwrap(), [5; 32]);
        }
        std::fs::write(&path, seed_text(Purpose::Identity, &[5; 32]).as_bytes()).unwrap();
        assert!(Kit::read_master(&path).unwrap_err().to_string().contains("a key for `identity`"));
    }
}
