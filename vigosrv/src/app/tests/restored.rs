//! A restore that lost revocations: who may be one of those that were revoked gets no secrets.

use common::crypto::enroll_transcript;

use super::*;

impl Bench {
    /// Enrolls `new-N` by the trusted entry that gives full standing.
    fn enroll(&mut self, n: u8) -> wire::EnrollReply {
        let (conn, _, hash) = self.greet();
        let hostname = format!("new-{n}");
        let transcript = enroll_transcript(&server_id(&identity().public()), &hash, &hostname, "");
        let request = wire::EnrollRequest {
            hostname,
            public_key: envoy_key(n).public().as_bytes().to_vec(),
            sealing_key: vec![n; 32],
            sealing_signature: envoy_key(n).sign(Context::Sealing, &[n; 32]).to_vec(),
            proof: envoy_key(n).sign(Context::Enroll, &transcript).to_vec(),
            ..Default::default()
        };
        let heard = self.call(conn, Method::Enroll, &request);
        wire::EnrollReply::decode(heard.reply.unwrap_or_else(|| panic!("{:?}", heard.failed))).unwrap()
    }

    fn state_of(&mut self, reply: &wire::EnrollReply) -> Enrolled {
        let uuid = Uuid::try_from_slice(&reply.uuid).unwrap();
        let rows = self.store.load().unwrap().envoys;
        let stored = rows.iter().find(|row| row.uuid == uuid).map(|row| row.state);
        assert_eq!(stored, self.server.fleet.with(&uuid, |entry| entry.state));
        stored.unwrap()
    }
}

#[test]
fn secrets_are_withheld_from_all_who_came_since_the_backup_where_revocations_were_lost() {
    let mut bench = Bench::new(&[]);
    let before = bench.enroll(30);
    assert_eq!((before.state.as_str(), bench.state_of(&before)), ("active", Enrolled::Active));
    bench.pass(1_000);
    // An old envoy has seen a revocation that this database does not hold.
    bench.connect_with(10, wire::RevocationEcho { counter: 1, digest: 77 });
    assert_eq!(bench.logged("revoke again what must stay out"), 1, "{:#?}", bench.log);
    assert_eq!(bench.logged("between 2023-11-14T22:13:20.000Z and now"), 1, "{:#?}", bench.log);
    assert_eq!(bench.state_of(&before), Enrolled::Review);
    let after = bench.enroll(31);
    assert_eq!((after.state.as_str(), bench.state_of(&after)), ("review", Enrolled::Review));
    // Those of the backup keep their standing; it is the operator who knows which of them were revoked.
    assert_eq!(bench.server.fleet.with(&envoy(11), |entry| entry.state), Some(Enrolled::Active));
    // Also after a restart.
    bench.restart();
    assert_eq!(bench.state_of(&before), Enrolled::Review);
}
