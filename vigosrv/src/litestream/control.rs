//! The control socket of Litestream: HTTP over a Unix socket. Asked for one thing, when the replica last had everything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::time::Wall;
use serde_json::Value;

/// An answer takes milliseconds; one that does not come is none.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// When Litestream last uploaded everything that it knew of, as `GET /list` says.
pub(super) fn last_sync(socket: &Path) -> Option<Wall> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    stream.write_all(b"GET /list HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<Wall> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(answer) else { return None };
    let body: Value = serde_json::from_slice(answer.get(length..)?).ok()?;
    Wall::parse(body["databases"][0]["last_sync_at"].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sync_is_read_and_nonsense_is_none() {
        let body =
            r#"{"databases":[{"path":"/x","status":"replicating","last_sync_at":"2026-11-21T22:54:33.366125175Z"}]}"#;
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
        assert_eq!(parse(answer.as_bytes()).unwrap().to_string(), "2026-11-21T22:54:33.366Z");
        for nonsense in ["", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n{\"databases\":[{}]}"] {
            assert_eq!(parse(nonsense.as_bytes()), None);
        }
    }
}
