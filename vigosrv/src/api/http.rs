//! HTTP/1.1 as bytes (RFC 9110, RFC 9112), and what the loop asks of a handler.
//!
//! Pure. Strict where laxness has led to smuggling: one `Content-Length` of digits only or `Transfer-Encoding: chunked` and
//! nothing else, never both; lines that end as they should; origin-form targets only.

use common::limits;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{Origin, Request, Respond, Response};

/// Answers requests. A closure is one.
pub trait ApiHandler {
    /// Answers now or later, from any thread; must not block. Dropping `respond` answers 503.
    fn handle(&mut self, request: Request, respond: Respond);

    /// Bytes that the body of such a request may have.
    fn body_bytes_max(&self, _method: &str, _path: &str, origin: Origin) -> usize {
        match origin {
            Origin::Https => limits::API_NETWORK_BODY_BYTES_MAX,
            Origin::Admin { .. } => limits::API_BODY_BYTES_MAX,
        }
    }
}

impl<F: FnMut(Request, Respond)> ApiHandler for F {
    fn handle(&mut self, request: Request, respond: Respond) {
        self(request, respond);
    }
}

/// Why a request is refused before any handler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest {
    /// The answer.
    pub status: StatusCode,
    /// For people.
    pub why: &'static str,
}

/// Head of an HTTP/1 request.
#[derive(Clone, Debug)]
pub struct Head {
    /// GET, POST, ...
    pub method: Method,
    /// Path.
    pub path: String,
    /// Query without `?`.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Bytes of body that follow; 0 where it comes in chunks.
    pub body_bytes: usize,
    /// The body comes in chunks ([`super::chunked`]).
    pub chunked: bool,
    /// The connection stays open for another request.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl From<BadRequest> for Response {
    fn from(bad: BadRequest) -> Response {
        Response::error(bad.status.as_u16(), "bad_request", bad.why, "")
    }
}

impl Head {
    /// The request, once its body is there.
    pub fn into_request(self, body: bytes::Bytes, origin: Origin) -> Request {
        let host = self.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("").to_owned();
        let method = self.method.as_str().to_owned();
        Request { method, path: self.path, query: self.query, host, body, origin }
    }
}

/// Status line and headers of an answer.
pub fn answer_head(status: u16, content_type: &str, length: u64, keep_alive: bool) -> Vec<u8> {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Status");
    let connection = if keep_alive { "" } else { "connection: close\r\n" };
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-length: {length}\r\ncontent-type: {content_type}\r\n\
         x-content-type-options: nosniff\r\n{connection}\r\n"
    )
    .into_bytes()
}

const fn bad(status: StatusCode, why: &'static str) -> BadRequest {
    BadRequest { status, why }
}

/// Reads a head from the front of `data`: with the number of bytes that it takes, or none while it is incomplete.
pub fn parse_head(data: &[u8]) -> Result<Option<(Head, usize)>, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; limits::API_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let taken = match request.parse(data) {
        Ok(httparse::Status::Complete(taken)) => taken,
        Ok(httparse::Status::Partial) if data.len() < limits::HEADER_BYTES_MAX as usize => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large"));
        }
        Err(httparse::Error::Version) => {
            return Err(bad(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here",
            ));
        }
        Err(_) => return Err(bad(StatusCode::BAD_REQUEST, "this is no HTTP request")),
    };
    let malformed = bad(StatusCode::BAD_REQUEST, "malformed request line or header");
    // The parser takes a bare LF for the end of a line; a proxy before us may not.
    let bare_lf = |at: usize| data[at] == b'\n' && (at == 0 || data[at - 1] != b'\r');
    if (0..taken).any(bare_lf) {
        return Err(malformed);
    }
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes()).map_err(|_| malformed)?;
    let target = request.path.unwrap_or_default();
    if !target.starts_with('/') {
        return Err(bad(StatusCode::BAD_REQUEST, "the request target must be a path"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut map = HeaderMap::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| malformed)?;
        map.append(name, HeaderValue::from_bytes(header.value).map_err(|_| malformed)?);
    }
    let version_1_1 = request.version == Some(1);
    if version_1_1 && map.get_all(http::header::HOST).iter().count() != 1 {
        return Err(bad(StatusCode::BAD_REQUEST, "HTTP/1.1 wants exactly one Host header"));
    }
    let chunked = is_chunked(&map, version_1_1)?;
    let body_bytes = content_length(&map)?;
    let has = |name: HeaderName, token: &str| {
        let values = map.get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(token)))
    };
    let keep_alive =
        if version_1_1 { !has(http::header::CONNECTION, "close") } else { has(http::header::CONNECTION, "keep-alive") };
    let expects_continue = version_1_1 && has(http::header::EXPECT, "100-continue");
    let (path, query) = (path.to_owned(), query.to_owned());
    Ok(Some((Head { method, path, query, headers: map, body_bytes, chunked, keep_alive, expects_continue }, taken)))
}

fn is_chunked(headers: &HeaderMap, version_1_1: bool) -> Result<bool, BadRequest> {
    let mut codings = headers.get_all(http::header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    if !version_1_1 || headers.contains_key(http::header::CONTENT_LENGTH) {
        return Err(bad(StatusCode::BAD_REQUEST, "the length of the body is said in two ways"));
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(bad(StatusCode::NOT_IMPLEMENTED, "the only transfer coding that is known here is `chunked`"));
    }
    Ok(true)
}

fn content_length(headers: &HeaderMap) -> Result<usize, BadRequest> {
    let malformed = bad(StatusCode::BAD_REQUEST, "malformed Content-Length");
    let mut values = headers.get_all(http::header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(0) };
    let digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    if !digits || values.next().is_some() {
        return Err(malformed);
    }
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text =
            b"POST /api/v1/x%20y?a=b&c HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: Close\r\n\r\nhello";
        let whole = text.len() - 5;
        for cut in 0..whole {
            assert!(parse_head(&text[..cut]).unwrap().is_none());
        }
        let (head, taken) = parse_head(text).unwrap().unwrap();
        assert_eq!((taken, head.body_bytes, head.keep_alive), (whole, 5, false));
        assert_eq!((&*head.path, &*head.query, head.method), ("/api/v1/x%20y", "a=b&c", Method::POST));
    }

    #[test]
    fn ambiguous_or_foreign_heads_are_refused() {
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET http://x/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
            ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: a\n\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("\x16\x03\x01\x02\x00\x01", 400),
        ] {
            assert_eq!(parse_head(text.as_bytes()).unwrap_err().status.as_u16(), status, "{text:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(limits::HEADER_BYTES_MAX as usize));
        assert_eq!(parse_head(long.as_bytes()).unwrap_err().status.as_u16(), 431);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(limits::API_HEADERS_MAX));
        assert_eq!(parse_head(many.as_bytes()).unwrap_err().status.as_u16(), 431);
        let (head, _) =
            parse_head(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n").unwrap().unwrap();
        assert!(head.chunked && head.body_bytes == 0);
    }

    #[test]
    fn http_1_0_closes_unless_asked_to_stay() {
        let keep = |text: &str| parse_head(text.as_bytes()).unwrap().unwrap().0.keep_alive;
        assert!(!keep("GET / HTTP/1.0\r\n\r\n") && keep("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
}
