//! One envoy in memory, and the pure rules for its status.

use common::crypto::PublicKey;
use common::ids::{Hash32, Uuid};
use common::limits;
use common::outcome::{Counts, Status};
use common::proto::Enrolled;
use common::time::{Mono, Wall};

use crate::store::{EnvoyRow, Sighting};

/// What status rules need to know of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Now.
    pub now: Mono,
    /// After a restore nobody counts as plainly offline before this.
    pub restore_until: Mono,
    /// Check-in interval, the least cadence that is assumed.
    pub interval_ms: u64,
}

/// An envoy as the loop sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Identity.
    pub uuid: Uuid,
    /// Host name, lower case.
    pub hostname: Box<str>,
    /// Ed25519 identity.
    pub public_key: PublicKey,
    /// X25519 key that its secrets are sealed to.
    pub sealing_key: [u8; 32],
    /// Standing.
    pub state: Enrolled,
    /// Status of its newest run.
    pub status: Status,
    /// Counts of its newest run.
    pub counts: Counts,
    /// Serial at enrollment; orders two envoys with one name.
    pub enrolled_serial: u64,
    /// Serial of its current assignment.
    pub assigned_serial: u64,
    /// Bundle of its current assignment.
    pub bundle: Option<Hash32>,
    /// Highest contiguous sequence stored, by lane.
    pub watermark: [u64; 2],
    /// Link at the watermark, by lane.
    pub link: [Hash32; 2],
    /// Short hash over the stable trait trees stored.
    pub trait_hash: u64,
    /// Server time of the last sighting, for people.
    pub last_seen: Wall,
    /// The same for rules; the start of the server where it was not seen since.
    pub seen: Mono,
    /// Seen since the server started.
    pub seen_since_start: bool,
    /// Smoothed time between check-ins, milliseconds; 0 = unknown.
    pub cadence_ms: u32,
    /// Boot id of the last and the one before it, hashed: A, B, A means two hosts.
    pub boots: [u64; 2],
    /// Text of the last boot id, for the database.
    pub boot_id: Box<str>,
    /// As the agent last said.
    pub agent_version: Box<str>,
    /// Something to flush to the database.
    pub dirty: bool,
    /// A slot that overload control promised: admitted without charge from then on.
    pub reserved: Option<Mono>,
    /// The last answer was "keep what you have".
    pub kept_cached: bool,
    /// Waiting records by its heartbeat, by lane.
    pub queued: [u32; 2],
}

impl Entry {
    /// From the database.
    pub fn from_row(row: &EnvoyRow, start: Mono) -> Entry {
        Entry {
            uuid: row.uuid,
            hostname: row.hostname.as_str().into(),
            public_key: row.public_key,
            sealing_key: row.sealing_key,
            state: row.state,
            status: row.status,
            counts: row.counts,
            enrolled_serial: row.enrolled_serial,
            assigned_serial: row.assigned_serial,
            bundle: row.bundle,
            watermark: row.watermark,
            link: row.link,
            trait_hash: row.trait_hash,
            last_seen: row.last_seen,
            seen: start,
            seen_since_start: false,
            cadence_ms: 0,
            boots: [boot_hash(&row.boot_id), 0],
            boot_id: row.boot_id.as_str().into(),
            agent_version: row.agent_version.as_str().into(),
            dirty: false,
            reserved: None,
            kept_cached: false,
            queued: [0; 2],
        }
    }

    /// Whether it is let in at all.
    pub fn may_connect(&self) -> bool {
        self.state != Enrolled::Revoked
    }

    /// Notes a sighting.
    pub fn touch(&mut self, now: Mono, wall: Wall) {
        if self.seen_since_start {
            let gap = u32::try_from(now.since(self.seen)).unwrap_or(u32::MAX);
            // An eighth of the new gap: one late check-in does not redefine the cadence. Gaps under a tenth of a second are
            // retries within one check-in, not a cadence.
            self.cadence_ms = match self.cadence_ms {
                _ if gap < 100 => self.cadence_ms,
                0 => gap,
                known => known - known / 8 + gap / 8,
            };
        }
        (self.seen, self.last_seen, self.seen_since_start, self.dirty) = (now, wall, true, true);
    }

    /// Notes a boot id; true when the one before the last came back while another was in between: two hosts.
    pub fn saw_boot(&mut self, boot_id: &str) -> bool {
        let hash = boot_hash(boot_id);
        if hash == self.boots[0] || boot_id.is_empty() {
            return false;
        }
        let alternates = self.boots[1] == hash && self.boots[0] != 0;
        self.boots = [hash, self.boots[0]];
        self.boot_id = boot_id.into();
        alternates
    }

    /// Whether it has been silent for 2.5 times its cadence.
    pub fn offline(&self, clocks: &Clocks) -> bool {
        let cadence = u64::from(self.cadence_ms).max(clocks.interval_ms);
        clocks.now.since(self.seen) * 10 > cadence * limits::OFFLINE_CADENCE_TENTHS
    }

    /// The one status to show, by precedence.
    pub fn status(&self, clocks: &Clocks) -> Status {
        match self.state {
            Enrolled::Duplicate => Status::Duplicate,
            Enrolled::Review => Status::Review,
            _ if self.offline(clocks) => Status::Offline,
            _ => self.status,
        }
    }

    /// `offline` with the reason that it means little yet.
    pub fn status_text(&self, clocks: &Clocks) -> &'static str {
        match self.status(clocks) {
            Status::Offline if clocks.now < clocks.restore_until => "offline (since restore)",
            status => status.name(),
        }
    }

    /// What the database should know of the last sightings.
    pub fn sighting(&self) -> Sighting {
        Sighting {
            uuid: self.uuid,
            at: self.last_seen,
            status: self.status,
            counts: self.counts,
            boot_id: self.boot_id.to_string(),
            agent_version: self.agent_version.to_string(),
        }
    }
}

/// A short hash; 0 is kept for "none".
fn boot_hash(boot_id: &str) -> u64 {
    if boot_id.is_empty() { 0 } else { common::crypto::sha256(&[boot_id.as_bytes()]).short().max(1) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::crypto::SigningKey;

    /// A row for tests.
    pub(crate) fn row(n: u8, hostname: &str) -> EnvoyRow {
        EnvoyRow {
            uuid: Uuid::from_bytes([n; 16]),
            hostname: hostname.into(),
            public_key: SigningKey::from_seed([n; 32]).public(),
            sealing_key: [n; 32],
            state: Enrolled::Active,
            machine_id: String::new(),
            agent_version: "0.1.0".into(),
            os: "linux".into(),
            arch: "x86_64".into(),
            enrolled_at: Wall(0),
            enrolled_serial: 0,
            assigned_serial: 0,
            bundle: None,
            last_seen: Wall(0),
            status: Status::Nodata,
            counts: Counts::default(),
            watermark: [0; 2],
            link: [Hash32::ZERO; 2],
            trait_hash: 0,
            boot_id: String::new(),
        }
    }

    fn clocks(now: u64) -> Clocks {
        Clocks { now: Mono(now), restore_until: Mono(0), interval_ms: 1_000 }
    }

    #[test]
    fn silence_of_two_and_a_half_cadences_is_offline() {
        let mut entry = Entry::from_row(&row(1, "a"), Mono(0));
        entry.touch(Mono(1_000), Wall(1));
        assert_eq!(entry.status(&clocks(3_500)), Status::Nodata);
        assert_eq!(entry.status(&clocks(3_501)), Status::Offline);
    }

    #[test]
    fn the_observed_cadence_counts_not_only_the_interval() {
        let mut entry = Entry::from_row(&row(1, "a"), Mono(0));
        for at in [0, 10_000, 20_000, 30_000] {
            entry.touch(Mono(at), Wall(1));
        }
        assert_eq!(entry.status(&clocks(30_000 + 25_000)), Status::Nodata);
        assert_eq!(entry.status(&clocks(30_000 + 25_001)), Status::Offline);
    }

    #[test]
    fn a_server_that_was_down_makes_nobody_stale() {
        let entry = Entry::from_row(&row(1, "a"), Mono(1_000_000));
        assert!(!entry.offline(&clocks(1_000_100)));
    }

    #[test]
    fn alternating_boot_ids_are_two_hosts() {
        let mut entry = Entry::from_row(&row(1, "a"), Mono(0));
        let seen: Vec<bool> = ["x", "x", "y", "y", "z", "y"].iter().map(|boot| entry.saw_boot(boot)).collect();
        assert_eq!(seen, [false, false, false, false, false, true]);
    }

    #[test]
    fn after_a_restore_offline_says_so() {
        let entry = Entry::from_row(&row(1, "a"), Mono(0));
        let clocks = Clocks { restore_until: Mono(10_000), ..clocks(9_000) };
        assert_eq!(entry.status_text(&clocks), "offline (since restore)");
        let later = Clocks { now: Mono(10_000), ..clocks };
        assert_eq!(entry.status_text(&later), "offline");
    }
}
