//! The thread that looks after Litestream: whose replica it is, the process, its log, how far it is; and at the end, that the last write
//! is in the replica.
//!
//! Must not: stop the server. A replica that cannot be reached, or is another's, is said loudly and tried again; meanwhile the store
//! copies its WAL back by itself, lest it grow without bound.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::limits;
use common::log::Level;
use common::sys::Clock;
use common::sys::logger::Logger;
use common::time::Mono;
use nix::sys::signal::Signal;

use super::owner::{Found, Ownership};
use super::program::{Patience, Program};
use super::state::{Stage, Watch};
use super::text::FLUSH_SECONDS;
use super::{Identity, ReplicaError, Site, control};
use crate::store::Gauges;
use crate::sys::child::Beside;

/// Between two looks at the child and at a wish to stop, milliseconds.
const LOOK_MS: u16 = 100;
/// Between two questions how far it is, milliseconds.
const SYNC_LOOK_MS: u64 = 1_000;
/// Between two looks at what it keeps beside the database, milliseconds.
const KEPT_LOOK_MS: u64 = 30_000;
/// Between two looks whose replica it is, while it is ours and while it is not, milliseconds.
const OWNER_LOOK_MS: u64 = 5 * 60_000;
const REFUSED_LOOK_MS: u64 = 30_000;
/// The first wait before a new start, and the longest, milliseconds.
const RESTART_FIRST_MS: u64 = 1_000;
const RESTART_MAX_MS: u64 = 60_000;
/// A child that ran so long did not fail at its start, milliseconds.
const STEADY_MS: u64 = 60_000;
/// From TERM to KILL, milliseconds: its own patience, and some more.
const END_MS: u64 = (FLUSH_SECONDS + 10) * 1_000;
/// How long a single upload at the end may take, and a question for the version, milliseconds.
const ONCE_MS: u64 = FLUSH_SECONDS * 1_000;

/// What the thread is started with.
pub struct Start {
    /// What is replicated, and where to.
    pub site: Site,
    /// Whose it may be.
    pub identity: Identity,
    /// The program.
    pub program: Program,
    /// Take the replica over, whoever's it is.
    pub take_over: bool,
    /// Who copies the WAL back, and how long it is.
    pub gauges: Gauges,
    /// Where the state is shown.
    pub watch: Watch,
    /// Clocks.
    pub clock: Clock,
    /// Where lines go.
    pub logger: Logger,
}

/// The thread.
pub struct Supervisor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the thread.
    pub fn start(start: Start) -> std::io::Result<Supervisor> {
        let stop = Arc::new(AtomicBool::new(false));
        let inside = stop.clone();
        let thread = std::thread::Builder::new()
            .name("litestream".into())
            .spawn(move || Keeper { start, stop: inside, restarts: 0, warned: false }.keep())?;
        Ok(Supervisor { stop, thread: Some(thread) })
    }

    /// Lets Litestream upload what is written, and waits for its end. To be called after the last write, while the database is still
    /// open somewhere.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

struct Keeper {
    start: Start,
    stop: Arc<AtomicBool>,
    /// Failed starts in a row.
    restarts: u32,
    /// It was said that the WAL grows.
    warned: bool,
}

/// Why the child is no longer there.
enum Ended {
    /// By itself, after so many milliseconds.
    Alone(String, u64),
    /// The replica is another's now.
    Taken,
    /// It was to.
    Stopped,
}

impl Keeper {
    fn keep(mut self) {
        if let Some(version) = self.start.program.too_old(&self.patience(ONCE_MS)) {
            let trouble = format!("litestream {version} is too old: nothing is replicated; install 0.5 or newer");
            return self.give_up(trouble);
        }
        if let Err(error) = self.start.site.write_main_yml() {
            return self.give_up(format!("nothing is replicated: {error}"));
        }
        let mut owned = false;
        while !self.stopping() {
            match self.own() {
                Ok(true) => owned = true,
                Ok(false) => {
                    owned = false;
                    self.wait(REFUSED_LOOK_MS);
                    continue;
                }
                // What was ours a moment ago is ours still, as far as one can know.
                Err(_) if owned => {}
                Err(error) => {
                    self.trouble(Stage::Waiting, &format!("the replica cannot be used: {error}"));
                    self.back_off();
                    continue;
                }
            }
            if self.stopping() {
                break;
            }
            match self.run() {
                Ended::Stopped => return,
                Ended::Taken => {}
                Ended::Alone(how, ms) => {
                    if ms >= STEADY_MS {
                        self.restarts = 0;
                    }
                    self.start.watch.change(|state| state.restarts += 1);
                    self.trouble(Stage::Waiting, &format!("litestream has ended ({how}) and is started again"));
                    self.back_off();
                }
            }
        }
        if owned {
            self.flush_once();
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn say(&self, level: Level, line: &str) {
        self.start.logger.line(self.start.clock.now().wall, level, line);
    }

    fn patience(&self, ms: u64) -> Patience<'_> {
        Patience { clock: &self.start.clock, ms, stop: &|| false }
    }

    /// Says it once, and keeps it for `status`.
    fn trouble(&self, stage: Stage, trouble: &str) {
        if self.start.watch.now().trouble != trouble {
            self.say(Level::Error, trouble);
        }
        self.start.watch.change(|state| {
            state.stage = stage;
            state.trouble = trouble.to_string();
        });
    }

    fn give_up(&self, trouble: String) {
        self.trouble(Stage::Missing, &trouble);
        self.start.gauges.leave_checkpoints(false);
    }

    /// Whether the replica is ours; what is nobody's is claimed, and what is another's is so only by order.
    fn own(&mut self) -> Result<bool, ReplicaError> {
        let Start { site, identity, program, clock, .. } = &self.start;
        let stop = || self.stopping();
        let ownership = Ownership { site, identity, program, clock, stop: &stop };
        match ownership.look()? {
            Found::Ours => {}
            Found::Nobody => ownership.claim()?,
            Found::Other(_) if self.start.take_over => {
                ownership.claim()?;
                self.say(Level::Warn, &format!("took over the replica {}", site.replica.url));
                self.start.take_over = false;
            }
            Found::Other(marker) => {
                let whose = if marker.server_id == identity.server_id {
                    "another installation of this server".to_string()
                } else {
                    format!("server {}", marker.server_id)
                };
                let trouble = format!(
                    "the replica {} belongs to {whose} (host {}, since {}): nothing is replicated; write another `backup.url`, or, \
                     if that one is gone for good, start once with `vigosrv serve --take-over`",
                    site.replica.url, marker.host, marker.at
                );
                self.trouble(Stage::Refused, &trouble);
                self.start.gauges.leave_checkpoints(false);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs Litestream until it ends or is to end.
    fn run(&mut self) -> Ended {
        self.start.gauges.leave_checkpoints(true);
        self.warned = false;
        let Start { site, program, clock, watch, gauges, .. } = &self.start;
        let yml = site.yml_path().display().to_string();
        let mut command = program.command(&["replicate", "-config", &yml, "-no-expand-env"]);
        let from = clock.now().mono;
        let mut child = match Beside::start(&mut command) {
            Ok(child) => child,
            Err(error) => return Ended::Alone(error.to_string(), 0),
        };
        self.say(Level::Info, &format!("litestream (pid {}) replicates to {}", child.id(), site.replica.url));
        watch.change(|state| {
            state.stage = Stage::Replicating;
            state.trouble.clear();
        });
        let (mut synced_at, mut kept_at, mut owner_at) = (from, from, from + OWNER_LOOK_MS);
        loop {
            match child.serve(LOOK_MS, &mut |line| self.pass_on(line)) {
                Ok(None) => {}
                Ok(Some(status)) => return Ended::Alone(how(status), clock.now().mono.since(from)),
                Err(error) => return Ended::Alone(error.to_string(), clock.now().mono.since(from)),
            }
            if self.stopping() {
                self.end(&mut child);
                return Ended::Stopped;
            }
            let now = clock.now().mono;
            if now.since(synced_at) >= SYNC_LOOK_MS {
                synced_at = now;
                if let Some(at) = control::last_sync(&site.socket()) {
                    watch.change(|state| state.synced = Some(at));
                }
                if gauges.wal_bytes() >= limits::WAL_EMERGENCY_BYTES && !self.warned {
                    self.warned = true;
                    let text = "litestream does not copy the write-ahead log back: it has grown to a gigabyte";
                    self.trouble(Stage::Replicating, text);
                }
            }
            if now >= kept_at {
                kept_at = now + KEPT_LOOK_MS;
                let bytes = site.kept_bytes();
                watch.change(|state| state.kept_bytes = bytes);
            }
            if now >= owner_at {
                owner_at = now + OWNER_LOOK_MS;
                let Start { site, identity, program, clock, .. } = &self.start;
                let stop = || self.stopping();
                let ownership = Ownership { site, identity, program, clock, stop: &stop };
                if matches!(ownership.look(), Ok(Found::Other(_))) {
                    // Without a last upload: it would go into what is no longer ours.
                    let _ = child.kill();
                    return Ended::Taken;
                }
            }
        }
    }

    /// TERM: it uploads what there is, and ends.
    fn end(&self, child: &mut Beside) {
        child.signal(Signal::SIGTERM);
        let until = self.start.clock.now().mono + END_MS;
        loop {
            match child.serve(LOOK_MS, &mut |line| self.pass_on(line)) {
                Ok(None) if self.start.clock.now().mono < until => {}
                Ok(Some(status)) if status.success() => {
                    return self.say(Level::Info, "litestream has uploaded everything and ended");
                }
                Ok(Some(status)) => {
                    let text = format!("litestream ended ({}): the last writes may not be in the replica", how(status));
                    return self.say(Level::Error, &text);
                }
                _ => {
                    let _ = child.kill();
                    return self.say(Level::Error, "litestream did not end: the last writes may not be in the replica");
                }
            }
        }
    }

    /// At the end, where no child runs that would do it.
    fn flush_once(&self) {
        let yml = self.start.site.yml_path().display().to_string();
        let words = ["replicate", "-once", "-config", &yml, "-no-expand-env"];
        match self.start.program.run(&words, &self.patience(ONCE_MS)) {
            Ok(_) => self.say(Level::Info, "litestream has uploaded everything"),
            Err(error) => self.say(Level::Error, &format!("the last writes are not in the replica: {error}")),
        }
    }

    fn back_off(&mut self) {
        let wait = RESTART_FIRST_MS.checked_shl(self.restarts.min(16)).unwrap_or(RESTART_MAX_MS).min(RESTART_MAX_MS);
        self.restarts = self.restarts.saturating_add(1);
        self.wait(wait);
    }

    /// Waits, or until it is to stop. A WAL that grows meanwhile is taken back by the store: the price is a new snapshot later.
    fn wait(&self, ms: u64) {
        let until: Mono = self.start.clock.now().mono + ms;
        while !self.stopping() {
            let left = until.since(self.start.clock.now().mono);
            if left == 0 {
                return;
            }
            if self.start.gauges.wal_bytes() >= limits::WAL_UNREPLICATED_BYTES {
                self.start.gauges.leave_checkpoints(false);
            }
            std::thread::park_timeout(Duration::from_millis(left.min(SYNC_LOOK_MS)));
        }
    }

    /// A line of its log in ours.
    fn pass_on(&self, line: &str) {
        let (level, text) = translate(line);
        if level == Level::Error {
            self.start.watch.change(|state| state.errors += 1);
        }
        self.say(level, &format!("litestream: {text}"));
    }
}

/// Level and text of a line of Litestream's: `time=... level=INFO msg=...`.
fn translate(line: &str) -> (Level, &str) {
    let Some((_, rest)) = line.split_once("level=").filter(|_| line.starts_with("time=")) else {
        return (Level::Warn, line);
    };
    let (level, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let level = match level {
        "ERROR" => Level::Error,
        "WARN" => Level::Warn,
        // Once for every upload.
        "INFO" if text.contains("replica sync") => Level::Debug,
        "INFO" => Level::Info,
        _ => Level::Debug,
    };
    (level, text)
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_litestream_keep_their_level_and_lose_their_time() {
        let line = "time=2026-11-21T22:54:29.319Z level=ERROR msg=\"monitor error\" db=vigo.db";
        assert_eq!(translate(line), (Level::Error, "msg=\"monitor error\" db=vigo.db"));
        let line = "time=2026-11-21T22:54:29.319Z level=INFO msg=\"replica sync\"";
        assert_eq!(translate(line).0, Level::Debug);
        assert_eq!(translate("panic: level=INFO"), (Level::Warn, "panic: level=INFO"));
    }
}
