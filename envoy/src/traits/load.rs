//! `load`: how busy the host is.

use serde_json::{Value, json};

use super::{Facts, Root};

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    let line = root.line("/proc/loadavg").ok_or("cannot read /proc/loadavg")?;
    let fields: Vec<&str> = line.split(' ').collect();
    let average = |at: usize| fields.get(at)?.parse::<f64>().ok().filter(|load| load.is_finite());
    let tasks = fields.get(3).and_then(|text| text.split_once('/'));
    Ok(json!({
        "one": average(0),
        "five": average(1),
        "fifteen": average(2),
        "running": tasks.and_then(|(running, _)| running.parse::<u64>().ok()),
        "processes": tasks.and_then(|(_, all)| all.parse::<u64>().ok()),
    }))
}
