"""Sends every wrong input of the tables "Protocol" and "Command line" in docs/BAD_INPUT.md to a real server, and compares what comes back with what
the table says. A row without a case here, or a case without a row, fails. Usage: check_bad_input.py BIN_DIR WORK_DIR."""

import os
import re
import shlex
import socket
import ssl
import sys
import time

import h2.events
from OpenSSL import SSL
from vigo.v1 import agent_pb2 as pb

import vigo_wire as wire
from vigo_client import Channel, Refused, frame
from vigo_server import BIN, DOCS, HELLO, ROOT, authenticate, check, cli, command, enroll_request, greet, main, token

CASES = {}


def case(name):
    """A function that provokes the answer of the row with this name; returns it unless it raises Refused."""

    def add(function):
        CASES[name] = function
        return function

    return add


def table(section):
    """Rows of a section's table: (first cell, second cell)."""
    text = (DOCS / "BAD_INPUT.md").read_text()
    part = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return [(row[0], row[1]) for row in rows[1:]]


def fits(expected, actual):
    """`…` in the table stands for anything; backticks are the table's own."""
    pattern = ".*".join(re.escape(piece) for piece in expected.replace("`", "").split("…"))
    return re.fullmatch(pattern, actual.replace("`", ""), re.S) is not None


# ---------------------------------------------------------------- helpers


def member(server, name, **more):
    """An enrolled and authenticated envoy: (channel, body, key, enrolled)."""
    key = wire.Key(os.urandom(32))
    channel, body, hello = greet(server)
    request = enroll_request(key, hello, body, name, token())
    enrolled = pb.EnrollReply.FromString(channel.call("Enroll", request.SerializeToString()))
    reply = authenticate(channel, body, hello, key, enrolled.uuid, **more)
    assert reply.result == pb.AuthenticateReply.OK, reply
    return channel, body, key, enrolled


def enroll(server, change=lambda request: None, name="bad-input", secret=None):
    key = wire.Key(os.urandom(32))
    channel, body, hello = greet(server)
    request = enroll_request(key, hello, body, name, token() if secret is None else secret)
    change(request)
    return channel.call("Enroll", request.SerializeToString())


def record(**changes):
    body = pb.RunResult(run_id=bytes(16), counts=pb.RunCounts(ok=1)).SerializeToString()
    first = wire.link(wire.NO_LINK, 1, 1, body)
    fields = dict(lane=1, first_sequence=1, last_sequence=1, previous_link=wire.NO_LINK, first_link=first, last_link=first, run=body)
    return pb.Record(**{**fields, **changes})


def report(server, name, *records, **more):
    channel = member(server, name)[0]
    return channel.call("Report", pb.ReportRequest(records=records, **more).SerializeToString())


def authenticated_as(result):
    return "result " + pb.AuthenticateReply.Result.Name(result)


def until_closed(channel, seconds):
    """Waits for the server to end the connection."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in channel.receive():
            if isinstance(event, h2.events.ConnectionTerminated):
                return "connection closed"
        channel._flush()
    return "connection open"


# ---------------------------------------------------------------- order


@case("`CheckIn` as the first call")
def _(server):
    return Channel(server.grpc, server.ca).call("CheckIn", b"")


@case("`Enroll` as the first call")
def _(server):
    return Channel(server.grpc, server.ca).call("Enroll", b"")


@case("`Authenticate` as the first call")
def _(server):
    return Channel(server.grpc, server.ca).call("Authenticate", b"")


@case("`Report` after `Hello` alone")
def _(server):
    return greet(server)[0].call("Report", b"")


@case("`Hello` twice on a connection")
def _(server):
    return greet(server)[0].call("Hello", HELLO.SerializeToString())


@case("`Hello` with an unknown protocol version")
def _(server):
    return Channel(server.grpc, server.ca).call("Hello", pb.HelloRequest(protocol_versions=[99]).SerializeToString())


@case("a method that does not exist")
def _(server):
    return greet(server)[0].call("Reboot", b"")


@case("a message that is no protobuf")
def _(server):
    return greet(server)[0].call("Enroll", b"\xff\xff\xff\xff")


# ---------------------------------------------------------------- frames and HTTP/2


@case("a frame that announces 2 GiB")
def _(server):
    return Channel(server.grpc, server.ca).exchange("/vigo.v1.Agent/Hello", b"\0\x7f\xff\xff\xff" + bytes(100))


@case("more than 16 KiB before authentication")
def _(server):
    return Channel(server.grpc, server.ca).exchange("/vigo.v1.Agent/Hello", frame(bytes(64 << 10)))


@case("a body that ends before its message")
def _(server):
    return Channel(server.grpc, server.ca).exchange("/vigo.v1.Agent/Hello", frame(bytes(100))[:50])


@case("a compressed message")
def _(server):
    return Channel(server.grpc, server.ca).exchange("/vigo.v1.Agent/Hello", b"\1" + frame(b"x")[1:])


@case("two messages in a unary call")
def _(server):
    return Channel(server.grpc, server.ca).exchange("/vigo.v1.Agent/Hello", frame(b"") * 2)


@case("`GET` instead of `POST`")
def _(server):
    return Channel(server.grpc, server.ca).exchange("/vigo.v1.Agent/Hello", b"", method="GET")


@case("a content type other than gRPC")
def _(server):
    return Channel(server.grpc, server.ca).exchange("/vigo.v1.Agent/Hello", b"{}", content_type="application/json")


@case("10,000 streams opened and reset at once")
def _(server):
    channel = Channel(server.grpc, server.ca)
    try:
        for _ in range(10_000):
            stream = channel.start("/vigo.v1.Agent/Hello")
            channel.http.reset_stream(stream, 8)
            channel._flush()
        return until_closed(channel, 20)
    except (ConnectionError, SSL.Error):
        return "connection closed"


@case("a header of 1 MiB")
def _(server):
    channel = Channel(server.grpc, server.ca)
    try:
        stream = channel.http.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "https"), (":path", "/vigo.v1.Agent/Hello"), (":authority", "x")]
        channel.http.send_headers(stream, head + [(f"x-{n}", "y" * 8000) for n in range(128)])
        channel._flush()
        channel.answer(stream)
        return "accepted"
    except (ConnectionError, SSL.Error):
        return "connection closed"
    except Refused as refused:
        return f"{refused.status}"


# ---------------------------------------------------------------- the wrong kind of client


@case("TLS 1.2")
def _(server):
    context = ssl.create_default_context(cafile=server.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, port = server.grpc.rsplit(":", 1)
    try:
        context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname="localhost")
        return "accepted"
    except ssl.SSLError as error:
        return "TLS alert " + (error.reason or str(error)).lower().replace("_", " ")


@case("plain HTTP on 1530")
def _(server):
    host, port = server.grpc.rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), 10)
    plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    plain.settimeout(15)
    answer = b""
    try:
        while piece := plain.recv(4096):
            answer += piece
    except ConnectionError:
        pass
    return answer.split(b"\r\n\r\n")[-1].decode(errors="replace").strip() or "connection closed"


@case("HTTP/1.1 over TLS on 1530")
def _(server):
    context = ssl.create_default_context(cafile=server.ca)
    context.set_alpn_protocols(["http/1.1"])
    host, port = server.grpc.rsplit(":", 1)
    try:
        tls = context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname="localhost")
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while piece := tls.recv(4096):
            answer += piece
        return answer.split(b"\r\n\r\n")[-1].decode(errors="replace").strip() or "connection closed"
    except ssl.SSLError as error:
        return "TLS alert " + (error.reason or str(error)).lower().replace("_", " ")
    except ConnectionError:
        return "connection closed"


@case("a client that connects and says nothing")
def _(server):
    host, port = server.grpc.rsplit(":", 1)
    silent = socket.create_connection((host, int(port)), 10)
    silent.settimeout(20)
    started = time.monotonic()
    try:
        while silent.recv(4096):
            pass
    except ConnectionError:
        pass
    return f"closed after {round(time.monotonic() - started)} s"


@case("a handshake and then silence")
def _(server):
    channel = Channel(server.grpc, server.ca, timeout=25)
    started = time.monotonic()
    try:
        until_closed(channel, 25)
    except (ConnectionError, SSL.Error):
        pass
    return f"closed after {round(time.monotonic() - started)} s"


# ---------------------------------------------------------------- enrollment


@case("a host name with a blank")
def _(server):
    return enroll(server, name="not a name")


@case("a key of 31 bytes")
def _(server):
    return enroll(server, lambda request: setattr(request, "public_key", bytes(31)))


@case("a sealing key of 5 bytes")
def _(server):
    return enroll(server, lambda request: setattr(request, "sealing_key", bytes(5)))


@case("a sealing key that another key signed")
def _(server):
    other = wire.Key(os.urandom(32)).sign("vigo-sealing-v1", bytes(range(32)))
    return enroll(server, lambda request: setattr(request, "sealing_signature", other))


@case("a proof of another enrollment")
def _(server):
    return enroll(server, lambda request: setattr(request, "token", token()))


@case("an unknown token")
def _(server):
    return enroll(server, secret="no-such-token")


@case("no token and no trusted entry")
def _(server):
    return enroll(server, secret="")


@case("a token used by another key")
def _(server):
    secret = token()
    enroll(server, name="first-user", secret=secret)
    return enroll(server, name="second-user", secret=secret)


@case("a check-in that shows a sealing key which another key signed")
def _(server):
    channel = member(server, "other-sealing-key")[0]
    key = bytes(range(32))
    signature = wire.Key(os.urandom(32)).sign("vigo-sealing-v1", key)
    request = pb.CheckInRequest(sealing_key=key, sealing_signature=signature)
    return channel.call("CheckIn", request.SerializeToString())


@case("a host name that another key holds")
def _(server):
    enroll(server, name="taken")
    return enroll(server, name="taken")


# ---------------------------------------------------------------- authentication


@case("an unknown UUID")
def _(server):
    channel, body, hello = greet(server)
    reply = authenticate(channel, body, hello, wire.Key(os.urandom(32)), os.urandom(16))
    return authenticated_as(reply.result)


@case("a UUID of 15 bytes")
def _(server):
    channel, body, hello = greet(server)
    return authenticate(channel, body, hello, wire.Key(os.urandom(32)), os.urandom(15))


@case("the UUID of another envoy")
def _(server):
    victim = member(server, "victim")[3]
    channel, body, hello = greet(server)
    return authenticated_as(authenticate(channel, body, hello, wire.Key(os.urandom(32)), victim.uuid).result)


@case("a signature made for another connection")
def _(server):
    _, _, key, enrolled = member(server, "replayer")
    channel, body, hello = greet(server)
    old = wire.envoy_transcript(body.server_id, hello, channel.exporter, enrolled.uuid)
    channel, body, hello = greet(server)
    request = pb.AuthenticateRequest(uuid=enrolled.uuid, signature=key.sign("vigo-auth-v1", old), epoch=body.epoch)
    reply = pb.AuthenticateReply.FromString(channel.call("Authenticate", request.SerializeToString()))
    return authenticated_as(reply.result)


@case("a receipt that another server signed")
def _(server):
    channel, body, hello = greet(server)
    key, uuid = wire.Key(os.urandom(32)), os.urandom(16)
    payload = pb.Receipt(
        uuid=uuid, public_key=key.public, sealing_key=bytes(32), hostname="forged", server_id=body.server_id
    ).SerializeToString()
    receipt = pb.Signed(payload=payload, signature=wire.Key(os.urandom(32)).sign("vigo-receipt-v1", payload))
    return authenticate(channel, body, hello, key, uuid, receipt=receipt)


@case("the receipt of another envoy")
def _(server):
    _, _, _, enrolled = member(server, "receipt-owner")
    channel, body, hello = greet(server)
    return authenticate(channel, body, hello, wire.Key(os.urandom(32)), os.urandom(16), receipt=enrolled.receipt)


@case("an envoy that was revoked")
def _(server):
    channel, _, key, enrolled = member(server, "revoked")
    cli("envoys", "revoke", "revoked", "--yes")
    channel, body, hello = greet(server)
    return authenticated_as(authenticate(channel, body, hello, key, enrolled.uuid).result)


# ---------------------------------------------------------------- results and files


@case("a record whose link does not cover its body")
def _(server):
    return report(server, "bad-link", record(last_link=bytes(range(32)), first_link=bytes(range(32))))


@case("a record of sequence 0")
def _(server):
    return report(server, "sequence-zero", record(first_sequence=0, last_sequence=0))


@case("a record without a lane")
def _(server):
    return report(server, "no-lane", record(lane=0))


@case("a stretch that counts more runs than sequences")
def _(server):
    stretch = pb.Record(
        lane=2,
        first_sequence=1,
        last_sequence=3,
        previous_link=wire.NO_LINK,
        first_link=bytes(32),
        last_link=bytes(32),
        stretch=pb.Stretch(count=9).SerializeToString(),
    )
    return report(server, "bad-stretch", stretch)


@case("600 records in one report")
def _(server):
    return report(server, "too-many", *[record()] * 600)


@case("a trait tree that is no JSON")
def _(server):
    return report(server, "bad-trait", traits=[pb.TraitUpdate(path="os", json="{")])


@case("the same report twice")
def _(server):
    channel = member(server, "twice")[0]
    request = pb.ReportRequest(records=[record()]).SerializeToString()
    replies = [pb.ReportReply.FromString(channel.call("Report", request)) for _ in range(2)]
    return "watermark " + " and ".join(str(reply.watermark_urgent) for reply in replies)


@case("another record under a sequence that is stored")
def _(server):
    channel = member(server, "forked")[0]
    other = pb.RunResult(run_id=bytes(15) + b"x", counts=pb.RunCounts(changed=1)).SerializeToString()
    fork = wire.link(wire.NO_LINK, 1, 1, other)
    for each in (record(), record(first_link=fork, last_link=fork, run=other)):
        reply = pb.ReportReply.FromString(channel.call("Report", pb.ReportRequest(records=[each]).SerializeToString()))
    return f"watermark {reply.watermark_urgent}"


@case("a file that the caller's bundle does not name")
def _(server):
    channel = member(server, "curious")[0]
    return channel.call("FetchBlob", pb.FetchBlobRequest(sha256=bytes(32)).SerializeToString())


# ---------------------------------------------------------------- running the tables


def row_check(name, expected):
    def run(server):
        provoke = CASES[name]
        try:
            actual = provoke(server)
            actual = actual if isinstance(actual, str) else f"accepted: {actual!r}"
        except Refused as refused:
            actual = f"{refused.status}: {refused.message}".rstrip(": ")
        except ConnectionError:
            actual = "connection closed"
        assert fits(expected, actual), f"the table says {expected!r}, the server {actual!r}"

    run.__name__ = "bad input: " + name.replace("`", "")
    check(run)


def command_check(name, expected):
    """`PROGRAM ARGUMENTS` and `EXIT: MESSAGE`; ROOT stands for the server's root, NONE for a folder
    that is not there, and YAML for server.yaml."""

    def run(server):
        words = shlex.split(name.strip("`"))
        known = {"ROOT": str(ROOT), "NONE": str(ROOT / "no/such/folder"), "YAML": str(ROOT / "server.yaml")}
        words = [known.get(word, word) for word in words]
        done = command(BIN / words[0], *words[1:], expect=None)
        actual = f"{done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        assert fits(expected, actual), f"the table says {expected!r}, the program {actual!r}"

    run.__name__ = "bad input: " + name.replace("`", "")
    check(run)


rows = table("Protocol")
for name, expected in rows:
    if name in CASES:
        row_check(name, expected)
missing = [name for name, _ in rows if name not in CASES] + [name for name in CASES if name not in dict(rows)]


@check
def every_row_of_the_table_has_a_case_and_every_case_a_row(server):
    assert not missing, missing


for name, expected in table("Command line"):
    command_check(name, expected)


@check
def server_is_well_after_all_that(server):
    channel = member(server, "survivor")[0]
    answer = pb.CheckInReply.FromString(channel.call("CheckIn", pb.CheckInRequest().SerializeToString()))
    assert answer.result in (pb.CheckInReply.SEND, pb.CheckInReply.KEEP_CACHED), answer
    assert server.process.poll() is None


sys.exit(main())
