//! Fuzz bodies for what arrives on the wire: messages, records, and signed objects.
//!
//! Each takes arbitrary bytes and panics when a property breaks: decoding never panics, and what was accepted encodes to
//! something that is accepted as the same. `ci/fuzz` calls them; so does a unit test of this file.

use prost::Message;

use crate::bundle::{Assignment, Bundle, Receipt, Refused};
use crate::crypto::{Context, SigningKey};
use crate::proto::{record_meta, wire};

/// The first byte chooses a message of the protocol, the rest is its encoding.
pub fn fuzz_message(data: &[u8]) {
    /// Decodes, encodes, decodes again.
    fn round_trip<M: Message + Default>(bytes: &[u8]) {
        let Ok(message) = M::decode(bytes) else { return };
        let encoded = message.encode_to_vec();
        // Encodings are compared, not messages: a NaN is not equal to itself.
        let again = M::decode(&encoded[..]).map(|message| message.encode_to_vec());
        assert_eq!(again.as_ref(), Ok(&encoded), "a decoded message changes when it is encoded again");
    }
    let Some((kind, bytes)) = data.split_first() else { return };
    let kinds = [
        round_trip::<wire::HelloRequest>,
        round_trip::<wire::HelloReply>,
        round_trip::<wire::HelloBody>,
        round_trip::<wire::RecoveryStatement>,
        round_trip::<wire::EnrollRequest>,
        round_trip::<wire::EnrollReply>,
        round_trip::<wire::AuthenticateRequest>,
        round_trip::<wire::AuthenticateReply>,
        round_trip::<wire::CheckInRequest>,
        round_trip::<wire::CheckInReply>,
        round_trip::<wire::ReportRequest>,
        round_trip::<wire::ReportReply>,
        round_trip::<wire::RunResult>,
        round_trip::<wire::Stretch>,
        round_trip::<wire::Redirect>,
        round_trip::<wire::FetchBlobRequest>,
        round_trip::<wire::BlobChunk>,
        round_trip::<wire::WatchEvent>,
    ];
    kinds[usize::from(*kind) % kinds.len()](bytes);
}

/// A queue record as it arrives in a report.
pub fn fuzz_record(data: &[u8]) {
    let Ok(record) = wire::Record::decode(data) else { return };
    let Ok((meta, _)) = record_meta(&record) else { return };
    assert!(meta.first >= 1 && meta.first <= meta.last && meta.count() >= 1, "{meta:?}");
    let again = wire::Record::decode(&record.encode_to_vec()[..]);
    let again = again.map(|record| record_meta(&record).map(|(meta, _)| meta));
    assert_eq!(again, Ok(Ok(meta)), "an accepted record is refused when it is encoded again");
}

/// The payload of a bundle whose signature is good.
pub fn fuzz_bundle(data: &[u8]) {
    let Ok(bundle) = Bundle::decode(data) else { return };
    let encoded = bundle.encode();
    let again = Bundle::decode(&encoded).map(|bundle| bundle.encode());
    assert_eq!(again.as_ref(), Ok(&encoded), "an accepted bundle changes when it is encoded again");
    let n = bundle.resources.len() as u32;
    for (index, resource) in (0..).zip(&bundle.resources) {
        assert!(resource.depends_on.iter().chain(&resource.after).all(|&to| to < index), "an edge points forward");
        assert!(resource.notify.iter().all(|&to| to > index && to < n), "a notification points backward");
    }
}

/// The payload of an assignment or a receipt: refused without the signature, whatever it says, and round trips with it.
pub fn fuzz_assignment(data: &[u8]) {
    let key = SigningKey::from_seed([7; 32]);
    let forged = wire::Signed { payload: data.to_vec().into(), signature: vec![0; 64], sealed: Vec::new() };
    assert_eq!(Assignment::open(&key.public(), &forged), Err(Refused::Signature));
    assert_eq!(Receipt::open(&key.public(), &forged), Err(Refused::Signature));
    let signed = crate::bundle::sign(&key, Context::Assignment, data.to_vec());
    if let Ok(assignment) = Assignment::open(&key.public(), &signed) {
        let again = Assignment::open(&key.public(), &assignment.sign(&key));
        assert_eq!(again, Ok(assignment), "an accepted assignment changes when it is signed again");
    }
    let signed = crate::bundle::sign(&key, Context::Receipt, data.to_vec());
    if let Ok(receipt) = Receipt::open(&key.public(), &signed) {
        let again = Receipt::open(&key.public(), &receipt.sign(&key));
        assert_eq!(again, Ok(receipt), "an accepted receipt changes when it is signed again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, SplitMix64};

    #[test]
    fn random_bytes_break_nothing() {
        let mut rng = SplitMix64(1);
        for _ in 0..2_000 {
            let mut data = vec![0; rng.below(200) as usize];
            rng.fill(&mut data);
            [fuzz_message, fuzz_record, fuzz_bundle].iter().for_each(|body| body(&data));
        }
        fuzz_assignment(b"");
    }
}
