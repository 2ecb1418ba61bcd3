//! The hosts: obeying the agents' cores, their disks, their runs.

use super::*;

impl World {
    pub(crate) fn start_agent(&mut self, index: usize, reboot: bool) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if host.agent.is_some() || host.uuid.is_none() {
            return;
        }
        if reboot {
            host.boot += 1;
            host.boot_at = now;
        }
        let Some(init) = host.init() else {
            return self.violation(format!("host {index} cannot read its own state"));
        };
        let mut out = Vec::new();
        let host = &mut self.hosts[index];
        let local = host.now(now, WALL_BASE);
        host.agent = Some(Agent::new(init, local, &mut out));
        self.trace(|| format!("agent {index} starts"));
        self.obey_agent(index, out);
    }

    pub(crate) fn agent_event(&mut self, index: usize, event: AgentEvent) {
        let host = &mut self.hosts[index];
        let local = host.now(self.now, WALL_BASE);
        let Some(agent) = &mut host.agent else { return };
        let mut out = Vec::new();
        agent.step(local, event, &mut self.rng, &mut out);
        self.obey_agent(index, out);
    }

    pub(crate) fn obey_agent(&mut self, index: usize, effects: Vec<AgentEffect>) {
        for effect in effects {
            if let Some(left) = &mut self.hosts[index].crash_in {
                if *left == 0 {
                    return self.kill_agent(index, false);
                }
                *left -= 1;
            }
            self.agent_effect(index, effect);
            if self.hosts[index].agent.is_none() {
                return;
            }
        }
        let host = &mut self.hosts[index];
        if let Some(agent) = &host.agent
            && let Some(deadline) = agent.next_deadline()
        {
            let deadline = (host.boot_at + deadline.0).max(self.now + 1);
            if host.tick_at.is_none_or(|at| at > deadline) {
                host.tick_at = Some(deadline);
                let what = What::AgentTick { host: index, incarnation: host.incarnation };
                self.agenda.at(deadline, what);
            }
        }
    }

    pub(crate) fn kill_agent(&mut self, index: usize, reboot: bool) {
        self.trace(|| format!("agent {index} dies{}", if reboot { ", host reboots" } else { "" }));
        self.hosts[index].kill(&mut self.rng);
        for conn in self.net.of_host(index) {
            if let Some(Peer::Agent { .. }) = self.net.conns.get(&conn).map(|known| known.peer) {
                self.break_conn(conn);
            }
        }
        let wait = if self.healing { 100 } else { 200 + self.rng.below(60_000) };
        self.agenda.at(self.now + wait, What::AgentStart { host: index, reboot });
    }

    /// The process executes itself: what it had in memory alone is gone, and there must be nothing.
    fn renew_agent(&mut self, index: usize) {
        let host = &self.hosts[index];
        if host.running.is_some() || host.requests.iter().any(|one| matches!(one, StoreRequest::Commit { .. })) {
            return self.violation(format!("agent {index} begins anew in the middle of something"));
        }
        if self.rng.below(3) > 0 {
            return self.kill_agent(index, false);
        }
        self.agent_event(index, AgentEvent::RenewFailed { reason: "no such program".into() });
    }

    pub(crate) fn agent_effect(&mut self, index: usize, effect: AgentEffect) {
        let incarnation = self.hosts[index].incarnation;
        match effect {
            AgentEffect::Connect { link, .. } => self.connect(index, incarnation, link),
            AgentEffect::Disconnect { link } => {
                if let Some(conn) = self.net.of_link(index, incarnation, link) {
                    // What was sent before is still delivered: the connection is closed behind it.
                    self.send_server(conn, ToServer::Disconnected { conn });
                    self.net.conns.remove(&conn);
                }
            }
            AgentEffect::Call { link, call, method, body, timeout_ms } => {
                self.call(index, incarnation, link, call, method, body);
                let message = ToAgent::Timeout { call };
                self.agenda.at(self.now + timeout_ms, What::ToAgent { host: index, incarnation, message });
            }
            AgentEffect::Stream { link, call, method, body } => self.call(index, incarnation, link, call, method, body),
            AgentEffect::Store { ticket, ops } => {
                self.store_request(index, StoreRequest::Commit { ticket, ops });
            }
            AgentEffect::ReadRecords { ticket, lane, first, max_bytes } => {
                self.store_request(index, StoreRequest::Read { ticket, lane, first, max_bytes });
            }
            AgentEffect::GatherTraits { ticket } => {
                let when = self.now + 1 + self.rng.below(50);
                self.agenda.at(when, What::Traits { host: index, incarnation, ticket });
            }
            AgentEffect::StartRun(order) => {
                crate::check::on_start_run(self, index, &order);
                let local = self.hosts[index].now(self.now, WALL_BASE);
                self.hosts[index].running = Some((order, local));
                let when = self.now + 5 + self.rng.below(4_000);
                self.agenda.at(when, What::RunEnd { host: index, incarnation });
            }
            AgentEffect::StopRun { .. } => {
                self.agenda.at(self.now + 1, What::RunEnd { host: index, incarnation });
            }
            AgentEffect::BlobCheck { ticket, blobs } => {
                let have = &self.hosts[index].blobs;
                let missing = blobs.into_iter().filter(|blob| !have.contains(&blob.sha256)).collect();
                self.agenda.at(self.now + 1, What::BlobsChecked { host: index, incarnation, ticket, missing });
            }
            AgentEffect::BlobWrite { hash, last: true, .. } => {
                self.agenda.at(self.now + 2, What::BlobWritten { host: index, incarnation, hash });
            }
            AgentEffect::BlobWrite { .. }
            | AgentEffect::Promised { .. }
            | AgentEffect::Confirmed { .. }
            | AgentEffect::BlobsKeep(_)
            | AgentEffect::Notify(_) => {}
            AgentEffect::SavePins(pins) => {
                self.hosts[index].saving.push_back(*pins);
                let when = self.now + 1 + self.rng.below(20);
                self.agenda.at(when, What::PinsSaved { host: index, incarnation });
            }
            AgentEffect::RenewSealingKey => {
                let host = &mut self.hosts[index];
                host.sealing = common::crypto::sha256(&[&host.sealing]).0;
                let when = self.now + 1 + self.rng.below(20);
                self.agenda.at(when, What::SealingKey { host: index, incarnation });
            }
            AgentEffect::ControlReply { .. } => {}
            AgentEffect::Log { level, line } => self.trace(|| format!("agent {index} {level}: {line}")),
            AgentEffect::Renew => self.renew_agent(index),
            AgentEffect::Exit { code } => {
                self.violation(format!("agent {index} ends by itself with {code}"));
            }
        }
    }

    pub(crate) fn connect(&mut self, index: usize, incarnation: u32, link: LinkId) {
        let refused = |wait| (wait, ToAgent::ConnectFailed { link });
        let trouble = if self.hosts[index].partitioned {
            Some(refused(common::limits::CONNECT_TIMEOUT_MS))
        } else if self.site.server.is_none() {
            Some(refused(20))
        } else {
            None
        };
        if let Some((wait, message)) = trouble {
            return self.agenda.at(self.now + wait, What::ToAgent { host: index, incarnation, message });
        }
        let conn = self.open(Peer::Agent { host: index, incarnation, link }, index);
        let Some(known) = self.net.conns.get(&conn) else { return };
        let (when, exporter) = (known.busy_down, known.exporter);
        let message = ToAgent::Connected { link, exporter, ca_trusted: true };
        self.agenda.at(when, What::ToAgent { host: index, incarnation, message });
    }

    pub(crate) fn call(
        &mut self,
        index: usize,
        incarnation: u32,
        link: LinkId,
        call: AgentCall,
        path: &'static str,
        body: bytes::Bytes,
    ) {
        let Some(method) = Method::from_path(path) else {
            return self.violation(format!("agent {index} calls {path}"));
        };
        let Some(conn) = self.net.of_link(index, incarnation, link) else { return };
        if method == Method::Report {
            self.trace(|| format!("agent {index} sends {}", describe_report(&body)));
        }
        if self.config.bug == Some(Bug::DeleteBeforeAck) && method == Method::Report {
            self.delete_sent(index, &body);
        }
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        let stream = known.next_stream;
        known.next_stream += 2;
        known.calls.insert(stream, (call, method));
        self.send_server(conn, ToServer::Request { call: CallId { conn, stream }, method, body });
    }

    pub(crate) fn deliver_to_agent(&mut self, host: usize, incarnation: u32, message: ToAgent) {
        let enroller = match &message {
            ToAgent::Reply { conn, .. } => {
                self.net.conns.get(conn).is_some_and(|known| known.peer == Peer::Enroller { host })
            }
            _ => false,
        };
        if enroller {
            return self.enroll_reply(host, message);
        }
        if !self.alive(host, incarnation) {
            return;
        }
        let event = match message {
            ToAgent::Connected { link, exporter, ca_trusted } => {
                if self.net.of_link(host, incarnation, link).is_none() {
                    return;
                }
                AgentEvent::Connected { link, exporter, ca_trusted, presented_ca: None, ip: None }
            }
            ToAgent::ConnectFailed { link } => AgentEvent::ConnectFailed { link, reason: "refused".into() },
            ToAgent::Disconnected { link } => AgentEvent::Disconnected { link, reason: "reset".into() },
            ToAgent::Reply { conn, call, result } => {
                self.trace(|| format!("agent {host} is answered {}", describe_answer(&result)));
                let Some(known) = self.net.conns.get_mut(&conn) else { return };
                let before = known.calls.len();
                known.calls.retain(|_, (waiting, _)| *waiting != call);
                if known.calls.len() == before {
                    return;
                }
                AgentEvent::Reply { call, result }
            }
            ToAgent::Timeout { call } => {
                let mut found = false;
                for conn in self.net.of_host(host) {
                    if let Some(known) = self.net.conns.get_mut(&conn) {
                        let before = known.calls.len();
                        known.calls.retain(|_, (waiting, _)| *waiting != call);
                        found |= known.calls.len() != before;
                    }
                }
                if !found {
                    return;
                }
                AgentEvent::Reply { call, result: Err((Code::DeadlineExceeded, "too late".into())) }
            }
            ToAgent::Item { conn, call, body } if self.net.conns.contains_key(&conn) => {
                AgentEvent::StreamItem { call, body }
            }
            ToAgent::End { conn, call, result } => {
                let Some(known) = self.net.conns.get_mut(&conn) else { return };
                known.calls.retain(|_, (waiting, _)| *waiting != call);
                AgentEvent::StreamEnd { call, result }
            }
            ToAgent::Item { .. } => return,
        };
        self.agent_event(host, event);
    }

    pub(crate) fn store_request(&mut self, index: usize, request: StoreRequest) {
        let host = &mut self.hosts[index];
        host.requests.push_back(request);
        if host.requests.len() == 1 {
            let (when, incarnation) = (self.now + 1 + self.rng.below(15), host.incarnation);
            self.agenda.at(when, What::StoreTurn { host: index, incarnation });
        }
    }

    pub(crate) fn store_turn(&mut self, index: usize) {
        let Some(request) = self.hosts[index].requests.pop_front() else { return };
        if !self.hosts[index].requests.is_empty() {
            let (when, incarnation) = (self.now + 1 + self.rng.below(15), self.hosts[index].incarnation);
            self.agenda.at(when, What::StoreTurn { host: index, incarnation });
        }
        let event = match request {
            StoreRequest::Commit { ticket, ops } => {
                let result = if self.config.bug == Some(Bug::NoSync) && self.rng.below(4) == 0 {
                    self.hosts[index].pretend(&ops)
                } else {
                    self.hosts[index].commit(&ops)
                };
                self.trace(|| format!("agent {index} stores {}: {result:?}", describe_ops(&ops)));
                if std::mem::take(&mut self.hosts[index].lose_ack) {
                    self.outcome.happened.insert(Kind::LostAcknowledgement);
                    return self.kill_agent(index, false);
                }
                AgentEvent::Stored { ticket, result }
            }
            StoreRequest::Read { ticket, lane, first, max_bytes } => {
                let result = self.hosts[index].cache.read_records(lane, first, max_bytes);
                AgentEvent::Records { ticket, result }
            }
        };
        self.agent_event(index, event);
    }

    pub(crate) fn run_end(&mut self, index: usize) {
        let Some((order, started)) = self.hosts[index].running.take() else { return };
        let mono = self.hosts[index].now(self.now, WALL_BASE).mono;
        let duration = mono.since(started.mono);
        let report = self.hosts[index].converge(&order, started, duration, &mut self.rng);
        self.outcome.runs += 1;
        self.agent_event(index, AgentEvent::RunDone { report: Box::new(report) });
    }

    pub(crate) fn traits(&mut self, index: usize) -> Vec<envoy::agent::TraitTree> {
        let name = self.hosts[index].name.clone();
        let boots = self.hosts[index].boot;
        let tree = |name: &str, value: serde_json::Value, volatile| envoy::agent::TraitTree {
            name: name.into(),
            value: value.into(),
            volatile,
        };
        vec![
            tree("load", serde_json::json!({"one": self.rng.below(100)}), true),
            tree("os", serde_json::json!({"distro": "sim", "kernel": format!("{}", boots / 2)}), false),
            tree("vigo", serde_json::json!({"host": name}), false),
        ]
    }
}

fn describe_record(record: &wire::Record) -> String {
    use wire::record::Body;
    let lane = u32::try_from(record.lane).ok().and_then(Lane::from_u32).map_or("no lane", Lane::name);
    let what = match &record.body {
        Some(Body::Run(_)) => "run",
        Some(Body::Stretch(_)) => "stretch",
        Some(Body::Gap(_)) => "gap",
        Some(Body::Incident(_)) => "incident",
        None => "nothing",
    };
    let link = |bytes: &[u8]| bytes.iter().take(2).map(|byte| format!("{byte:02x}")).collect::<String>();
    let (first, last) = (record.first_sequence, record.last_sequence);
    format!("{what} {lane} {first}..={last} {}>{}", link(&record.previous_link), link(&record.last_link))
}

fn describe_report(body: &[u8]) -> String {
    let records = wire::ReportRequest::decode(body).map(|request| request.records).unwrap_or_default();
    records.iter().map(describe_record).collect::<Vec<_>>().join(", ")
}

/// Where a reply is no answer to a `Report`, its numbers mean nothing.
fn describe_answer(result: &Result<bytes::Bytes, (Code, String)>) -> String {
    match result.as_ref().map(|body| wire::ReportReply::decode(&body[..])) {
        Ok(Ok(reply)) => {
            let (urgent, routine, ms) = (reply.watermark_urgent, reply.watermark_routine, reply.retry_after_ms);
            format!("watermarks {urgent} {routine}, again in {ms} ms")
        }
        Ok(Err(_)) => "something else".into(),
        Err((code, text)) => format!("{code:?}: {text}"),
    }
}

fn describe_ops(ops: &[StoreOp]) -> String {
    let one = |op: &StoreOp| match op {
        StoreOp::PutRecord(put) => format!("+ {}", describe_record(&put.record)),
        StoreOp::DeleteRecords { lane, firsts } => format!("- {} {firsts:?}", lane.name()),
        StoreOp::SetMeta(name, _) => name.clone(),
        StoreOp::SetTrait(name, _) => format!("trait {name}"),
        StoreOp::PutSlot { .. } => "slot".into(),
    };
    ops.iter().map(one).collect::<Vec<_>>().join(", ")
}
