//! Overload control: a token bucket whose answer to those it cannot serve is a slot in the future, reserved for them, so
//! that a returning fleet spreads itself out and comes back once, not again and again.

use common::limits::BACKOFF_MAX_MS;
use common::time::Mono;

/// The bucket. Times are in microseconds inside, because a slot may be shorter than a millisecond.
#[derive(Clone, Debug)]
pub struct Admission {
    slot_us: u64,
    burst_us: u64,
    /// When the bucket would be full again (theoretical arrival time).
    arrival_us: u64,
    /// End of the last slot that was promised.
    reserved_us: u64,
}

/// What to do with a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Admit,
    /// Send it away for so many milliseconds; its slot is reserved.
    Later(u32),
}

impl Admission {
    /// For so many callers a second; a second's worth may come at once.
    pub fn new(per_second: u32) -> Admission {
        let slot_us = 1_000_000 / u64::from(per_second.clamp(1, 1_000_000));
        Admission { slot_us, burst_us: 1_000_000, arrival_us: 0, reserved_us: 0 }
    }

    /// Judges one caller. `reserved` is the slot it was promised, if any.
    pub fn judge(&mut self, now: Mono, reserved: Option<Mono>) -> Verdict {
        let now_us = now.0.saturating_mul(1_000);
        // A kept appointment was paid for when it was made. A grain of slack: milliseconds are rounded on the way.
        if reserved.is_some_and(|slot| now.0 + 50 >= slot.0) {
            return Verdict::Admit;
        }
        if now_us + self.burst_us >= self.arrival_us + self.slot_us {
            self.arrival_us = self.arrival_us.max(now_us) + self.slot_us;
            return Verdict::Admit;
        }
        // The next free slot after everything promised. Beyond the longest backoff the agents' own jitter spreads better.
        let slot = self.reserved_us.max(now_us) + self.slot_us;
        let wait_ms = (slot - now_us).div_ceil(1_000).min(BACKOFF_MAX_MS);
        self.reserved_us = slot.min(now_us + BACKOFF_MAX_MS * 1_000);
        Verdict::Later(wait_ms.max(1) as u32)
    }

    /// When everybody who was sent away is back, if somebody was.
    pub fn all_back(&self, now: Mono) -> Option<Mono> {
        let at = Mono(self.reserved_us / 1_000);
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_served_and_the_rest_gets_distinct_slots() {
        let mut admission = Admission::new(100);
        let verdicts: Vec<Verdict> = (0..300).map(|_| admission.judge(Mono(10_000), None)).collect();
        let admitted = verdicts.iter().filter(|verdict| **verdict == Verdict::Admit).count();
        assert!((100..=101).contains(&admitted), "{admitted}");
        let waits: Vec<u32> =
            verdicts.iter().filter_map(|v| if let Verdict::Later(ms) = v { Some(*ms) } else { None }).collect();
        assert!(waits.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(waits.last(), Some(&(waits.len() as u32 * 10)));
    }

    #[test]
    fn a_kept_appointment_is_always_served() {
        let mut admission = Admission::new(1);
        admission.judge(Mono(10_000), None);
        let Verdict::Later(wait) = (0..10).map(|_| admission.judge(Mono(10_000), None)).last().unwrap() else {
            panic!("a bucket of one a second served ten at once");
        };
        let slot = Mono(10_000 + u64::from(wait));
        assert_eq!(admission.judge(slot, Some(slot)), Verdict::Admit);
    }

    #[test]
    fn nobody_waits_longer_than_the_longest_backoff() {
        let mut admission = Admission::new(1);
        for _ in 0..2_000 {
            if let Verdict::Later(wait) = admission.judge(Mono(5_000), None) {
                assert!(u64::from(wait) <= BACKOFF_MAX_MS);
            }
        }
    }
}
