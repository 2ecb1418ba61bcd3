//! What a service tells its manager (`sd_notify(3)`): one datagram to the socket in `NOTIFY_SOCKET`, and nothing where there
//! is none. Keeps no state and never blocks.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A connection to the service manager; without one every message is dropped.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// The manager expects a sign of life this often, in milliseconds.
    watchdog_ms: Option<u64>,
}

impl Notifier {
    /// As the environment says.
    pub fn from_env() -> io::Result<Notifier> {
        let text = |name| std::env::var_os(name).and_then(|value| value.into_string().ok());
        let for_us = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog_us = text("WATCHDOG_USEC").and_then(|us| us.parse::<u64>().ok()).filter(|us| for_us && *us > 0);
        let socket = match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => Some(connect(&name)?),
            _ => None,
        };
        Ok(Notifier { socket, watchdog_ms: watchdog_us.map(|us| us / 1_000) })
    }

    /// How often [`Notifier::watchdog`] must be called: half of what the manager allows. `None`: never.
    pub fn watchdog_interval_ms(&self) -> Option<u64> {
        self.watchdog_ms.map(|ms| (ms / 2).max(1))
    }

    /// The service is up; `status` is shown by `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", crate::cli::one_line(status)));
    }

    /// The service is going down.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The service begins anew and will say [`Notifier::ready`] again; with the time that managers compare with their own.
    pub fn reloading(&self) {
        let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let us = since_boot.map_or(0, |at| i128::from(at.tv_sec()) * 1_000_000 + i128::from(at.tv_nsec()) / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// A sign of life.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // A manager that does not listen must not stop the service.
            let _ = socket.send(text.as_bytes());
        }
    }
}

/// `/path`, or `@name` in the abstract namespace.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manager: &UnixDatagram, name: &str) {
        let notifier = Notifier { socket: Some(connect(OsStr::new(name)).unwrap()), watchdog_ms: Some(10_001) };
        assert_eq!(notifier.watchdog_interval_ms(), Some(5_000));
        notifier.ready("two\nlines");
        notifier.watchdog();
        notifier.stopping();
        let mut buffer = [0; 100];
        for expected in ["READY=1\nSTATUS=two lines", "WATCHDOG=1", "STOPPING=1"] {
            let n = manager.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], expected.as_bytes());
        }
    }

    #[test]
    fn messages_reach_a_socket_in_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        check(&UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap());
    }

    #[test]
    fn messages_reach_an_abstract_socket() {
        let name = format!("vigo-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(&UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        Notifier::default().ready("");
        assert!(connect(OsStr::new("/nonexistent/socket")).is_err());
    }
}
