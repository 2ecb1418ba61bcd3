//! Enrollment: a small client of the real protocol.

use super::*;

impl World {
    pub(crate) fn enroll(&mut self, host: usize) {
        if self.hosts[host].uuid.is_some() {
            return;
        }
        if self.site.server.is_none() || self.hosts[host].partitioned {
            return self.agenda.at(self.now + 10_000, What::Enroll { host });
        }
        let conn = self.open(Peer::Enroller { host }, host);
        let hello =
            wire::HelloRequest { protocol_versions: vec![1], agent_version: "0.1.0".into(), ..Default::default() };
        self.enroller_sends(conn, method::HELLO, hello.encode_to_vec());
    }

    pub(crate) fn enroller_sends(&mut self, conn: ConnId, path: &'static str, body: Vec<u8>) {
        let Some(method) = Method::from_path(path) else { return };
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        let stream = known.next_stream;
        known.next_stream += 2;
        known.calls.insert(stream, (AgentCall(u64::from(stream)), method));
        self.send_server(conn, ToServer::Request { call: CallId { conn, stream }, method, body: body.into() });
    }

    pub(crate) fn enroll_reply(&mut self, index: usize, message: ToAgent) {
        let ToAgent::Reply { conn, call, result } = message else { return };
        let Ok(body) = result else { return self.break_conn(conn) };
        let hello =
            wire::HelloRequest { protocol_versions: vec![1], agent_version: "0.1.0".into(), ..Default::default() };
        if call == AgentCall(1) {
            let Ok(reply) = wire::HelloReply::decode(&body[..]) else { return };
            let hash = hello_hash(&hello.encode_to_vec(), &reply.body);
            let (key, name) = (self.hosts[index].key(), self.hosts[index].name.clone());
            let transcript = enroll_transcript(&self.site.server_id(), &hash, &name, "");
            let sealing_key = self.hosts[index].sealing.to_vec();
            let request = wire::EnrollRequest {
                hostname: name,
                public_key: key.public().as_bytes().to_vec(),
                sealing_signature: key.sign(Context::Sealing, &sealing_key).to_vec(),
                sealing_key,
                proof: key.sign(Context::Enroll, &transcript).to_vec(),
                ..Default::default()
            };
            return self.enroller_sends(conn, method::ENROLL, request.encode_to_vec());
        }
        let Ok(reply) = wire::EnrollReply::decode(&body[..]) else { return };
        let Ok(uuid) = Uuid::try_from_slice(&reply.uuid) else { return };
        let server = PinnedServer {
            identity_key: self.site.identity_key().public(),
            policy_key: self.site.policy_key().public(),
            recovery_key: None,
            ca_pem: reply.ca_pem,
            ca_hash: Hash32([7; 32]),
            epoch: reply.epoch,
            receipt: reply.receipt,
            hostname: reply.hostname,
            servers: reply.servers,
        };
        self.hosts[index].uuid = Some(uuid);
        self.hosts[index].pins = Some(Pins::new(server));
        self.net.conns.remove(&conn);
        let message = ToServer::Disconnected { conn };
        self.agenda.at(self.now + 3, What::ToServer { boot: self.site.boot, message });
        self.agenda.at(self.now + 50, What::AgentStart { host: index, reboot: false });
    }
}
