//! A verb's end of the control socket.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{REPLY_BYTES_MAX, Reply, Request, SOCKET};

/// Why a daemon gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// Nobody listens.
    NotRunning,
    /// Not our socket to open.
    NotPermitted(String),
    /// It hung up or said nonsense.
    Broken(String),
    /// It refused; the text says why.
    Refused(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::NotRunning => f.write_str("no agent is running on this state directory"),
            ControlError::NotPermitted(path) => write!(f, "{path}: only root and the agent's user may ask the agent"),
            ControlError::Broken(what) => write!(f, "the agent gave no answer: {what}"),
            ControlError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ControlError {}

/// Asks the daemon of a state directory. `within` bounds the whole wait: a run takes as long as it takes.
pub fn ask(state_dir: &Path, request: &Request, within: Duration) -> Result<serde_json::Value, ControlError> {
    let path = state_dir.join(SOCKET);
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => ControlError::NotPermitted(path.display().to_string()),
        _ => ControlError::NotRunning,
    })?;
    let broken = |error: std::io::Error| ControlError::Broken(error.to_string());
    stream.set_read_timeout(Some(within)).map_err(broken)?;
    let mut line = serde_json::to_vec(request).map_err(|error| ControlError::Broken(error.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(broken)?;
    let mut answer = Vec::new();
    stream.take(REPLY_BYTES_MAX as u64).read_to_end(&mut answer).map_err(broken)?;
    if answer.is_empty() {
        return Err(ControlError::Broken("it hung up, it may be busy: try again".into()));
    }
    match serde_json::from_slice(&answer) {
        Ok(Reply::Document(document)) => Ok(document),
        Ok(Reply::Refused(why)) => Err(ControlError::Refused(why)),
        Err(error) => Err(ControlError::Broken(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Control;
    use super::*;
    use common::time::Mono;

    #[test]
    fn a_request_is_answered_over_a_real_socket() {
        let dir = tempfile::tempdir().unwrap();
        let mut poll = mio::Poll::new().unwrap();
        let mut control = Control::bind(&dir.path().join(SOCKET), poll.registry(), 10).unwrap();
        let path = dir.path().to_owned();
        let client = std::thread::spawn(move || ask(&path, &Request::Status, Duration::from_secs(10)));
        let mut events = mio::Events::with_capacity(8);
        while !client.is_finished() {
            // Other tests of this process send signals: an interrupted wait is a short one.
            let _ = poll.poll(&mut events, Some(Duration::from_millis(200)));
            for (waiting, request) in control.drive(poll.registry(), Mono(1)) {
                assert_eq!(request, Request::Status);
                control.reply(waiting, &Reply::Document(serde_json::json!({"ok": true})), Mono(1));
            }
            control.flush(poll.registry());
        }
        assert_eq!(client.join().unwrap(), Ok(serde_json::json!({"ok": true})));
    }

    #[test]
    fn a_request_that_comes_while_another_is_answered_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let poll = mio::Poll::new().unwrap();
        let mut control = Control::bind(&dir.path().join(SOCKET), poll.registry(), 10).unwrap();
        let line = serde_json::to_string(&Request::Status).unwrap() + "\n";
        let connect = || UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        let (mut first, mut second) = (connect(), connect());
        first.write_all(line.as_bytes()).unwrap();
        let asked = control.drive(poll.registry(), Mono(1));
        assert_eq!(asked.len(), 1);
        second.write_all(line.as_bytes()).unwrap();
        control.reply(asked[0].0, &Reply::Document(serde_json::json!({"ok": true})), Mono(1));
        control.flush(poll.registry());
        let mut answer = String::new();
        first.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("ok"), "{answer}");
        assert_eq!(control.drive(poll.registry(), Mono(1)).len(), 1, "the second request is still to be heard");
    }

    #[test]
    fn without_a_daemon_the_answer_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(dir.path(), &Request::Queue, Duration::from_secs(1)), Err(ControlError::NotRunning));
    }
}
