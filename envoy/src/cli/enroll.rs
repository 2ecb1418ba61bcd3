//! `vigo-envoy enroll`.

use std::io::Read;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, print};
use common::ids::Hash32;
use common::sys::{Lock, file, net};
use serde_json::json;

use crate::boot::{self, Setup, Trusting};
use crate::cache;
use crate::identity::IdentityDir;

/// Bytes of a token.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// Registers this host with a server.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "enroll", example = "{command_name} --server vigo.example.com --token - --trust-hash HASH")]
pub(super) struct Enroll {
    /// server, as HOST or HOST:PORT (default port 1530)
    #[argh(option)]
    server: String,
    /// one-time token, `-` for standard input, or @FILE; none where a trusted entry matches
    #[argh(option)]
    token: Option<String>,
    /// what `vigocli envoys invite` printed: the server must have this hash
    #[argh(option)]
    trust_hash: Option<String>,
    /// believe whoever answers
    #[argh(switch)]
    trust_on_first_use: bool,
    /// name to enroll under (default: this host's name)
    #[argh(option)]
    hostname: Option<String>,
    /// also where this host is enrolled, because that server is lost: key and queue are kept; stop the agent first
    #[argh(switch)]
    again: bool,
}

pub(super) fn run(verb: &Enroll, setup: &Setup, common: &Common) -> Result<Exit, Failure> {
    let trusting = match (&verb.trust_hash, verb.trust_on_first_use) {
        (Some(_), true) => return Err(Failure::usage("--trust-hash and --trust-on-first-use exclude each other")),
        (Some(text), false) => Trusting::Hash(text.parse::<Hash32>().map_err(|bad| {
            Failure::usage(format!("--trust-hash: {bad}")).hint("copy the whole line of `vigocli envoys invite`")
        })?),
        (None, true) => Trusting::FirstUse,
        (None, false) => Trusting::Ask,
    };
    let wanted = boot::Enroll {
        server: verb.server.clone(),
        token: token(verb.token.as_deref())?,
        hostname: verb.hostname.clone().unwrap_or_else(net::hostname).to_lowercase(),
        trusting,
        again: verb.again,
    };
    // A running agent would write the pins of the server before over the new ones.
    let state = &setup.config.state_dir;
    let lock = (verb.again && state.is_dir()).then(|| Lock::take(&state.join(cache::LOCK_FILE), "vigo-envoy enroll"));
    let _lock = lock.transpose().map_err(|error| {
        Failure::new(Exit::TryAgain, format!("the agent is at work ({error})"))
            .hint("stop it: systemctl stop vigo-envoy")
    })?;
    let dir = IdentityDir::open(&setup.config.identity_dir)?;
    let (enrollment, standing) = boot::enroll(&dir, &wanted, &setup.clock)?;
    let server = &enrollment.pins.server;
    let text = if common.json() {
        let document = json!({
            "schema": 1, "uuid": enrollment.uuid.to_string(), "hostname": server.hostname, "standing": standing,
            "server_id": server.id().to_string(), "servers": server.servers,
        });
        format!("{document}\n")
    } else {
        let note = if standing == "pending" { "; no secrets until `vigocli envoys approve`" } else { "" };
        format!("enrolled as {} ({}), {standing}{note}\n", server.hostname, enrollment.uuid)
    };
    print(&text).map(|()| Exit::Done)
}

fn token(given: Option<&str>) -> Result<String, Failure> {
    let text = match given {
        None => String::new(),
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
            text
        }
        Some(word) => match word.strip_prefix('@') {
            Some(path) => {
                let bytes = file::read_bounded(path.as_ref(), TOKEN_BYTES_MAX)
                    .map_err(|error| Failure::failed(error.to_string()))?;
                String::from_utf8(bytes).map_err(|_| Failure::failed(format!("{path} is not text")))?
            }
            None => word.to_string(),
        },
    };
    let text = text.trim().to_string();
    if given.is_some() && text.is_empty() {
        return Err(Failure::usage("the token is empty").hint("`vigocli envoys invite` makes one"));
    }
    Ok(text)
}
