"""A client for port 1530 out of pyOpenSSL and h2: TLS 1.3 with its exporter, HTTP/2, gRPC framing. One connection, one call at a time."""

import socket
import struct

import h2.config
import h2.connection
import h2.events
from OpenSSL import SSL

import vigo_wire as wire


class Refused(Exception):
    """A gRPC status other than OK."""

    def __init__(self, status, message):
        super().__init__(f"grpc-status {status}: {message}")
        self.status = int(status)
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

    def call(self, method, message):
        """The raw bytes of the answer's first message."""
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":path", f"/vigo.v1.Agent/{method}"),
                (":authority", "localhost"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ],
        )
        frame = b"\0" + struct.pack(">I", len(message)) + message
        self.http.send_data(stream, frame, end_stream=True)
        self._flush()
        body, status, text = b"", None, ""
        while True:
            data = self.tls.recv(65536)
            for event in self.http.receive_data(data):
                if isinstance(event, h2.events.DataReceived) and event.stream_id == stream:
                    body += event.data
                    self.http.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    headers = dict(event.headers)
                    status = headers.get("grpc-status", status)
                    text = headers.get("grpc-message", text)
                elif isinstance(event, h2.events.StreamReset) and event.stream_id == stream:
                    raise Refused(13, f"stream reset {event.error_code}")
                elif isinstance(event, h2.events.ConnectionTerminated):
                    raise ConnectionError(f"GOAWAY {event.error_code}")
                elif isinstance(event, h2.events.StreamEnded) and event.stream_id == stream:
                    self._flush()
                    if status != "0":
                        raise Refused(status or 2, text)
                    (length,) = struct.unpack(">I", body[1:5])
                    return body[5 : 5 + length]
            self._flush()

    def close(self):
        self.http.close_connection()
        self._flush()
        self.tls.shutdown()
        self.socket.close()
