//! Encrypted archives: AES-256-GCM in authenticated chunks (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár,
//! 2015) under a key from a password by Argon2id. The form is in `docs/ARCHIVE.md`, for readers in other languages.
//!
//! Each chunk's nonce holds its number and whether it is the last one: a file that is cut, reordered or continued does not
//! open. The header is bound to every chunk.

use std::io::{self, Read, Write};
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use common::crypto::{decrypt, encrypt};
use common::rng::Rng;
use zeroize::Zeroizing;

use super::error::BackupError;

/// First bytes of an encrypted archive.
pub const MAGIC: &[u8; 8] = b"VIGOENC1";
/// Bytes of the header.
pub const HEADER_BYTES: usize = 56;
const TAG_BYTES: usize = 16;
const CHUNK_BYTES: usize = 64 << 10;
const SALT: std::ops::Range<usize> = 28..44;
const PREFIX: std::ops::Range<usize> = 44..51;
/// What this binary writes: RFC 9106's second recommendation, 64 MiB and three passes.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// What it reads at most: a header must not make it take all memory or hours.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const CHUNK_BYTES_MAX: usize = 16 << 20;

/// Whether a file that begins so is encrypted.
pub fn is_encrypted(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// A key and what every chunk is bound to.
struct Stream {
    key: Zeroizing<[u8; 32]>,
    header: [u8; HEADER_BYTES],
    next: u32,
}

impl Stream {
    fn nonce(&mut self, last: bool) -> io::Result<[u8; 12]> {
        let mut nonce = [0; 12];
        nonce[..7].copy_from_slice(&self.header[PREFIX]);
        nonce[7..11].copy_from_slice(&self.next.to_be_bytes());
        nonce[11] = u8::from(last);
        self.next = self.next.checked_add(1).ok_or_else(|| io::Error::other("it is longer than 2^32 chunks"))?;
        Ok(nonce)
    }
}

fn key(password: &[u8], header: &[u8; HEADER_BYTES], cost: (u32, u32, u32)) -> Result<Zeroizing<[u8; 32]>, String> {
    let params = Params::new(cost.0, cost.1, cost.2, Some(32)).map_err(|error| error.to_string())?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, &header[SALT], &mut *key)
        .map_err(|error| error.to_string())?;
    Ok(key)
}

/// Encrypts what is written to it.
pub struct Encryptor<W: Write> {
    out: W,
    stream: Stream,
    buffer: Zeroizing<Vec<u8>>,
}

impl<W: Write> Encryptor<W> {
    /// Writes the header.
    pub fn new(mut out: W, password: &[u8], rng: &mut dyn Rng) -> io::Result<Encryptor<W>> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        (header[8], header[9]) = (1, 1);
        header[12..16].copy_from_slice(&MEMORY_KIB.to_be_bytes());
        header[16..20].copy_from_slice(&PASSES.to_be_bytes());
        header[20..24].copy_from_slice(&LANES.to_be_bytes());
        header[24..28].copy_from_slice(&(CHUNK_BYTES as u32).to_be_bytes());
        rng.fill(&mut header[SALT]);
        rng.fill(&mut header[PREFIX]);
        let key = key(password, &header, (MEMORY_KIB, PASSES, LANES)).map_err(io::Error::other)?;
        out.write_all(&header)?;
        let buffer = Zeroizing::new(Vec::with_capacity(CHUNK_BYTES));
        Ok(Encryptor { out, stream: Stream { key, header, next: 0 }, buffer })
    }

    /// Writes the last chunk.
    pub fn finish(mut self) -> io::Result<W> {
        self.chunk(true)?;
        Ok(self.out)
    }

    fn chunk(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.stream.nonce(last)?;
        self.out.write_all(&encrypt(&self.stream.key, &nonce, &self.stream.header, &self.buffer))?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // Only a full buffer that more follows is not the last one.
        if self.buffer.len() == CHUNK_BYTES {
            self.chunk(false)?;
        }
        let n = data.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypts what is read through it; nothing of a chunk is given that was not authenticated.
pub struct Decryptor<R: Read> {
    from: R,
    stream: Stream,
    /// The chunk that comes next, encrypted.
    ahead: Vec<u8>,
    chunk: usize,
    plain: Zeroizing<Vec<u8>>,
    given: usize,
    ended: bool,
}

impl<R: Read> Decryptor<R> {
    /// Reads the header behind [`MAGIC`], which the caller has read, and opens the first chunk.
    pub fn new(mut from: R, archive: &Path, password: &[u8]) -> Result<Decryptor<R>, BackupError> {
        let wrong = |why: &str| BackupError::archive(archive, format!("the header of the encryption {why}"));
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        from.read_exact(&mut header[8..]).map_err(|_| wrong("is cut short"))?;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if (header[8], header[9]) != (1, 1) {
            return Err(wrong("names a method that this binary does not know: restore it with a newer version"));
        }
        let (memory, passes, lanes, chunk) = (word(12), word(16), word(20), word(24) as usize);
        let fits = (8..=MEMORY_KIB_MAX).contains(&memory)
            && (1..=PASSES_MAX).contains(&passes)
            && (1..=LANES_MAX).contains(&lanes)
            && (1..=CHUNK_BYTES_MAX).contains(&chunk);
        if !fits {
            return Err(wrong("has parameters that are out of bounds"));
        }
        let key = key(password, &header, (memory, passes, lanes)).map_err(|why| wrong(&format!("is bad: {why}")))?;
        let stream = Stream { key, header, next: 0 };
        let mut decryptor =
            Decryptor { from, stream, ahead: Vec::new(), chunk, plain: Zeroizing::default(), given: 0, ended: false };
        let read = |error: io::Error| BackupError::io("read", archive, &error);
        decryptor.ahead = decryptor.encrypted().map_err(read)?;
        decryptor.open().map_err(|_| BackupError::Password {
            archive: archive.to_path_buf(),
            why: "the password is wrong, or the file is damaged at its begin".into(),
        })?;
        Ok(decryptor)
    }

    /// What it reads from.
    pub fn into_inner(self) -> R {
        self.from
    }

    fn encrypted(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        (&mut self.from).take((self.chunk + TAG_BYTES) as u64).read_to_end(&mut out)?;
        Ok(out)
    }

    fn open(&mut self) -> io::Result<()> {
        let full = self.ahead.len() == self.chunk + TAG_BYTES;
        let next = if full { self.encrypted()? } else { Vec::new() };
        let (current, last) = (std::mem::replace(&mut self.ahead, next), self.ahead.is_empty());
        let nonce = self.stream.nonce(last)?;
        self.plain = decrypt(&self.stream.key, &nonce, &self.stream.header, &current).map_err(|_| {
            let text = "it was cut, altered or reordered: a part of the encrypted file does not open";
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        (self.given, self.ended) = (0, last);
        Ok(())
    }
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.given == self.plain.len() && !self.ended {
            self.open()?;
        }
        let n = out.len().min(self.plain.len() - self.given);
        out[..n].copy_from_slice(&self.plain[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::rng::SplitMix64;

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut encryptor = Encryptor::new(Vec::new(), b"correct horse", &mut SplitMix64(7)).unwrap();
        encryptor.write_all(plain).unwrap();
        encryptor.finish().unwrap()
    }

    fn opened(file: &[u8], password: &[u8]) -> Result<Vec<u8>, String> {
        assert_eq!(&file[..8], MAGIC);
        let mut decryptor = Decryptor::new(&file[8..], Path::new("a"), password).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        decryptor.read_to_end(&mut out).map_err(|error| error.to_string())?;
        Ok(out)
    }

    #[test]
    fn every_length_around_a_chunk_round_trips() {
        for n in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let file = sealed(&plain);
            let chunks = n.div_ceil(CHUNK_BYTES).max(1);
            assert_eq!(file.len(), HEADER_BYTES + n + chunks * TAG_BYTES);
            assert_eq!(opened(&file, b"correct horse").as_deref(), Ok(&plain[..]));
        }
    }

    #[test]
    fn what_is_cut_continued_reordered_or_altered_does_not_open() {
        let file = sealed(&vec![7; 2 * CHUNK_BYTES + 100]);
        let chunk = CHUNK_BYTES + TAG_BYTES;
        let whole = |end: usize| file[..end].to_vec();
        let mut cases = vec![
            whole(file.len() - 1),
            // At the end of a chunk, where an ordinary reader would see a complete file.
            whole(HEADER_BYTES + chunk),
            whole(HEADER_BYTES + 2 * chunk),
            [file.clone(), vec![0]].concat(),
            [file.clone(), file[HEADER_BYTES..].to_vec()].concat(),
            [
                &file[..HEADER_BYTES],
                &file[HEADER_BYTES + chunk..HEADER_BYTES + 2 * chunk],
                &file[HEADER_BYTES..HEADER_BYTES + chunk],
                &file[HEADER_BYTES + 2 * chunk..],
            ]
            .concat(),
        ];
        for at in [8, 20, 30, 45, 53, HEADER_BYTES, HEADER_BYTES + chunk + 5, file.len() - 1] {
            let mut bad = file.clone();
            bad[at] ^= 1;
            cases.push(bad);
        }
        for (n, case) in cases.iter().enumerate() {
            assert!(opened(case, b"correct horse").is_err(), "case {n}");
        }
        let wrong = opened(&file, b"wrong horse").unwrap_err();
        assert!(wrong.contains("password is wrong"), "{wrong}");
    }

    #[test]
    fn a_header_that_asks_for_too_much_is_refused_at_once() {
        let mut file = sealed(b"x");
        file[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(opened(&file, b"correct horse").unwrap_err().contains("out of bounds"));
    }
}
