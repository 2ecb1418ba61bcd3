//! `memory`: what is used and what is left, in bytes.

use serde_json::{Value, json};

use super::{Facts, Root};

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    let memory = meminfo(root)?;
    // Kernels before 3.14 do not say what is available: free memory and caches are a fair guess.
    let guess = || Some(memory("MemFree")? + memory("Buffers").unwrap_or(0) + memory("Cached").unwrap_or(0));
    Ok(json!({
        "total_bytes": memory("MemTotal"),
        "free_bytes": memory("MemFree"),
        "available_bytes": memory("MemAvailable").or_else(guess),
        "buffers_bytes": memory("Buffers"),
        "cached_bytes": memory("Cached"),
        "swap_total_bytes": memory("SwapTotal"),
        "swap_free_bytes": memory("SwapFree"),
    }))
}

/// `/proc/meminfo` as a function from names to bytes.
pub(super) fn meminfo(root: &Root) -> Result<impl Fn(&str) -> Option<u64>, String> {
    let text = root.read("/proc/meminfo").ok_or("cannot read /proc/meminfo")?;
    Ok(move |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1_024)
    })
}
