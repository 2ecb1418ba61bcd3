//! What the server's time is, as far as this envoy can know: the highest that a server ever stated over an authenticated
//! channel, plus monotonic time since. It never goes back, whatever the host's clock does, so nothing that ran out is revived.

use common::time::Mono;

/// Server time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerClock {
    /// Highest server time known, in milliseconds since 1970.
    floor_ms: u64,
    /// When that was, on our clock.
    at: Mono,
    /// Host clock minus server time when a server last spoke.
    skew_ms: Option<i64>,
}

impl ServerClock {
    /// Begins at a time that has certainly passed: when this binary was built, or what was stored.
    pub fn new(floor_ms: u64, now: Mono) -> ServerClock {
        ServerClock { floor_ms, at: now, skew_ms: None }
    }

    /// Server time in milliseconds: at least this late.
    pub fn now_ms(&self, now: Mono) -> u64 {
        self.floor_ms.saturating_add(now.since(self.at))
    }

    /// A server stated its time over an authenticated channel.
    pub fn learn(&mut self, server_ms: u64, now: common::time::Now) {
        self.skew_ms = Some(now.wall.0.saturating_sub(i64::try_from(server_ms).unwrap_or(i64::MAX)));
        if server_ms > self.now_ms(now.mono) {
            (self.floor_ms, self.at) = (server_ms, now.mono);
        }
    }

    /// Host clock minus server time when a server last spoke.
    pub fn skew_ms(&self) -> Option<i64> {
        self.skew_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::time::{Now, Wall};

    #[test]
    fn server_time_never_goes_back() {
        let mut clock = ServerClock::new(1_000, Mono(50));
        assert_eq!(clock.now_ms(Mono(60)), 1_010);
        clock.learn(5_000, Now { mono: Mono(60), wall: Wall(-1) });
        clock.learn(10, Now { mono: Mono(70), wall: Wall(0) });
        assert_eq!((clock.now_ms(Mono(70)), clock.skew_ms()), (5_010, Some(-10)));
    }
}
