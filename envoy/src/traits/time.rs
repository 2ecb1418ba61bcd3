//! `time`: what the host takes for the present, in UTC, and its time zone.

use serde_json::{Value, json};

use super::{Facts, Root};

pub(super) fn collect(root: &Root, facts: &Facts) -> Result<Value, String> {
    let utc = facts.now.wall.to_string();
    let part = |from: usize, to: usize| utc.get(from..to).and_then(|digits| digits.parse::<u32>().ok());
    Ok(json!({
        "epoch": facts.now.wall.0.div_euclid(1_000),
        "year": part(0, 4),
        "month": part(5, 7),
        "day": part(8, 10),
        "hour": part(11, 13),
        "minute": part(14, 16),
        "timezone": timezone(root),
        "utc": utc,
    }))
}

/// The name of the time zone: the target of the link, the file of Debian, the one of OpenWrt.
fn timezone(root: &Root) -> Option<String> {
    let target = root.link("/etc/localtime");
    let linked = target.as_deref().and_then(|path| path.split_once("zoneinfo/")).map(|(_, name)| name.to_string());
    linked.or_else(|| root.line("/etc/timezone")).or_else(|| root.line("/etc/TZ"))
}
