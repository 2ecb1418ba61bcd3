//! How long an agent waits after a failed attempt: a pure function of (attempt, random).

use crate::limits::{BACKOFF_FIRST_MS, BACKOFF_JITTER_PERCENT, BACKOFF_MAX_MS};

/// Nominal wait in milliseconds before retry number `attempt` (0 is the first): 5, 10, 20, 40, 80, 160, 300, 300 s.
pub fn nominal_ms(attempt: u32) -> u64 {
    BACKOFF_FIRST_MS.checked_shl(attempt.min(16)).unwrap_or(u64::MAX).min(BACKOFF_MAX_MS)
}

/// The wait in milliseconds: nominal with +-20 % jitter, then clamped to the ceiling. `random` is any 64-bit number.
pub fn wait_ms(attempt: u32, random: u64) -> u64 {
    let nominal = nominal_ms(attempt);
    let spread = nominal * BACKOFF_JITTER_PERCENT / 100;
    let offset = ((u128::from(random) * u128::from(2 * spread + 1)) >> 64) as u64;
    (nominal - spread + offset).min(BACKOFF_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nominal_steps_double_to_the_ceiling() {
        let steps: Vec<u64> = (0..9).map(|attempt| nominal_ms(attempt) / 1_000).collect();
        assert_eq!(steps, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(nominal_ms(u32::MAX), BACKOFF_MAX_MS);
    }

    #[test]
    fn jitter_spans_twenty_percent_and_never_passes_the_ceiling() {
        for attempt in 0..12 {
            let (low, high) = (wait_ms(attempt, 0), wait_ms(attempt, u64::MAX));
            assert_eq!(low, nominal_ms(attempt) * 80 / 100);
            assert_eq!(high, (nominal_ms(attempt) * 120 / 100).min(BACKOFF_MAX_MS));
            let middle = wait_ms(attempt, u64::MAX / 2);
            assert!(low <= middle && middle <= high);
        }
    }
}
