//! `vigocli`: everything an operator does, one file a group of verbs. A shell: it asks the running server through
//! `run/admin.sock`, or works on the files of a root that has none running.

mod agents;
mod backup;
mod completions;
mod config;
mod doctor;
mod envoys;
mod http;
mod kit;
mod runs;
mod secrets;
mod server;
mod status;

pub(crate) use http::{get, post};

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, CommonOption, Exit, Failure, JSON, Program, ROOT, VERBOSE, YES};

use crate::config::ServerConfig;

/// The binary.
pub const PROGRAM: Program = Program { name: "vigocli", options: &[&ROOT, &JSON, &YES, &VERBOSE, &SERVER_YAML] };

/// Another configuration file than `server.yaml` in the root.
pub const SERVER_YAML: CommonOption = CommonOption {
    names: &["--server-yaml"],
    value: Some("FILE"),
    help: "configuration (default server.yaml in the root)",
};

/// Administers a Vigo server: envoys, policy, runs.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(example = "{command_name} nodes --root /srv/vigo")]
pub struct Top {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Nodes(envoys::Nodes),
    Envoys(envoys::Envoys),
    Runs(runs::Runs),
    Events(runs::Events),
    Traits(envoys::Traits),
    Config(config::Config),
    Secrets(secrets::Secrets),
    Server(server::ServerVerbs),
    Agents(agents::Agents),
    Backup(backup::Backup),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
}

/// Does what the command line says.
pub fn run(top: Top, common: &Common) -> Result<Exit, Failure> {
    match top.verb {
        Verb::Nodes(verb) => envoys::nodes(verb, common),
        Verb::Envoys(verb) => envoys::run(verb, common),
        Verb::Runs(verb) => runs::run(verb, common),
        Verb::Events(verb) => runs::events(verb, common),
        Verb::Traits(verb) => envoys::traits(verb, common),
        Verb::Config(verb) => config::run(verb, common),
        Verb::Secrets(verb) => secrets::run(verb, common),
        Verb::Server(verb) => server::run(verb, common),
        Verb::Agents(verb) => agents::run(verb, common),
        Verb::Backup(verb) => backup::run(verb, common),
        Verb::Status(verb) => status::run(verb, common),
        Verb::Doctor(verb) => doctor::run(verb, common),
        Verb::Completions(verb) => completions::run(&verb),
    }
}

/// The server root of this command line.
pub(crate) fn root(common: &Common) -> PathBuf {
    common.path(&ROOT).unwrap_or_else(|| PathBuf::from("/srv/vigo"))
}

/// The same for a command that sets secrets, which the configuration may be waiting for.
pub(crate) fn config_for_secrets(common: &Common) -> Result<ServerConfig, Failure> {
    Ok(ServerConfig::load_for_secrets(&root(common), common.path(&SERVER_YAML).as_deref())?)
}

/// The configuration of that root.
pub(crate) fn config(common: &Common) -> Result<ServerConfig, Failure> {
    Ok(ServerConfig::load(&root(common), common.path(&SERVER_YAML).as_deref())?)
}
