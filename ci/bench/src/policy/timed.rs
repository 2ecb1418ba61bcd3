//! One command, its time and its memory. The command is started by a small process of its own, because the kernel counts the memory
//! of whoever forks to the peak of the child.

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

/// What a command took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From the start of the process to its end, milliseconds.
    pub wall_ms: f64,
    /// Processor time of it, milliseconds.
    pub cpu_ms: f64,
    /// Most that was ever resident, KiB.
    pub peak_kib: u64,
}

/// Runs a command through this very program, which must hand the arguments behind `timed` to [`run_here`].
pub fn timed(command: &[&str]) -> Result<Took, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let done = Command::new(own).arg("timed").args(command).stderr(Stdio::piped()).output();
    let done = done.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&done.stdout);
    let words: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match (done.status.success(), &words[..]) {
        (true, &[wall_ms, cpu_ms, peak]) => Ok(Took { wall_ms, cpu_ms, peak_kib: peak as u64 }),
        _ => Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&done.stderr))),
    }
}

/// The small process: starts the command, waits, and prints three numbers.
#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub fn run_here(command: &[String]) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else { return ExitCode::from(64) };
    let from = Instant::now();
    let done = Command::new(program).args(arguments).stdout(Stdio::null()).status();
    let wall = from.elapsed();
    let (Ok(status), Ok(usage)) = (done, getrusage(UsageWho::RUSAGE_CHILDREN)) else { return ExitCode::FAILURE };
    let ms = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    let cpu = ms(usage.user_time()) + ms(usage.system_time());
    let printed = writeln!(std::io::stdout(), "{} {cpu} {}", wall.as_secs_f64() * 1e3, usage.max_rss());
    if status.success() && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
