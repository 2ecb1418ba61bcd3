//! The seal: counts and digests over everything else in the store, rewritten by every commit.
//!
//! LMDB has no checksums of its own. One flipped bit in a page can hide a record, bring an old one back, or roll the
//! whole store back by a transaction, and every value that is left still has a valid checksum. The seal makes all three
//! visible: it names the transaction that wrote it, and its sums must come out again when the store is walked.

use common::chain::Lane;
use common::ids::Uuid;

use super::codec::{self, Damage, Header, Kind, Value};

/// Key of the seal in the `meta` database. Names of meta values have no NUL.
pub(super) const SEAL_KEY: &[u8] = b"\0seal";

/// Counts and digests of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// LMDB's number of the transaction that wrote it.
    pub txn: u64,
    /// Highest revision given out.
    pub revision: u64,
    /// Values other than records.
    pub values: u64,
    /// Sum of their digests.
    pub digest: u64,
    /// By [`Lane::index`].
    pub lanes: [LaneSeal; 2],
}

/// One lane of a [`Seal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSeal {
    /// Records.
    pub count: u64,
    /// Sum of their stored bytes.
    pub bytes: u64,
    /// Sum of their digests.
    pub digest: u64,
    /// First sequence of the oldest record; above the newest where the lane is empty. What lies below was deleted for good.
    pub floor: u64,
    /// Highest sequence that the lane ever held.
    pub highest: u64,
    /// Highest sequence of a record that was put as acknowledged.
    pub acked: u64,
}

impl Seal {
    /// Counts a value in.
    pub fn add(&mut self, header: &Header) {
        match header.lane() {
            Some(lane) => {
                let lane = &mut self.lanes[lane.index()];
                lane.count = lane.count.wrapping_add(1);
                lane.bytes = lane.bytes.wrapping_add(header.value_bytes() as u64);
                lane.digest = lane.digest.wrapping_add(header.digest());
                lane.highest = lane.highest.max(header.last);
            }
            None => {
                self.values = self.values.wrapping_add(1);
                self.digest = self.digest.wrapping_add(header.digest());
            }
        }
        self.revision = self.revision.max(header.revision);
    }

    /// Counts a value out. What only grows (highest sequence, revision) stays.
    pub fn remove(&mut self, header: &Header) {
        match header.lane() {
            Some(lane) => {
                let lane = &mut self.lanes[lane.index()];
                lane.count = lane.count.wrapping_sub(1);
                lane.bytes = lane.bytes.wrapping_sub(header.value_bytes() as u64);
                lane.digest = lane.digest.wrapping_sub(header.digest());
            }
            None => {
                self.values = self.values.wrapping_sub(1);
                self.digest = self.digest.wrapping_sub(header.digest());
            }
        }
    }

    /// Notes a put record: the acknowledged mark follows it up, and down where it is to be delivered again.
    pub fn note_acked(&mut self, lane: Lane, first: u64, last: u64, acked: bool) {
        let lane = &mut self.lanes[lane.index()];
        lane.acked = if acked { lane.acked.max(last) } else { lane.acked.min(first - 1) };
    }

    /// Where the sums of `found`, made by walking the store, are not what this seal says: the first difference in words.
    pub fn difference(&self, found: &Seal) -> Option<String> {
        for lane in Lane::ALL {
            let (says, is) = (&self.lanes[lane.index()], &found.lanes[lane.index()]);
            if says.count != is.count {
                return Some(format!("the {} lane has {} records instead of {}", lane.name(), is.count, says.count));
            }
            if (says.bytes, says.digest) != (is.bytes, is.digest) {
                return Some(format!("the {} lane holds other records than were stored", lane.name()));
            }
        }
        if self.values != found.values {
            return Some(format!("the store has {} other values instead of {}", found.values, self.values));
        }
        (self.digest != found.digest).then(|| "the store holds other values than were stored".to_string())
    }

    /// As a stored value.
    pub fn encode(&self, uuid: Uuid) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut put = |n: u64| out.extend_from_slice(&n.to_be_bytes());
        [self.txn, self.values, self.digest].into_iter().for_each(&mut put);
        for lane in &self.lanes {
            [lane.count, lane.bytes, lane.digest, lane.floor, lane.highest, lane.acked].into_iter().for_each(&mut put);
        }
        codec::encode(Header::new(Kind::Seal, 0, uuid, self.revision), "", &out)
    }

    /// From a stored value.
    pub fn decode(value: &Value<'_>) -> Result<Seal, Damage> {
        if value.header.kind != Kind::Seal {
            return Err(Damage::Field("kind"));
        }
        let words: Vec<u64> =
            value.payload.chunks_exact(8).map(|chunk| u64::from_be_bytes(std::array::from_fn(|i| chunk[i]))).collect();
        let &[txn, values, digest, ref lanes @ ..] = words.as_slice() else { return Err(Damage::Length) };
        if lanes.len() != 12 {
            return Err(Damage::Length);
        }
        let lane = |at: usize| LaneSeal {
            count: lanes[at],
            bytes: lanes[at + 1],
            digest: lanes[at + 2],
            floor: lanes[at + 3],
            highest: lanes[at + 4],
            acked: lanes[at + 5],
        };
        Ok(Seal { txn, revision: value.header.revision, values, digest, lanes: [lane(0), lane(6)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture;

    fn header(sequence: u64, revision: u64) -> Header {
        let record = fixture::run(Lane::Urgent, sequence, 1, &[0; 32]);
        Header::decode(&codec::encode_record(Uuid::default(), revision, &record)).expect("it decodes")
    }

    #[test]
    fn a_seal_round_trips() {
        let mut seal = Seal { txn: 9, ..Seal::default() };
        seal.add(&header(3, 44));
        seal.note_acked(Lane::Urgent, 3, 3, true);
        let bytes = seal.encode(Uuid::default());
        assert_eq!(Seal::decode(&Value::decode(&bytes).expect("it decodes")), Ok(seal));
        assert_eq!((seal.revision, seal.lanes[0].highest, seal.lanes[0].acked), (44, 3, 3));
    }

    #[test]
    fn a_hidden_a_stale_and_another_record_show() {
        let sum = |headers: &[Header]| {
            let mut seal = Seal::default();
            headers.iter().for_each(|header| seal.add(header));
            seal
        };
        let seal = sum(&[header(1, 1), header(2, 2)]);
        assert_eq!(seal.difference(&sum(&[header(2, 2), header(1, 1)])), None);
        assert!(seal.difference(&sum(&[header(1, 1)])).is_some());
        assert!(seal.difference(&sum(&[header(1, 1), header(2, 1)])).is_some());
        assert!(seal.difference(&sum(&[header(1, 1), header(1, 1)])).is_some());
    }

    #[test]
    fn removing_takes_back_what_adding_did() {
        let mut seal = Seal::default();
        seal.add(&header(1, 1));
        let before = seal;
        seal.add(&header(2, 1));
        seal.remove(&header(2, 1));
        assert_eq!(seal.difference(&before), None);
        assert_eq!(seal.lanes[0].highest, 2, "what a lane ever held is remembered");
    }
}
