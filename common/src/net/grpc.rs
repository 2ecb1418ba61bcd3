//! gRPC over HTTP/2: length-prefixed messages, response heads and status trailers (grpc.io, "gRPC over HTTP2").
//!
//! Pure. Compression is never negotiated, so a compressed message is refused. [`crate::limits`] bounds every message.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::proto::Code;

/// Bytes in front of every message: a flag and a length.
const PREFIX_BYTES: usize = 5;
/// Bytes of a status message that travel; a longer one is cut.
const STATUS_TEXT_BYTES_MAX: usize = 1024;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `grpc-status`.
    pub code: Code,
    /// `grpc-message`, decoded. For people.
    pub message: String,
}

impl Status {
    /// A status with a text.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }

    /// From trailers, or from the head of a response that has nothing else. Without `grpc-status` the HTTP status is
    /// all there is (grpc.io, "HTTP to gRPC Status Code Mapping").
    pub fn from_headers(headers: &HeaderMap, http: StatusCode) -> Status {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match text("grpc-status") {
            Some(code) => Status::new(Code::from_text(code), percent_decode(text("grpc-message").unwrap_or(""))),
            None => {
                let code = match http.as_u16() {
                    400 => Code::Internal,
                    401 => Code::Unauthenticated,
                    403 => Code::PermissionDenied,
                    404 => Code::Unimplemented,
                    429 | 502..=504 => Code::Unavailable,
                    _ => Code::Unknown,
                };
                Status::new(code, format!("the peer answered HTTP {http} without a gRPC status"))
            }
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

/// A message with its prefix, in one buffer.
pub fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    out.put_slice(&prefix(message.len()));
    out.put_slice(message);
    out.freeze()
}

/// The prefix alone, for a message that is too large to copy. A length beyond u32 cannot occur: see `MESSAGE_BYTES_MAX`.
pub(super) fn prefix(len: usize) -> [u8; PREFIX_BYTES] {
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [0, len[0], len[1], len[2], len[3]]
}

/// Exactly one message from the whole body of a unary request or answer, without copying.
pub fn unframe(mut body: Bytes, bytes_max: usize) -> Result<Bytes, Status> {
    let len = peek(&body, bytes_max)?
        .ok_or_else(|| Status::new(Code::InvalidArgument, "the body ends before its gRPC message does"))?;
    body.advance(PREFIX_BYTES);
    match body.len() {
        n if n == len => Ok(body),
        n if n < len => Err(Status::new(Code::InvalidArgument, "the body ends before its gRPC message does")),
        _ => Err(Status::new(Code::InvalidArgument, "more than one message in a unary call")),
    }
}

/// Cuts a stream of bytes into messages. Holds at most one message and one read.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Takes bytes in.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next whole message.
    pub fn pop(&mut self, bytes_max: usize) -> Result<Option<Bytes>, Status> {
        let Some(len) = peek(&self.buffer, bytes_max)? else { return Ok(None) };
        if self.buffer.len() < PREFIX_BYTES + len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// Nothing is left over: the stream may end here.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Head of every gRPC response that carries messages.
pub fn head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(http::header::CONTENT_TYPE, const { HeaderValue::from_static("application/grpc") });
    response
}

/// Trailers that end a call.
pub fn trailers(status: &Status) -> HeaderMap {
    const STATUS: HeaderName = HeaderName::from_static("grpc-status");
    let mut map = HeaderMap::with_capacity(2);
    if status.code == Code::Ok {
        map.insert(STATUS, const { HeaderValue::from_static("0") });
        return map;
    }
    map.insert(STATUS, HeaderValue::from(status.code as u16));
    if let Ok(value) = HeaderValue::try_from(percent_encode(&status.message)) {
        map.insert("grpc-message", value);
    }
    map
}

/// Whether a request is gRPC at all; the error is the plain HTTP answer for it.
pub fn check_request(head: &http::request::Parts) -> Result<(), StatusCode> {
    if head.method != http::Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let kind = head.headers.get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    match kind.and_then(|kind| kind.strip_prefix(b"application/grpc")) {
        Some([] | [b'+' | b';', ..]) => Ok(()),
        _ => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

/// Fuzz body: both parsers agree on every input and on every way to cut it, and neither panics.
pub fn fuzz_frames(data: &[u8]) {
    const MAX: usize = 1 << 12;
    let (cut, data) = data.split_first().map_or((1, data), |(first, rest)| (usize::from(*first).max(1), rest));
    let mut frames = Frames::default();
    let mut messages = Vec::new();
    let mut failed = false;
    'all: for piece in data.chunks(cut) {
        frames.push(piece);
        loop {
            match frames.pop(MAX) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break 'all;
                }
            }
        }
    }
    let whole = unframe(Bytes::copy_from_slice(data), MAX);
    assert_eq!(whole.is_ok(), !failed && messages.len() == 1 && frames.is_empty());
    if let Ok(message) = whole {
        assert_eq!(frame(&message), data);
        assert_eq!([message], messages[..]);
    }
}

/// Length of the message at the front, none while the prefix is incomplete.
fn peek(data: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let [flag, rest @ ..] = data else { return Ok(None) };
    if *flag != 0 {
        return Err(Status::new(Code::Unimplemented, "compressed messages are not supported; send identity encoding"));
    }
    let Some(&[a, b, c, d]) = rest.first_chunk() else { return Ok(None) };
    match usize::try_from(u32::from_be_bytes([a, b, c, d])) {
        Ok(len) if len <= bytes_max => Ok(Some(len)),
        _ => Err(Status::new(Code::ResourceExhausted, format!("a message may have {bytes_max} bytes here"))),
    }
}

/// `grpc-message`: everything but printable ASCII, and `%` itself, as `%XX`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes().take(STATUS_TEXT_BYTES_MAX) {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The inverse; what is not an escape stays as it is.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_message_comes_back() {
        for message in [&b""[..], b"x", &[7; 3000]] {
            assert_eq!(unframe(frame(message), 3000).unwrap(), message);
        }
    }

    #[test]
    fn bad_bodies_are_refused_with_the_right_code() {
        for (body, code) in [
            (&b""[..], Code::InvalidArgument),
            (b"\0\0\0\0", Code::InvalidArgument),
            (b"\0\0\0\0\x02x", Code::InvalidArgument),
            (b"\0\0\0\0\x01xy", Code::InvalidArgument),
            (b"\x01\0\0\0\x01x", Code::Unimplemented),
            (b"\0\0\0\0\x65", Code::ResourceExhausted),
            (b"\0\xff\xff\xff\xff", Code::ResourceExhausted),
        ] {
            assert_eq!(unframe(Bytes::from_static(body), 100).unwrap_err().code, code, "{body:?}");
        }
    }

    #[test]
    fn frames_are_cut_wherever_the_bytes_were_split() {
        let stream = [frame(b"one"), frame(b""), frame(b"three")].concat();
        for cut in 1..stream.len() {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for piece in stream.chunks(cut) {
                frames.push(piece);
                while let Some(message) = frames.pop(100).unwrap() {
                    got.push(message);
                }
            }
            assert_eq!((got, frames.is_empty()), (vec![Bytes::from("one"), Bytes::new(), Bytes::from("three")], true));
        }
    }

    #[test]
    fn status_survives_trailers() {
        for message in ["", "plain", "50 % of naïve \n lines", "%41"] {
            let status = Status::new(Code::Unavailable, message);
            assert_eq!(Status::from_headers(&trailers(&status), StatusCode::OK), status);
        }
        let ok = Status::new(Code::Ok, "");
        assert_eq!(Status::from_headers(&trailers(&ok), StatusCode::OK), ok);
        assert_eq!(Status::from_headers(&HeaderMap::new(), StatusCode::BAD_GATEWAY).code, Code::Unavailable);
    }

    #[test]
    fn only_grpc_posts_pass() {
        let request = |method: &str, kind: &str| {
            let builder = http::Request::builder().method(method).uri("/x").header("content-type", kind);
            check_request(&builder.body(()).unwrap().into_parts().0).map_err(|status| status.as_u16())
        };
        assert_eq!(request("POST", "application/grpc"), Ok(()));
        assert_eq!(request("POST", "application/grpc+proto"), Ok(()));
        assert_eq!(request("POST", "application/grpcx"), Err(415));
        assert_eq!(request("GET", "application/grpc"), Err(405));
    }

    #[test]
    fn fuzz_body_holds_over_its_corpus() {
        for seed in [&b""[..], b"\x01\0\0\0\0\x01x", b"\x02\0\0\0\0\x01xy", b"\x03\x01\0\0\0\0", b"\x04\0\0\0\x20\0"] {
            fuzz_frames(seed);
        }
        let mut rng = crate::rng::SplitMix64(1);
        for _ in 0..2_000 {
            use crate::rng::Rng;
            let mut data = vec![0; rng.below(40) as usize];
            rng.fill(&mut data);
            data.iter_mut().for_each(|byte| *byte = if *byte < 200 { *byte % 3 } else { *byte });
            fuzz_frames(&data);
        }
    }
}
