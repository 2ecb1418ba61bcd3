//! `uptime`: since when the host runs.

use common::time::Wall;
use serde_json::{Value, json};

use super::{Facts, Root};

pub(super) fn collect(root: &Root, facts: &Facts) -> Result<Value, String> {
    let line = root.line("/proc/uptime").ok_or("cannot read /proc/uptime")?;
    let seconds =
        line.split('.').next().and_then(|text| text.parse::<i64>().ok()).ok_or("/proc/uptime has no number")?;
    // To the minute: the two clocks are read one after the other, and the wall clock is adjusted.
    let booted_ms = (facts.now.wall.0 - seconds * 1_000).div_euclid(60_000) * 60_000;
    Ok(json!({
        "seconds": seconds,
        "booted_at": Wall(booted_ms).to_string(),
        "boot_id": root.line("/proc/sys/kernel/random/boot_id"),
    }))
}
