//! What can break. A seed enables about half of the kinds and draws moments for each.

use common::rng::Rng;
use common::time::Mono;

/// A kind of fault. Every kind must have happened in at least a tenth of the seeds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A connection breaks; what is in flight is lost, in either direction.
    Drop,
    /// Messages take seconds.
    Delay,
    /// A host cannot reach the server for minutes.
    Partition,
    /// An agent dies at any effect.
    AgentCrash,
    /// An agent is told to execute its program anew; often that fails.
    Renewal,
    /// A host reboots: a new boot id, monotonic time from zero.
    Reboot,
    /// The server dies at any effect.
    ServerCrash,
    /// A commit reaches the disk, but the process dies before it learns so.
    LostAcknowledgement,
    /// An agent's disk is full.
    AgentDiskFull,
    /// The server's disk is full.
    ServerDiskFull,
    /// A host's wall clock jumps by years.
    ClockJump,
    /// The server's database is replaced by an older copy, and the operator says so.
    Restore,
    /// The same by a snapshot of the whole root: nobody says so.
    SilentRestore,
    /// Bytes of a cached bundle or assignment change while the agent is down.
    SlotDamage,
    /// An agent's queue is tiny: it must drop.
    TinyQueue,
    /// Hosts enroll late: an older copy of the database does not know them.
    LateEnroll,
    /// Policy is published during the run.
    Publish,
    /// Nothing is published for a while after a restart: KeepCached.
    Unpublished,
    /// Overload control sends agents away.
    Overload,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 19] = [
        Kind::Drop,
        Kind::Delay,
        Kind::Partition,
        Kind::AgentCrash,
        Kind::Renewal,
        Kind::Reboot,
        Kind::ServerCrash,
        Kind::LostAcknowledgement,
        Kind::AgentDiskFull,
        Kind::ServerDiskFull,
        Kind::ClockJump,
        Kind::Restore,
        Kind::SilentRestore,
        Kind::SlotDamage,
        Kind::TinyQueue,
        Kind::LateEnroll,
        Kind::Publish,
        Kind::Unpublished,
        Kind::Overload,
    ];
}

/// One fault that is due.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// On which host; ignored by faults of the server.
    pub host: usize,
    /// It starts (true) or ends.
    pub begins: bool,
}

/// What a seed breaks.
#[derive(Clone, Debug)]
pub struct Plan {
    enabled: Vec<Kind>,
    /// In order of entry.
    pub moments: Vec<(Mono, Fault)>,
}

impl Plan {
    /// Draws the faults of one seed, all within `from..until`.
    pub fn draw(rng: &mut dyn Rng, hosts: usize, from: Mono, until: Mono) -> Plan {
        let enabled: Vec<Kind> = Kind::ALL.into_iter().filter(|_| rng.below(2) == 0).collect();
        let mut moments = Vec::new();
        let span = until.since(from);
        for kind in &enabled {
            let (times, longest) = shape(*kind, hosts as u64);
            for _ in 0..times {
                let start = from + rng.below(span * 9 / 10);
                let host = rng.below(hosts as u64) as usize;
                moments.push((start, Fault { kind: *kind, host, begins: true }));
                if longest > 0 {
                    let end = (start + 1 + rng.below(longest)).min(until);
                    moments.push((end, Fault { kind: *kind, host, begins: false }));
                }
            }
        }
        Plan { enabled, moments }
    }

    /// Whether the seed has this kind at all.
    pub fn has(&self, kind: Kind) -> bool {
        self.enabled.contains(&kind)
    }
}

/// How often a kind happens in one seed, and how long it lasts at most, in milliseconds (0: it is a moment).
fn shape(kind: Kind, hosts: u64) -> (u64, u64) {
    match kind {
        Kind::Drop => (3 * hosts, 0),
        Kind::Delay => (hosts, 120_000),
        Kind::Partition => (hosts, 900_000),
        Kind::AgentCrash => (2 * hosts, 0),
        Kind::Renewal => (2 * hosts, 0),
        Kind::Reboot => (hosts / 4 + 1, 0),
        Kind::ServerCrash => (6, 0),
        Kind::LostAcknowledgement => (hosts / 2 + 2, 0),
        Kind::AgentDiskFull => (hosts / 2 + 1, 240_000),
        Kind::ServerDiskFull => (2, 240_000),
        Kind::ClockJump => (hosts, 0),
        Kind::Restore | Kind::SilentRestore => (1, 0),
        Kind::SlotDamage => (hosts / 2 + 1, 0),
        Kind::Publish => (4, 0),
        Kind::Unpublished => (1, 300_000),
        // These shape the whole run, from its start.
        Kind::TinyQueue | Kind::LateEnroll | Kind::Overload => (0, 0),
    }
}
