//! Durations (`1s`, `5m`, `720h`, `90d`, `1h30m`) and sizes (`64KB`, `10GB`, `1MiB`) as people write them.

/// Milliseconds of a Go-style duration with `d` added; `0` needs no unit. The error is a sentence for people.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is not a duration; write a number and a unit, such as 30s, 5m, 12h or 90d");
    if text == "0" {
        return Ok(0);
    }
    let (mut rest, mut total) = (text, 0f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(expected)?;
        let number: f64 = rest[..digits].parse().map_err(|_| expected())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms = match &rest[..end] {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return Err(expected()),
        };
        total += number * unit_ms;
        rest = &rest[end..];
    }
    // 1,000 years: far above every bound, far below where f64 loses milliseconds.
    if text.is_empty() || !(0.0..=3.2e13).contains(&total) { Err(expected()) } else { Ok(total.round() as u64) }
}

/// Bytes of a size: decimal units (`KB`, `MB`, `GB`, `TB`) by 1,000, binary ones (`KiB`, .. and bare `K`, `M`, `G`, `T`) by 1,024.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is not a size; write a number and a unit, such as 512KiB, 64MB or 10GB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| expected())?;
    let factor: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        _ => return Err(expected()),
    };
    number.checked_mul(factor).ok_or_else(expected)
}

/// A duration for people: the two largest units that are not zero (`3d 4h`, `5m`, `1.2s`, `340ms`).
pub fn human_duration(ms: u64) -> String {
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    if ms < 60_000 {
        let tenths = ms / 100;
        return if tenths.is_multiple_of(10) {
            format!("{}s", tenths / 10)
        } else {
            format!("{}.{}s", tenths / 10, tenths % 10)
        };
    }
    let seconds = ms / 1_000;
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

/// A size for people, in binary units (`1.5 MiB`).
pub fn human_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..4).rev().find(|p| bytes >= 1 << (10 * (p + 1))).map_or(0, |p| p + 1);
    if power == 0 {
        format!("{bytes} B")
    } else {
        format!("{:.1} {}", bytes as f64 / (1u64 << (10 * power)) as f64, units[power])
    }
}

/// The known name nearest to a wrong one, for "did you mean", when it is near enough to help.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.into_iter().map(|name| (edit_distance(wrong, name), name)).min()?;
    // A name of one letter is near to every other one, which helps nobody.
    let n = wrong.chars().count();
    (best.0 <= 1 + n / 4 && best.0 < n).then_some(best.1)
}

/// Optimal string alignment distance: insert, delete, replace, swap neighbours.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse() {
        for (text, ms) in [("0", 0), ("1s", 1_000), ("5m", 300_000), ("720h", 2_592_000_000), ("90d", 7_776_000_000)] {
            assert_eq!(duration_ms(text), Ok(ms));
        }
        assert_eq!(duration_ms("1h30m"), Ok(5_400_000));
        assert_eq!(duration_ms("1.5s"), Ok(1_500));
        for bad in ["", "5", "m", "5 m", "-5m", "5w", "1e9d", "9999999999999d"] {
            assert!(duration_ms(bad).unwrap_err().contains("not a duration"), "{bad}");
        }
    }

    #[test]
    fn sizes_parse() {
        for (text, bytes) in [("10GB", 10_000_000_000), ("1G", 1 << 30), ("64MiB", 64 << 20), ("17", 17)] {
            assert_eq!(size_bytes(text), Ok(bytes));
        }
        for bad in ["", "GB", "1.5G", "99999999999TB", "1PB"] {
            assert!(size_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_get_two_units() {
        assert_eq!(human_duration(340), "340ms");
        assert_eq!(human_duration(1_200), "1.2s");
        assert_eq!(human_duration(273_600_000), "3d 4h");
        assert_eq!(human_bytes(1_572_864), "1.5 MiB");
        assert_eq!(human_bytes(12), "12 B");
    }

    #[test]
    fn near_names_are_suggested() {
        let known = ["target_path", "content", "mode", "owner"];
        assert_eq!(nearest("target-path", known), Some("target_path"));
        assert_eq!(nearest("ownre", known), Some("owner"));
        assert_eq!(nearest("zzz", known), None);
    }
}
