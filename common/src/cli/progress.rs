//! How far something long is: a line on stderr that renews itself, on a terminal only, and not before a second has passed.

use std::io::{IsTerminal, Write};

use crate::sys::Clock;
use crate::time::Mono;
use crate::units::{human_bytes, human_duration};

/// Before this nothing is shown.
const QUIET_MS: u64 = 1_000;
/// Between two lines.
const STEP_MS: u64 = 200;

/// Bytes of a whole.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    clock: Clock,
    from: Mono,
    next: Mono,
    shown: bool,
    terminal: bool,
}

impl Progress {
    /// Starts now.
    pub fn new(what: &'static str) -> Progress {
        let clock = Clock::system();
        let from = clock.now().mono;
        Progress { what, clock, from, next: from + QUIET_MS, shown: false, terminal: std::io::stderr().is_terminal() }
    }

    /// So much of so much is done.
    pub fn show(&mut self, done: u64, total: u64) {
        if !self.terminal {
            return;
        }
        let now = self.clock.now().mono;
        if now < self.next {
            return;
        }
        self.next = now + STEP_MS;
        self.shown = true;
        // It is gone with the terminal.
        let _ = write!(std::io::stderr(), "\r\x1b[K{}", line(self.what, done, total, now.since(self.from)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: u64, ms: u64) -> String {
    let percent = done.saturating_mul(100) / total.max(1);
    let rate = done.saturating_mul(1_000) / ms.max(1);
    let left = total.saturating_sub(done).saturating_mul(1_000) / rate.max(1);
    let (done, total, rate) = (human_bytes(done), human_bytes(total), human_bytes(rate));
    format!("{what} {percent:>3} %  {done} of {total}, {rate}/s, {} left", human_duration(left / 1_000 * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_how_fast_and_how_long() {
        let text = line("archiving", 50 << 20, 200 << 20, 5_000);
        assert!(text.starts_with("archiving  25 %") && text.ends_with("15s left"), "{text}");
        assert!(line("x", 0, 0, 0).contains("0 %"));
    }
}
