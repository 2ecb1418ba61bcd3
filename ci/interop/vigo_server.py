"""A real server in a scratch root, the steps that several checks share, and the runner that prints a line a check."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import traceback

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from vigo.v1 import agent_pb2 as pb

import vigo_wire as wire
from vigo_client import Channel

BIN, WORK = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
ROOT = WORK / "root"
DOCS = pathlib.Path(__file__).parent / "../../docs"
HELLO = pb.HelloRequest(protocol_versions=[1], agent_version="interop")
CHECKS = []


def check(function):
    """A check is a function whose name says what holds; it raises where it does not."""
    CHECKS.append(function)
    return function


def command(*arguments, expect=0, text=True, **options):
    done = subprocess.run(
        [str(a) for a in arguments], capture_output=True, text=text, timeout=60, stdin=subprocess.DEVNULL, **options
    )
    if expect is not None and done.returncode != expect:
        raise AssertionError(f"{arguments[0]} exited {done.returncode}: {done.stdout[-800:]} {done.stderr[-800:]}")
    return done


def wait_for(what, seconds, condition):
    """Bounded polling of a real process."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {seconds} s")


def cli(*arguments, **options):
    return command(BIN / "vigocli", "--root", ROOT, *arguments, **options)


class Server:
    """A running vigosrv."""

    def __init__(self):
        ROOT.mkdir()
        (ROOT / "server.yaml").write_text(
            'server: {grpc_listen: "127.0.0.1:0", api_listen: "127.0.0.1:0", hostname: localhost}\n'
            "checkin: {interval: 1s}\n"
        )
        crate = ROOT / "stacks/configcrates/base"
        crate.mkdir(parents=True)
        (crate / "base.vgo").write_text(
            "name: base\nresources:\n  - name: hello\n    type: file\n    target_path: /hello\n    content: hello\n"
        )
        envoys = ROOT / "stacks/envoys"
        envoys.mkdir()
        (envoys / "all.vgo").write_text('envoys:\n  - match: "*"\n    configcrates: [base]\n')
        self.log = open(WORK / "vigosrv.log", "wb")
        self.process = subprocess.Popen(
            [BIN / "vigosrv", "serve", "--root", ROOT], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )
        info = wait_for("run/vigosrv.json", 30, self.ready)
        self.grpc, self.api = info["grpc"], info["api"]
        self.ca = str(ROOT / "tls/ca")

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError("vigosrv ended:\n" + (WORK / "vigosrv.log").read_text()[-2000:])
        try:
            return json.loads((ROOT / "run/vigosrv.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        finally:
            self.process.kill()


def token():
    """A one-time token, from what a person would see."""
    text = cli("envoys", "invite").stdout
    found = re.search(r"--token[= ](\S+)", text)
    assert found, f"no token in {text!r}"
    return found.group(1).strip("'\"")


def enroll_request(key, hello, body, hostname, secret):
    sealing = bytes(range(32))
    return pb.EnrollRequest(
        token=secret,
        hostname=hostname,
        public_key=key.public,
        sealing_key=sealing,
        sealing_signature=key.sign("vigo-sealing-v1", sealing),
        proof=key.sign("vigo-enroll-v1", wire.enroll_transcript(body.server_id, hello, hostname, secret)),
        machine_id="interop",
        os="linux",
        arch="x86_64",
        agent_version="interop",
    )


def check_hello(body, server):
    """Everything in a HelloBody that can be checked without the exporter."""
    assert body.protocol_version == 1
    assert body.server_id == wire.sha256(body.identity_key), "server id is the hash of the identity key"
    wire.verify(body.identity_key, "vigo-policy-key-v1", body.policy_key, body.policy_key_signature)
    ca = x509.load_pem_x509_certificate(pathlib.Path(server.ca).read_bytes())
    assert body.ca_hash == wire.sha256(ca.public_bytes(Encoding.DER)), "ca_hash is the hash of the CA in tls/ca"
    assert body.epoch >= 1


def greet(server):
    channel = Channel(server.grpc, server.ca)
    request = HELLO.SerializeToString()
    reply = pb.HelloReply.FromString(channel.call("Hello", request))
    body = pb.HelloBody.FromString(reply.body)
    check_hello(body, server)
    hello = wire.hello_hash(request, reply.body)
    transcript = wire.server_transcript(body.server_id, hello, channel.exporter)
    wire.verify(body.identity_key, "vigo-auth-v1", transcript, reply.signature)
    return channel, body, hello


def authenticate(channel, body, hello, key, uuid, **more):
    transcript = wire.envoy_transcript(body.server_id, hello, channel.exporter, uuid)
    request = pb.AuthenticateRequest(
        uuid=uuid, signature=key.sign("vigo-auth-v1", transcript), epoch=body.epoch, agent_version="interop", **more
    )
    return pb.AuthenticateReply.FromString(channel.call("Authenticate", request.SerializeToString()))


def main():
    """Runs every check against one server. The exit status of the program."""
    try:
        server = Server()
    except Exception as error:  # every check depends on it
        print(f"not ok server starts: {error}")
        return 1
    failed = 0
    try:
        for function in CHECKS:
            name = function.__name__.replace("_", " ")
            try:
                function(server)
                print(f"ok {name}", flush=True)
            except Exception as error:
                failed += 1
                text = str(error).strip().replace("\n", "\n    ") or type(error).__name__
                print(f"not ok {name}: {text}", flush=True)
                traceback.print_exc(limit=4)
    finally:
        server.process.kill()
    if failed:
        print("---- vigosrv.log\n" + (WORK / "vigosrv.log").read_text()[-3000:])
    return 1 if failed else 0

