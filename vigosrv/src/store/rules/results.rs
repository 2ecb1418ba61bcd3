//! Where a record goes: on the main chain, known already, beside it as a fork, or nowhere because something is missing
//! before it.

use common::chain::Lane;
use common::outcome::{Counts, Status};
use common::proto::{Enrolled, RecordBody, RecordMeta, counts_from_wire, wire};
use common::time::Wall;

use crate::store::tables::{NewRecord, Progress, Span, Tables};
use crate::store::{EventRow, ResultsWrite, StoreError, StoredRecord, StoredResults, Written};

/// Where a record stands relative to the watermark of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first that was ever stored of this lane, wherever the agent's count stands.
    Start,
    /// Continues at the watermark.
    Next,
    /// Covers the watermark and goes on beyond it.
    Straddles,
    /// Wholly at or below the watermark.
    Below,
    /// Something is missing before it: the answer's watermark tells the agent where to resume.
    Hole,
}

/// Places a record by its sequences alone.
pub fn place(watermark: u64, meta: &RecordMeta) -> Place {
    match watermark {
        0 => Place::Start,
        w if meta.first == w + 1 => Place::Next,
        w if meta.first > w => Place::Hole,
        w if meta.last > w => Place::Straddles,
        _ => Place::Below,
    }
}

/// Whether a record at or below the watermark is the one that is stored, where `covering` is the stored record that holds its
/// last sequence. A chain link stands for everything before it, so one equal link at one sequence is proof for all. Where
/// retention has removed the row there is nothing to compare: known.
pub fn known(meta: &RecordMeta, covering: Option<&Span>) -> bool {
    match covering {
        None => true,
        Some(span) if span.last == meta.last => span.last_link == meta.last_link,
        Some(span) if span.first == meta.last => span.first_link.is_none_or(|link| link == meta.last_link),
        // It ends inside a stored stretch. Sent records never change their extent, so another host cut this one.
        Some(_) => false,
    }
}

/// Stores the records and traits of one report.
pub fn store<T: Tables>(tables: &mut T, results: &ResultsWrite) -> Result<Written, StoreError> {
    let Some((key, before)) = tables.progress(&results.uuid)? else { return Ok(Written::UnknownEnvoy) };
    if before.state == Enrolled::Revoked {
        return Ok(Written::UnknownEnvoy);
    }
    let mut lanes = Lanes { key, now: before.clone(), forks: Vec::new(), chain_breaks: 0, newest: None, results };
    for record in &results.records {
        lanes.take(tables, record)?;
    }
    for path in &results.removed_traits {
        tables.remove_trait(key, path)?;
    }
    for tree in &results.traits {
        tables.put_trait(key, tree, results.at)?;
    }
    let Lanes { mut now, forks, chain_breaks, newest, .. } = lanes;
    let newest = newest.map(|(_, status, counts)| (status, counts));
    if let Some((status, counts)) = newest {
        (now.status, now.counts) = (status, counts);
    }
    // Changes to other trees than those that are stored: 0 is the hash of none, so the envoy sends them all.
    let fits = results.trait_base == 0 || results.trait_base == before.trait_hash;
    now.trait_hash = results.trait_hash.map_or(now.trait_hash, |hash| if fits { hash } else { 0 });
    now.last_seen = now.last_seen.max(results.at);
    if now != before {
        tables.put_progress(key, &now)?;
    }
    let (watermark, link, trait_hash) = (now.watermark, now.link, now.trait_hash);
    let stored = StoredResults { uuid: results.uuid, watermark, link, forks, chain_breaks, trait_hash, newest };
    Ok(Written::Stored(Box::new(stored)))
}

/// Both lanes of one envoy while its report is stored.
struct Lanes<'a, K> {
    key: K,
    now: Progress,
    forks: Vec<(Lane, u64)>,
    chain_breaks: u32,
    /// Agent's time, status and counts of the newest run that was added.
    newest: Option<(Wall, Status, Counts)>,
    results: &'a ResultsWrite,
}

impl<K: Copy> Lanes<'_, K> {
    fn take<T: Tables<Key = K>>(&mut self, tables: &mut T, record: &StoredRecord) -> Result<(), StoreError> {
        let meta = &record.meta;
        let watermark = self.now.watermark[meta.lane.index()];
        match place(watermark, meta) {
            Place::Hole => Ok(()),
            Place::Below => {
                let covering = tables.covering(self.key, meta.lane, meta.last)?;
                if known(meta, covering.as_ref()) { Ok(()) } else { self.fork(tables, record) }
            }
            Place::Straddles => {
                // A gap swallows what the agent dropped, whether this server had some of it or not. Anything else was
                // sealed when it was first sent, so the part that is stored here came from another host.
                if !matches!(record.decoded, RecordBody::Gap(_)) {
                    self.fork(tables, record)?;
                }
                self.add(tables, record, watermark + 1, true)
            }
            Place::Next => {
                let fits = meta.previous_link == self.now.link[meta.lane.index()];
                if !fits {
                    self.chain_breaks += 1;
                    let detail = format!(
                        "{} lane: sequence {} does not continue the stored chain at {watermark}",
                        meta.lane.name(),
                        meta.first
                    );
                    self.event(tables, "chain-break", detail)?;
                }
                self.add(tables, record, meta.first, fits)
            }
            Place::Start => {
                let whole = meta.first == 1 && meta.previous_link == common::ids::Hash32::ZERO;
                if !whole {
                    let detail = format!("{} lane: the stored chain begins at {}", meta.lane.name(), meta.first);
                    self.event(tables, "chain-start", detail)?;
                }
                self.add(tables, record, meta.first, whole)
            }
        }
    }

    /// Puts a record on the main chain.
    fn add<T: Tables<Key = K>>(
        &mut self,
        tables: &mut T,
        record: &StoredRecord,
        first: u64,
        fits: bool,
    ) -> Result<(), StoreError> {
        let meta = &record.meta;
        tables.insert_record(self.key, &NewRecord { record, first, fits, at: self.results.at })?;
        self.now.watermark[meta.lane.index()] = meta.last;
        self.now.link[meta.lane.index()] = meta.last_link;
        match &record.decoded {
            RecordBody::Gap(gap) => {
                let (kind, detail) = (gap_reason(gap.reason), gap_detail(meta, first, gap));
                self.event(tables, kind, detail)
            }
            RecordBody::Incident(incident) => {
                self.event(tables, "incident", format!("{}: {}", incident.kind, incident.detail))
            }
            body => {
                if let Some(run) = run_summary(body)
                    && self.newest.as_ref().is_none_or(|(at, ..)| *at <= run.0)
                {
                    self.newest = Some(run);
                }
                Ok(())
            }
        }
    }

    fn fork<T: Tables<Key = K>>(&mut self, tables: &mut T, record: &StoredRecord) -> Result<(), StoreError> {
        let meta = &record.meta;
        self.forks.push((meta.lane, meta.first));
        if tables.insert_fork(self.key, record, self.results.at)? {
            let detail = format!(
                "{} lane: sequence {} came a second time with another content: two hosts with one identity, or an \
                 agent whose state was replaced by an older copy",
                meta.lane.name(),
                meta.first
            );
            self.event(tables, "fork", detail)?;
        }
        Ok(())
    }

    fn event<T: Tables<Key = K>>(&self, tables: &mut T, kind: &str, detail: String) -> Result<(), StoreError> {
        tables.event(&EventRow { at: self.results.at, kind: kind.into(), uuid: Some(self.results.uuid), detail })
    }
}

/// Word for the reason of a gap: kind of its event, `status` of its row.
pub fn gap_reason(reason: i32) -> &'static str {
    match wire::gap::Reason::try_from(reason) {
        Ok(wire::gap::Reason::QueueFull) => "queue-full",
        Ok(wire::gap::Reason::LostInRestore) => "lost-in-restore",
        Ok(wire::gap::Reason::Corrupt) => "corrupt",
        Ok(wire::gap::Reason::Refused) => "refused",
        Ok(wire::gap::Reason::Unspecified) | Err(_) => "gap",
    }
}

fn gap_detail(meta: &RecordMeta, first: u64, gap: &wire::Gap) -> String {
    let n = meta.last - first + 1;
    let text = if gap.detail.is_empty() { String::new() } else { format!(": {}", gap.detail) };
    format!("{} lane: {n} records ({first} to {}) are lost{text}", meta.lane.name(), meta.last)
}

/// Agent's time, status and counts of a run or of the newest run of a stretch. A status that is no status (older agents)
/// follows from the counts.
fn run_summary(body: &RecordBody) -> Option<(Wall, Status, Counts)> {
    match body {
        RecordBody::Run(run) => {
            let counts = counts_from_wire(run.counts.as_ref());
            let status = Status::from_u32(run.status)
                .filter(|status| *status >= Status::Failed)
                .unwrap_or_else(|| counts.status(false, 0, !run.error.is_empty()));
            Some((Wall(run.started_wall_ms), status, counts))
        }
        RecordBody::Stretch(stretch) => {
            let counts = counts_from_wire(stretch.counts.as_ref());
            Some((Wall(stretch.last_wall_ms), counts.status(false, 0, false), counts))
        }
        RecordBody::Gap(_) | RecordBody::Incident(_) => None,
    }
}
