//! Requests and answers of the REST API, apart from how they travel.

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The HTTPS port: nobody in particular, until users exist.
    Https,
    /// The admin socket: root or the owner of the server root.
    Admin {
        /// The peer's uid.
        uid: u32,
    },
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// Path without the query, as sent.
    pub path: String,
    /// Query without the question mark, as sent.
    pub query: String,
    /// Host header or `:authority`, for links in answers.
    pub host: String,
    /// Whole body.
    pub body: Bytes,
    /// Where from.
    pub origin: Origin,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// What is sent.
    pub body: Body,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, streamed.
    File(PathBuf),
}

/// How an answer is given, now or later, from any thread.
pub type Respond = Box<dyn FnOnce(Response) + Send>;

impl Request {
    /// A query parameter, percent-decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| percent_decode(&value.replace('+', " ")))
    }

    /// Segments of the path, percent-decoded.
    pub fn segments(&self) -> Vec<String> {
        self.path.split('/').filter(|segment| !segment.is_empty()).map(percent_decode).collect()
    }

    /// The body as JSON; nothing at all counts as an empty object.
    pub fn json(&self) -> Result<Value, Response> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Response::error(400, "bad_json", &format!("the body is not JSON: {error}"), ""))
    }

    /// Who asks, for the audit log.
    pub fn actor(&self) -> String {
        match self.origin {
            Origin::Https => "https".into(),
            Origin::Admin { uid } => format!("uid {uid}"),
        }
    }
}

impl Response {
    /// A JSON document.
    pub fn json(value: &Value) -> Response {
        let body = Body::Bytes(Bytes::from(format!("{value}\n")));
        Response { status: 200, content_type: "application/json", body }
    }

    /// Plain text.
    pub fn text(content_type: &'static str, text: String) -> Response {
        Response { status: 200, content_type, body: Body::Bytes(Bytes::from(text)) }
    }

    /// `{"error": {code, message, hint}}`.
    pub fn error(status: u16, code: &str, message: &str, hint: &str) -> Response {
        let value = json!({"error": {"code": code, "message": message, "hint": hint}});
        Response { status, ..Response::json(&value) }
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        out.push(decoded.unwrap_or(bytes[at]));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_decoded() {
        let request = Request {
            method: "GET".into(),
            path: "/api/v1/envoys/a%2eexample".into(),
            query: "name=web-%2A&status=offline+now&bad=%zz".into(),
            host: String::new(),
            body: Bytes::new(),
            origin: Origin::Https,
        };
        assert_eq!(request.segments(), ["api", "v1", "envoys", "a.example"]);
        assert_eq!(request.query("name").as_deref(), Some("web-*"));
        assert_eq!(request.query("status").as_deref(), Some("offline now"));
        assert_eq!(request.query("bad").as_deref(), Some("%zz"));
        assert_eq!(request.query("none"), None);
    }
}
