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
    /// From `2027-01-31`, or RFC 3339: `2027-01-31T23:59:00Z`, with fractions and offsets. The error is a sentence for people.
    pub fn parse(text: &str) -> Result<Wall, String> {
        parse_rfc_3339(text)
            .ok_or_else(|| format!("`{text}` is not a date; write 2027-01-31 or, in UTC, 2027-01-31T23:59:00Z"))
    }

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

fn parse_rfc_3339(text: &str) -> Option<Wall> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse().ok()
    };
    let byte = |at: usize| text.as_bytes().get(at).copied();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let days = (byte(4) == Some(b'-') && byte(7) == Some(b'-')).then(|| days_from_civil(year, month, day))?;
    if civil(days) != (year, month, day) {
        return None;
    }
    if text.len() == 10 {
        return Some(Wall(days * 86_400_000));
    }
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // A leap second is the first of the next minute.
    let fits = hour < 24 && minute < 60 && second <= 60 && byte(13) == Some(b':') && byte(16) == Some(b':');
    if !fits || !matches!(byte(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let digits = if byte(19) == Some(b'.') { text[20..].bytes().take_while(u8::is_ascii_digit).count() } else { 0 };
    let ms = if digits > 0 { format!("{:0<3}", &text[20..20 + digits])[..3].parse::<i64>().ok()? } else { 0 };
    let at = if digits > 0 { 20 + digits } else { 19 };
    let offset_minutes = match (byte(at)?, text.len() - at) {
        (b'Z' | b'z', 1) => 0,
        (sign @ (b'+' | b'-'), 6) if byte(at + 3) == Some(b':') => {
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            if sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let minutes = (days * 24 + hour) * 60 + minute - offset_minutes;
    Some(Wall((minutes * 60 + second) * 1_000 + ms))
}

/// Days since 1970-01-01 of (year, month, day) in the proleptic Gregorian calendar: the inverse of [`civil`].
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Days since 1970-01-01 to (year, month, day) in the proleptic Gregorian calendar: the inverse of counting days in
/// 400-year eras that start on March 1, so that the leap day comes last.
pub fn civil(days: i64) -> (i64, i64, i64) {
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
    fn dates_parse_and_print_the_same_law() {
        for day in (-719_528..2_932_896).step_by(997) {
            let wall = Wall(day * 86_400_000 + 45_296_789);
            assert_eq!(Wall::parse(&wall.to_string()), Ok(wall));
            assert_eq!(Wall::parse(&wall.to_string()[..10]), Ok(Wall(day * 86_400_000)));
        }
        assert_eq!(Wall::parse("1970-01-01T01:00:00.5+01:00"), Ok(Wall(500)));
        assert_eq!(Wall::parse("1970-01-01 00:00:60Z"), Ok(Wall(60_000)));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for bad in [
            "",
            "tomorrow",
            "2027-02-29",
            "2027-13-01",
            "2027-00-10",
            "2027-1-1",
            "2027-01-01T",
            "2027-01-01T00:00:00",
            "2027-01-01T24:00:00Z",
            "2027-01-01T00:00:00.Z",
            "2027-01-01T00:00:00+0100",
            "2027-01-01Tä0:00:00Z",
            "äääää",
        ] {
            assert!(Wall::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mono_never_underflows() {
        assert_eq!(Mono(5).since(Mono(9)), 0);
        assert_eq!(Mono(5) - 9, Mono(0));
    }
}
