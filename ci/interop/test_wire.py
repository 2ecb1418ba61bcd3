"""Golden vectors: our Python and our Rust compute the same hashes and signatures from the same seeds.

golden.json is written by `UPDATE_GOLDEN=1 cargo test -p vigo-common --test golden_vectors` and compared there with the Rust code.
"""

import json
import pathlib
import sys

import vigo_wire as wire

golden = json.loads((pathlib.Path(__file__).parent / "golden.json").read_text())
given = {name: bytes.fromhex(text) for name, text in golden["given"].items()}
hostname, token = golden["hostname"], golden["token"]

identity, envoy = wire.Key(given["identity_seed"]), wire.Key(given["envoy_seed"])
policy = wire.Key(given["policy_seed"])
server_id = wire.sha256(identity.public)
hello = wire.hello_hash(given["hello_request"], given["hello_body"])
first = wire.link(wire.NO_LINK, 1, 1, given["body"])

computed = {
    "server_id": server_id,
    "hello": hello,
    "hello_signature": identity.sign("vigo-auth-v1", wire.server_transcript(server_id, hello, given["exporter"])),
    "authenticate_signature": envoy.sign(
        "vigo-auth-v1", wire.envoy_transcript(server_id, hello, given["exporter"], given["uuid"])
    ),
    "enroll_proof": envoy.sign("vigo-enroll-v1", wire.enroll_transcript(server_id, hello, hostname, token)),
    "sealing_signature": envoy.sign("vigo-sealing-v1", given["sealing_key"]),
    "policy_key_signature": identity.sign("vigo-policy-key-v1", policy.public),
    "trust_hash": wire.trust_hash(given["ca_hash"], identity.public, policy.public),
    "link_1": first,
    "link_2": wire.link(first, 1, 2, given["body"]),
}

failed = 0
for name, expected in golden["computed"].items():
    fits = name in computed and computed[name].hex() == expected
    failed += not fits
    print(f"ok golden {name}" if fits else f"not ok golden {name}: {computed.get(name, b'').hex()} instead of {expected}")
if set(computed) != set(golden["computed"]):
    failed += 1
    print("not ok golden.json and test_wire.py hold the same names")
sys.exit(1 if failed else 0)
