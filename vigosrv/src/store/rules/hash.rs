//! The two hash chains that a database carries of its own: revocations and audit.

use common::crypto::sha256;
use common::ids::{Hash32, Uuid};

use crate::store::AuditRow;

/// Counter and digest after one more revocation. The digest is the first 8 bytes of SHA-256 over the digest before and the
/// UUID, so that it can be continued from the two numbers that heartbeats carry.
pub fn next_revocation(counter: u64, digest: u64, uuid: &Uuid) -> (u64, u64) {
    let hash = sha256(&[b"vigo-revocation-v1\0", &digest.to_be_bytes(), uuid.as_bytes()]);
    (counter + 1, hash.short())
}

/// Hash of an audit entry over the one before. Texts are framed by their length, so no two entries encode alike.
pub fn audit_link(previous: &Hash32, row: &AuditRow) -> Hash32 {
    let mut bytes = row.at.0.to_be_bytes().to_vec();
    for text in [&row.actor, &row.action, &row.subject, &row.detail] {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    sha256(&[b"vigo-audit-v1\0", &previous.0, &bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::time::Wall;

    #[test]
    fn revocation_digest_depends_on_the_order() {
        let (a, b) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let chain = |uuids: [&Uuid; 2]| uuids.iter().fold((0, 0), |(n, digest), uuid| next_revocation(n, digest, uuid));
        assert_eq!(chain([&a, &b]).0, 2);
        assert_ne!(chain([&a, &b]).1, chain([&b, &a]).1);
    }

    #[test]
    fn audit_entries_that_differ_only_in_where_a_word_ends_have_other_links() {
        let row = |actor: &str, action: &str| AuditRow {
            at: Wall(1),
            actor: actor.into(),
            action: action.into(),
            subject: String::new(),
            detail: String::new(),
        };
        assert_ne!(audit_link(&Hash32::ZERO, &row("ab", "c")), audit_link(&Hash32::ZERO, &row("a", "bc")));
    }
}
