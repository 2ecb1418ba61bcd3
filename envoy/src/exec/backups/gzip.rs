//! A dump into a file of gzip, as it comes. The same bytes give the same file: no time and no name is in its header.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Bytes of the end of a dump that are kept, to see whether it is whole.
const TAIL_BYTES: usize = 512;
/// Bytes of the beginning of a dump that are looked at.
const HEAD_BYTES: u64 = 16 << 10;
/// Bytes that are compared at once.
const PIECE_BYTES: usize = 64 << 10;

/// Where a dump goes.
pub struct Packer {
    file: GzEncoder<BufWriter<File>>,
    /// What gzip gets next, always a whole piece: how a pipe cut the dump must not show in the file.
    piece: Vec<u8>,
    tail: Vec<u8>,
    length: u64,
}

impl Packer {
    /// Into an empty file.
    pub fn new(file: File) -> Packer {
        // The header that this writes has neither a time nor the name of a system.
        let file = GzEncoder::new(BufWriter::with_capacity(PIECE_BYTES, file), Compression::default());
        Packer { file, piece: Vec::with_capacity(PIECE_BYTES), tail: Vec::new(), length: 0 }
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        let over = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..over);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            rest = later;
            if self.piece.len() == PIECE_BYTES {
                self.file.write_all(&self.piece)?;
                self.piece.clear();
            }
        }
        Ok(())
    }

    /// Ends the file. Gives the length of the dump and its last bytes.
    pub fn finish(mut self) -> io::Result<(u64, Vec<u8>)> {
        self.file.write_all(&self.piece)?;
        self.file.finish()?.flush()?;
        Ok((self.length, self.tail))
    }
}

/// The first bytes of a dump.
pub fn head(file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What cannot be read is as good as not there: this only helps to make the same again.
    let _ = GzDecoder::new(file).take(HEAD_BYTES).read_to_end(&mut bytes);
    bytes
}

/// Whether two files have the same content, read from where they are.
pub fn is_same(mut one: File, mut other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let n = one.read(&mut a)?;
        if n == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..n])?;
        if a[..n] != b[..n] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    fn packed(pieces: &[&[u8]]) -> (File, u64, Vec<u8>) {
        let mut file = tempfile::tempfile().unwrap();
        let mut packer = Packer::new(file.try_clone().unwrap());
        pieces.iter().for_each(|piece| packer.write(piece).unwrap());
        let (length, tail) = packer.finish().unwrap();
        file.rewind().unwrap();
        (file, length, tail)
    }

    #[test]
    fn the_same_dump_gives_the_same_file_and_its_ends_are_known() {
        let long = "line of a dump\n".repeat(10_000);
        let (one, length, tail) = packed(&[long.as_bytes(), b"COMMIT;\n"]);
        let (first, rest) = long.split_at(777);
        let (other, ..) = packed(&[first.as_bytes(), rest.as_bytes(), b"", b"COMMIT;\n"]);
        assert_eq!(length, long.len() as u64 + 8);
        assert!(tail.ends_with(b"dump\nCOMMIT;\n") && tail.len() == TAIL_BYTES);
        let mut header = [0; 10];
        std::os::unix::fs::FileExt::read_exact_at(&one, &mut header, 0).unwrap();
        assert_eq!(header, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        assert!(is_same(one.try_clone().unwrap(), other).unwrap());
        let (third, ..) = packed(&[long.as_bytes(), b"COMMIT!\n"]);
        let mut one = one;
        one.rewind().unwrap();
        assert!(!is_same(one.try_clone().unwrap(), third).unwrap());
        one.rewind().unwrap();
        assert_eq!(head(one), long.as_bytes()[..HEAD_BYTES as usize]);
    }
}
