//! The network between hosts and server.

use super::*;

impl World {
    pub(crate) fn latency(&mut self, host: usize) -> u64 {
        let base = 1 + self.rng.below(40);
        if self.hosts[host].slow { base + self.rng.below(8_000) } else { base }
    }

    pub(crate) fn host_of(&self, conn: ConnId) -> Option<usize> {
        self.net.conns.get(&conn).map(|known| match known.peer {
            Peer::Agent { host, .. } | Peer::Enroller { host } => host,
        })
    }

    pub(crate) fn send_agent(&mut self, conn: ConnId, stream: u32, make: impl FnOnce(ConnId, AgentCall) -> ToAgent) {
        let Some(host) = self.host_of(conn) else { return };
        let latency = self.latency(host);
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        let Some((call, _)) = known.calls.get(&stream) else { return };
        let message = make(conn, *call);
        known.busy_down = known.busy_down.max(self.now + latency);
        let (when, peer) = (known.busy_down, known.peer);
        let incarnation = if let Peer::Agent { incarnation, .. } = peer { incarnation } else { 0 };
        self.agenda.at(when, What::ToAgent { host, incarnation, message });
    }

    pub(crate) fn send_server(&mut self, conn: ConnId, message: ToServer) {
        let Some(host) = self.host_of(conn) else { return };
        let latency = self.latency(host);
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        known.busy_up = known.busy_up.max(self.now + latency);
        let (when, boot) = (known.busy_up, known.boot);
        self.agenda.at(when, What::ToServer { boot, message });
    }

    /// Both ends learn of the end of a connection; what is in flight is lost.
    pub(crate) fn break_conn(&mut self, conn: ConnId) {
        let Some(known) = self.net.conns.remove(&conn) else { return };
        let message = ToServer::Disconnected { conn };
        self.agenda.at(self.now + 5, What::ToServer { boot: known.boot, message });
        match known.peer {
            Peer::Agent { host, incarnation, link } => {
                // Before it was up, the attempt failed.
                let up = known.next_stream > 1 || known.busy_down <= self.now;
                let message = if up { ToAgent::Disconnected { link } } else { ToAgent::ConnectFailed { link } };
                self.agenda.at(self.now + 2, What::ToAgent { host, incarnation, message });
            }
            Peer::Enroller { host } => self.agenda.at(self.now + 10_000, What::Enroll { host }),
        }
    }

    pub(crate) fn open(&mut self, peer: Peer, host: usize) -> ConnId {
        let mut exporter = [0; 32];
        self.rng.fill(&mut exporter);
        let conn = self.net.open(peer, self.site.boot, exporter, self.now);
        self.send_server(conn, ToServer::Connected { conn });
        let latency = 2 * self.latency(host);
        if let Some(known) = self.net.conns.get_mut(&conn) {
            known.busy_down = known.busy_up.max(self.now + latency);
        }
        conn
    }
}
