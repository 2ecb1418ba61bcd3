//! How a value looks in the store: a header with its own checksum, a name where it has one, and the payload.
//!
//! Job: the same bytes on every architecture, and a value that a scan of the raw file finds and trusts without LMDB.
//! It must not know where values are kept. Ruled by `RECORD_BYTES_MAX`, `BUNDLE_BYTES_MAX` and `STORE_NAME_BYTES_MAX`.
//!
//! ```text
//!  0  magic, 8 bytes that are in no UTF-8 text        44  revision u64
//!  8  schema u8, kind u8, lane or slot u8, flags u8   52  acknowledged at (server wall ms) u64
//! 12  uuid of the envoy, 16 bytes                     60  class u8, zero u8, name length u16
//! 28  first sequence or pair u64                      64  payload length u32
//! 36  last sequence u64                               68  CRC-32 of name and payload u32
//!                                                     72  CRC-32 of bytes 0..72 u32, then name, then payload
//! ```
//!
//! All numbers are big-endian. The header has a checksum of its own so that a scan believes a length before it reads that
//! far, and so that counts can be made without reading payloads.

use std::fmt;

use common::bundle::bundle_hash;
use common::chain::Lane;
use common::ids::Uuid;
use common::limits;
use common::proto::{Message, wire};

use super::ops::{QueueRecord, RecordClass, RecordIndex, link_of};

/// What every value begins with. 0x89 and 0xff are in no UTF-8 text; CR LF shows a copy made in text mode.
pub const MAGIC: [u8; 8] = *b"\x89VGO\xff\r\n\x01";
/// Version of this layout.
pub const SCHEMA: u8 = 1;
/// Bytes in front of the name.
pub const HEADER_BYTES: usize = 76;
/// Largest payload of any value: a bundle with its signature.
pub const PAYLOAD_BYTES_MAX: usize = limits::BUNDLE_BYTES_MAX + 4_096;

const FLAG_SEALED: u8 = 1;

/// What a value is. Discriminants are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An encoded `wire::Record`.
    Record = 1,
    /// An encoded `wire::Signed` with an assignment.
    Assignment = 2,
    /// An encoded `wire::Signed` with a bundle.
    Bundle = 3,
    /// A meta value.
    Meta = 4,
    /// A trait tree.
    Trait = 5,
    /// Counts and digests of all others: see `super::seal`.
    Seal = 6,
}

impl Kind {
    const ALL: [Kind; 6] = [Kind::Record, Kind::Assignment, Kind::Bundle, Kind::Meta, Kind::Trait, Kind::Seal];

    fn from_u8(n: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == n)
    }
}

/// One of the two slots of assignment and bundle. Discriminants are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Slot {
    /// What the agent runs.
    Current = 1,
    /// What it falls back to.
    Previous = 2,
}

impl Slot {
    /// Both.
    pub const ALL: [Slot; 2] = [Slot::Current, Slot::Previous];

    /// The key in the database.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Current => "current",
            Slot::Previous => "previous",
        }
    }
}

/// Everything of a value but its name and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Lane of a record or [`Slot`] of a slot value; 0 for others.
    pub place: u8,
    /// Record: sent at least once.
    pub sealed: bool,
    /// The envoy whose value it is.
    pub uuid: Uuid,
    /// Record: first sequence. Slot: number of the pair, see [`pair_of`].
    pub first: u64,
    /// Record: last sequence.
    pub last: u64,
    /// Raised by every put of the store; of two values for the same key the higher is the newer.
    pub revision: u64,
    /// Record: server wall time (ms) of its acknowledgement, 0 = none.
    pub acked_at_ms: u64,
    /// Record: its [`RecordClass`]; 0 for others.
    pub class: u8,
    /// Bytes of the name behind the header.
    pub name_bytes: u16,
    /// Bytes of the payload behind the name.
    pub payload_bytes: u32,
    /// CRC-32 of name and payload.
    pub payload_crc: u32,
}

/// Why bytes are no value of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Fewer or more bytes than the header says.
    Length,
    /// No magic in front.
    Magic,
    /// A layout that this build does not know.
    Schema(u8),
    /// The header's checksum does not hold.
    HeaderChecksum,
    /// The checksum of name and payload does not hold.
    PayloadChecksum,
    /// The checksums hold, but a field says something it must not: which.
    Field(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Length => f.write_str("its length is not what its header says"),
            Damage::Magic => f.write_str("it does not begin with the magic of a stored value"),
            Damage::Schema(n) => write!(f, "it has schema {n}, which this version does not know"),
            Damage::HeaderChecksum => f.write_str("the checksum of its header does not hold"),
            Damage::PayloadChecksum => f.write_str("the checksum of its payload does not hold"),
            Damage::Field(name) => write!(f, "its field {name} is out of range"),
        }
    }
}

/// A decoded value, borrowed from where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its header.
    pub header: Header,
    /// Its name; empty where it has none.
    pub name: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Header {
    /// A header with everything zero that `kind` has no use for.
    pub fn new(kind: Kind, place: u8, uuid: Uuid, revision: u64) -> Header {
        Header {
            kind,
            place,
            sealed: false,
            uuid,
            first: 0,
            last: 0,
            revision,
            acked_at_ms: 0,
            class: 0,
            name_bytes: 0,
            payload_bytes: 0,
            payload_crc: 0,
        }
    }

    /// Bytes of the whole value.
    pub fn value_bytes(&self) -> usize {
        HEADER_BYTES + usize::from(self.name_bytes) + self.payload_bytes as usize
    }

    /// Lane of a record.
    pub fn lane(&self) -> Option<Lane> {
        if self.kind == Kind::Record { Lane::from_u32(u32::from(self.place)) } else { None }
    }

    /// 64 bits that differ between any two values, for sums over a store: a stale, altered or hidden value shows.
    pub fn digest(&self) -> u64 {
        let bytes = self.encode();
        let crcs = u64::from_be_bytes(std::array::from_fn(|i| bytes[68 + i]));
        // The finisher of SplitMix64 spreads a difference in any bit over all.
        let mut z = crcs ^ self.revision.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &[SCHEMA, self.kind as u8, self.place, if self.sealed { FLAG_SEALED } else { 0 }]);
        put(12, self.uuid.as_bytes());
        put(28, &self.first.to_be_bytes());
        put(36, &self.last.to_be_bytes());
        put(44, &self.revision.to_be_bytes());
        put(52, &self.acked_at_ms.to_be_bytes());
        put(60, &[self.class, 0]);
        put(62, &self.name_bytes.to_be_bytes());
        put(64, &self.payload_bytes.to_be_bytes());
        put(68, &self.payload_crc.to_be_bytes());
        let crc = crc32fast::hash(&out[..72]);
        out[72..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads and checks a header; `bytes` may be longer.
    pub fn decode(bytes: &[u8]) -> Result<Header, Damage> {
        let head: &[u8; HEADER_BYTES] =
            bytes.get(..HEADER_BYTES).and_then(|head| head.try_into().ok()).ok_or(Damage::Length)?;
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        let half = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        if head[..8] != MAGIC {
            return Err(Damage::Magic);
        }
        if crc32fast::hash(&head[..72]) != half(72) {
            return Err(Damage::HeaderChecksum);
        }
        if head[8] != SCHEMA {
            return Err(Damage::Schema(head[8]));
        }
        let header = Header {
            kind: Kind::from_u8(head[9]).ok_or(Damage::Field("kind"))?,
            place: head[10],
            sealed: head[11] & FLAG_SEALED != 0,
            uuid: Uuid::from_bytes(std::array::from_fn(|i| head[12 + i])),
            first: word(28),
            last: word(36),
            revision: word(44),
            acked_at_ms: word(52),
            class: head[60],
            name_bytes: u16::from_be_bytes([head[62], head[63]]),
            payload_bytes: half(64),
            payload_crc: half(68),
        };
        if usize::from(header.name_bytes) > limits::STORE_NAME_BYTES_MAX {
            return Err(Damage::Field("name length"));
        }
        if header.payload_bytes as usize > PAYLOAD_BYTES_MAX {
            return Err(Damage::Field("payload length"));
        }
        let slots = [Slot::Current as u8, Slot::Previous as u8];
        match header.kind {
            Kind::Record if header.lane().is_none() => Err(Damage::Field("lane")),
            // Below 2^63, as on the wire: sums of sequences do not overflow.
            Kind::Record if header.first == 0 || header.last < header.first || header.last > i64::MAX as u64 => {
                Err(Damage::Field("sequence"))
            }
            Kind::Record if RecordClass::from_u8(header.class).is_none() => Err(Damage::Field("class")),
            Kind::Assignment | Kind::Bundle if !slots.contains(&header.place) => Err(Damage::Field("slot")),
            _ => Ok(header),
        }
    }
}

impl<'a> Value<'a> {
    /// Reads and checks a whole value; `bytes` must be exactly it.
    pub fn decode(bytes: &'a [u8]) -> Result<Value<'a>, Damage> {
        let header = Header::decode(bytes)?;
        let body = &bytes[HEADER_BYTES..];
        if bytes.len() != header.value_bytes() {
            return Err(Damage::Length);
        }
        if crc32fast::hash(body) != header.payload_crc {
            return Err(Damage::PayloadChecksum);
        }
        let (name, payload) = body.split_at(usize::from(header.name_bytes));
        let name = std::str::from_utf8(name).map_err(|_| Damage::Field("name"))?;
        Ok(Value { header, name, payload })
    }

    /// The record in it, checked to be the one that its header names.
    pub fn record(&self) -> Result<QueueRecord, Damage> {
        if self.header.kind != Kind::Record {
            return Err(Damage::Field("kind"));
        }
        let record = wire::Record::decode(self.payload).map_err(|_| Damage::Field("record"))?;
        let fits = record.lane == i32::from(self.header.place)
            && record.first_sequence == self.header.first
            && record.last_sequence == self.header.last;
        if !fits {
            return Err(Damage::Field("sequence"));
        }
        Ok(QueueRecord { record, sealed: self.header.sealed, acked_at_ms: self.header.acked_at_ms })
    }

    /// What the core needs to know of a record; `None` where this is none.
    pub fn index(&self) -> Option<RecordIndex> {
        let header = &self.header;
        let record = self.record().ok()?;
        Some(RecordIndex {
            first: header.first,
            last: header.last,
            bytes: header.value_bytes() as u32,
            sealed: header.sealed,
            acked_at_ms: header.acked_at_ms,
            class: RecordClass::from_u8(header.class)?,
            previous_link: link_of(&record.record.previous_link),
            last_link: link_of(&record.record.last_link),
        })
    }

    /// The signed object in a slot value.
    pub fn signed(&self) -> Result<wire::Signed, Damage> {
        if !matches!(self.header.kind, Kind::Assignment | Kind::Bundle) {
            return Err(Damage::Field("kind"));
        }
        wire::Signed::decode(self.payload).map_err(|_| Damage::Field("signed object"))
    }
}

/// The bytes of a value. Lengths and checksums of `header` are set here; the caller has kept name and payload in bounds.
pub fn encode(header: Header, name: &str, payload: &[u8]) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(name.as_bytes());
    crc.update(payload);
    let header = Header {
        name_bytes: name.len() as u16,
        payload_bytes: payload.len() as u32,
        payload_crc: crc.finalize(),
        ..header
    };
    let mut out = Vec::with_capacity(header.value_bytes());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(payload);
    out
}

/// The bytes of a record.
pub fn encode_record(uuid: Uuid, revision: u64, record: &QueueRecord) -> Vec<u8> {
    let header = Header {
        sealed: record.sealed,
        first: record.record.first_sequence,
        last: record.record.last_sequence,
        acked_at_ms: record.acked_at_ms,
        class: RecordClass::of(&record.record) as u8,
        ..Header::new(Kind::Record, record.record.lane as u8, uuid, revision)
    };
    encode(header, "", &record.record.encode_to_vec())
}

/// What an assignment and its bundle have in common in the store, so that salvage pairs them again: the short hash of the
/// bundle's payload. Nothing trusts it; the core verifies what it uses.
pub fn pair_of(bundle: &wire::Signed) -> u64 {
    bundle_hash(&bundle.payload).short()
}

/// The bytes of a slot value; `payload` is an encoded `wire::Signed`.
pub fn encode_slot(kind: Kind, slot: Slot, uuid: Uuid, revision: u64, pair: u64, payload: &[u8]) -> Vec<u8> {
    encode(Header { first: pair, ..Header::new(kind, slot as u8, uuid, revision) }, "", payload)
}

/// Bytes that a record takes in the store: what the queue's bound counts.
pub fn stored_bytes(record: &QueueRecord) -> usize {
    HEADER_BYTES + record.record.encoded_len()
}

/// Fuzz body: arbitrary bytes are either refused or decode to a value that encodes to the same bytes.
pub fn fuzz_queue_record(data: &[u8]) {
    let Ok(value) = Value::decode(data) else { return };
    let again = encode(value.header, value.name, value.payload);
    assert_eq!(Value::decode(&again), Ok(value), "a decoded value changes when it is encoded again");
    if let Ok(record) = value.record() {
        let bytes = encode_record(value.header.uuid, value.header.revision, &record);
        let back = Value::decode(&bytes).and_then(|value| value.record());
        assert_eq!(back, Ok(record), "a decoded record changes when it is encoded again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture;

    #[test]
    fn a_record_has_these_bytes_on_every_architecture() {
        let record = QueueRecord { acked_at_ms: 0x0102, sealed: true, ..fixture::run(Lane::Urgent, 7, 3, &[0; 32]) };
        let bytes = encode_record(Uuid::from_bytes([0xaa; 16]), 9, &record);
        assert_eq!(bytes.len(), stored_bytes(&record));
        let golden = "8956474fff0d0a01\
                      01010101\
                      aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
                      0000000000000007\
                      0000000000000007\
                      0000000000000009\
                      0000000000000102\
                      03000000";
        assert_eq!(common::ids::hex(&bytes[..64]), golden);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/fuzz/corpus/queue_record/golden");
        assert_eq!(bytes, std::fs::read(path).expect("the golden record is in the corpus"));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut bytes = encode_record(Uuid::from_bytes([7; 16]), 1, &fixture::run(Lane::Routine, 1, 0, &[1; 32]));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Value::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(Value::decode(&bytes).is_ok());
    }

    #[test]
    fn names_and_payloads_round_trip() {
        let header = Header::new(Kind::Meta, 0, Uuid::default(), 4);
        let bytes = encode(header, "servers", b"a\0b");
        let value = Value::decode(&bytes).expect("it decodes");
        assert_eq!((value.name, value.payload, value.header.revision), ("servers", &b"a\0b"[..], 4));
        assert_eq!(value.record(), Err(Damage::Field("kind")));
    }

    #[test]
    fn values_of_other_schemas_and_places_are_refused() {
        let good = encode_record(Uuid::default(), 1, &fixture::run(Lane::Urgent, 1, 0, &[0; 32]));
        for (at, byte, damage) in [
            (8, 2, Damage::Schema(2)),
            (9, 99, Damage::Field("kind")),
            (10, 3, Damage::Field("lane")),
            (35, 9, Damage::Field("sequence")),
            (60, 0, Damage::Field("class")),
        ] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let crc = crc32fast::hash(&bytes[..72]);
            bytes[72..76].copy_from_slice(&crc.to_be_bytes());
            assert_eq!(Value::decode(&bytes), Err(damage), "byte {at}");
        }
    }

    #[test]
    fn the_fuzz_body_holds_over_the_corpus_and_its_mutations() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/fuzz/corpus/queue_record");
        let files: Vec<_> = std::fs::read_dir(dir).expect("the corpus is there").flatten().collect();
        assert!(files.len() >= 5, "the corpus has {} files", files.len());
        for file in files {
            let bytes = std::fs::read(file.path()).expect("a corpus file is readable");
            fuzz_queue_record(&bytes);
            for cut in 0..bytes.len().min(200) {
                fuzz_queue_record(&bytes[..cut]);
            }
        }
    }
}
