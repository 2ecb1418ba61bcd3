//! A server with one policy, and one daemon that has converged on it and holds its connection; asked through its control socket.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use envoy::control::{Request, ask};
use serde_json::Value;
use vigo_e2e::{Envoy, Server, wait_until};

use super::files::Files;

/// How long a run may take.
const RUN: Duration = Duration::from_secs(600);

/// The two, stopped when dropped.
pub struct Station {
    server: Server,
    /// The daemon.
    pub envoy: Envoy,
}

/// What a run came to, as the agent says.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// From the request to the answer, which follows the commit of the run's record.
    pub wall: Duration,
    /// Resources that were changed.
    pub changed: u64,
}

impl Station {
    /// Sets everything up in `dir`, with these binaries, and waits for the first run.
    pub fn start(dir: &Path, files: &Files, server: PathBuf, program: PathBuf) -> Station {
        let policy = files.policy();
        let policy: Vec<(&str, &str)> = policy.iter().map(|(name, text)| (*name, text.as_str())).collect();
        // Long, so that nothing runs but what is asked for.
        let mut server = Server::with_program(dir, "checkin: {interval: 1h}", &policy, server);
        server.start();
        let mut envoy = Envoy::with_program(&dir.join("envoy"), program);
        envoy.enroll(&server, "bench.example");
        envoy.start();
        let mut station = Station { server, envoy };
        wait_until("the first run", || {
            let status = station.ask(&Request::Status);
            (status["last_run"]["changed"].as_u64() > Some(0)).then_some(())
        });
        station.settle();
        station
    }

    /// A run now, from the policy at hand.
    pub fn run(&mut self) -> Result<Ran, String> {
        let from = Instant::now();
        let document = self.ask(&Request::RunOnce { dry_run: false, offline: true, diff: false, all: false });
        let wall = from.elapsed();
        let run = &document["run"];
        if run["failed"] != 0 || run["blocked"] != 0 || run["error"] != "" {
            return Err(format!("a run failed: {run}"));
        }
        let number = |key: &str| run[key].as_u64().unwrap_or(u64::MAX);
        Ok(Ran { wall, changed: number("changed") })
    }

    /// Waits until what changed is delivered; runs without a change wait for company.
    pub fn settle(&mut self) {
        wait_until("the deliveries", || {
            (self.ask(&Request::Status)["queue"]["lanes"][0]["records"] == 0).then_some(())
        });
    }

    /// What policy calls `/`.
    pub fn root(&self) -> PathBuf {
        self.envoy.path("/")
    }

    /// Ends both, the daemon first.
    pub fn stop(mut self) {
        self.envoy.stop();
        self.server.stop();
    }

    fn ask(&self, request: &Request) -> Value {
        let answer = ask(&self.envoy.dir.join("state"), request, RUN);
        answer.unwrap_or_else(|error| panic!("{error}: {}", self.envoy.log()))
    }
}
