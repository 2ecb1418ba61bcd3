//! The command line of `vigosrv`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, CommonOption, Exit, Failure, JSON, Program, ROOT, VERBOSE, print};

use super::{Quickstart, quickstart, serve};
use crate::config::ServerConfig;

/// The binary.
pub const PROGRAM: Program = Program { name: "vigosrv", options: &[&ROOT, &CONFIG, &JSON, &VERBOSE] };

const CONFIG: CommonOption =
    CommonOption { names: &["--config"], value: Some("FILE"), help: "configuration (default server.yaml in the root)" };

/// The Vigo server: resolves policy, answers check-ins, stores runs. Without a command it serves.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(example = "{command_name} serve --root /srv/vigo")]
pub struct Top {
    #[argh(subcommand)]
    verb: Option<Verb>,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Serve(Serve),
    Quickstart(QuickstartVerb),
    CheckConfig(CheckConfig),
}

/// Serves until TERM.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "serve", example = "{command_name} --root /srv/vigo")]
struct Serve {
    /// make the replica of `backup.url` this server's, whoever's it was
    #[argh(switch)]
    take_over: bool,
}

/// Shows the main job from nothing to a repaired host, in a directory of its own.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "quickstart", example = "{command_name} --dir /tmp/vigo --keep")]
struct QuickstartVerb {
    /// where (default: a temporary directory, removed at the end)
    #[argh(option)]
    dir: Option<PathBuf>,
    /// leave the server running
    #[argh(switch)]
    keep: bool,
    /// the agent (default: vigo-envoy beside this program, or in PATH)
    #[argh(option)]
    envoy: Option<PathBuf>,
}

/// Validates server.yaml: exit status 0, or 78 with every error and its place.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "check-config", example = "{command_name} --root /srv/vigo")]
struct CheckConfig {}

/// Does what the command line says.
pub fn work(top: Top, common: &Common) -> Result<Exit, Failure> {
    match top.verb {
        None => serve(&config(common)?, false, |_| {}),
        Some(Verb::Serve(verb)) => serve(&config(common)?, verb.take_over, |_| {}),
        Some(Verb::Quickstart(verb)) => {
            quickstart(&Quickstart { dir: verb.dir, keep: verb.keep, envoy: verb.envoy }, common)
        }
        Some(Verb::CheckConfig(_)) => {
            config(common)?;
            let text = if common.json() { "{\"schema\":1,\"valid\":true}\n" } else { "the configuration is valid\n" };
            print(text).map(|()| Exit::Done)
        }
    }
}

fn config(common: &Common) -> Result<ServerConfig, Failure> {
    let root = common.path(&ROOT).unwrap_or_else(|| PathBuf::from("/srv/vigo"));
    Ok(ServerConfig::load(&root, common.path(&CONFIG).as_deref())?)
}
