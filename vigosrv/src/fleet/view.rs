//! What people see of the fleet: filtered, sorted, paged rows, and totals.

use common::glob::Glob;
use common::ids::{Hash32, Uuid};
use common::outcome::{Counts, Status};
use common::proto::Enrolled;
use common::time::Wall;

use super::{Clocks, Fleet};

/// One row of `envoys list`.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Identity.
    pub uuid: Uuid,
    /// Host name.
    pub hostname: String,
    /// Standing.
    pub state: Enrolled,
    /// Status by the rules.
    pub status: Status,
    /// Status as shown.
    pub status_text: &'static str,
    /// Counts of the newest run.
    pub counts: Counts,
    /// Last sighting.
    pub last_seen: Wall,
    /// Serial of the assignment.
    pub serial: u64,
    /// Bundle of the assignment.
    pub bundle: Option<Hash32>,
    /// Told to keep what it has.
    pub kept_cached: bool,
    /// Waiting records, by lane.
    pub queued: [u32; 2],
    /// Agent version.
    pub agent_version: String,
    /// Milliseconds between check-ins, as observed; 0 = unknown.
    pub cadence_ms: u32,
    /// Stored watermarks, by lane.
    pub watermark: [u64; 2],
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Host names.
    pub name: Option<Glob>,
    /// One status.
    pub status: Option<Status>,
    /// Also those that are revoked.
    pub revoked: bool,
}

/// Sums over the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Envoys by status, in the order of [`Status::ALL`]; revoked ones are not counted.
    pub by_status: [u64; 9],
    /// All that are not revoked.
    pub envoys: u64,
    /// Revoked ones.
    pub revoked: u64,
    /// Waiting for approval.
    pub pending: u64,
    /// Told to keep what they have.
    pub kept_cached: u64,
    /// Seen since the server started.
    pub back: u64,
}

impl Fleet {
    /// Rows that fit, sorted by host name.
    pub fn list(&self, filter: &Filter, clocks: &Clocks) -> Vec<View> {
        let mut rows = Vec::new();
        self.for_each(|entry| {
            let status = entry.status(clocks);
            let fits = (filter.revoked || entry.may_connect())
                && filter.status.is_none_or(|wanted| wanted == status)
                && filter.name.as_ref().is_none_or(|glob| glob.matches(&entry.hostname));
            if fits {
                rows.push(view(entry, clocks));
            }
        });
        rows.sort_by(|a, b| (&a.hostname, a.uuid).cmp(&(&b.hostname, b.uuid)));
        rows
    }

    /// One row.
    pub fn view(&self, uuid: &Uuid, clocks: &Clocks) -> Option<View> {
        self.with(uuid, |entry| view(entry, clocks))
    }

    /// Sums, for the dashboard and `/metrics`.
    pub fn totals(&self, clocks: &Clocks) -> Totals {
        let mut totals = Totals::default();
        self.for_each(|entry| {
            if !entry.may_connect() {
                totals.revoked += 1;
                return;
            }
            totals.envoys += 1;
            totals.by_status[entry.status(clocks) as usize - 1] += 1;
            totals.pending += u64::from(entry.state == Enrolled::Pending);
            totals.kept_cached += u64::from(entry.kept_cached);
            totals.back += u64::from(entry.seen_since_start);
        });
        totals
    }
}

fn view(entry: &super::Entry, clocks: &Clocks) -> View {
    View {
        uuid: entry.uuid,
        hostname: entry.hostname.to_string(),
        state: entry.state,
        status: entry.status(clocks),
        status_text: if entry.may_connect() { entry.status_text(clocks) } else { "revoked" },
        counts: entry.counts,
        last_seen: entry.last_seen,
        serial: entry.assigned_serial,
        bundle: entry.bundle,
        kept_cached: entry.kept_cached,
        queued: entry.queued,
        agent_version: entry.agent_version.to_string(),
        cadence_ms: entry.cadence_ms,
        watermark: entry.watermark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::entry::tests::row;
    use common::time::Mono;

    #[test]
    fn lists_are_filtered_and_sorted_and_totals_add_up() {
        let mut revoked = row(3, "c.example");
        revoked.state = Enrolled::Revoked;
        let fleet = Fleet::rebuild(&[row(2, "b.example"), row(1, "a.example"), revoked], Mono(0));
        let clocks = Clocks { now: Mono(1), restore_until: Mono(0), interval_ms: 1_000 };
        let names = |filter: &Filter| fleet.list(filter, &clocks).into_iter().map(|v| v.hostname).collect::<Vec<_>>();
        assert_eq!(names(&Filter::default()), ["a.example", "b.example"]);
        assert_eq!(names(&Filter { name: Glob::try_new("b*").ok(), ..Filter::default() }), ["b.example"]);
        assert_eq!(names(&Filter { revoked: true, ..Filter::default() }).len(), 3);
        let totals = fleet.totals(&clocks);
        assert_eq!((totals.envoys, totals.revoked, totals.by_status[Status::Nodata as usize - 1]), (2, 1, 2));
    }
}
