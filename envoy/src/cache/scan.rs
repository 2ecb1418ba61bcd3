//! Finds stored values in any file by their magic and checksums, through no library: what salvage stands on.
//!
//! A value lies in one piece wherever LMDB put it, so a scan finds it without knowing pages, word sizes or byte orders; it
//! also finds values that were replaced or deleted since, and some of transactions that never ended. Who chooses among
//! them is [`super::salvage`]. Reads in bounded pieces, and gives up on a disk that keeps failing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::codec::{HEADER_BYTES, Header, MAGIC};

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that are passed over where the disk cannot read.
const SECTOR_BYTES: u64 = 4_096;
/// Read errors after which the rest of the file is given up: each may take a disk many seconds.
const READ_ERRORS_MAX: u32 = 64;

/// A whole value and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Byte of its magic.
    pub(super) offset: u64,
    /// Its header; name and payload behind it have the checksum that it names.
    pub(super) header: Header,
}

/// Scans a file from its first byte to its last. Gives back how many reads failed.
pub(super) fn scan(file: &File, found: &mut dyn FnMut(Found)) -> u32 {
    let Ok(file_bytes) = file.metadata().map(|meta| meta.len()) else { return 1 };
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut position, mut errors) = (0, 0);
    while position < file_bytes && errors < READ_ERRORS_MAX {
        let wanted = (file_bytes - position).min(PIECE_BYTES as u64) as usize;
        let piece = &mut buffer[..wanted];
        if file.read_exact_at(piece, position).is_err() {
            errors += 1;
            // Smaller, so that what lies before a bad sector is still found.
            let small = wanted.min(SECTOR_BYTES as usize);
            if wanted > small && file.read_exact_at(&mut piece[..small], position).is_ok() {
                position = scan_piece(file, &piece[..small], position, found);
            } else {
                position += SECTOR_BYTES;
            }
            continue;
        }
        position = scan_piece(file, piece, position, found);
    }
    errors
}

/// The whole value at a place where a scan found it.
pub(super) fn read_value(file: &File, found: &Found) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; found.header.value_bytes()];
    file.read_exact_at(&mut bytes, found.offset)?;
    Ok(bytes)
}

/// Looks for values that begin in `piece`; gives back where to go on.
fn scan_piece(file: &File, piece: &[u8], position: u64, found: &mut dyn FnMut(Found)) -> u64 {
    let mut at = 0;
    while let Some(step) = piece[at..].iter().position(|byte| *byte == MAGIC[0]) {
        at += step;
        // A magic that is cut by the end of the piece is met again at the start of the next.
        if piece.len() - at < MAGIC.len() {
            let whole_file_seen = at == 0;
            return position + if whole_file_seen { piece.len() } else { at } as u64;
        }
        if piece[at..].starts_with(&MAGIC)
            && let Some(value) = value_at(file, position + at as u64)
        {
            found(value);
            let end = at + value.header.value_bytes();
            if end >= piece.len() {
                return position + end as u64;
            }
            at = end;
            continue;
        }
        at += 1;
    }
    position + piece.len() as u64
}

fn value_at(file: &File, offset: u64) -> Option<Found> {
    let mut head = [0; HEADER_BYTES];
    file.read_exact_at(&mut head, offset).ok()?;
    let header = Header::decode(&head).ok()?;
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = [0; 16 << 10];
    let (mut at, end) = (offset + HEADER_BYTES as u64, offset + header.value_bytes() as u64);
    while at < end {
        let part = &mut buffer[..(end - at).min(16 << 10) as usize];
        file.read_exact_at(part, at).ok()?;
        crc.update(part);
        at += part.len() as u64;
    }
    (crc.finalize() == header.payload_crc).then_some(Found { offset, header })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{codec, fixture};
    use common::chain::Lane;
    use common::ids::Uuid;

    fn offsets(bytes: &[u8]) -> Vec<u64> {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("raw");
        std::fs::write(&path, bytes).expect("it is written");
        let mut out = Vec::new();
        scan(&File::open(path).expect("it opens"), &mut |found| out.push(found.offset));
        out
    }

    fn record(sequence: u64, bytes: usize) -> Vec<u8> {
        codec::encode_record(
            Uuid::default(),
            sequence,
            &fixture::run_of_size(Lane::Urgent, sequence, 1, &[0; 32], bytes),
        )
    }

    #[test]
    fn values_are_found_at_any_offset_and_across_pieces() {
        let value = record(1, 900);
        for gap in [0, 1, PIECE_BYTES - 4, PIECE_BYTES - 100, PIECE_BYTES, 2 * PIECE_BYTES - 7] {
            let mut bytes = vec![MAGIC[0]; gap];
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(&MAGIC);
            assert_eq!(offsets(&bytes), [gap as u64, (gap + value.len()) as u64], "behind {gap} bytes");
        }
    }

    #[test]
    fn a_value_inside_another_is_not_a_value() {
        let inner = record(1, 10);
        let outer = codec::encode(Header::new(codec::Kind::Trait, 0, Uuid::default(), 2), "t", &inner);
        assert_eq!(offsets(&outer), [0]);
        let mut broken = outer.clone();
        broken[HEADER_BYTES] ^= 1;
        assert_eq!(offsets(&broken), [HEADER_BYTES as u64 + 1], "unless the outer one is damaged");
    }

    #[test]
    fn damaged_and_cut_values_are_passed_over() {
        let mut bytes = [record(1, 100), record(2, 100)].concat();
        let second = record(1, 100).len();
        bytes[90] ^= 4;
        assert_eq!(offsets(&bytes), [second as u64]);
        assert_eq!(offsets(&bytes[..bytes.len() - 1]), [0; 0]);
        assert_eq!(offsets(&[]), [0; 0]);
        assert_eq!(offsets(&MAGIC[..3]), [0; 0]);
    }
}
