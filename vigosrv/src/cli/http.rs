//! HTTP/1.1 over `run/admin.sock`: one request a connection, blocking, for a command that has nothing else to do.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::cli::{Common, Exit, Failure};
use serde_json::Value;

/// Name of the socket below the root.
const SOCKET: &str = "run/admin.sock";
/// Bytes of one answer: a list of a million envoys.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// A publish of a large tree takes seconds; nothing takes minutes.
const PATIENCE: Duration = Duration::from_secs(120);

/// `GET`.
pub(crate) fn get(common: &Common, path: &str) -> Result<Value, Failure> {
    ask(common, "GET", path, None)
}

/// `POST` with a JSON body.
pub(crate) fn post(common: &Common, path: &str, body: &Value) -> Result<Value, Failure> {
    ask(common, "POST", path, Some(body))
}

/// Whether a server answers on this root.
pub(super) fn running(root: &Path) -> bool {
    UnixStream::connect(root.join(SOCKET)).is_ok()
}

fn ask(common: &Common, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let root = super::root(common);
    let socket = root.join(SOCKET);
    let mut stream = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            Failure::new(Exit::NotPermitted, format!("{}: only root and the owner of the root may", socket.display()))
                .hint("run this as root or with sudo")
        }
        _ => Failure::new(Exit::Unreachable, format!("no server is running on {}", root.display()))
            .hint("start it with `vigosrv serve`, or name another root with `--root`"),
    })?;
    let broken = |error: std::io::Error| Failure::new(Exit::Unreachable, format!("the server hung up: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).map_err(broken)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(broken)?;
    decode(&answer)
}

fn decode(answer: &[u8]) -> Result<Value, Failure> {
    let nonsense = || Failure::new(Exit::Unreachable, "the answer of the server is not HTTP");
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(answer) else { return Err(nonsense()) };
    let status = head.code.ok_or_else(nonsense)?;
    let body: Value = serde_json::from_slice(&answer[length..]).map_err(|_| nonsense())?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let text = |key: &str| body["error"][key].as_str().unwrap_or_default().to_string();
    let exit = match status {
        400 | 404 => Exit::Failed,
        401 | 403 => Exit::NotPermitted,
        503 => Exit::TryAgain,
        422 => Exit::BadConfig,
        _ => Exit::Failed,
    };
    Err(Failure::new(exit, text("message")).hint(text("hint")))
}

/// Percent-encodes what is not plain in a path or a query.
pub(super) fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_become_exit_codes_and_hints() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 60\r\n\r\n{\"error\":{\"code\":\"x\",\"message\":\"no such\",\"hint\":\"look\"}}";
        let failure = decode(answer).unwrap_err();
        assert_eq!((failure.exit, failure.what.as_str(), failure.hint.as_str()), (Exit::Failed, "no such", "look"));
        assert_eq!(decode(b"nonsense").unwrap_err().exit, Exit::Unreachable);
        assert_eq!(encode("web-* x"), "web-%2A%20x");
    }
}
