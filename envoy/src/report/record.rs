//! From one run to the body of its record, within the limits of the wire.
//!
//! A body never exceeds `RECORD_BYTES_MAX`: texts are cut first, then diffs go, then outcomes; the counts stay complete and
//! failures go in before changes, so that what is cut is what is missed least.

use common::bundle::Version;
use common::chain::Lane;
use common::ids::Hash32;
use common::limits::{OUTCOME_TEXT_BYTES_MAX, OUTCOMES_PER_RUN_MAX, RECORD_BYTES_MAX};
use common::outcome::{Outcome, Status};
use common::proto::wire::record::Body;
use common::proto::wire::run_result::Source;
use common::proto::{Message, counts_to_wire, wire};
use common::time::Now;

use super::run::RunReport;

/// Bytes kept free beside the outcomes of a run: ids, counts, times and the error text.
const RUN_HEAD_BYTES: usize = 16 << 10;

/// What ran, and what this envoy makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunContext {
    /// Names this boot.
    pub boot_id: String,
    /// Bundle that ran.
    pub bundle: Hash32,
    /// Its assignment.
    pub version: Version,
    /// Where it came from.
    pub source: Source,
    /// Milliseconds since the server last named it.
    pub age_ms: u64,
    /// Status by the agent's own history.
    pub status: Status,
}

/// What the history says of one resource: an earlier run had put it right, and so many runs in a row changed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// A relapse.
    pub relapse: bool,
    /// Runs in a row, this one included.
    pub consecutive: u32,
}

/// The result of a run; `verdicts` are parallel to its resources.
pub fn run_result(report: &RunReport, verdicts: &[Verdict], context: &RunContext) -> wire::RunResult {
    let mut result = wire::RunResult {
        run_id: report.run_id.as_bytes().to_vec(),
        started_wall_ms: report.started.wall.0,
        started_boot_ms: report.started.mono.0,
        duration_ms: report.duration_ms,
        boot_id: cut(&context.boot_id, 64),
        bundle_hash: context.bundle.0.to_vec(),
        serial: context.version.serial,
        epoch: context.version.epoch,
        source: context.source as i32,
        bundle_age_ms: context.age_ms,
        counts: Some(counts_to_wire(&report.counts())),
        outcomes: Vec::new(),
        error: cut(&report.error, OUTCOME_TEXT_BYTES_MAX),
        dry_run: false,
        status: context.status as u32,
    };
    let kept = |bad: bool| {
        report.resources.iter().zip(verdicts).filter(move |(resource, _)| match resource.outcome {
            Outcome::Ok | Outcome::Skipped => false,
            Outcome::Changed => !bad,
            Outcome::Failed | Outcome::Blocked => bad,
        })
    };
    let mut room = RECORD_BYTES_MAX - RUN_HEAD_BYTES;
    for (resource, verdict) in kept(true).chain(kept(false)).take(OUTCOMES_PER_RUN_MAX) {
        let mut outcome = wire::ResourceOutcome {
            resource: cut(&resource.name, 1_024),
            outcome: resource.outcome as u32,
            message: cut(&resource.message, OUTCOME_TEXT_BYTES_MAX),
            diff: cut(&resource.diff, OUTCOME_TEXT_BYTES_MAX),
            duration_ms: resource.duration_ms,
            relapse: verdict.relapse,
            r#type: cut(&resource.kind, 64),
            consecutive: verdict.consecutive,
        };
        // Tag and length of a repeated field take at most 6 bytes.
        if outcome.encoded_len() + 6 > room {
            outcome.diff.clear();
            outcome.message = cut(&outcome.message, 256);
        }
        let bytes = outcome.encoded_len() + 6;
        if bytes > room {
            break;
        }
        room -= bytes;
        result.outcomes.push(outcome);
    }
    result
}

/// The first of a new stretch.
pub fn stretch_of(run: &wire::RunResult) -> wire::Stretch {
    wire::Stretch {
        first_run_id: run.run_id.clone(),
        last_run_id: run.run_id.clone(),
        first_wall_ms: run.started_wall_ms,
        last_wall_ms: run.started_wall_ms,
        first_boot_ms: run.started_boot_ms,
        last_boot_ms: run.started_boot_ms,
        count: 1,
        bundle_hash: run.bundle_hash.clone(),
        serial: run.serial,
        epoch: run.epoch,
        source: run.source,
        bundle_age_ms: run.bundle_age_ms,
        counts: run.counts,
        boot_id: run.boot_id.clone(),
        duration_ms_sum: run.duration_ms,
    }
}

/// Whether a run says nothing that the stretch does not say already.
pub fn fits_stretch(stretch: &wire::Stretch, run: &wire::RunResult) -> bool {
    stretch.bundle_hash == run.bundle_hash
        && (stretch.epoch, stretch.serial, stretch.source) == (run.epoch, run.serial, run.source)
        && stretch.counts == run.counts
        && stretch.boot_id == run.boot_id
}

/// Adds a run that fits.
pub fn grow_stretch(stretch: &mut wire::Stretch, run: &wire::RunResult) {
    stretch.last_run_id.clone_from(&run.run_id);
    stretch.last_wall_ms = run.started_wall_ms;
    stretch.last_boot_ms = run.started_boot_ms;
    stretch.count += 1;
    stretch.bundle_age_ms = run.bundle_age_ms;
    stretch.duration_ms_sum = stretch.duration_ms_sum.saturating_add(run.duration_ms);
}

/// Something that happened to the agent itself.
pub fn incident(kind: &str, detail: &str, now: Now) -> wire::Incident {
    wire::Incident {
        kind: cut(kind, 64),
        detail: cut(detail, OUTCOME_TEXT_BYTES_MAX),
        wall_ms: now.wall.0,
        boot_ms: now.mono.0,
    }
}

/// A record around a body, with its place in the chain.
pub fn record(lane: Lane, span: (u64, u64), previous: &Hash32, links: (&Hash32, &Hash32), body: Body) -> wire::Record {
    wire::Record {
        lane: lane as i32,
        first_sequence: span.0,
        last_sequence: span.1,
        previous_link: previous.0.to_vec(),
        first_link: links.0.0.to_vec(),
        last_link: links.1.0.to_vec(),
        body: Some(body),
    }
}

/// The encoded body of a record, whatever it is; empty where there is none.
pub fn body_bytes(record: &wire::Record) -> &[u8] {
    match &record.body {
        Some(Body::Run(bytes) | Body::Stretch(bytes) | Body::Gap(bytes) | Body::Incident(bytes)) => bytes,
        None => &[],
    }
}

/// The beginning of a text, at most `max` bytes, cut between characters and marked where it was cut.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max.saturating_sub(3)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ResourceReport;
    use common::ids::Uuid;

    fn context() -> RunContext {
        RunContext {
            boot_id: "boot".into(),
            bundle: Hash32([1; 32]),
            version: Version { epoch: 1, serial: 2 },
            source: Source::Live,
            age_ms: 5,
            status: Status::Degraded,
        }
    }

    fn report(resources: Vec<ResourceReport>) -> RunReport {
        RunReport { run_id: Uuid::from_bytes([1; 16]), duration_ms: 3, resources, ..RunReport::default() }
    }

    fn resource(outcome: Outcome, text: usize) -> ResourceReport {
        ResourceReport {
            name: "a.b".into(),
            kind: "file".into(),
            outcome,
            message: "m".repeat(text),
            diff: "ä".repeat(text / 2),
            duration_ms: 1,
            fingerprint: 1,
        }
    }

    #[test]
    fn a_body_never_exceeds_its_limit_and_failures_go_in_first() {
        for text in [0, 100, 8 << 10, 1 << 20] {
            let mut resources = vec![resource(Outcome::Changed, text); 1_500];
            resources.push(resource(Outcome::Failed, text));
            let verdicts = vec![Verdict::default(); resources.len()];
            let result = run_result(&report(resources), &verdicts, &context());
            assert!(result.encoded_len() <= RECORD_BYTES_MAX, "{text}");
            assert_eq!(result.outcomes[0].outcome, Outcome::Failed as u32);
            assert!(result.outcomes.len() <= OUTCOMES_PER_RUN_MAX);
            assert_eq!(result.counts.map(|counts| counts.changed), Some(1_500));
        }
    }

    #[test]
    fn outcomes_that_say_nothing_are_left_out() {
        let resources = vec![resource(Outcome::Ok, 1), resource(Outcome::Skipped, 1)];
        let result = run_result(&report(resources), &[Verdict::default(); 2], &context());
        assert!(result.outcomes.is_empty());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("ääää", 6), "ä...");
        assert_eq!(cut("abcd", 0), "...");
    }
}
