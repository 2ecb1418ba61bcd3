//! One secret on disk: a line of text, `vigo-secret-v1 VERSION KEY-ID NONCE CIPHERTEXT`, the last three in hexadecimal.
//! AES-256-GCM under the master key; path and version are the associated data, so that no file can stand in for another.

use common::crypto::{NONCE_BYTES, decrypt, encrypt, sha256};
use common::ids::{hex, unhex};
use common::limits;
use common::rng::Rng;
use zeroize::Zeroizing;

use super::vault::Secret;

/// Bytes that a file may have.
pub const FILE_BYTES_MAX: u64 = 2 * limits::SECRET_BYTES_MAX as u64 + 1_024;

const MAGIC: &str = "vigo-secret-v1";

/// A master key, with its name.
pub struct MasterKey {
    /// Its first eight bytes of SHA-256.
    pub id: [u8; 8],
    key: Zeroizing<[u8; 32]>,
}

/// Why a file gives no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFile {
    /// It is none of ours, or cut short.
    Form,
    /// It is encrypted under a key that is not here.
    OtherKey,
    /// Its key is here, and it does not open: it was altered, or moved.
    Altered,
}

impl std::fmt::Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BadFile::Form => "it is no secret file, or cut short",
            BadFile::OtherKey => "it is encrypted under another master key",
            BadFile::Altered => "it was altered, or moved from another path",
        })
    }
}

impl MasterKey {
    /// From its bytes.
    pub fn new(key: Zeroizing<[u8; 32]>) -> MasterKey {
        MasterKey { id: sha256(&[b"vigo-master-key-v1\0", &*key]).short().to_be_bytes(), key }
    }
}

/// The text of a file.
pub fn encode(key: &MasterKey, path: &str, secret: &Secret, rng: &mut dyn Rng) -> String {
    let mut nonce = [0; NONCE_BYTES];
    rng.fill(&mut nonce);
    let ciphertext = encrypt(&key.key, &nonce, &bound(path, secret.version), &secret.value);
    format!("{MAGIC} {} {} {} {}\n", secret.version, hex(&key.id), hex(&nonce), hex(&ciphertext))
}

/// Opens a file with whichever key fits.
pub fn decode(keys: &[MasterKey], path: &str, text: &str) -> Result<(Secret, [u8; 8]), BadFile> {
    let words: Vec<&str> = text.strip_suffix('\n').ok_or(BadFile::Form)?.split(' ').collect();
    let [MAGIC, version, id, nonce, ciphertext] = words[..] else { return Err(BadFile::Form) };
    let version: u64 = version.parse().map_err(|_| BadFile::Form)?;
    let id: [u8; 8] = unhex(id).and_then(|id| id.try_into().ok()).ok_or(BadFile::Form)?;
    let nonce: [u8; NONCE_BYTES] = unhex(nonce).and_then(|nonce| nonce.try_into().ok()).ok_or(BadFile::Form)?;
    let ciphertext = unhex(ciphertext).ok_or(BadFile::Form)?;
    let key = keys.iter().find(|key| key.id == id).ok_or(BadFile::OtherKey)?;
    let value = decrypt(&key.key, &nonce, &bound(path, version), &ciphertext).map_err(|_| BadFile::Altered)?;
    Ok((Secret { version, value }, id))
}

fn bound(path: &str, version: u64) -> Vec<u8> {
    format!("{MAGIC}\0{path}\0{version}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::rng::SplitMix64;

    fn key(fill: u8) -> MasterKey {
        MasterKey::new(Zeroizing::new([fill; 32]))
    }

    #[test]
    fn a_file_opens_under_its_key_at_its_path_only() {
        let secret = Secret { version: 9, value: Zeroizing::new(b"hunter2".to_vec()) };
        let text = encode(&key(1), "a/b", &secret, &mut SplitMix64(1));
        assert!(!text.contains(&hex(b"hunter2")));
        let open = |keys: &[MasterKey], path: &str, text: &str| decode(keys, path, text).map(|(found, _)| found.value);
        assert_eq!(open(&[key(2), key(1)], "a/b", &text).map(|value| value.to_vec()), Ok(b"hunter2".to_vec()));
        assert_eq!(open(&[key(2)], "a/b", &text), Err(BadFile::OtherKey));
        assert_eq!(open(&[key(1)], "a/c", &text), Err(BadFile::Altered));
        assert_eq!(open(&[key(1)], "a/b", &text.replacen(" 9 ", " 8 ", 1)), Err(BadFile::Altered));
        for n in 0..text.len() {
            assert!(open(&[key(1)], "a/b", &text[..n]).is_err(), "{n}");
        }
    }
}
