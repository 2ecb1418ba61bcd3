//! The pauses between an agent's attempts, seen by a listener in its server's place.

#![allow(clippy::disallowed_methods, reason = "the pauses of a real process are seen in real time")]

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a busy machine may add to a pause or, where the attempt before it was seen late, take from it: real time.
pub const SLACK: Duration = Duration::from_millis(60);
/// How much later than due an attempt may be seen: real time.
pub const LATE: Duration = Duration::from_secs(1);
/// Calls that wait to be looked at.
const CALLS_MAX: usize = 1_024;
/// Takes the place of a server: notes when somebody calls, and hangs up.
#[derive(Debug)]
pub struct Deaf {
    calls: Receiver<Instant>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Deaf {
    /// On this port, which the server had.
    pub fn listen(port: u16) -> Deaf {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("loopback");
        let (sender, calls) = sync_channel(CALLS_MAX);
        let thread = std::thread::spawn(move || {
            for call in listener.incoming() {
                drop(call);
                // The test is over, or wants the port back.
                if sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Deaf { calls, port, thread: Some(thread) }
    }

    /// When it is called next.
    pub fn next(&self) -> Instant {
        self.calls.recv_timeout(Duration::from_secs(60)).expect("the agent tries again")
    }

    /// The next so many pauses, from this attempt on.
    pub fn pauses(&self, mut last: Instant, n: usize) -> Vec<Duration> {
        let mut pauses = Vec::new();
        for _ in 0..n {
            let call = self.next();
            pauses.push(call - last);
            last = call;
        }
        pauses
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let (_, gone) = sync_channel(CALLS_MAX);
        self.calls = gone;
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
    }
}

/// Checks one pause against its nominal length, on a clock that runs `scale` times faster.
pub fn check_pause(pause: Duration, nominal_s: f64, scale: u32) {
    let (least, most) = bounds(nominal_s, scale);
    assert!(pause_fits(pause, nominal_s, scale), "{pause:?} is not {least:?} to {most:?}, for {nominal_s} s");
}

/// Whether a pause may be of this nominal length.
pub fn pause_fits(pause: Duration, nominal_s: f64, scale: u32) -> bool {
    let (least, most) = bounds(nominal_s, scale);
    pause >= least && pause <= most
}

fn bounds(nominal_s: f64, scale: u32) -> (Duration, Duration) {
    let scaled = |seconds: f64| Duration::from_secs_f64(seconds / f64::from(scale));
    (scaled(nominal_s * 0.8).saturating_sub(SLACK), scaled((nominal_s * 1.2).min(300.0)) + LATE)
}
