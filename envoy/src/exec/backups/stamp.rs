//! Names of snapshots, the windows that they fall into, and which of them are kept. Pure: the time is an argument.
//!
//! A wall clock may be decades off, and back again. Nothing here waits for a moment to come: a snapshot is due where the present
//! window has none, whatever others there are. And no jump of the clock makes a history old: see [`expired`].

use std::fmt;

use common::time::{Wall, civil, days_from_civil};

/// Minutes of a day.
const DAY: i64 = 1_440;
/// The last minute of the year 9999: the name has four digits for it.
const STAMP_MAX: i64 = 4_223_371_679;
/// Between two snapshots that follow each other there is no such time, in minutes, unless a clock was wrong: ten years.
const JUMP: i64 = 3_653 * DAY;
/// What is further ahead of the clock than this was named by a wrong one, in minutes.
const AHEAD: i64 = DAY;

/// When a snapshot was begun, in whole minutes since 1970, UTC. It prints as its name: `2026.325.22.52`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(i64);

/// How often there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// In each hour.
    Hourly,
    /// In each day.
    Daily,
    /// In each week, from Monday.
    Weekly,
}

impl Stamp {
    /// The minute that this moment is in.
    pub fn of(wall: Wall) -> Stamp {
        Stamp(wall.0.div_euclid(60_000).clamp(0, STAMP_MAX))
    }

    /// From a name of exactly this form; anything else is not ours.
    pub fn parse(name: &[u8]) -> Option<Stamp> {
        let digits = |from: usize, to: usize| -> Option<i64> {
            let text = std::str::from_utf8(name.get(from..to)?).ok()?;
            text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let dots = name.len() == 14 && [4, 8, 11].iter().all(|at| name[*at] == b'.');
        let (year, day, hour, minute) = (digits(0, 4)?, digits(5, 8)?, digits(9, 11)?, digits(12, 14)?);
        let first = days_from_civil(year, 1, 1);
        let days = days_from_civil(year + 1, 1, 1) - first;
        let fits = dots && year >= 1970 && (1..=days).contains(&day) && hour < 24 && minute < 60;
        fits.then_some(Stamp(((first + day - 1) * 24 + hour) * 60 + minute))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, minutes) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let year = civil(days).0;
        let day = days - days_from_civil(year, 1, 1) + 1;
        write!(f, "{year:04}.{day:03}.{:02}.{:02}", minutes / 60, minutes % 60)
    }
}

impl Schedule {
    /// From its word.
    pub fn of(word: &str) -> Schedule {
        match word {
            "hourly" => Schedule::Hourly,
            "weekly" => Schedule::Weekly,
            _ => Schedule::Daily,
        }
    }

    fn window(self, stamp: Stamp) -> i64 {
        match self {
            Schedule::Hourly => stamp.0.div_euclid(60),
            Schedule::Daily => stamp.0.div_euclid(DAY),
            // 1970 began on a Thursday.
            Schedule::Weekly => (stamp.0.div_euclid(DAY) + 3).div_euclid(7),
        }
    }
}

/// Whether the present window has none.
pub fn is_due(now: Stamp, schedule: Schedule, have: &[Stamp]) -> bool {
    !have.iter().any(|stamp| schedule.window(*stamp) == schedule.window(now))
}

/// The one that a new snapshot is compared with: the last before it, else the last at all.
pub fn base(now: Stamp, have: &[Stamp]) -> Option<Stamp> {
    have.iter().filter(|stamp| **stamp <= now).max().or_else(|| have.iter().max()).copied()
}

/// Those that have been kept for long enough. Never the last one.
///
/// The series of the present clock goes back from now, step by step, to the first gap that only a jump of the clock explains.
/// In it, what is older than `retain_days` has expired. What lies beyond the gap, or in the future, belongs to another clock, and
/// nobody knows which of them is right: it stays until the present series covers `retain_days` by itself.
pub fn expired(now: Stamp, retain_days: i64, have: &[Stamp]) -> Vec<Stamp> {
    let mut past: Vec<Stamp> = have.iter().filter(|stamp| stamp.0 <= now.0 + AHEAD).copied().collect();
    past.sort_unstable_by(|a, b| b.cmp(a));
    let Some(last) = past.first().copied() else { return Vec::new() };
    let mut present = Vec::new();
    let mut after = now;
    for stamp in past {
        if after.0 - stamp.0 > JUMP {
            break;
        }
        present.push(stamp);
        after = stamp;
    }
    let oldest = present.last().map_or(now.0, |stamp| stamp.0);
    let covered = now.0 - oldest >= (retain_days - 1).max(1) * DAY;
    let over = |stamp: &Stamp| match present.contains(stamp) {
        true => now.0 - stamp.0 > retain_days * DAY,
        false => covered,
    };
    let mut expired: Vec<Stamp> = have.iter().filter(|stamp| **stamp != last && over(stamp)).copied().collect();
    expired.sort_unstable();
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Stamp {
        Stamp::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for (wall, name) in [
            (0, "1970.001.00.00"),
            (-5, "1970.001.00.00"),
            (1_795_301_560_000, "2026.325.22.52"),
            (4_133_980_799_000, "2100.365.23.59"),
            (1_735_603_260_000, "2024.366.00.01"),
            (i64::MAX, "9999.365.23.59"),
        ] {
            assert_eq!(Stamp::of(Wall(wall)).to_string(), name);
            assert_eq!(Stamp::parse(name.as_bytes()).map(|stamp| stamp.to_string()).as_deref(), Some(name));
        }
        for wrong in [
            "2026.325.22.5",
            "2026.325.22.520",
            "2026.000.00.00",
            "2026.366.00.00",
            "2026.001.24.00",
            "2026.001.00.60",
            "1969.001.00.00",
            "2026-325.22.52",
            "+026.325.22.52",
            ".partial-2026.325.22.52",
            "",
        ] {
            assert_eq!(Stamp::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_window_takes_one_whatever_the_clock_did_before() {
        let have = [at("2026.325.22.52"), at("2100.001.00.00")];
        for (now, schedule, due) in [
            ("2026.325.22.59", Schedule::Hourly, false),
            ("2026.325.23.00", Schedule::Hourly, true),
            ("2026.325.00.00", Schedule::Daily, false),
            ("2026.326.00.00", Schedule::Daily, true),
            // A Sunday follows that Saturday, and then a Monday.
            ("2026.326.23.59", Schedule::Weekly, false),
            ("2026.327.00.00", Schedule::Weekly, true),
            ("2026.319.23.59", Schedule::Weekly, true),
            ("1970.001.00.00", Schedule::Weekly, true),
            ("2100.001.05.00", Schedule::Daily, false),
        ] {
            assert_eq!(is_due(at(now), schedule, &have), due, "{now} {schedule:?}");
        }
        assert_eq!(base(at("2026.326.00.00"), &have), Some(have[0]));
        assert_eq!(base(at("1970.001.00.00"), &have), Some(have[1]));
        assert_eq!(base(at("1970.001.00.00"), &[]), None);
    }

    /// A snapshot of each day from `first`, taken at its last minute, and what is left of all after the last of them.
    fn days(mut have: Vec<Stamp>, first: &str, n: i64, retain: i64) -> Vec<Stamp> {
        for day in 0..n {
            let now = Stamp(at(first).0 + day * DAY);
            if is_due(now, Schedule::Daily, &have) {
                have.push(now);
            }
            let gone = expired(now, retain, &have);
            assert!(!gone.contains(&now));
            have.retain(|stamp| !gone.contains(stamp));
        }
        have
    }

    #[test]
    fn old_ones_expire_and_the_last_one_stays() {
        assert_eq!(days(vec![], "2026.001.03.00", 100, 30).len(), 31);
        assert_eq!(days(vec![], "2026.001.03.00", 100, 1).len(), 2);
        let alone = [at("2025.001.00.00")];
        assert_eq!(expired(at("2026.001.00.00"), 30, &alone), []);
        let two = [at("2025.001.00.00"), at("2026.001.00.00")];
        assert_eq!(expired(at("2026.001.00.01"), 30, &two), [two[0]]);
    }

    #[test]
    fn a_clock_that_jumps_makes_no_history_old() {
        let history = days(vec![], "2026.001.03.00", 40, 30);
        for wrong in ["1970.001.00.00", "2100.001.00.00", "2038.019.03.14"] {
            let after = days(history.clone(), wrong, 20, 30);
            assert!(history.iter().all(|stamp| after.contains(stamp)), "{wrong}");
            assert_eq!(after.len(), history.len() + 20, "{wrong}");
            // Back again: all of the true history is there, and goes on; what the wrong clock named goes.
            let back = days(after, "2026.041.03.00", 1, 30);
            let past: Vec<_> = history.iter().filter(|stamp| at("2026.041.03.00").0 - stamp.0 <= 30 * DAY).collect();
            assert!(past.iter().all(|stamp| back.contains(stamp)), "{wrong}");
            let years: Vec<_> = back.iter().map(|stamp| stamp.to_string()[..4].to_string()).collect();
            assert!(years.iter().all(|year| year == "2026"), "{wrong}: {years:?}");
        }
    }

    #[test]
    fn a_clock_that_stays_wrong_gets_a_history_of_its_own() {
        let history = days(vec![], "2026.001.03.00", 40, 30);
        for wrong in ["1970.001.00.00", "2100.001.00.00"] {
            let after = days(history.clone(), wrong, 60, 30);
            assert_eq!(after.len(), 31, "{wrong}");
        }
        // One of retain 1 needs a second snapshot.
        assert_eq!(days(days(vec![], "2026.001.03.00", 3, 1), "2100.001.00.00", 1, 1).len(), 3);
    }
}
