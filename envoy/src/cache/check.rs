//! What a batch may contain, checked before any store is touched: both stores refuse the same things.

use common::chain::Lane;
use common::limits;
use common::proto::{Message, wire};

use super::codec::PAYLOAD_BYTES_MAX;
use super::ops::{CacheError, QueueRecord, StoreOp};

/// Head of a record around a body of at most `RECORD_BYTES_MAX`: three links and three numbers.
const RECORD_HEAD_BYTES_MAX: usize = 512;

/// Refuses a batch with a value that could not be stored or found again. Nothing of it is kept.
pub(super) fn check_batch(batch: &[StoreOp]) -> Result<(), CacheError> {
    batch.iter().try_for_each(check)
}

fn check(op: &StoreOp) -> Result<(), CacheError> {
    match op {
        StoreOp::PutSlot { assignment, bundle } => {
            check_signed("assignment", assignment)?;
            bundle.as_ref().map_or(Ok(()), |bundle| check_signed("bundle", bundle))
        }
        StoreOp::PutRecord(record) => check_record(record),
        StoreOp::DeleteRecords { .. } => Ok(()),
        StoreOp::SetMeta(name, value) => {
            check_name("meta value", name)?;
            check_size("meta value", name, value.len(), limits::META_VALUE_BYTES_MAX)
        }
        StoreOp::SetTrait(name, value) => {
            check_name("trait tree", name)?;
            let bytes = value.as_ref().map_or(0, Vec::len);
            check_size("trait tree", name, bytes, limits::TRAIT_TREE_BYTES_MAX)
        }
    }
}

fn check_record(record: &QueueRecord) -> Result<(), CacheError> {
    let (head, bytes) = (&record.record, record.record.encoded_len());
    let lane = u32::try_from(head.lane).ok().and_then(Lane::from_u32);
    let range_fits = (1..=head.last_sequence).contains(&head.first_sequence) && head.last_sequence <= i64::MAX as u64;
    if lane.is_none() || !range_fits {
        let (lane, first, last) = (head.lane, head.first_sequence, head.last_sequence);
        return Err(CacheError::Io(format!(
            "state store: refused a record of lane {lane} for sequences {first}..={last}"
        )));
    }
    check_size("record", "of the queue", bytes, limits::RECORD_BYTES_MAX + RECORD_HEAD_BYTES_MAX)
}

fn check_signed(what: &str, signed: &wire::Signed) -> Result<(), CacheError> {
    check_size(what, "slot", signed.encoded_len(), PAYLOAD_BYTES_MAX)
}

fn check_name(what: &str, name: &str) -> Result<(), CacheError> {
    let fits = (1..=limits::STORE_NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0');
    let refusal = || CacheError::Io(format!("state store: refused a {what} with a name of {} bytes", name.len()));
    if fits { Ok(()) } else { Err(refusal()) }
}

fn check_size(what: &str, name: &str, bytes: usize, bytes_max: usize) -> Result<(), CacheError> {
    let refusal =
        || CacheError::Io(format!("state store: refused a {what} ({name}) of {bytes} bytes, at most {bytes_max}"));
    if bytes <= bytes_max { Ok(()) } else { Err(refusal()) }
}
