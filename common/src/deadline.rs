//! Deadlines of many things, as data in one table.
//!
//! A thing (a connection) often moves its deadline later, rarely earlier. So an entry is only an *alarm*: it may ring too
//! early, never too late. Whoever is rung computes its true deadline and arms itself again. Moving a deadline later
//! thereby costs nothing, which is what keeps a check-in free of this table.

use std::collections::BTreeSet;

use crate::time::Mono;

/// Alarms by time. At most one per key, as long as every call passes the same [`Alarm`] for the same key.
#[derive(Clone, Debug, Default)]
pub struct Deadlines<K: Ord + Copy> {
    table: BTreeSet<(Mono, K)>,
}

/// When the table will ring for one key; kept by the thing itself, so that no second lookup is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alarm(Option<Mono>);

impl<K: Ord + Copy> Deadlines<K> {
    /// An empty table.
    pub fn new() -> Deadlines<K> {
        Deadlines { table: BTreeSet::new() }
    }

    /// Makes sure that `key` is rung at `at` or earlier.
    pub fn arm(&mut self, key: K, at: Mono, alarm: &mut Alarm) {
        match alarm.0 {
            Some(armed) if armed <= at => return,
            Some(armed) => {
                self.table.remove(&(armed, key));
            }
            None => {}
        }
        self.table.insert((at, key));
        alarm.0 = Some(at);
    }

    /// Forgets `key`.
    pub fn disarm(&mut self, key: K, alarm: &mut Alarm) {
        if let Some(armed) = alarm.0.take() {
            self.table.remove(&(armed, key));
        }
    }

    /// Takes one key whose alarm is due. The caller must call [`Alarm::rang`] on the key's alarm before it arms it again.
    pub fn pop_due(&mut self, now: Mono) -> Option<K> {
        let (at, key) = self.table.first().copied()?;
        if at > now {
            return None;
        }
        self.table.pop_first();
        Some(key)
    }

    /// The next time at which [`Deadlines::pop_due`] has something.
    pub fn next(&self) -> Option<Mono> {
        self.table.first().map(|(at, _)| *at)
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

impl Alarm {
    /// The table gave the key out and holds no entry any more.
    pub fn rang(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_in_order_and_not_before_time() {
        let mut table = Deadlines::new();
        let mut alarms = [Alarm::default(); 3];
        for (key, at) in [(0u32, 30), (1, 10), (2, 20)] {
            table.arm(key, Mono(at), &mut alarms[key as usize]);
        }
        assert_eq!((table.next(), table.pop_due(Mono(9))), (Some(Mono(10)), None));
        let rung: Vec<u32> = std::iter::from_fn(|| table.pop_due(Mono(20))).collect();
        assert_eq!((rung, table.len()), (vec![1, 2], 1));
    }

    #[test]
    fn a_later_deadline_keeps_the_early_alarm_and_an_earlier_one_replaces_it() {
        let mut table = Deadlines::new();
        let mut alarm = Alarm::default();
        table.arm(7u32, Mono(10), &mut alarm);
        table.arm(7, Mono(50), &mut alarm);
        assert_eq!((table.len(), table.next()), (1, Some(Mono(10))));
        table.arm(7, Mono(5), &mut alarm);
        assert_eq!((table.len(), table.next()), (1, Some(Mono(5))));
        assert_eq!(table.pop_due(Mono(5)), Some(7));
        alarm.rang();
        table.arm(7, Mono(50), &mut alarm);
        assert_eq!((table.len(), table.next()), (1, Some(Mono(50))));
    }

    #[test]
    fn disarming_leaves_nothing() {
        let mut table = Deadlines::new();
        let mut alarm = Alarm::default();
        table.arm(7u32, Mono(10), &mut alarm);
        table.disarm(7, &mut alarm);
        table.disarm(7, &mut alarm);
        assert!(table.is_empty());
    }
}
