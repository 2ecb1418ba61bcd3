//! `/metrics`: Prometheus text format 0.0.4. Base units, `_total` only on counters, no label per envoy.

use std::fmt::Write;
use std::sync::Arc;

use common::outcome::Status;
use common::time::Wall;

use super::{Context, Respond, Response};
use crate::app::{AdminReply, AdminRequest, Stats};
use crate::fleet::Totals;
use crate::litestream::state::{Replication, Stage};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn metrics(context: &Arc<Context>, respond: Respond) {
    // Directories are read beside the loops.
    let context_later = context.clone();
    context.job(respond, move |respond| {
        let backups = (context_later.backup_times)();
        let mut wal = context_later.database.clone().into_os_string();
        wal.push("-wal");
        let wal = std::fs::metadata(wal).map_or(0, |meta| meta.len());
        let context = context_later.clone();
        context_later.core(AdminRequest::Stats, respond, move |reply| {
            let AdminReply::Stats(stats) = reply else { return Response::text(TEXT, String::new()) };
            let totals = context.fleet.totals(&context.clocks());
            let uptime = context.backend.now().mono.since(context.started.mono);
            let damaged = context.damage.get().is_some();
            let mut text = render(&stats, &totals, uptime, &Found { wal, damaged, backups });
            if let Some(watch) = &context.replication {
                text += &replication(&watch.now(), context.backend.now().wall);
            }
            Response::text(TEXT, text)
        });
    });
}

/// What was found on the disk.
#[derive(Default)]
struct Found {
    wal: u64,
    damaged: bool,
    /// Newest archive, newest proof; seconds since 1970.
    backups: (Option<u64>, Option<u64>),
}

fn render(stats: &Stats, totals: &Totals, uptime_ms: u64, found: &Found) -> String {
    let mut out = String::with_capacity(4_096);
    let mut one = |name: &str, kind: &str, help: &str, rows: &[(&str, u64)]| family(&mut out, name, kind, help, rows);
    let statuses: Vec<(String, u64)> = Status::ALL
        .iter()
        .zip(totals.by_status)
        .map(|(status, n)| (format!("{{status=\"{}\"}}", status.name()), n))
        .collect();
    let statuses: Vec<(&str, u64)> = statuses.iter().map(|(labels, n)| (labels.as_str(), *n)).collect();
    one("envoys", "gauge", "Envoys that are not revoked, by status.", &statuses);
    one("envoys_pending", "gauge", "Envoys that wait for approval.", &[("", totals.pending)]);
    one("envoys_keep_cached", "gauge", "Envoys told to keep what they have.", &[("", totals.kept_cached)]);
    one("connections", "gauge", "Open agent connections.", &[("", stats.connections)]);
    one("connections_held", "gauge", "Agents with a held stream.", &[("", stats.held)]);
    let checkins = [
        ("{answer=\"no_change\"}", stats.checkins_no_change),
        ("{answer=\"send\"}", stats.checkins_sent),
        ("{answer=\"keep_cached\"}", stats.checkins_keep_cached),
        ("{answer=\"later\"}", stats.checkins_later),
    ];
    one("checkins_total", "counter", "Check-ins answered.", &checkins);
    one("runs_stored_total", "counter", "Runs acknowledged after their commit.", &[("", stats.records_stored)]);
    one(
        "reports_deferred_total",
        "counter",
        "Reports put off: disk full or writer behind.",
        &[("", stats.reports_later)],
    );
    one("enrollments_total", "counter", "Envoys enrolled.", &[("", stats.enrolled)]);
    one("refusals_total", "counter", "Enrollments and authentications refused.", &[("", stats.refused)]);
    one("pending_writes", "gauge", "Writes that the core waits for.", &[("", stats.pending_writes)]);
    one("epoch", "gauge", "Epoch of this server.", &[("", stats.epoch)]);
    one("serial", "gauge", "Policy serial.", &[("", stats.serial)]);
    one(
        "stepped_down",
        "gauge",
        "1 when a higher epoch was met and the server is read-only.",
        &[("", u64::from(stats.stepped_down))],
    );
    one("disk_full", "gauge", "1 while results are refused for lack of space.", &[("", u64::from(stats.disk_full))]);
    one(
        "database_damaged",
        "gauge",
        "1 when the check of the database found damage.",
        &[("", u64::from(found.damaged))],
    );
    one("wal_bytes", "gauge", "Bytes of the write-ahead log.", &[("", found.wal)]);
    let (newest, proved) = found.backups;
    one(
        "backup_newest_timestamp_seconds",
        "gauge",
        "When the newest archive under paths.snapshots was written; 0 while there is none.",
        &[("", newest.unwrap_or(0))],
    );
    one(
        "backup_last_verified_timestamp_seconds",
        "gauge",
        "When an archive was last verified or drilled with success; 0 for never.",
        &[("", proved.unwrap_or(0))],
    );
    one("uptime_seconds", "gauge", "Seconds since the server started.", &[("", uptime_ms / 1_000)]);
    out
}

/// Only where a replica is wanted.
fn replication(state: &Replication, now: Wall) -> String {
    let mut out = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| family(&mut out, name, kind, help, &[("", value)]);
    let up = state.stage == Stage::Replicating;
    one("replica_up", "gauge", "1 while Litestream replicates the database.", u64::from(up));
    let refused = state.stage == Stage::Refused;
    one("replica_refused", "gauge", "1 while the replica is another server's.", u64::from(refused));
    let lag = state.lag_ms(now).div_ceil(1_000);
    one("replica_lag_seconds", "gauge", "Seconds since the replica last had everything, as Litestream says.", lag);
    let help = "Bytes that Litestream keeps beside the database; grows while the replica is away.";
    one("replica_kept_bytes", "gauge", help, state.kept_bytes);
    one("replica_restarts_total", "counter", "How often Litestream had to be started again.", state.restarts);
    one("replica_errors_total", "counter", "Errors that Litestream logged.", state.errors);
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str, rows: &[(&str, u64)]) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP vigo_{name} {help}\n# TYPE vigo_{name} {kind}");
    for (labels, value) in rows {
        let _ = writeln!(out, "vigo_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_prometheus_text_and_totals_are_counters() {
        let mut text = render(
            &Stats::default(),
            &Totals::default(),
            5_000,
            &Found { backups: (Some(7), None), ..Found::default() },
        );
        text += &replication(&Replication::default(), Wall(2_500));
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words[2].ends_with("_total"), words[3] == "counter", "{line}");
        }
        assert!(text.contains("vigo_envoys{status=\"converged\"} 0\n"));
        assert!(text.contains("vigo_uptime_seconds 5\n"));
        assert!(text.contains("vigo_replica_up 0\n") && text.contains("vigo_replica_lag_seconds 3\n"), "{text}");
        assert!(text.contains("vigo_backup_newest_timestamp_seconds 7\n"));
        assert!(text.contains("vigo_backup_last_verified_timestamp_seconds 0\n"));
    }
}
