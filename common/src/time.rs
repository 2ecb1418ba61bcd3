//! Integer time. [`Mono`] orders and measures, [`Wall`] only labels; [`Now`] carries both and is read once per loop turn.

use std::fmt;
use std::ops::{Add, Sub};

/// Milliseconds on a clock that never jumps and counts through suspend. Comparable within one boot of one host only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Milliseconds since 1970-01-01 UTC, as some host believes. May be decades off and may jump: a label, never a basis
/// for a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and durations.
    pub mono: Mono,
    /// For people.
    pub wall: Wall,
}

impl Mono {
    /// Milliseconds from `earlier` to `self`, 0 when `earlier` is later.
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Mono {
    type Output = Mono;
    fn add(self, ms: u64) -> Mono {
        Mono(self.0.saturating_add(ms))
    }
}

impl Sub<u64> for Mono {
    type Output = Mono;
    fn sub(self, ms: u64) -> Mono {
        Mono(self.0.saturating_sub(ms))
    }
}

impl Wall {
    /// As unsigned milliseconds, 0 before 1970.
    pub fn ms(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-21T09:55:57.120Z`. Years outside 0..=9999 are clamped.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 0000-01-01 and 9999-12-31T23:59:59.999, the range of RFC 3339.
        let ms = self.0.clamp(-62_167_219_200_000, 253_402_300_799_999);
        let (days, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1_000)
    }
}

/// Days since 1970-01-01 to (year, month, day) in the proleptic Gregorian calendar: the inverse of counting days in
/// 400-year eras that start on March 1, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_prints_as_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_254_957_120, "2026-11-21T09:55:57.120Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Wall(ms).to_string(), text);
        }
    }

    #[test]
    fn mono_never_underflows() {
        assert_eq!(Mono(5).since(Mono(9)), 0);
        assert_eq!(Mono(5) - 9, Mono(0));
    }
}
