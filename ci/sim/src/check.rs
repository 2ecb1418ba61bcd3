//! What must hold, whatever broke. Some of it is looked at while things happen, most at the end, when faults have stopped
//! and everybody had time to come to rest.
//!
//! - Nothing is applied that the operator did not publish.
//! - Every run whose record an agent had on disk is in the database exactly once, or inside a gap that says why.
//! - Chains verify; there are no forks, and no record twice.
//! - Every host is in the state of the policy that is published last.
//! - The FleetIndex equals one that is rebuilt from the database.
//! - Nothing grows beyond its bound.

use std::collections::{BTreeMap, HashMap};

use common::chain::Lane;
use common::ids::{Hash32, Uuid};
use common::proto::{Enrolled, RecordBody, wire};
use common::time::Mono;
use envoy::agent::RunOrder;
use envoy::cache::Cache;
use vigosrv::fleet::Fleet;
use vigosrv::store::{MemoryStore, Store};

use crate::faults::Kind;
use crate::host::Owed;
use crate::world::World;

/// A run is about to start.
pub(crate) fn on_start_run(world: &mut World, host: usize, order: &RunOrder) {
    let hash = common::bundle::bundle_hash(&order.bundle.encode());
    if !world.published.contains(&hash) {
        world.violation(format!("host {host} applies bundle {hash}, which nobody published"));
    }
    world.hosts[host].applied.insert(hash);
}

/// Faults have stopped and everybody had time.
pub(crate) fn at_the_end(world: &mut World) {
    if !world.outcome.violations.is_empty() {
        return;
    }
    if world.site.later_answers > 0 {
        world.outcome.happened.insert(Kind::Overload);
    }
    if world.site.server.is_none() {
        return world.violation("the server is not running at the end".into());
    }
    let mut found = Vec::new();
    for index in 0..world.hosts.len() {
        host_at_rest(world, index, &mut found);
        results(world, index, &mut found);
    }
    fleet(world, &mut found);
    found.into_iter().for_each(|text| world.violation(text));
}

fn host_at_rest(world: &World, index: usize, found: &mut Vec<String>) {
    let host = &world.hosts[index];
    if host.agent.is_none() || host.uuid.is_none() {
        return found.push(format!("host {index} has no running agent at the end"));
    }
    let Some(live) = &world.site.live else { return found.push("nothing is published at the end".into()) };
    let Some(id) = live.mapping_for(&host.name) else { return };
    let (_, payload) = live.bundle(id);
    let Ok(bundle) = common::bundle::Bundle::decode(&payload) else { return };
    let wrong: Vec<&str> = bundle
        .resources
        .iter()
        .filter(|resource| {
            let text = format!("{}{:?}", resource.name, resource.params);
            host.state.get(&resource.name) != Some(&common::crypto::sha256(&[text.as_bytes()]).short())
        })
        .map(|resource| resource.name.as_str())
        .collect();
    if !wrong.is_empty() {
        found.push(format!("host {index} has not converged: {}", wrong.join(", ")));
    }
    if host.cache.bytes() > common::limits::STATE_BYTES_DEFAULT {
        found.push(format!("host {index} keeps {} bytes", host.cache.bytes()));
    }
}

/// Everything that an envoy owes is in the database once.
fn results(world: &mut World, index: usize, found: &mut Vec<String>) {
    let host = &world.hosts[index];
    let Some(uuid) = host.uuid else { return };
    let store = &world.site.store;
    let mut spans: BTreeMap<Lane, Vec<(u64, u64, Hash32, Hash32)>> = BTreeMap::new();
    let mut runs: HashMap<Uuid, u32> = HashMap::new();
    let mut gaps: Vec<(Lane, u64, u64, i32)> = Vec::new();
    let (mut records, mut n_gaps) = (0, 0);
    for stored in store.records(&uuid) {
        records += 1;
        let meta = &stored.record.meta;
        spans.entry(meta.lane).or_default().push((stored.first, meta.last, meta.previous_link, meta.last_link));
        match &stored.record.decoded {
            RecordBody::Run(run) => {
                if let Ok(id) = Uuid::try_from_slice(&run.run_id) {
                    *runs.entry(id).or_default() += 1;
                }
            }
            RecordBody::Gap(gap) => {
                n_gaps += 1;
                gaps.push((meta.lane, stored.first, meta.last, gap.reason));
            }
            RecordBody::Stretch(_) | RecordBody::Incident(_) => {}
        }
    }
    if store.forks(&uuid).next().is_some() {
        found.push(format!("host {index} has forked records in the database"));
    }
    for (run, times) in &runs {
        if *times > 1 {
            found.push(format!("run {run} of host {index} is in the database {times} times"));
        }
    }
    chains(index, &spans, world.site.was_restored, found);
    allowed_gaps(world, index, &gaps, found);
    for (run, owed) in &host.owed {
        let covered = spans.get(&owed.lane).is_some_and(|spans| covers(spans, owed));
        let own = runs.contains_key(run);
        let waiting = waiting(world, index, owed);
        if !covered && !own && !waiting {
            let (lane, sequence) = (owed.lane.name(), owed.sequence);
            found.push(format!("run {run} of host {index} ({lane} {sequence}) is nowhere in the database"));
        }
    }
    world.outcome.records += records;
    world.outcome.gaps += n_gaps;
}

fn covers(spans: &[(u64, u64, Hash32, Hash32)], owed: &Owed) -> bool {
    spans.iter().filter(|(first, last, ..)| (*first..=*last).contains(&owed.sequence)).count() == 1
}

/// An open stretch of runs that changed nothing may wait for its flush; it is still on the agent's disk.
fn waiting(world: &World, index: usize, owed: &Owed) -> bool {
    let mut cache = world.hosts[index].cache.clone();
    let Ok(loaded) = cache.load() else { return false };
    owed.lane == Lane::Routine
        && loaded.lanes[Lane::Routine.index()]
            .iter()
            .any(|record| record.acked_at_ms == 0 && (record.first..=record.last).contains(&owed.sequence))
}

fn chains(
    index: usize,
    spans: &BTreeMap<Lane, Vec<(u64, u64, Hash32, Hash32)>>,
    restored: bool,
    found: &mut Vec<String>,
) {
    for (lane, spans) in spans {
        let mut spans = spans.clone();
        spans.sort_unstable_by_key(|(first, ..)| *first);
        for pair in spans.windows(2) {
            let ((_, last, _, link), (first, _, previous, _)) = (&pair[0], &pair[1]);
            if *first != last + 1 {
                found.push(format!("host {index}, lane {}: {last} is followed by {first}", lane.name()));
            } else if previous != link && !restored {
                found.push(format!("host {index}, lane {}: the chain breaks at {first}", lane.name()));
            }
        }
    }
}

/// A gap needs a cause that this seed really had.
fn allowed_gaps(world: &World, index: usize, gaps: &[(Lane, u64, u64, i32)], found: &mut Vec<String>) {
    let happened = |kind: Kind| world.outcome.happened.contains(&kind);
    for (lane, first, last, reason) in gaps {
        let fits = match wire::gap::Reason::try_from(*reason) {
            Ok(wire::gap::Reason::QueueFull) => happened(Kind::TinyQueue) || happened(Kind::AgentDiskFull),
            Ok(wire::gap::Reason::LostInRestore) => world.site.was_restored,
            _ => false,
        };
        if !fits {
            let lane = lane.name();
            found.push(format!("host {index}, lane {lane}: gap {first}..={last} with reason {reason} has no cause"));
        }
    }
}

/// The index in memory says what the database says.
fn fleet(world: &mut World, found: &mut Vec<String>) {
    let Some(server) = &world.site.server else { return };
    let mut store: MemoryStore = world.site.store.clone();
    let Ok(snapshot) = store.load() else { return };
    let rebuilt = Fleet::rebuild(&snapshot.envoys, Mono(0));
    let live = server.fleet();
    if live.len() != rebuilt.len() {
        found.push(format!("the index has {} envoys, the database {}", live.len(), rebuilt.len()));
    }
    rebuilt.for_each(|entry| {
        let durable = |entry: &vigosrv::fleet::Entry| {
            (entry.hostname.clone(), entry.state, entry.bundle, entry.assigned_serial, entry.watermark, entry.link)
        };
        let same = live.with(&entry.uuid, durable);
        // The writer may still hold a write; at rest it does not.
        if same != Some(durable(entry)) && world.site.queue.is_empty() {
            found.push(format!(
                "the index differs from the database for {}: {same:?} {:?}",
                entry.uuid,
                durable(entry)
            ));
        }
        if entry.state == Enrolled::Duplicate {
            found.push(format!("{} is taken for two hosts", entry.hostname));
        }
    });
}
