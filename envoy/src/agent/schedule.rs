//! When to run. A pure clockwork on the monotonic clock: it knows neither server nor policy, so neither can delay it, and
//! no wall clock, so none can break it.
//!
//! Runs lie on a grid of the interval, offset by a hash of the UUID, so that a fleet spreads out and a host keeps its place.
//! One run goes on at a time; whatever asks for another meanwhile asks for *one* more.

use common::ids::Uuid;
use common::splay;
use common::time::Mono;

/// The timer and the wish list.
#[derive(Clone, Debug)]
pub struct Schedule {
    uuid: Uuid,
    /// Between runs, in milliseconds.
    interval_ms: u64,
    /// When the timer asks for the next run.
    next: Mono,
    /// Something asked for a run that has not begun.
    wanted: bool,
    /// A run is going on.
    busy: bool,
}

impl Schedule {
    /// The first run is wanted at once; the second comes at the next place in the grid, half an interval away or more.
    pub fn new(uuid: Uuid, interval_ms: u64, now: Mono) -> Schedule {
        let next = splay::next_due(now, &uuid, interval_ms, interval_ms / 2);
        Schedule { uuid, interval_ms, next, wanted: true, busy: false }
    }

    /// Takes note of the time. Missed turns (a suspended host, a long run) count as one.
    pub fn tick(&mut self, now: Mono) {
        if now >= self.next {
            self.wanted = true;
            self.next = splay::next_due(now, &self.uuid, self.interval_ms, 1);
        }
    }

    /// Something else asks for a run: new policy, an operator.
    pub fn trigger(&mut self) {
        self.wanted = true;
    }

    /// Whether a run should begin now.
    pub fn due(&self) -> bool {
        self.wanted && !self.busy
    }

    /// A run begins: every wish so far is served by it.
    pub fn begin(&mut self) {
        (self.wanted, self.busy) = (false, true);
    }

    /// The run is over.
    pub fn end(&mut self) {
        self.busy = false;
    }

    /// The wish cannot be served (there is no policy): it is dropped.
    pub fn give_up(&mut self) {
        self.wanted = false;
    }

    /// A new interval, from the server.
    pub fn set_interval(&mut self, interval_ms: u64, now: Mono) {
        if interval_ms != self.interval_ms {
            self.interval_ms = interval_ms;
            self.next = splay::next_due(now, &self.uuid, interval_ms, 1);
        }
    }

    /// Between runs, in milliseconds.
    pub fn interval_ms(&self) -> u64 {
        self.interval_ms
    }

    /// When the timer asks next.
    pub fn next(&self) -> Mono {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::rng::{Rng, SplitMix64};

    #[test]
    fn triggers_during_a_run_become_one_more_run() {
        let mut schedule = Schedule::new(Uuid::default(), 1_000, Mono(0));
        assert!(schedule.due());
        schedule.begin();
        (0..5).for_each(|_| schedule.trigger());
        schedule.tick(Mono(10_000));
        assert!(!schedule.due());
        schedule.end();
        assert!(schedule.due());
        schedule.begin();
        schedule.end();
        assert!(!schedule.due());
    }

    #[test]
    fn one_run_an_interval_law() {
        for seed in 0..50 {
            let mut rng = SplitMix64(seed);
            let interval = 1_000 + rng.below(10_000);
            let mut schedule = Schedule::new(Uuid::random(&mut rng), interval, Mono(rng.below(1 << 40)));
            let start = schedule.next().0 - rng.below(interval / 2);
            let (mut now, mut runs) = (start, 0);
            while now < start + 100 * interval {
                schedule.tick(Mono(now));
                if schedule.due() {
                    schedule.begin();
                    schedule.end();
                    runs += 1;
                }
                now += 1 + rng.below(interval / 2);
            }
            assert!((100..=102).contains(&runs), "seed {seed}: {runs}");
        }
    }
}
