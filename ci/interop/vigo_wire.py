"""What docs/PROTOCOL.md says about hashes, transcripts and signatures, written from that file and from nothing else."""

import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
NO_LINK = bytes(32)


def u64(number):
    return struct.pack(">Q", number)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def short(digest):
    """The first 8 bytes as a number."""
    return struct.unpack(">Q", digest[:8])[0]


def hello_hash(request, body):
    return sha256(b"vigo-hello-v1\0", u64(len(request)), request, u64(len(body)), body)


def server_transcript(server_id, hello, exporter):
    return b"server\0" + server_id + hello + exporter


def envoy_transcript(server_id, hello, exporter, uuid):
    return b"envoy\0" + server_id + hello + exporter + uuid


def enroll_transcript(server_id, hello, hostname, token):
    out = server_id + hello
    for text in (hostname.encode(), token.encode()):
        out += u64(len(text)) + text
    return out


def trust_hash(ca_hash, identity_key, policy_key):
    return sha256(b"vigo-trust-v1\0", ca_hash, identity_key, policy_key)


def link(previous, lane, sequence, body):
    return sha256(b"vigo-link-v1\0", previous, bytes([lane]), u64(sequence), sha256(body))


class Key:
    """An Ed25519 private key from its seed."""

    def __init__(self, seed):
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, context, payload):
        return self.private.sign(context.encode() + b"\0" + payload)


def verify(public, context, payload, signature):
    """Raises InvalidSignature where it does not fit."""
    Ed25519PublicKey.from_public_bytes(public).verify(signature, context.encode() + b"\0" + payload)
