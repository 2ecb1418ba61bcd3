//! What this envoy remembers of each resource: was it right once, as asked for now, and how many runs in a row changed it.
//! From that come *relapse* (an earlier run had already put this right) and *diverged* (three runs in a row changed it).
//!
//! A first-time change is no relapse, and neither is the first change after the policy asked for something else: the
//! fingerprint of what is asked for differs. Stored in the transaction of the run's record, in 16 pieces by hash of the name,
//! so that a small change writes little and 20,000 resources fit the limit of a meta value.

use std::collections::BTreeMap;

use common::outcome::Outcome;

use crate::report::{Reader, ResourceReport, Verdict, Writer};

/// Pieces of the stored form.
const SHARDS: u64 = 16;
/// Resources remembered, over all pieces: `foreach` may unroll to more, which then count as new.
const RESOURCES_MAX: usize = 32_000;
const META_VERSION: u8 = 1;

/// What is known of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Past {
    /// Of what was asked for.
    fingerprint: u64,
    /// It was as asked for, or was brought there.
    right: bool,
    /// Runs in a row that changed it, at most 255.
    consecutive: u8,
    /// Seen in the run being taken in.
    seen: bool,
}

/// All resources, by hash of their name.
#[derive(Clone, Debug, Default)]
pub struct History {
    past: BTreeMap<u64, Past>,
    /// Pieces that differ from the store, as bits.
    dirty: u16,
}

/// What a run looks like in the light of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Parallel to the resources.
    pub verdicts: Vec<Verdict>,
    /// Some resource relapsed.
    pub relapsed: bool,
    /// Longest row of runs that changed one same resource.
    pub consecutive: u32,
}

impl History {
    /// From meta values; what does not read is forgotten, and a relapse may then pass for a first change once.
    pub fn load(meta: &BTreeMap<String, Vec<u8>>) -> History {
        let mut history = History::default();
        for shard in 0..SHARDS {
            let Some(mut reader) = meta.get(&meta_name(shard)).and_then(|bytes| Reader::open(bytes, META_VERSION))
            else {
                continue;
            };
            while let (Some(name), Some(fingerprint), Some(flags)) = (reader.u64(), reader.u64(), reader.u64()) {
                let past = Past { fingerprint, right: flags & 1 != 0, consecutive: (flags >> 8) as u8, seen: false };
                history.past.insert(name, past);
            }
        }
        history
    }

    /// Takes in an enforcing run. `complete`: it saw the whole policy, so what it did not name is forgotten.
    pub fn judge(&mut self, resources: &[ResourceReport], complete: bool) -> Judgement {
        let mut judgement = Judgement { verdicts: Vec::with_capacity(resources.len()), ..Judgement::default() };
        for resource in resources {
            let verdict = self.judge_one(resource);
            judgement.relapsed |= verdict.relapse;
            judgement.consecutive = judgement.consecutive.max(verdict.consecutive);
            judgement.verdicts.push(verdict);
        }
        let dirty = &mut self.dirty;
        self.past.retain(|name, past| {
            let keep = std::mem::take(&mut past.seen) || !complete;
            if !keep {
                *dirty |= 1 << (name % SHARDS);
            }
            keep
        });
        judgement
    }

    fn judge_one(&mut self, resource: &ResourceReport) -> Verdict {
        let name = fnv1a(resource.name.as_bytes());
        let old = self.past.get(&name).copied();
        if old.is_none() && self.past.len() >= RESOURCES_MAX {
            return Verdict { relapse: false, consecutive: u32::from(resource.outcome == Outcome::Changed) };
        }
        let same = old.filter(|past| past.fingerprint == resource.fingerprint);
        let was_right = same.is_some_and(|past| past.right);
        let (right, consecutive) = match resource.outcome {
            Outcome::Ok => (true, 0),
            Outcome::Changed => (true, same.map_or(0, |past| past.consecutive).saturating_add(1)),
            Outcome::Failed | Outcome::Blocked => (was_right, 0),
            Outcome::Skipped => (was_right, 0),
        };
        // A skipped resource was not rendered: what it asks for is not known, so what was known stays.
        let fingerprint = match (resource.outcome, old) {
            (Outcome::Skipped, Some(past)) => past.fingerprint,
            _ => resource.fingerprint,
        };
        let right = if resource.outcome == Outcome::Skipped { old.is_some_and(|past| past.right) } else { right };
        let new = Past { fingerprint, right, consecutive, seen: true };
        if old.is_none_or(|past| Past { seen: true, ..past } != new) {
            self.dirty |= 1 << (name % SHARDS);
        }
        self.past.insert(name, new);
        let changed = resource.outcome == Outcome::Changed;
        Verdict { relapse: changed && was_right, consecutive: u32::from(consecutive) }
    }

    /// Pieces that differ from the store, as meta values.
    pub fn take_dirty(&mut self) -> Vec<(String, Vec<u8>)> {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty == 0 {
            return Vec::new();
        }
        let mut writers: Vec<Writer> = (0..SHARDS).map(|_| Writer::new(META_VERSION)).collect();
        for (name, past) in &self.past {
            let shard = (name % SHARDS) as usize;
            if dirty & (1 << shard) != 0 {
                let flags = u64::from(past.right) | u64::from(past.consecutive) << 8;
                let writer = std::mem::take(&mut writers[shard]);
                writers[shard] = writer.u64(*name).u64(past.fingerprint).u64(flags);
            }
        }
        let shards = writers.into_iter().enumerate().filter(|(shard, _)| dirty & (1 << shard) != 0);
        shards.map(|(shard, writer)| (meta_name(shard as u64), writer.finish())).collect()
    }
}

fn meta_name(shard: u64) -> String {
    format!("history.{shard:x}")
}

/// FNV-1a, 64 bits: stable for ever, and quick enough for a thousand names a run. Not against an adversary, who would
/// only fool the relapse count of a host that is his already.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, outcome: Outcome, fingerprint: u64) -> ResourceReport {
        ResourceReport {
            name: name.into(),
            kind: "file".into(),
            outcome,
            message: String::new(),
            diff: String::new(),
            duration_ms: 0,
            fingerprint,
        }
    }

    fn check(steps: &[(Outcome, u64)], want: &[(bool, u32)]) {
        let mut history = History::default();
        for ((outcome, fingerprint), want) in steps.iter().zip(want) {
            let judgement = history.judge(&[resource("a.b", *outcome, *fingerprint)], true);
            assert_eq!((judgement.relapsed, judgement.consecutive), *want, "{steps:?}");
        }
    }

    #[test]
    fn a_first_change_is_none_and_drift_is_a_relapse() {
        use Outcome::{Changed, Failed, Ok, Skipped};
        check(&[(Changed, 1), (Ok, 1), (Changed, 1)], &[(false, 1), (false, 0), (true, 1)]);
        check(&[(Changed, 1), (Changed, 1), (Changed, 1)], &[(false, 1), (true, 2), (true, 3)]);
        check(&[(Changed, 1), (Changed, 2), (Ok, 2)], &[(false, 1), (false, 1), (false, 0)]);
        check(&[(Failed, 1), (Changed, 1)], &[(false, 0), (false, 1)]);
        check(&[(Ok, 1), (Failed, 1), (Changed, 1)], &[(false, 0), (false, 0), (true, 1)]);
        check(&[(Ok, 1), (Skipped, 9), (Changed, 1)], &[(false, 0), (false, 0), (true, 1)]);
    }

    #[test]
    fn a_history_round_trips_and_writes_only_what_changed() {
        let mut history = History::default();
        let resources: Vec<_> = (0..500).map(|n| resource(&format!("r.{n}"), Outcome::Changed, n)).collect();
        history.judge(&resources, true);
        let mut stored: BTreeMap<String, Vec<u8>> = history.take_dirty().into_iter().collect();
        assert_eq!(stored.len(), 16);
        assert_eq!(History::load(&stored).past, history.past);
        let ok: Vec<_> = (0..500).map(|n| resource(&format!("r.{n}"), Outcome::Ok, n)).collect();
        history.judge(&ok, true);
        stored.extend(history.take_dirty());
        history.judge(&ok, true);
        assert!(history.take_dirty().is_empty());
        history.judge(&ok[1..], true);
        let last = history.take_dirty();
        assert_eq!(last.len(), 1);
        stored.extend(last);
        assert_eq!(History::load(&stored).past.len(), 499);
    }
}
