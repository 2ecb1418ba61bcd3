//! `vigocli server`: acts on a server as a whole.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, print};
use common::rng::SystemRng;
use common::sys::Clock;
use common::time::Wall;
use common::units::duration_ms;
use serde_json::json;

use super::config;
use super::kit::{epoch, kit_failure};
use crate::config::lock_root;
use crate::keys::{self, Keys, Kit, Surroundings};

/// How long envoys believe a recovery statement when nobody says otherwise.
const STATEMENT_VALID: &str = "365d";

/// Acts on the server as a whole.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "server", example = "{command_name} recover --kit kit.txt")]
pub(super) struct ServerVerbs {
    #[argh(subcommand)]
    verb: ServerVerb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum ServerVerb {
    Recover(Recover),
}

/// Puts this new server in the place of one that is lost: the recovery key of the kit tells its envoys to trust this one.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "recover", example = "{command_name} --kit kit.txt")]
struct Recover {
    /// recovery kit of the lost server, made with --new-recovery-key
    #[argh(option)]
    kit: PathBuf,
    /// how long envoys may come back by it (default 365d)
    #[argh(option)]
    valid: Option<String>,
}

pub(super) fn run(verb: ServerVerbs, common: &Common) -> Result<Exit, Failure> {
    match verb.verb {
        ServerVerb::Recover(verb) => recover(&verb, common),
    }
}

fn recover(verb: &Recover, common: &Common) -> Result<Exit, Failure> {
    let config = config(common)?;
    let valid = verb.valid.as_deref().unwrap_or(STATEMENT_VALID);
    let valid = duration_ms(valid).map_err(|text| Failure::usage(format!("--valid: {text}")))?;
    let kit = Kit::read(&verb.kit).map_err(kit_failure)?;
    let _lock = lock_root(&config.root, "vigocli server recover")?;
    let now = Clock::system().now().wall;
    let around = Surroundings::of_host(&config, now);
    let keys = Keys::prepare(&config, &around, &mut SystemRng::default())?;
    let (old, new) = (kit.server_id(), keys.server_id);
    if old == new {
        return Err(Failure::failed(format!(
            "{} has the identity that the kit is of ({old:.16}): nothing is lost that envoys must be told of",
            config.root.display()
        ))
        .hint("start it as it is; `vigocli secrets key import KIT` brings the master key back"));
    }
    let expires = Wall(now.0.saturating_add(i64::try_from(valid).unwrap_or(i64::MAX)));
    let Some(epoch) = keys::recover(&config, &keys, &kit, epoch(&config)?, expires)? else {
        return Err(Failure::failed(format!(
            "{} holds no recovery key: it was made without --new-recovery-key",
            verb.kit.display()
        ))
        .hint("its envoys come back by the line that `vigocli envoys invite` prints, run on each host"));
    };
    let text = if common.json() {
        let (old, new) = (old.to_string(), new.to_string());
        let document = json!({
            "schema": 1, "old_server_id": old, "server_id": new, "epoch": epoch, "expires": expires.to_string(),
        });
        format!("{document}\n")
    } else {
        format!(
            "this server ({new:.16}) takes the place of {old:.16} until {expires}: start it where envoys reach the old one ({}); \
             they come back in review, `vigocli envoys approve` lets them have secrets\n\
             make a kit of this server now: vigocli secrets key export FILE --new-recovery-key\n",
            kit.hostname
        )
    };
    print(&text).map(|()| Exit::Done)
}
