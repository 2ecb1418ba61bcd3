//! The server site: obeying the core, the writer, crashes, publishes, deliveries.

use super::*;

impl World {
    pub(crate) fn server_tick(&mut self, boot: u32) {
        if boot != self.site.boot || self.site.tick_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.site.tick_at = None;
        // A copy that nobody announced, from before an epoch was raised, is read-only by the rules: the operator sees it and
        // says that this is the server to go on with.
        if self.healing && self.site.server.as_ref().is_some_and(|server| server.stepped_down()) {
            self.site.restored = Some("the operator promotes this server".into());
            return self.crash_server(true);
        }
        self.server_event(Event::Tick);
    }

    pub(crate) fn start_server(&mut self) {
        if self.site.server.is_some() {
            return;
        }
        let mut out = Vec::new();
        let (now, seed) = (self.site.now(self.now, WALL_BASE), self.rng.next_u64());
        self.site.start(now, seed, &mut out);
        self.trace(|| format!("server starts, boot {}", self.site.boot));
        self.obey_server(out);
    }

    pub(crate) fn server_event(&mut self, event: Event) {
        let Some(server) = &mut self.site.server else { return };
        let mut out = Vec::new();
        let now = Now { mono: self.now, wall: common::time::Wall(WALL_BASE + self.now.0 as i64) };
        server.handle(now, event, &mut out);
        self.obey_server(out);
    }

    pub(crate) fn obey_server(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Some(left) = &mut self.site.crash_in {
                if *left == 0 {
                    return self.crash_server(false);
                }
                *left -= 1;
            }
            self.server_effect(effect);
        }
        let Some(server) = &self.site.server else { return };
        if let Some(deadline) = server.next_deadline() {
            let deadline = deadline.max(self.now + 1);
            if self.site.tick_at.is_none_or(|at| at > deadline) {
                self.site.tick_at = Some(deadline);
                self.agenda.at(deadline, What::ServerTick { boot: self.site.boot });
            }
        }
    }

    pub(crate) fn server_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { call, body } => {
                self.note_later(call, &body);
                let body = self.twist_reply(call, body);
                self.send_agent(call.conn, call.stream, |conn, call| ToAgent::Reply { conn, call, result: Ok(body) });
            }
            Effect::Fail { call, code, message } => {
                self.trace(|| format!("server fails {call:?}: {code:?} {message}"));
                let streaming = self.net.conns.get(&call.conn).and_then(|conn| conn.calls.get(&call.stream));
                let streaming = matches!(streaming, Some((_, Method::Watch | Method::FetchBlob)));
                let result = (code, message);
                self.send_agent(call.conn, call.stream, |conn, call| {
                    if streaming {
                        ToAgent::End { conn, call, result: Err(result) }
                    } else {
                        ToAgent::Reply { conn, call, result: Err(result) }
                    }
                });
            }
            Effect::Item { call, body } => {
                self.send_agent(call.conn, call.stream, |conn, call| ToAgent::Item { conn, call, body });
                let message = ToServer::StreamReady { call };
                self.agenda.at(self.now + 3, What::ToServer { boot: self.site.boot, message });
            }
            Effect::End { call } => {
                self.send_agent(call.conn, call.stream, |conn, call| ToAgent::End { conn, call, result: Ok(()) });
            }
            Effect::Close { conn, .. } => self.break_conn(conn),
            Effect::Write { ticket, write } => {
                if self.config.bug == Some(Bug::AckBeforeCommit)
                    && let Write::Results(_) = &write
                {
                    // The answer of a store that is ahead of its disk.
                    let mut ahead = self.site.store.clone();
                    let queued: Vec<Write> = self.site.queue.iter().map(|(_, write)| write.clone()).collect();
                    if ahead.apply(&queued).is_ok()
                        && let Ok(mut written) = ahead.apply(std::slice::from_ref(&write))
                        && let Some(written) = written.pop()
                    {
                        self.site.queue.push((u64::MAX, write));
                        self.writer_soon();
                        return self.server_event(Event::Written { ticket, result: Ok(written) });
                    }
                }
                self.site.queue.push((ticket, write));
                self.writer_soon();
            }
            Effect::ReadBlob { ticket, .. } => {
                self.server_event(Event::BlobRead { ticket, result: Err("no blobs here".into()) });
            }
            Effect::AdminReply { result, .. } => {
                // The operator of this fleet does one thing, and does it again until it works.
                if let Err(error) = result {
                    self.trace(|| format!("operator is refused: {error:?}"));
                    let version = self.versions;
                    self.agenda.at(self.now + 10_000, What::Publish { version });
                }
            }
            Effect::Trust { .. } => {}
            Effect::Log { level, line } => self.trace(|| format!("server {level}: {line}")),
        }
    }

    pub(crate) fn note_later(&mut self, call: CallId, body: &[u8]) {
        let method = self.net.conns.get(&call.conn).and_then(|conn| conn.calls.get(&call.stream));
        if matches!(method, Some((_, Method::CheckIn)))
            && let Ok(reply) = wire::CheckInReply::decode(body)
            && reply.result == wire::check_in_reply::Result::Later as i32
        {
            self.site.later_answers += 1;
        }
    }

    pub(crate) fn writer_soon(&mut self) {
        if !self.site.writer_busy {
            self.site.writer_busy = true;
            let when = self.now + 1 + self.rng.below(25);
            self.agenda.at(when, What::WriterTurn { boot: self.site.boot });
        }
    }

    pub(crate) fn writer_turn(&mut self, boot: u32) {
        if boot != self.site.boot || self.site.server.is_none() {
            return;
        }
        self.site.writer_busy = false;
        let batch = std::mem::take(&mut self.site.queue);
        let (tickets, writes): (Vec<u64>, Vec<Write>) = batch.into_iter().unzip();
        let mut results: Vec<Result<_, StoreError>> = Vec::new();
        if self.site.disk_full {
            results.extend(tickets.iter().map(|_| Err(StoreError::Full)));
        } else {
            match self.site.store.apply(&writes) {
                Ok(written) => results.extend(written.into_iter().map(Ok)),
                Err(error) => results.extend(tickets.iter().map(|_| Err(error.clone()))),
            }
            if self.config.bug == Some(Bug::DoubleStore) {
                self.store_twice(&writes);
            }
        }
        if std::mem::take(&mut self.site.lose_ack) {
            self.outcome.happened.insert(Kind::LostAcknowledgement);
            return self.crash_server(false);
        }
        for (ticket, result) in tickets.into_iter().zip(results) {
            if self.site.server.is_none() {
                return;
            }
            self.server_event(Event::Written { ticket, result });
        }
    }

    pub(crate) fn crash_server(&mut self, restart_now: bool) {
        self.trace(|| "server dies".into());
        let committed = self.rng.below(2) == 0;
        self.site.kill(committed);
        for conn in self.net.conns.keys().copied().collect::<Vec<_>>() {
            self.break_conn(conn);
        }
        let wait = if restart_now || self.healing { 100 } else { 500 + self.rng.below(90_000) };
        self.agenda.at(self.now + wait, What::ServerStart);
    }

    pub(crate) fn publish(&mut self, version: u32) {
        self.remember_version(version);
        let compiled = policy::version(version);
        self.site.live = Some(compiled.clone());
        self.served_version = Some(version);
        self.versions = self.versions.max(version);
        let ticket = self.site.next_admin;
        self.site.next_admin += 1;
        let request = AdminRequest::Published {
            compiled,
            actor: "operator".into(),
            message: String::new(),
            summary: String::new(),
        };
        self.server_event(Event::Admin { ticket, request });
    }

    pub(crate) fn deliver_to_server(&mut self, boot: u32, message: ToServer) {
        if boot != self.site.boot || self.site.server.is_none() {
            return;
        }
        match message {
            ToServer::Connected { conn } => {
                let Some(exporter) = self.net.conns.get(&conn).map(|known| known.exporter) else { return };
                let peer = std::net::IpAddr::from([127, 0, 0, 1]);
                self.server_event(Event::Connected { conn, peer, exporter });
            }
            ToServer::Disconnected { conn } => self.server_event(Event::Disconnected { conn }),
            ToServer::Request { call, method, body } if self.net.conns.contains_key(&call.conn) => {
                self.server_event(Event::Request { call, method, body });
            }
            ToServer::StreamReady { call } if self.net.conns.contains_key(&call.conn) => {
                self.server_event(Event::StreamReady { call });
            }
            // Lost with its connection.
            ToServer::Request { .. } | ToServer::StreamReady { .. } => {}
        }
    }
}
