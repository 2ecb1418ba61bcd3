"""A client for port 1530 out of pyOpenSSL and h2: TLS 1.3 with its exporter, HTTP/2, gRPC framing. One connection, one call at a time."""

import socket
import struct
import urllib.parse

import h2.config
import h2.connection
import h2.events
from OpenSSL import SSL

import vigo_wire as wire


STATUS = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}


def frame(message):
    """A gRPC message with its prefix."""
    return b"\0" + struct.pack(">I", len(message)) + message


class Refused(Exception):
    """A gRPC status other than OK, by name, or what the HTTP layer said instead."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Channel:
    """A connection. `call` sends one message and returns the first one of the answer."""

    def __init__(self, address, ca_file, timeout=10):
        host, port = address.rsplit(":", 1)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.load_verify_locations(ca_file)
        context.set_verify(SSL.VERIFY_PEER, lambda *a: bool(a[-1]))
        context.set_alpn_protos([b"h2"])
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout)
        # pyOpenSSL works on the file descriptor, which Python made non-blocking for the timeout.
        self.socket.setblocking(True)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", timeout, 0))
        self.tls = SSL.Connection(context, self.socket)
        self.tls.set_tlsext_host_name(b"localhost")
        self.tls.set_connect_state()
        self.tls.do_handshake()
        self.version = self.tls.get_protocol_version_name()
        self.exporter = self.tls.export_keying_material(wire.EXPORTER_LABEL, 32)
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()
        self._flush()

    def _flush(self):
        data = self.http.data_to_send()
        if data:
            self.tls.sendall(data)

    def start(self, path, method="POST", content_type="application/grpc"):
        """Opens a stream with the head of a request."""
        stream = self.http.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "localhost")]
        self.http.send_headers(stream, head + [("content-type", content_type), ("te", "trailers")])
        return stream

    def exchange(self, path, frames, **head):
        """Sends a request whose body is `frames` as they are. The first message of the answer; any other outcome is a Refused."""
        stream = self.start(path, **head)
        early = []
        while frames and not any(isinstance(e, (h2.events.StreamEnded, h2.events.StreamReset)) for e in early):
            room = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size, len(frames))
            if room > 0:
                self.http.send_data(stream, frames[:room])
                frames = frames[room:]
                self._flush()
            else:
                early += self.receive()
                self._flush()
        if not frames:
            self.http.end_stream(stream)
            self._flush()
        return self.answer(stream, early)

    def answer(self, stream, early=()):
        body, headers = b"", {}
        events = list(early)
        while True:
            for event in events:
                if isinstance(event, h2.events.ConnectionTerminated):
                    raise ConnectionError(f"GOAWAY {event.error_code}")
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                    self.http.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    headers.update(event.headers)
                elif isinstance(event, h2.events.StreamReset):
                    # An answer before the end of the request, and then "no error": stop sending (RFC 9113 section 8.1).
                    if event.error_code == 0 and "grpc-status" in headers:
                        return self.outcome(headers, body)
                    raise Refused("RST_STREAM", str(event.error_code))
                if isinstance(event, h2.events.StreamEnded):
                    self._flush()
                    return self.outcome(headers, body)
            self._flush()
            events = self.receive()

    @staticmethod
    def outcome(headers, body):
        if headers.get(":status") != "200":
            raise Refused("HTTP " + headers.get(":status", "?"), "")
        status = int(headers.get("grpc-status", 2))
        if status != 0:
            raise Refused(STATUS.get(status, str(status)), urllib.parse.unquote(headers.get("grpc-message", "")))
        (length,) = struct.unpack(">I", body[1:5])
        return body[5 : 5 + length]

    def receive(self):
        """Events of the next bytes that arrive. A closed connection is a ConnectionError."""
        try:
            data = self.tls.recv(65536)
        except (SSL.ZeroReturnError, SSL.SysCallError) as error:
            raise ConnectionError("closed") from error
        return self.http.receive_data(data)

    def call(self, method, message):
        """A unary call with one message."""
        return self.exchange(f"/vigo.v1.Agent/{method}", frame(message))

    def close(self):
        self.http.close_connection()
        self._flush()
        self.tls.shutdown()
        self.socket.close()
