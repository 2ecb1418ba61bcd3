//! What the kernel says of a process at rest: memory by kind, and how often its threads went to sleep of their own accord.

use std::fs;

/// Memory in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident, shared pages divided by those who share them.
    pub pss: u64,
    /// Written and not shared: heap and stacks.
    pub private_dirty: u64,
    /// Most that was ever resident.
    pub peak: u64,
}

/// Memory of a process; zeros once it is gone.
pub fn memory(pid: u32) -> Memory {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Memory {
        rss: field(&rollup, "Rss:"),
        pss: field(&rollup, "Pss:"),
        private_dirty: field(&rollup, "Private_Dirty:"),
        peak: field(&status, "VmHWM:"),
    }
}

/// Voluntary context switches of all threads: each is a wake-up that ended.
pub fn wakeups(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of =
        |path: std::path::PathBuf| field(&fs::read_to_string(path).unwrap_or_default(), "voluntary_ctxt_switches:");
    threads.map(|thread| of(thread.path().join("status"))).sum()
}

/// Whether a program needs a loader and the libraries of its host: a `PT_INTERP` in the ELF file (System V ABI, program header).
pub fn is_static(program: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let word = |at: usize| program.get(at..at + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let long = |at: usize| {
        program.get(at..at + 8).map_or(0, |b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    };
    // ELF64: offset of the program headers, size of one, how many.
    let (from, size, n) = (long(32) as usize, word(54), word(56));
    let kind = |header: usize| long(from + header * size) as u32;
    program.starts_with(b"\x7fELF\x02") && n > 0 && !(0..n).any(|header| kind(header) == PT_INTERP)
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_slept() {
        let own = memory(std::process::id());
        assert!(own.rss > 0 && own.peak >= own.rss && own.pss <= own.rss, "{own:?}");
        assert_eq!(memory(u32::MAX).rss, 0);
        assert_eq!(wakeups(u32::MAX), 0);
    }

    #[test]
    fn a_test_program_is_not_static_and_a_script_is_no_program() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(b"#!/bin/sh\n"));
        assert_eq!(is_static(&own), cfg!(target_env = "musl"));
    }
}
