//! Hashes, transcripts and signatures from fixed seeds, compared with `ci/interop/golden.json`, which a Python program written from
//! `docs/PROTOCOL.md` is compared with too. `UPDATE_GOLDEN=1 cargo test -p vigo-common --test golden_vectors` writes it.

use std::path::Path;

use common::chain::{Lane, link};
use common::crypto::{self, Context, Side, SigningKey, auth_transcript, enroll_transcript, hello_hash, trust_hash};
use common::ids::{Hash32, Uuid, hex};
use serde_json::json;

#[test]
fn hashes_and_signatures_are_the_published_ones() {
    let seeds = [[1; 32], [2; 32], [3; 32]];
    let [identity, policy, envoy] = seeds.map(SigningKey::from_seed);
    let (request, body): (&[u8], &[u8]) = (b"\x0a\x01\x01", b"a reply body of any bytes \x00\xff");
    let (exporter, uuid, sealing_key, ca_hash) = ([4; 32], [5; 16], [6; 32], Hash32([7; 32]));
    let (hostname, token) = ("web-1.example.com", "vigo-token-1");
    let record: &[u8] = b"an encoded record";

    let server = crypto::server_id(&identity.public());
    let hello = hello_hash(request, body);
    let sign = |key: &SigningKey, context, payload: &[u8]| hex(&key.sign(context, payload));
    let envoy_side = Side::Envoy(Uuid::from_bytes(uuid));
    let first = link(&Hash32::ZERO, Lane::Urgent, 1, record);
    let auth = |side| auth_transcript(side, &server, &hello, &exporter);
    let fresh = json!({
        "given": {
            "identity_seed": hex(&seeds[0]),
            "policy_seed": hex(&seeds[1]),
            "envoy_seed": hex(&seeds[2]),
            "hello_request": hex(request),
            "hello_body": hex(body),
            "exporter": hex(&exporter),
            "uuid": hex(&uuid),
            "sealing_key": hex(&sealing_key),
            "ca_hash": ca_hash.to_string(),
            "body": hex(record),
        },
        "hostname": hostname,
        "token": token,
        "computed": {
            "server_id": server.to_string(),
            "hello": hello.to_string(),
            "hello_signature": sign(&identity, Context::Auth, &auth(Side::Server)),
            "authenticate_signature": sign(&envoy, Context::Auth, &auth(envoy_side)),
            "enroll_proof": sign(&envoy, Context::Enroll, &enroll_transcript(&server, &hello, hostname, token)),
            "sealing_signature": sign(&envoy, Context::Sealing, &sealing_key),
            "policy_key_signature": sign(&identity, Context::PolicyKey, policy.public().as_bytes()),
            "trust_hash": trust_hash(&ca_hash, &identity.public(), &policy.public()).to_string(),
            "link_1": first.to_string(),
            "link_2": link(&first, Lane::Urgent, 2, record).to_string(),
        },
    });
    let fresh = format!("{fresh:#}\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/interop/golden.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, fresh, "the wire format changed: that breaks every agent and server that is out there");
}
