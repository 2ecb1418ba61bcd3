//! What `strace` saw, and the order that durability asks for: a report is synced before it is acknowledged, a run before it is sent.
//! TLS hides which request is which; a report is told by its size.

use std::collections::BTreeMap;
use std::process::Command;

/// System calls that matter here, for `strace -e`.
pub const CALLS: &str =
    "openat,read,write,writev,pwrite64,pwritev,recvfrom,sendto,sendmsg,recvmsg,fsync,fdatasync,msync";

/// One system call. `started` and `ended` are its lines: calls of several threads overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments, as far as `strace` printed them.
    pub arguments: String,
    /// The file or socket of its first argument, by `strace -y`; empty where there is none.
    pub on: String,
    /// What it returned; -1 where it failed.
    pub result: i64,
    /// Line on which it started.
    pub started: usize,
    /// Line on which it ended.
    pub ended: usize,
}

/// An answer has at least so many bytes; what is smaller is a frame of the connection itself, such as a window update.
pub const ANSWER_BYTES: usize = 60;

/// A report that was taken, or a run that was sent, in order.
pub type Proven = usize;

/// Whether `strace` may trace here; says so where it may not.
pub fn is_permitted() -> bool {
    let tries = Command::new("strace").args(["-e", "trace=none", "true"]).output().expect("strace is installed");
    if !tries.status.success() {
        println!("skipped: strace may not trace here: {}", String::from_utf8_lossy(&tries.stderr));
    }
    tries.status.success()
}

/// Reads the output of `strace -f -y`. Calls come in the order in which they ended.
pub fn parse(text: &str) -> Vec<Call> {
    let mut pending: BTreeMap<&str, (String, usize)> = BTreeMap::new();
    let mut calls = Vec::new();
    for (line, (thread, rest)) in text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).enumerate() {
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            pending.insert(thread, (begun.to_owned(), line));
        } else if let Some((_, tail)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            let Some((begun, started)) = pending.remove(thread) else { continue };
            calls.extend(call(&format!("{begun}{tail}"), started, line));
        } else {
            calls.extend(call(rest, line, line));
        }
    }
    calls
}

fn call(text: &str, started: usize, ended: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let first = arguments.split(", ").next()?;
    let on = first.split_once('<').map_or("", |(_, path)| path.trim_end_matches([')', ' ', '>']));
    let digits = result.split(|c: char| c != '-' && !c.is_ascii_digit()).next()?;
    Some(Call {
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        on: on.to_owned(),
        result: digits.parse().ok()?,
        started,
        ended,
    })
}

impl Call {
    fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync" | "msync")
    }

    fn writes(&self) -> bool {
        self.name.contains("write") || self.name.starts_with("send")
    }

    fn reads(&self) -> bool {
        matches!(self.name.as_str(), "read" | "recvfrom" | "recvmsg")
    }

    fn is_on_socket(&self) -> bool {
        self.on.starts_with("socket:") || self.on.starts_with("TCP")
    }

    fn descriptor(&self) -> &str {
        self.arguments.split('<').next().unwrap_or_default()
    }
}

/// The server's side: between the last byte of each request of at least `report_bytes` and the first of its answer, the journal
/// of the database is written, and synced after its last write. How many were seen; the error says which was not.
pub fn synced_before_acknowledged(calls: &[Call], report_bytes: i64) -> Result<Proven, String> {
    // Of each socket: bytes since the last answer, and when the last of them came.
    let mut requests: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    let mut proven = 0;
    for call in calls.iter().filter(|call| call.is_on_socket() && call.result > 0) {
        if call.reads() {
            let request = requests.entry(&call.on).or_default();
            (request.0, request.1) = (request.0 + call.result, call.ended);
        } else if call.writes()
            && call.result >= ANSWER_BYTES as i64
            && let Some((bytes, read)) = requests.remove(call.on.as_str())
            && bytes >= report_bytes
        {
            is_synced(calls, "-wal", read, call.started)
                .map_err(|why| format!("the request of {bytes} bytes in line {}: {why}", read + 1))?;
            proven += 1;
        }
    }
    Ok(proven)
}

/// The agent's side: between each line of the ledger and the next request of at least `report_bytes`, the store is written, and
/// synced after its last write.
pub fn synced_before_sent(calls: &[Call], report_bytes: i64) -> Result<Proven, String> {
    let mut proven = 0;
    for run in calls.iter().filter(|call| call.writes() && call.on.ends_with("/ledger")) {
        let is_report = |call: &&Call| call.is_on_socket() && call.writes() && call.result >= report_bytes;
        let Some(report) = calls.iter().filter(is_report).find(|call| call.started > run.ended) else { continue };
        is_synced(calls, "/data.mdb", run.ended, report.started)
            .map_err(|why| format!("the run in line {}: {why}", run.started + 1))?;
        proven += 1;
    }
    Ok(proven)
}

/// Between two lines a file is written, and synced after its last write.
fn is_synced(calls: &[Call], file: &str, from: usize, to: usize) -> Result<(), String> {
    let inside = |call: &&Call| call.on.ends_with(file) && call.started > from && call.ended < to;
    // A descriptor that was opened with O_DSYNC syncs what it writes.
    let by_itself = |call: &Call| {
        let opened = |open: &&Call| open.name == "openat" && open.result.to_string() == call.descriptor();
        let last = calls.iter().filter(|open| open.ended < call.started).rfind(opened);
        last.is_some_and(|open| open.arguments.contains("SYNC"))
    };
    let written =
        calls.iter().filter(inside).filter(|call| call.writes() && !by_itself(call)).map(|call| call.ended).max();
    let Some(written) = written else { return Err(format!("nothing was written to *{file} before line {}", to + 1)) };
    let synced = calls.iter().filter(inside).any(|call| call.is_sync() && call.result == 0 && call.started > written);
    if synced { Ok(()) } else { Err(format!("*{file} was not synced before line {}", to + 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = r#"7 recvfrom(5<socket:[9]>, ""..., 4096, 0, NULL, NULL) = 900"#;
    const WRITE: &str = r#"8 pwrite64(6</x/vigo.db-wal>, ""..., 4096, 56) = 4096"#;
    const SYNC: &str = "8 fsync(6</x/vigo.db-wal>) = 0";
    const ANSWER: &str = r#"7 writev(5<socket:[9]>, [...], 1) = 81"#;

    fn check(lines: &[&str]) -> Result<usize, String> {
        synced_before_acknowledged(&parse(&lines.join("\n")), 600)
    }

    #[test]
    fn an_answer_after_the_sync_is_right() {
        assert_eq!(check(&[READ, WRITE, WRITE, SYNC, ANSWER, READ, WRITE, SYNC, ANSWER]), Ok(2));
        let update = ANSWER.replace("81", "48");
        assert_eq!(check(&[READ, &update, WRITE, SYNC, ANSWER]), Ok(1));
        let small = READ.replace("900", "100");
        assert_eq!(check(&[&small, ANSWER, READ, WRITE, SYNC, ANSWER]), Ok(1));
        let overlapping =
            ["8 fsync(6</x/vigo.db-wal> <unfinished ...>", "7 epoll_wait(3, [], 9) = 0", "8 <... fsync resumed>) = 0"];
        assert_eq!(check(&[&[READ, WRITE], &overlapping[..], &[ANSWER]].concat()), Ok(1));
    }

    #[test]
    fn an_answer_before_the_sync_is_found() {
        for wrong in [
            &[READ, ANSWER, WRITE, SYNC][..],
            &[READ, WRITE, ANSWER, SYNC],
            &[READ, SYNC, WRITE, ANSWER],
            &[WRITE, SYNC, READ, ANSWER],
            &[READ, WRITE, SYNC, WRITE, ANSWER],
            &[READ, WRITE, "8 fsync(6</x/vigo.db-wal> <unfinished ...>", ANSWER, "8 <... fsync resumed>) = 0"],
            &[READ, WRITE, "8 fsync(6</x/vigo.db-wal>) = -1 EIO (Input/output error)", ANSWER],
            &[READ, WRITE, "8 fsync(9</x/vigo.db>) = 0", ANSWER],
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_run_is_synced_before_it_is_sent() {
        let open = r#"1 openat(AT_FDCWD, "/s/data.mdb", O_WRONLY|O_DSYNC|O_CLOEXEC) = 5</s/data.mdb>"#;
        let ledger = r#"2 write(1</s/root/ledger>, ""..., 40) = 40"#;
        let page = r#"3 pwrite64(4</s/data.mdb>, ""..., 4096, 8192) = 4096"#;
        let sync = "3 fdatasync(4</s/data.mdb>) = 0";
        let meta = r#"3 pwrite64(5</s/data.mdb>, ""..., 120, 32) = 120"#;
        let send = "1 writev(9<socket:[5]>, [...], 1) = 1000";
        let check = |lines: &[&str]| synced_before_sent(&parse(&lines.join("\n")), 600);
        assert_eq!(check(&[open, ledger, page, sync, meta, send]), Ok(1));
        for wrong in [
            &[open, ledger, send, page, sync, meta][..],
            &[open, ledger, page, meta, send, sync],
            &[open, page, sync, meta, ledger, send],
            &[open, ledger, meta, send],
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
