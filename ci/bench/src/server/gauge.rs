//! What the kernel says of a process: CPU time and resident memory, from `/proc`.

use std::fs;

/// Length of the kernel's clock tick in microseconds (`USER_HZ` is 100 on every Linux that we run on).
const TICK_US: u64 = 10_000;

/// User and system time of a whole process since its start, in microseconds, in steps of 10 ms. 0 once it is gone.
pub fn cpu_us(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may have spaces: fields are counted after it. proc(5): utime and stime are 14 and 15.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    ticks * TICK_US
}

/// Resident memory in KiB, file pages included. 0 once it is gone.
pub fn resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

/// Resident memory in KiB that belongs to this process alone: heap and stacks.
pub fn anonymous_kib(pid: u32) -> u64 {
    status_kib(pid, "RssAnon:")
}

/// The middle one; the lower of two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// A field of `/proc/PID/status` in KiB. 0 once the process is gone.
pub fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_lower_of_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn this_process_has_memory_and_one_that_never_was_has_none() {
        let own = std::process::id();
        assert!(resident_kib(own) > 0 && anonymous_kib(own) <= resident_kib(own));
        assert_eq!((cpu_us(u32::MAX), resident_kib(u32::MAX)), (0, 0));
    }
}
