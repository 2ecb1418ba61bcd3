//! Where in its interval an envoy does its work: a stable hash of the UUID, so that a fleet spreads out.

use crate::ids::Uuid;
use crate::time::Mono;

/// Offset in milliseconds, below `interval_ms`, the same for one UUID for ever.
pub fn offset_ms(uuid: &Uuid, interval_ms: u64) -> u64 {
    let digest = crate::crypto::sha256(&[b"vigo-splay-v1", uuid.as_bytes()]);
    let word = u64::from_be_bytes(std::array::from_fn(|i| digest.0[i]));
    ((u128::from(word) * u128::from(interval_ms)) >> 64) as u64
}

/// The next moment after `now` that lies at this envoy's offset of a grid of `interval_ms`, at least `min_ms` away.
pub fn next_due(now: Mono, uuid: &Uuid, interval_ms: u64, min_ms: u64) -> Mono {
    let interval = interval_ms.max(1);
    let (offset, earliest) = (offset_ms(uuid, interval), now.0.saturating_add(min_ms));
    let periods = earliest.saturating_sub(offset).div_ceil(interval);
    Mono(offset.saturating_add(periods.saturating_mul(interval)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_spreads_over_the_interval() {
        let mut buckets = [0u32; 10];
        for n in 0..10_000u128 {
            let offset = offset_ms(&Uuid::from_bytes(n.to_be_bytes()), 300_000);
            buckets[(offset / 30_000) as usize] += 1;
        }
        assert!(buckets.iter().all(|&n| (850..1_150).contains(&n)), "{buckets:?}");
    }

    #[test]
    fn due_times_stay_on_the_grid() {
        let uuid = Uuid::from_bytes([9; 16]);
        let first = next_due(Mono(0), &uuid, 1_000, 1);
        let second = next_due(first, &uuid, 1_000, 1);
        assert_eq!(second.0 - first.0, 1_000);
        assert!(next_due(Mono(50), &uuid, 1_000, 700).0 >= 750);
    }
}
