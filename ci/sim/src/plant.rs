//! Bugs planted on purpose, outside the product's code: each twists what the cores ask of their shells the way a plausible
//! mistake would. The simulator must catch every one of them with the seeds that CI runs.

use std::str::FromStr;

use bytes::Bytes;
use common::bundle::{Assignment, Bundle, Version, bundle_hash};
use common::chain::Lane;
use common::proto::{Message, wire};
use envoy::cache::{Cache, CacheError, StoreOp};
use vigosrv::app::{CallId, Method};
use vigosrv::store::{Store, Write};

use crate::host::Host;
use crate::world::World;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The server answers a report when the write is queued, not when it is committed.
    AckBeforeCommit,
    /// The agent removes records when they are sent, not when they are acknowledged.
    DeleteBeforeAck,
    /// The agent applies a bundle without verifying it (what is damaged is signed anew).
    AcceptUnverified,
    /// A server that has published nothing sends an empty bundle instead of "keep what you have".
    ForgetKeepCached,
    /// The agent goes on before its record is synced: a crash takes back what was "stored".
    NoSync,
    /// The server stores a record that it has already under another sequence.
    DoubleStore,
}

impl Bug {
    /// All.
    pub const ALL: [Bug; 6] = [
        Bug::AckBeforeCommit,
        Bug::DeleteBeforeAck,
        Bug::AcceptUnverified,
        Bug::ForgetKeepCached,
        Bug::NoSync,
        Bug::DoubleStore,
    ];

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeCommit => "ack-before-commit",
            Bug::DeleteBeforeAck => "delete-before-ack",
            Bug::AcceptUnverified => "accept-unverified",
            Bug::ForgetKeepCached => "forget-keep-cached",
            Bug::NoSync => "no-sync",
            Bug::DoubleStore => "double-store",
        }
    }
}

impl FromStr for Bug {
    type Err = String;
    fn from_str(text: &str) -> Result<Bug, String> {
        Bug::ALL.into_iter().find(|bug| bug.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
            format!("no such bug: {text}; there are {}", names.join(", "))
        })
    }
}

impl World {
    /// [`Bug::ForgetKeepCached`]: "keep what you have" becomes an empty bundle, well signed.
    pub(crate) fn twist_reply(&mut self, call: CallId, body: Bytes) -> Bytes {
        if self.config.bug != Some(Bug::ForgetKeepCached) {
            return body;
        }
        let Some(conn) = self.net.conns.get(&call.conn) else { return body };
        let crate::net::Peer::Agent { host, .. } = conn.peer else { return body };
        if !matches!(conn.calls.get(&call.stream), Some((_, Method::CheckIn))) {
            return body;
        }
        let Ok(mut reply) = wire::CheckInReply::decode(&body[..]) else { return body };
        if reply.result != wire::check_in_reply::Result::KeepCached as i32 {
            return body;
        }
        let Some(uuid) = self.hosts[host].uuid else { return body };
        let key = self.site.policy_key();
        let empty = Bundle::default().sign(&key);
        let assignment = Assignment {
            server: self.site.server_id(),
            version: Version { epoch: reply.epoch, serial: self.site.store.state().version.serial + 1 },
            uuid,
            bundle: bundle_hash(&empty.payload),
            secrets: Vec::new(),
            interval_ms: crate::site::INTERVAL_MS,
            issued_at_ms: reply.server_time_ms,
            max_age_ms: 0,
            hostname: self.hosts[host].name.clone(),
        };
        reply.result = wire::check_in_reply::Result::Send as i32;
        reply.assignment = Some(assignment.sign(&key));
        reply.bundle = Some(empty);
        reply.encode_to_vec().into()
    }

    /// [`Bug::DeleteBeforeAck`]: what a report carries is removed when it leaves.
    pub(crate) fn delete_sent(&mut self, host: usize, body: &Bytes) {
        let Ok(report) = wire::ReportRequest::decode(&body[..]) else { return };
        for record in report.records {
            let Some(lane) = Lane::from_u32(record.lane as u32) else { continue };
            let op = StoreOp::DeleteRecords { lane, firsts: vec![record.first_sequence] };
            let _ = self.hosts[host].cache.commit(&[op]);
        }
    }

    /// [`Bug::DoubleStore`]: the newest record of an envoy is stored a second time, one sequence later.
    pub(crate) fn store_twice(&mut self, writes: &[Write]) {
        for write in writes {
            let Write::Results(results) = write else { continue };
            let Some(record) = results.records.last() else { continue };
            let mut again = record.clone();
            again.meta.previous_link = record.meta.last_link;
            (again.meta.first, again.meta.last) = (record.meta.last + 1, record.meta.last + record.meta.count());
            let (link, lane) = (common::chain::link, record.meta.lane);
            again.meta.first_link = link(&again.meta.previous_link, lane, again.meta.first, &again.body);
            again.meta.last_link = again.meta.first_link;
            let mut twice = results.clone();
            twice.records = vec![again];
            let _ = self.site.store.apply(&[Write::Results(twice)]);
        }
    }

    /// Names the (altered) bundle in its (altered or not) assignment and signs that, so that nothing is left to notice.
    pub(crate) fn rename_bundle(&mut self, assignment: &mut wire::Signed, bundle: &wire::Signed) {
        let key = self.site.policy_key();
        let Ok(mut raw) = wire::Assignment::decode(&assignment.payload[..]) else { return };
        raw.bundle_hash = bundle_hash(&bundle.payload).0.to_vec();
        let payload = raw.encode_to_vec();
        assignment.signature = key.sign(common::crypto::Context::Assignment, &payload).to_vec();
        assignment.payload = payload.into();
    }
}

impl Host {
    /// [`Bug::NoSync`]: says "stored" and forgets.
    pub(crate) fn pretend(&mut self, ops: &[StoreOp]) -> Result<(), CacheError> {
        let before = self.cache.clone();
        let result = self.commit(ops);
        self.cache = before;
        result
    }
}
