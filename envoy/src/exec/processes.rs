//! The processes of the running system, as `/proc` below the root shows them. One that ends while it is read is left out.

use super::fault::Fault;
use super::host::Host;
use super::look::{names_in, text_of};

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Number.
    pub pid: i32,
    /// Number of its parent.
    pub parent: i32,
    /// What the kernel calls it: at most 15 bytes.
    pub name: String,
    /// Its arguments, joined by blanks; empty for threads of the kernel.
    pub command: String,
    /// Number of the user that it runs as.
    pub uid: u32,
    /// It has ended, and its parent has not noticed.
    pub zombie: bool,
    /// Clock ticks after the start of the host at which it began: with the number, its identity.
    pub started: u64,
}

/// Longest name that the kernel keeps of a program.
const NAME_BYTES_MAX: usize = 15;

/// A name of a program as the kernel keeps it: a longer one is cut.
pub fn kept_name(name: &str) -> &str {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// All of them.
pub fn all(host: &mut Host) -> Result<Vec<Process>, Fault> {
    let mut found = Vec::new();
    for name in names_in(host, "/proc")? {
        let Ok(pid) = name.parse::<i32>() else { continue };
        found.extend(one(host, pid)?);
    }
    Ok(found)
}

/// One of them; `None` where it does not exist.
pub fn one(host: &mut Host, pid: i32) -> Result<Option<Process>, Fault> {
    let status = text_of(host, &format!("/proc/{pid}/status"))?;
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    let Some(name) = field("Name") else { return Ok(None) };
    let first = |key: &str| field(key).and_then(|value| value.split_ascii_whitespace().next());
    // The second of real, effective, saved: what it may do.
    let uid = field("Uid").and_then(|value| value.split_ascii_whitespace().nth(1)?.parse().ok());
    let command = text_of(host, &format!("/proc/{pid}/cmdline"))?;
    let stat = text_of(host, &format!("/proc/{pid}/stat"))?;
    // The name may contain anything, also blanks and brackets: what counts begins after the last one.
    let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    Ok(Some(Process {
        pid,
        parent: first("PPid").and_then(|value| value.parse().ok()).unwrap_or(0),
        name: name.to_string(),
        command: command.trim_end_matches('\0').replace('\0', " "),
        uid: uid.unwrap_or(u32::MAX),
        zombie: first("State") == Some("Z"),
        started: after.split(' ').nth(19).and_then(|value| value.parse().ok()).unwrap_or(0),
    }))
}
