"""Foreign programs talk to a real server: grpcio, pyOpenSSL with h2, curl, openssl, h2load, sqlite3, and mdb_stat on the store of a real
agent. Usage: check_server.py BIN_DIR WORK_DIR."""

import json
import os
import pathlib
import re
import shutil
import sqlite3
import sys

import grpc
from vigo.v1 import agent_pb2 as pb
from vigo.v1 import agent_pb2_grpc as pb_grpc

import vigo_wire as wire
from vigo_client import Refused
from vigo_server import BIN, HELLO, ROOT, WORK, authenticate, check, check_hello, cli, command, enroll_request, greet, main, token

# ---------------------------------------------------------------- stock gRPC


@check
def stock_grpc_client_calls_hello_and_enrolls(server):
    credentials = grpc.ssl_channel_credentials(pathlib.Path(server.ca).read_bytes())
    target = "localhost:" + server.grpc.rsplit(":", 1)[1]
    with grpc.secure_channel(target, credentials) as channel:
        stub = pb_grpc.AgentStub(channel)
        reply = stub.Hello(HELLO, timeout=10)
        body = pb.HelloBody.FromString(reply.body)
        check_hello(body, server)
        hello = wire.hello_hash(HELLO.SerializeToString(), reply.body)
        key = wire.Key(os.urandom(32))
        enrolled = stub.Enroll(enroll_request(key, hello, body, "stock-grpc", token()), timeout=10)
        assert len(enrolled.uuid) == 16 and enrolled.hostname == "stock-grpc" and enrolled.state == "active", enrolled
        wire.verify(body.identity_key, "vigo-receipt-v1", enrolled.receipt.payload, enrolled.receipt.signature)
        receipt = pb.Receipt.FromString(enrolled.receipt.payload)
        assert receipt.uuid == enrolled.uuid and receipt.public_key == key.public
        try:
            stub.CheckIn(pb.CheckInRequest(), timeout=10)
            raise AssertionError("CheckIn worked without Authenticate")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
        unknown = channel.unary_unary("/vigo.v1.Agent/NoSuchMethod")
        try:
            unknown(b"", timeout=10)
            raise AssertionError("an unknown method worked")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


# ---------------------------------------------------------------- a client with the TLS exporter


@check
def exporter_client_authenticates_checks_in_and_reports(server):
    cli("config", "publish", "--yes", expect=None)
    key = wire.Key(os.urandom(32))
    channel, body, hello = greet(server)
    assert channel.version == "TLSv1.3"
    request = enroll_request(key, hello, body, "exporter", token())
    enrolled = pb.EnrollReply.FromString(channel.call("Enroll", request.SerializeToString()))
    channel.close()

    # Another connection, another exporter: the signature of the first one would not fit.
    channel, body, hello = greet(server)
    reply = authenticate(channel, body, hello, key, enrolled.uuid)
    assert reply.result == pb.AuthenticateReply.OK, reply
    check_in = pb.CheckInRequest(epoch=body.epoch)
    answer = pb.CheckInReply.FromString(channel.call("CheckIn", check_in.SerializeToString()))
    assert answer.result == pb.CheckInReply.SEND, answer
    wire.verify(body.policy_key, "vigo-assignment-v1", answer.assignment.payload, answer.assignment.signature)
    wire.verify(body.policy_key, "vigo-bundle-v1", answer.bundle.payload, answer.bundle.signature)
    assignment = pb.Assignment.FromString(answer.assignment.payload)
    assert assignment.uuid == enrolled.uuid and assignment.server_id == body.server_id
    assert assignment.bundle_hash == wire.sha256(answer.bundle.payload)
    bundle = pb.Bundle.FromString(answer.bundle.payload)
    assert [resource.type for resource in bundle.resources] == ["file"], bundle

    again = pb.CheckInRequest(epoch=assignment.epoch, serial=assignment.serial, bundle_hash=assignment.bundle_hash)
    raw = channel.call("CheckIn", again.SerializeToString())
    answer = pb.CheckInReply.FromString(raw)
    assert answer.result == pb.CheckInReply.NO_CHANGE, answer
    assert len(raw) < 64, f"a no-change answer of {len(raw)} bytes"

    run = pb.RunResult(run_id=os.urandom(16), counts=pb.RunCounts(ok=1), bundle_hash=assignment.bundle_hash)
    encoded = run.SerializeToString()
    first = wire.link(wire.NO_LINK, pb.URGENT, 1, encoded)
    record = pb.Record(
        lane=pb.URGENT,
        first_sequence=1,
        last_sequence=1,
        previous_link=wire.NO_LINK,
        first_link=first,
        last_link=first,
        run=encoded,
    )
    report = pb.ReportRequest(records=[record]).SerializeToString()
    for _ in range(2):
        # The second time it is known already.
        acknowledged = pb.ReportReply.FromString(channel.call("Report", report))
        assert acknowledged.watermark_urgent == 1, acknowledged
    channel.close()
    database = sqlite3.connect(f"file:{ROOT}/db/vigo.db?mode=ro", uri=True)
    tables = " ".join(row[0] for row in database.execute("select sql from sqlite_master where sql is not null"))
    database.close()
    assert "envoy" in tables, tables


@check
def signature_of_another_connection_is_refused(server):
    key = wire.Key(os.urandom(32))
    channel, body, hello = greet(server)
    request = enroll_request(key, hello, body, "replayed", token())
    enrolled = pb.EnrollReply.FromString(channel.call("Enroll", request.SerializeToString()))
    old = wire.envoy_transcript(body.server_id, hello, channel.exporter, enrolled.uuid)
    channel.close()
    channel, body, hello = greet(server)
    replayed = pb.AuthenticateRequest(uuid=enrolled.uuid, signature=key.sign("vigo-auth-v1", old), epoch=body.epoch)
    reply = pb.AuthenticateReply.FromString(channel.call("Authenticate", replayed.SerializeToString()))
    assert reply.result == pb.AuthenticateReply.BAD_SIGNATURE, reply
    try:
        channel.call("CheckIn", pb.CheckInRequest().SerializeToString())
        raise AssertionError("CheckIn worked after a refused Authenticate")
    except Refused as refused:
        assert refused.status == "UNAUTHENTICATED", refused


# ---------------------------------------------------------------- tools that every administrator has


@check
def curl_reads_health_and_metrics(server):
    base = "https://localhost:" + server.api.rsplit(":", 1)[1]
    health = json.loads(command("curl", "-sS", "--fail", "--cacert", server.ca, base + "/health").stdout)
    assert health["status"] == "ok", health
    metrics = command("curl", "-sS", "--fail", "--cacert", server.ca, base + "/metrics").stdout
    assert re.search(r"^vigo_\w+(\{.*\})? [0-9.e+]+$", metrics, re.M), metrics[:400]
    for line in metrics.splitlines():
        assert re.fullmatch(r"#.*|[a-zA-Z_:][\w:]*(\{.*\})? \S+", line), f"not Prometheus text: {line!r}"
    closed = command("curl", "-sS", "--cacert", server.ca, "-w", "%{http_code}", base + "/api/v1/envoys").stdout
    assert closed.endswith("401") and "run/admin.sock" in json.loads(closed[:-3])["error"]["hint"], closed


@check
def openssl_shows_tls_1_3_only(server):
    for address, protocol in ((server.grpc, "h2"), (server.api, "http/1.1")):
        base = ["openssl", "s_client", "-connect", address, "-CAfile", server.ca, "-servername", "localhost"]
        shown = command(*base, "-tls1_3", "-alpn", protocol, "-verify_return_error").stdout
        assert "TLSv1.3" in shown and "Verify return code: 0 (ok)" in shown, shown[-800:]
        assert f"ALPN protocol: {protocol}" in shown, shown[-800:]
        assert "Early data was not sent" in shown or "Max Early Data: 0" in shown, shown[-800:]
        refused = command(*base, "-tls1_2", expect=None)
        assert refused.returncode != 0 and "alert protocol version" in refused.stderr, refused.stderr[-800:]


@check
def h2load_talks_http_2_to_the_agent_port(server):
    message = HELLO.SerializeToString()
    body = WORK / "hello.grpc"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    url = "https://" + server.grpc.replace("127.0.0.1", "localhost") + "/vigo.v1.Agent/Hello"
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    shown = command("h2load", "-n", "400", "-c", "8", "-m", "4", "-d", body, *headers, url).stdout
    assert "400 succeeded, 0 failed, 0 errored, 0 timeout" in shown, shown[-1200:]
    assert "TLSv1.3" in shown and "h2" in shown, shown[-1200:]


@check
def http_1_on_the_agent_port_is_refused_in_words(server):
    url = "https://localhost:" + server.grpc.rsplit(":", 1)[1] + "/"
    done = command("curl", "-sS", "--http1.1", "--cacert", server.ca, "-m", "10", url, expect=None)
    assert done.returncode != 0 or "HTTP/2" in done.stdout or "gRPC" in done.stdout, done.stdout + done.stderr


@check
def sqlite3_reads_the_database_of_a_running_server(server):
    uri = f"file:{ROOT}/db/vigo.db?mode=ro"
    assert command("sqlite3", uri, "PRAGMA integrity_check;").stdout.strip() == "ok"
    names = command("sqlite3", uri, "SELECT hostname FROM envoys ORDER BY hostname;").stdout.split()
    assert {"exporter", "replayed", "stock-grpc"} <= set(names), names
    assert command("sqlite3", uri, "PRAGMA journal_mode;").stdout.strip() == "wal"


@check
def mdb_stat_reads_the_store_of_a_stopped_agent(server):
    home = WORK / "agent"
    for part in ("sysroot", "state", "identity"):
        (home / part).mkdir(parents=True, mode=0o700)
    (home / "envoy.yaml").write_text("{}\n")
    places = ["--config", home / "envoy.yaml", "--state-dir", home / "state", "--identity-dir", home / "identity"]
    line = cli("envoys", "invite").stdout
    hash_given = re.search(r"--trust-hash[= ](\S+)", line)
    trust = ["--trust-hash", hash_given.group(1)] if hash_given else ["--trust-on-first-use"]
    secret = re.search(r"--token[= ](\S+)", line).group(1)
    address = "localhost:" + server.grpc.rsplit(":", 1)[1]
    command(BIN / "vigo-envoy", "enroll", "--server", address, "--token", secret, *trust, *places)
    done = command(BIN / "vigo-envoy", "run", "--once", "--sysroot", home / "sysroot", *places)
    assert (home / "sysroot/hello").read_text() == "hello", done.stdout
    stores = list((home / "state").rglob("data.mdb"))
    assert stores, list((home / "state").rglob("*"))
    copy = WORK / "mdb"
    copy.mkdir()
    shutil.copy(stores[0], copy / "data.mdb")
    shown = command("mdb_stat", "-a", "-e", copy).stdout
    for database in ("bundle", "meta"):
        assert re.search(rf"Status of {database}", shown), shown
    entries = [int(n) for n in re.findall(r"Entries: (\d+)", shown)]
    assert sum(entries) > 0, shown


@check
def server_stops_cleanly_on_term(server):
    assert server.stop() == 0


sys.exit(main())
