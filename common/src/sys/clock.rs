//! The two clocks, read together, and the test clock that scales and shifts them.
//!
//! The only place of the product that reads a clock. Static binaries cannot be faked from outside, so the test clock is
//! always compiled in; the agent honours it only where its configuration says `test_clock: allow`.

#![allow(clippy::disallowed_methods, reason = "the one place that reads clocks and waits")]

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::time::{Mono, Now, Wall};
use crate::units::duration_ms;

/// Reads time.
#[derive(Clone, Debug)]
pub struct Clock {
    test: Option<Running>,
}

/// What a test wants time to look like. Text form, parts joined by commas:
/// `scale=60,mono=+5d,wall=1970-01-01T00:00:00Z,jump=10s:-3650d`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestClock {
    /// Both clocks run this many times faster; 0 counts as 1.
    pub scale: u32,
    /// Added to the monotonic clock, in milliseconds.
    pub mono_offset_ms: u64,
    /// What the wall clock shows when the process starts.
    pub wall: WallShift,
    /// Jumps of the wall clock: (milliseconds of test time since the start, where to).
    pub jumps: Vec<(u64, WallShift)>,
}

/// How the wall clock is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallShift {
    /// By this many milliseconds.
    By(i64),
    /// To this moment.
    To(Wall),
}

#[derive(Clone, Debug)]
struct Running {
    clock: TestClock,
    started_mono_ms: u64,
    started_wall_ms: i64,
}

impl Default for WallShift {
    fn default() -> WallShift {
        WallShift::By(0)
    }
}

impl Clock {
    /// The host's clocks.
    pub fn system() -> Clock {
        Clock { test: None }
    }

    /// Test time, starting now.
    pub fn test(clock: TestClock) -> Clock {
        Clock { test: Some(Running { clock, started_mono_ms: mono_ms(), started_wall_ms: wall_ms() }) }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        match &self.test {
            None => Now { mono: Mono(mono_ms()), wall: Wall(wall_ms()) },
            Some(running) => running.at(mono_ms()),
        }
    }

    /// How long to really wait for this many milliseconds of this clock to pass; never shorter than they take.
    pub fn real(&self, ms: u64) -> Duration {
        Duration::from_millis(ms.div_ceil(self.test.as_ref().map_or(1, |running| running.clock.rate())))
    }

    /// Waits. For command line tools that poll; the loops have deadlines instead.
    pub fn pause(&self, ms: u64) {
        std::thread::sleep(self.real(ms));
    }
}

impl TestClock {
    /// From its text form. The error is a sentence for people.
    pub fn parse(text: &str) -> Result<TestClock, String> {
        let mut clock = TestClock { scale: 1, ..TestClock::default() };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "scale" => match value.parse() {
                    Ok(scale @ 1..=100_000) => clock.scale = scale,
                    _ => return Err(format!("test clock: scale `{value}` is not a whole number from 1 to 100000")),
                },
                "mono" => clock.mono_offset_ms = duration_ms(value.strip_prefix('+').unwrap_or(value))?,
                "wall" => clock.wall = WallShift::parse(value)?,
                "jump" => {
                    let (after, shift) = value.split_once(':').unwrap_or((value, ""));
                    clock.jumps.push((duration_ms(after)?, WallShift::parse(shift)?));
                }
                _ => return Err(format!("test clock: unknown part `{part}`; expected scale=, mono=, wall= or jump=")),
            }
        }
        clock.jumps.sort_by_key(|(after, _)| *after);
        Ok(clock)
    }

    fn rate(&self) -> u64 {
        u64::from(self.scale.max(1))
    }
}

impl WallShift {
    fn parse(text: &str) -> Result<WallShift, String> {
        let signed = |digits, sign: i64| duration_ms(digits).map(|ms| WallShift::By(sign * ms as i64));
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(digits), _) => signed(digits, 1),
            (_, Some(digits)) => signed(digits, -1),
            _ => Wall::parse(text).map(WallShift::To),
        }
    }

    fn apply(self, wall_ms: i64) -> i64 {
        match self {
            WallShift::By(ms) => wall_ms.saturating_add(ms),
            WallShift::To(wall) => wall.0,
        }
    }
}

impl Running {
    fn at(&self, real_mono_ms: u64) -> Now {
        // The monotonic clock is scaled from boot, not from the start of this process: two processes one after the other
        // see it go on.
        let mono = Mono(real_mono_ms.saturating_mul(self.clock.rate()).saturating_add(self.clock.mono_offset_ms));
        let elapsed = real_mono_ms.saturating_sub(self.started_mono_ms).saturating_mul(self.clock.rate());
        let (mut wall, mut from) = (self.clock.wall.apply(self.started_wall_ms), 0);
        for (after, shift) in self.clock.jumps.iter().take_while(|(after, _)| *after <= elapsed) {
            wall = shift.apply(wall.saturating_add_unsigned(after - from));
            from = *after;
        }
        Now { mono, wall: Wall(wall.saturating_add_unsigned(elapsed - from)) }
    }
}

/// Milliseconds of CLOCK_BOOTTIME: it counts through suspend and never jumps. Old kernels of containers without it get
/// CLOCK_MONOTONIC.
fn mono_ms() -> u64 {
    let spec = clock_gettime(ClockId::CLOCK_BOOTTIME).or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    spec.map_or(0, |spec| Duration::from(spec).as_millis() as u64)
}

fn wall_ms() -> i64 {
    // Before 1970 a duration cannot say it: the distance backwards instead.
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => after.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(text: &str) -> Running {
        Running { clock: TestClock::parse(text).unwrap(), started_mono_ms: 1_000, started_wall_ms: 1_000_000 }
    }

    #[test]
    fn the_test_clock_scales_both_clocks() {
        let now = running("scale=60").at(2_000);
        assert_eq!(now, Now { mono: Mono(120_000), wall: Wall(1_060_000) });
        assert_eq!(Clock::test(TestClock::parse("scale=60").unwrap()).real(90_001), Duration::from_millis(1_501));
    }

    #[test]
    fn the_wall_clock_starts_where_it_is_told_and_jumps() {
        let running = running("wall=1970-01-01,jump=5s:+10s,jump=10s:2100-01-01T00:00:00Z,mono=+1s");
        assert_eq!(running.at(1_000), Now { mono: Mono(2_000), wall: Wall(0) });
        assert_eq!(running.at(5_999).wall, Wall(4_999));
        assert_eq!(running.at(6_000).wall, Wall(15_000));
        assert_eq!(running.at(11_500).wall, Wall(4_102_444_800_500));
        assert_eq!(running.at(11_500).mono, Mono(12_500));
    }

    #[test]
    fn wrong_descriptions_are_refused() {
        for bad in ["scale=0", "scale=x", "wall=yesterday", "jump=5s", "jump=x:+1s", "speed=3", "mono=-1s"] {
            assert!(TestClock::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(TestClock::parse("").unwrap().rate(), 1);
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let clock = Clock::system();
        let (first, second) = (clock.now(), clock.now());
        assert!(second.mono >= first.mono && first.mono > Mono(0) && first.wall > Wall(0));
    }
}
